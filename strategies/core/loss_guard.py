"""A watch on the loss: training ends where it explodes or is no longer a number."""

from typing import Final

import torch
from torch import Tensor

from cl_adapters.errors import RunError

__all__ = ["EXPLODED", "LossGuard"]

# No training comes back from such a loss; a class that no head knows yet costs a thousand.
EXPLODED: Final = 1e6
_LOSSES: Final = 32  # batches between two looks at the loss on a GPU


class LossGuard:
    """Looks at each batch's loss: at once on the CPU, every few batches on a GPU.

    A GPU has to finish its work before it answers, so it is asked about several batches together.

    Args:
        device: Where losses are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._patience = 1 if device.type == "cpu" else _LOSSES
        self._losses: list[tuple[int, Tensor]] = []

    def watch(self, loss: Tensor, batch: int) -> bool:
        """Takes a batch's loss; returns whether the time has come to `check`."""
        self._losses.append((batch, loss.detach().reshape(())))
        return len(self._losses) >= self._patience

    def check(self, experience: int, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Looks at the losses since the last call.

        Args:
            experience: Where training is, from 0.
            epoch: Of the experience, from 0.
            optimizer: Whose learning rates to name.

        Raises:
            RunError: If one is not finite, or at least a million.
        """
        losses, self._losses = self._losses, []
        values = torch.stack([loss for _, loss in losses]).tolist() if losses else []
        for (batch, _), value in zip(losses, values, strict=True):
            if not abs(value) < EXPLODED:  # neither is NaN
                rates = sorted({group["lr"] for group in optimizer.param_groups}, reverse=True)
                raise RunError(
                    f"loss must stay finite and below {EXPLODED:g}, got {value:g} in experience "
                    f"{experience}, epoch {epoch}, batch {batch} at learning rate "
                    f"{', '.join(f'{rate:g}' for rate in rates)}; a lower one may help"
                )
