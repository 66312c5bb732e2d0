"""LoRanPAC against plain formulas; the conformance suite runs in `checks/test_suite.py`."""

import os
from typing import Any

import numpy as np
import pytest
import torch

from cl_adapters.errors import InputError
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.loranpac import LoRanPAC, LoRanPACConfig
from cl_adapters.vit.checks import tiny_backbone

SMALL = {"projections": 200}


@pytest.mark.parametrize("chunk", [1000, 10])
def test_with_all_directions_answers_are_least_squares_over_all_images(chunk: int) -> None:
    trial, stream = Trial(LoRanPAC, {**SMALL, "share": 1.0, "chunk": chunk}), TinyStream()
    strategy = trial.build()
    run = trial.train(strategy, stream)
    images, labels, tested = (
        torch.cat([each.tensors[part] for each in sets])
        for sets, part in ((stream.train_sets, 0), (stream.train_sets, 1), (stream.test_sets, 0))
    )
    network, weight = tiny_backbone(), strategy.model.weight.double()
    with torch.no_grad():
        rows, asked = (torch.relu(network(x).double() @ weight).numpy() for x in (images, tested))
    expected = 10 * asked @ np.linalg.pinv(rows) @ np.eye(7)[labels.numpy()]
    np.testing.assert_allclose(run.outputs[-1].numpy(), expected, atol=2e-2)


def scores_by_numpy(
    experiences: list[tuple[np.ndarray, np.ndarray]], asked: np.ndarray, share: float
) -> np.ndarray:
    """In double, from one decomposition an experience of all that is kept and all that is new."""
    kept, cross, count = np.zeros((asked.shape[1], 0)), np.zeros((asked.shape[1], 7)), 0
    for rows, labels in experiences:
        count += len(rows)
        left, values, _ = np.linalg.svd(np.concatenate([kept, rows.T], axis=1), full_matrices=False)
        most = min(round(share * count), round(share * len(kept)))
        kept, inverse = left[:, :most] * values[:most], left[:, :most] / values[:most] ** 2
        cross += rows.T @ np.eye(7)[labels]
    scores: np.ndarray = asked @ inverse @ left[:, :most].T @ cross
    return scores


@pytest.mark.parametrize(("projections", "share"), [(200, 0.75), (60, 0.5), (500, 1.0)])
def test_scores_are_those_of_numpy_whatever_is_dropped(projections: int, share: float) -> None:
    trial, stream = Trial(LoRanPAC, {"projections": projections, "share": share}), TinyStream()
    strategy = trial.build()
    run = trial.train(strategy, stream, only_last=True)
    network, weight = tiny_backbone(), strategy.model.weight

    def rows(images: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return torch.relu(network(images) @ weight).double().numpy()

    shown = [(rows(each.tensors[0]), each.tensors[1].numpy()) for each in stream.train_sets]
    asked = np.concatenate([rows(each.tensors[0]) for each in stream.test_sets])
    expected = scores_by_numpy(shown, asked, share)
    np.testing.assert_allclose(run.outputs[-1].numpy() / 10, expected, atol=1e-4)


def test_directions_are_a_share_of_the_images_so_far() -> None:
    run = Trial(LoRanPAC, SMALL).straight
    sizes = [state["head.directions.basis"].shape for state in run.states]
    assert sizes == [(200, 18), (200, 36), (200, 63)]  # of 24, 48 and 84 images
    assert (
        Trial(LoRanPAC, {**SMALL, "rank": 20}).straight.states[-1]["head.directions.basis"].shape[1]
        == 20
    )


def test_a_first_session_moves_the_features_once() -> None:
    options = {**SMALL, "first_session": True, "lr": 0.5}
    run = Trial(LoRanPAC, options).straight
    first, *later = ({k: v for k, v in s.items() if k.startswith("first.")} for s in run.states)
    assert first
    assert all(torch.equal(first[name], state[name]) for state in later for name in first)
    assert not torch.allclose(run.outputs[0], Trial(LoRanPAC, SMALL).straight.outputs[0])
    names = ["answers", "declares", "resumes", "resumes_inside", "small"]
    assert check_strategy(LoRanPAC, options=options, checks=names) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 500}, "500 directions of 1,000,000,000 features .* 8 GB, got 2,000 GB"),
        ({"rank": 1}, "1,000,000,000 projections of 32 features .* 8 GB, got 128 GB"),
    ],
)
def test_more_projections_than_memory_holds_are_refused_with_what_they_take(
    options: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = {"SC_PHYS_PAGES": 2 * 10**6, "SC_PAGE_SIZE": 4000}
    ask = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: memory.get(name) or ask(name))
    config = LoRanPACConfig().override({"projections": 10**9, **options})
    with pytest.raises(InputError, match=sentence):
        LoRanPAC(backbone=tiny_backbone(), config=config)


def test_the_authors_sizes_are_an_option() -> None:
    official = LoRanPACConfig.official()
    assert (official.projections, official.rank, official.chunk) == (100_000, 10_000, 10_000)


@pytest.mark.parametrize(
    "options", [{"projections": 0}, {"rank": 0}, {"share": 1.5}, {"strength": -1}, {"chunk": 0}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"option `{name}`: "):
        LoRanPACConfig().override(options)
