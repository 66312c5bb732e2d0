"""Pretrains the embedded backbone: `python -m cl_adapters.benchmarks.maintenance.pretrain --help`.

A small ViT learns photographs of Tiny-ImageNet from a teacher's features and from labels, and
random glyphs and emblems from their classes (see `pretraining/`). Matrices of the blocks are
updated by Muon, everything else by AdamW; the learning rate rises, stays, and falls linearly to 0
over the last `--decay` steps. Half of the patch tokens are dropped until the fall begins.

Each step draws its randomness from seed and step alone, so an interrupted run that is started
again continues as if it had not stopped; with other data or settings it is refused. Since the rate
stays flat before the fall, a run stopped in that part and started again with fewer `--steps` equals
a run with these `--steps` throughout.
"""

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.maintenance.pretraining.probe import (
    extract_features,
    nearest_class_mean,
)
from cl_adapters.benchmarks.maintenance.pretraining.settings import PretrainConfig
from cl_adapters.benchmarks.maintenance.pretraining.student import (
    ARCHITECTURE,
    Drawings,
    Student,
    make_batch,
)
from cl_adapters.benchmarks.maintenance.pretraining.teacher import (
    TEACHER,
    read_pixels,
    teacher_features,
)
from cl_adapters.errors import InputError

__all__ = ["PretrainConfig", "pretrain"]

NAME: Final = "vit_pico_patch4_32"
LOSS_WEIGHTS: Final = {
    "features": 2.0,
    "teacher": 1.0,
    "labels": 0.5,
    "glyphs": 0.5,
    "emblems": 0.5,
}
_FREE: Final = ("steps", "decay", "every", "threads")  # may change where a run continues
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Photographs:
    """Training images, their teacher features and labels, and the held-out images."""

    pixels: Tensor
    teacher: Tensor
    labels: Tensor
    held_pixels: Tensor
    held_labels: Tensor


class Trainer:
    """The state of a pretraining: student, averaged weights, optimisers and learning curve."""

    def __init__(self, config: PretrainConfig, photos: Photographs) -> None:
        torch.manual_seed(config.seed)  # this command owns its process; timm draws from it
        self.config, self.photos = config, photos
        self.inputs = {name: _digest(getattr(config, name)) for name in ("data", "teacher")}
        num_labels = int(photos.labels.max()) + 1
        weights = load_file(config.teacher)
        self.student = Student(weights, num_labels, config.num_glyphs, config.num_emblems)
        self.average = {k: v.clone() for k, v in self.student.network.state_dict().items()}
        self.drawings = Drawings.make(config.num_glyphs, config.num_emblems, seed=config.seed + 1)
        self.optimisers = _optimisers(self.student, config)
        self.step = 0
        self.curve: list[dict[str, float]] = []

    def train_step(self) -> dict[str, float]:
        """Takes one optimiser step and returns the parts of the loss."""
        config, step = self.config, self.step
        source = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = torch.randint(len(self.photos.pixels), (config.photos,), generator=source)
        batch = make_batch(self.photos.pixels, rows, self.drawings, config.drawn, source)
        torch.manual_seed(config.seed * 1_000_003 + step)  # which tokens timm drops
        self.student.train()
        is_falling = step >= config.steps - config.decay
        self.student.drop_tokens(0.0 if is_falling else 0.5)
        parts = self.student.losses(batch, self.photos.teacher, self.photos.labels)
        loss = torch.stack([LOSS_WEIGHTS[name] * part for name, part in parts.items()]).sum()
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _rate(step, config)
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        self._update_average()
        return {name: float(part.detach()) for name, part in parts.items()}

    def _update_average(self) -> None:
        keep = min(self.config.ema, self.step / (self.step + 10))
        for name, value in self.student.network.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)

    def averaged_network(self) -> VisionTransformer:
        """Returns the network with the averaged weights."""
        network = VisionTransformer(**ARCHITECTURE)
        network.load_state_dict(self.average)
        return network.eval()

    def evaluate(self) -> float:
        """Returns nearest-class-mean accuracy in per cent on held-out photographs."""
        network, photos = self.averaged_network(), self.photos
        # Ten images a class for the means, ten to test.
        known, held = photos.pixels[::10], photos.held_pixels[::5]
        with torch.autocast("cpu", torch.bfloat16):
            features = extract_features(network, _small_batches(torch.cat([known, held])))
        parts = torch.split(features, [len(known), len(held)])
        return nearest_class_mean(parts[0], photos.labels[::10], parts[1], photos.held_labels[::5])

    def save(self) -> None:
        """Writes the checkpoint and the weights; a run stopped at any time leaves whole files."""
        out = self.config.out
        out.mkdir(parents=True, exist_ok=True)
        tensors = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for place, optimiser in enumerate(self.optimisers):
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{place}.{index}.{k}": v for k, v in state.items()}
        facts = {"step": self.step, "curve": self.curve, "fixed": self._fixed()}
        self._export()  # first: the checkpoint says that this step is done
        _save_whole(tensors, out / "checkpoint.safetensors", {"facts": json.dumps(facts)})

    def _fixed(self) -> dict[str, object]:
        """Returns what must not change between a checkpoint and the steps after it."""
        settings = self.config.numbers()
        return {**{k: v for k, v in settings.items() if k not in _FREE}, **self.inputs}

    def _export(self) -> None:
        """Writes the averaged network in fp16, and beside it what is known about it."""
        config, path = self.config, self.config.out / f"{NAME}.safetensors"
        _save_whole({k: v.half().contiguous() for k, v in self.average.items()}, path)
        path.chmod(0o644)  # safetensors writes for the owner alone
        card = {
            "name": NAME,
            "sha256": _digest(path),
            "architecture": ARCHITECTURE,
            "parameters": sum(v.numel() for v in self.average.values()),
            "teacher": TEACHER,
            "inputs": self.inputs,
            "recipe": config.numbers(),
            "loss_weights": LOSS_WEIGHTS,
            "steps_taken": self.step,
            "curve": self.curve,
            "torch": torch.__version__,
        }
        (config.out / f"{NAME}.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")

    def resume(self) -> None:
        """Continues from the checkpoint in the output folder, if there is one.

        Raises:
            InputError: If it was made with other data or settings, or is past the last step.
        """
        path = self.config.out / "checkpoint.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
        for name, value in self._fixed().items():
            if value != (old := facts["fixed"][name]):
                raise InputError(f"`{name}` must be {old} as in {str(path)!r}, got {value}")
        if facts["step"] > self.config.steps:
            raise InputError(
                f"`steps` must be at least {facts['step']} as in {str(path)!r}, "
                f"got {self.config.steps}"
            )
        tensors = load_file(path)
        self.step, self.curve = facts["step"], facts["curve"]
        self.student.load_state_dict(_below(tensors, "student."))
        self.average = _below(tensors, "average.")
        for place, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, f"optimiser.{place}.").items():
                index, name = key.split(".", 1)
                state.setdefault(int(index), {})[name] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        _LOG.info("resumed at step %d", self.step)


