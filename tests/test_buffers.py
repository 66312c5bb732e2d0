"""Buffers that grow: a state loads whatever size they have now."""

import pytest
import torch
from torch import nn

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.gaussians import ClassGaussians
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.ridge import RidgeHead


class Growing(GrowingBuffers):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.arange(2.0 * rows).reshape(rows, 2))
        self.register_buffer("labels", torch.arange(rows))
        self.register_buffer("scratch", torch.ones(rows), persistent=False)
        self.loaded = 0

    def buffers_loaded(self) -> None:
        self.loaded += 1


@pytest.mark.parametrize("rows", [0, 2, 7])
def test_a_state_of_any_size_is_loaded(rows: int) -> None:
    module, other = Growing(rows), Growing(4)
    before = module.sums
    nn.ModuleList([module]).load_state_dict(nn.ModuleList([other]).state_dict())
    assert torch.equal(module.sums, other.sums)
    assert torch.equal(module.labels, torch.arange(4))
    assert (module.labels.dtype, module.loaded) == (torch.int64, 1)
    assert torch.equal(before, Growing(rows).sums), "who held the old buffer keeps it"
    assert len(module.scratch) == rows


@pytest.mark.filterwarnings(
    "ignore:.*copying from a non-meta parameter"
)  # torch on its own test device
def test_a_buffer_stays_on_its_device() -> None:
    module = Growing(2).to("meta")
    module.load_state_dict(Growing(3).state_dict())
    assert (module.sums.device.type, tuple(module.sums.shape)) == ("meta", (3, 2))


def test_a_missing_buffer_is_named() -> None:
    state = Growing(3).state_dict()
    del state["labels"]
    with pytest.raises(RuntimeError, match='Missing key.*"labels"'):
        Growing(0).load_state_dict(state)


def test_heads_return_from_their_state_whatever_they_hold() -> None:
    draws = torch.Generator().manual_seed(0)
    features, targets = torch.randn(30, 4, generator=draws), torch.arange(30) % 3
    for make in (lambda: PrototypeHead(4), lambda: LinearDiscriminant(4), lambda: RidgeHead(4)):
        head, twin = make(), make()
        head.add_classes([0, 1, 2])
        head.add(features, targets)
        twin.add_classes([0])
        twin.add(features[:5], torch.zeros(5, dtype=torch.int64))
        if isinstance(head, RidgeHead):
            head.solve(1.0)
        if isinstance(twin, LinearDiscriminant):
            twin(features)  # whose classifier is remembered
        twin.load_state_dict(head.state_dict())
        assert torch.equal(twin(features), head(features))
    classes, others = ClassGaussians(4), ClassGaussians(4)
    classes.add(3, features)
    others.load_state_dict(classes.state_dict())
    samples = [each.sample(4, torch.Generator().manual_seed(1))[0] for each in (classes, others)]
    assert torch.equal(*samples)
