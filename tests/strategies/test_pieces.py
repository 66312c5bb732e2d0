"""PEFT modules and heads are pieces: those that fit a method run in it soundly, others are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.errors import InputError
from cl_adapters.heads.discriminant import LinearDiscriminant
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.heads.registry import HEADS
from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.peft.registry import PEFTS
from cl_adapters.strategies import STRATEGIES, STRATEGY_NAMES, find_strategy
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial

SOME = ["answers", "backbone", "seen_classes", "resumes"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simplecil", {"head": "ridge"}),
        ("simplecil", {"head": "discriminant"}),
        ("finetune", {"head": "cosine", "peft": "lora"}),
        ("lae", {"head": "cosine", "peft": "prefix"}),
        ("joint", {"head": "cosine"}),
        ("finetune", {"head": "kac"}),
        ("lae", {"head": "simplex"}),
        ("finetune", {"head": "multi_dropout", "weight_aligning": True}),
        ("finetune", {"head": "batch_norm"}),
        *(
            pytest.param(name, options, marks=pytest.mark.slow)
            for name, options in [
                ("finetune", {"head": "simplex", "simplex_loss": "current"}),
                ("joint", {"head": "simplex", "simplex_loss": "seen"}),
                ("lae", {"head": "multi_dropout"}),
                ("lae", {"head": "batch_norm", "head_statistics": "running"}),
                ("mos", {"head": "batch_norm"}),
                ("sema", {"head": "batch_norm"}),
                ("l2p", {"head": "batch_norm"}),
                ("avalanche:Replay", {"head": "simplex", "simplex_loss": "seen"}),
                ("avalanche:Replay", {"head": "batch_norm", "weight_aligning": True}),
            ]
        ),
        pytest.param("mos", {"head": "kac"}, marks=pytest.mark.slow),
        ("avalanche:Replay", {"head": "cosine", "peft": "parallel"}),
        pytest.param("mos", {"head": "cosine"}, marks=pytest.mark.slow),
        pytest.param("sema", {"head": "cosine"}, marks=pytest.mark.slow),
        ("sema", {"head": "prototype", "peft": "lora", "policy": "every_experience"}),
        pytest.param(
            "sema",
            {
                "watch": "slots",
                "head": "ridge",
                "peft": "adapter",
                "router": "learned",
                "detector": "ks",
            },
            marks=pytest.mark.slow,
        ),
        pytest.param("mos", {"peft": "prefix"}, marks=pytest.mark.slow),
        ("mos", {"peft": "lora", "merge": "official"}),
        ("finetune", {"peft": "parallel"}),
        # Of those that draw in training one; the others, with fewer checks, in test_fits.
        ("finetune", {"peft": "mosa"}),
        *(
            pytest.param(name, {"peft": peft}, marks=pytest.mark.slow)
            for name, peft in [("mos", "mosa"), ("lae", "dylora"), ("sema", "onebit")]
        ),
        # What is left of methods and pieces, each of which is above.
        *(
            pytest.param(name, {"peft": peft}, marks=pytest.mark.slow)
            for name, peft in [
                ("mos", "adapter"),
                ("mos", "lora"),
                ("joint", "parallel"),
                ("lae", "parallel"),
            ]
        ),
    ],
)
def test_pieces_that_fit_are_sound(name: str, options: dict[str, str]) -> None:
    assert check_strategy(find_strategy(name), options=options, checks=SOME) == []


def test_the_option_chooses_the_head() -> None:
    ridge = Trial(find_strategy("simplecil"), {"head": "ridge"}).build().model.head
    assert isinstance(ridge, RidgeHead)
    cosine = Trial(find_strategy("finetune"), {"head": "cosine"}).build().model.heads
    assert isinstance(cosine, ExperienceHeads)
    assert cosine.cosine_scale == 10
    kinds = {"prototype": PrototypeHead, "discriminant": LinearDiscriminant, "ridge": RidgeHead}
    for head, kind in kinds.items():
        options = {"head": head, "classifiers": "one"}
        assert isinstance(Trial(find_strategy("sema"), options).build().model.classes, kind)
    for head in ("linear", "cosine"):
        model = Trial(find_strategy("sema"), {"head": head}).build().model
        assert model.classes is None
        assert (model.heads.cosine_scale == 10) == (head == "cosine")


def test_options_of_a_head_reach_it() -> None:
    def head(**options: object) -> Any:
        return Trial(find_strategy("finetune"), options).build().model.heads

    assert head(head="simplex", simplex_loss="seen").competing == "seen"
    assert head(head="batch_norm", head_statistics="running").statistics == "running"
    masks = head(head="multi_dropout", head_dropout=0.25, head_samples=3)
    assert (masks.share, masks.samples) == (0.25, 3)


def test_a_ridge_head_of_sema_is_the_regression_on_its_features() -> None:
    # Without growth the features of a class stay those that it was added with.
    options = {"policy": "never", "beside": False, "classifiers": "one"}
    trial = Trial(find_strategy("sema"), {"head": "ridge", "ridge": 3.0, **options})
    stream, strategy = TinyStream(), trial.build()
    found = trial.train(strategy, stream, only_last=True).outputs[-1]
    images, labels, asked = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    with torch.no_grad():
        rows, tested = (strategy.model.features(each).double() for each in (images, asked))
    truth = torch.nn.functional.one_hot(labels).double()
    solved = torch.linalg.solve(rows.T @ rows + 3 * torch.eye(32).double(), rows.T @ truth)
    torch.testing.assert_close(found.double(), 10 * tested @ solved, atol=1e-4, rtol=1e-4)


def test_what_sema_keeps_on_disk_is_known_by_the_weights_of_any_peft_module(tmp_path: Path) -> None:
    trial = Trial(find_strategy("sema"), {"peft": "lora", "expandable": 1})
    strategy = trial.build(cache=FeatureCache(tmp_path))
    before = strategy.frozen_features().namespace
    with torch.no_grad():  # changes no output, since the other factor is zero
        strategy.model.adapters.at("key_value", 0).key_down.add_(1)
    assert strategy.frozen_features().namespace not in {"", before}


def test_a_cosine_head_of_mos_is_aligned_as_one() -> None:
    trial = Trial(find_strategy("mos"), {"head": "cosine", "alignment_lr": 0.1})
    runs = [
        trial.train(Trial(trial.kind, {**trial.options, **extra}).build(), TinyStream())
        for extra in ({}, {"alignment": False})
    ]
    aligned, plain = (run.strategy.model.heads for run in runs)
    assert all(layer.bias is None for layer in aligned.layers)
    assert not torch.equal(aligned.layers[0].weight, plain.layers[0].weight)
    features = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    joined = aligned.joined([5, 0])
    torch.testing.assert_close(joined(features), aligned(features)[:, [5, 0]])


@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        ("simplecil", "linear", "got 'linear': it is trained by gradient descent, and this method"),
        ("lae", "ridge", "got 'ridge': it is set in closed form from features that stay as they"),
        ("finetune", "cosin", "unknown head 'cosin'; did you mean 'cosine'"),
        ("mos", "prototype", "got 'prototype': it is set in closed form from features that stay"),
        ("mos", "simplex", "got 'simplex': it has a loss of its own or nothing to train, and this"),
        ("sema", "simplex", "got 'simplex': where nothing grows, this method trains the head"),
        ("avalanche:Replay", "multi_dropout", "got 'multi_dropout': it has a loss of its own"),
        ("sema", "rigde", "unknown head 'rigde'; did you mean 'ridge'"),
    ],
)
def test_heads_that_make_no_sense_are_refused(name: str, head: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find_strategy(name).config_class().override({"head": head})


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        (
            "finetune",
            {"head": "cosine", "weight_aligning": True},
            "`weight_aligning` must go with a head whose rows have lengths .*, got 'cosine'",
        ),
        (
            "avalanche:Replay",
            {"simplex_loss": "current"},
            "`simplex_loss` must be one of all, seen, since batches hold .*, got 'current'",
        ),
        ("joint", {"simplex_loss": "current"}, "`simplex_loss` must be one of all, seen, since"),
        (
            "sema",
            {"peft": "prefix"},
            "`peft` must take tokens in one slot, since router .* got 'prefix'",
        ),
        ("mos", {"peft": "lora", "scale": 0.5}, "`scale` must stay at 1.0 with peft 'lora', since"),
        ("mos", {"peft": "prefix", "dropout": 0}, "`dropout` must stay at 0.1 with peft 'prefix'"),
        ("mos", {"peft": "lorra"}, "unknown peft 'lorra'; did you mean 'lora'"),
    ],
)
def test_pieces_that_make_no_sense_are_refused(
    name: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        find_strategy(name).config_class().override(options)


def table_of_pieces() -> list[tuple[str, str, set[str]]]:
    """Returns strategy, option and values of the table in docs/pieces.md."""
    page = (Path(__file__).parent.parent.parent / "docs" / "pieces.md").read_text("utf-8")
    rows = [
        line.split("|")[1:4]
        for line in page.splitlines()
        if re.match(r"\| `\w+`.*\|.*\|.*\|", line)
    ]
    return [
        (name, option, values)
        for names, pefts, heads in rows
        for name in re.findall(r"`([\w:]+)`", names)
        if name in STRATEGY_NAMES
        for option, values in (
            ("peft", named(pefts)),
            ("head", set(re.findall(r"`(\w+)`", heads))),
        )
    ]


def named(cell: str) -> set[str]:
    """Returns the built-in PEFT modules that a cell of the table means."""
    if "any" not in cell:
        return set()
    takes_tokens = "takes tokens" in cell
    return {name for name, peft in PEFTS.items() if peft.takes_tokens or not takes_tokens}


def takes(name: str, option: str, value: str) -> bool:
    try:
        find_strategy(name).config_class().override({option: value})
    except InputError:
        return False
    return True


def test_the_documented_table_of_pieces_is_what_is_taken() -> None:
    heads = list(HEADS)
    table = table_of_pieces()
    assert {name for name, _, _ in table} >= set(STRATEGIES)
    for name, option, values in table:
        every = PEFTS if option == "peft" else heads
        assert {each for each in every if takes(name, option, each)} == values, (name, option)


OWN = """
import torch
from torch import nn


class Gain(nn.Module):
    slot, default_size = "attention", 2

    def __init__(self, embed_dim, size, *, generator):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(size, embed_dim))

    def forward(self, inputs):
        return inputs * self.mean.sum(dim=0)


class Shifted(Gain):
    # Keeps a buffer, another in each block, that decides what it adds.

    def __init__(self, embed_dim, size, *, generator):
        super().__init__(embed_dim, size, generator=generator)
        self.register_buffer("shift", torch.randn(embed_dim, generator=generator))

    def forward(self, inputs):
        return super().forward(inputs) + 0.1 * self.shift


class Secret(Gain):
    # Has a state that is neither.

    def get_extra_state(self):
        return torch.zeros(())

    def set_extra_state(self, state):
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mos", "sema"])
def test_a_peft_module_of_one_s_own_runs_in_methods_that_store_and_mix(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    kind = find_strategy(name)
    for own in ("Gain", "Shifted"):
        options = {"peft": f"{path}:{own}"}
        assert check_strategy(kind, options=options, checks=["answers", "resumes"]) == []
    if name == "mos":
        sentence = "in parameters and buffers, got the state '_extra_state'"
        with pytest.raises(InputError, match=sentence):
            Trial(kind, {"peft": f"{path}:Secret"}).build()
