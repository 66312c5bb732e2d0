"""Strategies that each break one rule, and the sentence that has to name it."""

import os
import random
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from cl_adapters.errors import InputError
from cl_adapters.strategies.finetune import Finetune
from cl_adapters.strategies.simplecil import SimpleCIL, SimpleCILConfig


class KeepsTestData(SimpleCIL):
    """Adds the test images that it was asked about to its class means, an experience later."""

    def forward(self) -> Tensor:
        logits = super().forward()
        if not self.is_training:
            self.asked = self.mb_x, self.mb_y
        return logits

    def end_experience(self) -> None:
        images, labels = getattr(self, "asked", (torch.zeros(0, 3, 16, 16), torch.zeros(0).long()))
        known = labels < len(self.model.head.counts)
        if bool(known.any()):
            self.model.head.add(self.backbone(images[known]), labels[known])


class ReadsTheNextExperience(SimpleCIL):
    """Learns what it will be taught."""

    def end_experience(self) -> None:
        for later in self.experience.origin_stream:
            later.dataset[0]


class ReadsLaterLabels(SimpleCIL):
    """Makes room for classes that it cannot know of."""

    def end_experience(self) -> None:
        for later in self.experience.origin_stream:
            self.model.head.add_classes(list(later.dataset.targets))


class Unfreezes(Finetune):
    """Trains the network itself."""

    def begin_experience(self) -> None:
        self.backbone.requires_grad_(requires_grad=True)


class MovesTheBackbone(SimpleCIL):
    """Shifts one number by almost nothing."""

    @torch.no_grad()
    def end_experience(self) -> None:
        self.backbone.vit.pos_embed[0, 0, 0] += 1e-6


class Hooks(SimpleCIL):
    """Leaves a hook."""

    def begin_experience(self) -> None:
        self.backbone.vit.blocks[0].register_forward_hook(lambda *_: None)


class TrainsOnTheSide(Finetune):
    """Trains a number that no checkpoint holds."""

    def begin_experience(self) -> None:
        self.bias = nn.Parameter(torch.zeros(()))

    def build_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return super().build_optimizer([*parameters, self.bias])

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().batch_loss(logits, targets) + self.bias**2


class DeclaresTooLittle(Finetune):
    """Leaves a trained tensor out of its checkpoint."""

    def learned_state(self) -> dict[str, Tensor]:
        state = super().learned_state()
        return {name: value for name, value in state.items() if "attention_0" not in name}


class LearnsFromEvaluation(SimpleCIL):
    """Adds test images to the class means."""

    def forward(self) -> Tensor:
        logits = super().forward()
        if not self.is_training:
            self.model.head.sums += 1
        return logits


class CountsEvaluations(SimpleCIL):
    """Answers otherwise each time, from a number that is in no state."""

    asked = 0

    def forward(self) -> Tensor:
        self.asked += not self.is_training
        return super().forward() * (1 + self.asked)


class AnswersByTheLabel(SimpleCIL):
    """Peeks at the label of the image that it is asked about."""

    def forward(self) -> Tensor:
        logits = super().forward()
        if not self.is_training:
            known = self.mb_y < logits.shape[1]
            logits[torch.arange(len(logits))[known], self.mb_y[known]] += 100
        return logits


class PredictsTheUnseen(SimpleCIL):
    """Prefers a class that is not there yet."""

    def forward(self) -> Tensor:
        logits = super().forward()
        return nn.functional.pad(logits, (0, 1), value=50.0)


class DrawsGlobally(Finetune):
    """Draws its weights from torch's global state."""

    def begin_experience(self) -> None:
        with torch.no_grad():
            for value in self.model.heads.parameters():
                value.normal_(std=0.01)


class SeedsGlobally(SimpleCIL):
    """Makes everything else repeat as well."""

    def begin_experience(self) -> None:
        torch.manual_seed(0)


class SeedsNumpy(SimpleCIL):
    """As above, for NumPy."""

    def begin_experience(self) -> None:
        np.random.seed(0)  # noqa: NPY002


