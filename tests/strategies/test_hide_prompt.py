"""HiDe-Prompt against the fidelity checklist of the brief and plain loops.

Item 2, how prompts are mixed, is in `tests/peft/test_prompts.py` as well.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.heads.alignment import Alignment
from cl_adapters.heads.orthogonality import orthogonality_loss
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.prefix import Prefix
from cl_adapters.strategies.core import statistics
from cl_adapters.strategies.hide_prompt import HiDePromptConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.prompted import TWO, Watch, build, images_of

FAST = {"guess_epochs": 2, "alignment_epochs": 1, "lr": 0.05, "guess_lr": 0.01}


def under(vit: AdaptedViT, images: Tensor, entry: Tensor) -> Tensor:
    """The features of images under one prompt, (blocks, 2, L, D), by prefixes of another kind."""
    modules = {}
    for block, (keys, values) in enumerate(entry):
        prefix = Prefix(
            vit.embed_dim, len(keys), renormalise=False, generator=torch.Generator()
        ).requires_grad_(requires_grad=False)
        prefix.keys.copy_(keys)
        prefix.values.copy_(values)
        modules["prefix", block] = prefix
    return vit(images, AdapterSet(modules))  # type: ignore[arg-type]


def test_1_two_orthonormal_rows_have_the_known_loss() -> None:
    found = orthogonality_loss(torch.eye(2), torch.zeros(0, 2))
    assert found.item() == pytest.approx(0.2519, abs=1e-4)


def test_2_and_5_the_prompt_is_kept_mixed_and_others_stay(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    strategy = build("hide_prompt", tiny_vit, watch, momentum=0.25, **FAST)
    train = make_stream(TWO, per_class=4).train_stream
    strategy.train(train[0])
    first = strategy.model.prefix.entries[0].detach().clone()
    seen: list[Tensor] = []
    mixed = type(strategy.model.prefix).mixed

    def spied(pool: Any, entry: int, share: float) -> Tensor:
        seen.append(pool.entries[entry].detach().clone())
        found: Tensor = mixed(pool, entry, share)
        return found

    monkeypatch.setattr(type(strategy.model.prefix), "mixed", spied)
    strategy.train(train[1])
    entries = [value.detach() for value in strategy.model.prefix.entries]
    assert torch.equal(entries[0], first)  # 5
    assert torch.equal(seen[0], first)  # begins as the one before
    assert not torch.equal(seen[-1], first)
    torch.testing.assert_close(entries[1], 0.75 * seen[-1] + 0.25 * first)


def test_3_the_guess_reads_no_prompt_and_stays_while_prompts_are_trained(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    strategy = build("hide_prompt", tiny_vit, watch, **FAST)
    train = make_stream(TWO, per_class=8).train_stream
    strategy.train(train)
    steps = [state for number, state, *_ in watch.steps if number == 1]
    guessing_steps, training = steps[: 2 * 2], steps[2 * 2 :]
    assert len(training) == 2
    for before, after in itertools.pairwise(guessing_steps):
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert all(name.startswith(("guess.mlp", "guess.heads")) for name in moved)
    final = strategy.learned_state()
    for name, value in training[0].items():
        if name.startswith("guess."):
            assert torch.equal(final[name], value), name


def test_4_training_uses_the_own_prompt_and_tests_that_of_the_guess(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("hide_prompt", tiny_vit, **FAST)
    stream = make_stream(TWO, per_class=6)
    strategy.train(stream.train_stream)
    model = strategy.model
    images = torch.cat([images_of(each)[0] for each in stream.test_stream])
    with torch.no_grad():
        queries = tiny_vit(images)
        # A guess that asks for both prompts, whatever it has learned.
        half = queries[: len(images) // 2].mean(dim=0) - queries.mean(dim=0)
        model.guess.mlp = torch.nn.Identity()
        for layer, sign in zip(model.guess.heads.layers, (1, -1), strict=True):
            layer.weight.copy_(sign * half.expand(2, -1))
            layer.bias.copy_(-sign * (half @ queries.mean(dim=0)))
        tasks = [0 if float(half @ (query - queries.mean(dim=0))) > 0 else 1 for query in queries]
        assert set(tasks) == {0, 1}
        before = tiny_vit.num_passes
        logits = model.eval()(images).logits
        assert tiny_vit.num_passes - before == 2 * len(images)
        for row, task in enumerate(tasks):
            features = under(tiny_vit, images[row : row + 1], model.prefix.entries[task])
            expected = model.heads(features)[0]
            torch.testing.assert_close(logits[row], expected, rtol=1e-3, atol=1e-4)
        # While the second experience is trained, tests read its prompt as it will be stored.
        own = model.prefix.mixed(1, 0.5).clone()
        model.config = model.config.override({"momentum": 0.5})
        model.is_open = True
        inside = model.eval()(images).logits
        assert not model.is_guessing
        for row, task in enumerate(tasks):
            entry = own if task == 1 else model.prefix.entries[0]
            expected = model.heads(under(tiny_vit, images[row : row + 1], entry))[0]
            torch.testing.assert_close(inside[row], expected, rtol=1e-3, atol=1e-4)
        model.train()
        trained = model(images, queries).extras["features"]
        torch.testing.assert_close(trained, under(tiny_vit, images, own), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("steps", "most"), [("old", 2), ("seen", 4)])
def test_6_alignment_has_a_step_for_each_old_class_or_for_each_class(
    tiny_vit: AdaptedViT,
    make_stream: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    steps: str,
    most: int,
) -> None:
    taken: list[tuple[int, Alignment]] = []
    align = statistics.align_head

    def counted(head: Any, classes: Any, source: Any, options: Alignment, **owners: Any) -> None:
        calls: list[int] = []
        hook = head.register_forward_hook(lambda *_: calls.append(1))
        align(head, classes, source, options, **owners)
        hook.remove()
        taken.append((len(calls), options))

    monkeypatch.setattr(statistics, "align_head", counted)
    strategy = build("hide_prompt", tiny_vit, steps=steps, **{**FAST, "alignment_epochs": 3})
    strategy.train(make_stream(TWO, per_class=4).train_stream)
    (guess, guess_options), (head, head_options) = taken  # from the second experience on
    assert (guess, head) == (3 * most, 3 * most)
    assert (head_options.batch_size, head_options.lr) == (5 * 8, 0.005)
    assert (guess_options.batch_size, guess_options.lr) == (8, pytest.approx(0.00046875))
    assert head_options.weight_decay == guess_options.weight_decay == 0


def test_the_loss_keeps_features_apart_from_old_centroids(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("hide_prompt", tiny_vit, orthogonality=0.5, **FAST)
    stream = make_stream([[2, 0], [0, 1]], per_class=4).train_stream
    strategy.train(stream)
    centroids = strategy.model.classes
    strategy.model.train()
    images, targets = images_of(stream[1])
    strategy.output = output = strategy.model(images)
    old = [row for row, label in enumerate(centroids.labels.tolist()) if label == 2]
    assert torch.equal(strategy.old_means, centroids.means[old])  # class 0 has returned
    rows = torch.cat([strategy.old_means, output.extras["features"]])
    product = rows @ rows.T / 0.8
    apart = torch.stack([product[i].logsumexp(dim=0) - product[i, i] for i in range(len(rows))])
    expected = functional.cross_entropy(output.logits[:, :2], targets) + 0.5 * apart.mean()
    torch.testing.assert_close(strategy.batch_loss(output.logits, targets), expected)


def test_statistics_are_of_prompted_features_and_of_queries(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = build("hide_prompt", tiny_vit, statistics="diagonal", **FAST)
    train = make_stream(TWO, per_class=4).train_stream
    strategy.train(train)
    model = strategy.model
    with torch.no_grad():
        for task, experience in enumerate(train):
            images, labels = images_of(experience)
            prompted = under(tiny_vit, images, model.prefix.entries[task])
            for classes, rows in (
                (model.classes, prompted),
                (model.guess.classes, tiny_vit(images)),
            ):
                for label in TWO[task]:
                    (mean,) = classes.means[classes.labels == label]
                    expected = rows[labels == label].mean(dim=0)
                    torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-4)


def test_official_is_what_the_authors_set_for_cifar100() -> None:
    config = HiDePromptConfig.official()
    assert (config.length, config.blocks, config.momentum) == (5, 5, 0.01)
    assert (config.orthogonality, config.clip_norm, config.batch_size) == (0.1, 1.0, 24)
    assert (config.lr, config.epochs) == (pytest.approx(0.0028125), 50)
    assert (config.first_head_lr, config.head_lr) == (0.1, 0.1)
    assert (config.schedule, config.steps, config.prompt_pairing) == ("tenths", "old", "port")
    assert (config.guess_lr, config.guess_epochs) == (pytest.approx(4.6875e-5), 20)
    assert (config.alignment_lr, config.alignment_epochs) == (0.005, 30)
    assert config.guess_alignment_lr == pytest.approx(0.00046875)
    assert (config.statistics, config.init) == ("centroids", "port")
    assert config.by_batch == "prompt_pairing=port"


def test_the_rate_falls_to_a_tenth_after_thirty_epochs_and_the_guess_has_its_own(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    watch = Watch()
    options = {
        **FAST,
        "epochs": 31,
        "alignment": False,
        "schedule": "tenths",
        "guess_epochs": 1,
        "lr": 0.01,
    }
    strategy = build("hide_prompt", tiny_vit, watch, **options)
    strategy.config = strategy.config.override({"first_head_lr": 0.5, "head_lr": 0.1})
    train = make_stream([[0, 1], [2]], per_class=1).train_stream
    for experience, share in ((train[0], 0.5), (train[1], 0.1)):
        watch.rates.clear()
        strategy.train(experience)
        assert watch.rates == pytest.approx([0.01] + [0.01] * 30 + [0.001])
        groups = strategy.optimizer.param_groups
        assert [group["lr"] for group in groups] == pytest.approx([0.001, 0.001 * share])


def test_a_prompt_of_no_length_is_refused() -> None:
    with pytest.raises(InputError, match="`length`.*greater than or equal to 1, got 0"):
        HiDePromptConfig().override({"length": 0})
