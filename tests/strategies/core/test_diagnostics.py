"""Diagnostics over batches of several experiences, against plain sums over images."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cl_adapters.strategies.core.diagnostics import RouterUsage, Votes
from cl_adapters.strategies.core.output import Output


class Strategy:
    """Shows an evaluation batch by batch, and keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, dict[str, Any]]] = []

    def log_event(self, event: str, **values: Any) -> None:
        self.logged.append((event, values))

    def show(self, experience: int, output: Output, targets: list[int]) -> None:
        self.experience = SimpleNamespace(current_experience=experience)
        self.output, self.mb_output = output, output.logits
        self.mb_y = torch.tensor(targets)


def test_router_weights_are_means_over_all_images_of_an_experience() -> None:
    strategy, usage = Strategy(), RouterUsage()
    weights = {0: torch.rand(5, 2), 2: torch.rand(3, 2)}
    for _ in range(2):  # the second evaluation knows nothing of the first
        usage.before_eval(strategy)
        for experience, rows in ((0, slice(0, 3)), (0, slice(3, 5)), (2, slice(0, 3))):
            part = weights[experience][rows]
            router = {4: SimpleNamespace(weights=part), 7: SimpleNamespace(weights=1 - part)}
            output = Output(torch.zeros(len(part), 3), {"router": router})
            strategy.show(experience, output, [0] * len(part))
            usage.after_eval_iteration(strategy)
        usage.after_eval(strategy)
    assert [(name, values["block"]) for name, values in strategy.logged] == 2 * [
        ("router", 4), ("router", 7),
    ]  # fmt: skip
    for _, values in strategy.logged:
        for found, experience in zip(values["weights"], (0, 2), strict=True):
            mean = weights[experience].mean(dim=0)
            expected = mean if values["block"] == 4 else 1 - mean
            assert found == pytest.approx(expected.tolist(), abs=1e-6)


def test_votes_are_counted_over_all_batches_and_only_where_they_differ() -> None:
    strategy, votes = Strategy(), Votes()
    votes.before_eval(strategy)
    # (online, offline, answer, target) of each image.
    batches = {
        0: [[(0, 0, 0, 0), (1, 0, 1, 1), (1, 0, 1, 0)], [(0, 1, 1, 2)]],
        1: [[(2, 2, 2, 1), (0, 2, 2, 2)]],
    }
    for experience, parts in batches.items():
        for part in parts:
            online, offline, answers, targets = (list(each) for each in zip(*part, strict=True))
            logits = torch.nn.functional.one_hot(torch.tensor(answers), 3).float()
            pair = torch.tensor(online), torch.tensor(offline)
            strategy.show(experience, Output(logits, {"votes": pair}), targets)
            votes.after_eval_iteration(strategy)
    votes.after_eval(strategy)
    ((name, values),) = strategy.logged
    assert name == "votes"
    assert values == {
        "experiences": [0, 1], "images": [4, 2], "differ": [3, 1], "online_right": [1, 0],
        "offline_right": [1, 1], "vote_right": [1, 1],
    }  # fmt: skip


def test_without_votes_nothing_is_logged() -> None:
    strategy, votes = Strategy(), Votes()
    votes.before_eval(strategy)
    strategy.show(0, Output(torch.zeros(2, 3)), [0, 1])
    votes.after_eval_iteration(strategy)
    votes.after_eval(strategy)
    assert strategy.logged == []
