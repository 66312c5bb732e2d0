"""Reads images from class folders, in one of the layouts of `layouts`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cl_adapters.benchmarks.data.images import (
    ImageSource,
    LabelledImages,
    natural_key,
    split_off,
)
from cl_adapters.benchmarks.data.layouts import (
    ClassFolder,
    Layout,
    Part,
    class_folders,
    find_layout,
)
from cl_adapters.benchmarks.data.reading import (
    AS_IT_IS,
    LeftOut,
    Reading,
    ReadOptions,
    counted,
    refuse_options,
)
from cl_adapters.benchmarks.data.split_names import roles_of
from cl_adapters.benchmarks.data.stores import FileStore
from cl_adapters.benchmarks.data.walking import (
    SUFFIXES,
    Walk,
    files_below,
    files_beside,
    has_images,
    inner_folders,
)
from cl_adapters.errors import InputError, listed
from cl_adapters.paths import user_path

__all__ = ["class_images", "folder_source", "left_in"]


def folder_source(
    path: str | Path, *, test_share: float = 0.25, options: ReadOptions = AS_IT_IS
) -> ImageSource:
    """Returns the images of a folder, one class a sub-folder.

    With folders inside that are called `train` and `test` in any common spelling (`Training/`,
    `seg_test/`, `val/`, `validation/` …) these are the two sets; without, each class is split by
    the content of its images. `layouts` says more. Links are followed, to files and to folders
    alike. Hidden files, files without an image suffix and broken links are left out, and counted in
    the source's `reading`.

    Args:
        path: The folder.
        test_share: Share of each class that goes to test where the folder holds no split.
        options: What the user says of the folder.

    Raises:
        InputError: If the folder has no layout that is understood, or a class lacks images on one
            side.
    """
    root = user_path(path)
    refuse_options(options, ("image_column", "label_column"), f"the image folder {str(path)!r}")
    if not root.is_dir():
        raise InputError(f"image folder {str(root)!r} must exist and be a directory")
    try:
        layout = find_layout(root, options)
        sets = [_Set(layout, part, options) for part in layout.parts]
        source = _joined(root.resolve().name, sets, test_share)
        left = [*layout.left, *(each for one in sets for each in one.left)]
    except OSError as error:
        raise InputError(f"image folder {str(root)!r} must be readable, got: {error}") from error
    left.sort(key=lambda each: natural_key(each.path))
    return replace(source, reading=Reading(layout=layout.said, left_out=tuple(left)))


def class_images(path: str | Path, options: ReadOptions = AS_IT_IS) -> LabelledImages:
    """Returns all images of a folder of classes; where it holds a split, those to test on.

    Args:
        path: The folder.
        options: What the user says of it.

    Raises:
        InputError: If the folder has no layout that is understood, or a class has no images.
    """
    root = user_path(path)
    if not root.is_dir():
        raise InputError(f"image folder {str(root)!r} must exist and be a directory")
    try:
        layout = find_layout(root, options)
        return _Set(layout, layout.parts[-1], options).images
    except OSError as error:
        raise InputError(f"image folder {str(root)!r} must be readable, got: {error}") from error


class _Set:
    """The images of one part of a folder, and what lies between them."""

    def __init__(self, layout: Layout, part: Part, options: ReadOptions) -> None:
        self.layout = layout
        self.part = part
        classes = class_folders(part, layout.depth, domain_folders=options.domain_folders)
        if not classes:
            raise InputError(_no_classes(part.folder))
        self.folders = {each.name: each.folder for each in classes}
        self.names = tuple(each.name for each in classes)
        if options.domain_folders:  # a class has a folder in each of several domains
            self.names = tuple(sorted(self.folders, key=natural_key))
        self.left = left_in(layout, part, classes)
        self.images = self._scan(classes, options)

    def _scan(self, classes: Sequence[ClassFolder], options: ReadOptions) -> LabelledImages:
        paths: list[str] = []
        targets: list[int] = []
        domains: list[str] = []
        target_of = {name: target for target, name in enumerate(self.names)}
        for place, each in enumerate(classes):
            walk = files_below(self.part.folder / each.folder)
            if options.class_depth is None or not walk.images:
                _check_class(self.part.folder / each.folder, walk)
            self.left += _under(self.layout, self.part, each.folder, walk.left)
            paths += [f"{each.folder}/{path}" for path in walk.images]
            target = target_of[each.name] if options.domain_folders else place
            targets += [target] * len(walk.images)
            domains += [each.domain] * len(walk.images)
        store = FileStore(self.part.folder, paths, options.max_pixels)
        labels = np.array(targets, np.int64)
        known = np.array(domains) if options.domain_folders else None
        return LabelledImages(store, np.arange(len(paths)), labels, self.names, known)


def left_in(layout: Layout, part: Part, classes: Sequence[ClassFolder]) -> list[LeftOut]:
    """Lists what lies in a part beside its classes.

    Raises:
        OSError: If a folder cannot be read.
    """
    beside = files_beside(part.folder, [each.folder for each in classes])
    return list(_under(layout, part, "", beside))


def _under(layout: Layout, part: Part, folder: str, left: Sequence[LeftOut]) -> Iterator[LeftOut]:
    above = (part.folder / folder).relative_to(layout.root)
    for each in left:
        yield LeftOut((above / each.path).as_posix(), each.reason)


def _joined(name: str, sets: Sequence[_Set], test_share: float) -> ImageSource:
    if len(sets) == 1:
        images = sets[0].images
        train, test = split_off(images, test_share)
        return ImageSource(name, images.classes, train, test)
    learnt, tested = sets
    for one, other in ((tested, learnt), (learnt, tested)):
        for missing in sorted(set(one.folders) - set(other.folders), key=natural_key):
            sides = [each.part.folder.relative_to(each.layout.root).as_posix() for each in sets]
            raise InputError(
                f"class {missing!r} of {str(learnt.layout.root)!r} must have a folder in both "
                f"{sides[0]} and {sides[1]}, got one in {sides[one is tested]} only"
            )
    return ImageSource(name, learnt.images.classes, learnt.images, tested.images)


def _check_class(folder: Path, walk: Walk) -> None:
    """Refuses a class folder without images of its own, with the readings that would be right."""
    if any("/" not in path for path in walk.images):
        return
    inner = inner_folders(folder)
    if not walk.images:
        reasons = ", ".join(dict.fromkeys(each.reason for each in walk.left))
        got = f"{counted(len(walk.left), 'file')} left out: {reasons}" if reasons else "none"
        raise InputError(
            f"class folder {str(folder)!r} must hold images ({' '.join(SUFFIXES)}), got {got}"
        )
    if len(roles_of(inner)) > 1:
        raise InputError(
            f"class folder {str(folder)!r} must hold images, got the splits {listed(inner)}; put "
            "the classes into the splits: train/<class>/ and test/<class>/"
        )
    raise InputError(
        f"class folder {str(folder)!r} must hold images, got {counted(len(inner), 'folder')} "
        f"({listed(inner)}): class_depth 2 takes these for the classes, class_depth 1 all below "
        f"{folder.name!r} for one class, and {str(folder)!r} given itself for a folder of classes"
    )


def _no_classes(folder: Path) -> str:
    said = f"image folder {str(folder)!r} must hold class folders, got none"
    if has_images(folder):
        said += (
            "; images without folders need a table with their names and labels: give a .csv file "
            "beside them"
        )
    return said
