"""Encoded images become RGB pixels, whatever their mode; metadata never spoil sound pixels."""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from cl_adapters.benchmarks.data.walking import files_below
from cl_adapters.errors import InputError
from cl_adapters.images.decoding import NOTES, decode, decode_image, noted


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


# What this machine's Pillow was built with decides whether these are images.
MORE = [("avif", "AVIF", ".avif"), ("jpg_2000", "JPEG2000", ".jp2")]


@pytest.mark.parametrize(("feature", "format_name", "suffix"), MORE)
def test_a_format_is_read_where_pillow_can_decode_it(
    feature: str, format_name: str, suffix: str, tmp_path: Path
) -> None:
    (tmp_path / f"photo{suffix}").write_bytes(b"")
    (tmp_path / "phone.heic").write_bytes(b"")
    walk = files_below(tmp_path)
    with warnings.catch_warnings():  # an older Pillow does not know the name
        warnings.simplefilter("ignore")
        known = features.check(feature)
    assert walk.images == ([f"photo{suffix}"] if known else [])
    assert {each.reason for each in walk.left} == {"an image of a kind that is not read"}
    if not known:
        pytest.skip(f"Pillow has no {feature} here")
    grey = np.full((16, 16, 3), 90, np.uint8)
    data = encode(Image.fromarray(grey), format_name)
    np.testing.assert_allclose(decode_image(data, "x").astype(int), grey, atol=3)
    source = np.random.default_rng(0)
    for place in source.integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[place] ^= 1 << source.integers(8)
        with suppress(InputError):  # nothing else
            decode_image(bytes(damaged), "x")


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


def note_of(bits: int) -> str:
    (note,) = noted([bits])
    return note


def test_cmyk_becomes_rgb_by_the_printers_rule() -> None:
    """Each channel of light is what its ink and the black leave of it."""
    inks = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype=np.uint8)
    pixels, notes = decode(encode(Image.fromarray(inks, "CMYK"), "TIFF"), "x")
    light = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    np.testing.assert_allclose(pixels, light, atol=1.01)
    assert note_of(notes) == "in CMYK, turned into RGB as Pillow does"


def test_a_cmyk_jpeg_of_one_colour_keeps_it() -> None:
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    np.testing.assert_allclose(decode_image(data, "x"), np.full((16, 16, 3), (255, 0, 0)), atol=3)


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_of_16_bits_the_upper_8_are_kept(format_name: str) -> None:
    values = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)
    pixels, notes = decode(encode(Image.fromarray(values), format_name), "x")
    assert pixels[..., 0].tolist() == [[0, 0, 1], [3, 156, 255]]
    assert (pixels == pixels[..., :1]).all()
    assert note_of(notes) == "of 16 bits a value, cut to the upper 8"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.5, 1.0]], [[0, 128, 255]]),
        ([[0.0, 100.0, 250.0]], [[0, 100, 250]]),
        ([[0.0, 257.0, 65535.0]], [[0, 1, 255]]),
        ([[-1.0, 0.0, 1.0]], [[0, 128, 255]]),
        ([[-3e38, 0.0, 3e38]], [[0, 128, 255]]),
        ([[-2.0, -2.0, -2.0]], [[0, 0, 0]]),
    ],
)
def test_floats_are_scaled_by_their_range(
    values: list[list[float]], expected: list[list[int]]
) -> None:
    pixels, notes = decode(encode(Image.fromarray(np.float32(values)), "TIFF"), "x")
    np.testing.assert_allclose(pixels[..., 0], expected, atol=1)
    assert note_of(notes) == "of floats or 32 bits a value, scaled by their range"


def test_whole_numbers_of_32_bits_are_scaled_alike() -> None:
    data = encode(Image.fromarray(np.array([[0, 1000, 65535]], np.int32)), "TIFF")
    assert decode_image(data, "x")[0, :, 0].tolist() == [0, 4, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float) -> None:
    data = encode(Image.fromarray(np.float32([[0, value]])), "TIFF")
    with pytest.raises(
        InputError, match=r"image a\.tif must be readable, got: pixels that are not"
    ):
        decode(data, "a.tif")


def test_lab_grey_stays_grey() -> None:
    lab = np.zeros((2, 3, 3), np.uint8)
    lab[..., 0] = (0, 128, 255)
    pixels, notes = decode(encode(Image.fromarray(lab, "LAB"), "TIFF"), "x")
    assert np.ptp(pixels.astype(int), axis=2).max() <= 3
    assert pixels[0, 0].max() <= 2
    assert pixels[0, 2].min() >= 252
    assert note_of(notes).startswith("in LAB")


