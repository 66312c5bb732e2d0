"""What is left of a run: train, evaluate and store one experience after the other.

The place that seeds global random states (transforms and dropout draw from them). After each
experience predictions, events and a checkpoint are written first and `run.json` last;
`experiences_done` in it is what counts. In a long experience its training is kept every few
minutes.
"""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
from avalanche.logging import BaseLogger

from cl_adapters.benchmarks.running.checkpoints import (
    ExperienceCheckpoint,
    trainer_states_of,
)
from cl_adapters.benchmarks.running.learner import Runnable
from cl_adapters.benchmarks.running.logs import MethodLog
from cl_adapters.benchmarks.running.memory import FreedMemory
from cl_adapters.benchmarks.running.observer import Observer
from cl_adapters.benchmarks.running.progress import Progress, StopRun
from cl_adapters.benchmarks.running.reuse import learn
from cl_adapters.benchmarks.running.run_folder import time_now
from cl_adapters.benchmarks.running.storing import keep_examples, store_experience
from cl_adapters.benchmarks.streams.plans import StreamPlan
from cl_adapters.errors import (
    OUT_OF_MEMORY,
    InputError,
    RunError,
    is_out_of_memory,
    printable,
)
from cl_adapters.plugins.references import in_words
from cl_adapters.randomness import seed_random_states, set_random_states
from cl_adapters.records.event_kinds import Memory, Segment
from cl_adapters.records.events import read_events, truncate_events
from cl_adapters.records.experience_names import called
from cl_adapters.records.integrity import (
    adopt_files,
    cut_events,
    settle_tables,
    sound_experiences,
)
from cl_adapters.records.learned import last_whole
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.tables import read_predictions, read_retrieval
from cl_adapters.strategies.core.checkpointing import CheckpointMismatchError

__all__ = ["Session"]


