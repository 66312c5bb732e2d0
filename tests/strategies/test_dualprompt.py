"""DualPrompt against the fidelity checklist of the brief and plain loops.

Its first item, the shared softmax, is in `tests/vit/test_slots.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.dualprompt import DualPrompt, DualPromptConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.prompted import TWO, Endless, Watch, build, images_of, tokens_after_blocks

THREE = [[2, 0], [1, 3], [4, 5]]


def answered_by_hand(strategy: Any, images: Tensor) -> Tensor:
    """The logits, image by image, each under the expert of the nearest key."""
    model, found = strategy.model, []
    for image in images:
        query = strategy.backbone(image[None])[0]
        near = [float(functional.cosine_similarity(query, key, dim=0)) for key in model.keys]
        best = near.index(max(near))
        prefixes = [*model.general.entries[0], *model.experts.entries[best]]
        modules = {
            ("prefix", block): _prefix(keys, values)
            for block, (keys, values) in enumerate(prefixes)
        }
        features = strategy.backbone(image[None], AdapterSet(modules))  # type: ignore[arg-type]
        found.append(model.heads(features)[0])
    return torch.stack(found)


def _prefix(keys: Tensor, values: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    def prefix() -> tuple[Tensor, Tensor]:
        return keys, values

    prefix.renormalise = False  # type: ignore[attr-defined]
    return prefix


def test_2_and_5_each_image_has_the_expert_of_its_nearest_key(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("dualprompt", tiny_vit, lr=0.01)
    stream = make_stream(TWO, per_class=4)
    strategy.train(stream.train_stream)
    images = torch.cat([images_of(each)[0][:3] for each in stream.test_stream])
    model = strategy.model.eval()
    with torch.no_grad():
        queries = tiny_vit(images)
        model.keys[0].copy_(queries[:3].mean(dim=0) - queries.mean(dim=0))
        model.keys[1].copy_(-model.keys[0])
        before = tiny_vit.num_passes
        found = model(images)
        assert tiny_vit.num_passes - before == 2 * len(images)
        assert set(found.extras["chosen"].flatten().tolist()) == {0, 1}
        expected = answered_by_hand(strategy, images)
        torch.testing.assert_close(found.logits, expected, rtol=1e-3, atol=1e-4)
        others = torch.cat([images[:1], torch.randn_like(images[1:])])
        assert torch.equal(model(others).logits[0], found.logits[0])
        strategy.model.config = strategy.config.override({"selection": "batch"})
        assert model(images[1:]).extras["chosen"].flatten().tolist() == [1] * (len(images) - 1)
        strategy.model.config = strategy.config
        # The port's pairing is another function of the batch.
        mixed = build("dualprompt", tiny_vit, prompt_pairing="port")
        mixed.register_classes((0, 2))
        mixed.register_classes((1, 3))
        mixed.model.load_state_dict(model.state_dict())
        logits = mixed.model.eval()(images).logits
        assert (logits - expected).abs().max() > 1e-4
        alone = torch.cat([mixed.model(image[None]).logits for image in images])
        torch.testing.assert_close(alone, expected, rtol=1e-3, atol=1e-4)  # right for one image


def test_3_and_4_an_experience_trains_its_own_expert_which_begins_as_the_one_before(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build("dualprompt", tiny_vit, watch, pool_size=4, lr=0.01, clip_norm=1.0)
    train = make_stream(THREE, per_class=4).train_stream
    for task, experience in enumerate(train):
        before = {name: value.clone() for name, value in strategy.learned_state().items()}
        strategy.train(experience)
        start = next(state for number, state, *_ in watch.steps if number == task)
        after = strategy.learned_state()
        for name, value in before.items():
            is_own = name in {f"experts.entries.{task}", f"keys.{task}", "general.entries.0"}
            is_head = name.startswith("heads")
            assert is_head or torch.equal(value, after[name]) != is_own, name
        if task:
            last, own = (f"experts.entries.{each}" for each in (task - 1, task))
            assert torch.equal(start[own], start[last])
            assert torch.equal(start[f"keys.{task}"], before[f"keys.{task}"])  # not copied
    assert len(strategy.model.experts) == 4


def test_6_the_stream_keeps_its_tokens(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("dualprompt", tiny_vit)
    strategy.train(make_stream(TWO, per_class=2).train_stream[0])
    images = images_of(make_stream(TWO).test_stream[0])[0]
    with torch.no_grad():
        (count,) = {tiny_vit.tokens(images).shape[1]}
        ask = strategy.model.eval()
        assert set(tokens_after_blocks(tiny_vit, lambda: ask(images))) == {count}


def test_training_pulls_the_key_to_the_queries_and_uses_its_expert(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("dualprompt", tiny_vit, key_weight=0.5)
    stream = make_stream(TWO, per_class=4).train_stream
    strategy.train(stream)
    images, targets = images_of(stream[1])
    model = strategy.model.train()
    strategy.output = output = model(images)
    assert set(output.extras["chosen"].flatten().tolist()) == {1}
    near = functional.cosine_similarity(tiny_vit(images), model.keys[1][None], dim=1).mean()
    own = torch.tensor([sorted(TWO[1]).index(int(each)) for each in targets])
    expected = functional.cross_entropy(output.logits[:, sorted(TWO[1])], own) - 0.5 * near
    torch.testing.assert_close(strategy.batch_loss(output.logits, targets), expected)


def test_official_is_the_originals_settings_on_one_device() -> None:
    config = DualPromptConfig.official()
    assert (config.pool_size, config.general_length, config.length) == (10, 5, 5)
    assert (config.general_blocks, config.expert_blocks) == (2, 3)
    assert (config.key_weight, config.clip_norm, config.selection) == (1.0, 1.0, "batch")
    assert (config.init, config.epochs, config.batch_size) == ("jax", 5, 24)
    assert config.lr == pytest.approx(0.0028125)
    assert config.prompt_pairing == "key_value"  # the original is right; its port is not
    port = config.override({"prompt_pairing": "port"})
    assert port.by_batch == "selection=batch, prompt_pairing=port"  # type: ignore[attr-defined]


def test_more_experiences_than_experts_are_refused_before_anything_is_trained() -> None:
    train = TinyStream().benchmark.train_stream
    for size in range(1, len(train)):
        strategy = Trial(DualPrompt, {"pool_size": size}).build()
        wanted = f"`pool_size` must be at least the number of .* {len(train)}, got {size}"
        with pytest.raises(InputError, match=wanted):
            strategy.train(train[0])
        assert not strategy.classes_seen


def test_where_the_stream_does_not_say_its_length_they_are_refused_as_they_come() -> None:
    train = TinyStream().benchmark.train_stream
    strategy = Trial(DualPrompt, {"pool_size": 1}).build()
    first, second = (Endless(each) for each in train[:2])
    strategy.train(first)
    with pytest.raises(InputError, match="`pool_size` must be at least the number .* 2, got 1"):
        strategy.train(second)
    assert strategy.classes_seen == [0, 3]


def test_the_last_block_is_left_to_the_experts_and_a_prefix_has_a_length(
    tiny_vit: AdaptedViT,
) -> None:
    model = build("dualprompt", tiny_vit, general_blocks=6).model
    assert (model.general.blocks, model.experts.blocks) == ((0, 1, 2, 3, 4), (5,))
    model = build("dualprompt", tiny_vit).model
    assert (model.general.blocks, model.experts.blocks) == ((0, 1), (2, 3, 4))
    for name in ("length", "general_length"):
        with pytest.raises(InputError, match=f"`{name}`.*greater than or equal to 1, got 0"):
            DualPromptConfig().override({name: 0})


@pytest.mark.parametrize("option", [{"selection": "batch"}, {"prompt_pairing": "port"}])
def test_options_that_leak_fail_the_check_of_batches_and_say_so(option: dict[str, str]) -> None:
    trial = Trial(DualPrompt, option)
    strategy = trial.straight.strategy
    assert strategy.answers_by_batch
    event = next(each for each in trial.straight.events[-1] if each.event == "prompts")
    ((name, value),) = option.items()
    said = {"reads": "class token", "by_batch": f"{name}={value}"}
    assert event.values == {**said, "batch_images": strategy.eval_mb_size}
    found = check_strategy(DualPrompt, options=option, checks=["batches"])
    assert len(found) == 1
    assert "must get the same logits alone as in a batch" in found[0]
