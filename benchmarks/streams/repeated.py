"""Images of a part of a stream that the stream had before, by the SHA-256 of their files."""

from collections import Counter

import numpy as np

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.joining import JoinedSource
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.errors import InputError

__all__ = ["repeated_images"]


def repeated_images(source: JoinedSource, plan: StreamPlan) -> list[str]:
    """Returns a sentence for the training and for the test images that were there before.

    Args:
        source: The images of a stream so far and of a part; what is no longer there is not known.
        plan: Of the stream so far, which need not have brought all of its images.

    Raises:
        InputError: If all training images of the part were learned before, each as its class.
    """
    part = source.part
    learned = source.before.train.take(np.concatenate(plan.train))
    tested = source.before.test.take(np.concatenate(plan.test))
    known = set(zip(learned.digests, learned.targets.tolist(), strict=True))
    labels = [source.labels[target] for target in part.train.targets.tolist()]
    if all(pair in known for pair in zip(part.train.digests, labels, strict=True)):
        raise InputError(
            f"training images of {part.name!r} must not all have been learned before, got "
            f"{len(part.train)} images that the run knows, under the same classes"
        )
    return [
        f"{count} of these {len(images)} {split} images of {part.name!r} {what}"
        for split, images, old, what in (
            ("training", part.train, learned, "were learned before"),
            ("test", part.test, tested, "are in the test set already"),
        )
        if (count := _repeated(images, old))
    ]


def _repeated(images: LabelledImages, old: LabelledImages) -> int:
    counts, known = Counter(images.digests), set(old.digests)
    return sum(count for digest, count in counts.items() if digest in known)
