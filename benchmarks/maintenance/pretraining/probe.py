"""Measures frozen features.

    python -m cl_adapters.benchmarks.maintenance.pretraining.probe --help

Two readings of the same features: the nearest class mean by cosine, which is what SimpleCIL does,
and ridge regression onto one-hot labels.
"""

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.errors import InputError
from cl_adapters.images.transforms import Preprocess
from cl_adapters.vit.embedded import EMBEDDED
from cl_adapters.vit.pretrained import load_backbone

__all__ = ["extract_features", "nearest_class_mean", "ridge_accuracy"]

BATCH: Final = 128
STRENGTHS: Final = tuple(10.0**power for power in range(6))
_LOG: Final = logging.getLogger(__name__)


@torch.inference_mode()
def extract_features(network: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Returns the features of a frozen network.

    Args:
        network: Maps images to features (B, D).
        batches: Normalised images. Shape of each: (B, 3, S, S).

    Returns:
        Shape: (N, D), fp32.
    """
    return torch.cat([network(images).float() for images in batches])


def nearest_class_mean(known: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Returns the accuracy in per cent of the nearest class mean by cosine.

    Features are scaled to length one before and after they are averaged. A class that has no
    feature among the known ones is never the answer.

    Args:
        known: Features that give the means. Shape: (N, D).
        labels: Their classes, from 0. Shape: (N,).
        test: Features to classify. Shape: (M, D).
        truth: Their classes. Shape: (M,).

    Raises:
        InputError: If a feature is not finite.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0]])
        >>> nearest_class_mean(points[1:], torch.tensor([0, 1]), points, torch.tensor([0, 0, 1]))
        100.0
    """
    _check_finite(known, test)
    means = torch.zeros(int(labels.max()) + 1, known.shape[1], dtype=known.dtype)
    means.index_add_(0, labels, functional.normalize(known, dim=-1))
    cosines = functional.normalize(test, dim=-1) @ functional.normalize(means, dim=-1).T
    return _accuracy(cosines.masked_fill(labels.bincount() == 0, -math.inf), truth)


def ridge_accuracy(
    known: Tensor, labels: Tensor, test: Tensor, truth: Tensor, *, seed: int = 0
) -> float:
    """Returns the accuracy in per cent of ridge regression on standardised features.

    The strength is the one of 1, 10, ..., 100,000 that is best on a fifth of the training
    features, held out; then all of them are fitted.

    Args:
        known: Training features. Shape: (N, D).
        labels: Their classes, from 0. Shape: (N,).
        test: Features to classify. Shape: (M, D).
        truth: Their classes. Shape: (M,).
        seed: Of which fifth is held out.

    Raises:
        InputError: If a feature is not finite.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).repeat(10, 1)
        >>> labels = torch.tensor([0, 1]).repeat(10)
        >>> ridge_accuracy(points, labels, points[:2], labels[:2])
        100.0
    """
    _check_finite(known, test)
    known, test = known.double(), test.double()
    spread = known.std(dim=0) + 1e-6
    known, test = (known - known.mean(dim=0)) / spread, (test - known.mean(dim=0)) / spread
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    held, fitted = order[: len(order) // 5], order[len(order) // 5 :]
    targets = functional.one_hot(labels).double()
    trials = _ridge_scores(known[fitted], targets[fitted], known[held], STRENGTHS)
    accuracies = [_accuracy(scores, labels[held]) for scores in trials]
    best = STRENGTHS[accuracies.index(max(accuracies))]
    return _accuracy(next(_ridge_scores(known, targets, test, [best])), truth)


def _ridge_scores(
    known: Tensor, targets: Tensor, test: Tensor, strengths: Iterable[float]
) -> Iterator[Tensor]:
    """Yields the scores of `test` for each strength, from one decomposition."""
    values, vectors = torch.linalg.eigh(known.T @ known)
    offset = targets.mean(dim=0)
    turned = vectors.T @ (known.T @ (targets - offset))
    rotated = test @ vectors
    for strength in strengths:
        yield rotated @ (turned / (values.clamp(min=0) + strength)[:, None]) + offset


def _check_finite(*features: Tensor) -> None:
    for each in features:
        for row, column in (~each.isfinite()).nonzero()[:1].tolist():
            raise InputError(f"features must be finite, got {each[row, column]} in row {row}")


def _accuracy(scores: Tensor, truth: Tensor) -> float:
    return 100 * float((scores.argmax(dim=-1) == truth).double().mean())


def _batches(images: LabelledImages, side: int) -> Iterator[Tensor]:
    prepare = Preprocess(image_size=side, mean=(0.5,) * 3, std=(0.5,) * 3)
    for start in range(0, len(images), BATCH):
        rows = range(start, min(start + BATCH, len(images)))
        yield torch.stack([prepare.evaluate(images.read(row)) for row in rows])


def _network(name: str, weights: str | None, side: int, seed: int) -> nn.Module:
    """Builds the network of the command's arguments; `pixels` leaves images as they are."""
    if name == "pixels":
        return nn.Flatten()
    return load_backbone(name, weights=weights, image_size=side, seed=seed).model.eval()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures frozen features on image data sets.")
    parser.add_argument("data", nargs="+", help="'digits' or a parquet file")
    parser.add_argument("--network", default=EMBEDDED, help="timm architecture, or 'pixels'")
    parser.add_argument("--weights", help="weight file or 'random'; default: the embedded ones")
    parser.add_argument("--side", type=int, default=32, help="input size in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--bf16", action="store_true", help="forward passes in bf16 autocast")
    parser.add_argument("--out", type=Path, help="file to append the results to, a JSON a line")
    return parser.parse_args()


def _measure(data: str, network: nn.Module, options: argparse.Namespace) -> dict[str, object]:
    source = open_source(data)
    began = time.monotonic()
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        known, test = (
            extract_features(network, _batches(images, options.side))
            for images in (source.train, source.test)
        )
    seconds = time.monotonic() - began
    labels, truth = (torch.from_numpy(images.targets) for images in (source.train, source.test))
    return {
        "data": source.name,
        "network": options.network,
        "weights": options.weights,
        "side": options.side,
        "train": len(known),
        "test": len(test),
        "nearest_class_mean": round(nearest_class_mean(known, labels, test, truth), 2),
        "ridge": round(ridge_accuracy(known, labels, test, truth), 2),
        "images_per_second": round((len(known) + len(test)) / seconds, 1),
    }


def _run(options: argparse.Namespace) -> None:
    if options.threads < 1:
        raise InputError(f"`threads` must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    network = _network(options.network, options.weights, options.side, options.seed)
    for data in options.data:
        line = json.dumps(_measure(data, network, options))
        _LOG.info(line)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _main() -> None:
    try:
        _run(_parse())
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _main()