def _small_batches(pixels: Tensor) -> Iterator[Tensor]:
    for images in torch.split(pixels, 128):
        small = functional.interpolate(images.float(), (32, 32), mode="bicubic", antialias=True)
        yield small.clamp(0, 255) / 127.5 - 1


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimisers(student: Student, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    trained = [(k, v) for k, v in student.named_parameters() if v.requires_grad]
    matrices = [v for k, v in trained if ".blocks." in k and v.ndim == 2]
    chosen = {id(value) for value in matrices}
    others = [v for _, v in trained if id(v) not in chosen]
    decay = config.weight_decay
    blocks = [{"params": matrices, "peak": config.matrix_rate}]
    rest = [{"params": others, "peak": config.rate}]
    return [
        torch.optim.Muon(blocks, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, weight_decay=decay, betas=(0.9, 0.98)),
    ]


def _rate(step: int, config: PretrainConfig) -> float:
    return min(1.0, (step + 1) / config.warmup, (config.steps - step) / config.decay)


def _save_whole(
    tensors: dict[str, Tensor], path: Path, facts: dict[str, str] | None = None
) -> None:
    save_file(tensors, path.with_suffix(".tmp"), facts)
    path.with_suffix(".tmp").replace(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(config: PretrainConfig) -> Photographs:
    for name in ("data", "teacher"):
        if not getattr(config, name).is_file():
            raise InputError(
                f"`{name}` must be an existing file, got {str(getattr(config, name))!r}"
            )
    source = parquet_source(config.data)
    pixels = read_pixels(source.train, 64)
    features = teacher_features(pixels, config.teacher, config.out.parent / "cache")
    labels, held_labels = (torch.from_numpy(s.targets) for s in (source.train, source.test))
    return Photographs(pixels, features, labels, read_pixels(source.test, 64), held_labels)


def pretrain(config: PretrainConfig) -> None:
    """Trains from the last checkpoint, or from the start, to the last step.

    Raises:
        InputError: If an input cannot be read or does not fit, or the checkpoint is another run's.
    """
    torch.set_num_threads(config.threads)
    trainer = Trainer(config, _read(config))
    trainer.resume()
    start, began = trainer.step, time.monotonic()
    losses = {name: trainer.curve[-1][name] for name in LOSS_WEIGHTS} if trainer.curve else {}
    while trainer.step < config.steps:
        for name, part in trainer.train_step().items():
            losses[name] = 0.98 * losses.get(name, part) + 0.02 * part
        if trainer.step % 50 == 0:
            pace = (time.monotonic() - began) / (trainer.step - start)
            _LOG.info("step %d %.3f s/step %s", trainer.step, pace, _short(losses))
        if trainer.step % config.every == 0 or trainer.step == config.steps:
            accuracy = trainer.evaluate()
            trainer.curve.append({"step": trainer.step, "ncm_held_out": accuracy, **losses})
            trainer.save()
            _LOG.info("step %d held-out nearest class mean %.2f %%", trainer.step, accuracy)


def _short(losses: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses.items())


def _parse(arguments: list[str] | None) -> PretrainConfig:
    parser = argparse.ArgumentParser(description="Pretrains the embedded backbone.")
    for entry in fields(PretrainConfig):
        kind: Any = entry.type
        is_needed = kind is Path
        default = None if is_needed else entry.default
        text = entry.metadata["help"] + ("" if is_needed else f" (default: {default})")
        parser.add_argument(
            f"--{entry.name.replace('_', '-')}",
            type=kind, required=is_needed, default=default, help=text,
        )  # fmt: skip
    return PretrainConfig(**vars(parser.parse_args(arguments)))


def _main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        pretrain(_parse(None))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    _main()
