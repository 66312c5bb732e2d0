"""CL-LoRA against the fidelity checklist of the brief (13.6) and plain loops."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.initial import orthonormal_rows
from cl_adapters.schedule import cosine
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.cl_lora import CLLoRA, CLLoRAConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.halves import Halves
from tests.strategies.test_inflora import Watch, copied, images_of

TWO = [[2, 0], [1, 3]]
STEPS = ["one_step", "separate_forward"]
SHARED, SPECIFIC = "halves.shared", "halves.specific"


def build(vit: AdaptedViT, *plugins: SupervisedPlugin, **options: Any) -> CLLoRA:
    fast = {"batch_size": 8, "epochs": 2, "rank": 3, "lr": 0.5}
    return CLLoRA(
        backbone=vit,
        config=CLLoRAConfig().override({**fast, **options}),
        plugins=list(plugins),
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )


def features(vit: AdaptedViT, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
    found: Tensor = torch.func.functional_call(vit, weights, (images,))
    return found


def half_of(vit: AdaptedViT, images: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The class tokens after the first half of the blocks and the last norm."""

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit.vit

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.vit._pos_embed(self.vit.patch_embed(images))
            for block in self.vit.blocks[:3]:
                tokens = block(tokens)
            return self.vit.norm(tokens)[:, 0]

    found: Tensor = torch.func.functional_call(First(), weights, (images,))
    return found


def with_halves(
    vit: AdaptedViT, halves: list[tuple[Tensor, Tensor]], counts: Tensor | None
) -> dict[str, Tensor]:
    """Weights by name: `halves` holds A and B of the first blocks, then of those that follow."""
    weights, size, block = {}, vit.embed_dim, 0
    for number, (down, up) in enumerate(halves):
        for place in range(len(down)):
            rows = [up[place, each] @ down[place, each] for each in range(2)]
            if number == 1 and counts is not None:
                rows = [counts[0, place] * rows[0], counts[2, place] * rows[1]]
            change = torch.cat([rows[0], torch.zeros(size, size), rows[1]])
            name = f"vit.blocks.{block}.attn.qkv.weight"
            weights[name] = vit.get_parameter(name).detach() + change
            block += 1
    return weights


class Loop:
    """Training from a state on, as the brief has it, on weights that are put together by hand."""

    names = (
        f"{SHARED}.up", f"{SPECIFIC}.down", f"{SPECIFIC}.up", "halves.weights.current",
        "head.layers.0.weight", "head.scale",
    )  # fmt: skip

    def __init__(self, vit: AdaptedViT, start: dict[str, Tensor]) -> None:
        self.vit, self.start = vit, start
        self.values = [start[name].clone().requires_grad_() for name in self.names]
        self.shared, self.down, self.up, self.counts, self.weight, self.scale = self.values
        self.previous, self.first_down = start[f"{SHARED}.up"], start[f"{SHARED}.down"]
        lengths = self.previous.norm(dim=3)
        self.factors = lengths * self.previous.shape[2] / lengths.sum(dim=2, keepdim=True)

    def logits(self, rows: Tensor) -> Tensor:
        cosines = functional.normalize(rows, dim=1) @ functional.normalize(self.weight, dim=1).T
        return self.scale * cosines

    def clip(self, longest: float | None) -> float:
        """Shortens the gradients of all values together; returns how long they were."""
        grads = [value.grad for value in self.values if value.grad is not None]
        length = sum(float((grad**2).sum()) for grad in grads) ** 0.5
        for grad in grads:
            grad *= min(1.0, (longest or length) / length)
        return length

    def distil(self, images: Tensor) -> None:
        """Adds the gradients of distillation, those on B of the first half by row."""
        now, was = (
            half_of(self.vit, images, with_halves(self.vit, [(self.first_down, up)], None))
            for up in (self.shared, self.previous)
        )
        wanted = (self.logits(was) / 2).softmax(dim=1)
        loss = -5 * (wanted * (self.logits(now) / 2).log_softmax(dim=1)).sum(dim=1).mean()
        own = torch.autograd.grad(loss, self.values, allow_unused=True)
        for number, (value, grad) in enumerate(zip(self.values, own, strict=True)):
            if grad is not None:
                found = self.factors[..., None] * grad if number == 0 else grad
                value.grad = found if value.grad is None else value.grad + found

    def learn(self, images: Tensor, targets: Tensor) -> None:
        """Adds the gradients of cross-entropy and orthogonality."""
        parts = [(self.first_down, self.shared), (self.down, self.up)]
        rows = features(self.vit, images, with_halves(self.vit, parts, self.counts))
        own = torch.tensor([[1, 3].index(int(label)) for label in targets])
        old = self.start["halves.weights.frozen"][0].flatten()
        likeness = functional.cosine_similarity(self.counts.flatten(), old, dim=0).abs()
        loss = functional.cross_entropy(self.logits(rows), own) + 0.1 * likeness
        torch.autograd.backward(loss)


