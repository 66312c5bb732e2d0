import csv
import io
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cl_adapters.errors import InputError
from cl_adapters.records.tables import (
    read_predictions,
    read_retrieval,
    write_predictions,
    write_retrieval,
)
from cl_adapters.reports.figures.files import figure_style
from cl_adapters.reports.figures.parts import MOST_SEEDS
from cl_adapters.reports.figures.retrieval import (
    choice_figure,
    correction_figure,
)
from cl_adapters.reports.groups import Group, group_runs
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from cl_adapters.reports.retrieval import (
    Retrieval,
    confusion,
    measure_retrieval,
    rounds_used,
    shares,
)
from cl_adapters.reports.sections.retrieval import RetrievalSection, read_retrievals
from cl_adapters.reports.tables.retrieval import RETRIEVAL_MEASURES
from tests.reports.conftest import MakeRun
from tests.reports.lines import append_event
from tests.reports.retrieving import drift_matrix, retrieval_frame, write_retrieving

# Two experiences of one class each, after the second: target, uncorrected, prediction, visited.
HAND = [
    (0, 0, 0, [0]),  # right at once
    (0, 1, 0, [1, 0]),  # handed on to its own adapter: saved
    (0, 0, 1, [0, 1]),  # handed on to the other: spoiled
    (0, 1, 1, [1, 0, 1]),  # came back: kept, and wrong all along
    (1, 1, 1, [1]),
    (1, 0, 1, [0, 1]),  # saved
]


def _hand() -> pd.DataFrame:
    rows = [
        {
            "experience": 1,
            "sample": sample,
            "target": target,
            "prediction": prediction,
            "target_experience": target,
            "uncorrected": uncorrected,
            "visited": visited,
            "adapter": visited[-1],
        }
        for sample, (target, uncorrected, prediction, visited) in enumerate(HAND)
    ]
    return pd.DataFrame(rows)


def _load(tmp_path: Path) -> tuple[Group, RetrievalSection]:
    loaded = load_runs([tmp_path / "runs"])
    retrievals = read_retrievals(loaded)
    assert not loaded.broken, loaded.broken
    (group,) = group_runs(loaded.finished)
    return group, RetrievalSection(group, retrievals)


def _measured(tmp_path: Path) -> Retrieval:
    (run,) = load_runs([tmp_path / "runs"]).finished
    found = measure_retrieval(run)
    assert found is not None
    return found


def _choose(make_run: MakeRun, size: int = 4, seeds: int = 1, **options: Any) -> None:
    for seed in range(seeds):
        write_retrieving(make_run("mos", seed, sizes=(1,) * size), seed=seed, **options)


