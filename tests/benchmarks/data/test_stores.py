import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_adapters.benchmarks.data.stores import FileStore, decode_image
from cl_adapters.errors import InputError


def encode(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def gradient(height: int = 4, width: int = 6) -> np.ndarray:
    values = np.arange(height * width * 3) * 255 // (height * width * 3 - 1)
    return values.reshape(height, width, 3).astype(np.uint8)


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(format_name: str) -> None:
    pixels = decode_image(encode(Image.fromarray(gradient()), format_name), "x")
    np.testing.assert_array_equal(pixels, gradient())


@pytest.mark.parametrize("format_name", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_as_rgb(format_name: str) -> None:
    pixels = decode_image(encode(Image.fromarray(gradient()), format_name), "x")
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("LA", (7, 0), (7, 7, 7)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, colour: object, expected: tuple[int, ...]) -> None:
    pixels = decode_image(encode(Image.new(mode, (3, 2), colour)), "x")
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8(expected), (2, 3, 3)))


def test_palettes_become_rgb_with_and_without_transparency() -> None:
    image = Image.fromarray(gradient()).quantize(16)
    plain = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(encode(image), "x"), plain)
    clear = encode(image, transparency=bytes(range(16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode_image(clear, "x"), plain)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, format_name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = upright[0, 1] = 255
    # Oracle: undo each orientation by hand, as the EXIF standard describes rows and columns.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    data = encode(image, format_name, exif=exif.tobytes())
    np.testing.assert_array_equal(decode_image(data, "x"), upright)


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "F", "I"])
def test_other_modes_are_refused(mode: str) -> None:
    data = encode(Image.new(mode, (3, 2)), "TIFF")
    with pytest.raises(InputError, match=r"image a\.tif must have mode 1, L, .*, got " + mode):
        decode_image(data, "a.tif")


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_images_are_refused(format_name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), format_name)
    with pytest.raises(InputError, match="image a must be "):
        decode_image(data[: len(data) * 2 // 3], "a")


@pytest.mark.parametrize("data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_bytes_of_no_format_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"image a must be a JPEG, .* file, is none"):
        decode_image(data, "a")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [3, 8])
def test_decompression_bombs_are_refused(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    data = encode(Image.new("RGB", (3, 4)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"image a must be readable, got: .*limit"):
        decode_image(data, "a")


def test_damage_of_any_kind_ends_in_an_input_error() -> None:
    generator = np.random.default_rng(0)
    for format_name in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        data = encode(Image.fromarray(gradient(16, 16)), format_name)
        for _ in range(60):
            damaged = bytearray(data)
            for place in generator.integers(0, len(data), 4):
                damaged[place] = generator.integers(0, 256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert decode_image(bytes(damaged), "a").shape[2] == 3
                except InputError as error:
                    assert "image a must" in str(error)  # noqa: PT017  # damage may go unnoticed


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image '.*gone\.png' must be readable"):
        FileStore(tmp_path, ["gone.png"]).pixels(0)
