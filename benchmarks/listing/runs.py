"""The runs of a folder."""

from pathlib import Path

from cl_adapters.benchmarks.running.checkpoints import ExperienceCheckpoint
from cl_adapters.errors import InputError
from cl_adapters.records.integrity import check_files
from cl_adapters.records.run_record import RunRecord, find_runs
from cl_adapters.records.tables import read_predictions

__all__ = ["runs_table"]


def runs_table(root: Path) -> list[list[str]]:
    """Returns a row a run: its state, how far it has come, and how often it is right so far."""
    rows = [["run", "state", "experiences", "accuracy so far"]]
    for folder in find_runs([root]):
        try:
            record = RunRecord.read(folder)
            check_files(folder)
            done = f"{record.experiences_done}/{len(record.experiences)}"
            accuracy = _accuracy(folder, record.experiences_done)
            quick = ", quick look" if "quick_look" in record.fingerprint else ""
            rows.append(
                [str(folder), record.state + quick, done + _inside(folder, record), accuracy]
            )
        except InputError as error:
            rows.append([str(folder), "broken", str(error), ""])
    return rows


def _accuracy(folder: Path, done: int) -> str:
    rows = read_predictions(folder)
    rows = rows[rows["experience"] == done - 1]
    return f"{(rows['prediction'] == rows['target']).mean():.1%}" if len(rows) else ""


def _inside(folder: Path, record: RunRecord) -> str:
    """Returns how much of an unfinished experience would not be done again."""
    if record.state == "finished":
        return ""
    found = ExperienceCheckpoint(folder / "checkpoints", minutes=0).begin(record.experiences_done)
    return f" and {found[1]['seconds'] / 60:.1f} min of the next" if found else ""
