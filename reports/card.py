"""A card for people beside every bundle: Markdown, with the metadata block that model hubs read.

What the model was trained on and in what order, what was measured, what it cannot do, how to load
it. Numbers come from the run's own predictions; a model without a run has none.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cl_adapters.bundle.sheet import Sheet
from cl_adapters.errors import listed
from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.groups import group_runs
from cl_adapters.reports.load import Run, measure
from cl_adapters.reports.tested import untested_classes

__all__ = ["CURVE", "METRICS", "UNTESTED", "card", "curve_picture", "measured_so_far"]

CURVE: Final = "accuracy.png"  # beside the card

METRICS: Final = (
    ("a_last_micro", "accuracy over all classes after the last experience", "%"),
    ("a_avg_micro", "the same, mean over the experiences", "%"),
    ("forgetting_from_best", "forgetting: fall from the best accuracy of an experience", "points"),
    ("ece", "calibration error: gap between confidence and accuracy", "%"),
)
# What a sheet's extras say where classes were learned and not tested: their labels.
UNTESTED: Final = "untested"
_OVER: Final = ("over all classes", "over the classes that were tested")
_MOST_CLASSES: Final = 1000  # listed with their accuracy
_ALWAYS: Final = (
    (
        "It answers with one of its classes whatever it is shown: an image of anything else gets a "
        "name too, unless a rejection is asked for."
    ),
    (
        "Its numbers hold for images like those it was tested on; another camera, light or crop "
        "may change them."
    ),
    (
        "What classes are new and when was decided by the order above; another order gives other "
        "numbers."
    ),
)


def measured_so_far(folder: Path) -> Run:
    """Returns what was measured of a run up to its last finished experience.

    Args:
        folder: The run directory.

    Raises:
        InputError: If its predictions or events are damaged.
    """
    record = RunRecord.read(folder)
    done = record.experiences_done
    return measure(folder, replace(record, experiences=record.experiences[:done]))


def card(sheet: Sheet, run: Run | None) -> str:
    """Returns the card of a bundle, as Markdown.

    Args:
        sheet: What is known of the model.
        run: What was measured; None where nothing was.
    """
    if run is not None:
        sheet = replace(sheet, extras={**sheet.extras, UNTESTED: untested_classes(run)})
    parts = [_metadata(sheet), _head(sheet), _training(sheet)]
    if run is not None:
        parts += [_results(sheet, run), _classes(sheet, run)]
    return "\n\n".join([*parts, _limits(sheet), _loading(sheet)]) + "\n"


def curve_picture(run: Run) -> bytes:
    """Returns the curve of a run's accuracy as PNG, which the card shows as `CURVE`."""
    # Slow to load.
    from cl_adapters.reports.figures.curves import accuracy_figure  # noqa: PLC0415
    from cl_adapters.reports.figures.files import figure_style  # noqa: PLC0415

    (group,) = group_runs([run])
    buffer = io.BytesIO()
    with figure_style():
        accuracy_figure(group).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _metadata(sheet: Sheet) -> str:
    licence = sheet.backbone.get("license") or "other"
    tags = ["continual-learning", "class-incremental", "adapters", sheet.strategy]
    lines = [
        "---",
        "library_name: cl-adapters",
        "pipeline_tag: image-classification",
        f"license: {_quoted(licence)}",
        f"base_model: {_quoted(sheet.backbone['name'])}",
        "tags:",
        *(f"- {_quoted(tag)}" for tag in tags),
    ]
    if sheet.metrics:
        lines += [
            "metrics:", "- accuracy", "model-index:", f"- name: {_quoted(sheet.strategy)}",
            "  results:", "  - task:", "      type: image-classification", "    dataset:",
            f"      name: {_quoted(sheet.trained_on.get('stream', 'unknown'))}",
            "      type: image-stream", "    metrics:",
        ]  # fmt: skip
        for name, meaning, _ in METRICS:
            if name in sheet.metrics:
                lines += [
                    f"    - type: {name}",
                    f"      name: {_quoted(_meant(meaning, sheet))}",
                    f"      value: {sheet.metrics[name]:.4g}",
                ]
    return "\n".join([*lines, "---"])


def _meant(meaning: str, sheet: Sheet) -> str:
    return meaning.replace(*_OVER) if sheet.extras.get(UNTESTED) else meaning


def _quoted(text: object) -> str:
    # Double-quoted YAML is JSON's text, whatever stands in a name.
    plain = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{plain}"'


def _head(sheet: Sheet) -> str:
    classes = sum(1 for _ in _known(sheet))
    whole = sheet.run.get("experiences", len(sheet.learned))
    part = "" if whole == len(sheet.learned) else f", of {whole} planned"
    return (
        f"# {_plain(sheet.strategy)} on {_plain(str(sheet.trained_on.get('stream', 'images')))}\n\n"
        f"An image classifier that learned {classes} classes one after the other, in "
        f"{len(sheet.learned)} experiences{part}, by the continual-learning method "
        f"{_code(sheet.strategy)} on a frozen Vision Transformer, "
        f"{_code(sheet.backbone['name'])}. Earlier images were not kept, unless the method says "
        "so."
    )


