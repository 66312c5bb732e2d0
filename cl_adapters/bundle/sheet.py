"""What a model's sheet says: what was learned, in which order, from which pixels, on which network.

The sheet of a run is made of its record; that of a bundle is read from its `bundle.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from cl_adapters.errors import InputError
from cl_adapters.records.experience_names import given_names
from cl_adapters.records.run_record import RunRecord

__all__ = ["BUNDLE_FORMAT", "Sheet"]

# 2: SEMA's defaults of today; as in a record, only options that differ from the defaults are named.
BUNDLE_FORMAT: Final = 2


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All that is known of a trained model beside its tensors.

    Attributes:
        strategy: Name of the method, as a recipe has it.
        fidelity: `default`, or `official` for the quirks of the authors' code.
        options: Options of the method that differ from the defaults.
        seed: Seed of the run.
        precision: `fp32` or `bf16`: the number format of its forward passes.
        classes: Class names by label.
        learned: The labels that each experience brought, in order.
        experiences: The name of each experience, empty where it has none.
        pixels: Settings of the pixel pipeline, those of `Preprocess`.
        backbone: `name`, `weights` (a path, `random` or None), `image_size`, `digest` of the frozen
            network, its `license` as far as it is known, and `emoe` where its MLPs have experts.
        trained_on: Name of the stream and digests of its images.
        run: Digest of the record that the model comes from, its state and its experiences in all.
        plugins: SHA-256 of each file that a name leads to, such as that of a method of one's own.
        metrics: What was measured, in percent; empty where nobody measured.
        versions: Of Python and of the packages that matter, when it was trained.
        extras: What others add under their own name, such as a rule of rejection.
    """

    strategy: str
    fidelity: str
    options: Mapping[str, Any]
    seed: int
    precision: str
    classes: Sequence[str]
    learned: Sequence[Sequence[int]]
    experiences: Sequence[str]
    pixels: Mapping[str, Any]
    backbone: Mapping[str, Any]
    trained_on: Mapping[str, Any]
    run: Mapping[str, Any]
    plugins: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_run(cls, record: RunRecord, learned: Sequence[Sequence[int]], digest: str) -> Self:
        """Returns the sheet of a run.

        Args:
            record: Its record.
            learned: The labels that each experience brought, up to the one that is taken.
            digest: Digest of the record.

        Raises:
            InputError: If the record does not say what pixels the run saw.
        """
        config, known = record.config, record.fingerprint
        if "pixels" not in known:
            raise InputError(
                f"a run must say its pixel pipeline for its model to answer images, but "
                f"{record.strategy} on {record.stream!r} learned from a benchmark that made its "
                "own"
            )
        data: dict[str, Any] = {name: known[name] for name in ("stream", "data") if name in known}
        return cls(
            strategy=config["strategy"],
            fidelity=config.get("fidelity", "default"),
            options=config.get("options", {}),
            seed=record.seed,
            precision=config.get("precision", "fp32"),
            classes=list(record.classes),
            learned=[list(each) for each in learned],
            experiences=given_names(record)[: len(learned)],
            pixels=known["pixels"],
            backbone={
                "name": _backbone_name(config, known),
                "weights": config.get("weights"),
                "image_size": config.get("image_size"),
                "digest": known.get("weights"),
                **({"emoe": config["emoe"]} if config.get("emoe") else {}),
            },
            trained_on=data,
            run={
                "digest": digest,
                "state": record.state,
                "experiences": len(record.experiences),
            },
            plugins=config.get("plugins", {}),
            versions=record.versions,
        )

    @classmethod
    def parse(cls, values: Mapping[str, Any], place: str) -> Self:
        """Returns the sheet of a bundle's JSON.

        Args:
            values: What the file holds.
            place: How to call it in a message.

        Raises:
            InputError: If a key is missing, or a value is of another kind.
        """
        names = {each.name for each in fields(cls)}
        missing = sorted(names - set(values))
        if missing:
            raise InputError(f"{place} must hold every key of a bundle, lacks {missing}")
        sheet = cls(**{name: values[name] for name in names})
        _check(sheet, place)
        return sheet

    def as_dict(self) -> dict[str, Any]:
        """Returns the sheet as JSON knows it."""
        return asdict(self)


def _backbone_name(config: Mapping[str, Any], known: Mapping[str, Any]) -> Any:  # noqa: ANN401
    # With its tag, which is explicit; but of one from a file what leads there.
    asked = config.get("backbone")
    return asked if asked in config.get("plugins", {}) else known.get("backbone", asked)


def _check(sheet: Sheet, place: str) -> None:
    """Refuses what no model could be made of: a checksum can be made to fit anything."""
    texts = ("strategy", "fidelity", "precision")
    tables = ("options", "pixels", "backbone", "trained_on", "run", "plugins", "metrics", "extras")
    rules: list[tuple[Sequence[str], type]] = [
        (texts, str),
        (tables, dict),
        (("classes", "learned", "experiences"), list),
        (("seed",), int),
    ]
    for names, kind in rules:
        for name in names:
            value = getattr(sheet, name)
            if not isinstance(value, kind):
                raise InputError(f"{place}: {name} must be a {kind.__name__}, got {value!r}")
    labels = [label for each in sheet.learned if isinstance(each, list) for label in each]
    known = range(len(sheet.classes))
    if not labels or not all(isinstance(each, int) and each in known for each in labels):
        raise InputError(
            f"{place}: learned must list labels below {len(sheet.classes)}, got {sheet.learned!r}"
        )