def test_hand_made_rows_give_the_shares_worked_out_by_hand() -> None:
    found = {name: values.tolist() for name, values in shares(_hand(), 2).items()}
    assert all(math.isnan(values[0]) for values in found.values())  # nothing after the first
    assert {name: values[1] for name, values in found.items()} == pytest.approx(
        {
            "right_adapter": 100 * 4 / 6,
            "right_first_adapter": 100 * 3 / 6,
            "corrected": 100 * 3 / 6,
            "saved": 100 * 2 / 6,
            "spoiled": 100 * 1 / 6,
            "rounds": (1 + 2 + 2 + 3 + 1 + 2) / 6,
        }
    )
    assert confusion(_hand(), 2).tolist() == [[50.0, 50.0], [0.0, 100.0]]
    rounds = rounds_used(_hand(), 2)
    assert np.isnan(rounds[0]).all()
    assert rounds[1].tolist() == pytest.approx([100 * 2 / 6, 100 * 3 / 6, 100 * 1 / 6])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_agree_with_plain_loops(make_run: MakeRun, tmp_path: Path, seed: int) -> None:
    frame = write_retrieving(make_run("mos", seed, sizes=(2, 3, 1)), seed=seed, wrong_first=0.5)
    found = _measured(tmp_path)
    for t in range(3):
        rows = [row for row in frame.itertuples() if row.experience == t]
        counts = dict.fromkeys(found.shares, 0)
        lengths = [0] * found.rounds.shape[1]
        for row in rows:
            counts["right_adapter"] += row.adapter == row.target_experience
            counts["right_first_adapter"] += row.visited[0] == row.target_experience
            counts["corrected"] += row.visited[0] != row.visited[-1]
            counts["saved"] += row.prediction == row.target != row.uncorrected
            counts["spoiled"] += row.uncorrected == row.target != row.prediction
            counts["rounds"] += len(row.visited)
            lengths[len(row.visited) - 1] += 1
        for name, values in found.shares.items():
            unit = 1 if name == "rounds" else 100
            assert values[t] == pytest.approx(unit * counts[name] / len(rows)), name
        assert found.rounds[t].tolist() == pytest.approx([100 * n / len(rows) for n in lengths])
    for i in range(3):
        mine = [
            row for row in frame.itertuples() if (row.experience, row.target_experience) == (2, i)
        ]
        for k in range(3):
            share = 100 * sum(row.adapter == k for row in mine) / len(mine)
            assert found.confusion[i, k] == pytest.approx(share)
    assert found.drift is not None
    assert found.drift.tolist() == drift_matrix(3)


