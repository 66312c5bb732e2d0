"""FeCAM against NumPy on the frozen features; the conformance suite runs in `checks/test_suite.py`."""

import numpy as np
import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.fecam import FeCAM, FeCAMConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.checks import tiny_backbone
from tests.heads.test_mahalanobis import expected


@pytest.mark.parametrize("form", ["authors", "pilot"])
def test_answers_are_those_of_all_images_at_once(form: str) -> None:
    trial, stream = Trial(FeCAM, {"form": form}), TinyStream()
    run = trial.train(trial.build(), stream)
    images, labels, tested = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    network = tiny_backbone()
    with torch.no_grad():
        rows, asked = network(images), network(tested)
    distances = torch.from_numpy(expected(rows, labels, asked, form))
    scores = (-distances * 10).log_softmax(dim=1) / 10
    torch.testing.assert_close(run.outputs[-1].double() / 10, scores, atol=1e-4, rtol=1e-4)


def test_a_first_session_moves_the_features_once() -> None:
    trial = Trial(FeCAM, {"first_session": True, "lr": 0.5})
    run = trial.train(trial.build(), TinyStream())
    plain = Trial(FeCAM).straight
    assert not torch.allclose(run.outputs[0], plain.outputs[0])
    first, second, third = (
        {name: value for name, value in state.items() if name.startswith("first.")}
        for state in run.states
    )
    assert first.keys() == second.keys() == third.keys() != set()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], third[name]) for name in first)
    assert not any(name.startswith("first.") for name in plain.states[-1])


@pytest.mark.slow  # the suite over the defaults is run each time
def test_variants_are_sound() -> None:
    options = {"first_session": True, "form": "pilot"}
    names = ["answers", "declares", "resumes", "resumes_inside", "small", "seeds", "relabelled"]
    assert check_strategy(FeCAM, options=options, checks=names) == []


def test_an_image_is_answered_alike_in_any_batch(tiny_vit: AdaptedViT) -> None:
    model = FeCAM.build_model(tiny_vit, FeCAMConfig(), 0)
    model.head.add_classes(range(3))
    images = torch.randn(12, 3, 32, 32)
    with torch.no_grad():
        model.head.add(tiny_vit(images), torch.arange(12) % 3)
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


def test_in_bf16_distances_are_not_rounded_to_eight_bits() -> None:
    trial = Trial(FeCAM)
    run = trial.train(trial.build(precision="bf16"), TinyStream(), only_last=True)
    values = run.outputs[-1].numpy()
    assert not np.array_equal(values, torch.from_numpy(values).bfloat16().float().numpy())


def test_the_authors_settings_are_the_defaults() -> None:
    assert FeCAMConfig.official() == FeCAMConfig(peft_scale=0.1)  # of a first session alone
    assert not FeCAMConfig().first_session


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "paper"}, "option `form`: .*'authors' or 'pilot', got 'paper'"),
        ({"shrink_diagonal": -1}, "option `shrink_diagonal`: .* 0, got -1"),
        ({"power": 0}, "option `power`: .* 0, got 0"),
        (
            {"form": "pilot", "shrink_rest": 3.0},
            "must stay at 1.0 and 0.0 with form 'pilot', .* got 1.0 and 3.0",
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        FeCAMConfig().override(options)
