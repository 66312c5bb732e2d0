"""CoFiMA: SLCA, and after each experience an average of the network before and after.

As in SLCA all weights learn slowly and the heads are aligned. In between, the network that was
trained is averaged with that of the experience before, entry by entry, each weighted by its Fisher
information: what mattered to old classes stays, what mattered to none of them moves.

Reference: Imad Eddine Marouf, Subhankar Roy, Enzo Tartaglione, Stéphane Lathuilière, "Weighted
Ensemble Models Are Strong Continual Learners", ECCV 2024, arXiv:2312.08977.

With theta_old the network after experience t - 1, its heads aligned, theta_new the one that
experience t has trained, a = `share`:

    training       as SLCA (`strategies/slca.py`)
    information    F = mean over batches of the squared gradient of the batch's cross-entropy over
                   all classes, one shuffled and augmented pass, at most 1e-4
    averaging      from experience 1 on theta <- ((1 - a) F_old theta_old + a F_new theta_new)
                   / ((1 - a) F_old + a F_new), where both F are 0 the plain average; the new head
                   has no old one and stays
    then           statistics, alignment, answer as SLCA; the heads that are put back before the
                   next experience are those before averaging

F_old is what experience t - 1 found for its trained network, before it was averaged. Squares of a
batch's gradient are not the Fisher information, and depend on `batch_size`; so they do there.

Differs from the authors' code, unless `fidelity="official"`:
    `new_head="kept"`        theirs leaves the division out for the new head ("scaled"), which so
                             becomes F_new theta_new, nearly zero, before it is aligned
    `old_heads="computed"`   theirs takes no gradient of frozen heads: what counts as theirs are
                             left-overs of the last step that had one ("stale"), the alignment's
    and where SLCA does (theirs in PILOT: `batch_size=64`, 3 rounds of alignment; in their own
    repository 128 and 5)
Without an option: theirs divides 0 by 0 where both F are 0.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.buffers import KeptTensors
from cl_adapters.heads.linear import cross_entropy_over
from cl_adapters.peft.merging import fisher_average
from cl_adapters.strategies.slca import SLCA, SLCAConfig, SLCAModel
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["CoFiMA", "CoFiMAConfig", "CoFiMAModel"]

Tensors = dict[str, Tensor]


class CoFiMAConfig(SLCAConfig):
    """Options of CoFiMA."""

    share: float = Field(default=0.4, ge=0, le=1, description="a, of the network just trained")
    fisher_limit: float = Field(default=1e-4, gt=0, description="most that an F can be")
    new_head: Literal["kept", "scaled"] = Field(
        default="kept", description="the new head when networks are averaged; scaled: times its F"
    )
    old_heads: Literal["computed", "stale"] = Field(
        default="computed", description="F of heads that are frozen; stale: of left-over gradients"
    )

    @classmethod
    def official(cls) -> Self:
        """Returns the authors' settings for CIFAR-100, as in PILOT."""
        changes = {"batch_size": 64, "alignment_epochs": 3}
        return super().official().override({**changes, "new_head": "scaled", "old_heads": "stale"})