def test_plain_images_have_no_note() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        assert decode(encode(Image.new(mode, (3, 2))), "x")[1] == 0


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(data: bytes, chunk: bytes) -> bytes:
    return data[:33] + chunk + data[33:]  # behind the header


def jpeg_with(data: bytes, marker: int, content: bytes) -> bytes:
    start = 4 + int.from_bytes(data[4:6], "big")  # behind JFIF's block
    return (
        data[:start]
        + bytes((0xFF, marker))
        + struct.pack(">H", len(content) + 2)
        + content
        + data[start:]
    )


BOMB = zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
        png_chunk(b"eXIf", b"MM\0*\0\0\xff\xff"),
        png_chunk(b"eXIf", b""),
        png_chunk(b"zTXt", b"Comment\0\0" + BOMB),
        png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
        png_chunk(b"zTXt", b"Comment\0\0rubbish"),
        png_chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?",
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"gAMA", b"\0"),
        png_chunk(b"iCCP", b"name\0\0rubbish"),
        png_chunk(b"cHRM", b"\1"),
        png_chunk(b"acTL", b"\1"),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
def test_no_chunk_beside_the_pixels_spoils_a_png(chunk: bytes) -> None:
    pixels = gradient()
    data = with_chunk(encode(Image.fromarray(pixels)), chunk)
    found, notes = decode(data, "x")
    np.testing.assert_array_equal(found, pixels)
    assert set(noted([notes])) <= {NOTES[0]}


def test_a_broken_exif_block_is_counted_and_taken_as_upright() -> None:
    plain = encode(Image.fromarray(gradient(16, 16)), "JPEG", dpi=(72, 72))
    for content in (b"Exif\0\0" + b"\0" * 64, b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        found, notes = decode(jpeg_with(plain, 0xE1, content), "x")
        np.testing.assert_array_equal(found, decode_image(plain, "x"))
        assert set(noted([notes])) <= {NOTES[0]}
    found, notes = decode(jpeg_with(plain, 0xE1, b"Exif\0\0" + b"\0" * 64), "x")
    assert note_of(notes) == "whose metadata cannot be read, taken as upright"


def test_a_file_that_stays_broken_without_its_metadata_is_refused_for_what_it_is() -> None:
    plain = encode(Image.fromarray(gradient(16, 16)), "JPEG", dpi=(72, 72))
    data = jpeg_with(plain, 0xE1, b"Exif\0\0" + bytes(64))
    for length in range(20, len(data) // 2, 7):
        with pytest.raises(InputError, match="^image a must be ") as refusal:
            decode_image(data[:length], "a")
        assert "BytesIO" not in str(refusal.value)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_changes_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    data = encode(Image.fromarray(gradient()), exif=exif.tobytes())
    np.testing.assert_array_equal(decode_image(data, "x"), gradient())


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE])
def test_random_metadata_never_spoil_a_jpeg(marker: int) -> None:
    plain = encode(Image.fromarray(gradient(16, 16)), "JPEG", dpi=(72, 72))
    random = np.random.default_rng(marker)
    starts = (b"Exif\0\0II*\0\x08\0\0\0", b"MPF\0II*\0\x08\0\0\0", b"ICC_PROFILE\0\1\1", b"")
    for start in starts:
        for _ in range(10):
            content = start + random.bytes(40)
            if start.startswith(b"Exif"):
                content = content.replace(b"\x12\x01", b"??")  # no orientation by chance
            pixels = decode_image(jpeg_with(plain, marker, content), "x")
            np.testing.assert_array_equal(pixels, decode_image(plain, "x"))


def test_a_limit_of_ones_own_is_another_limit() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encode(Image.new("RGB", (30, 40)))
    assert decode_image(data, "a", max_pixels=1200).shape == (40, 30, 3)
    with pytest.raises(InputError, match=r"30 x 40 pixels.* limit of 1,199; `max_mega"):
        decode_image(data, "a", max_pixels=1199)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_limit_may_be_above_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(Image.new("RGB", (30, 40)))
    with pytest.raises(InputError, match="limit"):
        decode_image(data, "a")
    assert decode_image(data, "a", max_pixels=2000).shape == (40, 30, 3)
