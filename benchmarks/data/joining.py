"""Images that come after others: one source over both, as a stream that is continued needs it.

Classes and images of what was there before keep their numbers; what is new comes behind them. Where
the images of before are no longer there, a source stands for what was learned of them.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cl_adapters.benchmarks.data.images import ImageSource, LabelledImages
from cl_adapters.benchmarks.data.reading import Reading
from cl_adapters.benchmarks.data.stores import PickedStore
from cl_adapters.errors import InputError

__all__ = ["Before", "JoinedSource", "LearnedSource", "check_spelling", "join", "learned_source"]


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a run had learned before a part that goes on with it.

    Attributes:
        source: Name of the source of its images.
        classes: Class names by position.
        experiences: Positions of the classes of each experience.
        domains: Name of the domain of each experience; empty where the stream has none.
        samples: Number of the first test image that it does not know.
        known: Its protocol, as far as it speaks of images.
    """

    source: str
    classes: Sequence[str]
    experiences: Sequence[Sequence[int]]
    domains: Sequence[str]
    samples: int
    known: Mapping[str, object]


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedSource(ImageSource):
    """The images of a stream so far and those of a part that comes after it.

    Attributes:
        before: The stream so far.
        part: What comes after it, with its own numbers of classes.
        labels: Class here of each of the part's classes.
        increment: New classes of the part an experience; None for all at once.
        by_domain: Whether each domain of the part is an experience.
    """

    before: ImageSource
    part: ImageSource
    labels: tuple[int, ...]
    increment: int | None = None
    by_domain: bool = False

    def describe(self) -> dict[str, object]:
        """Returns what of the source belongs into a run's fingerprint."""
        learned = self.before.describe().get("learned")
        return {**super().describe(), **({} if learned is None else {"learned": learned})}


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedSource(ImageSource):
    """What a run has learned whose images are no longer there; some to test on may be.

    Attributes:
        learned: What it has learned; its positions of classes are the numbers of classes here.
    """

    learned: Before

    def describe(self) -> dict[str, object]:
        """Returns what of the source belongs into a run's fingerprint."""
        test = {"images": len(self.test), "sha256": self.test.checksum()}
        return {"learned": {"before": dict(self.learned.known), "test": test}}


def join(
    before: ImageSource,
    part: ImageSource,
    *,
    increment: int | None = None,
    by_domain: bool = False,
) -> JoinedSource:
    """Returns one source over the images of a stream so far and those of a part after it.

    Args:
        before: The stream so far.
        part: What comes after it: new classes, or more images of old ones.
        increment: New classes of the part an experience, at least 1; None for all at once.
        by_domain: Whether each domain of the part is an experience.

    Raises:
        InputError: If a class of the part is one of before in another spelling.
    """
    check_spelling(part.classes, before.classes, part.name)
    classes = (*before.classes, *(name for name in part.classes if name not in before.classes))
    place = {name: number for number, name in enumerate(classes)}
    labels = tuple(place[name] for name in part.classes)
    train, test = (
        _joined(one, other, classes, labels)
        for one, other in ((before.train, part.train), (before.test, part.test))
    )
    return JoinedSource(
        before.name,
        classes,
        train,
        test,
        _reading(before, part),
        num_learned=before.num_learned,
        before=before,
        part=part,
        labels=labels,
        increment=increment,
        by_domain=by_domain,
    )


def _reading(before: ImageSource, part: ImageSource) -> Reading:
    layouts = [each.reading.layout for each in (before, part) if each.reading.layout]
    return replace(
        before.reading,
        layout="; then ".join(layouts),
        left_out=(*before.reading.left_out, *part.reading.left_out),
    )


def _joined(
    one: LabelledImages, other: LabelledImages, classes: tuple[str, ...], labels: Sequence[int]
) -> LabelledImages:
    picks = [(each.store, row) for each in (one, other) for row in each.rows.tolist()]
    targets = np.concatenate([one.targets, np.array(labels, np.int64)[other.targets]])
    images = LabelledImages(PickedStore(picks), np.arange(len(picks)), targets, classes)
    vars(images)["digests"] = (*one.digests, *other.digests)  # each file is read once
    return images


def learned_source(before: Before, test: LabelledImages | None = None) -> LearnedSource:
    """Returns the source that stands for what a run has learned.

    Args:
        before: What it has learned.
        test: Images of its classes to test on, under any numbers; None for none.

    Raises:
        InputError: If a class of the test images is none of the run's.
    """
    names, nothing = tuple(before.classes), np.array([], dtype=np.int64)
    empty = LabelledImages(PickedStore([]), nothing, nothing, names)
    if test is not None:
        check_spelling(test.classes, names, before.source)
        for each in test.classes:
            if each not in names:
                raise InputError(
                    f"class {each!r} of the old test images must be one that the run learned, got "
                    "one that it does not know"
                )
        places = np.array([names.index(each) for each in test.classes], np.int64)
        test = LabelledImages(test.store, test.rows, places[test.targets], names)
    return LearnedSource(
        before.source,
        names,
        empty,
        empty if test is None else test,
        num_learned=len(names),
        learned=before,
    )


def check_spelling(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuses a class whose name is a known one's but for case, spaces, hyphens or Unicode form.

    Args:
        names: Names of classes.
        known: Names of the classes that there are already.
        where: Where the names come from, for messages.

    Raises:
        InputError: If there is one; names both.

    Example:
        >>> check_spelling(["cat", "dog"], ["cat"], "month2")
        >>> check_spelling(["Stop_sign"], ["stop sign"], "month2")
        Traceback (most recent call last):
        cl_adapters.errors.InputError: class 'Stop_sign' of 'month2' must be spelt as the class \
'stop sign' that was learned, or have another name
    """
    spellings = {_bare(name): name for name in known}
    for name in names:
        other = spellings.get(_bare(name), name)
        if name not in known and other != name:
            raise InputError(
                f"class {name!r} of {where!r} must be spelt as the class {other!r} that was "
                "learned, or have another name"
            )


def _bare(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", folded).strip()
