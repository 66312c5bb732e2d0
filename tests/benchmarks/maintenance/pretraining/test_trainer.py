"""A trainer alone, without files of images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_adapters.benchmarks.maintenance import pretrain as command
from cl_adapters.benchmarks.maintenance.pretrain import (
    Photographs,
    Trainer,
)
from tests.benchmarks.maintenance.pretraining.workshop import Workshop, write_data


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, teacher_file: Path) -> Workshop:
    folder = tmp_path_factory.mktemp("pretrain")
    write_data(folder / "data.parquet")
    return Workshop(folder, teacher_file)


# What follows looks at a trainer alone, without files of images.


def solid_photographs(held_labels: list[int]) -> Photographs:
    """Ten red and ten blue images, and as many held out, red and blue by turns."""
    red, blue = (torch.tensor(colour).view(3, 1, 1) for colour in ((200, 0, 0), (0, 0, 200)))
    images = torch.stack([each.to(torch.uint8).expand(3, 64, 64) for each in (red, blue)])
    labels, held = torch.arange(20) // 10, torch.arange(20) % 2
    features = torch.randn(20, 192, generator=torch.Generator().manual_seed(0))
    return Photographs(images[labels], features, labels, images[held], torch.tensor(held_labels))


def make_trainer(workshop: Workshop, held: list[int] | None = None, **settings: Any) -> Trainer:
    photographs = solid_photographs(held or [0, 1] * 10)
    return Trainer(workshop.config("trainer", **settings), photographs)


@pytest.mark.parametrize(
    ("held", "accuracy"),
    [([0, 1] * 10, 100), ([1, 0] * 10, 0), ([0] * 20, 50)],
)
def test_held_out_images_are_classified_by_the_training_images(
    workshop: Workshop, held: list[int], accuracy: float
) -> None:
    assert make_trainer(workshop, held).evaluate() == accuracy


@pytest.mark.slow
def test_another_seed_gives_another_result(workshop: Workshop) -> None:
    tokens = []
    for seed in (0, 0, 1):
        trainer = make_trainer(workshop, seed=seed)
        trainer.train_step()
        tokens.append(trainer.average["cls_token"])
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])


@pytest.mark.slow
def test_weights_are_averaged_over_the_steps(workshop: Workshop) -> None:
    trainer = make_trainer(workshop)
    states = [{k: v.clone() for k, v in trainer.average.items()}]
    for _ in range(2):
        trainer.train_step()
        states.append({k: v.clone() for k, v in trainer.student.network.state_dict().items()})
    for name, value in trainer.average.items():
        steps = torch.stack([state[name] for state in states])
        assert (value >= steps.amin(dim=0) - 1e-6).all(), name
        assert (value <= steps.amax(dim=0) + 1e-6).all(), name
    assert not torch.equal(trainer.average["cls_token"], states[-1]["cls_token"])


def test_without_averaging_the_last_weights_are_kept(workshop: Workshop) -> None:
    trainer = make_trainer(workshop, ema=0.0)
    trainer.train_step()
    for name, value in trainer.student.network.state_dict().items():
        assert torch.equal(trainer.average[name], value), name


def test_matrices_of_the_blocks_go_to_muon_and_all_else_to_adamw(workshop: Workshop) -> None:
    trainer = make_trainer(workshop)
    names = {id(value): name for name, value in trainer.student.named_parameters()}
    found = {
        type(optimiser).__name__: [
            names[id(value)] for group in optimiser.param_groups for value in group["params"]
        ]
        for optimiser in trainer.optimisers
    }
    matrices = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert sorted(found["Muon"]) == sorted(
        f"network.blocks.{block}.{name}.weight" for block in range(6) for name in matrices
    )
    assert sorted(found["Muon"] + found["AdamW"]) == sorted(names.values())


def test_the_rate_rises_stays_and_falls_to_zero(workshop: Workshop) -> None:
    config = workshop.config("rate", steps=100, decay=30, warmup=10)
    expected = np.interp(np.arange(101), [-1, 9, 70, 100], [0, 1, 1, 0])
    found = [command._rate(step, config) for step in range(101)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.slow
def test_optimisers_follow_the_rate(workshop: Workshop) -> None:
    trainer = make_trainer(workshop, warmup=4, steps=9, rate=0.1, matrix_rate=0.2)
    for share in (0.25, 0.5):
        trainer.train_step()
        rates = [group["lr"] for each in trainer.optimisers for group in each.param_groups]
        assert rates == pytest.approx([share * 0.2, share * 0.1])
