"""What the prompt methods share: their ablations, one pass or two, and what a test batch decides."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.graphs.fixed import GraphModel
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.core.event_log import EventLog
from cl_adapters.strategies.core.guessing import GuessConfig, TaskGuess
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.prompted import TWO, build, images_of

METHODS = ("l2p", "dualprompt", "coda_prompt", "hide_prompt")
SOUND = ["answers", "backbone", "declares", "seeds", "resumes", "resumes_inside", "passes"]
FAST = {"guess_epochs": 1, "alignment_epochs": 1}


def fast(name: str) -> dict[str, Any]:
    return dict(FAST) if name == "hide_prompt" else {}


@pytest.mark.parametrize("name", METHODS)
def test_without_prompts_a_head_alone_is_trained_on_frozen_features(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], name: str
) -> None:
    stream = make_stream(TWO, per_class=4)
    aligned = {"alignment": False} if name == "hide_prompt" else {}
    strategy = build(name, tiny_vit, prompts="none", lr=0.1, epochs=2, **aligned)
    strategy.train(stream.train_stream)
    images = images_of(stream.test_stream[0])[0]
    with torch.no_grad():
        before = tiny_vit.num_passes
        logits = strategy.model.eval()(images).logits
        assert tiny_vit.num_passes - before == len(images)
        assert torch.equal(logits, strategy.model.heads(tiny_vit(images)))
    trained = [key for key, value in strategy.model.named_parameters() if value.grad is not None]
    assert all(key.startswith("heads.") for key in trained)
    assert strategy.query_features() is None
    assert strategy.frozen_features() is not None
    # The loss is the same whether images come or their features, which a cache gives.
    images, targets = images_of(stream.train_stream[1])
    losses = []
    for inputs in (images, tiny_vit(images)):
        strategy.output = output = strategy.model(inputs)
        losses.append(strategy.batch_loss(output.logits, targets))
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", METHODS)
def test_one_prompt_is_the_same_for_all_images_and_asks_no_query(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], name: str
) -> None:
    stream = make_stream(TWO, per_class=4)
    strategy = build(name, tiny_vit, prompts="one_prompt", lr=0.1)
    fresh = build(name, tiny_vit, prompts="one_prompt", lr=0.1)
    strategy.train(stream.train_stream)
    images = images_of(stream.test_stream[0])[0]
    with torch.no_grad():
        before = tiny_vit.num_passes
        logits = strategy.model.eval()(images).logits
        assert tiny_vit.num_passes - before == len(images)
        alone = torch.cat([strategy.model(image[None]).logits for image in images])
        torch.testing.assert_close(alone, logits, rtol=1e-3, atol=1e-4)
        plain = strategy.model.heads(tiny_vit(images))
        assert (plain - logits).abs().max() > 1e-3  # a prompt is at work
    begun, learned = fresh.learned_state(), strategy.learned_state()
    prompts = [key for key in begun if "prompts" in key or "entries" in key]
    assert prompts
    assert all(not torch.equal(begun[key], learned[key]) for key in prompts)


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        pytest.param(name, prompts, marks=[] if quick else [pytest.mark.slow])
        for name, prompts, quick in (
            ("l2p", "none", True),
            ("hide_prompt", "none", False),
            ("dualprompt", "one_prompt", True),
            ("coda_prompt", "one_prompt", False),
            ("hide_prompt", "one_prompt", False),
        )
    ],
)
def test_ablations_are_sound(name: str, prompts: str) -> None:
    options = {"prompts": prompts, **fast(name)}
    assert check_strategy(find_strategy(name), options=options, checks=SOUND) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_backbone_without_class_token_is_read_where_it_reads_itself(
    pooled_vit: AdaptedViT, make_stream: Callable[..., Any], name: str
) -> None:
    strategy = build(name, pooled_vit, **fast(name))
    stream = make_stream([[0, 1]], per_class=4)
    strategy.train(stream.train_stream)
    event = next(each for each in strategy.pop_events(0) if each.event == "prompts")
    assert event.values == {
        "reads": "avg of the patch tokens", "by_batch": "", "batch_images": 0
    }  # fmt: skip
    with torch.no_grad():
        assert strategy.model.eval()(images_of(stream.test_stream[0])[0]).logits.shape[1] == 2


def test_a_model_whose_answers_depend_on_a_batch_is_no_fixed_graph(tiny_vit: AdaptedViT) -> None:
    strategy = build("l2p", tiny_vit, selection="batch")
    strategy.register_classes((0, 1))
    pixels = ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(InputError, match="must answer an image by itself .* L2P's answers depend"):
        GraphModel(strategy, pixels, [0, 1])  # type: ignore[arg-type]
    without = build("l2p", tiny_vit, selection="batch", prompts="none")
    assert not without.answers_by_batch


@pytest.mark.parametrize("name", ["l2p", "dualprompt"])
def test_new_rows_of_cosines_have_a_direction(tiny_vit: AdaptedViT, name: str) -> None:
    for head, is_zero in (("cosine", False), ("linear", True)):
        strategy = build(name, tiny_vit, init="jax", head=head)
        strategy.register_classes((0, 1))
        lengths = strategy.model.heads.layers[0].weight.norm(dim=1)
        assert bool((lengths == 0).all()) == is_zero
        assert bool((lengths == 0).any()) == is_zero


def test_a_class_of_one_image_is_said_to_borrow_its_spread() -> None:
    source, events = torch.Generator().manual_seed(0), EventLog()
    guess = TaskGuess(4, GuessConfig(statistics="diagonal"), source)
    guess.add_classes([0, 1], 0, source)
    rows = torch.randn(4, 4, generator=source)
    guess.align([(rows, torch.tensor([0, 0, 0, 1]))], GuessConfig(), source, events)
    (event,) = events.pop_events(0)
    assert event.values == {"class": 1, "rule": "spread of an average class"}


def test_a_guess_learns_experiences_and_is_aligned_from_the_second_on() -> None:
    source = torch.Generator().manual_seed(0)
    config = GuessConfig(statistics="diagonal", alignment_epochs=20, guess_alignment_lr=0.1)
    guess = TaskGuess(8, config, source)
    means = 3 * torch.randn(4, 8, generator=source)
    labels = torch.arange(4).repeat_interleave(10)
    rows = means[labels] + 0.1 * torch.randn(40, 8, generator=source)
    begun = {key: value.clone() for key, value in guess.named_parameters()}
    for experience in (0, 1):
        classes = [2 * experience, 2 * experience + 1]
        guess.add_classes(classes, experience, source)
        here = (labels // 2) == experience
        guess.align([(rows[here], labels[here])], config, source, EventLog())
        moved = not torch.equal(begun["mlp.up.weight"], guess.mlp.up.weight)
        assert moved == (experience == 1)
    with torch.no_grad():
        assert torch.equal(guess.experience_of(rows), labels // 2)
