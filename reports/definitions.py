"""The columns of the comparison: name, heading, formula, and which direction is better.

A metric appears in tables, figures and the page only under the name that stands here.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["COLUMNS", "DETECTION_COLUMNS", "MAIN_COLUMNS", "PHASES", "Column", "format_number"]

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the comparison.

    Attributes:
        name: Name of the metric, as in CSV files and anchors.
        heading: Heading for people.
        unit: Unit, empty for a pure number.
        better: Direction in which it improves; `neither` for a mere fact.
        digits: Digits after the point.
        formula: Definition as a formula.
        remark: Who uses it, or what to watch for.
    """

    name: str
    heading: str
    unit: str
    better: Better
    digits: int
    formula: str
    remark: str


def _score(name: str, heading: str, better: Better, formula: str, remark: str) -> Column:
    return Column(
        name=name,
        heading=heading,
        unit="%",
        better=better,
        digits=2,
        formula=formula,
        remark=remark,
    )


def _cost(name: str, heading: str, unit: str, digits: int, formula: str) -> Column:
    return Column(
        name=name,
        heading=heading,
        unit=unit,
        better="lower",
        digits=digits,
        formula=formula,
        remark="",
    )


# What is shown first, of `COLUMNS`.
MAIN_COLUMNS: Final = (
    "a_last_micro",
    "a_avg_micro",
    "forgetting_from_best",
    "added_parameters",
    "train_seconds",
)

COLUMNS: Final = (
    _score(
        "a_last_micro",
        "A_last, micro",
        "higher",
        "right predictions / test samples, over all classes, after the last experience T",
        "The A_last of PILOT, EASE and MOS. Not the task mean if sizes differ.",
    ),
    _score(
        "a_last_task_mean",
        "A_last, task mean",
        "higher",
        "mean over i ≤ T of R[T, i]",
        "The A_last of SEMA and RanPAC.",
    ),
    _score(
        "a_avg_micro",
        "A_avg, micro",
        "higher",
        "mean over t of (right predictions / test samples of the classes seen until t)",
        "Also written Ā or average incremental accuracy.",
    ),
    _score(
        "a_avg_task_mean",
        "A_avg, task mean",
        "higher",
        "mean over t of (mean over i ≤ t of R[t, i])",
        "The task variant of the same.",
    ),
    _score(
        "forgetting_from_best",
        "Forgetting from best",
        "lower",
        "mean over i < T of (max over i ≤ t ≤ T of R[t, i] - R[T, i])",
        "PILOT, PyCIL and Mammoth: the maximum includes T, so it is never negative.",
    ),
    _score(
        "forgetting_from_best_before",
        "Forgetting from best before",
        "lower",
        "mean over i < T of (max over i ≤ t < T of R[t, i] - R[T, i])",
        "Chaudhry et al. 2018, SEMA, Continuum: negative where the end is the best.",
    ),
    _score(
        "forgetting_from_first",
        "Forgetting from first",
        "lower",
        "mean over i < T of (R[i, i] - R[T, i])",
        "Avalanche: loss since the experience was learned.",
    ),
    _score(
        "bwt",
        "BWT",
        "higher",
        "mean over i < T of (R[T, i] - R[i, i])",
        "Backward transfer (GEM); the negative of forgetting from first.",
    ),
    _score(
        "fwt_without_baseline",
        "FWT, no baseline",
        "higher",
        "mean over i ≥ 1 of R[i - 1, i]",
        "Forward transfer (GEM) with nothing subtracted: records hold no untrained model.",
    ),
    _score(
        "ece",
        "ECE",
        "lower",
        "Σ over bins b of n_b / n · |accuracy(b) - confidence(b)|, after the last experience",
        "Expected calibration error, 15 bins of equal width over the confidence of the prediction.",
    ),
    Column(
        name="nll",
        heading="NLL",
        unit="",
        better="lower",
        digits=3,
        formula="mean of -ln p(target), after the last experience",
        remark="Negative log-likelihood in nats.",
    ),
    _cost(
        "added_parameters",
        "Added parameters",
        "",
        0,
        "parameters beside the frozen backbone, at the end",
    ),
    _cost(
        "kept_mebibytes",
        "Kept",
        "MiB",
        2,
        "size of the last checkpoint / 2²⁰: what going on or answering needs beside the backbone",
    ),
    _cost("train_seconds", "Training", "s", 1, "sum of the seconds of all training phases"),
    _cost("evaluation_seconds", "Evaluation", "s", 1, "sum of the seconds of all evaluations"),
    _cost(
        "passes_per_image",
        "Passes per image",
        "",
        2,
        "backbone passes for one test image, at the last evaluation",
    ),
    _cost("peak_mebibytes", "Peak memory", "MiB", 0, "largest peak_bytes of the run / 2²⁰"),
)


