from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.benchmarks.data.images import LabelledImages
from cl_adapters.benchmarks.maintenance.pretraining import teacher
from cl_adapters.benchmarks.maintenance.pretraining.teacher import read_pixels, teacher_features
from cl_adapters.errors import InputError


def some_pixels(count: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=source, dtype=torch.uint8)


@contextmanager
def watched_batches() -> Iterator[list[int]]:
    """Lists the sizes of the batches that any ViT embeds meanwhile."""
    sizes: list[int] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, PatchEmbed):
            sizes.append(len(inputs[0]))

    hook = nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        yield sizes
    finally:
        hook.remove()


class Pictures:
    """A store of images of a given shape."""

    def __init__(self, *shapes: tuple[int, int]) -> None:
        source = np.random.default_rng(0)
        grids = [source.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in shapes]
        # Smooth pictures, whose values hardly depend on details of the resampling.
        self.pictures = [
            np.array(Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC))
            for grid, shape in zip(grids, shapes, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.pictures)

    def pixels(self, row: int) -> np.ndarray:
        return self.pictures[row]

    def encoded(self, row: int) -> bytes:
        return self.pictures[row].tobytes()

    def name(self, row: int) -> str:
        return f"in row {row}"


def test_pixels_are_read_in_the_order_of_the_set_and_scaled_where_needed() -> None:
    store = Pictures((16, 16), (40, 24), (8, 8), (100, 100))
    rows = np.array([3, 0, 1, 2])
    images = LabelledImages(store, rows, np.zeros(4, dtype=np.int64), ("x",))
    found = read_pixels(images, 16)
    assert found.shape == (4, 3, 16, 16)
    assert found.dtype == torch.uint8
    for image, row in zip(found, rows, strict=True):
        picture = Image.fromarray(store.pixels(row))
        expected = np.array(picture.resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        # torch's and Pillow's bicubic filters differ a little where they enlarge.
        np.testing.assert_allclose(image.numpy(), expected, atol=0 if row == 0 else 6)


def test_features_are_the_class_tokens_of_scaled_images(teacher_file: Path, tmp_path: Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", checkpoint_path=teacher_file).eval()
    vit.set_input_size(img_size=48)
    pixels = some_pixels(40)  # more than one batch
    large = functional.interpolate(pixels / 127.5 - 1, (48, 48), mode="bicubic")
    with torch.no_grad():
        expected = vit.forward_features(large)[:, 0]
    found = teacher_features(pixels, teacher_file, tmp_path, side=48)
    assert found.shape == (40, 192)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    # bf16 keeps eight bits.
    assert functional.cosine_similarity(found, expected).min() > 0.998
    assert functional.cosine_similarity(found, expected.roll(1, 0)).max() < 0.99


def test_features_are_computed_once(teacher_file: Path, tmp_path: Path) -> None:
    pixels = some_pixels()
    with watched_batches() as sizes:
        first = teacher_features(pixels, teacher_file, tmp_path / "new", side=32)
        assert sum(sizes) == 3
        second = teacher_features(pixels.clone(), teacher_file, tmp_path / "new", side=32)
        assert sum(sizes) == 3
    assert torch.equal(first, second)


def test_features_come_from_the_cache_where_they_are(teacher_file: Path, tmp_path: Path) -> None:
    pixels = some_pixels()
    teacher_features(pixels, teacher_file, tmp_path, side=32)
    (path,) = tmp_path.iterdir()
    planted = torch.randn(3, 192).half()
    save_file({"features": planted}, path)
    assert torch.equal(teacher_features(pixels, teacher_file, tmp_path, side=32), planted.float())


@pytest.fixture(scope="module")
def filled_cache(teacher_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    teacher_features(some_pixels(4), teacher_file, folder, side=32)
    return folder


@pytest.mark.parametrize("change", ["pixel", "order", "number", "shape", "weights", "side"])
def test_a_cache_of_something_else_is_not_used(
    filled_cache: Path, teacher_file: Path, tmp_path: Path, change: str
) -> None:
    pixels, weights, side = some_pixels(4), teacher_file, 32
    if change == "pixel":
        pixels[2, 1, 5, 5] ^= 1
    elif change == "order":
        pixels = pixels.flip(0)
    elif change == "number":
        pixels = pixels[:3]
    elif change == "shape":  # the same bytes, read as one large image
        pixels = pixels.reshape(1, 3, 64, 64)
    elif change == "weights":
        weights = tmp_path / "other.safetensors"
        save_file(load_file(teacher_file) | {"norm.bias": torch.zeros(192)}, weights)
    else:
        side = 48
    with watched_batches() as sizes:
        found = teacher_features(pixels, weights, filled_cache, side=side)
    assert sum(sizes) == len(found) == len(pixels)


def test_a_run_that_stops_while_it_writes_leaves_no_cache(
    teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(tensors: dict[str, Tensor], path: Path) -> None:
        Path(path).write_bytes(b"half a file")
        raise KeyboardInterrupt

    pixels = some_pixels()
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "save_file", stop)
        with pytest.raises(KeyboardInterrupt):
            teacher_features(pixels, teacher_file, tmp_path / "cache", side=32)
    found = teacher_features(pixels, teacher_file, tmp_path / "cache", side=32)
    assert torch.equal(found, teacher_features(pixels, teacher_file, tmp_path / "other", side=32))


def test_no_global_randomness_is_used(teacher_file: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    teacher_features(some_pixels(), teacher_file, tmp_path, side=32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["of another network", "no weights"])
def test_weights_that_do_not_fit_end_in_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.safetensors"
    if kind == "no weights":
        path.write_bytes(b"nonsense")
    else:
        save_file({"cls_token": torch.zeros(1, 1, 8)}, path)
    with pytest.raises(InputError, match="weights in '.*weights.safetensors' must .*") as caught:
        teacher_features(some_pixels(), path, tmp_path / "cache", side=32)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.glob("cache/*.safetensors"))