@pytest.mark.parametrize("clip_norm", [None, 0.02])
@pytest.mark.parametrize("kd_step", STEPS)
def test_training_equals_a_plain_loop(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], kd_step: str, clip_norm: float | None
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch, kd_step=kd_step, orthogonality=0.1, clip_norm=clip_norm)
    strategy.train(make_stream(TWO, per_class=6).train_stream)
    start, end = watch.starts[1], watch.ends[1]
    loop = Loop(tiny_vit, start)
    optimizer = torch.optim.SGD(loop.values, lr=0.5, momentum=0.9, weight_decay=1e-4)
    assert len(watch.batches) == 4
    lengths: list[float] = []
    for step, (images, targets) in enumerate(watch.batches):
        optimizer.param_groups[0]["lr"] = 0.5 * cosine(step // 2, 2)
        loop.distil(images)
        if kd_step == "separate_forward":
            lengths.append(loop.clip(clip_norm))
            optimizer.step()
            optimizer.zero_grad()
        loop.learn(images, targets)
        loop.clip(clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    if clip_norm is not None and lengths:
        assert max(lengths) > 2 * clip_norm  # distillation's own step is shortened
    for name, value in zip(loop.names, loop.values, strict=True):
        assert not torch.equal(start[name], end[name]), name
        torch.testing.assert_close(end[name], value.detach(), rtol=2e-3, atol=2e-4)


def test_what_is_frozen_stays_bit_for_bit(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build(tiny_vit, watch)
    train = make_stream([*TWO, [4, 5]], per_class=6).train_stream
    states = []
    for experience in train:
        strategy.train(experience)
        states.append(copied(strategy))
    first = watch.starts[0]
    # Checklist 2: orthonormal at the start, in all of task 0 trained, in the first half never again.
    for start, half in ((first, SHARED), (first, SPECIFIC), (watch.starts[2], SPECIFIC)):
        for rows in start[f"{half}.down"].flatten(0, 1):
            torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-6, rtol=0)
        assert not start[f"{half}.up"].any()
    assert not torch.equal(first[f"{SHARED}.down"], states[0][f"{SHARED}.down"])
    for later in states[1:]:
        assert torch.equal(states[0][f"{SHARED}.down"], later[f"{SHARED}.down"])
    assert not torch.equal(states[0][f"{SHARED}.up"], states[1][f"{SHARED}.up"])
    assert not torch.equal(watch.starts[2][f"{SPECIFIC}.down"], watch.ends[2][f"{SPECIFIC}.down"])
    # Checklist 6.
    for name in (f"{SPECIFIC}.frozen_down", f"{SPECIFIC}.frozen_up", "halves.weights.frozen"):
        for number in range(2):
            assert torch.equal(states[number][name], states[2][name][: number + 1])
    for start in watch.starts:
        weights = start["halves.weights.current"]
        assert weights.shape == (3, 3)
        assert bool(((weights >= 0.5) & (weights <= 1.5)).all())
    assert not torch.equal(
        watch.starts[0]["halves.weights.current"], watch.starts[1]["halves.weights.current"]
    )
    # The weights of queries and values are merged into what is stored.
    ended = watch.ends[1]
    factors = ended["halves.weights.current"][[0, 2]].T[..., None, None]
    torch.testing.assert_close(
        states[1][f"{SPECIFIC}.frozen_up"][1], factors * ended[f"{SPECIFIC}.up"]
    )


def test_distillation_reaches_b_of_the_first_half_and_the_head_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Checklist 3 and 5.
    strategy = build(tiny_vit)
    train = make_stream(TWO, per_class=6).train_stream
    strategy.train(train[0])
    strategy.register_experience(train[1])
    strategy.begin_experience()
    strategy.mbatch = [images_of(train[1]), torch.zeros(12)]
    with torch.no_grad():
        strategy.model.halves.shared.up.add_(0.1)
    grads = {}
    for rescale in (True, False):
        strategy.config = strategy.config.override({"gradient_rescale": rescale})
        strategy.model.zero_grad()
        torch.autograd.backward(strategy.distillation_loss())
        named = strategy.model.named_parameters()
        reached = {name for name, value in named if value.grad is not None and value.grad.any()}
        assert reached == {f"{SHARED}.up", "head.layers.0.weight", "head.scale"}
        grad = strategy.model.halves.shared.up.grad
        assert grad is not None
        grads[rescale] = grad.clone()
    lengths = strategy.previous.norm(dim=3, keepdim=True)
    factors = lengths / lengths.mean(dim=2, keepdim=True)
    assert float(factors.max()) > 1.1
    torch.testing.assert_close(grads[True], factors * grads[False], rtol=1e-4, atol=1e-6)


def test_answers_equal_full_passes_under_each_update_and_the_first_half_runs_once(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    # Checklist 4.
    strategy = build(tiny_vit)
    benchmark = make_stream(TWO, per_class=5)
    strategy.train(benchmark.train_stream[0])
    old = strategy.model.prototypes.means()[[2, 0], 0].clone()
    strategy.train(benchmark.train_stream[1])
    model, images = strategy.model.eval(), images_of(benchmark.test_stream[1])
    blocks, seen = tiny_vit.vit.blocks, {0: 0, 3: 0}
    for number in seen:
        blocks[number].norm1.register_forward_hook(
            lambda _, __, rows, number=number: seen.update({number: seen[number] + len(rows)})
        )
    before = tiny_vit.num_passes
    with torch.no_grad():
        found = model(images)
        assert tiny_vit.num_passes - before == 2 * len(images)
        # 0.5 + 0.5 (t + 1) passes.
        assert seen == {0: len(images), 3: 2 * len(images)}
        halves, rows = model.halves, []
        for number in range(2):
            parts = (halves.shared.current().adapters(), halves.specific.frozen(number).adapters())
            whole = AdapterSet(
                {("qkv", b): part.at("qkv", b) for part in parts for _, b in part}  # type: ignore[misc]
            )
            rows.append(tiny_vit(images, whole))
        full = model.prototypes.scores(torch.stack(rows, dim=1))
        assert torch.equal(found, full)
        torch.testing.assert_close(model.prototypes.means()[[2, 0], 0], old)  # not refreshed
        for experience, labels in enumerate(TWO):
            for label in labels:
                mean = model.prototypes.means()[label, experience].float()[None]
                expected = 10 * functional.cosine_similarity(rows[experience], mean)
                torch.testing.assert_close(found[:, label], expected, rtol=1e-4, atol=1e-5)


def test_means_are_those_of_plain_images_under_the_update_of_the_experience(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build(tiny_vit)
    train = make_stream(TWO, per_class=4).train_stream
    strategy.train(train)
    state, images = strategy.model.state_dict(), images_of(train[1])
    parts = [
        (state[f"{SHARED}.down"], state[f"{SHARED}.up"]),
        (state[f"{SPECIFIC}.frozen_down"][1], state[f"{SPECIFIC}.frozen_up"][1]),
    ]
    with torch.no_grad():
        rows = features(tiny_vit, images, with_halves(tiny_vit, parts, None))
    means = strategy.model.prototypes.means()[[1, 3], 1].float()
    torch.testing.assert_close(
        means, torch.stack([rows[:4].mean(0), rows[4:].mean(0)]), atol=1e-4, rtol=1e-4
    )


def test_rows_are_orthonormal_and_no_more_than_columns() -> None:
    rows = orthonormal_rows(3, 8, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="at most as many as columns, 8, got 9"):
        orthonormal_rows(9, 8, torch.Generator())


def test_a_rank_above_the_width_is_refused_before_anything_is_trained(
    tiny_vit: AdaptedViT,
) -> None:
    assert build(tiny_vit, rank=64).model.halves.shared.down.shape[2] == 64
    with pytest.raises(InputError, match="`rank` must be at most the network's width, 64, got 65"):
        build(tiny_vit, rank=65)


def test_a_network_of_one_block_has_no_halves() -> None:
    vit = AdaptedViT(timm.create_model("test_vit", num_classes=0, img_size=16, depth=1))
    with pytest.raises(InputError, match="at least 2 blocks, got 1"):
        Halves(vit, 2)


@pytest.mark.slow  # the suite over the defaults is run each time
def test_variants_are_sound() -> None:
    options = {"kd_step": "separate_forward", "gradient_rescale": False}
    names = ["answers", "resumes", "resumes_inside", "small"]
    assert check_strategy(CLLoRA, options=options, checks=names) == []


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    options = CLLoRAConfig.official()
    expected = {"batch_size": 64, "epochs": 30, "lr": 0.03, "kd_step": "separate_forward"}
    assert options == CLLoRAConfig().override(expected)
    trained = options.lr, options.weight_decay, options.rank, options.distillation
    assert trained == (0.03, 1e-4, 8, 5.0)
    assert (options.orthogonality, options.gradient_rescale) == (1e-4, True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "option `rank`: .* 1, got 0"),
        ({"kd_step": "both"}, "option `kd_step`: .* got 'both'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        CLLoRAConfig().override(options)
