"""Grown adapters are left out one by one, and what was found is kept beside the run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_adapters.benchmarks.ablation import ablate
from cl_adapters.bundle.files import load
from cl_adapters.cli.ablate import _told
from cl_adapters.errors import InputError
from cl_adapters.records.ablation import ABLATION, read_ablation, write_ablation
from cl_adapters.records.files import add_checksum
from cl_adapters.records.tables import read_predictions
from cl_adapters.reports.ablation import bought, read_worth
from cl_adapters.reports.growth import read_history
from cl_adapters.reports.load import load_runs
from cl_adapters.reports.report import write_report
from tests.bundle.runs import OPTIONS, learn, shared, write_pictures

# Every block of the last three grows with the second experience.
GROWING = {**OPTIONS["sema"], "policy": "every_experience", "epochs": 4, "lr": 0.2}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    root = tmp_path_factory.mktemp("ablation")
    data = write_pictures(root / "pictures")
    return learn(data, root / "runs", "sema", options=GROWING)


def test_counts_are_those_of_the_run_and_of_answers_without_the_adapters(
    grown: tuple[Any, Path],
) -> None:
    prepared, folder = grown
    found = ablate(folder)
    rows = read_predictions(folder)
    last = rows[rows["experience"] == 1]
    is_right = (last["prediction"] == last["target"]).groupby(last["target_experience"])
    assert found.images == tuple(is_right.count())
    assert found.right == tuple(is_right.sum())
    assert [each.adapters for each in found.without] == [
        ((3, 1), (4, 1), (5, 1)),
        ((3, 1),),
        ((4, 1),),
        ((5, 1),),
    ]
    # Without all that was grown, the first adapter of each block answers alone.
    learned = load(folder)
    for block in (3, 4, 5):
        slot: Any = learned.strategy.model.slot(block)
        first = torch.tensor([1.0, 0.0])
        slot.router.route = lambda means, *_, first=first: first.expand(len(means), 2)
    right, both = [], []
    for experience, part in last.groupby("target_experience"):
        pixels = [prepared.test_pixels(experience, sample) for sample in part["sample"]]
        hits = learned.predict(pixels).labels == part["target"].to_numpy()
        right.append(int(hits.sum()))
        both.append(int((hits & (part["prediction"] == part["target"]).to_numpy()).sum()))
    assert found.without[0].right == tuple(right)
    assert found.without[0].both == tuple(both)
    assert read_ablation(folder) == found


def test_points_are_lost_images_in_per_cent(grown: tuple[Any, Path]) -> None:
    _, folder = grown
    found = ablate(folder)
    (run,) = load_runs([folder]).finished
    worth = read_worth(run)
    assert worth is not None
    assert worth.adapters == (((3, 1),), ((4, 1),), ((5, 1),))
    for row, each in zip(worth.points, found.without, strict=True):
        lost = [now - then for now, then in zip(found.right, each.right, strict=True)]
        expected = [100 * a / b for a, b in zip(lost, found.images, strict=True)]
        expected.append(100 * sum(lost) / sum(found.images))
        assert row.tolist() == pytest.approx(expected)
    names = worth.names(read_history(run.events, 2))
    assert names[:2] == ["all that was grown", "block 3, adapter 2, since 2"]


@pytest.mark.slow
def test_the_report_shows_what_growth_bought(grown: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = grown
    found = ablate(folder)
    summary = write_report([folder], tmp_path / "report")
    lost = 100 * (sum(found.right) - sum(found.without[0].right)) / sum(found.images)
    page = summary.html.read_text("utf-8")
    direction = "more" if lost < 0 else "less"
    assert f"(3.0), sema would be {abs(lost):.1f} points {direction} accurate" in page
    (table,) = (tmp_path / "report" / "tables").glob("*-ablation.csv")
    lines = table.read_text("utf-8").splitlines()
    assert len(lines) == 1 + 4 * 2  # all and three adapters, two experiences
    assert lines[3].split(",")[:4] == ["sema", "0", '"block 3', " adapter 2"]
    assert any("worth" in path.name for path in summary.files)


@pytest.mark.parametrize("expandable", [3, 1])  # a path of one block is a path as well
def test_adapters_of_a_path_are_left_out_together(tmp_path: Path, expandable: int) -> None:
    data, whole = write_pictures(tmp_path / "pictures"), {"watch": "network", "beside": True}
    options = {**GROWING, **whole, "expandable": expandable}
    _, folder = learn(data, tmp_path / "runs", "sema", options=options)
    found = ablate(folder)
    path = tuple((block, 1) for block in range(6 - expandable, 6))
    assert " by 1 grown path" in _told(found)
    assert read_ablation(folder) == found
    assert [each.adapters for each in found.without] == [path, path]
    assert found.without[0] == found.without[1]
    (run,) = load_runs([folder]).finished
    worth = read_worth(run)
    assert worth is not None
    assert worth.names(read_history(run.events, 2)) == ["all that was grown", "path 2, since 2"]
    assert bought("sema", [worth]).startswith("Without the paths that it has grown (1.0), sema")
    # As the run answered, with the first path's features in place of those left out.
    rows = read_predictions(folder)
    last = rows[rows["experience"] == 1]
    is_right = (last["prediction"] == last["target"]).groupby(last["target_experience"])
    assert found.right == tuple(is_right.sum())


@pytest.mark.slow
def test_an_experience_without_test_images_has_no_points(
    grown: tuple[Any, Path], tmp_path: Path
) -> None:
    _, folder = grown
    found = ablate(folder)
    without = tuple(
        replace(each, right=(0, each.right[1]), both=(0, each.both[1])) for each in found.without
    )
    images, right = (0, found.images[1]), (0, found.right[1])
    write_ablation(folder, replace(found, images=images, right=right, without=without))
    try:
        (run,) = load_runs([folder]).finished
        worth = read_worth(run)
        assert worth is not None
        assert np.isnan(worth.points[:, 0]).all()
        for row, each in zip(worth.points, without, strict=True):
            lost = 100 * (found.right[1] - each.right[1]) / found.images[1]
            assert row[1:].tolist() == pytest.approx([lost, lost])
        page = write_report([folder], tmp_path / "report").html.read_text("utf-8")
        assert "+nan" not in page
    finally:
        ablate(folder)


def test_a_damaged_file_is_named_and_another_run_s_is_not_used(
    grown: tuple[Any, Path],
) -> None:
    _, folder = grown
    ablate(folder)
    values = json.loads((folder / ABLATION).read_text("utf-8"))
    (folder / ABLATION).write_text(json.dumps({**values, "right": [99, 99]}), "utf-8")
    with pytest.raises(InputError, match="damaged file"):
        read_ablation(folder)
    with pytest.raises(InputError, match=ABLATION):
        write_report([folder], folder.parent / "report")
    ablate(folder)
    record = (folder / "run.json").read_text("utf-8")
    try:
        (folder / "run.json").write_text(record + "\n", "utf-8")
        assert read_ablation(folder) is None
    finally:
        (folder / "run.json").write_text(record, "utf-8")


def test_who_does_not_grow_is_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("others")
    _, folder = shared(root, "simplecil")
    with pytest.raises(InputError, match="method that grows adapters, got 'simplecil'"):
        ablate(folder)
    _, folder = learn(
        root / "pictures", root / "runs", "sema", options={**OPTIONS["sema"], "policy": "never"}
    )
    with pytest.raises(InputError, match="must have grown an adapter, got none"):
        ablate(folder)
    assert not (folder / ABLATION).exists()
    assert load_runs([folder]).finished


SIX = ("ant", "bee", "cat", "dog", "elk", "fox")


@torch.no_grad()
def _by_plain_loop(model: Any, images: torch.Tensor, gone: set[int]) -> torch.Tensor:
    """MOS's answer an image at a time, without its ensemble, where the first set stands in."""
    owner = {label: int(k) for label, k in enumerate(model.class_to_task.experience_of.tolist())}
    owner = {label: 0 if k in gone else k for label, k in owner.items()}
    answers = []
    for image in images.split(1):
        under = [
            model.backbone.features_of(image, (model.frozen_adapters.choose(k),))
            for k in range(len(model.frozen_adapters))
        ]
        votes = model.task_predictor(under[0])
        asked = owner[int(votes.argmax())]
        for _ in range(model.config.rounds):
            logits = model.logits(under[asked])
            following = owner[int(logits.argmax())]
            if following == asked:
                break
            asked = following
        answers.append(int(logits.argmax()))
    return torch.tensor(answers)


