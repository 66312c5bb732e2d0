"""What `preprocess.json` says is enough to get the model's bytes with Pillow and NumPy alone."""

import io
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cl_adapters.graphs.described import pixels_described
from cl_adapters.images.decoding import decode_image
from cl_adapters.images.transforms import Preprocess

ROOT = Path(__file__).parent.parent.parent
PLAIN = runpy.run_path(str(ROOT / "examples" / "service" / "pixels.py"))["pixels"]


def preprocess(**settings: Any) -> Preprocess:
    return Preprocess(**{"mean": (0.5,) * 3, "std": (0.5,) * 3, "as_bytes": True, **settings})


def rule_of(pixels: Preprocess) -> dict[str, Any]:
    return json.loads(json.dumps(pixels_described(pixels)))  # as the file has it


def noise(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * 1000 + height)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    short=st.integers(1, 60),
    ratio=st.floats(1, 16),
    is_wide=st.booleans(),
    size=st.integers(1, 40),
    more=st.integers(0, 9),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_the_plain_steps_give_the_same_bytes(
    short: int, ratio: float, is_wide: bool, size: int, more: int, interpolation: str
) -> None:
    long = min(int(short * ratio), 16 * short)
    image = noise(long, short) if is_wide else noise(short, long)
    pixels = preprocess(image_size=size, resize=size + more, interpolation=interpolation)
    found = PLAIN(Image.fromarray(image), rule_of(pixels))
    np.testing.assert_array_equal(found, pixels.evaluate(image).numpy())


@pytest.mark.parametrize("size", [(17, 300), (300, 17), (99, 1600)])
def test_images_beyond_the_ratio_differ_a_little(size: tuple[int, int]) -> None:
    image, pixels = noise(*size), preprocess(image_size=32, resize=36)
    found = PLAIN(Image.fromarray(image), rule_of(pixels)).astype(int)
    apart = np.abs(found - pixels.evaluate(image).numpy().astype(int))
    assert apart.mean() < 1
    assert apart.max() <= 32
    assert rule_of(pixels)["longest"] == 16


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_photo_is_decoded_as_the_model_decodes_it(mode: str, orientation: int) -> None:
    picture = Image.fromarray(noise(37, 23)).convert(mode)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture.save(file, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    pixels = preprocess(image_size=16)
    expected = pixels.evaluate(decode_image(file.getvalue(), "it")).numpy()
    found = PLAIN(Image.open(io.BytesIO(file.getvalue())), rule_of(pixels))
    np.testing.assert_array_equal(found, expected)


def test_the_guide_shows_the_steps_of_the_example() -> None:
    example = (ROOT / "examples" / "service" / "pixels.py").read_text("utf-8")
    steps = example.split("    image = ")[1].strip()
    guide = (ROOT / "docs" / "guides" / "service.md").read_text("utf-8")
    assert f"    image = {steps}\n" in guide


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_values_of_more_than_8_bits_are_refused_by_the_plain_steps(mode: str) -> None:
    with pytest.raises(ValueError, match=f"8 bits a value, got mode {mode}"):
        PLAIN(Image.new(mode, (9, 9)), rule_of(preprocess(image_size=8)))
