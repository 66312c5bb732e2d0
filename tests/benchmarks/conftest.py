"""The teacher of the pretraining recipe with random weights, for every test that needs its shape."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a ViT-Tiny, random but fixed, with every bias and scale different from others."""
    path = tmp_path_factory.mktemp("teacher") / "vit_tiny.safetensors"
    shapes = timm.create_model("vit_tiny_patch16_224").state_dict()
    source = torch.Generator().manual_seed(5)
    state = {}
    for name, value in shapes.items():
        noise = torch.randn(value.shape, generator=source)
        is_scale = ".norm" in name or name.startswith("norm")
        state[name] = 0.05 * noise + (1.0 if is_scale and name.endswith("weight") else 0.0)
    save_file(state, path)
    return path


@pytest.fixture(scope="session")
def teacher_state(teacher_file: Path) -> dict[str, Tensor]:
    return dict(load_file(teacher_file))
