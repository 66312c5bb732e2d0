"""Multi-sample dropout against single masks and their expectation."""

import pytest
import torch
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.multi_dropout import DropoutHeads


def head(share: float, samples: int, seed: int = 7) -> DropoutHeads:
    made = DropoutHeads(5, init_std=1.0, share=share, samples=samples)
    made.add_classes([0, 1, 2], torch.Generator().manual_seed(0))
    made.noise = torch.Generator().manual_seed(seed)
    return made


FEATURES = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 2, 1, 1])


def loss(made: DropoutHeads) -> torch.Tensor:
    return made.loss([0, 1, 2], made(FEATURES), TARGETS)


def test_without_a_share_it_is_the_plain_loss() -> None:
    made = head(0.0, 3)
    torch.testing.assert_close(loss(made), functional.cross_entropy(made(FEATURES), TARGETS))


def test_losses_of_the_masks_are_averaged() -> None:
    made, source = head(0.4, 3), torch.Generator().manual_seed(7)
    layer = made.layers[0]
    masks = torch.empty(3, 4, 5).bernoulli_(0.6, generator=source)
    losses = [functional.cross_entropy(layer(FEATURES * mask / 0.6), TARGETS) for mask in masks]
    found = loss(made)
    torch.testing.assert_close(found, sum(losses) / 3)  # type: ignore[arg-type] # tensors
    # Averaged logits would be another loss.
    logits = torch.stack([layer(FEATURES * mask / 0.6) for mask in masks]).mean(dim=0)
    assert abs(found - functional.cross_entropy(logits, TARGETS)) > 1e-2


def test_more_masks_move_the_gradient_less() -> None:
    def spread(samples: int) -> float:
        found = []
        for seed in range(30):
            made = head(0.5, samples, seed)
            found.append(torch.autograd.grad(loss(made), made.layers[0].weight)[0].flatten())
        return float(torch.stack(found).var(dim=0).sum())

    assert 8 < spread(1) / spread(16) < 32


def test_shown_logits_and_answers_drop_nothing() -> None:
    made = head(0.5, 8)
    expected = made.layers[0](FEATURES)
    assert torch.equal(made(FEATURES), expected)
    state = made.noise.get_state()  # type: ignore[union-attr] # given
    made.eval()
    assert torch.equal(made(FEATURES), expected)
    assert torch.equal(made.noise.get_state(), state)  # type: ignore[union-attr] # given


def test_bad_input_is_refused() -> None:
    made = head(0.5, 2)
    with pytest.raises(InputError, match="must be that of its last pass in training"):
        made.loss([0, 1, 2], made(FEATURES).clone(), TARGETS)
    with pytest.raises(InputError, match=r"`share` must lie in \[0, 1\), got 1"):
        DropoutHeads(5, share=1)
    with pytest.raises(InputError, match="`samples` must"):
        DropoutHeads(5, samples=0)
