"""A calibration on a run's training images, against plain loops; rejection and shifts by it."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cl_adapters.api import export
from cl_adapters.benchmarks.calibration import HELD_OUT, calibrate, is_held_out, known_images
from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.stores import ArrayStore
from cl_adapters.benchmarks.running.prepare import PreparedRun
from cl_adapters.bundle.calibration import frozen_view
from cl_adapters.bundle.files import load
from cl_adapters.bundle.model import LearnedModel
from cl_adapters.bundle.watching import Seen
from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.records.run_record import RunRecord
from tests.bundle.runs import learn, write_pictures

NAMES = ("ant", "bee", "unknown", "dog")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def learned(root: Path) -> tuple[PreparedRun, Path]:
    """A run on four classes, of which one is called `unknown`."""
    return learn(write_pictures(root / "pictures", NAMES, 40), root / "runs", "simplecil")


@pytest.fixture(scope="module")
def model(learned: tuple[PreparedRun, Path]) -> LearnedModel:
    found = load(learned[1])
    calibrate(learned[1], found)
    return found


def paths_of(root: Path, split: LabelledImages) -> list[str]:
    return [split.name(index).strip("'") for index in range(len(split))]


def test_a_fifth_of_each_class_is_held_out_by_digest_under_any_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 4, 4, 3)).astype(np.uint8)
    targets = np.array([0] * 11 + [1] * 2 + [2] + [3] * 9)
    images = LabelledImages(ArrayStore("a", pixels), np.arange(23), targets, ("a", "b", "c", "d"))
    found = is_held_out(images)
    for label, held in ((0, 2), (1, 0), (2, 0), (3, 2)):
        members = [index for index in range(23) if targets[index] == label]
        ranked = sorted(
            members, key=lambda index: hashlib.sha256(b"held out:" + images.digests[index]).digest()
        )
        assert {index for index in members if found[index]} == set(ranked[:held])
    order = np.random.default_rng(1).permutation(23)
    assert is_held_out(images.take(order)).tolist() == found[order].tolist()


def test_scores_of_held_out_images_are_those_of_plain_loops(
    learned: tuple[PreparedRun, Path], model: LearnedModel
) -> None:
    prepared, _ = learned
    vit, statistics, left = prepared.backbone.model.vit, [], []
    labels: list[int] = []
    for known in known_images(prepared, 2):
        for index in range(len(known.images)):
            image = prepared.preprocess.evaluate(known.images.read(index))[None]
            with torch.no_grad():
                feature = vit.forward_head(vit.forward_features(image), pre_logits=True)[0]
            (left if known.is_held_out[index] else statistics).append(feature)
            if not known.is_held_out[index]:
                labels.append(int(known.labels[index]))
    assert len(left) == pytest.approx(HELD_OUT * (len(left) + len(statistics)), abs=2)
    head = LinearDiscriminant(vit.embed_dim)  # its covariance is tested against scikit-learn
    head.add_classes(labels)
    points, targets = torch.stack(statistics), torch.tensor(labels)
    head.add(points, targets)
    inverse = head.covariance.inverse()
    expected = []
    for feature in left:
        gaps = [
            feature.double() - points[targets == label].double().mean(dim=0) for label in range(4)
        ]
        expected.append(min(float(gap @ inverse @ gap) for gap in gaps))
    assert model.calibration is not None
    found = model.calibration.rejection.held_out.tolist()
    assert found == pytest.approx(sorted(expected), rel=1e-3)


def test_known_images_pass_and_others_do_not(
    root: Path, learned: tuple[PreparedRun, Path], model: LearnedModel
) -> None:
    tests = paths_of(root, learned[0].source.test)
    answers = model.predict(tests, reject=0.1)
    assert answers.known is not None
    assert answers.known.mean() > 0.7
    assert answers.score is not None
    assert ((answers.score <= model.threshold(0.1)) == answers.known).all()
    strange = [np.full((32, 32, 3), value, dtype=np.uint8) for value in (0, 130, 255)]
    others = model.predict(strange, reject=0.1)
    assert others.names == ["unknown"] * 3
    assert others.known is not None
    assert not others.known.any()
    plain = model.predict(tests)
    assert plain.known is plain.score is None
    assert answers.logits.tolist() == plain.logits.tolist()


def test_a_class_called_unknown_is_told_from_rejected_images(
    root: Path, learned: tuple[PreparedRun, Path], model: LearnedModel
) -> None:
    tests = paths_of(root, learned[0].source.test)
    answers = model.predict(tests, reject=0.05)
    assert answers.known is not None
    taken = [answers.classes[label] for label in answers.labels.tolist()]
    for name, known, label in zip(answers.names, answers.known.tolist(), taken, strict=True):
        assert name == (label if known else "unknown")
    assert any(
        known and name == "unknown"
        for name, known in zip(answers.names, answers.known.tolist(), strict=True)
    )


def test_tokens_that_enter_a_block_are_its_mean_tokens(model: LearnedModel) -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    vit = model.strategy.backbone.vit
    entered: dict[int, torch.Tensor] = {}
    hooks = [
        block.register_forward_pre_hook(
            lambda _, given, at=index: entered.__setitem__(at, given[0].mean(dim=1))
        )
        for index, block in enumerate(vit.blocks)
    ]
    with torch.no_grad():
        scaled = model.strategy.backbone.inputs(images, torch.device("cpu"))
        features = vit.forward_head(vit.forward_features(scaled), pre_logits=True)
    for hook in hooks:
        hook.remove()
    view = frozen_view(model.strategy, images, (1, 3, 5))
    assert sorted(view.mean_tokens) == [1, 3, 5]
    for block, tokens in view.mean_tokens.items():
        torch.testing.assert_close(tokens, entered[block])
    torch.testing.assert_close(view.features, features)


def watched(model: LearnedModel, paths: list[str], *, change: bool = False) -> list[int]:
    """Returns the blocks that look shifted."""
    seen = Seen()
    for path in paths:
        image = Image.open(path).convert("RGB")
        model.answer(model.prepared(ImageOps.invert(image) if change else image)[None], seen=seen)
    assert model.watch is not None
    return [each.block for each in model.watch.judge(seen) if each.is_shifted]


def test_a_changed_folder_looks_shifted_and_a_new_one_of_the_same_kind_does_not(
    root: Path, learned: tuple[PreparedRun, Path], model: LearnedModel
) -> None:
    tests = paths_of(root, learned[0].source.test)
    assert model.watch is not None
    assert model.watch.blocks == (3, 4, 5)
    assert watched(model, tests) == []
    assert watched(model, tests, change=True) == [3, 4, 5]


def test_a_bundle_takes_the_calibration_along(
    root: Path, learned: tuple[PreparedRun, Path], model: LearnedModel
) -> None:
    bundle = export(learned[1], root / "bundle")
    shutil.rmtree(root / "bundle2", ignore_errors=True)
    again = export(bundle, root / "bundle2")  # from one bundle to the next
    tests = paths_of(root, learned[0].source.test)[:9]
    expected = model.predict(tests, reject=0.1)
    for place in (bundle, again):
        answers = load(place).predict(tests, reject=0.1)
        assert answers.names == expected.names
        assert answers.score is not None
        assert answers.score.tolist() == expected.score.tolist()
        loaded = load(place)
        assert watched(loaded, tests, change=True) == watched(model, tests, change=True)
    without = export(learned[1], root / "without", rejection=False)
    assert not (without / "rejection.safetensors").exists()
    with pytest.raises(InputError, match="must be calibrated to reject images"):
        load(without).predict(tests, reject=0.1)
    with pytest.raises(InputError, match="must hold a calibration to pass on, got none"):
        export(without, root / "never", rejection=True)
    (bundle / "rejection.safetensors").unlink()
    with pytest.raises(InputError, match="must be there: the bundle is not whole"):
        load(bundle)


def test_images_that_are_missing_changed_or_few_are_one_sentence(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", NAMES, 12)
    _, folder = learn(data, tmp_path / "runs", "simplecil")
    found = load(folder)
    with pytest.raises(InputError, match=r"at least 10 training images, a fifth .*, got 8 of 36"):
        calibrate(folder, found)
    with pytest.raises(InputError, match="unknown score 'mahala'; did you mean 'mahalanobis'"):
        calibrate(folder, found, score="mahala")
    Image.new("RGB", (40, 40)).save(data / "ant" / "00.png")
    with pytest.raises(InputError, match="as they were, but they have changed since"):
        calibrate(folder, found)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="must read the training images of run .* exists"):
        calibrate(folder, found)
    sentences: list[str] = []
    bundle = export(folder, tmp_path / "bundle", say=sentences.append)
    assert load(bundle).calibration is None
    (sentence,) = sentences
    assert "knows no unknown images and no shifts: a calibration must read" in sentence


def test_a_run_that_the_model_does_not_come_from_is_refused(
    learned: tuple[PreparedRun, Path], tmp_path: Path
) -> None:
    found = load(learned[1])
    for change, which in (
        ({"state": "interrupted"}, "another state than when the model was taken from it"),
        ({"seed": 7}, "which is another one"),
        ({"classes": [*NAMES[1:], "eel"]}, "which is another one"),
    ):
        other = Path(shutil.copytree(learned[1], tmp_path / str(len(list(tmp_path.iterdir())))))
        record = RunRecord.read(other)
        for name, value in change.items():
            setattr(record, name, value)
        record.write(other)
        with pytest.raises(InputError, match=f"the run that the model comes from, got .*{which}"):
            calibrate(other, found)
        assert found.calibration is None
    # A copy is the same run, wherever it lies.
    calibrate(shutil.copytree(learned[1], tmp_path / "copy"), found)
    assert found.calibration is not None


def test_sema_is_watched_by_its_own_detectors(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", NAMES, 20)
    prepared, folder = learn(data, tmp_path / "runs", "sema")
    found = load(folder)
    assert found.watch is not None
    assert found.watch.is_own
    tests = paths_of(tmp_path, prepared.source.test)
    seen = Seen()
    found.answer(torch.stack([found.prepared(path) for path in tests]), seen=seen)
    record: dict[int, object] = {}
    inputs = torch.stack(
        [
            prepared.preprocess.evaluate(prepared.source.test.read(index))
            for index in range(len(tests))
        ]
    )
    with torch.no_grad():
        prepared.strategy.model.eval().features(inputs, record)
    for verdict in found.watch.judge(seen):
        block = verdict.block
        rows = record[block].mean_tokens
        # All have the same threshold, so that the lowest score is the nearest to it.
        detectors = prepared.strategy.model.detectors.of(block)
        lowest = torch.stack([each.z_scores(rows) for each in detectors]).min(dim=0).values
        assert verdict.all.score == pytest.approx(lowest.mean().item(), rel=1e-3, abs=1e-4)
        assert verdict.all.threshold == pytest.approx(0.1)
