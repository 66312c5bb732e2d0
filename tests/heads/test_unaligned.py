"""A head is put back as it was before an alignment, bit for bit."""

import copy

import pytest
import torch
from torch import nn

from cl_adapters.errors import InputError
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.unaligned import UnalignedHead


def grown(cosine_scale: float | None = None) -> ExperienceHeads:
    heads, draws = ExperienceHeads(4, cosine_scale=cosine_scale), torch.Generator().manual_seed(0)
    heads.add_classes([0, 2], draws)
    heads.add_classes([1], draws)
    for value in heads.parameters():
        nn.init.normal_(value, generator=draws)
    return heads


@pytest.mark.parametrize("cosine_scale", [None, 10.0])
def test_what_alignment_changes_is_undone_also_from_a_state(cosine_scale: float | None) -> None:
    heads, kept = grown(cosine_scale), UnalignedHead()
    before = copy.deepcopy(heads.state_dict())
    kept.restore(heads)
    assert all(torch.equal(value, before[name]) for name, value in heads.state_dict().items())
    kept.keep(heads)
    loaded = UnalignedHead()
    loaded.load_state_dict(kept.state_dict())
    for backup in (kept, loaded):
        assert backup.is_kept
        with torch.no_grad():
            for value in heads.parameters():
                value.add_(1)
        backup.restore(heads)
        assert all(torch.equal(value, before[name]) for name, value in heads.state_dict().items())
        assert not backup.is_kept


def test_a_head_that_has_grown_since_is_refused() -> None:
    heads, kept = grown(), UnalignedHead()
    kept.keep(heads)
    heads.add_classes([5], torch.Generator().manual_seed(1))
    with pytest.raises(InputError, match="before it grows: 3 rows were kept, got 4"):
        kept.restore(heads)