class CoFiMAModel(SLCAModel):
    """SLCA's, and what each of its weights meant to the last experience."""

    def __init__(self, backbone: AdaptedViT, config: CoFiMAConfig, seed: int) -> None:
        super().__init__(backbone, config, seed)
        self.fisher = KeptTensors([*self.network.values, "head_weight", "head_bias"])
        is_stale = config.old_heads == "stale"
        self.left_over = KeptTensors(["head_weight", "head_bias"]) if is_stale else None

    def tensors(self, of: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> Tensors:
        """Returns all that is trained by name; the heads as two tensors, in their order.

        Args:
            of: What is asked of each parameter in place of its value.
        """
        layers = cast("list[nn.Linear]", list(self.heads.layers))
        return {
            **{name: of(value) for name, value in self.network.values.items()},
            "head_weight": torch.cat([of(layer.weight) for layer in layers]),
            "head_bias": torch.cat([of(layer.bias) for layer in layers]),
        }

    @torch.no_grad()
    def take(self, tensors: Tensors) -> None:
        """Takes over what `tensors` would return."""
        for name, value in self.network.values.items():
            value.copy_(tensors[name])
        rows = self.heads.joined(self.heads.classes)
        rows.weight.copy_(tensors["head_weight"])
        rows.bias.copy_(tensors["head_bias"])
        self.heads.assign(self.heads.classes, rows)


class CoFiMA(SLCA):
    """Averages the network with the one before, weighted by what mattered to each."""

    config_class = CoFiMAConfig
    config: CoFiMAConfig
    model: CoFiMAModel

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        """Remembers the network of the experience before, its heads still aligned."""
        model = self.model
        is_first = not model.heads.classes
        self.old = {} if is_first else {k: v.clone() for k, v in model.tensors().items()}
        super().add_classes(classes, generator)

    def rebuild(self, state: Mapping[str, Tensor]) -> None:
        """Grows what a checkpoint holds, and forgets the network before, which it does not hold."""
        super().rebuild(state)
        self.old = {}

    def end_experience(self) -> None:
        """Averages the networks, then keeps statistics and aligns all heads as SLCA does."""
        model, fisher = self.model, self._information()
        if self.old:
            if model.unaligned is not None:
                model.unaligned.keep(model.heads)
            model.take(self._averaged(fisher))
        model.fisher.keep(fisher)
        self.old = {}  # of no use from here on
        super().end_experience()

    def align_heads(self) -> nn.Linear | None:
        """Aligns all heads; keeps the gradients of the last step where options ask for them."""
        model, head = self.model, super().align_heads()
        if head is not None and model.left_over is not None:
            rows, last = copy.deepcopy(model.heads), copy.deepcopy(head)
            last.load_state_dict({name: value.grad for name, value in head.named_parameters()})
            rows.assign(torch.unique(model.classes.labels).tolist(), last)
            whole = rows.joined(rows.classes)
            model.left_over.keep({"head_weight": whole.weight, "head_bias": whole.bias})
        return head

    def _information(self) -> Tensors:
        """Returns F of all that was trained, and of frozen heads as options say."""
        model, limit = self.model, self.config.fisher_limit
        frozen = model.tensors(lambda value: ~torch.full_like(value, value.requires_grad).bool())
        model.requires_grad_(requires_grad=True)
        model.backbone.requires_grad_(requires_grad=False)
        sums = {name: torch.zeros_like(value) for name, value in model.tensors().items()}
        self.set_augmentation_seed("fisher")
        dataset, draws, batches = self.experience.dataset, self.generator("fisher"), 0
        with self.events.timed("fisher", len(dataset)):
            for images, targets in self.features.shuffled_images(
                dataset, draws, self.config.batch_size
            ):
                model.zero_grad()
                with self.features.autocast():
                    logits = model(images)
                torch.autograd.backward(cross_entropy_over(self.classes_seen, logits, targets))
                last = model.tensors(_gradient)
                sums = {name: value + last[name] ** 2 for name, value in sums.items()}
                batches += 1
        model.zero_grad()
        model.requires_grad_(requires_grad=False)
        fisher = {name: (value / batches).clamp_max(limit) for name, value in sums.items()}
        if model.left_over is not None:
            for name, value in model.left_over.named_buffers():
                # None before experience 0 has left any: there no head is frozen.
                held = torch.cat([value, last[name][len(value) :]])
                held = torch.where(frozen[name], held, last[name])
                fisher[name] = torch.where(frozen[name], held**2, fisher[name]).clamp_max(limit)
                setattr(model.left_over, name, held)
        return fisher

    def _averaged(self, fisher: Tensors) -> Tensors:
        """Returns the average of the network before and the present one."""
        model, found = self.model, {}
        for name, new in model.tensors().items():
            old, known = self.old[name], model.fisher[name]
            count, own = len(old), fisher[name]  # rows of heads that are new stand behind
            mixed = fisher_average(old, new[:count], known, own[:count], self.config.share)
            rest = new[count:] * (own[count:] if self.config.new_head == "scaled" else 1)
            found[name] = torch.cat([mixed, rest])
        return found

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: CoFiMAConfig, seed: int) -> CoFiMAModel:  # type: ignore[override] # a method of its own options
        """Returns the backbone and a copy of its weights that has learned nothing yet."""
        return CoFiMAModel(backbone, config, seed)


def _gradient(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad.detach()
