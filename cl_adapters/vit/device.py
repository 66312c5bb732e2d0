"""Where to compute: devices by name."""

import torch

from cl_adapters.errors import InputError

__all__ = ["find_device"]


def find_device(name: str) -> torch.device:
    """Returns the torch device of a name; `auto` takes a GPU where there is one.

    Raises:
        InputError: If the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` holds no numbers
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device must be one that torch can use here, got {name!r}: {reason}"
        ) from error
    return device
