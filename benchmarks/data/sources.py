"""Where images come from: scikit-learn's digits, a folder, a parquet file, arrays.

Every reader checks at once what is cheap to check (labels, classes on both sides, columns) and
raises `InputError`; damaged images are found by `verify_images`, which decodes each of them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    natural_key,
    split_off,
    verify_images,
)
from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.data.stores import ArrayStore, FileStore
from cl_adapters.errors import InputError, unknown_name
from cl_adapters.paths import user_path
from cl_adapters.plugins.registry import Registry, check_call, is_reference

__all__ = [
    "SOURCES",
    "SOURCE_NAMES",
    "ImageSource",
    "LabelledImages",
    "array_source",
    "class_folders",
    "digits_source",
    "folder_source",
    "image_paths",
    "in_text_order",
    "open_source",
    "parquet_source",
    "split_folders",
    "verify_images",
]

SUFFIXES: Final = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
SPLIT_FOLDERS: Final = ("train", "test", "val", "validation")


def digits_source(seed: int = 0) -> ImageSource:
    """Returns scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, no download.

    Args:
        seed: Changes the split. It belongs to the protocol, not to the run: leave it alone.

    Example:
        >>> source = digits_source()
        >>> len(source.train), len(source.test), source.train.read(0).shape
        (1347, 450, (8, 8, 3))
    """
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = LabelledImages(
        ArrayStore("digits", pixels),
        np.arange(len(pixels)),
        digits.target.astype(np.int64),
        tuple(str(digit) for digit in range(10)),
    )
    train, test = split_off(images, 0.25, seed)
    return ImageSource("digits", images.classes, train, test)


def folder_source(path: str | Path, *, test_share: float = 0.25) -> ImageSource:
    """Returns the images of a folder, one class a sub-folder.

    With `train/` and `test/` (or `val/`, `validation/`) inside, these are the two sets; without,
    each class is split by the content of its images. Hidden files, files without an image suffix,
    linked folders and links that lead out of the folder are left aside.

    Args:
        path: The folder.
        test_share: Share of each class that goes to test where the folder holds no split.

    Raises:
        InputError: If there are no class folders, or a class lacks images on one side.
    """
    root = user_path(path)
    if not root.is_dir():
        raise InputError(f"image folder {str(root)!r} must exist and be a directory")
    try:
        return _read_folder(root, test_share)
    except OSError as error:
        raise InputError(f"image folder {str(root)!r} must be readable, got: {error}") from error


def _read_folder(root: Path, test_share: float) -> ImageSource:
    name = root.resolve().name
    found = split_folders(root)
    if not found:
        images = _scan(root, root)
        train, test = split_off(images, test_share)
        return ImageSource(name, images.classes, train, test)
    if len(found) != 2 or found[0] != "train":
        raise InputError(
            f"image folder {str(root)!r} must hold train/ and one of test/, val/ and validation/, "
            f"got {', '.join(found)}"
        )
    train, test = _scan(root / "train", root), _scan(root / found[1], root)
    for extra, where in ((test, train), (train, test)):
        for missing in sorted(set(extra.classes) - set(where.classes), key=natural_key):
            raise InputError(
                f"class {missing!r} of {str(root)!r} must have a folder in both train and "
                f"{found[1]}, got one in {found[extra is test]} only"
            )
    return ImageSource(name, train.classes, train, test)


def split_folders(root: Path) -> list[str]:
    """Returns the names of the split folders of an image folder, none if it holds the classes."""
    found = [split for split in SPLIT_FOLDERS if (root / split).is_dir()]
    # Any other `train` is a class: CIFAR-100 has one.
    is_split = {"train"} < set(found) or any(_has_folders(root / split) for split in found)
    return found if is_split else []


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the class folders of a folder in natural order."""
    folders = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
    return sorted((entry.name for entry in folders if _is_shown(entry.name)), key=natural_key)


def _scan(folder: Path, root: Path) -> LabelledImages:
    """Lists the class folders of one folder and the images below them, sorted."""
    inside = root.resolve()
    classes = class_folders(folder)
    if not classes:
        raise InputError(f"image folder {str(folder)!r} must hold class folders, got none")
    paths: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(classes):
        found = sorted(image_paths(folder / name, inside), key=natural_key)
        if not found:
            raise InputError(
                f"class folder {str(folder / name)!r} must hold images ({' '.join(SUFFIXES)}), "
                "got none"
            )
        paths += [f"{name}/{path}" for path in found]
        targets += [target] * len(found)
    return LabelledImages(
        FileStore(folder, paths), np.arange(len(paths)), np.array(targets, np.int64), tuple(classes)
    )


def image_paths(folder: Path, inside: Path) -> Iterator[str]:
    """Yields the images at or below a class folder, as paths relative to it.

    Args:
        folder: The class folder.
        inside: The whole image folder, resolved; links that lead out of it are passed over.
    """
    # os.walk does not enter linked folders, so that loops end; files may be linked within the root.
    for where, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if _is_shown(name)]
        for name in files:
            path = Path(where, name)
            if not _is_shown(name) or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            if not path.is_symlink() or path.resolve().is_relative_to(inside):
                yield path.relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() and _is_shown(entry.name) for entry in folder.iterdir())


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def in_text_order(source: ImageSource) -> ImageSource:
    """Returns a folder's images with its classes sorted as text, `10` before `2`.

    torchvision's `ImageFolder` numbers them so. Other sources bring the numbers of their classes
    along and are returned as they are.
    """
    names = tuple(sorted(source.classes))
    if names == source.classes or not isinstance(source.train.store, FileStore):
        return source
    place = np.array([names.index(name) for name in source.classes], dtype=np.int64)
    sets = (
        LabelledImages(each.store, each.rows, place[each.targets], names, each.domains)
        for each in (source.train, source.test)
    )
    return ImageSource(source.name, names, *sets)


