"""SEMA's network: adapters that multiply, what watches for change, and the classifier that answers.

Adapters can be watched and chosen in two places. `watch=network`: the frozen network's features are
watched, as methods with whole sets do (`core/regimes.py`). All expandable blocks then grow
together, and an image takes the path, one adapter in each block, of the kind of images that its
frozen features are likeliest of. `watch=slots`: each adapter has a detector, and each block a
router, that read the mean of the tokens which enter it (the paper).

Features of the frozen network can stand beside the adapted ones (`beside`), since adapters trained
on few classes forget what others need; and each path can have a classifier (`classifiers`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.heads.registry import PLAIN_HEADS, ClosedHead, build_closed_head
from cl_adapters.peft.growth_round import BlockSize
from cl_adapters.peft.routing import SlotRecord
from cl_adapters.shift.bank import DetectorBank
from cl_adapters.strategies.core.head_options import AnyHeadConfig
from cl_adapters.strategies.core.output import Output
from cl_adapters.strategies.core.regimes import PLACE, Regimes
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.blocks import blocks_from_text, expandable_blocks
from cl_adapters.vit.expandable import ExpandableViT

__all__ = ["SLOTS", "PathConfig", "SEMAModel"]

# As published: blocks are watched and routed one by one, and one classifier answers.
SLOTS: Final[dict[str, Any]] = {
    "watch": "slots",
    "expandable": 3,
    "detector": "descriptor",
    "start": "fresh",
    "beside": False,
    "classifiers": "one",
    "head_init_std": None,
}


class PathConfig(AnyHeadConfig):
    """Where a network grows and is watched, and what answers."""

    expandable: int | tuple[int, ...] | Literal["all"] = Field(
        default="all",
        description="blocks that can grow: so many of the last, which (from 0), or all",
    )
    watch: Literal["slots", "network"] = Field(
        default="network",
        description="where data is judged and images choose adapters: in each slot, or on the "
        "frozen network's features for all slots together, without `router`",
    )
    beside: bool = Field(
        default=True, description="frozen features beside the adapted ones, for a closed `head`"
    )
    classifiers: Literal["one", "by_path", "both"] = Field(
        default="both",
        description="with paths and a closed `head`: one over all images, one a path, or the "
        "product of both",
    )

    _read = field_validator("expandable", mode="before")(blocks_from_text)

    @property
    def is_closed(self) -> bool:
        """Whether the head that answers is in closed form."""
        return self.head not in PLAIN_HEADS

    @property
    def asks_frozen(self) -> bool:
        """Whether an answer needs the frozen network's features."""
        return self.sees_frozen or self.watch == "network"

    @property
    def sees_frozen(self) -> bool:
        """Whether the head that answers sees the frozen features beside the adapted ones."""
        return self.beside and self.is_closed

    def build_classifiers(
        self, num_features: int
    ) -> tuple[ExperienceHeads, ClosedHead | PathClassifiers | None]:
        """Returns the classifier that is trained, and what answers in its place if anything does.

        Args:
            num_features: D.
        """
        heads, shared = self.build_heads(num_features, (1 + self.sees_frozen) * num_features)
        if self.classifiers == "one" or self.watch == "slots" or not self.is_closed:
            return heads, shared
        build = partial(build_closed_head, self.head, num_features, scale=self.head_scale)
        return heads, PathClassifiers(build, shared if self.classifiers == "both" else None)


