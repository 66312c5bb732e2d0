"""What every source of images must satisfy, as named checks: for those here and a user's own.

    check_stream(my_stream)    a sentence for each rule that is broken

In a test, one check a case:

    @pytest.mark.parametrize("name", STREAM_CHECKS)
    def test_my_stream_is_sound(name: str) -> None:
        assert check_stream(my_stream, checks=[name]) == []
"""

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import torch

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.streams.class_incremental import make_plan
from cl_adapters.plugins.conformance import run_suite
from cl_adapters.randomness import kept_random_states, seed_random_states

__all__ = ["STREAM_CHECKS", "check_stream"]

Make = Callable[[], ImageSource]

_SOME: Final = 200  # images of a set that are read, about


def check_stream(make: Make, *, checks: Iterable[str] | None = None) -> list[str]:
    """Tests a source of images from outside.

    Args:
        make: Opens it.
        checks: Names of the checks; None runs all.

    Returns:
        A sentence for each rule that is broken, headed by the name of its check.

    Raises:
        InputError: If a check is unknown.

    Example:
        >>> from cl_adapters.benchmarks.data.sources import digits_source
        >>> check_stream(digits_source)
        []
    """
    return run_suite(STREAM_CHECKS, make, checks)


def _some(images: LabelledImages) -> list[int]:
    step = max(1, len(images) // _SOME)
    return list(range(0, len(images), step))


def _opens(make: Make) -> Iterator[str]:
    """Opens, and can be cut into experiences."""
    source = make()
    if not isinstance(source, ImageSource):
        yield f"it must be an ImageSource, got {type(source).__name__}"
        return
    if source.train.classes != source.classes or source.test.classes != source.classes:
        yield "train and test images must name the source's classes in its order, they do not"
    make_plan(source, increment=max(1, len(source.classes) // 2))


def _pixels(make: Make) -> Iterator[str]:
    """Reads each image as uint8 pixels in three channels, the same each time."""
    source = make()
    for split, images in (("train", source.train), ("test", source.test)):
        for index in _some(images):
            pixels = images.read(index)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                yield (
                    f"{split} image {index} must be uint8 of shape (H, W, 3), got {pixels.dtype} "
                    f"of shape {pixels.shape}"
                )
                break
            expected = pixels.copy()
            pixels[:] = 0  # what a reader does to its copy is its own affair
            if not np.array_equal(images.read(index), expected):
                yield f"{split} image {index} must be the same at each reading, got other pixels"
                break


def _repeats(make: Make) -> Iterator[str]:
    """Is the same each time that it is opened."""
    one, two = make().describe(), make().describe()
    if one != two:
        yield "two openings must give the same images and labels, got other checksums"


def _apart(make: Make) -> Iterator[str]:
    """Holds no image in both train and test."""
    source = make()
    shared = set(source.train.digests) & set(source.test.digests)
    if shared:
        name = source.test.name([digest in shared for digest in source.test.digests].index(True))
        yield f"train and test must share no image, got {len(shared)} in both, such as {name}"


def _global_state(make: Make) -> Iterator[str]:
    """Leaves the global random states alone."""
    with kept_random_states():
        seed_random_states(5)  # a state that no one else would choose
        before = _states()
        source = make()
        source.train.read(0)
        if _states() != before:
            yield "global random states must stay as they are, opening the images changed one"


def _states() -> list[bytes]:
    numpy_state = np.random.get_state()  # noqa: NPY002 - the one that must not move
    states = torch.random.get_rng_state().tolist(), numpy_state, random.getstate()
    return [pickle.dumps(state) for state in states]


STREAM_CHECKS: Final[dict[str, Callable[[Make], Iterator[str]]]] = {
    "opens": _opens,
    "pixels": _pixels,
    "repeats": _repeats,
    "apart": _apart,
    "global_state": _global_state,
}