class Session:
    """What is left of a run, from the last checkpoint to its end or to the next interruption.

    Args:
        prepared: What is run.
        folder: Its run directory.
        progress: What to tell the caller.
        trained: A run whose training is the same, to take from; None to train.
        checkpoint_minutes: Time between two checkpoints inside an experience.
    """

    def __init__(
        self,
        prepared: Runnable,
        folder: Path,
        progress: Progress,
        trained: Path | None,
        checkpoint_minutes: float,
    ) -> None:
        self._prepared, self._folder, self._progress = prepared, folder, progress
        self._trained = trained
        self._strategy = prepared.strategy
        self._inside = ExperienceCheckpoint(folder / "checkpoints", checkpoint_minutes)
        self._freed = FreedMemory()
        self._observer = Observer(prepared.plan, self._advance)

    def log_to(self, logs: Sequence[BaseLogger]) -> None:
        """Tells loggers what the record will hold, while it comes about."""
        if logs:
            self._observer = MethodLog(logs, self._prepared.plan, self._advance)

    def _advance(self, doing: str, images: int) -> None:
        self._progress.advance(doing, images)
        self._freed.give_back()

    def run(self, record: RunRecord) -> Iterator[int]:
        """Trains, evaluates and stores one experience after the other; yields between them."""
        prepared, folder = self._prepared, self._folder
        self._benchmark = prepared.benchmark()
        self._strategy.add_plugin(self._observer, first=True)
        before, done = record.experiences_done, self._restore(record)
        self._cut(record, before)
        if isinstance(self._observer, MethodLog):
            self._observer.restore(folder, done)
        found = read_predictions(folder), read_retrieval(folder)
        tables = [[table[table["experience"] < done]] for table in found]
        _check_segments(folder, prepared.plan)
        self._progress.start(f"{record.strategy} seed {record.seed}", _total_images(prepared, done))
        if self._strategy.cache is not None:
            self._strategy.cache.begin()
        record.write(folder)
        with _noted_end(record, folder):
            for experience in range(done, len(record.experiences)):
                new = self._experience(experience)
                tables = [[*table, rows] for table, rows in zip(tables, new, strict=True)]
                whole = [pd.concat(table, ignore_index=True) for table in tables]
                store_experience(prepared, record, folder, self._observer, whole)
                record.seconds += self._inside.seconds
                record.experiences_done = experience + 1
                record.write(folder)
                self._inside.drop()
                self._progress.learned(
                    experience,
                    len(record.experiences),
                    _accuracy(new[0]),
                    called(record, experience),
                )
                self._progress.stored(folder, experience)
                if record.experiences_done < len(record.experiences):
                    yield experience
            self._inside.drop()  # if all was done but this
            keep_examples(prepared, record, folder)

    def _cut(self, record: RunRecord, before: int) -> None:
        """Drops the events of experiences that come again, and puts the record's digests right."""
        folder = self._folder
        if record.files is None:
            truncate_events(folder, record.experiences_done)
            adopt_files(folder, record)
        else:
            settle_tables(folder, record)
            cut_events(folder, record)
        if record.experiences_done < before:
            record.write(folder)  # readers of events take them to be as the record says

    def _restore(self, record: RunRecord) -> int:
        """Returns to the last experience whose checkpoint is whole; says how many those are."""
        for torn in self._folder.rglob(".*.tmp"):  # of a process that was killed while it wrote
            torn.unlink()
        noted = _noted_experiences(self._folder, record)
        done, state, problem = last_whole(self._folder / "checkpoints", noted)
        if noted < record.experiences_done:
            problem = (
                f"{self._folder / 'events.jsonl'} must hold experience {noted} as it was written, "
                "but it does not"
            )
        now = self._prepared.record.versions
        other = [name for name in now if record.versions.get(name) != now[name]]
        if record.experiences_done and other:
            self._progress.note(
                f"{record.strategy} seed {record.seed} goes on under another version of "
                f"{', '.join(other)}: the rest may differ from an uninterrupted run"
            )
        if problem:
            again = f"from experience {done} on" if done else "from the first experience on"
            self._progress.note(f"{problem}; the run is done again {again}")
            record.experiences_done = done
        absent = self._prepared.plan.num_absent
        if done < absent:
            raise InputError(
                f"run directory {str(self._folder)!r} must hold what the first {absent} "
                "experiences left, whose images are no longer there; use --restart"
            )
        if absent:
            classes = [sorted(each) for each in self._prepared.plan.experiences[:done]]
            self._strategy.restore_to_answer(state, classes)
        elif done:
            self._strategy.restore(state, list(self._benchmark.train_stream[:done]))
        return done

    def _experience(self, experience: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Returns the rows of `predictions.parquet` and of `retrieval.parquet`."""
        seed_random_states(self._prepared.record.seed, experience)
        self._train(experience)
        # A segment that was announced without a change brings no test images of its own.
        stream = self._benchmark.test_stream[: experience + 1]
        self._strategy.eval([each for each in stream if len(each.dataset)])
        predictions = self._observer.predictions(experience)
        return predictions, self._observer.retrieval(predictions)

    def _train(self, experience: int) -> None:
        found = self._inside.begin(experience)
        given = self._benchmark.train_stream[experience]
        if not (self._strategy.resumes and self._strategy.resumes_inside):
            learn(self._strategy, given, self._trained)
            return
        self._strategy.set_checkpointer(self._inside)
        if found is not None and "trained" in found[1]:
            progress = found[1]["trained"]
            self._strategy.restore(found[0], [given])
            self._strategy.load_progress(progress["events"], progress["timings"])
            self._observer.load_state_dict(progress["observer"])
            set_random_states(progress["random"])
            return
        if found is not None:
            self._strategy.load_state(trainer_states_of(found))
        try:
            learn(self._strategy, given, self._trained)
        except CheckpointMismatchError as error:
            self._inside.drop()
            raise RunError(
                f"{error}; the same command begins experience {experience} again"
            ) from error
        if self._inside.is_due():
            self._inside.keep_trained(self._strategy, self._observer.state_dict())


def _accuracy(predictions: pd.DataFrame) -> float:
    return float((predictions["prediction"] == predictions["target"]).mean())


def _noted_experiences(folder: Path, record: RunRecord) -> int:
    """Returns how many of the finished experiences stand in the events from first to last."""
    done = record.experiences_done
    if record.files is not None:
        return sound_experiences(folder, record)
    noted = {event.experience for event in read_events(folder) if isinstance(event, Memory)}
    return next((each for each in range(done) if each not in noted), done)


def _check_segments(folder: Path, plan: StreamPlan) -> None:
    # Features that another machine computes may differ in the last digit, and a boundary with them.
    planned = plan.hidden.truth if plan.hidden else ()
    for event in read_events(folder):
        if isinstance(event, Segment) and any(
            getattr(event, key) != planned[event.experience][key] for key in ("start", "images")
        ):
            raise InputError(
                f"run directory {str(folder)!r} must go on with the segments that it began with, "
                f"but segment {event.experience} now differs; use --restart"
            )


@contextmanager
def _noted_end(record: RunRecord, folder: Path) -> Iterator[None]:
    try:
        yield
        record.state, record.ended = "finished", time_now()
        record.write(folder)
    except KeyboardInterrupt:
        record.state, record.error = "interrupted", "stopped by the user"
        raise
    except StopRun as reason:
        record.state, record.error = "interrupted", printable(str(reason))
        raise
    except (InputError, RunError, OSError) as error:
        record.state, record.error = "failed", printable(str(error))
        raise
    except GeneratorExit:  # who runs it step by step takes no more
        raise
    except BaseException as error:  # a plugin may end the process, which is no good end
        if is_out_of_memory(error):
            record.state, record.error = "failed", "out of memory"
            raise RunError(OUT_OF_MEMORY) from error
        record.state, record.error = "failed", printable(in_words(error))
        with suppress(OSError):
            (folder / "error.log").write_text(printable(traceback.format_exc()), encoding="utf-8")
        raise
    finally:
        if record.state != "finished":
            with suppress(OSError):  # a full disk: the record of the last experience stays
                record.write(folder)


def _total_images(prepared: Runnable, done: int) -> int:
    # Every image of an experience once an epoch, and all test images so far after each experience.
    plan, epochs = prepared.plan, prepared.strategy.train_epochs
    train, test = ([len(rows) for rows in parts] for parts in (plan.train, plan.test))
    return sum(epochs * train[t] + sum(test[: t + 1]) for t in range(done, len(train)))