class SEMAModel(ExpandableViT):
    """The expandable backbone, what watches it, and the two classifiers.

    Args:
        backbone: The frozen ViT.
        config: SEMA's options.
        seed: Of adapters and detectors.

    Attributes:
        detectors: By block, one for each adapter of a slot; empty where the network is watched.
        regimes: Paths, and who finds that of an image; None where slots are watched.
        active: (E,) int64, the adapter that the last experience belongs to, by expandable block.
        learning: The path that is trained, in every expandable block; None where routers decide.
    """

    def __init__(
        self,
        backbone: AdaptedViT,
        config: Any,  # noqa: ANN401 - with the options of many classes
        seed: int,
    ) -> None:
        peft, size = config.chosen
        is_told = config.watch == "network"
        super().__init__(
            backbone,
            expandable=expandable_blocks(config.expandable, backbone.num_blocks),
            width=size,
            peft=peft,
            router=None if is_told else config.build_router,
            generator=torch.Generator().manual_seed(seed),
        )
        width, self.beside = backbone.embed_dim, config.sees_frozen
        watched = () if is_told else self.expandable
        self.detectors = DetectorBank(
            {block: config.make_detector(width, seed + block) for block in watched}
        )
        self.register_buffer("active", torch.zeros(len(self.expandable), dtype=torch.int64))
        self.active: Tensor
        self.learning: int | None = None
        self.heads, self.classes = config.build_classifiers(width)
        self.regimes: Regimes | None = None
        if is_told:
            one = nn.ModuleList(self.slot(block).adapters[0] for block in self.expandable)
            self.regimes = Regimes(
                config, width, seed, one, beside=self.path_numbers(0), finds_images=True
            )
        config.budget.check(self.cost(self.expandable[0]), is_set=is_told)

    def path_numbers(self, classes: int) -> int:
        """Returns the numbers that a path's own classifier holds once it has learned classes."""
        by_path = isinstance(self.classes, PathClassifiers)
        return self.classes.cost(classes) if by_path else 0

    def active_adapter(self, block: int) -> int:
        """Returns the adapter that the last experience belongs to."""
        return int(self.active[self.expandable.index(block)].item())

    def cost(self, block: int) -> int:
        """Returns the numbers of one more adapter with its column and detector, or of a path."""
        if self.regimes is not None:
            return self.regimes.cost
        return self.slot(block).cost() + self.detectors.cost(block)

    def sizes(self) -> dict[int, BlockSize]:
        """Returns what each expandable block holds."""
        return {each: BlockSize(len(self.slot(each)), self.cost(each)) for each in self.expandable}

    @property
    def unit(self) -> str:
        """What grows together: a path, or where slots are watched an adapter."""
        return super().unit if self.regimes is None else "path"

    def grown_together(self) -> list[list[tuple[int, int]]]:
        """Returns the adapters of `grown` by path, or each alone where slots are watched."""
        if self.regimes is None:
            return super().grown_together()
        numbers = sorted({number for _, number in self.grown()})
        return [[each for each in self.grown() if each[1] == number] for number in numbers]

    def note_learning(self) -> None:
        """Says in `learning` which path is trained: a step that asked would wait for a GPU."""
        is_told = self.regimes is not None
        self.learning = self.active_adapter(self.expandable[0]) if is_told else None

    def forward(self, inputs: Tensor, query: Tensor | None = None) -> Output:
        """Returns the head's logits in train mode, the chosen classifier's in eval mode.

        Shape:
            inputs: images (B, 3, S, S), or what `prefix` made of them (B, N, D).
            query: (B, D), frozen features, where options ask for them; None computes them.
            Output: (B, C); in eval mode `router` says how each expandable block was routed, or the
            network as `PLACE`, and then `paths` the path of each image, (B,) int64.
        """
        if self.training:
            return Output(self.heads(self.features(inputs, chosen=self.learning)))
        if query is None and (self.beside or self.regimes is not None):
            query = self.backbone(inputs)
        paths = None if self.regimes is None or query is None else self.regimes.of_images(query)
        record: dict[int, SlotRecord] = {}
        features = self.features(inputs, record, paths)
        if self.regimes is not None:  # the network is one place, whose path all blocks take
            record = {PLACE: record[self.expandable[0]]}
        extras = {"router": record} if paths is None else {"router": record, "paths": paths}
        return Output(self.classified(features, query, paths), extras)

    def classified(self, features: Tensor, query: Tensor | None, paths: Tensor | None) -> Tensor:
        """Returns the logits of features (B, D) by the classifier that answers, (B, C)."""
        if self.classes is None:
            logits: Tensor = self.heads(features)
        elif isinstance(self.classes, PathClassifiers) and paths is not None:
            logits = self.classes(features, self.wide(features, query), paths)
        else:
            logits = self.classes(self.wide(features, query))
        return logits

    def wide(self, features: Tensor, query: Tensor | None) -> Tensor:
        """Returns what the classifier over all images sees: features (B, D), or beside frozen ones.

        Shape:
            Output: (B, D), or (B, 2 D) with frozen features first.
        """
        if not self.beside or query is None:
            return features
        return torch.cat((query.to(features.dtype), features), dim=1)

    def fixed_graph(self) -> nn.Module:
        """Returns itself: nothing in it branches on an image."""
        return self

    def learn_classes(self, features: Tensor, query: Tensor | None, targets: Tensor) -> None:
        """Adds images to the classifier in closed form, where one answers."""
        wide = self.wide(features, query)
        if isinstance(self.classes, PathClassifiers):
            self.classes.add(features, wide, targets)
        elif self.classes is not None:
            self.classes.add(wide, targets)

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room in the classifier in closed form for classes that have no column yet."""
        if self.classes is not None:
            self.classes.add_classes(classes)
