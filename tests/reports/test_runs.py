"""Runs as tables of pandas and figures, against plain arithmetic over their predictions."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy.stats import t as student

from cl_adapters.errors import InputError
from cl_adapters.reports.report import write_report
from cl_adapters.reports.runs import Runs, load_runs
from tests.reports.conftest import MakeRun


@pytest.fixture(autouse=True)
def agg() -> None:
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def folders(make_run: MakeRun) -> dict[tuple[str, int], Path]:
    """Two methods, three seeds each; the second forgets more."""
    decays = {"lae": 0.05, "finetune": 0.25}
    return {(name, seed): make_run(name, seed, decay=decay)
            for name, decay in decays.items() for seed in range(3)}  # fmt: skip


def right(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / "predictions.parquet")
    return frame.assign(right=100.0 * (frame["prediction"] == frame["target"]))


def accuracy_after(folder: Path, t: int) -> float:
    """Over the test images of all classes seen after experience t."""
    frame = right(folder)
    seen = frame[(frame["experience"] == t) & (frame["target_experience"] <= t)]
    return float(seen["right"].mean())


def test_a_row_a_method_with_mean_and_interval(
    folders: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    table = load_runs(tmp_path / "runs").table()
    assert table["method"].tolist() == ["lae", "finetune"]
    assert table["num_seeds"].tolist() == [3, 3]
    assert set(table["stream"]) == {"digits"}
    for row in table.itertuples():
        values = [accuracy_after(folders[row.method, seed], 3) for seed in range(3)]
        spread = student.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
        assert row.a_last_micro_mean == pytest.approx(np.mean(values))
        assert row.a_last_micro_ci95 == pytest.approx(spread)
        averages = [
            np.mean([accuracy_after(folders[row.method, seed], t) for t in range(4)])
            for seed in range(3)
        ]
        assert row.a_avg_micro_mean == pytest.approx(np.mean(averages))
        assert row.added_parameters_mean == 12_345
        assert row.train_seconds_mean == pytest.approx(8.0)


def test_the_table_has_the_numbers_of_the_report_s_files(
    folders: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    write_report([tmp_path / "runs"], tmp_path / "report", formats=["svg"])
    (path,) = (tmp_path / "report" / "tables").glob("*-comparison.csv")
    written = pd.read_csv(path, dtype={"protocol": str}).drop(columns="mixed_protocols")
    table = load_runs(tmp_path / "runs").table(columns=None)
    assert len(table.columns) > 25
    pd.testing.assert_frame_equal(table, written, check_dtype=False)


def test_columns_are_chosen_by_name(folders: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    runs = load_runs(tmp_path / "runs")
    assert runs.table("ece").columns.tolist()[-2:] == ["ece_mean", "ece_ci95"]
    chosen = runs.table(["nll", "bwt"]).columns.tolist()
    assert chosen[-4:] == ["nll_mean", "nll_ci95", "bwt_mean", "bwt_ci95"]
    with pytest.raises(InputError, match="unknown metric 'a_last'; did you mean 'a_last_micro'"):
        runs.table(["a_last"])


def test_a_row_a_run_and_experience(folders: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    curve = load_runs(tmp_path / "runs").curve()
    assert len(curve) == 6 * 4
    for row in curve.itertuples():
        folder = folders[row.method, row.seed]
        assert row.accuracy == pytest.approx(accuracy_after(folder, row.experience))
        assert row.classes_seen == 2 * (row.experience + 1)
    last = curve[(curve["method"] == "finetune") & (curve["seed"] == 1)].set_index("experience")
    frame = right(folders["finetune", 1])
    cell = frame.groupby(["experience", "target_experience"])["right"].mean()
    lost = [max(cell[t, i] for t in range(i, 4)) - cell[3, i] for i in range(3)]
    assert last.loc[3, "forgetting"] == pytest.approx(np.mean(lost))
    assert math.isnan(last.loc[0, "forgetting"])


def test_the_matrix_of_a_run_and_of_a_method(
    folders: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    runs = load_runs(tmp_path / "runs")
    (run,) = [each for each in runs if (each.record.strategy, each.record.seed) == ("lae", 2)]
    assert run.folder == folders["lae", 2]
    cells = [
        right(folders["lae", seed]).pivot_table(
            index="experience", columns="target_experience", values="right"
        )
        for seed in range(3)
    ]
    found = runs.matrix(run)
    assert (found.index.name, found.columns.name) == ("trained", "tested")
    np.testing.assert_allclose(found.to_numpy(), cells[2].to_numpy())
    assert found.isna().sum().sum() == 6  # above the diagonal
    mean = sum(each.to_numpy() for each in cells) / 3
    np.testing.assert_allclose(runs.matrix("lae").to_numpy(), mean)
    with pytest.raises(InputError, match="unknown method 'lea'; did you mean 'lae'"):
        runs.matrix("lea")


def test_runs_are_counted_and_found_by_number(
    folders: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    runs = load_runs([folders["lae", 0], str(folders["finetune", 1])])
    assert len(runs) == 2
    assert [each.folder for each in runs] == [runs[0].folder, runs[1].folder]
    assert {each.folder for each in runs} == {folders["lae", 0], folders["finetune", 1]}
    assert "2 finished" in repr(runs)
    assert "lae (1 of 2 seeds)" in repr(runs)
    assert any("lae lacks seed 1" in note for note in runs.notes)
    with pytest.raises(IndexError):
        runs[2]


def test_streams_and_protocols_stay_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae")
    make_run("mos")
    make_run("lae", stream="photos")
    make_run("lae", sizes=(4, 4), folder=tmp_path / "runs" / "wide")
    runs = load_runs(tmp_path / "runs")
    table = runs.table()
    assert table["stream"].tolist() == ["digits", "digits", "digits", "photos"]
    assert len(set(zip(table["stream"], table["protocol"], strict=True))) == 3
    with pytest.raises(InputError, match=r"one stream and protocol to be drawn.*'digits @.*select"):
        runs.plot_curve()
    with pytest.raises(InputError, match=r"'lae' in 'digits @.*'photos @"):
        runs.matrix("lae")
    assert runs.matrix("mos").shape == (4, 4)
    photos = runs.select(stream="photos")
    assert photos.matrix("lae").shape == (4, 4)
    assert photos.plot_curve().get_lines()
    wide = next(each for each in runs if each.folder.name == "wide")
    (protocol,) = set(table[table["stream"] == "digits"]["protocol"]) - set(
        table[table["method"] == "mos"]["protocol"]
    )
    assert [each.folder for each in runs.select(protocol=protocol)] == [wide.folder]
    with pytest.raises(InputError, match="unknown stream 'digit'; did you mean 'digits'"):
        runs.select(stream="digit")
    with pytest.raises(InputError, match="unknown protocol 'x'"):
        runs.select(protocol="x")


def test_chosen_methods_keep_their_names(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("lae", options={"peft": "lora"})
    make_run("lae")
    make_run("mos")
    runs = load_runs(tmp_path / "runs")
    some = runs.select(methods="lae (peft=lora)")
    assert some.table()["method"].tolist() == ["lae (peft=lora)"]
    assert some[0].record.config["options"] == {"peft": "lora"}
    assert set(runs.select(methods=["mos", "lae"]).table()["method"]) == {"mos", "lae"}
    assert len(runs) == 3
    with pytest.raises(InputError, match="unknown method 'mis'; did you mean 'mos'"):
        runs.select(methods=["mos", "mis"])


def test_curves_are_drawn_on_axes_of_the_caller(
    folders: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    runs = load_runs(tmp_path / "runs")
    figure, (left, right_) = plt.subplots(1, 2)
    assert runs.plot_curve(left) is left
    assert plt.get_fignums() == [figure.number]
    lines = dict(zip([text.get_text() for text in left.get_legend().get_texts()],
                     left.get_lines(), strict=True))  # fmt: skip
    assert set(lines) == {"lae", "finetune"}
    for method, line in lines.items():
        mean = [np.mean([accuracy_after(folders[method, seed], t) for seed in range(3)])
                for t in range(4)]  # fmt: skip
        np.testing.assert_allclose(line.get_ydata(), mean)
        assert line.get_xdata().tolist() == [2, 4, 6, 8]
    assert runs.plot_matrix("finetune", right_) is right_
    (image,) = right_.get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(shown, runs.matrix("finetune").to_numpy())
    assert image.get_extent() == [0, 4, 4, 0]
    assert right_.get_ylim() == (4, 0)  # the first experience learned stands above
    written = {(text.get_position()): text.get_text() for text in right_.texts}
    assert written == {(i + 0.5, t + 0.5): f"{shown[t, i]:.0f}"
                       for t in range(4) for i in range(t + 1)}  # fmt: skip
    assert right_.get_title(loc="left") == "finetune, 3 seeds"
    labels = [tick.get_text() for tick in right_.get_xticklabels()]
    assert labels == [f"{n}: class {2 * n - 2}, clas\u2026" for n in (1, 2, 3, 4)]
    figure.savefig(tmp_path / "both.png")


def test_without_axes_pyplot_gets_a_figure_in_the_report_s_style(
    folders: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    runs = load_runs(tmp_path / "runs")
    before = dict(mpl.rcParams)
    axes = runs.plot_curve()
    assert plt.gcf() is axes.figure
    assert not axes.spines["top"].get_visible()
    axes.figure.savefig(tmp_path / "curve.png")
    ticks = [*axes.xaxis.get_major_ticks(), *axes.yaxis.get_major_ticks()]
    assert len(ticks) > 5
    assert {tick.label1.get_fontsize() for tick in ticks} == {9}
    assert {tick.gridline.get_color() for tick in ticks} == {"#E3E3E3"}
    assert axes.xaxis.label.get_fontsize() == 10
    assert {text.get_text() for text in axes.texts} == {"lae", "finetune"}
    assert axes.get_title(loc="left").startswith("mean over 3 seeds")
    heat = runs.plot_matrix(runs[0])
    assert heat.figure is not axes.figure
    assert heat.get_title(loc="left") == "lae, seed 0"
    heat.figure.savefig(tmp_path / "heat.svg")
    assert dict(mpl.rcParams) == before


def test_what_a_backend_sets_when_it_is_first_used_stays(make_run: MakeRun, tmp_path: Path) -> None:
    # As that of notebooks does, which would show no further figure otherwise.
    make_run()
    (tmp_path / "backend_of_test.py").write_text(
        "import matplotlib\n"
        "from matplotlib.backends.backend_agg import FigureCanvas, FigureManagerBase as FigureManager\n"
        "matplotlib.interactive(True)\n"
    )
    code = (
        "import sys, cl_adapters as cla, matplotlib; "
        "cla.load_runs(sys.argv[1]).plot_curve(); print(matplotlib.is_interactive())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True,
        env={**os.environ, "MPLBACKEND": "module://backend_of_test",
             "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert result.stdout.strip() == "True"


def test_a_name_with_dollars_is_no_formula(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("my$_{x$", options={})
    runs = load_runs(tmp_path / "runs")
    _, (axes, other) = plt.subplots(1, 2)
    runs.plot_matrix(runs[0], other)
    runs.plot_curve(axes).figure.savefig(tmp_path / "a.png")
    runs.plot_matrix(runs[0]).figure.savefig(tmp_path / "b.png")
    assert "my$_{x$" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_what_is_unfinished_or_damaged_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    kept = make_run("lae", 0)
    stopped = make_run("lae", 1, state="failed", experiences_done=1, error="disk full")
    broken = make_run("lae", 2)
    (broken / "predictions.parquet").write_bytes(b"no table")
    with pytest.warns(UserWarning, match=f"left out as damaged: {broken}: ") as told:
        runs = load_runs(tmp_path / "runs")
    assert told[0].filename == __file__
    assert [each.folder for each in runs] == [kept]
    assert any(str(stopped) in note and "1 of 4" in note for note in runs.notes)
    assert any(str(broken) in note for note in runs.notes)
    shutil.rmtree(kept)
    shutil.rmtree(broken)
    empty = load_runs(tmp_path / "runs")
    assert len(empty) == 0
    assert empty.table().columns.tolist() == runs.table().columns.tolist()
    assert empty.curve().empty
    assert "method" in empty.curve()
    with pytest.raises(InputError, match="drawn together, got none"):
        empty.plot_curve()


def test_bad_folders_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run folder '.*nowhere' must exist"):
        load_runs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least one run.json, found none"):
        load_runs(tmp_path / "empty")
    with pytest.raises(InputError, match="run folders must be paths, got 5"):
        load_runs(5)
    broken = make_run()
    (broken / "predictions.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="must hold a run that can be read, got 1 broken"):
        load_runs(broken)


def test_without_folders_it_is_runs_here(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    monkeypatch.chdir(tmp_path)
    assert [each.folder for each in load_runs()] == [folder]
    assert isinstance(load_runs(), Runs)


def test_a_table_needs_neither_torch_nor_matplotlib(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    code = (
        "import sys, cl_adapters as cla; cla.load_runs(sys.argv[1]).table(); "
        "print([m for m in ('torch', 'avalanche', 'matplotlib', 'timm') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
