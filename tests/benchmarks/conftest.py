"""The teacher of the pretraining recipe with random weights, and an interruption as by Ctrl-C."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cl_adapters.strategies.core.strategy import AdapterStrategy

InterruptedAt = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> InterruptedAt:
    """What is run inside `with interrupted_at(t):` is interrupted before experience t is trained."""

    @contextmanager
    def interrupted(last: int) -> Iterator[None]:
        train = AdapterStrategy.train

        def die(self: AdapterStrategy, experience: Any, **kwargs: Any) -> Any:
            if experience.current_experience == last:
                raise KeyboardInterrupt
            return train(self, experience, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(AdapterStrategy, "train", die)
            with pytest.raises(KeyboardInterrupt):
                yield

    return interrupted


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
