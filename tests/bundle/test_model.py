"""A loaded model against the run that it was learned in, and against what it may be given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cl_adapters.api import export
from cl_adapters.benchmarks.running.prepare import PreparedRun
from cl_adapters.bundle.files import load
from cl_adapters.bundle.model import LearnedModel, adapters_of, pixels_of_image
from cl_adapters.errors import InputError
from cl_adapters.peft.retrieval import Retrieval
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.tables import read_predictions, read_retrieval
from cl_adapters.strategies import STRATEGIES
from cl_adapters.strategies.core.output import Output
from tests.bundle.runs import CLASSES, learn, shared, write_pictures
from tests.marks import by_default


@pytest.fixture(scope="module")
def model(tiny_runs: Path) -> LearnedModel:
    return load(shared(tiny_runs, "simplecil")[1])


@pytest.mark.parametrize("strategy", by_default(STRATEGIES, ["lae", "mos", "sema", "simplecil"]))
def test_answers_are_those_of_the_run_bit_for_bit(tiny_runs: Path, strategy: str) -> None:
    prepared, folder = shared(tiny_runs, strategy)
    answers_alike(prepared, folder, load(folder))


def test_a_copy_of_all_weights_is_loaded_from_what_differs(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", each=4)
    options = {"variant": "finetune", "epochs": 1, "lr": 1e-4}
    prepared, folder = learn(data, tmp_path / "runs", "aper", options=options)
    state = read_checkpoint(folder / "checkpoints", 1).state
    backbone = sum(value.numel() for value in prepared.strategy.backbone.parameters())
    assert state["first.adapters.difference"].numel() < 0.7 * 4 * backbone
    assert not any(name.startswith("first.adapters.values.") for name in state)
    for place in (folder, export(folder, tmp_path / "bundle", rejection=False)):
        answers_alike(prepared, folder, load(place))


def answers_alike(prepared: PreparedRun, folder: Path, loaded: LearnedModel) -> None:
    assert sorted(loaded.classes) == sorted(CLASSES)
    rows = read_predictions(folder)
    last = rows[rows["experience"] == 1]
    for experience, part in last.groupby("target_experience"):
        pixels = [prepared.test_pixels(experience, sample) for sample in part["sample"]]
        answers = loaded.predict(pixels)
        assert answers.labels.tolist() == part["prediction"].tolist()
        confidence = answers.confidence.astype(part["confidence"].dtype)
        assert confidence.tolist() == part["confidence"].tolist()
        assert np.allclose(answers.probabilities.sum(axis=1), 1)


def test_the_adapter_that_answered_is_the_one_that_the_run_noted(tiny_runs: Path) -> None:
    prepared, folder = shared(tiny_runs, "mos")
    rows = read_retrieval(folder)
    last = rows[(rows["experience"] == 1) & (rows["target_experience"] == 0)]
    pixels = [prepared.test_pixels(0, sample) for sample in last["sample"]]
    assert load(folder).predict(pixels).adapters["all blocks"].tolist() == last["adapter"].tolist()


def test_a_router_says_which_adapter_answered_in_each_block(tiny_runs: Path) -> None:
    prepared, folder = shared(tiny_runs, "sema")
    loaded = load(folder)
    sizes = {
        f"block {block}": size.adapters for block, size in loaded.strategy.model.sizes().items()
    }
    pixels = [prepared.source.test.read(index) for index in range(4)]
    found = loaded.predict(pixels).adapters
    assert set(found) == set(sizes)
    assert all(0 <= each < sizes[place] for place in found for each in found[place].tolist())


def test_every_way_to_give_an_image_is_the_same(model: LearnedModel, tmp_path: Path) -> None:
    (path,) = sorted(write_pictures(tmp_path, ("ant",), each=1).rglob("*.png"))
    picture = Image.open(path)
    pixels = np.asarray(picture)
    ways = [
        path,
        str(path),
        path.read_bytes(),
        picture,
        pixels,
        [pixels],
        pixels[None],
        iter([path]),
    ]
    answers = [model.predict(way).probabilities for way in ways]
    assert all(each.shape == (1, 4) and (each == answers[0]).all() for each in answers)


def test_grey_pixels_are_those_of_a_grey_picture(model: LearnedModel) -> None:
    grey = np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)
    assert (pixels_of_image(grey) == pixels_of_image(Image.fromarray(grey))).all()


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4, 3)), "pixels must be uint8 of shape"),
        (
            np.zeros((4, 4, 4), np.uint8),
            r"pixels must be uint8 of shape .*got uint8 of shape \(4, 4, 4\)",
        ),
        (np.zeros((0, 4, 3), np.uint8), "pixels must be uint8 of shape"),
        ("missing.jpg", "image 'missing.jpg' must exist"),
        (b"no image", "image of the bytes given must be a JPEG"),
        ([], "images must be at least one, got none"),
        (None, "images must be one or several, got None"),
        (7, "images must be one or several, got 7"),
    ],
)
def test_what_is_no_image_is_refused(model: LearnedModel, image: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        model.predict(image)


def test_batches_do_not_matter_and_top_is_sorted(model: LearnedModel, tmp_path: Path) -> None:
    paths = sorted(write_pictures(tmp_path, each=3).rglob("*.png"))
    whole, single = model.predict(paths), model.predict(paths, batch_size=1)
    assert np.allclose(whole.probabilities, single.probabilities, atol=1e-6)
    for names, row, first in zip(whole.top(9), whole.probabilities, whole.names, strict=True):
        assert [each for _, each in names] == sorted(row.tolist(), reverse=True)
        assert names[0][0] == first
        assert len(names) == 4
    with pytest.raises(InputError, match="top must be asked for at least 1 class, got 0"):
        whole.top(0)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        model.predict(paths, batch_size=0)


def test_an_answer_names_the_experience_that_brought_its_class(tiny_runs: Path) -> None:
    prepared, folder = shared(tiny_runs, "simplecil")
    loaded = load(folder)
    answers = loaded.predict([prepared.source.test.read(index) for index in range(8)])
    brought = {
        prepared.plan.classes[label]: t
        for t, labels in enumerate(prepared.plan.experiences)
        for label in labels
    }
    assert [brought[name] for name in answers.names] == answers.experience.tolist()


def test_answering_changes_nothing_even_where_evaluation_merges(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    options = {"epochs": 1, "batch_size": 8}
    prepared, folder = learn(data, tmp_path / "runs", "mos", fidelity="official", options=options)
    loaded = load(folder)
    assert loaded.strategy.answers_change_it
    before = {name: value.clone() for name, value in loaded.strategy.learned_state().items()}
    pixels = [prepared.source.test.read(index) for index in range(6)]
    first, second = loaded.predict(pixels), loaded.predict(pixels)
    assert (first.probabilities == second.probabilities).all()
    after = loaded.strategy.learned_state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bf16_and_fp32_may_be_chosen(tiny_runs: Path) -> None:
    prepared, folder = shared(tiny_runs, "simplecil")
    pixels = [prepared.source.test.read(index) for index in range(4)]
    half = load(folder, precision="bf16").predict(pixels).probabilities
    whole = load(folder).predict(pixels).probabilities
    assert 0 < np.abs(half - whole).max() < 0.05


def test_of_several_adapters_that_were_asked_the_last_answered() -> None:
    visited = torch.tensor([[0, 2, 1], [2, -1, -1], [1, 0, -1]])
    logits = torch.zeros(3, 2)
    output = Output(logits, {"retrieval": Retrieval(logits, logits, visited)})
    assert adapters_of(output)["all blocks"].tolist() == [1, 2, 0]
