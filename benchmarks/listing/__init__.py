"""What exists by name, for `cl-adapters list`; a listing is imported when it is asked for."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cl_adapters.errors import EarlierNameWarning, InputError, unknown_name
from cl_adapters.plugins.tables import LazyTable, load

__all__ = ["LISTINGS", "WORDS", "list_table"]

Table = list[list[str]]

LISTINGS: Final = LazyTable[Callable[[Path], Table]](
    {
        "strategies": "cl_adapters.benchmarks.listing.methods:strategies_table",
        "streams": "cl_adapters.benchmarks.listing.streams:streams_table",
        "protocols": "cl_adapters.benchmarks.listing.streams:protocols_table",
        "backbones": "cl_adapters.benchmarks.listing.backbones:backbones_table",
        "peft": "cl_adapters.benchmarks.listing.pieces:peft_table",
        "heads": "cl_adapters.benchmarks.listing.pieces:heads_table",
        "routers": "cl_adapters.benchmarks.listing.pieces:routers_table",
        "detectors": "cl_adapters.benchmarks.listing.pieces:detectors_table",
        "policies": "cl_adapters.benchmarks.listing.pieces:policies_table",
        "pieces": "cl_adapters.benchmarks.listing.pieces:pieces_table",
        "runs": "cl_adapters.benchmarks.listing.runs:runs_table",
    }
)
_EARLIER: Final = {"pets": "peft", "pefts": "peft"}
# What else they are called: in the documentation, by `new` and `check`, by the field.
WORDS: Final[Mapping[str, str]] = {
    word: listing
    for listing, words in {
        "strategies": "strategy method methods algorithm algorithms",
        "streams": "stream source sources data dataset datasets scenario scenarios benchmark "
        "benchmarks",
        "protocols": "protocol setting settings",
        "backbones": "backbone network networks model models vit vits",
        "peft": "adapter adapters module modules",
        "heads": "head classifier classifiers",
        "routers": "router routing",
        "detectors": "detector shift shifts",
        "policies": "policy growth",
        "pieces": "piece parts",
        "runs": "run result results",
    }.items()
    for word in words.split()
}


def list_table(what: str, runs: Path, like: str | None = None) -> Table:
    """Returns the rows of a listing, the header first.

    Args:
        what: One of `LISTINGS`, or one of `WORDS` for it.
        runs: Folder of all runs, for the listing of them.
        like: A strategy, of which the relatives are listed; None lists all.

    Raises:
        InputError: If there is no listing of that name, or no strategy, or no relatives of what is
            listed.
    """
    if what in _EARLIER:
        now = _EARLIER[what]
        warnings.warn(f"listing {what!r} is now called {now!r}", EarlierNameWarning, stacklevel=2)
        what = now
    what = WORDS.get(what, what)
    if what not in LISTINGS:
        raise unknown_name("listing", what, LISTINGS, others=WORDS)
    if like is None:
        return LISTINGS[what](runs)
    if what != "strategies":
        raise InputError(f"`--like` must go with `list strategies`, got `list {what}`")
    relatives: Callable[[str], Table] = load(
        "cl_adapters.benchmarks.listing.methods:relatives_table"
    )
    return relatives(like)
