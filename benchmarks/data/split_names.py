"""Which folder or file of data is to learn from and which to test on, by its name.

A name is cut into words, whatever its case: `seg_train`, `Training`, `val2017` and `Test Set` say
what they are. A name with words of its own, such as `asl_alphabet_train`, counts where another one
has the same words and another role: `train station` alone is a class.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final, Literal

__all__ = ["Role", "normal_name", "role_in_name", "roles_of"]

Role = Literal["train", "test", "valid"]

_WORDS: Final[dict[str, Role]] = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainval"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "eval", "evaluation"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validating", "validate", "dev"), "valid"),
}
# Words that say nothing beside a role.
_FILLERS: Final = frozenset(
    (
        "seg", "set", "data", "dataset", "images", "image", "imgs", "img", "folder", "split",
        "photos", "pictures", "samples", "full", "ilsvrc",
    )
)  # fmt: skip


def normal_name(name: str) -> str:
    """Returns a name in Unicode's composed form, so that names that look equal are equal."""
    return unicodedata.normalize("NFC", name)


def role_in_name(name: str) -> tuple[Role | None, str]:
    """Returns the role that a name tells, and its other words that are no fillers.

    Example:
        >>> role_in_name("seg_train"), role_in_name("Test Set"), role_in_name("cats_val")
        (('train', ''), ('test', ''), ('valid', 'cats'))
        >>> role_in_name("plane"), role_in_name("train-test")
        ((None, 'plane'), (None, 'train test'))
    """
    words = re.findall(r"[^\W\d_]+", normal_name(name).lower())
    told = {_WORDS[word] for word in words if word in _WORDS}
    if len(told) != 1:
        return None, " ".join(words)
    rest = [word for word in words if word not in _WORDS and word not in _FILLERS]
    return told.pop(), " ".join(rest)


def roles_of(names: Iterable[str]) -> dict[str, Role]:
    """Returns the roles of those names that tell one.

    Example:
        >>> roles_of(["Training", "Testing", "notes"])
        {'Training': 'train', 'Testing': 'test'}
        >>> roles_of(["asl_train", "asl_test", "test tube"])
        {'asl_train': 'train', 'asl_test': 'test'}
    """
    found = {name: role_in_name(name) for name in names}
    by_words: dict[str, set[Role]] = {}
    for role, words in found.values():
        if role is not None:
            by_words.setdefault(words, set()).add(role)
    return {
        name: role
        for name, (role, words) in found.items()
        if role is not None and (not words or len(by_words[words]) > 1)
    }
