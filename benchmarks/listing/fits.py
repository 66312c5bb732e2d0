"""Which PEFT modules run in which methods, tried out, for the table in docs/pieces.md."""

from collections.abc import Iterator
from typing import Final

from cl_adapters.benchmarks.listing.pieces import parameters_of
from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.errors import InputError
from cl_adapters.peft.registry import PEFTS
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import Trial
from cl_adapters.vit.checks import tiny_backbone

__all__ = ["FITTED", "fits_table", "pairs"]

# Of each way to use a module one method: alone, averaged, mixed, stored, in a first session.
FITTED: Final = ("finetune", "lae", "sema", "mos", "ranpac", "aper")


def pairs() -> Iterator[tuple[str, str, str]]:
    """Yields module, method, and why the method refuses the module; an empty text where it runs."""
    backbone = tiny_backbone()
    for peft in PEFTS:
        for method in FITTED:
            try:
                Trial(find_strategy(method), {"peft": peft}).build(backbone=backbone)
            except InputError as error:
                yield peft, method, str(error)
            else:
                yield peft, method, ""


def fits_table() -> str:
    """Returns the table as Markdown, with the reasons below it."""
    rows = [["module", "slots", "parameters", "source", *(f"`{each}`" for each in FITTED)]]
    found = {(peft, method): why for peft, method, why in pairs()}
    for name, peft in PEFTS.items():
        cells = ["refused" if found[name, method] else "runs" for method in FITTED]
        slots = ", ".join(f"`{slot}`" for slot in peft.slots)
        rows.append([f"`{name}`", slots, f"{parameters_of(peft):,}", peft.source, *cells])
    reasons: dict[tuple[str, str], list[str]] = {}
    for (name, method), why in found.items():
        if why:
            rule = why.splitlines()[0].removesuffix(f", got {name!r}")
            reasons.setdefault((method, rule), []).append(f"`{name}`")
    lines = [
        f"- `{method}` refuses {', '.join(names)}: {rule}."
        for (method, rule), names in reasons.items()
    ]
    return "\n".join([markdown_table(rows), *lines, ""])
