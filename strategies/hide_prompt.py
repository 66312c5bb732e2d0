"""HiDe-Prompt: which experience, which class in it, and a head for all, each learned by itself.

Every experience trains a prompt: keys and values in each of the first blocks. A classifier on the
plain features guesses the experience of an image, and its prompt makes those that are classified.

Reference: Liyuan Wang, Jingyi Xie, Xingxing Zhang, Mingyi Huang, Hang Su, Jun Zhu, "Hierarchical
Decomposition of Prompt-Based Continual Learning: Rethinking Obscured Sub-optimality", NeurIPS 2023,
arXiv:2310.07234.

With q an image's plain features, f_t those under the prompt p_t, 10 k-means centroids a class kept:

    guess        head of LN(MLP(q) + q), by cross-entropy over the current classes; both aligned on
                 statistics of q by class, from the second experience on
    before t     p_t <- p_(t-1)
    prompt       (1 - a) p_t + a * mean of p_0 ... p_(t-1) for every image of t; kept so in the end
    training     cross-entropy over the current classes
                 + lambda * cross-entropy(Z Z' / 0.8, identity), Z: centroids of earlier classes and
                 the features f_t of the batch; after experience 0 the head at a tenth of the rate
    head         aligned on statistics of f_t by class, from the second experience on
    answer       t <- experience of the guess; argmax of the head on f_t
    step         Adam, gradients clipped to a length of 1 together

Differs from the authors' code, unless `fidelity="official"`:
    `steps="seen"`       an epoch of alignment has a step for each class; theirs for each old one
    `first_head_lr=1`    a new head learns at the full rate; theirs at a tenth from the first on
    `prompt_pairing`     theirs gives images keys as values, and other images' prompts ("port")
    `schedule`, `lr`, `epochs`, `guess_lr`  what learns in the few steps of a small stream; theirs:
                         a tenth every 30 epochs, 0.0028, 50, 0.000047
Always: centroids are drawn by their shares of a class, theirs equally often.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.heads.class_to_task import ClassToTask
from cl_adapters.heads.orthogonality import orthogonality_loss
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.peft.prompts import Init, PrefixPool
from cl_adapters.schedule import cosine, tenths
from cl_adapters.strategies.core.guessing import GuessConfig, TaskGuess
from cl_adapters.strategies.core.optimizers import adam, set_cosine_rates
from cl_adapters.strategies.core.prompting import PairedConfig, PromptModel, PromptStrategy
from cl_adapters.strategies.core.strategy import Output, Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["HiDePrompt", "HiDePromptConfig", "HiDePromptModel"]


class HiDePromptConfig(PairedConfig, GuessConfig):
    """Options of HiDe-Prompt."""

    length: int = Field(default=5, ge=1, description="positions of a prompt in a block")
    blocks: int = Field(default=5, ge=1, description="blocks that have prompts, the first ones")
    momentum: float = Field(default=0.01, ge=0, le=1, description="a, share of earlier prompts")
    orthogonality: float = Field(default=0.1, ge=0, description="lambda; 0 leaves the term out")
    first_head_lr: float = Field(default=1.0, gt=0, description="the head's at first, of `lr`")
    head_lr: float = Field(default=0.1, gt=0, description="later on the head's, as a share of `lr`")
    schedule: Literal["cosine", "tenths"] = Field(
        default="cosine", description="of `lr`; tenths: a tenth of it after every 30 epochs"
    )
    init: Init = Field(default="port", description="prompts in [-1, 1], or in [0, 0.01): jax")

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100."""
        return cls(
            lr=0.03 * 24 / 256, epochs=50, schedule="tenths", guess_lr=0.0005 * 24 / 256,
            guess_epochs=20, steps="old", prompt_pairing="port", first_head_lr=0.1,
        )  # fmt: skip


