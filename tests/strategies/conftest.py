"""What several tests of strategies share."""

import pytest
import timm
import torch

from cl_adapters.shift import DETECTORS
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_sema import Scripted


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setitem(DETECTORS.places, "scripted", Scripted)
    Scripted.asked, Scripted.made, Scripted.fires = [], 0, lambda _: False
    return Scripted


@pytest.fixture
def pooled_vit() -> AdaptedViT:
    """A small network without class token: the mean of its patch tokens is read."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"global_pool": "avg", "class_token": False, "num_classes": 0, "img_size": 32}
        return AdaptedViT(timm.create_model("test_vit", **options))
