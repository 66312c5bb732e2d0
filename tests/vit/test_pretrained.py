"""Backbones by name and weights from files."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from cl_adapters.errors import InputError
from cl_adapters.vit.pretrained import load_backbone, state_digest

SIZE = {"image_size": 32}


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return timm.create_model("test_vit", img_size=32, num_classes=10)


def write(folder: Path, kind: str, state: dict[str, torch.Tensor]) -> Path:
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == "pth" else state, path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth", "bin"])
def test_files_of_every_kind_give_the_same_digest(
    tmp_path: Path, reference: torch.nn.Module, kind: str
) -> None:
    path = write(tmp_path, kind, reference.state_dict())
    loaded = load_backbone("test_vit", weights=path, **SIZE)
    headless = timm.create_model("test_vit", img_size=32, num_classes=0)
    headless.load_state_dict({k: v for k, v in reference.state_dict().items() if "head" not in k})
    assert loaded.digest == state_digest(headless)
    images = torch.randn(2, 3, 32, 32)
    expected = reference.eval().forward_head(reference.forward_features(images), pre_logits=True)
    torch.testing.assert_close(loaded.model(images), expected)


def test_npz_in_the_layout_of_the_vit_paper(tmp_path: Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=8, num_heads=2)
    arrays = dict(google_layout(vit).items())
    path = tmp_path / "vit.npz"
    np.savez(path, **arrays)
    twin = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=8, num_heads=2)
    twin.load_pretrained(str(path))
    torch.testing.assert_close(twin.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)


def google_layout(vit: Any) -> dict[str, np.ndarray]:
    """The array names and shapes of the ViT paper's own checkpoints, written out by hand."""

    def flip(weight: torch.Tensor) -> np.ndarray:
        return weight.detach().numpy().T

    block, prefix = vit.blocks[0], "Transformer/encoderblock_0/"
    width, heads = vit.embed_dim, block.attn.num_heads
    arrays = {
        "embedding/kernel": vit.patch_embed.proj.weight.detach().numpy().transpose(2, 3, 1, 0),
        "embedding/bias": vit.patch_embed.proj.bias.detach().numpy(),
        "cls": vit.cls_token.detach().numpy(),
        "Transformer/posembed_input/pos_embedding": vit.pos_embed.detach().numpy(),
        "Transformer/encoder_norm/scale": vit.norm.weight.detach().numpy(),
        "Transformer/encoder_norm/bias": vit.norm.bias.detach().numpy(),
        prefix + "LayerNorm_0/scale": block.norm1.weight.detach().numpy(),
        prefix + "LayerNorm_0/bias": block.norm1.bias.detach().numpy(),
        prefix + "LayerNorm_2/scale": block.norm2.weight.detach().numpy(),
        prefix + "LayerNorm_2/bias": block.norm2.bias.detach().numpy(),
    }
    attention = prefix + "MultiHeadDotProductAttention_1/"
    weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        arrays[f"{attention}{name}/kernel"] = flip(weight).reshape(width, heads, -1)
        arrays[f"{attention}{name}/bias"] = bias.detach().numpy().reshape(heads, -1)
    arrays[f"{attention}out/kernel"] = flip(block.attn.proj.weight).reshape(heads, -1, width)
    arrays[f"{attention}out/bias"] = block.attn.proj.bias.detach().numpy()
    for index, layer in enumerate((block.mlp.fc1, block.mlp.fc2)):
        arrays[f"{prefix}MlpBlock_3/Dense_{index}/kernel"] = flip(layer.weight)
        arrays[f"{prefix}MlpBlock_3/Dense_{index}/bias"] = layer.bias.detach().numpy()
    return arrays


