"""Who gives large images to the default network, which sees small ones, is told so once."""

from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from typer.testing import CliRunner

from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.running.advice import forward_operations, shorter_sides, size_advice
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.cli import app
from cl_adapters.vit.names import EMBEDDED, FOR_PHOTOS


def photos(folder: Path, *sizes: tuple[int, int]) -> str:
    """Two classes with one image of each size (width, height), for training and for testing."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for place, (width, height) in enumerate(sizes):
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{place}.png")
    return str(folder)


def told(data: str, **chosen: object) -> list[str]:
    config = RunConfig.parse({"strategy": "simplecil", "data": data, **chosen})
    return size_advice([config], open_source(data).train)


def test_the_sentence_holds_sizes_and_the_factor_of_operations(tmp_path: Path) -> None:
    (sentence,) = told(photos(tmp_path / "p", (160, 200), (300, 150), (170, 180)))
    assert "images have 160 px (median of the shorter side)" in sentence
    assert f"{EMBEDDED}, the default backbone, sees 32" in sentence
    assert f"`--backbone {FOR_PHOTOS} --image-size 224`" in sentence
    factor = operations(FOR_PHOTOS) / operations(EMBEDDED)
    assert f"about {factor:.0f} x the operations" in sentence


def operations(name: str) -> int:
    """Returns what the matrices of a ViT take, two a multiplication, by arithmetic."""
    vit = timm.create_model(name, num_classes=0)
    patches, width = vit.patch_embed.num_patches, vit.embed_dim
    tokens, hidden = patches + 1, vit.blocks[0].mlp.fc1.out_features
    side = vit.patch_embed.patch_size[0]
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    return int(2 * (patches * 3 * side**2 * width + len(vit.blocks) * block))


@pytest.mark.parametrize(("name", "side"), [(EMBEDDED, 32), (FOR_PHOTOS, 224), ("test_vit", 160)])
def test_operations_are_those_of_the_matrices(name: str, side: int) -> None:
    assert forward_operations(name) == (side, operations(name))


@pytest.mark.parametrize(("side", "is_told"), [(63, False), (64, True)])
def test_only_images_of_twice_the_input_are_spoken_of(
    side: int, is_told: bool, tmp_path: Path
) -> None:
    assert bool(told(photos(tmp_path / "p", (side, 400)))) is is_told


@pytest.mark.parametrize(
    "chosen", [{"backbone": EMBEDDED}, {"image_size": 32}, {"weights": "random"}]
)
def test_who_has_chosen_is_told_nothing(chosen: dict[str, object], tmp_path: Path) -> None:
    data = photos(tmp_path / "p", (200, 200))
    assert told(data)
    assert not told(data, **chosen)


def test_at_most_a_hundred_headers_are_read_from_first_to_last(tmp_path: Path) -> None:
    data = photos(tmp_path / "p", *[(place + 1, 70) for place in range(60)])
    images = open_source(data).train
    (tmp_path / "p" / "train" / "cat" / "0.png").write_bytes(b"no image")
    seen = shorter_sides(images)
    assert len(seen) == 99, "the damaged one is passed over"
    assert {min(seen), max(seen)} == {1, 60}, "the other class has one of 1"
    assert seen[-1] == 60
    assert len(told(data)) == 0, "median 30 and more"


def test_digits_are_not_spoken_of_and_a_folder_is_once(tmp_path: Path) -> None:
    config = RunConfig.parse({"strategy": "simplecil"})
    assert size_advice([config], open_source("digits").train) == []
    data = photos(tmp_path / "p", (80, 80), (90, 90))
    result = CliRunner().invoke(
        app,
        ["run", "--strategy", "simplecil", "--data", data, "--increment", "1", "--seeds", "2",
         "--cache", "off", "--out", str(tmp_path / "runs")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert text.count("note: images have 85 px") == 1


@pytest.mark.slow
def test_a_sweep_and_a_search_say_it_once(tmp_path: Path) -> None:
    data = photos(tmp_path / "p", *[(80, 80)] * 5)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'strategy = "simplecil"\ndata = "{data}"\nincrement = 1\n', "utf-8")
    for command in (
        ["sweep", str(recipe), "--seeds", "2", "--workers", "1"],
        ["tune", "--recipe", str(recipe), "--trials", "1", "--space", "ridge=0.1,0.2"],
    ):
        out = ["--cache", "off", "--out", str(tmp_path / command[0])]
        result = CliRunner().invoke(app, [*command, *out])
        assert result.exit_code == 0, result.output
        assert " ".join(result.output.split()).count("note: images have 80 px") == 1
