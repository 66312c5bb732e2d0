"""Images read straight from where they lie are those that Avalanche's own loaders show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from cl_adapters.benchmarks.data.sources import ImageSource
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.strategies.core import batches
from cl_adapters.strategies.core.batches import BatchMaker, Frozen
from cl_adapters.strategies.core.loaders import IndexBatches, MadeBatches, reader_of
from cl_adapters.strategies.core.samplers import ResumableBatchSampler
from cl_adapters.strategies.core.views import Augmentation
from tests.benchmarks.killable import stripes
from tests.marks import by_default

TINY = {"backbone": "test_vit", "weights": "random", "image_size": 32, "increment": 2}
PLAIN: dict[str, Any] = {}
FIXED: dict[str, Any] = {"augment": "crop_flip", "fixed_views": 2}
NEW: dict[str, Any] = {"augment": "crop_flip"}


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return stripes(train=6, test=3)


class Shown(SupervisedPlugin):  # type: ignore[misc] # Avalanche ships no types
    """Keeps every minibatch as it comes, and what made them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, ...]] = []
        self.made: list[bool] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        self.made.append(isinstance(strategy.dataloader, MadeBatches))

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        self.made.append(isinstance(strategy.dataloader, MadeBatches))

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self.seen.append((strategy.mb_x.clone(), strategy.mb_y.clone(), strategy.mb_task_id))

    before_eval_forward = before_forward


def shown(source: ImageSource, strategy: str, pixels: dict[str, Any]) -> Shown:
    options = {} if strategy == "simplecil" else {"epochs": 2, "batch_size": 5}
    values = {"strategy": strategy, "options": options, **TINY, **pixels}
    prepared, plugin = prepare(RunConfig.parse(values), source=source), Shown()
    prepared.strategy.add_plugin(plugin)
    benchmark = prepared.benchmark()
    for experience in benchmark.train_stream[:2]:
        prepared.strategy.train(experience)
        prepared.strategy.eval(benchmark.test_stream)
    return plugin


@pytest.mark.parametrize("pixels", [PLAIN, FIXED, NEW], ids=["plain", "fixed", "new"])
@pytest.mark.parametrize(
    "strategy", by_default(["finetune", "joint", "simplecil"], ["finetune", "simplecil"])
)
def test_batches_are_those_of_avalanches_loaders_bit_for_bit(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch, strategy: str, pixels: dict[str, Any]
) -> None:
    ours = shown(source, strategy, pixels)
    monkeypatch.setattr(batches, "reader_of", lambda *_: None)
    theirs = shown(source, strategy, pixels)
    assert all(ours.made)
    assert not any(theirs.made)
    assert len(ours.seen) == len(theirs.seen)
    for one, other in zip(ours.seen, theirs.seen, strict=True):
        assert all(map(torch.equal, one, other))


@pytest.fixture
def dataset(source: ImageSource) -> Any:
    config = RunConfig.parse({"strategy": "finetune", **TINY})
    return prepare(config, source=source).benchmark().train_stream[0].dataset


def images_of(loader: Any) -> Tensor:
    return torch.cat([batch[0] for batch in loader])


def by_maker(dataset: Any, group: str) -> tuple[bool, Tensor]:
    """Returns whether images are read straight, and what a strategy is shown, in order."""
    maker = BatchMaker(torch.device("cpu"), Augmentation(fixed_views=True, seed=0), None)
    if group == "eval":
        loader = maker.evaluation(dataset, 5, Frozen(), num_workers=0).loader
        return loader is not None, images_of(loader or DataLoader(dataset, 5))
    generator = torch.Generator().manual_seed(0)
    order = ResumableBatchSampler(
        SequentialSampler(dataset), 5, drop_last=False, generator=generator
    )
    loader = maker.training(dataset, order, group="train", num_workers=0).loader
    return isinstance(loader, MadeBatches), images_of(loader)


def darkened(dataset: Any) -> Any:
    return dataset.replace_current_transform_group(
        lambda pixels: torch.zeros(3, 32, 32, dtype=torch.uint8) + int(pixels.mean())
    )


CHANGES: dict[str, tuple[Callable[[Any, str], Any], bool]] = {
    "as it is": (lambda data, _: data, True),
    "subset": (lambda data, _: data.subset([5, 1, 7]), True),
    "concatenation": (lambda data, _: concat_datasets([data.subset([3]), data]), True),
    "two readers": (
        lambda data, group: concat_datasets([data, getattr(another(), group)()]),
        True,
    ),
    "other transforms": (lambda data, _: darkened(data), False),
    "a part with other transforms": (
        lambda data, group: concat_datasets([data, darkened(getattr(another(), group)())]),
        False,
    ),
}


def another() -> Any:
    """Returns images of another experience, which has a reader of its own."""
    config = RunConfig.parse({"strategy": "finetune", **TINY})
    return prepare(config, source=stripes(train=6, test=3)).benchmark().train_stream[1].dataset


@pytest.mark.parametrize("group", ["train", "eval"])
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_dataset_became_its_own_images_are_shown(
    dataset: Any, change: str, group: str
) -> None:
    make, is_read = CHANGES[change]
    changed = make(getattr(dataset, group)(), group)
    expected = torch.stack([changed[index][0] for index in range(len(changed))])
    straight, images = by_maker(changed, group)
    assert straight == is_read
    assert torch.equal(images, expected)


def test_looking_at_a_strangers_transform_draws_nothing(dataset: Any) -> None:
    noisy = dataset.replace_current_transform_group(lambda pixels: torch.rand(3, *pixels.shape[:2]))
    before = torch.random.get_rng_state()
    assert reader_of(noisy, "train") is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_dataset_that_says_nothing_is_read_by_avalanche(make_stream: Callable[..., Any]) -> None:
    plain = make_stream([[0, 1]]).train_stream[0].dataset
    assert reader_of(plain, "eval") is None
    assert by_maker(plain, "eval")[0] is False


def test_replay_shows_old_images_among_those_that_could_be_read(source: ImageSource) -> None:
    replay = shown(source, "avalanche:Replay", PLAIN)
    # Two epochs and an evaluation of three test experiences, twice; the second training is mixed.
    assert replay.made == [True] * 5 + [False] * 2 + [True] * 3
    trained = [labels for images, labels, _ in replay.seen if len(images) != 6]
    assert {0, 1, 2, 3} <= {int(label) for labels in trained for label in labels}


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("skip", [0, 2])
def test_batches_of_indices_are_those_of_torchs_loader(skip: int, *, drop_last: bool) -> None:
    """The order has to be that over images, which the loader reads."""

    def order() -> ResumableBatchSampler:
        generator = torch.Generator().manual_seed(3)
        sampler = RandomSampler(range(23), generator=generator)
        return ResumableBatchSampler(sampler, 4, drop_last=drop_last, generator=generator)

    mine, torchs = order(), order()
    loader = DataLoader(torch.arange(23), batch_sampler=torchs, generator=torchs.generator)
    indices = IndexBatches(mine)
    assert len(indices) == len(loader)
    for passes in range(3):
        if passes == 1:
            mine.skip = torchs.skip = skip
        one, other = list(indices), list(loader)
        assert len(one) == len(mine) - (skip if passes == 1 else 0)
        assert all(map(torch.equal, one, other))
        assert mine.place() == torchs.place()