class DrawsFromPython(SimpleCIL):
    """Draws from Python's global state."""

    def begin_experience(self) -> None:
        random.random()


class SetsThreads(SimpleCIL):
    """Decides about the machine."""

    def begin_experience(self) -> None:
        torch.set_num_threads(torch.get_num_threads() + 1)


class SetsTheEnvironment(SimpleCIL):
    """Leaves a variable."""

    def begin_experience(self) -> None:
        os.environ["CL_ADAPTERS_TEST"] = "1"


class ForgetsOnResume(SimpleCIL):
    """Keeps something that matters in an attribute."""

    trained = 0

    def end_experience(self) -> None:
        self.trained += 1
        self.model.head.sums *= self.trained


class CountsSteps(Finetune):
    """Weighs later steps more, and keeps the count where no checkpoint looks."""

    def begin_experience(self) -> None:
        self.steps = 0

    def batch_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.steps += 1
        return super().batch_loss(logits, targets) * self.steps


class BeginsAgain(ForgetsOnResume):
    """Says that it does."""

    resumes = False


class NeedsTwoClasses(SimpleCIL):
    """Divides by the number of classes less one."""

    def end_experience(self) -> None:
        self.model.head.sums /= len(self.current_classes) - 1


class CrashesOnReturn(SimpleCIL):
    """Expects classes never to return."""

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:
        if set(classes) & {c for past in self.classes_by_experience[:-1] for c in past}:
            raise KeyError("seen before")
        super().add_classes(classes, generator)


class RefusesTooLate(SimpleCIL):
    """Refuses one image after it has learned it."""

    def end_experience(self) -> None:
        if len(self.experience.dataset) == 1:
            raise InputError("an experience must have two images, got 1")


class CrashesOnOneImage(SimpleCIL):
    """Takes a spread."""

    def end_experience(self) -> None:
        if len(self.experience.dataset) == 1:
            raise ZeroDivisionError("no spread")


KEPT: list[object] = []


class Leaks(SimpleCIL):
    """Keeps its models for good."""

    def end_experience(self) -> None:
        KEPT.append(self.model)


class LeaksData(SimpleCIL):
    """Keeps the images for good."""

    def end_experience(self) -> None:
        KEPT.append(self.experience.dataset)


class GrowsInSecret(SimpleCIL):
    """Keeps a module for each experience where no checkpoint looks."""

    def end_experience(self) -> None:
        self.extra = [*getattr(self, "extra", []), torch.zeros(100, 100)]


class ClaimsGrowth(SimpleCIL):
    """Says that it grew."""

    def end_experience(self) -> None:
        self.log_event("growth", block=0, adapters=1, parameters=1000)


class PlaysGrowthDown(SimpleCIL):
    """Grows a thousand numbers and says ten."""

    def end_experience(self) -> None:
        count = len(self.classes_by_experience)
        self.model.register_buffer(f"grown_{count}", torch.zeros(1000))
        self.log_event("growth", block=0, adapters=1, parameters=10)


class CountsLabelsFromZero(SimpleCIL):
    """Takes labels for places."""

    def end_experience(self) -> None:
        self.model.head.sums[: len(self.classes_seen)] *= -1


class LearnsInHalf(SimpleCIL):
    """Stores what it learns as autocast computed it."""

    def end_experience(self) -> None:
        if self.precision == "bf16":
            self.model.register_buffer("short", torch.zeros(3, dtype=torch.bfloat16))


class SilentConfig(SimpleCILConfig):
    """Options of Silent."""

    mystery: int = 3


class NeedyConfig(SimpleCILConfig):
    """Options of Needy."""

    needed: int = Field(description="without a default")


class Silent(SimpleCIL):
    config_class = SilentConfig


class Needy(SimpleCIL):
    """Cannot run without being told."""

    config_class = NeedyConfig


class NotesTensors(SimpleCIL):
    """Notes what JSON cannot hold."""

    def end_experience(self) -> None:
        self.log_event("sums", value=self.model.head.sums)


