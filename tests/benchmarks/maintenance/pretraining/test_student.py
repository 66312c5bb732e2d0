import math

import numpy as np
import pytest
import torch
from safetensors.torch import load
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from cl_adapters.benchmarks.maintenance.pretraining.student import (
    ARCHITECTURE,
    Batch,
    CosineClassifier,
    Drawings,
    Student,
    make_batch,
)
from cl_adapters.vit.embedded import embedded_card, embedded_weights

PHOTOS, DRAWN = 3, 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def student(teacher_state: dict[str, Tensor]) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Student(teacher_state, 4, 6, 5)


def some_pixels(count: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), generator=generator(1), dtype=torch.uint8)


def some_batch(seed: int = 0) -> Batch:
    rows = torch.tensor([5, 0, 5])
    return make_batch(some_pixels(), rows, Drawings.make(6, 5, seed=2), DRAWN, generator(seed))


def test_a_batch_holds_photographs_glyphs_and_emblems() -> None:
    batch = some_batch()
    assert batch.images.shape == (PHOTOS + 2 * DRAWN, 3, 32, 32)
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    assert batch.images.min() < -0.5
    assert batch.images.max() > 0.5
    assert batch.rows.tolist() == [5, 0, 5]
    assert batch.glyphs.shape == batch.emblems.shape == (DRAWN,)


def test_photographs_come_first_and_are_those_of_the_rows() -> None:
    """Plain photographs of their own brightness are known again by their mean, drawings are not."""
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 64, 64)
    rows = torch.arange(2).repeat(100)
    batch = make_batch(pixels, rows, Drawings.make(6, 5, seed=2), 4, generator())
    means = batch.images[:200].mean(dim=(1, 2, 3))
    # Some are inverted and some lose their brightness to other distortions, but most do not.
    assert ((means > 0) == (rows == 1)).float().mean() > 0.7
    assert batch.images[200:].std(dim=(2, 3)).mean() > 2 * batch.images[:200].std(dim=(2, 3)).mean()


def test_drawn_classes_are_all_used_and_within_range() -> None:
    drawings = Drawings.make(6, 5, seed=2)
    batch = make_batch(some_pixels(), torch.arange(1), drawings, 200, generator())
    assert set(batch.glyphs.tolist()) == set(range(6))
    assert set(batch.emblems.tolist()) == set(range(5))


def test_all_chance_of_a_batch_comes_from_the_generator() -> None:
    state = torch.get_rng_state()
    first = some_batch()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    again, other = some_batch(), some_batch(seed=1)
    for name, value in vars(first).items():
        assert torch.equal(getattr(again, name), value), name
    assert not torch.equal(other.images, first.images)


def test_photographs_are_left_as_they_are() -> None:
    pixels = some_pixels()
    make_batch(pixels, torch.arange(8), Drawings.make(6, 5, seed=2), DRAWN, generator())
    assert torch.equal(pixels, some_pixels())


def test_class_scores_are_scaled_cosines() -> None:
    head = CosineClassifier(7, 3)
    features = torch.randn(4, 7, generator=generator())
    scores = head(features).detach()
    for row, feature in enumerate(features.numpy()):
        for column, weight in enumerate(head.weight.detach().numpy()):
            cosine = feature @ weight / (np.linalg.norm(feature) * np.linalg.norm(weight))
            assert float(scores[row, column]) == pytest.approx(16 * cosine, abs=1e-4)


def test_the_student_starts_from_its_teacher(
    student: Student, teacher_state: dict[str, Tensor]
) -> None:
    state = student.network.state_dict()
    for name in ("cls_token", "norm.weight", "blocks.0.attn.qkv.weight", "blocks.5.norm2.bias"):
        assert torch.equal(state[name], teacher_state[name]), name
    # What leaves the network is compared with the teacher as it is, before anything is learned.
    features = torch.randn(2, 192)
    torch.testing.assert_close(student.to_teacher(features) - student.to_teacher.bias, features)


def test_the_teachers_classifier_is_neither_trained_nor_stored(
    student: Student, teacher_state: dict[str, Tensor]
) -> None:
    frozen = {teacher_state["head.weight"].shape, teacher_state["head.bias"].shape}
    assert not frozen & {value.shape for value in student.parameters()}
    assert not frozen & {value.shape for value in student.state_dict().values()}
    losses = student.losses(some_batch(), torch.randn(8, 192), torch.arange(8) % 4)
    losses["teacher"].backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
    assert not student.head_weight.requires_grad
    assert torch.equal(student.head_weight, teacher_state["head.weight"])
    assert student.network.cls_token.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("share", "is_training", "tokens"), [(0.5, True, 33), (0.0, True, 65), (0.5, False, 65)]
)
def test_patch_tokens_are_dropped_in_training_only(
    student: Student, share: float, is_training: bool, tokens: int
) -> None:
    student.train(is_training).drop_tokens(share)
    assert student.network.forward_features(torch.randn(2, 3, 32, 32)).shape == (2, tokens, 192)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    shares: np.ndarray = powers / powers.sum()
    return shares


def expected_losses(
    student: Student, batch: Batch, teacher: Tensor, labels: Tensor
) -> dict[str, float]:
    """The losses of the model card, an image at a time."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = student.network(batch.images).float()
    with torch.no_grad():
        guesses = student.to_teacher(features).numpy()
        heads = (student.labels, student.glyphs, student.emblems)
        scores = [head(features).numpy() for head in heads]
    weight, bias = student.head_weight.numpy(), student.head_bias.numpy()
    centre = teacher.numpy().mean(axis=0)
    sums = dict.fromkeys(["features", "teacher", "labels", "glyphs", "emblems"], 0.0)
    for image, row in enumerate(batch.rows.tolist()):
        guess, target = guesses[image], teacher[row].numpy()
        one, two = guess - centre, target - centre
        sums["features"] += 1 - one @ two / (np.linalg.norm(one) * np.linalg.norm(two))
        soft, found = softmax(weight @ target + bias), softmax(weight @ guess + bias)
        sums["teacher"] -= float(soft @ np.log(found))
        smooth = np.full(4, 0.1 / 4)
        smooth[labels[row]] += 0.9
        sums["labels"] -= float(smooth @ np.log(softmax(scores[0][image])))
    for place in range(DRAWN):
        glyph, emblem = PHOTOS + place, PHOTOS + DRAWN + place
        sums["glyphs"] -= math.log(softmax(scores[1][glyph])[batch.glyphs[place]])
        sums["emblems"] -= math.log(softmax(scores[2][emblem])[batch.emblems[place]])
    counts = {"glyphs": DRAWN, "emblems": DRAWN}
    return {name: value / counts.get(name, PHOTOS) for name, value in sums.items()}


def test_losses_equal_those_of_a_loop(student: Student) -> None:
    batch, labels = some_batch(), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    teacher = torch.randn(8, 192, generator=generator(3)) + 2
    student.eval()
    found = student.losses(batch, teacher, labels)
    expected = expected_losses(student, batch, teacher, labels)
    assert {k: float(v.detach()) for k, v in found.items()} == pytest.approx(expected, rel=1e-4)


def test_the_shipped_weights_fit_the_architecture() -> None:
    state = load(embedded_weights())
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert all(value.isfinite().all() for value in state.values())
    assert embedded_card()["architecture"] == ARCHITECTURE
    network = VisionTransformer(**ARCHITECTURE)
    network.load_state_dict(state)
    assert sum(value.numel() for value in state.values()) == embedded_card()["parameters"]