def test_a_bare_name_is_resolved_and_said_so() -> None:
    loaded = load_backbone("vit_tiny_patch16_224", weights="random", image_size=32)
    assert loaded.name == "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (notice,) = loaded.notices
    assert "names 2 sets of weights" in notice
    assert load_backbone(loaded.name, weights="random", image_size=32).notices == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vit_tiny_patch16_224_in21k", "vit_tiny_patch16_224.augreg_in21k"),
        ("vit_small_patch16_224_dino", "vit_small_patch16_224.dino"),
    ],
)
def test_a_name_of_before_is_taken_as_timms_and_said_so(old: str, new: str) -> None:
    loaded = load_backbone(old, weights="random", image_size=32)
    assert loaded.name == new
    assert loaded.notices == (f"backbone {old!r} is called {new!r} by timm now, and taken so",)
    config = timm.models.get_pretrained_cfg(new)
    assert (loaded.mean, loaded.std) == (config.mean, config.std)


def test_a_hub_that_cannot_be_reached_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying")
        raise OSError("no network\nat all")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    with pytest.raises(InputError, match="given as a local file .* the hub said: no network$"):
        load_backbone("vit_tiny_patch16_224.augreg_in21k")
    assert caplog.text == ""


def test_random_weights_follow_their_seed_and_leave_torchs_state_alone() -> None:
    state = torch.random.get_rng_state()
    digests = {
        seed: load_backbone("test_vit", weights="random", seed=seed, **SIZE).digest
        for seed in (0, 1)
    }
    assert torch.equal(state, torch.random.get_rng_state())
    assert digests[0] != digests[1]
    assert digests[0] == load_backbone("test_vit", weights="random", **SIZE).digest


def test_a_state_digest_sees_every_tensor(reference: torch.nn.Module) -> None:
    before = state_digest(reference)
    with torch.no_grad():
        reference.blocks[3].mlp.fc2.bias[0] += 1e-6
    changed = state_digest(reference)
    with torch.no_grad():
        reference.blocks[3].mlp.fc2.bias[0] = 0
    assert before != changed


class Payload:
    """What a malicious pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('the pickle was executed')",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(InputError, match=r"evil.pt' must be readable and free of code"):
        load_backbone("test_vit", weights=path, **SIZE)
    torch.save({"model": Payload()}, path)
    with pytest.raises(InputError, match="free of code"):
        load_backbone("test_vit", weights=path, **SIZE)


def bad_state(name: str, reference: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = dict(reference.state_dict())
    if name == "missing":
        del state["blocks.2.norm1.weight"]
    elif name == "shape":
        state["blocks.2.norm1.weight"] = torch.zeros(63)
    else:
        state["blocks.9.norm1.weight"] = torch.zeros(64)
    return state


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "tensor 'blocks.2.norm1.weight' is missing"),
        ("shape", r"'blocks.2.norm1.weight' must have shape \(64,\), got \(63,\)"),
        ("extra", "tensor 'blocks.9.norm1.weight' has no place in it"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, reference: torch.nn.Module, name: str, message: str
) -> None:
    path = write(tmp_path, "safetensors", bad_state(name, reference))
    with pytest.raises(InputError, match=message):
        load_backbone("test_vit", weights=path, **SIZE)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit_tinny_patch16_224", {}, "unknown backbone .*; did you mean 'vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224.augreg", {}, "unknown tag of vit_tiny_patch16_224 'augreg'"),
        (
            "test_vit",
            {"weights": "nowhere.pt"},
            "must be 'random' or an existing file, got 'nowhere",
        ),
        (
            "test_vit",
            {"weights": "random", "image_size": 33},
            "multiple of the patch size 16, got 33",
        ),
        ("test_resnet", {"weights": "random"}, "must be a timm VisionTransformer, got ResNet"),
        (
            "test_resnet",
            {"weights": "random", "image_size": 32},
            "must be a timm VisionTransformer",
        ),
    ],
)
def test_bad_names_and_sizes_are_refused(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_backbone(name, **arguments)


def test_a_network_that_is_no_vit_is_refused_before_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: fetched.append(""))
    with pytest.raises(InputError, match="must be a timm VisionTransformer, got ResNet"):
        load_backbone("resnet18")
    load_backbone("vit_tiny_patch16_224")
    assert len(fetched) == 1


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz"])
def test_a_file_of_rubbish_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rubbish.{suffix}"
    path.write_bytes(b"not weights at all")
    with pytest.raises(InputError, match=r"weights in '.*rubbish"):
        load_backbone("test_vit", weights=path, **SIZE)
