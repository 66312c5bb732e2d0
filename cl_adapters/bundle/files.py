"""A bundle: a folder with all that a trained model needs, and nothing that is unpickled.

    bundle.json                the sheet, a format version, SHA-256 of the others and of itself
    learned.safetensors        what was learned, by name
    rejection.safetensors      what tells unknown images and shifts, where it was measured
    backbone.safetensors       the frozen network, where it was asked for
    README.md, accuracy.png    a card for people

It is written beside its place and moved there when it is whole.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

from cl_adapters.bundle.calibration import Calibration
from cl_adapters.bundle.model import LearnedModel
from cl_adapters.bundle.sheet import BUNDLE_FORMAT, Sheet
from cl_adapters.errors import InputError, listed
from cl_adapters.images.transforms import Preprocess
from cl_adapters.paths import user_path
from cl_adapters.plugins.digests import source_digests
from cl_adapters.records.at_work import check_not_at_work
from cl_adapters.records.files import add_checksum, has_valid_checksum, read_file
from cl_adapters.records.learned import read_checkpoint
from cl_adapters.records.run_record import RunRecord
from cl_adapters.records.upgrade import add_earlier_defaults
from cl_adapters.strategies import find_strategy, options_of
from cl_adapters.strategies.core.silent import silent
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.device import find_device
from cl_adapters.vit.pretrained import PretrainedViT, check_weights_are_there, load_backbone

__all__ = ["Learned", "load", "model_folder", "read_learned_model", "write_bundle"]

_SHEET: Final = "bundle.json"
_LEARNED: Final = "learned.safetensors"
_BACKBONE: Final = "backbone.safetensors"
_REJECTION: Final = "rejection.safetensors"
_CALIBRATED: Final = "calibration"  # what the sheet says of it


@dataclass(frozen=True)
class Learned:
    """A model before it is built.

    Attributes:
        sheet: What is known of it.
        state: What was learned, by name.
        weights: File of the backbone that the bundle brings along; None if it brings none.
        calibration: What tells unknown images and shifts; None if nobody measured it.
    """

    sheet: Sheet
    state: Mapping[str, Tensor]
    weights: Path | None = None
    calibration: Calibration | None = None


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    precision: str | None = None,
    weights: str | Path | None = None,
) -> LearnedModel:
    """Loads the model that a run has learned, or that a bundle holds.

    Args:
        path: A run directory, at its last finished experience, or a bundle; a folder with one run
            below it stands for that run.
        device: Where to compute: cpu, cuda, cuda:1, mps or auto.
        precision: `fp32` or `bf16`; None for the run's own.
        weights: File of the frozen backbone where it no longer is where the run had it.

    Raises:
        InputError: If there is no model, a file is missing, damaged or of a newer format, or the
            backbone is not the one that the model was trained on.
    """
    where = find_device(device)
    learned = read_learned_model(user_path(path))
    sheet = learned.sheet
    sheet = replace(sheet, precision=sheet.precision if precision is None else precision)
    if sheet.precision not in ("fp32", "bf16"):
        raise InputError(f"precision must be fp32 or bf16, got {sheet.precision!r}")
    _check_plugins(sheet)
    # All that is cheap is looked at before the network is built.
    preprocess = Preprocess.of(sheet.pixels)
    config = options_of(sheet.strategy, sheet.fidelity, sheet.options)
    kind = find_strategy(sheet.strategy)
    backbone = _backbone(sheet, weights or learned.weights)
    strategy = silent(
        kind,
        backbone=_with_pixels(backbone, preprocess),
        config=config,
        seed=sheet.seed,
        precision=sheet.precision,
        device=where,
    )
    strategy.restore_to_answer(learned.state, sheet.learned)
    calibration = None if learned.calibration is None else learned.calibration.to(strategy.device)
    return LearnedModel(sheet, strategy, replace(preprocess, as_bytes=True), calibration)


def _check_plugins(sheet: Sheet) -> None:
    """Refuses a file of code that is not the one the model was trained with."""
    found = source_digests(*sheet.plugins)
    for name, digest in sheet.plugins.items():
        if found.get(name) != digest:
            raise InputError(
                f"plugin {name!r} must be as it was when the model was trained, SHA-256 "
                f"{str(digest)[:8]}, got {found.get(name, 'no file')[:8]}; it is looked for from "
                "the folder where the command runs"
            )


def _with_pixels(backbone: PretrainedViT, preprocess: Preprocess) -> AdaptedViT:
    return AdaptedViT(backbone.model.vit, pixels=(preprocess.mean, preprocess.std))


def _backbone(sheet: Sheet, weights: str | Path | None) -> PretrainedViT:
    known = sheet.backbone
    if weights is None:
        check_weights_are_there(known.get("weights"), f"{sheet.strategy}'s model")
    found = load_backbone(
        known["name"],
        weights=known.get("weights") if weights is None else weights,
        image_size=known.get("image_size"),
        emoe=known.get("emoe"),
    )
    if found.digest != known["digest"]:
        raise InputError(
            f"backbone {known['name']} must be the one that the model was trained on, digest "
            f"{known['digest']}, got {found.digest}; `weights` names another file"
        )
    return found


def read_learned_model(folder: Path) -> Learned:
    """Reads what a run directory or a bundle holds, without building the model.

    Raises:
        InputError: If the folder is neither, or what it holds is missing, damaged or of a newer
            format, or a run has learned nothing yet or is at work.
    """
    found = model_folder(folder)
    return _read_bundle(found) if (found / _SHEET).exists() else _read_run(found)


def model_folder(folder: Path) -> Path:
    """Returns a run directory or a bundle: the folder itself, or the only run below it.

    Raises:
        InputError: If it is neither, and no run or several lie below.
    """
    if (folder / _SHEET).exists() or (folder / "run.json").exists():
        return folder
    below = sorted(path.parent for path in folder.glob("**/run.json"))
    if len(below) == 1:
        return below[0]
    hint = f"; {len(below)} runs lie below: {listed(map(str, below))}" if below else ""
    raise InputError(f"model {str(folder)!r} must be a run directory or a bundle{hint}")


def _read_run(folder: Path) -> Learned:
    check_not_at_work(folder)
    data = read_file(folder / "run.json")
    record = RunRecord.parse(folder / "run.json", data)
    done = record.experiences_done
    if done == 0:
        raise InputError(
            f"run {str(folder)!r} must have learned an experience, got a run that has finished none"
        )
    found = read_checkpoint(folder / "checkpoints", done - 1)
    digest = hashlib.sha256(data or b"").hexdigest()
    classes = found.classes or [tuple(each) for each in record.experiences[:done]]
    return Learned(Sheet.of_run(record, classes, digest), found.state)


def _read_bundle(folder: Path) -> Learned:
    values = _read_sheet(folder)
    sheet = Sheet.parse(values["sheet"], str(folder / _SHEET))
    if values["bundle_format"] < 2:
        options = add_earlier_defaults(sheet.strategy, sheet.fidelity, sheet.options)
        sheet = replace(sheet, options=options)
    state = _tensors(folder, _LEARNED, values["files"])
    calibration = None
    if _CALIBRATED in sheet.extras:
        found = _tensors(folder, _REJECTION, values["files"])
        place = str(folder / _REJECTION)
        calibration = Calibration.of(sheet.extras[_CALIBRATED], found, place)
    is_there = _BACKBONE in values["files"]
    if is_there:
        _checked(folder, _BACKBONE, values["files"])
    return Learned(sheet, state, folder / _BACKBONE if is_there else None, calibration)


def _tensors(folder: Path, name: str, files: Mapping[str, Any]) -> dict[str, Tensor]:
    data = _checked(folder, name, files)
    try:
        found: dict[str, Tensor] = load_tensors(data)
    except SafetensorError as error:  # a checksum can be made to fit anything
        raise InputError(f"{folder / name} must hold tensors, got: {error}") from error
    return found


def _read_sheet(folder: Path) -> dict[str, Any]:
    path = folder / _SHEET
    try:
        values = json.loads((read_file(path) or b"").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be readable JSON, got: {error}") from error
    version = values.get("bundle_format") if isinstance(values, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"{path} must have a bundle format from 1 on, got {version!r}")
    if version > BUNDLE_FORMAT:
        raise InputError(
            f"{path} must have a bundle format up to {BUNDLE_FORMAT}, got {version}: a newer "
            "cl-adapters has written it; update this one"
        )
    if not has_valid_checksum(values):
        raise InputError(f"{path} must match its checksum, but it was damaged or edited")
    if not all(isinstance(values.get(name), dict) for name in ("sheet", "files")):
        raise InputError(f"{path} must hold a sheet and its files, got keys {sorted(values)}")
    return dict(values)


def _checked(folder: Path, name: str, files: Mapping[str, Any]) -> bytes:
    data = read_file(folder / name)
    if data is None:
        raise InputError(f"{folder / name} must be there: the bundle is not whole")
    if hashlib.sha256(data).hexdigest() != files.get(name):
        raise InputError(f"{folder / name} must match its checksum, but it was damaged")
    return data


def write_bundle(
    out: Path,
    sheet: Sheet,
    state: Mapping[str, Tensor],
    *,
    backbone: Mapping[str, Tensor] | None = None,
    calibration: Calibration | None = None,
    others: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a bundle; nothing is left of one that could not be finished.

    Args:
        out: Its folder, which must not exist.
        sheet: What is known of the model.
        state: What was learned, by name.
        backbone: The frozen network's tensors, to take along.
        calibration: What tells unknown images and shifts, to take along.
        others: Further files by name, such as the card.

    Raises:
        InputError: If the folder exists or cannot be written.
    """
    if out.exists():
        raise InputError(f"bundle {str(out)!r} must be a new folder, got one that exists")
    if calibration is not None:
        sheet = replace(sheet, extras={**sheet.extras, _CALIBRATED: calibration.describe()})
    tensors = {
        _LEARNED: state,
        _BACKBONE: backbone,
        _REJECTION: None if calibration is None else calibration.state(),
    }
    parts = {name: _saved(each) for name, each in tensors.items() if each is not None}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    values = {"bundle_format": BUNDLE_FORMAT, "sheet": sheet.as_dict(), "files": digests}
    written = json.dumps(add_checksum(values), indent=2, ensure_ascii=False) + "\n"
    files = {**parts, **(others or {})}
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed while it wrote
        temporary.mkdir(parents=True)
        for name, data in {**files, _SHEET: written.encode()}.items():
            (temporary / name).write_bytes(data)
        temporary.rename(out)
    except OSError as error:
        raise InputError(f"bundle {str(out)!r} must be writable, got: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _saved(state: Mapping[str, Tensor]) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    data: bytes = save(tensors)
    return data
