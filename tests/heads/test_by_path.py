"""Classifiers by path, against Gaussians and class means written out."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.registry import build_closed_head
from cl_adapters.heads.ridge import RidgeHead

D, E = 3, 5
# Class 4 is learned on both paths, in another order than by number.
LEARNED = [(0, [4, 1]), (1, [0, 4]), (0, [2])]


def _drawn(seed: int, labels: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    targets = torch.tensor(labels).repeat(40)
    features = torch.randn(len(targets), D, generator=rng) + targets[:, None] * torch.ones(D)
    wide = torch.randn(len(targets), E, generator=rng) - targets[:, None] * torch.ones(E)
    return features, wide, targets


def _learned(head: str, shared: bool) -> PathClassifiers:
    build = partial(build_closed_head, head)
    found = PathClassifiers(partial(build, D), build(E) if shared else None)
    for number, (path, labels) in enumerate(LEARNED):
        found.add_classes(labels)
        found.begin(path)
        features, wide, targets = _drawn(number, labels)
        for part in torch.split(torch.randperm(len(targets)), 30):
            found.add(features[part], wide[part], targets[part])
        found.solve(0.5)
    return found


def _of_path(path: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [_drawn(n, labels) for n, (each, labels) in enumerate(LEARNED) if each == path]
    features = torch.cat([each for each, _, _ in parts])
    return torch.nn.functional.normalize(features, dim=1).numpy(), torch.cat(
        [labels for _, _, labels in parts]
    ).numpy()


def test_an_image_is_answered_by_the_gaussians_of_its_path() -> None:
    found = _learned("discriminant", shared=False)
    asked, wide, _ = _drawn(9, [0, 1, 2, 4])
    paths = torch.arange(len(asked)) % 2
    logits = found(asked, wide, paths)
    directions = torch.nn.functional.normalize(asked, dim=1).numpy()
    for path in (0, 1):
        features, labels = _of_path(path)
        classes = np.unique(labels)
        oracle = LinearDiscriminantAnalysis(
            solver="lsqr", priors=np.full(len(classes), 1 / len(classes))
        ).fit(features, labels)
        mine = (paths == path).numpy()
        expected = oracle.predict(directions[mine])
        guesses = logits.argmax(dim=1).numpy()[mine]
        # Shrinkage moves few of them: the oracle has none.
        assert (guesses == expected).mean() > 0.95
        absent = [each for each in range(5) if each not in classes]
        assert (logits[mine][:, absent] == UNSEEN_LOGIT).all()
        torch.testing.assert_close(
            logits[mine][:, classes].exp().sum(dim=1), torch.ones(int(mine.sum()))
        )


def test_with_the_shared_classifier_both_count() -> None:
    alone, both = _learned("prototype", shared=False), _learned("prototype", shared=True)
    asked, wide, _ = _drawn(9, [0, 1, 2, 4])
    paths = torch.arange(len(asked)) % 2
    assert both.shared is not None
    shared = torch.log_softmax(both.shared(wide), dim=1)
    own, found = alone(asked, wide, paths), both(asked, wide, paths)
    known = own > UNSEEN_LOGIT
    torch.testing.assert_close(found[known], own[known] + shared[known])
    assert (found[~known] == UNSEEN_LOGIT).all()
    assert (found.argmax(dim=1) != own.argmax(dim=1)).any()


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-9])
def test_classifiers_that_contradict_each_other_answer_with_a_class_of_the_path(
    spread: float,
) -> None:
    """The shared one takes 1 for 2 and 2 for 1, each as surely as the classes are narrow."""
    build = partial(build_closed_head, "discriminant")
    found = PathClassifiers(partial(build, D), build(D))
    found.add_classes([0, 1, 2])
    noise = torch.randn(60, D, generator=torch.Generator().manual_seed(0)).double() * spread
    for path, labels in ((0, [1, 2]), (1, [0])):
        found.begin(path)
        targets = torch.tensor(labels).repeat(60 // len(labels))
        features = torch.eye(D).double()[targets] + noise
        swapped = torch.eye(D).double()[torch.tensor([0, 2, 1])[targets]] + noise
        found.add(features, swapped, targets)
    asked = torch.eye(D).double()[[1, 2, 1]] + noise[:3]
    logits = found(asked, asked, torch.zeros(3, dtype=torch.int64))
    assert set(logits.argmax(dim=1).tolist()) <= {1, 2}
    assert float(logits.amax(dim=1).min()) > UNSEEN_LOGIT
    assert (logits[:, 0] == UNSEEN_LOGIT).all()


def test_ridge_heads_of_a_path_and_of_all_are_solved() -> None:
    found = _learned("ridge", shared=True)
    own, shared = RidgeHead(D), RidgeHead(E)
    for number, (path, labels) in enumerate(LEARNED):
        features, wide, targets = _drawn(number, labels)
        shared.add_classes(labels)
        shared.add(wide, targets)
        if path == 1:
            own.add_classes(range(2))
            own.add(features, (targets == 4).long())
    own.solve(0.5)
    shared.solve(0.5)
    asked, wide, _ = _drawn(9, [0, 4])
    logits = found(asked, wide, torch.ones(len(asked), dtype=torch.int64))
    expected = own(asked).log_softmax(dim=1) + shared(wide).log_softmax(dim=1)[:, [0, 4]]
    torch.testing.assert_close(logits[:, [0, 4]], expected, atol=1e-4, rtol=1e-4)


def test_the_numbers_of_a_path_are_those_that_its_state_gains() -> None:
    found = _learned("discriminant", shared=True)
    before = sum(value.numel() for value in found.state_dict().values())
    found.begin(2)
    features, wide, targets = _drawn(11, [0, 1])
    found.add(features, wide, targets)
    after = sum(value.numel() for value in found.state_dict().values())
    assert found.cost(2) == after - before


@pytest.mark.parametrize("shared", [False, True])
def test_a_state_makes_room_for_its_paths(shared: bool) -> None:
    found = _learned("discriminant", shared=shared)
    build = partial(build_closed_head, "discriminant")
    again = PathClassifiers(partial(build, D), build(E) if shared else None)
    again.add_classes(range(5))
    state = {f"classes.{name}": value for name, value in found.state_dict().items()}
    again.rebuild(state, "classes")
    again.load_state_dict(found.state_dict())
    asked, wide, _ = _drawn(9, [0, 1, 2, 4])
    paths = torch.arange(len(asked)) % 2
    assert torch.equal(again(asked, wide, paths), found(asked, wide, paths))
