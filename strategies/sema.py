"""SEMA: self-expanding adapters.

Every block of the frozen ViT has an adapter beside its MLP. The last blocks can have several, mixed
by a router, and each of theirs comes with a detector of the data that it was trained on. A new
experience is scanned first: where all detectors of a block find its data strange, the block grows.
Any PEFT module that takes tokens can take the adapter's place (`peft`).

Reference: Huiyi Wang, Haodong Lu, Lina Yao, Dong Gong, "Self-Expansion of Pre-trained Models with
Mixture of Adapters for Continual Learning", CVPR 2025, arXiv:2403.18886.

With m the mean token that enters a slot (`cl_adapters.peft.routing`):

    experience 0   train the first adapter of every block and the head; fit the detectors; freeze
    experience t   scan windows of training images, block after block:
                     a window for which all detectors of a block fire adds an adapter there;
                     train it, its router column and the head; fit its detector; freeze it;
                     go on with the remaining windows, and scan again after a pass that grew,
                     until a whole pass grows nothing; at most one adapter a block
                   nothing grew: train the head alone
    detector       a linear auto-encoder of m, r = mean squared error, z = (r - mu) / sigma over the
                   last training errors, score = mean of z over a window (`detector=` names others)
    loss           cross-entropy over the classes of the current experience

Differs from the authors' code, unless `fidelity="official"`:
    `signed=True`               z keeps its sign: data that is reconstructed better than usual is
                                not strange (they take |z|).
    `threshold="auto"`          calibrated on held-out images of the adapter's own experience to
                                `false_alarm` a window, and at least `min_shift`: classes that are
                                new, but no stranger than that, share an adapter (theirs: 2, or 1,
                                on |z|, whose mean is 0.8 on data that did not change).
    `merge_last=True`           a last window of fewer images joins the one before, since the mean
                                of few z is noise (theirs decides alone).
    `router="discriminant"`     columns in closed form; a trained first column never gets a gradient
                                (`cl_adapters.peft.routing`).
    `classifier="discriminant"` the classes' Gaussians on the directions of the adapted features, in
                                closed form; a head that saw only current classes in each loss
                                favours some (theirs: the linear head).
    `lr=0.02`                   adapters that learn enough in few steps (theirs: 0.005).
    `standardize=True`          the descriptor sees centred features of unit spread, so that its
                                training cannot diverge.
    `descriptor_dim=None`       a sixth of the width, as their 128 of 768.
    `views`                     how many augmented views of each image the detectors learn from;
                                0 draws a new one each epoch, as they do.
Always: statistics are part of the checkpoint (theirs are lost); the number of classes need not be
known (`num_classes` makes the head at once, as theirs, whose unused rows then decay); the errors of
an untrained descriptor never enter its statistics (theirs, if an experience has fewer images than
`500 / descriptor_epochs`); scanning computes no gradients.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, cast

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.heads.ridge import RidgeHead
from cl_adapters.peft.growth import Budget, Policy, blocks_to_grow
from cl_adapters.peft.registry import find_peft
from cl_adapters.peft.routing import ExpandableSlot, RouterKind, SlotRecord
from cl_adapters.schedule import cosine
from cl_adapters.shift import Detector, find_detector
from cl_adapters.strategies.core.checkpointing import ResumableIndexSampler
from cl_adapters.strategies.core.config import AnyHeadConfig, BlockPeftConfig, StrategyConfig
from cl_adapters.strategies.core.feature_cache import CachedFeatures, FeatureExtractor
from cl_adapters.strategies.core.loop import AdapterStrategy, Phase
from cl_adapters.strategies.core.usage import RouterUsage
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.expandable import ExpandableViT

__all__ = ["SEMA", "SEMAConfig", "SEMAModel"]


class SEMAConfig(StrategyConfig, BlockPeftConfig, AnyHeadConfig):
    """Options of SEMA."""

    batch_size: int = Field(default=32, ge=1, description="images in a training step")
    epochs: int = Field(default=5, ge=1, description="of each functional phase")
    lr: float = Field(default=0.02, gt=0, description="of SGD, cosine to 0 over the phase")
    weight_decay: float = Field(default=5e-4, ge=0, description="of SGD")
    expandable: int | tuple[int, ...] = Field(
        default=3, description="how many of the last blocks can grow, or which, counted from 0"
    )
    router: RouterKind = Field(default="discriminant", description="learned or discriminant")
    classifier: Literal["linear", "discriminant"] = Field(
        default="discriminant", description="what classifies the adapted features"
    )
    num_classes: int | None = Field(default=None, ge=1, description="of the stream, if known")
    detector: str = Field(default="descriptor", description="name of a shift detector")
    threshold: float | Literal["auto"] = Field(
        default="auto", description="of the descriptor's mean z; auto: calibrated"
    )
    min_shift: float = Field(
        default=1.5, ge=0, description="mean z below which a calibrated threshold never lies"
    )
    false_alarm: float = Field(
        default=0.01, gt=0, lt=1, description="share of windows of known data that may fire"
    )
    signed: bool = Field(default=True, description="keep the sign of the descriptor's z")
    standardize: bool = Field(default=True, description="what the descriptor sees")
    descriptor_dim: int | None = Field(default=None, ge=1, description="None: a sixth of the width")
    descriptor_epochs: int = Field(default=20, ge=1, description="of the descriptors' training")
    views: int = Field(
        default=1, ge=0, description="augmented views for the detectors; 0: new each epoch"
    )
    detect_batch_size: int = Field(default=128, ge=1, description="images in a scanned window")
    merge_last: bool = Field(default=True, description="a smaller last window joins another")
    policy: Policy = Field(default="per_block", description="where and when to grow")
    budget: Budget = Field(default=Budget(), description="what growth may cost")
    cache_megabytes: float = Field(
        default=1024,
        ge=0,
        description="for frozen tokens of an experience; only fixed views",
        json_schema_extra={"resource": True},
    )

    @field_validator("expandable", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) and "," in value else value

    @field_validator("peft")
    @classmethod
    def _takes_tokens(cls, value: str) -> str:
        if not find_peft(value).takes_tokens:
            raise InputError(
                "`peft` must take tokens, since router and detectors read those that enter the "
                f"slot to choose among its adapters, got {value!r}, which takes none"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.threshold != "auto" and self.threshold <= 0:
            raise ValueError(f"`threshold` must be 'auto' or above 0, got {self.threshold}")
        return self

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(
            router="learned",
            classifier="linear",
            lr=0.005,
            threshold=2.0,
            signed=False,
            descriptor_dim=128,
            standardize=False,
            views=0,
            merge_last=False,
        )

    @property
    def answers_with(self) -> str:
        """What classifies the adapted features."""
        return self.head or self.classifier

    def expandable_blocks(self, num_blocks: int) -> tuple[int, ...]:
        """Returns the blocks that can grow, sorted.

        Raises:
            InputError: If one of them does not exist, or there is none.
        """
        if isinstance(self.expandable, int):
            if not 1 <= self.expandable <= num_blocks:
                raise InputError(
                    f"`expandable` must be from 1 to the number of blocks, {num_blocks}, "
                    f"got {self.expandable}"
                )
            return tuple(range(num_blocks - self.expandable, num_blocks))
        blocks = tuple(sorted(set(self.expandable)))
        for block in blocks:
            if not 0 <= block < num_blocks:
                raise InputError(
                    f"`expandable` must name blocks from 0 to {num_blocks - 1}, got {block}"
                )
        if not blocks:
            raise InputError("`expandable` must name at least one block, got none")
        return blocks

    def make_detector(self, num_features: int, seed: int) -> Detector:
        """Returns a new detector of the chosen kind."""
        own: dict[str, Any] = {}
        if self.detector == "descriptor":
            own = {
                "dim": self.descriptor_dim,
                "epochs": self.descriptor_epochs,
                "signed": self.signed,
                "threshold": self.threshold,
                "least": self.min_shift,
                "standardize": self.standardize,
            }
        return find_detector(self.detector)(
            num_features, false_alarm=self.false_alarm, seed=seed, **own
        )


class SEMAModel(ExpandableViT):
    """The expandable backbone, a detector for each adapter of a slot, and the two classifiers."""

    def __init__(self, backbone: AdaptedViT, config: SEMAConfig, seed: int) -> None:
        peft, width = config.chosen
        super().__init__(
            backbone,
            expandable=config.expandable_blocks(backbone.num_blocks),
            width=width,
            peft=peft,
            router=config.router,
            generator=torch.Generator().manual_seed(seed),
        )
        self.detectors = nn.ModuleDict(
            {
                str(block): nn.ModuleList([config.make_detector(backbone.embed_dim, seed + block)])
                for block in self.expandable
            }
        ).requires_grad_(requires_grad=False)
        # What the routers read and decided in the last forward pass in eval mode.
        self.record: dict[int, SlotRecord] = {}
        # The adapter that the last experience belongs to, in each expandable block.
        self.register_buffer("active", torch.zeros(len(self.expandable), dtype=torch.int64))
        self.active: Tensor
        self.heads, self.classes = config.build_heads(config.answers_with, backbone.embed_dim)

    def detectors_of(self, block: int) -> nn.ModuleList:
        """Returns the detectors of an expandable block, one an adapter."""
        return cast("nn.ModuleList", self.detectors[str(block)])

    def cost(self, block: int) -> int:
        """Returns the parameters of one more adapter with its column and detector."""
        state = self.detectors_of(block)[0].state_dict()
        slot = self.slot(block)
        adapter = slot.adapters[-1].state_dict()
        held = [*adapter.values(), *slot.columns[-1:].parameters(), *state.values()]
        return sum(int(value.numel()) for value in held)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the head's logits in train mode, the chosen classifier's in eval mode.

        Shape:
            inputs: images (B, 3, S, S), or what `prefix` made of them (B, N, D). Output: (B, C).
        """
        classify = self.heads if self.training or self.classes is None else self.classes
        record = None if self.training else self.record
        return cast("Tensor", classify(self.features(inputs, record)))


