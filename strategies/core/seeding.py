"""Seeds of a strategy's sources of randomness, one a purpose."""

import torch

__all__ = ["purpose_generator"]


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
    offset = sum(purpose.encode()) * 1_000_003
    return torch.Generator(device).manual_seed(seed * 1_000_000_007 + experience * 7919 + offset)
