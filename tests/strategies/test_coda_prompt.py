"""CODA-Prompt against the fidelity checklist of the brief and plain loops.

Items 1, 2, 4, 5 and 6 are in `tests/peft/test_components.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.components import ComponentPool
from cl_adapters.schedule import quarter_cosine
from cl_adapters.strategies.coda_prompt import CODAPromptConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.prompted import TWO, Endless, Watch, build, images_of, tokens_after_blocks

THREE = [[2, 0], [1, 3], [4, 5]]


def by_hand(strategy: Any, images: Tensor) -> Tensor:
    """The logits, image by image: components weighed one by one, halves as keys and values."""
    pool: ComponentPool = strategy.model.components
    found = []
    for image in images:
        query, modules = strategy.backbone(image[None])[0], {}
        for block in range(5):
            prompt = torch.zeros(4, strategy.backbone.embed_dim)
            for keys, attention, prompts in zip(
                pool.keys, pool.attention, pool.prompts, strict=True
            ):
                for k, a, p in zip(keys[block], attention[block], prompts[block], strict=True):
                    weight = functional.cosine_similarity(query * a, k, dim=0)
                    prompt = prompt + weight * p.reshape(4, -1)
            prefix = Plain(prompt)
            modules["prefix", block] = prefix
        features = strategy.backbone(image[None], AdapterSet(modules))  # type: ignore[arg-type]
        found.append(strategy.model.heads(features)[0])
    return torch.stack(found)


class Plain:
    renormalise = False

    def __init__(self, prompt: Tensor) -> None:
        self.prompt = prompt

    def __call__(self) -> tuple[Tensor, Tensor]:
        return self.prompt[:2], self.prompt[2:]


def test_answers_equal_a_loop_over_images_blocks_and_components(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("coda_prompt", tiny_vit, per_experience=2, length=4, lr=0.05)
    stream = make_stream(TWO, per_class=4)
    strategy.train(stream.train_stream)
    images = torch.cat([images_of(each)[0][:2] for each in stream.test_stream])
    with torch.no_grad():
        before = tiny_vit.num_passes
        logits = strategy.model.eval()(images).logits
        assert tiny_vit.num_passes - before == 2 * len(images)
        # New prompts are so short that keys in the place of values would hardly show.
        for value in strategy.model.components.prompts:
            value.mul_(20)
        other = strategy.model(images).logits
        assert not torch.allclose(other, logits, atol=1e-3)
        torch.testing.assert_close(other, by_hand(strategy, images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"components": 9, "start": "classical"}])
def test_3_an_experience_trains_its_own_components_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], options: dict[str, Any]
) -> None:
    watch = Watch()
    fast = {"per_experience": 3, "lr": 0.05, **options}
    strategy = build("coda_prompt", tiny_vit, watch, **fast)
    names = ("keys", "attention", "prompts")
    for task, experience in enumerate(make_stream(THREE, per_class=4).train_stream):
        before = {name: value.clone() for name, value in strategy.learned_state().items()}
        strategy.train(experience)
        start = next(state for number, state, *_ in watch.steps if number == task)
        after = strategy.learned_state()
        for name, value in before.items():
            assert torch.equal(after[name], value), name  # rows of old classes, too
        for name in names:
            own = start[f"components.{name}.{task}"]
            assert own.shape[:2] == (5, 3)
            assert not torch.equal(after[f"components.{name}.{task}"], own)
            torch.testing.assert_close(own.norm(dim=2), torch.ones(5, 3))  # 4
        assert f"components.keys.{task + 1}" not in after  # none is there before its time


def test_components_begin_apart_from_those_that_were_trained(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build("coda_prompt", tiny_vit, watch, per_experience=3, lr=0.05)
    strategy.train(make_stream(TWO, per_class=4).train_stream)
    start = next(state for number, state, *_ in watch.steps if number == 1)
    for name in ("keys", "attention", "prompts"):
        old, own = (start[f"components.{name}.{each}"] for each in (0, 1))
        assert (own @ old.transpose(1, 2)).abs().max() < 1e-5


def test_5_the_rate_follows_a_quarter_of_a_cosine(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build("coda_prompt", tiny_vit, watch, epochs=3, lr=0.5, clip_norm=None)
    strategy.train(make_stream([[0, 1]], per_class=4).train_stream)
    assert watch.rates == pytest.approx([0.5 * quarter_cosine(each, 3) for each in range(3)])


def test_7_the_stream_keeps_its_tokens(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    stream = make_stream([[0, 1]], per_class=4)
    strategy = build("coda_prompt", tiny_vit, components=10)
    strategy.train(stream.train_stream)
    assert strategy.model.components.keys[0].shape[1] == 10  # a stream of one experience
    images = images_of(stream.test_stream[0])[0]
    model = strategy.model.eval()
    with torch.no_grad():
        found = set(tokens_after_blocks(tiny_vit, lambda: model(images)))
        assert found == {tiny_vit.tokens(images).shape[1]}


def test_the_penalty_is_added_to_the_loss(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    stream = make_stream(TWO, per_class=4).train_stream
    strategy, without = (build("coda_prompt", tiny_vit, penalty=mu) for mu in (0.5, 0))
    for each in (strategy, without):
        each.train(stream[0])
    without.model.load_state_dict(strategy.model.state_dict())
    images, targets = images_of(stream[0])
    logits = strategy.model(images).logits
    apart = strategy.batch_loss(logits, targets) - without.batch_loss(logits, targets)
    torch.testing.assert_close(apart, 0.5 * strategy.model.components.penalty())


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    config = CODAPromptConfig.official()
    assert (config.components, config.length, config.blocks) == (100, 8, 5)
    assert (config.start, config.penalty) == ("classical", 0)
    trained = config.batch_size, config.epochs, config.lr, config.drop_last, config.clip_norm
    assert trained == (128, 20, 0.001, True, None)


def test_the_pool_is_shared_by_the_experiences_that_stream_or_option_tell(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    stream = make_stream(THREE, per_class=2).train_stream

    def share(experience: Any, **options: Any) -> int:
        strategy = build("coda_prompt", tiny_vit, **options)
        strategy.train(experience)
        return int(strategy.model.components.keys[0].shape[1])

    assert share(stream[0], components=100) == 33
    assert share(stream[0], components=100, experiences_total=10) == 10
    with pytest.raises(InputError, match="`components` must be at least the number .*, 3, got 2"):
        share(stream[0], components=2)
    told = build("coda_prompt", tiny_vit, components=100, experiences_total=1)
    told.train(stream[0])
    told_wrong = "`experiences_total` must be at least the number .*, 2, got 1"
    with pytest.raises(InputError, match=told_wrong):
        told.train(stream[1])
    with pytest.raises(InputError, match="`experiences_total` must be given with `components`"):
        share(Endless(stream[0]), components=100)


def test_a_length_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(InputError, match="option `length`: must be even, .*, got 7"):
        CODAPromptConfig().override({"length": 7})
    with pytest.raises(InputError, match="`length`.*greater than or equal to 2, got 0"):
        CODAPromptConfig().override({"length": 0})
