"""EASE against plain loops; the conformance suite runs in `checks/test_suite.py`."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.subspaces import SubspacePrototypes
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import EXPERIENCES, Run, TinyStream, Trial
from cl_adapters.strategies.ease import EASE, EASEConfig
from cl_adapters.vit.checks import tiny_backbone

OPTIONS = {"lr": 0.3, "epochs": 2}


@pytest.fixture(scope="module")
def run() -> Run:
    trial = Trial(EASE, OPTIONS)
    return trial.train(trial.build(), TinyStream())


def sets(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if k.startswith("frozen_adapters.")}


def test_an_experience_trains_a_fresh_set_as_a_plain_loop_does() -> None:
    # One batch an epoch, so that no order matters; the second experience, after another one.
    options = {"batch_size": 24, "epochs": 3, "lr": 0.1, "dropout": 0.0, "size": 7}
    trial, stream = Trial(EASE, options), TinyStream(experiences=((0, 1), (2, 3)))
    strategy = trial.build()
    strategy.train(stream.benchmark.train_stream[0])
    strategy.classes_by_experience.append(())
    weights, adapters = strategy.generator("weights"), strategy.generator("adapters")
    strategy.classes_by_experience.pop()
    network, images, labels = tiny_backbone(), *stream.train_sets[1].tensors
    stack = trial.config.build_stack(network, adapters.initial_seed())
    bound = 1 / math.sqrt(32)
    rows = nn.Parameter(torch.empty(2, 32).uniform_(-bound, bound, generator=weights))
    scale = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD(
        [*stack.parameters(), rows, scale], lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * epoch / 3)) / 2
        features = functional.normalize(network(images, stack.adapters()), dim=1)
        logits = scale * features @ functional.normalize(rows, dim=1).T
        loss = functional.cross_entropy(logits, labels - 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    strategy.train(stream.benchmark.train_stream[1])
    bank = strategy.model.frozen_adapters
    assert len(bank) == 2
    for name, value, found in zip(stack.template.keys, stack.tensors(), bank.at(1), strict=True):
        torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-4, msg=name)


def test_answers_come_from_the_means_in_all_subspaces(run: Run) -> None:
    stream, bank = TinyStream(), run.strategy.model.frozen_adapters
    network, head = tiny_backbone(), SubspacePrototypes(32)
    with torch.no_grad():
        for number, classes in enumerate(EXPERIENCES):
            head.add_classes(classes)
            images, labels = stream.train_sets[number].tensors
            for subspace in range(number + 1):
                head.add(subspace, network(images, bank.choose(subspace)), labels)
        images = torch.cat([each.tensors[0] for each in stream.test_sets])
        expected = head(torch.stack([network(images, bank.choose(j)) for j in range(3)]))
    torch.testing.assert_close(run.outputs[-1], expected, atol=1e-4, rtol=1e-4)


def test_a_set_and_a_mean_of_images_never_change(run: Run) -> None:
    for number, (before, after) in enumerate(zip(run.states, run.states[1:], strict=False)):
        for name, value in sets(before).items():
            assert len(value) == number + 1
            assert torch.equal(sets(after)[name][: number + 1], value)
        sums, later = before["prototypes.sums"], after["prototypes.sums"]
        assert torch.equal(later[: number + 1, : sums.shape[1]][sums != 0], sums[sums != 0])


def test_each_set_starts_anew(run: Run) -> None:
    down = run.strategy.model.frozen_adapters.tensors()[0]
    one, two = down[0].flatten(), down[1].flatten()
    assert abs(functional.cosine_similarity(one, two, dim=0).item()) < 0.2


def test_an_image_takes_a_pass_for_each_set(run: Run) -> None:
    strategy, images = run.strategy, torch.randn(5, 3, 16, 16)
    before = strategy.backbone.num_passes
    with torch.no_grad():
        strategy.model.eval()(images)
    assert strategy.backbone.num_passes == before + 15


def test_other_modules_and_one_class_an_experience_are_sound() -> None:
    names = ["answers", "declares", "resumes", "resumes_inside", "small", "batches"]
    assert check_strategy(EASE, options={"peft": "lora"}, checks=names) == []


def test_the_authors_adapters_count_a_tenth() -> None:
    assert EASEConfig.official() == EASEConfig(peft_scale=0.1)
    stack = EASEConfig().build_stack(tiny_backbone(), 0)
    assert stack.tensors()[0].shape == (4, 64, 32)


@pytest.mark.parametrize(
    "options", [{"alpha": -0.1}, {"scale": 0}, {"dropout": 1.0}, {"peft_scale": 0}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"option `{name}`: "):
        EASEConfig().override(options)