def test_images_of_experiences_to_come_take_no_part(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("mos", sizes=(1, 1, 1), sees_future=True)
    frame = write_retrieving(folder)
    seen = frame[frame["target_experience"] <= frame["experience"]]
    assert len(seen) < len(frame)
    found = _measured(tmp_path)
    assert found.shares["right_first_adapter"].tolist() == pytest.approx(
        [
            100 * np.mean([row.visited[0] == row.target_experience for row in rows.itertuples()])
            for _, rows in seen.groupby("experience")
        ]
    )


def test_an_experience_that_was_not_evaluated_is_unknown(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("mos", sizes=(1, 1, 1))
    predictions = read_predictions(folder)
    write_predictions(folder, predictions[predictions["experience"] != 1])
    write_retrieving(folder)
    found = _measured(tmp_path)
    for values in found.shares.values():
        assert np.isnan(values).tolist() == [False, True, False]
    assert np.isnan(found.rounds).all(axis=1).tolist() == [False, True, False]
    write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    text = (tmp_path / "report" / "tables" / "digits-retrieval-runs.csv").read_text()
    line = next(line for line in csv.DictReader(io.StringIO(text)) if line["experience"] == "1")
    assert line["saved"] == line["rounds"] == ""


def test_one_experience_and_no_corrections(make_run: MakeRun, tmp_path: Path) -> None:
    _choose(make_run, 1, wrong_first=0.9)
    found = _measured(tmp_path)
    assert found.confusion.tolist() == found.rounds.tolist() == [[100.0]]
    assert found.shares["rounds"].tolist() == [1.0]
    assert found.shares["corrected"].tolist() == [0.0]
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert "digits-retrieval-01-mos.svg" in {path.name for path in summary.files}


def test_a_run_that_never_corrects_is_all_kept(make_run: MakeRun, tmp_path: Path) -> None:
    _choose(make_run, 3, wrong_first=0.0)
    found = _measured(tmp_path)
    assert found.rounds.tolist() == [[100.0]] * 3
    for name in ("corrected", "saved", "spoiled"):
        assert found.shares[name].tolist() == [0.0] * 3
    assert found.shares["right_first_adapter"].tolist() == found.shares["right_adapter"].tolist()


def test_seeds_may_differ_in_the_most_adapters_asked(make_run: MakeRun, tmp_path: Path) -> None:
    write_retrieving(make_run("mos", 0), wrong_first=0.0)
    write_retrieving(make_run("mos", 1), wrong_first=0.9, max_rounds=7)
    group, section = _load(tmp_path)
    few, many = section.retrievals["mos"]
    assert few.rounds.shape[1] == 1
    assert many.rounds.shape[1] == 7
    with figure_style():
        for draw in (choice_figure, correction_figure):
            draw(group, section.rows[0], [few, many]).draw_without_rendering()
    lines = list(csv.DictReader(io.StringIO(section.files()["digits-retrieval-rounds.csv"])))
    for seed in "01":
        for t in "0123":
            mine = [line for line in lines if (line["seed"], line["experience"]) == (seed, t)]
            assert sum(float(line["share"]) for line in mine) == pytest.approx(100, abs=1e-4)


def test_a_seed_without_records_is_left_out_and_not_its_method(
    make_run: MakeRun, tmp_path: Path
) -> None:
    _choose(make_run, seeds=2)
    make_run("mos", 2, sizes=(1,) * 4)
    make_run("lae", 0, sizes=(1,) * 4)
    _, section = _load(tmp_path)
    assert [(row.label, row.seeds) for row in section.rows] == [("mos", [0, 1])]
    (line,) = csv.DictReader(io.StringIO(section.files()["digits-retrieval.csv"]))
    assert (line["num_seeds"], line["seeds"]) == ("2", "0 1")


Change = Callable[[pd.DataFrame], pd.DataFrame]
DAMAGES: list[tuple[Change, str]] = [
    (lambda frame: frame.assign(adapter=(frame["adapter"] + 1) % 2), "adapter must be the last"),
    (lambda frame: frame.assign(visited=[[]] * len(frame)), "visited must list at least one"),
    (lambda frame: frame.assign(visited=None), "visited must list at least one"),
    (lambda frame: frame.assign(visited=[[-1, 0]] * len(frame)), "visited must name adapters"),
    (lambda frame: frame.assign(visited=[[1, 0]] * len(frame)), "visited must name adapters"),
    (lambda frame: frame.assign(visited=[[None, 0]] * len(frame)), "visited must name adapters"),
    (lambda frame: frame.assign(adapter=9), r"adapter must lie in \[0, 4\)"),
    (lambda frame: frame.assign(uncorrected=8), r"uncorrected must lie in \[0, 8\)"),
    (lambda frame: frame.assign(target_experience=-1), "target_experience must lie in"),
    (lambda frame: frame.assign(uncorrected=None), "uncorrected must hold whole numbers only"),
    (lambda frame: pd.concat([frame, frame.iloc[:1]]), "a sample must stand once"),
    (lambda frame: frame[frame["experience"] < 3], "must be those of predictions.parquet"),
    (lambda frame: frame.assign(prediction=frame["target"]), "must be those of predictions"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGES)
def test_a_damaged_table_is_refused(
    make_run: MakeRun, tmp_path: Path, change: Change, message: str
) -> None:
    folder = make_run("mos")
    write_retrieval(folder, change(retrieval_frame(read_predictions(folder))))
    (run,) = load_runs([tmp_path / "runs"]).finished
    with pytest.raises(InputError, match=message):
        measure_retrieval(run)


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ([[0.0]], "must be a square of 4 rows"),
        ([[0.0, 1.0]] * 4, "must be a square, a row and a column an adapter"),
        ([[0.0, 1.0, -0.5, 1.0]] * 4, "must not be negative"),
        ([[0.0, 1.0, -math.inf, 1.0]] * 4, "must not be negative"),
        ([["0", 1.0, 1.0, 1.0]] * 4, "distances.0.0"),
        (None, "distances of a drift event"),
    ],
)
def test_a_damaged_drift_is_refused(
    make_run: MakeRun, tmp_path: Path, distances: object, message: str
) -> None:
    _choose(make_run, step=None)
    (run,) = load_runs([tmp_path / "runs"]).finished
    append_event(run.folder, "drift", 3, 0, distances=distances)
    with pytest.raises(InputError, match=message):
        measure_retrieval(run)


@pytest.mark.parametrize(("experience", "size"), [(3, 4), (4, 5)])
def test_a_drift_stands_once_and_within_the_run(
    make_run: MakeRun, tmp_path: Path, experience: int, size: int
) -> None:
    _choose(make_run)
    (run,) = load_runs([tmp_path / "runs"]).finished
    append_event(run.folder, "drift", experience, 0, distances=drift_matrix(size))
    with pytest.raises(InputError, match=rf"once per experience in \[0, 4\), got .* {experience}"):
        measure_retrieval(run)


def _heat_maps(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if str(axes.get_gid()).startswith("choice-")]


def _maps(figure: Figure) -> list[list[list[float]]]:
    return [np.array(axes.images[0].get_array()).tolist() for axes in _heat_maps(figure)]


def test_a_distance_that_is_no_number_is_missing_and_left_white(
    make_run: MakeRun, tmp_path: Path
) -> None:
    _choose(make_run, 2, step=None)
    folder = load_runs([tmp_path / "runs"]).finished[0].folder
    append_event(folder, "drift", 1, 0, distances=[[0.0, math.nan], [math.inf, None]])
    group, section = _load(tmp_path)
    drift = section.retrievals["mos"][0].drift
    assert drift is not None
    assert np.isnan(drift).tolist() == [[False, True], [True, True]]
    with figure_style():
        figure = choice_figure(group, section.rows[0], section.retrievals["mos"])
        figure.draw_without_rendering()
    assert [text.get_text() for text in _heat_maps(figure)[1].texts] == ["0"]
    lines = list(csv.DictReader(io.StringIO(section.files()["digits-retrieval-adapters.csv"])))
    assert [line["distance"] for line in lines] == ["0.0", "", "", ""]


def test_all_distances_unknown_still_make_a_figure(make_run: MakeRun, tmp_path: Path) -> None:
    _choose(make_run, 2, step=None)
    folder = load_runs([tmp_path / "runs"]).finished[0].folder
    append_event(folder, "drift", 1, 0, distances=[[None, None], [None, None]])
    assert write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"]).num_finished == 1


def test_figure_shows_answers_beside_distances_a_line_a_seed(
    make_run: MakeRun, tmp_path: Path
) -> None:
    _choose(make_run, seeds=MOST_SEEDS + 1)
    group, section = _load(tmp_path)
    runs = section.retrievals["mos"]
    with figure_style():
        figure = choice_figure(group, section.rows[0], runs)
        figure.draw_without_rendering()
    shown = runs[:MOST_SEEDS]
    assert _maps(figure) == [run.confusion.tolist() for run in shown] + [drift_matrix(4)] * 3
    axes = _heat_maps(figure)
    assert axes[0].images[0].get_clim() == (0, 100)
    assert axes[3].images[0].get_clim() == (0, np.max(drift_matrix(4)))
    assert axes[2].get_xlabel() == "Adapter that answered"
    assert axes[2].get_ylabel() == "Experience of\nthe test image"
    texts = [text.get_text() for text in axes[0].texts]
    assert texts == [f"{value:.0f}" for value in shown[0].confusion.ravel()]
    names = {text.get_text() for text in figure.texts}
    assert {"seed 0", "seed 1", "seed 2"} <= names
    assert "seed 3" not in names


@pytest.mark.parametrize(
    ("step", "label", "text"),
    [
        (0.25, "Relative distance", "0.25"),
        (25.0, "Relative distance", "25.0"),
        (2.5e-6, "Relative distance / 10⁻⁶", "2.5"),
        (0.0, "Relative distance", "0"),
    ],
)
def test_distances_of_any_size_can_be_read(
    make_run: MakeRun, tmp_path: Path, step: float, label: str, text: str
) -> None:
    _choose(make_run, 2, step=step)
    group, section = _load(tmp_path)
    with figure_style():
        figure = choice_figure(group, section.rows[0], section.retrievals["mos"])
    assert figure.axes[-1].get_ylabel() == label
    drawn = _heat_maps(figure)[1]
    assert [each.get_text() for each in drawn.texts][1] == text


def test_correction_is_the_mean_over_seeds_with_its_interval(
    make_run: MakeRun, tmp_path: Path
) -> None:
    _choose(make_run, seeds=2)
    group, section = _load(tmp_path)
    runs = section.retrievals["mos"]
    with figure_style():
        upper, lower = correction_figure(group, section.rows[0], runs).axes
    lines = dict(
        zip(
            ("right_adapter", "right_first_adapter", "saved", "spoiled"),
            upper.get_lines(),
            strict=True,
        )
    )
    lines["rounds"] = lower.get_lines()[0]
    for name, line in lines.items():
        mean = (runs[0].shares[name] + runs[1].shares[name]) / 2
        assert line.get_ydata() == pytest.approx(mean)
        assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert len(upper.collections) == 4
    # Two seeds: mean ± 12.706 · half of what they differ by.
    at = 3
    ends = lower.collections[0].get_paths()[0].vertices
    high = max(y for x, y in ends.tolist() if x == at + 1)
    pair = [run.shares["rounds"][at] for run in runs]
    assert high == pytest.approx(sum(pair) / 2 + 12.7062 * abs(pair[0] - pair[1]) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("size", "seeds", "step"), [(1, 1, 0.2), (2, 3, None), (4, 2, 0.1), (10, 1, 1e-6), (20, 3, 0.4)]
)
@pytest.mark.parametrize("is_long", [False, True])
def test_nothing_is_clipped_or_drawn_over(
    make_run: MakeRun, tmp_path: Path, size: int, seeds: int, step: float | None, is_long: bool
) -> None:
    strategy = "mos (statistics=low_rank, merge_strength=0.1, rounds=4)" if is_long else "mos"
    for seed in range(seeds):
        folder = make_run(strategy, seed, sizes=(1,) * size, per_class=4)
        write_retrieving(folder, seed=seed, step=step)
    group, section = _load(tmp_path)
    (row,) = section.rows
    with figure_style():
        for draw in (choice_figure, correction_figure):
            figure = draw(group, row, section.retrievals[row.label])
            figure.draw_without_rendering()
            outer = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert outer.x0 >= -0.01
            assert outer.y0 >= -0.01
            assert outer.x1 <= width + 0.01
            assert outer.y1 <= height + 0.01
            boxes = [axes.get_tightbbox() for axes in figure.axes]
            assert not any(
                one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k]
            )


