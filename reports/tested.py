"""Which images a run's evaluations had, what became of others, and whether batches decided.

A run that goes on with another one may have been evaluated without the test images of before.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cl_adapters.errors import listed
from cl_adapters.records.event_kinds import Prompts
from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.load import Run

if TYPE_CHECKING:
    from cl_adapters.reports.groups import Row

__all__ = ["batch_notes", "coverage_sentence", "old_image_notes", "untested_classes"]

_NO_OLD_TEST: Final = "none"  # what `--old-test` says for: there are none any more


def untested_classes(run: Run) -> list[int]:
    """Returns the positions of the learned classes that the last evaluation had no image of."""
    done = run.record.experiences[: run.record.experiences_done]
    learned = {position for each in done for position in each}
    return sorted(learned - {int(str(position)) for position in run.classes.index})


def coverage_sentence(run: Run) -> str:
    """Returns over which classes the accuracies of the last experience are, if not over all."""
    left = untested_classes(run)
    if not left:
        return ""
    names = listed(run.record.classes[position] for position in left)
    tested = len(run.classes)
    return (
        f"accuracies after the last experience are over {tested} of {tested + len(left)} classes: "
        f"no test image of {names} was evaluated"
    )


def old_image_notes(rows: Sequence["Row"]) -> list[str]:
    """Returns a sentence for each method that was continued without the test images of before."""
    notes = []
    for row in rows:
        told = _what_became(row.runs[0].record)
        if told and row.seams:
            over = coverage_sentence(row.runs[0])
            notes.append(
                f"{row.label}: test images of before it was continued {told}; accuracies before "
                f"and after the line are not over the same images{f', {over}' if over else ''}."
            )
    return notes


def batch_notes(rows: Sequence["Row"]) -> list[str]:
    """Returns a sentence for each method whose answer for an image depends on its test batch."""
    notes = []
    for row in rows:
        events = (each for run in row.runs for each in run.events if isinstance(each, Prompts))
        told = {(each.by_batch, each.batch_images) for each in events if each.by_batch}
        notes += [
            f"{row.label}: under {options} the answer for an image depends on the others in its "
            f"test batch, of {images} images; alone or in another order images get other answers."
            for options, images in sorted(told)
        ]
    return notes


def _what_became(record: RunRecord) -> str:
    data = record.fingerprint.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("learned"), dict):
        return ""
    parts: Any = record.config.get("continued")
    said = [each.get("old_test") for each in parts or () if isinstance(each, dict)]
    asked = next((each for each in reversed(said) if each is not None), _NO_OLD_TEST)
    if asked != _NO_OLD_TEST:
        return f"were replaced by those of {asked}"
    if record.data.get("old_test") == "missing":
        return "were no longer there, and only new ones are evaluated since"
    return f"were not evaluated, as --old-test {_NO_OLD_TEST} asked"
