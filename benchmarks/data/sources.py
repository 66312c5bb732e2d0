"""Where images come from: scikit-learn's digits, a folder, a table, arrays.

Every reader checks at once what is cheap to check (labels, classes on both sides, columns) and
raises `InputError`; damaged images are found by `verify_images`, which decodes each of them.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from cl_adapters.benchmarks.data.csv_source import CSV_SUFFIXES, csv_source, label_tables
from cl_adapters.benchmarks.data.folders import folder_source
from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    split_off,
)
from cl_adapters.benchmarks.data.parquet import parquet_source
from cl_adapters.benchmarks.data.reading import AS_IT_IS, ReadOptions, refuse_options
from cl_adapters.benchmarks.data.stores import ArrayStore, FileStore
from cl_adapters.benchmarks.data.table_files import table_files
from cl_adapters.benchmarks.data.walking import inner_folders
from cl_adapters.errors import InputError, listed, unknown_name
from cl_adapters.paths import user_path
from cl_adapters.plugins.registry import Registry, check_call, is_reference

__all__ = [
    "SOURCES",
    "SOURCE_NAMES",
    "ImageSource",
    "LabelledImages",
    "array_source",
    "digits_source",
    "folder_source",
    "in_text_order",
    "open_source",
    "parquet_source",
]

_DEEPEST: Final = 4  # folders around images that a table names


def digits_source(seed: int = 0) -> ImageSource:
    """Returns scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, no download.

    Args:
        seed: Changes the split. It belongs to the protocol, not to the run: leave it alone.

    Example:
        >>> source = digits_source()
        >>> len(source.train), len(source.test), source.train.read(0).shape
        (1347, 450, (8, 8, 3))
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to load, for this source only

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


def in_text_order(source: ImageSource) -> ImageSource:
    """Returns a folder's images with its classes sorted as text, `10` before `2`.

    torchvision's `ImageFolder` numbers them so. Other sources bring the numbers of their classes
    along and are returned as they are.
    """
    names = tuple(sorted(source.classes))
    if names == source.classes or not isinstance(source.train.store, FileStore):
        return source
    place = np.array([names.index(name) for name in source.classes], dtype=np.int64)
    train, test = (
        LabelledImages(each.store, each.rows, place[each.targets], names, each.domains)
        for each in (source.train, source.test)
    )
    return replace(source, classes=names, train=train, test=test)


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


def open_source(name: str | Path, options: ReadOptions = AS_IT_IS) -> ImageSource:
    """Returns the source of a name or at a path.

    Args:
        name: `digits`, a stream of one's own (`file.py:name`, or of an installed package), the path
            of an image folder, of a `.parquet` file or a folder of them, of a `.csv` file or a
            folder with one and images.
        options: What the user says of how to read a path.

    Raises:
        InputError: If it is neither a known name nor a path that can be read as images.
    """
    path = user_path(name)
    if isinstance(name, str) and _is_named(name, path):
        refuse_options(options, tuple(vars(options)), f"the stream {name!r}")
        return SOURCE_NAMES.find(name)()
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path, options)
    if path.is_file() and suffix in (".parquet", *CSV_SUFFIXES):
        read = parquet_source if suffix == ".parquet" else csv_source
        return read(path, options=options)
    if path.is_file() or suffix in (".parquet", *CSV_SUFFIXES) or len(path.parts) > 1:
        raise InputError(
            f"data {str(name)!r} must be an image folder, a .parquet file or a .csv file that "
            f"exists{_several(name)}{_near(path)}"
        )
    error = unknown_name("stream or data path", str(name), SOURCES)
    several = _several(name)
    raise InputError(f"{error}; there is no {str(path.absolute())!r}{several}{_near(path)}")


def _open_folder(path: Path, options: ReadOptions) -> ImageSource:
    try:
        if table_files(path):
            return parquet_source(path, options=options)
        tables = label_tables(path)
        is_flat = bool(tables) and not _has_classes(path)
    except OSError as error:
        raise InputError(f"image folder {str(path)!r} must be readable, got: {error}") from error
    if is_flat and len(tables) > 1:
        raise InputError(
            f"{str(path)!r} must hold one table of labels, got "
            f"{listed(table.name for table in tables)}; give one of them as the data"
        )
    if is_flat:
        return csv_source(tables[0], options=options)
    for table in tables:
        _refuse_other_labels(path, table, options)
    return folder_source(path, options=options)


def _has_classes(path: Path) -> bool:
    # More than one folder beside each other: else only a table can name classes.
    for _ in range(_DEEPEST):
        names = inner_folders(path)
        if len(names) != 1:
            return len(names) > 1
        path = path / names[0]
    return False


def _refuse_other_labels(path: Path, table: Path, options: ReadOptions) -> None:
    """Refuses folders that are no classes: a table beside them gives their images other labels."""
    try:
        source = csv_source(table, options=replace(options, class_depth=None, domain_folders=None))
    except InputError:  # a table of something else
        return
    labels: dict[str, set[int]] = defaultdict(set)
    for images in (source.train, source.test):
        for row, target in zip(images.rows.tolist(), images.targets.tolist(), strict=True):
            labels[source.train.store.name(row).rpartition("/")[0]].add(target)
    if any(len(each) > 1 for each in labels.values()):
        raise InputError(
            f"{str(path)!r} must say what the classes are: {table.name!r} gives images of one "
            f"folder different labels; give {str(table)!r} as the data, or move it elsewhere"
        )


def _several(name: str | Path) -> str:
    return "; several data sets are a stream of scenario 'datasets'" if "," in str(name) else ""


def _near(path: Path) -> str:
    """Returns the entries beside a path that does not exist and that it may have meant."""
    try:
        known = [] if path.exists() else [entry.name for entry in path.absolute().parent.iterdir()]
    except OSError:
        return ""
    near = get_close_matches(path.name, known, n=3, cutoff=0.6)
    return f"; beside it are {listed(near)}" if near else ""


def _is_named(name: str, path: Path) -> bool:
    # A folder with a colon in its name is a folder.
    could_be = is_reference(name) or (len(path.parts) == 1 and name in SOURCE_NAMES)
    return name in SOURCES or (could_be and not path.exists())
