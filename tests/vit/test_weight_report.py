"""The doctor says what is in a file of weights."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

from cl_adapters.benchmarks.doctor import examine_weights
from cl_adapters.cli import app
from cl_adapters.errors import InputError
from cl_adapters.vit.weight_report import fitting_architectures


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every architecture that is compared takes most of a second to make."""
    monkeypatch.setattr("cl_adapters.vit.weight_report._TRIED", 1)


def saved(folder: Path, **changes: torch.Tensor) -> Path:
    state = timm.create_model("test_vit", num_classes=5, img_size=48).state_dict() | changes
    torch.save(
        {"epoch": 1, "model": {f"module.{name}": each for name, each in state.items()}},
        folder / "w.pt",
    )
    return folder / "w.pt"


def test_a_good_file_is_described(tmp_path: Path) -> None:
    found = {each.check: each for each in examine_weights(saved(tmp_path))}
    assert "80 tensors" in found["file"].found
    assert found["reading"].found == "taken from its entry 'model', without the prefix 'module.'"
    assert found["numbers"].found.endswith("all finite")
    assert found["network"].found == (
        "width 64, 6 blocks, patches of 16 pixels, images of 48 pixels: --backbone test_vit"
    )
    assert all(each.advice is None for each in found.values())


def test_what_no_run_would_take_is_told_and_ends_with_1(tmp_path: Path) -> None:
    path = saved(tmp_path, **{"norm.bias": torch.full((64,), torch.inf)})
    result = CliRunner().invoke(app, ["doctor", "--weights", str(path)])
    assert result.exit_code == 1
    assert "got inf in tensor 'norm.bias', where 64 of 64" in result.output
    other = saved(tmp_path, **{"blocks.0.ls1.gamma": torch.ones(64)})
    (network,) = (each for each in examine_weights(other) if each.check == "network")
    assert network.advice == "none of timm's ViT of that size has these tensors"


@pytest.mark.parametrize("shape", [(), (64,), (10, 64)])
def test_positions_of_an_odd_shape_are_told_of_without_a_number(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    (network,) = (
        each
        for each in examine_weights(saved(tmp_path, pos_embed=torch.zeros(shape)))
        if each.check == "network"
    )
    assert network.found.startswith("width 64, 6 blocks, patches of 16 pixels")
    assert "images of" not in network.found


def test_arrays_of_the_vit_paper_are_known(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"embedding/kernel": np.ones((2, 2), dtype=np.float32)})
    found = {each.check: each.found for each in examine_weights(tmp_path / "w.npz")}
    assert found["network"] == "arrays of the ViT paper"


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", ["pt", "npz", "safetensors"])
def test_rubbish_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w.{suffix}"
    with pytest.raises(InputError, match="must be an existing file"):
        examine_weights(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be readable and free of code"):
        examine_weights(path)


def test_architectures_fit_by_their_tensors() -> None:
    state = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64).state_dict()
    assert list(fitting_architectures(state)) == ["vit_tiny_patch16_224"]
    del state["norm.weight"]
    assert list(fitting_architectures(state)) == []