def array_source(
    name: str,
    train: tuple[npt.ArrayLike, npt.ArrayLike],
    test: tuple[npt.ArrayLike, npt.ArrayLike],
    classes: Sequence[str] | None = None,
) -> ImageSource:
    """Returns a source over arrays.

    Args:
        name: Name for reports and run directories.
        train: Images and targets. Images are uint8, or floats in [0, 1], of shape (N, H, W, 3) or
            (N, H, W); targets are integers from 0, (N,).
        test: Images and targets of the test set.
        classes: Class names by target; the numbers themselves by default.

    Raises:
        InputError: If a shape, a pixel or a target breaks these rules; the text names the sample.

    Example:
        >>> grey = np.full((2, 8, 8), 0.5)
        >>> array_source("grey", (grey, [0, 1]), (grey, [0, 1])).train.read(0)[0, 0]
        array([128, 128, 128], dtype=uint8)
    """
    split_targets = [_as_targets(f"{name} train", train[1]), _as_targets(f"{name} test", test[1])]
    if classes is None:
        classes = [
            str(index) for index in range(max(int(each.max()) for each in split_targets) + 1)
        ]
    sets = [
        _labelled(f"{name} {split}", images, targets, tuple(classes))
        for split, images, targets in zip(
            ("train", "test"), (train[0], test[0]), split_targets, strict=True
        )
    ]
    return ImageSource(name, tuple(classes), sets[0], sets[1])


def _labelled(
    label: str, images: npt.ArrayLike, targets: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> LabelledImages:
    pixels = _as_pixels(label, np.asarray(images))
    if len(pixels) != len(targets):
        raise InputError(
            f"{label} must have as many images as targets, got {len(pixels)} and {len(targets)}"
        )
    for sample in np.flatnonzero((targets < 0) | (targets >= len(classes))):
        raise InputError(
            f"target of sample {sample} of {label} must lie in 0 to {len(classes) - 1}, "
            f"got {targets[sample]}"
        )
    return LabelledImages(ArrayStore(label, pixels), np.arange(len(pixels)), targets, classes)


def _as_targets(label: str, targets: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.array(targets)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise InputError(
            f"targets of {label} must be a non-empty vector of integers, got {array.dtype} of "
            f"shape {array.shape}"
        )
    return array.astype(np.int64)


def _as_pixels(label: str, images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not is_image or 0 in images.shape[1:]:
        raise InputError(
            f"images of {label} must have shape (N, H, W, 3) or (N, H, W), got {images.shape}"
        )
    if images.dtype == np.uint8:
        return images.copy()
    if images.dtype.kind != "f":
        raise InputError(f"images of {label} must be uint8 or float, got {images.dtype}")
    # The comparison is false for NaN.
    is_bad = ~((images >= 0) & (images <= 1)).all(axis=tuple(range(1, images.ndim)))
    for sample in np.flatnonzero(is_bad):
        pixels = images[sample]
        value = pixels[~((pixels >= 0) & (pixels <= 1))][0]
        raise InputError(
            f"pixels of sample {sample} of {label} must be finite and lie in [0, 1], got {value}"
        )
    scaled: npt.NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return scaled


SOURCES: Final[dict[str, Callable[[], ImageSource]]] = {"digits": digits_source}


def _accept(value: object) -> Callable[[], ImageSource]:
    check_call(value)
    opened = cast("Callable[[], ImageSource]", value)

    def make() -> ImageSource:
        source = opened()
        if not isinstance(source, ImageSource):
            raise InputError(f"a stream's function must return an ImageSource, got {source!r}")
        return source

    make.__doc__ = value.__doc__
    return make


SOURCE_NAMES: Final = Registry("stream", "cl_adapters.streams", SOURCES, _accept)


def open_source(name: str | Path) -> ImageSource:
    """Returns the source of a name or at a path.

    Args:
        name: `digits`, a stream of one's own (`file.py:name`, or of an installed package), the path
            of an image folder, of a `.parquet` file or of a folder of them.

    Raises:
        InputError: If it is neither a known name nor a path that can be read as images.
    """
    path = user_path(name)
    if isinstance(name, str) and _is_named(name, path):
        return SOURCE_NAMES.find(name)()
    is_table = path.suffix.lower() == ".parquet"
    if path.is_dir():
        return parquet_source(path) if any(path.glob("*.parquet")) else folder_source(path)
    if path.is_file() and is_table:
        return parquet_source(path)
    if is_table or path.is_file() or len(path.parts) > 1:
        raise InputError(
            f"data {str(name)!r} must be an image folder or a .parquet file that exists"
        )
    raise unknown_name("stream or data path", str(name), SOURCES)


def _is_named(name: str, path: Path) -> bool:
    # A folder with a colon in its name is a folder.
    could_be = is_reference(name) or (len(path.parts) == 1 and name in SOURCE_NAMES)
    return name in SOURCES or (could_be and not path.exists())
