"""What a reader of several runs should know before comparing, and what makes reading pointless."""

from collections.abc import Iterator, Sequence

from cl_adapters.errors import InputError
from cl_adapters.reports.groups import Group, clean_text, stream_names
from cl_adapters.reports.load import LoadedRuns

__all__ = ["check_any_is_whole", "reader_notes"]


def check_any_is_whole(loaded: LoadedRuns) -> None:
    """Refuses folders of which every run is damaged.

    Raises:
        InputError: If there is none that can be read; names the first with its reason.
    """
    if loaded.broken and not loaded.finished and not loaded.unfinished:
        first, count = loaded.broken[0], len(loaded.broken)
        raise InputError(
            f"run folders must hold a run that can be read, got {count} broken, the first "
            f"{first.folder}: {first.reason}"
        )


def reader_notes(groups: Sequence[Group], loaded: LoadedRuns) -> Iterator[str]:
    """Yields a sentence on each difference between runs, and on each run that was left out."""
    for stream, group in zip(stream_names(groups), groups, strict=True):
        yield from (f"{stream}: {note}" for note in group.notes)
        if group.mixed:
            yield f"{stream}: {group.mixed}"
    yield from loaded.notes()
    for folder, record in loaded.unfinished:
        done = f"{record.experiences_done} of {len(record.experiences)} experiences"
        yield clean_text(f"Not compared: {folder} is {record.state}, {done} done.")
    for run in loaded.broken:
        yield clean_text(f"Skipped: {run.folder}: {run.reason}")
