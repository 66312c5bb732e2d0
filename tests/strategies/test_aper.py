"""APER against plain formulas; the conformance suite runs in `checks/test_suite.py`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.strategies.aper import APER, APERConfig
from cl_adapters.strategies.checks.probes import changed
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import Run, TinyStream, Trial
from cl_adapters.strategies.simplecil import SimpleCIL
from cl_adapters.vit.checks import tiny_backbone

VARIANTS = ("adapter", "ssf", "vpt_shallow", "vpt_deep", "finetune")


def trained(variant: str, stream: TinyStream | None = None, **options: Any) -> Run:
    trial = Trial(APER, {"variant": variant, "lr": 0.3, "epochs": 2, **options})
    return trial.train(trial.build(), stream or TinyStream())


@pytest.mark.parametrize(
    ("branches", "expected"), [("concatenate", 3 / (26 * 5) ** 0.5), ("mean_cosine", 0.3)]
)
def test_one_cosine_over_both_halves_or_the_mean_of_two(branches: str, expected: float) -> None:
    # Frozen (3, 4), adapted (1, 0); the class mean is (1, 0, 0, 2).
    config = APERConfig().override({"branches": branches, "cosine_scale": 1.0})
    head = APER.build_model(tiny_backbone(), config, 0).head
    head.sums = torch.zeros(0, 4).double()
    head.add_classes([0])
    head.add(torch.tensor([[1.0, 0.0, 0.0, 2.0]]), torch.tensor([0]))
    found = head(torch.tensor([[3.0, 4.0, 1.0, 0.0]])).item()
    assert found == pytest.approx(expected, abs=1e-6)
    assert found == pytest.approx({"concatenate": 0.263, "mean_cosine": 0.300}[branches], abs=5e-4)


@pytest.mark.parametrize(
    ("variant", "branches"), [*((each, "concatenate") for each in VARIANTS), ("ssf", "mean_cosine")]
)
def test_answers_are_cosines_to_the_means_of_frozen_and_adapted_features(
    variant: str, branches: str
) -> None:
    stream = TinyStream()
    run = trained(variant, stream, branches=branches)
    images, labels, tested = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    network, first = tiny_backbone(), run.strategy.model.first

    def sides(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(x), first.features(network, x)], dim=1).double()

    with torch.no_grad():
        rows, asked = sides(images), sides(tested)
    assert not torch.allclose(rows[:, :32], rows[:, 32:])
    for image, answer in zip(asked, run.outputs[-1].double(), strict=True):
        for label in range(7):
            mean = rows[labels == label].mean(dim=0)
            halves = [slice(None)] if branches == "concatenate" else [slice(32), slice(32, None)]
            cosines = [functional.cosine_similarity(image[h], mean[h], dim=0) for h in halves]
            expected = 10 * float(sum(cosines)) / len(cosines)
            assert answer[label].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"first_session": False},
        {"lr": 1e-30},  # trained, but an adapter's output stays at 0
        {"lr": 1e-30, "branches": "mean_cosine"},
    ],
)
def test_with_nothing_adapted_it_answers_as_simplecil(options: dict[str, Any]) -> None:
    one, two = (
        trial.train(trial.build(), TinyStream(), only_last=True).outputs[-1]
        for trial in (Trial(APER, {"batch_size": 64, **options}), Trial(SimpleCIL))
    )
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_finetuning_leaves_the_frozen_half_as_it_is() -> None:
    model, images = trained("finetune").strategy.model.eval(), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        frozen, tuned = model.features(images).split(32, dim=1)
        assert torch.equal(frozen, tiny_backbone()(images))
    assert not torch.allclose(frozen, tuned, atol=1e-2)


def test_later_experiences_may_come_in_any_parts() -> None:
    # The images of a class are drawn for its experience: the same ones are dealt out otherwise.
    whole = TinyStream(experiences=((3, 0), (1, 4)))
    parts = TinyStream(experiences=((3, 0), (4,), (1,)))
    images, labels = whole.train_sets[1].tensors
    for number, label in ((1, 4), (2, 1)):
        own = labels == label
        parts.train_sets[number].tensors = images[own], labels[own]
    one, two = (trained("adapter", stream).states[-1] for stream in (whole, parts))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_trained_after_the_first_experience(variant: str) -> None:
    first, *later = (
        {name: value for name, value in state.items() if name.startswith("first.")}
        for state in trained(variant).states
    )
    for state in later:
        assert all(torch.equal(state[name], first[name]) for name in first)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_first_experience_of_one_class_leaves_the_features_as_they_are(variant: str) -> None:
    model = trained(variant, TinyStream(experiences=((2,), (0, 1)))).strategy.model.eval()
    with torch.no_grad():
        features = model.features(torch.randn(2, 3, 16, 16))
    assert torch.equal(features[:, :32], features[:, 32:])


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_every_variant_is_sound(variant: str) -> None:
    names = ["answers", "backbone", "declares", "seeds", "resumes", "resumes_inside"]
    assert check_strategy(APER, options={"variant": variant}, checks=names) == []


def test_a_copy_of_all_weights_is_stored_as_what_differs_and_comes_back_bit_for_bit(
    tmp_path: Path,
) -> None:
    trial, stream = Trial(APER, {"variant": "finetune", "lr": 1e-3}), TinyStream()
    strategy, cache = trial.build(cache=FeatureCache(tmp_path)), FeatureCache(tmp_path)
    fresh = strategy.features.feature_extractor(
        strategy.model.features, strategy.backbone, strategy.model.first.adapters
    ).namespace
    seen = list(stream.benchmark.train_stream[:2])
    for experience in seen:
        strategy.train(experience)
    whole, stored = strategy.learned_state(), strategy.checkpoint_state()
    sizes = [sum(value.nbytes for value in state.values()) for state in (whole, stored)]
    assert sizes[1] < 0.75 * sizes[0]
    answers = trial.evaluate(strategy, stream)
    for state in (whole, stored):  # as earlier versions wrote it, and as it is written
        again = trial.build(cache=cache)
        again.restore(state, seen)
        assert changed(whole, again.learned_state()) == []
        assert torch.equal(trial.evaluate(again, stream), answers)
        # The cache knows the weights by a digest of what they are, not of what they were.
        names = [each.frozen_features().namespace for each in (strategy, again)]
        assert names[0] == names[1] != fresh


def test_a_copy_of_all_weights_of_another_backbone_is_refused() -> None:
    trial = Trial(APER, {"variant": "finetune"})
    state = trial.build().checkpoint_state()
    other = tiny_backbone()
    other.vit.norm.weight.data += 1
    with pytest.raises(InputError, match="the backbone is not the one of the checkpoint"):
        trial.build(backbone=other).restore(state, [])


def test_two_passes_an_image_with_and_without_the_cache(tmp_path: Path) -> None:
    for cache in (None, FeatureCache(tmp_path)):
        strategy = Trial(APER).build(cache=cache)
        strategy.train(TinyStream().benchmark.train_stream[0])
        before = strategy.backbone.num_passes
        extractor = strategy.frozen_features()
        assert extractor is not None
        assert strategy.backbone.num_passes == before
        with torch.no_grad():
            extractor.compute(torch.randn(4, 3, 16, 16))
        assert strategy.backbone.num_passes == before + 8
        extractor.answered(5)  # as the cache says of what it kept
        assert strategy.backbone.num_passes == before + 8 + (10 if cache else 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variant": "ssl"}, "option `variant`: .*'ssf'.*, got 'ssl'"),
        ({"variant": "ssf", "peft": "lora"}, "`peft` must stay at parallel with variant 'ssf'"),
        ({"variant": "finetune", "size": 3}, "`size` must be left out with variant 'finetune'"),
        ({"cosine_scale": 0}, "option `cosine_scale`: "),
        ({"branches": "sum"}, "option `branches`: .*'concatenate' or 'mean_cosine', got 'sum'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        APERConfig().override(options)