class SEMA(AdapterStrategy):
    """Grows adapters where the data of an experience is strange to all that exist."""

    config_class = SEMAConfig
    config: SEMAConfig
    model: SEMAModel

    # --- the paper's algorithm -----------------------------------------------------------------

    def phases(self) -> Iterator[Phase]:
        """Scans, grows and trains until a whole scan grows nothing."""
        self._open_experience()
        if len(self.classes_by_experience) == 1:
            yield self._functional(self.model.adapters.parameters())
            self._route(self.blocks)
            self._fit_detectors(self.blocks)
            return
        for blocks in self._requests():
            self._add_adapters(blocks)
            self._route(blocks)
            yield self._functional(
                value for block in blocks for value in self._slot(block).newest_parameters()
            )
            self._fit_detectors(blocks)
        if not self._grown and self.model.classes is None:
            yield self._functional(())

    def _requests(self) -> Iterator[list[int]]:
        """Yields the blocks that grow now; the scan goes on once they have been trained."""
        if self.config.policy == "every_experience":
            yield from filter(None, [self._affordable()])
        if self.config.policy in {"every_experience", "never"}:
            return
        for number in range(len(self.blocks) + 1):
            before = len(self._grown)
            for votes in self._votes.values():
                votes.clear()
            for window, tokens in enumerate(self._windows(number)):
                blocks = self._examine(tokens, window)
                if blocks:
                    yield blocks
            if len(self._grown) in {before, len(self.blocks)}:
                return

    @torch.no_grad()
    def _examine(self, tokens: Tensor, window: int) -> list[int]:
        """Asks the detectors about a window, block by block; returns the blocks that grow now."""
        fired: dict[int, bool] = {}
        start = self.blocks[0]
        record: dict[int, SlotRecord] = {}
        with self.timed("scan", len(tokens)), self.autocast():
            for block in self.blocks:
                tokens = self.model.forward_blocks(tokens, start, block + 1, record=record)
                start = block + 1
                if block in self._grown:
                    continue
                scan = self._ask(block, window, record[block].mean_tokens.float())
                free = self._affordable()
                fired[block] = scan["fired"] and block in free
                grow = blocks_to_grow(self.config.policy, fired, free)
                self.log_event("scan", **scan, grown=bool(grow), reason=self._reason(scan))
                if grow:
                    return grow
        return []

    def _ask(self, block: int, window: int, mean_tokens: Tensor) -> dict[str, Any]:
        """Compares a window with what each adapter of a block was trained on."""
        verdicts = [detector.check(mean_tokens) for detector in self._detectors(block)]
        best = min(range(len(verdicts)), key=lambda k: verdicts[k].score - verdicts[k].threshold)
        self._votes[block][best] += len(mean_tokens)
        self._left[block] |= verdicts[self._active(block)].fired
        return {
            "block": block,
            "window": window,
            "images": len(mean_tokens),
            "scores": [verdict.score for verdict in verdicts],
            "thresholds": [verdict.threshold for verdict in verdicts],
            "adapter": best,
            "score": verdicts[best].score,
            "threshold": verdicts[best].threshold,
            "fired": all(verdict.fired for verdict in verdicts),
        }

    def _add_adapters(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            slot = self._slot(block)
            slot.add_adapter(self.generator(f"adapter {block}"))
            slot.to(self.device)
            self._add_detector(block)
            self.model.active[self.blocks.index(block)] = len(slot) - 1
            self._grown.append(block)

    def _functional(self, parameters: Iterable[nn.Parameter]) -> Phase:
        """Trains these parameters and the head; everything else is frozen."""
        self.model.requires_grad_(requires_grad=False)
        for parameter in (*parameters, *self.model.heads.parameters()):
            parameter.requires_grad = True
        self.make_optimizer()
        return Phase("functional", self.config.epochs)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the learning rate along a cosine that reaches 0 after the phase."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * cosine(epoch, self.config.epochs)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the classes of the current experience."""
        return cross_entropy_over(self.current_classes, logits, targets)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns SGD with momentum 0.9."""
        return torch.optim.SGD(
            parameters,
            lr=self.config.lr,
            momentum=0.9,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def _fit_detectors(self, blocks: Sequence[int]) -> None:
        """Fits the newest detector of each block on the mean tokens of the experience."""
        self.model.requires_grad_(requires_grad=False)
        count = (
            1 if self.fixed_views is True else self.config.views or self.config.descriptor_epochs
        )
        with self.timed("descriptor", count * len(self._tokens)):
            views = [self._mean_tokens(blocks, f"view {number}") for number in range(count)]
            for block in blocks:
                detector = self._detectors(block)[-1]
                detector.fit(torch.stack([view[block] for view in views]))
        if len(self.classes_by_experience) > 1:
            for block in blocks:
                count = len(self._slot(block))
                self.log_event(
                    "growth", block=block, adapters=count, parameters=self.model.cost(block)
                )

    def end_experience(self) -> None:
        """Freezes everything; adds the experience to the routers and to the class statistics."""
        self.model.requires_grad_(requires_grad=False)
        known = [block for block in self.blocks if block not in self._grown]
        if len(self.classes_by_experience) > 1:
            for block in known:
                if self._votes[block]:
                    ((adapter, _),) = self._votes[block].most_common(1)
                    self.model.active[self.blocks.index(block)] = adapter
            self._route(known)
        for block in self.blocks:
            self.log_event(
                "active", block=block, adapter=self._active(block), changed=self._left[block]
            )
        if self.model.classes is not None:
            for tokens, targets in self._plain_tokens().batches():
                with torch.no_grad(), self.autocast():
                    features = self.model.features(tokens)
                self.model.classes.add(features, targets.to(self.device))
        if isinstance(self.model.classes, RidgeHead):
            self.model.classes.solve(self.config.ridge)
        del self._tokens

    # --- what it is made of --------------------------------------------------------------------

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - those of AdapterStrategy
        super().__init__(**arguments)
        self.plugins.append(RouterUsage())

    def build_model(self, backbone: AdaptedViT) -> SEMAModel:
        """Returns the backbone with one adapter a block and no head yet."""
        model = SEMAModel(backbone, self.config, self.seed)
        self.blocks = model.expandable
        self.config.budget.check(model.cost(self.blocks[0]))
        return model

    def register_experience(self, experience: Any) -> None:  # noqa: ANN401 - Avalanche ships no types
        """Refuses an experience that is too small for the detectors, before anything changes."""
        needed = self._detectors(self.blocks[0])[0].min_samples
        if len(experience.dataset) < needed:
            raise InputError(
                f"an experience must hold at least {needed} training images for detector "
                f"{self.config.detector!r}, got {len(experience.dataset)}"
            )
        super().register_experience(experience)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to the head for classes that have none."""
        known = self.config.num_classes
        self.model.heads.add_classes(range(known) if known else classes, generator)
        if self.model.classes is not None:
            self.model.classes.add_classes(classes)

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Adds the adapters that a checkpoint holds."""
        for block in self.blocks:
            name = f"adapters._by_name.{self.model.peft.slot}_{block}.adapters."
            held = {key.split(".")[4] for key in state if key.startswith(name)}
            while len(self._slot(block)) < len(held):
                self._slot(block).add_adapter(self.generator(f"adapter {block}"))
                self._add_detector(block)

    def _open_experience(self) -> None:
        self._grown: list[int] = []
        self._votes = {block: Counter[int]() for block in self.blocks}
        self._left = dict.fromkeys(self.blocks, False)
        first = len(self.classes_by_experience) == 1
        self._tokens = CachedFeatures(
            self.adapted_dataset,
            self.feature_extractor(self.model.prefix) if first else self.frozen_features(),
            same=self.fixed_views,
            megabytes=self.config.cache_megabytes,
            cache=self.cache,
        )
        if not first:
            # From here on the blocks before the first expandable one are frozen.
            count, generator = len(self._tokens), self.generator("order")
            self.order = ResumableIndexSampler(count, self.train_mb_size, generator)
            with self.timed("frozen", count):
                self._tokens.prepare()
            self.replace_loader(self._tokens.minibatches(self.order, images=True))

    def frozen_features(self) -> FeatureExtractor:
        """Returns the blocks before the first expandable one, frozen after the first experience."""
        slot = self.model.peft.slot
        adapters = (self.model.adapters.at(slot, block) for block in range(self.blocks[0]))
        return self.feature_extractor(self.model.prefix, self.backbone, *filter(None, adapters))

    def _plain_tokens(self) -> CachedFeatures:
        """Returns the experience without augmentation."""
        if self.fixed_views is True:
            return self._tokens
        return self.cached_features(self.experience.dataset.eval(), self.frozen_features())

    def _windows(self, number: int) -> Iterator[Tensor]:
        parts = self._tokens.shuffled(
            self.config.detect_batch_size,
            self.generator(f"scan {number}"),
            merge_last=self.config.merge_last,
        )
        for part in parts:
            self.set_augmentation_seed(
                f"scan {number}"
            )  # a window that grew has been trained on since
            yield self._tokens.rows(part)

    @torch.no_grad()
    def _mean_tokens(self, blocks: Sequence[int], moment: str) -> dict[int, Tensor]:
        """Returns what each block's router and detectors see of the experience, (N, D) each."""
        self.set_augmentation_seed(moment)
        means: dict[int, list[Tensor]] = {block: [] for block in blocks}
        for tokens, _ in self._tokens.batches():
            record: dict[int, SlotRecord] = {}
            with self.autocast():
                self.model.forward_blocks(tokens, self.blocks[0], max(blocks) + 1, record=record)
            for block in blocks:
                means[block].append(record[block].mean_tokens.float())
        return {block: torch.cat(rows) for block, rows in means.items()}

    def _route(self, blocks: Sequence[int]) -> None:
        """Adds the experience to the discriminant of its adapter in each block."""
        if self.config.router != "discriminant" or not blocks:
            return
        for block, mean_tokens in self._mean_tokens(blocks, "route").items():
            self._slot(block).update_router(mean_tokens, self._active(block))

    def _slot(self, block: int) -> ExpandableSlot:
        return self.model.slot(block)

    def _detectors(self, block: int) -> list[Detector]:
        return cast("list[Detector]", list(self.model.detectors_of(block)))

    def _active(self, block: int) -> int:
        return int(self.model.active[self.blocks.index(block)].item())

    def _add_detector(self, block: int) -> None:
        """Gives a new adapter its detector."""
        held = self.model.detectors_of(block)
        seed = self.seed * 1_000_003 + block * 1009 + len(held)
        detector = self.config.make_detector(self.backbone.embed_dim, seed)
        held.append(detector.requires_grad_(requires_grad=False).to(self.device))

    def _refusal(self, block: int, planned: int = 0) -> str | None:
        """Says why a block may not grow; `planned` parameters are spoken for."""
        cost = {each: self.model.cost(each) for each in self.blocks}
        spent = sum((len(self._slot(each)) - 1) * cost[each] for each in self.blocks)
        return self.config.budget.refusal(len(self._slot(block)), spent + planned, cost[block])

    def _affordable(self) -> list[int]:
        """Returns the blocks that may still grow in this experience."""
        together = self.config.policy != "per_block"
        affordable: list[int] = []
        for block in self.blocks:
            planned = sum(map(self.model.cost, affordable)) if together else 0
            if block not in self._grown and self._refusal(block, planned) is None:
                affordable.append(block)
        return affordable

    def _reason(self, scan: Mapping[str, Any]) -> str:
        if not scan["fired"]:
            return f"adapter {scan['adapter']} recognises the data"
        return self._refusal(scan["block"]) or f"all {len(scan['scores'])} detectors fired"
