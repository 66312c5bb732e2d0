"""What a record says of the images that its run read, as sentences for a console and a page."""

from collections.abc import Mapping

__all__ = ["data_sentences"]


def data_sentences(data: object) -> list[str]:
    """Returns the sentences of a record's `data`; what is not as a run writes it is passed over.

    Example:
        >>> data_sentences({"layout": "class folders", "left_out": {"hidden": 2}})
        ['data: class folders', 'data: 2 left out (hidden: 2)']
        >>> data_sentences({"images": {"in CMYK, turned into RGB as Pillow does": 20}})
        ['data: 20 images in CMYK, turned into RGB as Pillow does']
        >>> data_sentences({"quick_look": "5 of 43 classes"})
        ['quick look: 5 of 43 classes']
    """
    if not isinstance(data, Mapping):
        return []
    layout, left, images = data.get("layout"), data.get("left_out"), data.get("images")
    part = data.get("quick_look")
    said = [f"quick look: {part}"] if isinstance(part, str) and part else []
    said += [f"data: {layout}"] if isinstance(layout, str) and layout else []
    counts = _counts(left)
    if counts:
        total = sum(counts.values())
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.items())
        said.append(f"data: {total:,} left out ({reasons})")
    said += [
        f"data: {count:,} image{'s' * (count != 1)} {note}"
        for note, count in _counts(images).items()
    ]
    return said


def _counts(values: object) -> dict[str, int]:
    if not isinstance(values, Mapping):
        return {}
    return {
        str(name): count
        for name, count in values.items()
        if isinstance(count, int) and not isinstance(count, bool) and count > 0
    }
