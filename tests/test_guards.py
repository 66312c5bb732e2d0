"""Slow: real images and pretrained weights must land on the figures that others measured."""

from pathlib import Path

import pytest

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.records.events import read_events
from cl_adapters.records.tables import read_predictions

SHARED = Path(__file__).parent.parent.parent / "shared"
VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"

# Small, and half of the images: it shows who learns, not how well.
SIGNS = {"increment": 7, "first": 8, "image_size": 64, "max_images_per_class": 60}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="real images are not beside the checkout"),
]


def last_accuracy(out: Path, data: str, **changes: object) -> float:
    recipe = {
        "data": str(SHARED / "data" / f"{data}.parquet"),
        "backbone": VIT_TINY,
        "weights": str(SHARED / "weights" / f"{VIT_TINY}.safetensors"),
        **changes,
    }
    rows = read_predictions(runner.run(prepare(RunConfig.parse(recipe)), out))
    rows = rows[rows["experience"] == rows["experience"].max()]
    return 100 * float((rows["prediction"] == rows["target"]).mean())


def test_simplecil_lands_on_the_nearest_class_mean_of_cifar100_mini(tmp_path: Path) -> None:
    """69.4 at 224 px on 20 + 10 images a class; ten test images are one point."""
    found = last_accuracy(
        tmp_path, "cifar100_mini", strategy="simplecil", increment=100, image_size=224
    )
    assert found == pytest.approx(69.4, abs=0.5)


def test_a_smaller_input_costs_what_others_measured(tmp_path: Path) -> None:
    """49.2 at 112 px, 21.3 at 64 px on the same images."""
    for size, expected in ((112, 49.2), (64, 21.3)):
        found = last_accuracy(
            tmp_path, "cifar100_mini", strategy="simplecil", increment=100, image_size=size
        )
        assert found == pytest.approx(expected, abs=1.0)


def test_lae_beats_prototypes_and_finetuning_on_traffic_signs(tmp_path: Path) -> None:
    """Frozen prototypes are weak on signs: LAE must have learned something, and kept it."""
    found = {
        strategy: last_accuracy(tmp_path, "gtsrb_64", strategy=strategy, options=options, **SIGNS)
        for strategy, options in {
            "simplecil": {},
            "finetune": {"epochs": 2},
            "lae": {"epochs": 3, "freeze_epochs": 1},
        }.items()
    }
    assert found["lae"] > found["simplecil"] + 5
    assert found["lae"] > found["finetune"] + 20


def test_mos_beats_prototypes_on_traffic_signs_and_asks_two_adapters_an_image(
    tmp_path: Path,
) -> None:
    """Frozen features are weak on signs; a pass for the guess and one for the answer suffice."""
    found = last_accuracy(tmp_path, "gtsrb_64", strategy="mos", options={"epochs": 3}, **SIGNS)
    frozen = last_accuracy(tmp_path, "gtsrb_64", strategy="simplecil", **SIGNS)
    assert found > frozen + 20
    (folder,) = tmp_path.glob("*/mos/*")
    passes = [event.passes for event in read_events(folder) if event.event == "evaluation"]
    assert len(passes) == 6
    assert passes[0] == 1
    assert max(passes) < 2.2
