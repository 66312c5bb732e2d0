"""SEMA: self-expanding adapters.

Every block of the frozen ViT has an adapter beside its MLP, and there are detectors of the data
that adapters were trained on. A new experience is scanned first: where all detectors find its data
strange, adapters are added. By default the frozen features are watched, all blocks grow together,
and an image takes the path, one adapter a block, of its kind (`core/paths.py`). With `watch=slots`,
as published, each of the last blocks is watched and grows by itself, and a router mixes its
adapters. Any PEFT module that takes tokens can take the adapter's place (`peft`).

Reference: Huiyi Wang, Haodong Lu, Lina Yao, Dong Gong, "Self-Expansion of Pre-trained Models with
Mixture of Adapters for Continual Learning", CVPR 2025, arXiv:2403.18886.

With m the mean token that enters a slot (`cl_adapters.peft.routing`), or the frozen features:

    experience 0   train the first adapter of every block and the head; fit the detectors; freeze
    experience t   scan windows of training images, in slots block after block:
                     a window for which all detectors of a block fire adds an adapter there;
                     train it, its router column and the head; fit its detector; freeze it;
                     go on with the remaining windows, and scan again after a pass that grew,
                     until a whole pass grows nothing; at most one adapter a block
                   nothing grew: train the head alone
    detector       in slots a linear auto-encoder of m, r = mean squared error, z = (r - mu) / sigma
                   over the last training errors, score = mean of z over a window
    loss           cross-entropy over the classes of the current experience

Differs from the authors' code, unless `fidelity="official"`:
    `watch="network"`           adapters in all blocks (`expandable="all"`) that begin at the
                                nearest kind's (`start`), where a kind of images is new to
                                `detector="class_mmd"`: in the last three blocks, drawn anew and
                                mixed by routers, growth bought nothing (`docs/growth.md`).
    `beside`, `classifiers`     answers see frozen features too, and ask each path's classifier.
    `head_init_std=0.001`       a head that begins at chance; torch's begins above, and the first
                                large steps can ruin the adapters.
    `signed=True`               z keeps its sign: data that is reconstructed better than usual is
                                not strange (they take |z|).
    `threshold="auto"`          calibrated on held-out images of the adapter's own experience to
                                `false_alarm` a window, and at least `min_shift`: classes that are
                                new, but no stranger than that, share an adapter (theirs: 2, or 1,
                                on |z|, whose mean is 0.8 on data that did not change).
    `merge_last=True`           a last window of fewer images joins the one before, since the mean
                                of few z is noise (theirs decides alone).
    `router="discriminant"`     columns in closed form; a trained first one never gets a gradient.
    `head="discriminant"`       the classes' Gaussians on the directions of the adapted features, in
                                closed form; a head that saw only current classes in each loss
                                favours some (theirs: the linear head).
    `lr=0.02`                   adapters that learn enough in few steps (theirs: 0.005).
    `standardize=True`          the descriptor sees centred features of unit spread, so that its
                                training cannot diverge.
    `descriptor_dim=None`       a sixth of the width, as their 128 of 768.
    `views=1`                   augmented views of an image for the detectors (theirs: 0, new ones).
Always: statistics are part of the checkpoint (theirs are lost); the number of classes need not be
known (`num_classes` makes the head at once, as theirs, whose unused rows then decay); the errors of
an untrained descriptor never enter its statistics (theirs, if an experience has fewer images than
`500 / descriptor_epochs`); scanning computes no gradients.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.heads.by_path import PathClassifiers
from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.peft.growth_round import GrowthRound
from cl_adapters.peft.registry import find_peft
from cl_adapters.peft.routing import SlotRecord
from cl_adapters.strategies.core.config import BlockPeftConfig, SGDConfig
from cl_adapters.strategies.core.diagnostics import RouterUsage
from cl_adapters.strategies.core.expanding import ExpandingStrategy
from cl_adapters.strategies.core.optimizers import set_cosine_rates, sgd
from cl_adapters.strategies.core.paths import SLOTS, PathConfig, SEMAModel
from cl_adapters.strategies.core.router_options import RouterConfig
from cl_adapters.strategies.core.slot_starts import SlotStartConfig, SlotStarts
from cl_adapters.strategies.core.strategy import Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["SEMA", "SEMAConfig", "SEMAModel"]


class SEMAConfig(SGDConfig, BlockPeftConfig, PathConfig, RouterConfig, SlotStartConfig):
    """Options of SEMA."""

    num_classes: int | None = Field(default=None, ge=1, description="of the stream, if known")
    cache_megabytes: float = Field(
        default=1024,
        ge=0,
        description="for frozen tokens of an experience; only fixed views",
        json_schema_extra={"resource": True},
    )

    @field_validator("peft")
    @classmethod
    def _takes_tokens(cls, value: str) -> str:
        if not find_peft(value).takes_tokens:
            raise InputError(
                "`peft` must take tokens in one slot, since router and detectors read those that "
                f"enter it to choose among its adapters, got {value!r}"
            )
        return value

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(
            **SLOTS,
            router="learned",
            head="linear",
            lr=0.005,
            threshold=2.0,
            signed=False,
            descriptor_dim=128,
            standardize=False,
            views=0,
            merge_last=False,
        )


class SEMA(ExpandingStrategy):
    """Grows adapters where the data of an experience is strange to all that exist."""

    config_class = SEMAConfig
    config: SEMAConfig
    model: SEMAModel
    pieces = ("detectors", "heads", "sets", "statistics")
    diagnostics = (RouterUsage,)

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: SEMAConfig, seed: int) -> SEMAModel:
        """Returns the backbone with one adapter a block and no head yet."""
        return SEMAModel(backbone, config, seed)

    def phases(self) -> Iterator[Phase]:
        """Scans, grows and trains until a whole scan grows nothing."""
        self._open_experience()
        if len(self.classes_by_experience) == 1:
            yield self._functional(self.model.adapters.parameters())
            self.route(self.model.expandable)
            self._fit_detectors(self.model.expandable)
            return
        for blocks in self._requests():
            self._add_adapters(blocks)
            yield self._functional(self.model.learners(blocks, self.route))
            self._fit_detectors(blocks)
        reusing = [] if self._round.grown else self.model.learners((), self.route)
        if reusing or (not self._round.grown and self.model.classes is None):
            yield self._functional(reusing)

    def _open_experience(self) -> None:
        self.model.begin_experience(len(self.classes_by_experience), self.generator)
        self.freeze()
        config, sizes = self.config, self.model.sizes
        self._round = GrowthRound(self.model.expandable, config.policy, config.budget, sizes)
        self.open_tokens()
        regimes = self.find_regime()
        if regimes is not None and not regimes.is_new:
            self.model.active.fill_(regimes.active)

    def _requests(self) -> Iterator[list[int]]:
        """Yields the blocks that grow now; the scan goes on once they have been trained."""
        if self.regimes is not None:  # which have decided
            yield from [[*self.model.expandable]] if self.regimes.is_new else []
            return
        if self.config.policy == "every_experience":
            yield from filter(None, [self._round.affordable()])
        if not self.config.asks_detectors:
            return
        size, merge = self.config.detect_batch_size, self.config.merge_last
        for number in range(len(self.model.expandable) + 1):
            before = len(self._round.grown)
            self._round.begin_scan()
            moment = f"scan {number}"
            source = self.generator(moment)
            windows = self.tokens.windows(size, source, moment, merge_last=merge)
            for window, (tokens, labels) in enumerate(windows):
                blocks = self._examine(tokens, labels, window)
                if blocks:
                    yield blocks
            if len(self._round.grown) in {before, len(self.model.expandable)}:
                return

    @torch.no_grad()
    def _examine(self, tokens: Tensor, labels: Tensor, window: int) -> list[int]:
        """Asks the detectors about a window, block by block; returns the blocks that grow now."""
        fired: dict[int, bool] = {}
        start = self.model.expandable[0]
        with self.events.timed("scan", len(tokens)), self.features.autocast():
            for block in self.model.expandable:
                record: dict[int, SlotRecord] = {}
                tokens = self.model.forward_blocks(tokens, start, block + 1, record=record)
                start = block + 1
                if block in self._round.grown:
                    continue
                seen = record[block].mean_tokens.float()
                scan = self.model.detectors.judge(block, seen, labels)
                changed = scan.each[self.model.active_adapter(block)].fired
                self._round.vote(block, scan.best, scan.images, changed=changed)
                fired[block] = scan.fired
                grow = self._round.to_grow(fired)
                self.log_event("scan", **self._round.told(block, window, scan, grown=bool(grow)))
                if grow:
                    return grow
        return []

    def _add_adapters(self, blocks: Sequence[int]) -> None:
        asked = self.tokens, self.features, self.events.timed
        starts = SlotStarts(
            self.config.start, self.model, self.model.detectors, *asked, self.regimes
        )
        begun = [starts.of(block) for block in blocks]  # of the network before any of them grows
        for block, state in zip(blocks, begun, strict=True):
            self.grow_block(block)
            if state is not None:
                self.model.slot(block).adapters[-1].load_state_dict(state)
            self.model.active[self.model.expandable.index(block)] = len(self.model.slot(block)) - 1
            self._round.grown.append(block)

    def _functional(self, parameters: Iterable[nn.Parameter]) -> Phase:
        """Trains these parameters and the head; everything else is frozen."""
        self.freeze()
        for parameter in (*parameters, *self.model.heads.parameters()):
            parameter.requires_grad = True
        self.make_optimizer()
        return Phase("functional", self.config.epochs)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine that reaches 0 after the phase."""
        set_cosine_rates(self.optimizer, epoch, self.config.epochs)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the classes of the current experience."""
        return cross_entropy_over(self.current_classes, logits, targets)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9."""
        return sgd(parameters, self.config.lr, self.config.weight_decay)

    def _fit_detectors(self, blocks: Sequence[int]) -> None:
        """Fits the newest detector of each block on the mean tokens of the experience."""
        self.freeze()
        if self.regimes is not None:  # whose detector saw frozen features before
            return
        is_one = self.augmentation.fixed_views is True
        count = 1 if is_one else self.config.views or self.config.descriptor_epochs
        with self.events.timed("descriptor", count * len(self.tokens)):
            views = [self.tokens.mean_tokens(blocks, f"view {k}") for k in range(count)]
            for block in blocks:
                seen = torch.stack([each[block] for each in views])
                self.model.detectors.newest(block).fit_labelled(seen, self.tokens.cached.targets)
        if len(self.classes_by_experience) > 1:
            for block in blocks:
                size = self.model.sizes()[block]
                self.log_event("growth", block=block, adapters=size.adapters, parameters=size.cost)

    def end_experience(self) -> None:
        """Freezes everything; adds the experience to the routers and to the class statistics."""
        self.freeze()
        if self.regimes is None:
            self._recognise()
        elif isinstance(self.model.classes, PathClassifiers):
            self.model.classes.begin(self.regimes.active)
        if self.model.classes is not None:
            for tokens, query, targets in self.plain_tokens():
                with torch.no_grad(), self.features.autocast():
                    features = self.model.features(tokens, chosen=self.model.learning)
                self.model.learn_classes(features, query, targets.to(self.device))
        if isinstance(self.model.classes, RidgeHead | PathClassifiers):
            self.model.classes.solve(self.config.ridge)
        del self.tokens

    def _recognise(self) -> None:
        """Gives the experience to the adapters that recognise it, where a block did not grow."""
        known = self._round.remaining
        if len(self.classes_by_experience) > 1:
            for block in known:
                adapter = self._round.recognised(block)
                if adapter is not None:
                    self.model.active[self.model.expandable.index(block)] = adapter
            self.route(known)
        for block, changed in self._round.changed.items():
            adapter = self.model.active_adapter(block)
            self.log_event("active", block=block, adapter=adapter, changed=changed)