def _training(sheet: Sheet) -> str:
    rows = [["experience", "new classes", "further classes"]]
    seen: set[int] = set()
    for number, labels in enumerate(sheet.learned):
        new = [sheet.classes[label] for label in labels if label not in seen]
        again = [sheet.classes[label] for label in labels if label in seen]
        seen |= set(labels)
        name = sheet.experiences[number] if number < len(sheet.experiences) else ""
        rows.append([name or str(number), ", ".join(new), ", ".join(again)])
    options = ", ".join(f"{name}={value}" for name, value in sheet.options.items()) or "defaults"
    facts = [
        (
            f"Options: {_plain(options)}; fidelity {sheet.fidelity}; seed {sheet.seed}; "
            f"{sheet.precision}."
        ),
        (
            f"Input: {sheet.pixels.get('image_size')} x {sheet.pixels.get('image_size')} pixels, "
            f"{sheet.pixels.get('interpolation', 'bicubic')} resize and centre crop; training "
            f"augmentation: {sheet.pixels.get('augment', 'none')}."
        ),
        (
            f"Backbone: digest {_code(sheet.backbone.get('digest'))}, licence "
            f"{sheet.backbone.get('license') or 'unknown: see where its weights come from'}. The "
            "licence of the images is not known here."
        ),
    ]
    return "\n\n".join(["## What it was trained on, in order", _table(rows), *facts])


def _results(sheet: Sheet, run: Run) -> str:
    rows = [["measured on the run's test images", "value"]]
    for name, meaning, unit in METRICS:
        value = run.values.get(name, math.nan)
        if not math.isnan(value):
            rows.append([_meant(meaning, sheet), f"{value:.2f} {unit}"])
    names = [name or str(place) for place, name in enumerate(sheet.experiences)]
    over = _meant("accuracy over all classes", sheet)
    curve = [["after experience", f"{over} so far", "forgetting so far"]]
    for name, seen, lost in zip(names, run.seen, run.forgetting, strict=False):
        curve.append([name, f"{seen:.2f} %", "" if math.isnan(lost) else f"{lost:.2f} points"])
    picture = f"![{over.capitalize()} so far, after each experience]({CURVE})"
    told = _not_tested(sheet)
    parts = ["## What it can do", told, _table(rows), picture, _table(curve)]
    return "\n\n".join(filter(None, parts))


def _not_tested(sheet: Sheet) -> str:
    left = sheet.extras.get(UNTESTED, ())
    if not left:
        return ""
    every = sum(1 for _ in _known(sheet))
    names = _plain(listed(sheet.classes[label] for label in left))
    return (
        f"{len(left)} of the {every} classes were not tested after the last experience, as no test "
        f"image of theirs was there: {names}. The numbers are over the others."
    )


def _classes(sheet: Sheet, run: Run) -> str:
    worst = run.classes.sort_values(kind="stable")
    rows = [["class", "accuracy at the end"]]
    for label, value in worst.head(_MOST_CLASSES).items():
        rows.append([sheet.classes[int(str(label))], f"{value:.1f} %"])
    half = float(np.mean(worst < 50)) if len(worst) else 0.0
    told = f"{half:.0%} of the classes are right less than half of the time." if half else ""
    return "\n\n".join(filter(None, ["### Classes, the worst first", told, _table(rows)]))


def _limits(sheet: Sheet) -> str:
    points = list(_ALWAYS)
    if sheet.run.get("state") != "finished":
        points.append("Its run is not finished: later experiences are missing.")
    if sheet.extras.get(UNTESTED):
        points.append(_not_tested(sheet))
    if not sheet.metrics:
        points.append("Nothing was measured of it.")
    return "\n\n".join(["## What it cannot do", "\n".join(f"- {each}" for each in points)])


def _loading(sheet: Sheet) -> str:
    weights = sheet.backbone.get("weights")
    is_local = weights not in (None, "random")
    note = (
        "\n\nThe frozen backbone is not in this folder unless `backbone.safetensors` is: then "
        "`weights=` names its file."
        if is_local
        else ""
    )
    return (
        "## How to load it\n\n"
        "```python\nimport cl_adapters as cla\n\n"
        'model = cla.load("THIS FOLDER")\n'
        'answers = model.predict(["photo.jpg"])\n'
        "answers.names, answers.confidence\n```\n\n"
        "```sh\ncl-adapters predict THIS_FOLDER photos/ --top 3\n```" + note
    )


def _known(sheet: Sheet) -> Iterator[int]:
    yield from sorted({label for each in sheet.learned for label in each})


def _table(rows: Sequence[Sequence[Any]]) -> str:
    header, *body = [[_plain(str(cell)).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: object) -> str:
    return f"`{' '.join(str(text).replace('`', '').split())}`"


def _plain(text: str) -> str:
    # A class may be called anything: no markup, no new line.
    spaced = " ".join(text.split())
    return "".join(f"\\{char}" if char in "`*_[]<>#" else char for char in spaced)
