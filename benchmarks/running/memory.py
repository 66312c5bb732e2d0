"""Memory of this process: the most that it held, and the way back for what it freed."""

import ctypes
import resource
import sys
import time
from pathlib import Path

import torch

__all__ = ["FreedMemory", "peak_bytes"]


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory that was held so far: the GPU's, or that of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `getrusage` also counts what the starting process held
        line = next(each for each in status.read_text("utf-8").splitlines() if "VmHWM" in each)
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


class FreedMemory:
    """Gives the system back, now and then, what was freed.

    glibc keeps the blocks of a batch's activations for the next batch, and ever more of them, since
    small things that stay lie between them: without this a run holds hundreds of megabytes more at
    its end than at its beginning. Elsewhere this does nothing.

    Args:
        seconds: Least time between two times; giving back takes about 10 ms, and some more until
            the next batch has its pages again.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(libc, "malloc_trim", None)  # musl has none
        self._seconds, self._last = seconds, time.monotonic()

    def give_back(self) -> None:
        """Gives it back if that is due; to be called where little is in use, between batches."""
        if self._trim is not None and time.monotonic() - self._last >= self._seconds:
            self._trim(0)
            self._last = time.monotonic()