def _count(name: str, heading: str, better: Better, formula: str, remark: str = "") -> Column:
    return Column(
        name=name,
        heading=heading,
        unit="",
        better=better,
        digits=2,
        formula=formula,
        remark=remark,
    )


# `detection.detection` computes them; it says what the letters mean, and so does the page.
DETECTION_COLUMNS: Final = (
    _count(
        "changes",
        "Changes",
        "neither",
        "|C|",
        "How many there were to find.",
    ),
    _count(
        "changes_found",
        "Changes found",
        "higher",
        "|C ∩ L|",
        "Changes in whose experience the detector of the adapter that was active before fired.",
    ),
    _count("changes_missed", "Missed", "lower", "|C \u2216 L|"),
    _count(
        "false_alarms",
        "False alarms",
        "lower",
        "|L \u2216 C|",
        "Experiences without a change in which the active adapter's detector fired.",
    ),
    _count(
        "delay_windows",
        "Delay, windows",
        "lower",
        "mean over t in C ∩ L of the windows scanned until the first in which the detector of the "
        "active adapter fires, in any block, that window included",
        "1 is the least; the mean over seeds leaves out those that found nothing.",
    ),
    _count(
        "delay_images",
        "Delay, images",
        "lower",
        "mean over t in C ∩ L of the images in those windows",
    ),
    _count(
        "adapters_grown_a_block",
        "Adapters grown, a block",
        "neither",
        "growth events / blocks that can grow",
        "To be read against the oracle. The first adapter of a block does not count.",
    ),
    _count(
        "growing_experiences",
        "Experiences that grew",
        "neither",
        "|G|",
        "To be read against the oracle.",
    ),
    _count(
        "oracle_adapters",
        "Oracle",
        "neither",
        "|N|",
        "One adapter a block for each new domain, none for a known one.",
    ),
    Column(
        name="reuse_on_recurrence",
        heading="Reuse on recurrence",
        unit="%",
        better="higher",
        digits=1,
        formula="100 |S \u2216 G| / |S|",
        remark="Recurring changes without growth; a method that never grows reaches 100. The mean "
        "over seeds leaves out those whose stream has none.",
    ),
)


# What a phase of training is, and `evaluation`, by the name that events carry.
PHASES: Final = {
    "train": "passes over the images of the experience, with gradient steps if a method takes any",
    "freeze": "the first of these passes, in which the head alone is trained",
    "functional": "training of a new adapter, of what mixes adapters and of the head",
    "first session": "training on the first experience, after which adapters stay as they are",
    "frozen": "one pass of the images through the frozen network, of which the result is kept",
    "scan": "detectors look at the images of the experience for something new",
    "descriptor": "detectors are fitted to what the newest adapters have seen",
    "statistics": "what a head needs of the features, such as class means and spreads, is taken",
    "prototypes": "class means are taken as the first adapter sees them",
    "ridge": "the strength of the ridge regression is chosen and the regression solved",
    "moments": "what the inputs of each block span is taken, before training and after it",
    "alignment": "the head is trained on features drawn from the statistics of all classes",
    "evaluation": "prediction of the test images, after every experience",
}


def format_number(value: float, digits: int) -> str:
    """Returns a number for people: grouped digits, a true minus sign, an en dash for none.

    Example:
        >>> format_number(1234.5, 1) == "1\u202f234.5", format_number(float("nan"), 1) == "\u2013"
        (True, True)
    """
    if math.isnan(value):
        return "\u2013"
    if math.isinf(value):
        return "\u221e" if value > 0 else "\u2212\u221e"
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace(",", "\u202f").replace("-", "\u2212")
