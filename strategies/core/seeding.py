"""Seeds of a strategy's sources of randomness, one a purpose."""

import hashlib
from typing import Final

import torch

__all__ = ["purpose_generator"]


# These keep the seeds under which published numbers came about: apart by their letters' sums. All
# others are hashed, since "adapter 12" and "adapter 21" have the same sum.
_FIRST: Final = {
    purpose: sum(purpose.encode()) * 1_000_003
    for purpose in ("order", "weights", "dropout", "prototypes", "alignment", "held out")
}


def purpose_generator(
    seed: int, experience: int, purpose: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Returns a fresh source of randomness.

    Args:
        seed: Of the run.
        experience: How many experiences have begun.
        purpose: What it is for, such as `order` or `adapter 3`.
        device: Where it draws.
    """
    offset = _FIRST.get(purpose)
    if offset is None:
        text = f"{seed} {experience} {purpose}"
        hashed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return torch.Generator(device).manual_seed(hashed >> 1)
    return torch.Generator(device).manual_seed(seed * 1_000_000_007 + experience * 7919 + offset)
