"""MOS at inference, and what it answers from, against loops over all adapter sets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_mos import NAMES, THREE, TWO, build, images_of


def test_official_sets_collapse_into_the_first(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, official=True, epochs=20, num_classes=6)
    benchmark = make_stream(THREE, per_class=4)  # a step an epoch
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert strategy.model.frozen_adapters.distances()[0].max() < 1e-3
    images, _ = images_of(benchmark.test_stream[2])
    model = strategy.model.eval()
    with torch.no_grad():
        whole = model(images).logits.argmax(dim=1)
        alone = torch.stack([model.logits(tiny_vit(images, model.frozen_adapters.choose(0)))])
        votes = model.task_predictor(tiny_vit(images, model.frozen_adapters.choose(0)))
    score = alone[0].softmax(dim=1) + (3 * votes).softmax(dim=1)
    assert torch.equal(score.argmax(dim=1), whole)


def test_evaluation_changes_nothing_unless_asked_by_name(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    benchmark = make_stream(THREE)
    for official in (False, True):
        strategy = build(tiny_vit, official=official, num_classes=6, lr=0.3)
        strategy.train(benchmark.train_stream)
        before = {key: value.clone() for key, value in strategy.learned_state().items()}
        strategy.eval(benchmark.test_stream)
        changed = {
            key
            for key, value in strategy.learned_state().items()
            if not torch.equal(value, before[key])
        }
        assert changed == ({f"frozen_adapters.{name}" for name in NAMES} if official else set())
        if not official:
            continue
        # Three batches, each with as many merges as blocks, towards the mean of the sets before.
        share = 0.9 ** (3 * tiny_vit.num_blocks)
        for name in NAMES:
            sets = before[f"frozen_adapters.{name}"]
            assert torch.equal(strategy.learned_state()[f"frozen_adapters.{name}"][0], sets[0])
            for index in (1, 2):
                mean = sets[:index].mean(dim=0)
                expected = share * sets[index] + (1 - share) * mean
                torch.testing.assert_close(
                    strategy.learned_state()[f"frozen_adapters.{name}"][index],
                    expected,
                    rtol=1e-4,
                    atol=1e-7,
                )


def test_prototypes_are_raw_means_of_the_first_sets_features(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, task_predictor="prototypes")
    train = make_stream(THREE).train_stream
    strategy.train(train[0])
    before = strategy.model.task_predictor.sums.clone()
    strategy.train(train[1])
    assert torch.equal(strategy.model.task_predictor.sums[:2], before)  # never updated
    images, targets = images_of(train[1])
    with torch.no_grad():
        features = tiny_vit(images, strategy.model.frozen_adapters.choose(0))
    for label in (2, 3):
        expected = features[targets == label].double().sum(dim=0)
        torch.testing.assert_close(strategy.model.task_predictor.sums[label], expected)


def test_prototypes_with_dropout_differ_from_experience_1_on(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    train = make_stream(TWO).train_stream
    sums = []
    for dropout in (False, True):
        strategy = build(tiny_vit, task_predictor="prototypes", prototype_dropout=dropout, lr=0.3)
        strategy.train(train)
        sums.append(strategy.model.task_predictor.sums)
    assert torch.equal(sums[0][:2], sums[1][:2])
    assert not torch.equal(sums[0][2:], sums[1][2:])


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("retrieval", [True, False])
def test_inference_equals_the_exhaustive_loop(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], *, ensemble: bool, retrieval: bool
) -> None:
    strategy = build(
        tiny_vit,
        task_predictor="prototypes",
        ensemble=ensemble,
        retrieval=retrieval,
        merge="none",
        lr=1.0,
        dropout=0,
    )
    benchmark = make_stream(THREE)
    strategy.train(benchmark.train_stream)
    images = torch.cat([images_of(each)[0] for each in benchmark.test_stream])
    images += torch.randn(images.shape, generator=torch.Generator().manual_seed(0))  # harder
    model = strategy.model.eval()
    before = tiny_vit.num_passes
    with torch.no_grad():
        output = model(images)
    passes = tiny_vit.num_passes - before
    found, visited = output.logits, output.extras["retrieval"].visited.tolist()
    with torch.no_grad():
        features = [tiny_vit(images, model.frozen_adapters.choose(index)) for index in range(3)]
        cosine = (
            functional.normalize(features[0], dim=1)
            @ functional.normalize(model.task_predictor.sums.float(), dim=1).T
        )
        owner = [0, 0, 1, 1, 2, 2]
        needed = len(images)  # the first set, once an image
        for row in range(len(images)):
            path = [owner[int(cosine[row].argmax())]]
            while True:
                logits = model.heads(features[path[-1]][row : row + 1])[0]
                following = owner[int(logits.argmax())]
                if following == path[-1] or len(path) == (4 if retrieval else 1):
                    break
                path.append(following)
            assert [each for each in visited[row] if each >= 0] == path
            needed += len(set(path) - {0})
            score = logits.softmax(dim=0) + (3 * cosine[row]).softmax(dim=0)
            expected = (score / 2).log() if ensemble else logits
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)
    assert passes == needed
    assert len({tuple(each) for each in visited}) > 1  # the loop above had something to follow


def test_a_discriminant_guesses_from_the_first_sets_features_of_all_classes(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit, task_predictor="discriminant", merge="none", lr=0.3)
    benchmark = make_stream(THREE)
    strategy.train(benchmark.train_stream)
    images, targets = (
        torch.cat(parts) for parts in zip(*map(images_of, benchmark.train_stream), strict=True)
    )
    model = strategy.model.eval()
    seen = torch.cat([images_of(each)[0] for each in benchmark.test_stream])
    with torch.no_grad():
        output = model(seen)
        rows = [
            functional.normalize(tiny_vit(each, model.frozen_adapters.choose(0)), dim=1).double()
            for each in (images, seen)
        ]
        spread = model.task_predictor.covariance
        found, visited = output.logits.exp(), output.extras["retrieval"].visited
        last = (visited >= 0).sum(dim=1) - 1
        adapter = visited[torch.arange(len(seen)), last]
        answer = model.heads(tiny_vit(seen, model.frozen_adapters.choose(adapter))).softmax(dim=1)
    distances = [
        ((rows[1] - rows[0][targets == label].mean(dim=0)) @ torch.linalg.inv(spread))
        .mul(rows[1] - rows[0][targets == label].mean(dim=0))
        .sum(dim=1)
        for label in range(6)
    ]
    posterior = torch.stack(distances, dim=1).mul(-0.5).softmax(dim=1)
    torch.testing.assert_close(
        found.double(), (answer.double() + posterior) / 2, rtol=1e-3, atol=1e-3
    )