def test_numbers_stand_in_cells_up_to_ten_experiences(make_run: MakeRun, tmp_path: Path) -> None:
    write_retrieving(make_run("mos", stream="ten", sizes=(1,) * 10, per_class=2))
    write_retrieving(make_run("mos", stream="eleven", sizes=(1,) * 11, per_class=2))
    loaded = load_runs([tmp_path / "runs"])
    retrievals = read_retrievals(loaded)
    found = {}
    for group in group_runs(loaded.finished):
        section = RetrievalSection(group, retrievals)
        with figure_style():
            figure = choice_figure(group, section.rows[0], section.retrievals["mos"])
        found[group.stream] = len(figure.axes[0].texts)
    assert found == {"ten": 100, "eleven": 0}


class _Page(HTMLParser):
    """Collects ids, links and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if tag == "a" else []


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_page_has_the_section_only_where_there_is_retrieval(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("lae", stream="plain")
    _choose(make_run, seeds=2)
    make_run("lae", 0, sizes=(1,) * 4)
    alone = write_report([tmp_path / "runs" / "plain"], tmp_path / "alone", formats=["svg"])
    assert not any("retrieval" in path.name for path in alone.files)
    text = alone.html.read_text()
    body = text[text.index("<body>") :]
    for word in ("etrieval", "Spoiled", "correction", "answers"):
        assert word not in body
    both = write_report([tmp_path / "runs"], tmp_path / "both", formats=["svg"])
    page = _Page(both.html.read_text())
    assert {path for path in (tmp_path / "both").rglob("*") if path.is_file()} == set(both.files)
    assert len(set(page.ids)) == len(page.ids)
    sections = [name for name in page.ids if re.fullmatch(r"retrieval-\d+", name)]
    assert sections == ["retrieval-1"]  # of `digits`; `plain` comes second
    assert {f"define-1-{column.name}" for column in RETRIEVAL_MEASURES} <= set(page.ids)
    for link in page.links:
        assert link[1:] in page.ids if link[0] == "#" else (both.html.parent / link).exists()
    references = re.findall(r"url\(#([^)]+)\)", both.html.read_text())
    assert set(references) <= set(page.ids)
    plain = {name: data for name, data in _bytes(tmp_path / "both").items() if "/plain-" in name}
    assert plain == {
        name: data for name, data in _bytes(tmp_path / "alone").items() if "/plain-" in name
    }
    names = {path.name for path in both.files}
    assert {f"digits-retrieval.{kind}" for kind in ("csv", "md", "tex")} <= names
    assert not any("retrieval" in name and "lae" in name for name in names)


def test_report_has_the_same_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    _choose(make_run, seeds=2)
    for name in ("one", "two"):
        write_report([tmp_path / "runs"], tmp_path / name)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_table_holds_means_of_its_runs(make_run: MakeRun, tmp_path: Path) -> None:
    _choose(make_run, seeds=3)
    _, section = _load(tmp_path)
    files = section.files()
    (means,) = csv.DictReader(io.StringIO(files["digits-retrieval.csv"]))
    runs = list(csv.DictReader(io.StringIO(files["digits-retrieval-runs.csv"])))
    assert len(runs) == 3 * 4
    for column in RETRIEVAL_MEASURES:
        last = [float(line[column.name]) for line in runs if line["experience"] == "3"]
        assert float(means[f"{column.name}_mean"]) == pytest.approx(sum(last) / 3, abs=1e-5)
    assert "Saved: samples predicted right" in files["digits-retrieval.md"]
    assert r"\toprule" in files["digits-retrieval.tex"]
    assert set(section.retrievals["mos"][0].shares) == {each.name for each in RETRIEVAL_MEASURES}


def test_a_damaged_file_makes_the_run_a_broken_one(make_run: MakeRun, tmp_path: Path) -> None:
    _choose(make_run, seeds=3)
    folders = sorted(path.parent for path in (tmp_path / "runs").rglob("run.json"))
    (folders[0] / "retrieval.parquet").write_bytes(b"x")
    read_retrieval(folders[1]).drop(columns="visited").to_parquet(folders[1] / "retrieval.parquet")
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert summary.num_finished == 1
    notes = [note for note in summary.notes if note.startswith("Skipped")]
    assert [str(folder) in note for folder, note in zip(folders, notes, strict=False)] == [True] * 2
    assert summary.html.read_text().count("must be a readable retrieval table") == 2


def test_mixed_protocols_are_marked(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        write_retrieving(make_run("mos", folder=folder, fingerprint={"weights": name}))
    forced = write_report([tmp_path / "runs"], tmp_path / "forced", force=True, formats=["svg"])
    for path in forced.files:
        if path.suffix in {".svg", ".md", ".tex"} or path.name.endswith("retrieval.csv"):
            assert "ixed protocols" in path.read_text(), path


def test_hostile_names_are_harmless(make_run: MakeRun, tmp_path: Path) -> None:
    write_retrieving(make_run('<script>alert("1")</script>$a$', folder=tmp_path / "runs" / "0"))
    summary = write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    assert "<script>alert" not in summary.html.read_text()
    assert "img" not in _Page(summary.html.read_text()).tags
    for path in summary.files:
        assert re.fullmatch(r"[A-Za-z0-9.-]+", path.name)
