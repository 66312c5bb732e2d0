"""Training steps in bfloat16 with two ways of attention, in one table.

`python -m cl_adapters.benchmarks.maintenance.attention_speed` runs forward and backward passes of a
ViT-Tiny with random weights through all blocks: with PyTorch's fused attention, and with the
written-out one of `cl_adapters.vit.attention`. One thread, processor time, the ways in turn, the
quickest of seven each.
"""

import time
from collections.abc import Callable
from unittest import mock

import timm
import torch
import typer
from torch import Tensor

from cl_adapters.benchmarks.markdown import markdown_table
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["seconds"]

_TURNS = 7


def seconds(side: int, batch: int) -> tuple[float, float]:
    """Returns seconds of a step on images of `side` pixels: fused, written out."""
    network = AdaptedViT(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=side))
    network.vit.to(torch.bfloat16)
    images = torch.rand(batch, 3, side, side, dtype=torch.bfloat16)
    tokens = network.tokens(images).requires_grad_()

    def step() -> Tensor:
        found = network.features(network.run(tokens))
        torch.autograd.backward(found.float().square().mean())
        return found

    def fused() -> Tensor:
        with mock.patch("cl_adapters.vit.slots.is_written_out", return_value=False):
            return step()

    times = [(_timed(fused), _timed(step)) for _ in range(_TURNS)]
    first, second = zip(*times, strict=True)
    return min(first), min(second)


def _timed(step: Callable[[], Tensor]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    """Prints the table of the docs."""
    torch.set_num_threads(1)
    rows = [["pixels", "fused, images/s", "written out, images/s", "time of a step, ratio"]]
    for side, batch in ((64, 48), (96, 48), (160, 32), (224, 16)):
        fused, written_out = seconds(side, batch)
        rates = [f"{batch / each:.0f}" for each in (fused, written_out)]
        rows.append([str(side), *rates, f"{written_out / fused:.2f}"])
    typer.echo(markdown_table(rows), nl=False)


if __name__ == "__main__":
    typer.run(main)
