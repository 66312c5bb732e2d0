"""Whether many images together look other than the training images, and in which blocks.

A detector a block judges the mean tokens that enter it: SEMA's own, or one that was fitted on the
frozen backbone's tokens of training images. Where a block has several, each image counts by the one
that knows it best: a folder may mix all that was learned. All images of a folder are one window;
they are judged again in windows of `WINDOW` images, drawn at random, which says how often a part of
them would be enough to see it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.shift.bank import DetectorBank
from cl_adapters.shift.base import Verdict
from cl_adapters.strategies.core.detection import DetectorConfig

__all__ = ["MIN_SHIFT", "WATCHED", "WINDOW", "BlockVerdict", "FolderWatch", "Seen"]

WINDOW: Final = 128
WATCHED: Final = 3  # blocks, the last ones
MIN_SHIFT: Final = 0.5  # standard deviations below which no shift counts; docs/unknown.md
MOST: Final = 5000  # images whose mean tokens are kept


class Seen:
    """Mean tokens of images by block; of more than `most` images a random part of so many.

    Args:
        most: How many are kept.
        seed: Seed of the choice and of the order.

    Attributes:
        images: How many were added.
    """

    def __init__(self, most: int = MOST, seed: int = 0) -> None:
        self.most, self.images = most, 0
        self._source = torch.Generator().manual_seed(seed)
        self._keys = torch.zeros(0, dtype=torch.float64)
        self._tokens: dict[int, Tensor] = {}

    def add(self, tokens: Mapping[int, Tensor]) -> None:
        """Adds some images.

        Shape:
            tokens: by block, (B, D) each.
        """
        rows = {block: value.float().cpu() for block, value in tokens.items()}
        count = len(next(iter(rows.values())))
        keys = torch.rand(count, dtype=torch.float64, generator=self._source)
        keys = torch.cat([self._keys, keys])
        kept = keys.argsort()[: self.most]
        self._keys = keys[kept]
        for block, value in rows.items():
            known = self._tokens.get(block, value[:0])
            self._tokens[block] = torch.cat([known, value])[kept]
        self.images += count

    def tokens(self, block: int) -> Tensor:
        """Returns the mean tokens of a block, (N, D), in random order."""
        return self._tokens[block]

    def windows(self, block: int) -> Iterator[Tensor]:
        """Yields the same in windows; a smaller last one joins the one before."""
        rows = self._tokens[block]
        yield from torch.tensor_split(rows, [*range(WINDOW, len(rows) - WINDOW + 1, WINDOW)])


@dataclass(frozen=True)
class BlockVerdict:
    """What the detectors of a block say of many images.

    Attributes:
        block: Which, counted from 0.
        images: How many were judged.
        all: What they say of these as one window.
        windows: How many windows they were dealt into.
        fired: How many of these look shifted.
    """

    block: int
    images: int
    all: Verdict
    windows: int
    fired: int

    @property
    def is_shifted(self) -> bool:
        """Whether the images look shifted to this block."""
        return self.all.fired


@dataclass(frozen=True, eq=False)
class FolderWatch:
    """Detectors of some blocks.

    Attributes:
        bank: They.
        is_own: Whether a method has learned them, on tokens of its adapted network.
        settings: What they were made with, to make them again; empty where they are a method's.
    """

    bank: DetectorBank
    is_own: bool = False
    settings: Mapping[str, Any] | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that have detectors."""
        return tuple(sorted(int(name) for name in self.bank))

    @classmethod
    def new(cls, num_features: int, num_blocks: int, seed: int = 0) -> Self:
        """Returns detectors for the last blocks of a network that were fitted on nothing yet.

        Args:
            num_features: Width D of the tokens.
            num_blocks: Blocks of the network.
            seed: Seed of all chance in fitting.
        """
        blocks = list(range(max(0, num_blocks - WATCHED), num_blocks))
        return cls._made({"num_features": num_features, "blocks": blocks, "seed": seed})

    @classmethod
    def _made(cls, settings: Mapping[str, Any]) -> Self:
        size, seed = settings["num_features"], settings["seed"]
        config = DetectorConfig(min_shift=MIN_SHIFT)
        first = {each: config.make_detector(size, seed + each) for each in settings["blocks"]}
        return cls(DetectorBank(first), settings=dict(settings))

    def fit(self, seen: Seen) -> None:
        """Fits them on training images.

        Raises:
            InputError: If there are too few.
        """
        least = max(self.bank.newest(block).min_samples for block in self.blocks)
        if seen.images < least:
            raise InputError(
                f"detectors of shifts must be fitted on at least {least} training images, got "
                f"{seen.images}"
            )
        for block in self.blocks:
            self.bank.newest(block).fit(seen.tokens(block))

    @torch.no_grad()
    def judge(self, seen: Seen) -> list[BlockVerdict]:
        """Returns what the detectors of each block say of the images that were seen.

        Raises:
            InputError: If none was.
        """
        if not seen.images:
            raise InputError("images must be at least one to be judged, got none")
        return [self._judge_block(block, seen) for block in self.blocks]

    def _judge_block(self, block: int, seen: Seen) -> BlockVerdict:
        device = next(iter(self.bank.state_dict().values())).device
        rows = seen.tokens(block).to(device)
        judge = self.bank.judge_mixed
        parts = [judge(block, part.to(device)).fired for part in seen.windows(block)]
        return BlockVerdict(block, len(rows), judge(block, rows), len(parts), sum(parts))

    def state(self) -> dict[str, Tensor]:
        """Returns their tensors by name."""
        return dict(self.bank.state_dict())

    @classmethod
    def of(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor], place: str) -> Self:
        """Returns those that `settings` and `state` tell of.

        Args:
            settings: What they were made with.
            state: What `state` gave.
            place: How to call the file in a message.

        Raises:
            InputError: If they do not fit each other.
        """
        try:
            found = cls._made(settings)
            found.bank.load_state_dict(dict(state))
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{place} must hold the detectors of a watch, got others") from error
        return found