class HiDePromptModel(PromptModel):
    """The backbone, the guess, a prompt an experience, the head, and statistics of classes."""

    def __init__(self, backbone: AdaptedViT, config: HiDePromptConfig, seed: int) -> None:
        super().__init__(backbone, config, "port")
        self.config: HiDePromptConfig = config
        width, source = backbone.embed_dim, torch.Generator().manual_seed(seed)
        blocks = range(min(config.blocks, backbone.num_blocks))
        self.prefix = PrefixPool(blocks, config.length, width, config.init)
        self.classes = config.build_statistics(width)
        self.class_to_task = ClassToTask()  # the last experience of each class
        self.unaligned = config.build_unaligned()
        self.guess = TaskGuess(width, config, source)
        self.task, self.is_guessing, self.is_open = 0, False, False
        if config.prompts == "one_prompt":
            self.prefix.add(source)

    def prompted(self, images: Tensor, query: Tensor | None) -> Output:
        """Returns logits (B, C): of the guess while that is trained, else of prompted features."""
        if self.training and self.is_guessing:
            return Output(self.guess(query))
        if query is None or self.training:  # the only prompt is prompt 0, mixed with none
            prompts = self.prefix.mixed(self.task, self.config.momentum)
        else:  # while an experience is trained, its prompt is not stored mixed yet
            latest = self.prefix.mixed(self.task, self.config.momentum) if self.is_open else None
            prompts = self.prefix.chosen(self.guess.experience_of(query), latest)
        features = self.under(images, prompts)
        return Output(self.heads(features), {"features": features})

    def under(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Returns features (B, D) of images under prompts, of each its own or one for all."""
        if self.config.by_batch and prompts.ndim == 4:  # mixed up between images
            prompts = prompts.expand(len(images), *prompts.shape)
        places = dict(self.prefix.places(prompts, self.config.prompt_pairing))
        return self.backbone.forward(images, AdapterSet(places))

    def own_features(self, images: Tensor) -> Tensor:
        """Returns the features (B, D) that the head reads of images of the latest experience."""
        own = self.prefix.entries[self.task : self.task + 1]
        return self.under(images, own[0]) if len(own) else self.backbone.forward(images)


class HiDePrompt(PromptStrategy):
    """Guesses the experience of an image, and classifies it under that one's prompt."""

    config_class = HiDePromptConfig
    config: HiDePromptConfig
    model: HiDePromptModel
    pieces = ("heads", "prompts", "statistics")
    model_class = HiDePromptModel

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Adds rows to both heads, and a prompt for the experience."""
        self.config.restore_head(self.model)
        super().add_classes(classes, generator)
        self.model.class_to_task.register(classes, len(self.classes_by_experience) - 1)
        if self.has_pool:
            self.model.guess.add_classes(classes, len(self.classes_by_experience) - 1, generator)
            self.model.prefix.add(generator)

    def phases(self) -> Iterator[Phase]:
        """Trains and aligns the guess, then trains the prompt with the head."""
        model = self.model
        if self.has_pool:
            model.task = len(self.classes_by_experience) - 1
            model.prefix.copy_from_last(model.task)
            model.is_guessing = model.is_open = True
            self.train_only(model.guess)
            yield Phase("guess", self.config.guess_epochs)
            model.guess.align(self.query_rows(), self.config, self.generator("guess"), self.events)
        model.is_guessing = False
        old = [each not in self.current_classes for each in model.classes.labels.tolist()]
        self.old_means = model.classes.means[old]
        self.train_only(model.heads, *model.prefix.entries[model.task :])
        yield Phase("train", self.config.epochs)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Returns Adam: for the guess at its rate, else slower for a head that knows classes."""
        if self.model.is_guessing:
            return adam(parameters, self.config.guess_lr)
        is_first, config = len(self.classes_by_experience) == 1, self.config
        share = config.first_head_lr if is_first else config.head_lr
        share = 1.0 if config.prompts == "none" else share
        return adam(parameters, config.lr, slower=self.model.heads, share=share)

    def begin_epoch(self, epoch: int) -> None:
        """Lowers the rate of the prompt and the head."""
        super().begin_epoch(epoch)
        if not self.model.is_guessing:
            curve = cosine if self.config.schedule == "cosine" else tenths
            set_cosine_rates(self.optimizer, epoch, self.config.epochs, curve)

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross-entropy over the current classes and the orthogonality term."""
        loss, output = super().batch_loss(logits, targets), self.output
        if self.config.orthogonality and output is not None and "features" in output.extras:
            apart = orthogonality_loss(output.extras["features"], self.old_means)
            loss = loss + self.config.orthogonality * apart
        return loss

    @torch.no_grad()
    def end_experience(self) -> None:
        """Keeps the prompt and statistics of the features under it, and aligns the head."""
        model = self.model.eval()
        if self.has_pool:
            mixed, model.is_open = model.prefix.mixed(model.task, self.config.momentum), False
            model.prefix.entries[model.task].copy_(mixed)
        found, source = self.features_under(model.own_features), self.generator("alignment")
        self.config.align_on(model, [found], source, self.events)
        super().end_experience()