class Explodes(SimpleCIL):
    """Answers NaN."""

    def forward(self) -> Tensor:
        return super().forward() * torch.nan


class LooksAtTheBatch(SimpleCIL):
    """Knows an image by what else is in its batch."""

    def forward(self) -> Tensor:
        logits = super().forward()
        return logits if self.is_training else logits - logits.mean(dim=0)


class PassesInSecret(SimpleCIL):
    """Looks twice and says once."""

    def forward(self) -> Tensor:
        if not self.is_training:
            self.backbone.run(self.backbone.tokens(self.mb_x))
        return super().forward()


OFFENDERS: list[tuple[type[SimpleCIL] | type[Finetune], str, str]] = [
    (KeepsTestData, "data_to_come", "what experience 1 teaches must not depend on test data"),
    (ReadsTheNextExperience, "data_to_come", "must not read training data of experience 1, but"),
    (ReadsLaterLabels, "data_to_come", "what experience 0 teaches must not depend on test data"),
    (Unfreezes, "backbone", "the backbone must stay bit-identical, got another"),
    (Unfreezes, "backbone", "must get no gradients"),
    (MovesTheBackbone, "backbone", "bit-identical, got another 'vit.pos_embed'"),
    (Hooks, "backbone", "must be left without hooks"),
    (TrainsOnTheSide, "declares", "must train only parameters in `learned_state`"),
    (DeclaresTooLittle, "declares", "must be in `learned_state` or stay as it is"),
    (LearnsFromEvaluation, "test_labels", "must change nothing that was learned, but 'head.sums'"),
    (CountsEvaluations, "test_labels", "must not depend on .* earlier evaluations"),
    (AnswersByTheLabel, "test_labels", "must not depend on the labels of test data"),
    (PredictsTheUnseen, "seen_classes", r"must be among the classes seen, \[0, 3\], got 4"),
    (DrawsGlobally, "seeds", "two runs with one seed must learn the same, but '"),
    (DrawsGlobally, "global_state", "torch's global random state must stay"),
    (SeedsGlobally, "global_state", "torch's global random state must stay"),
    (SeedsNumpy, "global_state", "NumPy's global random state must stay"),
    (DrawsFromPython, "global_state", "Python's global random state must stay"),
    (SetsThreads, "global_state", "torch's number of threads must stay"),
    (SetsTheEnvironment, "global_state", "the environment must stay"),
    (ForgetsOnResume, "resumes", "experience 1, trained from a checkpoint, must teach what"),
    (CountsSteps, "resumes_inside", "stopped after step 2 and taken up again, must teach what"),
    (
        NeedsTwoClasses,
        "small",
        "got NotFiniteError: outputs must be finite, got nan in experience 0",
    ),
    (CrashesOnReturn, "small", "must run through, got KeyError: 'seen before'"),
    (RefusesTooLate, "small", "must be refused before anything changes"),
    (CrashesOnOneImage, "small", "must run through, got ZeroDivisionError: no spread"),
    (Leaks, "released", "nothing must be held once the strategy is dropped, but the model is"),
    (LeaksData, "released", "but a dataset is"),
    (GrowsInSecret, "growth", "but an experience added 40000 bytes elsewhere"),
    (ClaimsGrowth, "growth", "growth must be noted as it is, 0 numbers, got 1000"),
    (PlaysGrowthDown, "growth", "growth must be noted as it is, 1000 numbers, got 10"),
    (CountsLabelsFromZero, "relabelled", "the same images must get the same classes, got"),
    (LearnsInHalf, "bf16", "must not be in 16 bits, got 'short' in torch.bfloat16"),
    (
        NotesTensors,
        "answers",
        "must run through, got InputError: value of a sums event must be plain JSON",
    ),
    (Explodes, "answers", "logits must be finite, got NaN"),
    (LooksAtTheBatch, "batches", "must get the same logits alone as in a batch, got a gap of"),
    (PassesInSecret, "passes", r"passes of an evaluation must be .*, 56 images, got 28"),
]