def test_the_first_set_of_mos_stands_in_for_one_that_is_left_out(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", SIX)
    options = {**OPTIONS["mos"], "epochs": 8, "lr": 0.1, "merge": "none", "ensemble": False}
    prepared, folder = learn(data, tmp_path / "runs", "mos", options=options)
    found = ablate(folder)
    assert len({found.right, *(each.right for each in found.without)}) > 1  # it makes a difference
    assert found.unit == "set"
    assert [each.adapters for each in found.without] == [((0, 1), (0, 2)), ((0, 1),), ((0, 2),)]
    strategy: Any = load(folder).strategy
    strategy.model.eval()
    stream = prepared.benchmark().test_stream
    for each in found.without:
        gone = {number for _, number in each.adapters}
        for experience, right in zip(stream, each.right, strict=True):
            rows = [experience.dataset[place] for place in range(len(experience.dataset))]
            images = strategy.backbone.inputs(
                torch.stack([row[0] for row in rows]), strategy.device
            )
            answers = _by_plain_loop(strategy.model, images, gone)
            assert int((answers == torch.tensor([row[1] for row in rows])).sum()) == right
    (run,) = load_runs([folder]).finished
    worth = read_worth(run)
    assert worth is not None
    assert worth.names(read_history(run.events, 3)) == ["all that was grown", "set 2", "set 3"]


@pytest.mark.parametrize("strategy", ["mos", "lae"])
def test_sets_of_regimes_are_left_out_by_regime(tmp_path: Path, strategy: str) -> None:
    data = write_pictures(tmp_path / "pictures")
    options = {**OPTIONS[strategy], "policy": "every_experience", "budget": {"adapters": 9}}
    options |= {"lr": 0.2}
    prepared, folder = learn(data, tmp_path / "runs", strategy, options=options)
    found = ablate(folder)
    assert [each.adapters for each in found.without] == [((0, 1),), ((0, 1),)]
    rows = read_predictions(folder)
    last = rows[rows["experience"] == 1]
    is_right = (last["prediction"] == last["target"]).groupby(last["target_experience"])
    assert found.right == tuple(is_right.sum())
    learned = load(folder)
    model: Any = learned.strategy.model
    if strategy == "lae":  # experts of the first regime, whatever an image looks like
        model.regimes.of_images = lambda features: torch.zeros(len(features), dtype=torch.int64)
    else:  # every class is the first set's
        model.owners = lambda: torch.zeros_like(model.class_to_task.experience_of)
    for experience, part in last.groupby("target_experience"):
        pixels = [prepared.test_pixels(experience, sample) for sample in part["sample"]]
        hits = learned.predict(pixels).labels == part["target"].to_numpy()
        assert found.without[0].right[experience] == hits.sum()
    (run,) = load_runs([folder]).finished
    worth = read_worth(run)
    assert worth is not None
    assert worth.names(read_history(run.events, 2))[1].startswith("set 2, since 2")
    with pytest.raises(InputError, match=r"sets to leave out must be some of \[\(0, 1\)\]"):  # noqa: SIM117
        with model.leaving_out([(0, 0)]):
            pass


def test_files_without_a_unit_are_read(grown: tuple[Any, Path]) -> None:
    _, folder = grown
    found = ablate(folder)
    values = json.loads((folder / ABLATION).read_text("utf-8"))
    del values["unit"], values["checksum"]
    (folder / ABLATION).write_text(json.dumps(add_checksum(values)), "utf-8")
    assert read_ablation(folder) == found
    for each in values["without"][1:]:
        each["adapters"] = [[3, 1], [4, 1]]
    (folder / ABLATION).write_text(json.dumps(add_checksum(values)), "utf-8")
    again = read_ablation(folder)
    assert again is not None
    assert again.unit == "path"
