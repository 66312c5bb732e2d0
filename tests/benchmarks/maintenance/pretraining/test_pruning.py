import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from cl_adapters.benchmarks.maintenance.pretraining.pruning import prune
from cl_adapters.vit.embedded import EMBEDDED

SMALL = {"embed_dim": 12, "num_heads": 2}


def teacher(depth: int = 3, mlp_ratio: float = 4.0) -> VisionTransformer:
    """A narrow ViT for 64-pixel images in patches of 16, so with a grid of 4 x 4."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vit = VisionTransformer(
            img_size=64, patch_size=16, depth=depth, mlp_ratio=mlp_ratio, num_classes=5, **SMALL
        )
        for value in vit.parameters():
            torch.nn.init.normal_(value, std=0.3)
    return vit.eval()


def images(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def test_nothing_is_lost_but_the_head_where_all_is_kept() -> None:
    state = teacher().state_dict()
    kept = prune(state, depth=3, hidden=48, patch_size=16, grid=4)
    assert set(kept) == {name for name in state if not name.startswith("head.")}
    for name, value in kept.items():
        torch.testing.assert_close(value, state[name], msg=name)


def test_the_pruned_weights_fit_the_smaller_network() -> None:
    small = VisionTransformer(
        img_size=32, patch_size=4, depth=2, mlp_ratio=2, num_classes=0, **SMALL
    )
    small.load_state_dict(prune(teacher().state_dict(), depth=2, hidden=24, patch_size=4, grid=8))
    assert small.eval()(images(32)).isfinite().all()


def test_the_first_blocks_stay() -> None:
    state = teacher().state_dict()
    kept = prune(state, depth=2, hidden=48, patch_size=16, grid=4)
    assert {name.split(".")[1] for name in kept if name.startswith("blocks.")} == {"0", "1"}
    for name, value in kept.items():
        if name.startswith("blocks."):
            assert torch.equal(value, state[name])


def test_hidden_units_that_do_nothing_are_the_ones_to_go() -> None:
    """A network of which half of the hidden units are dead computes the same without them."""
    vit = teacher(depth=2)
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for block in vit.blocks:
            dead = torch.randperm(48, generator=source)[:24]
            block.mlp.fc1.weight[dead] *= 1e-3
            block.mlp.fc2.weight[:, dead] = 0
    small = VisionTransformer(
        img_size=64, patch_size=16, depth=2, mlp_ratio=2, num_classes=0, **SMALL
    )
    small.load_state_dict(prune(vit.state_dict(), depth=2, hidden=24, patch_size=16, grid=4))
    expected = vit.forward_head(vit.forward_features(images(64)), pre_logits=True)
    torch.testing.assert_close(small.eval()(images(64)), expected)


def test_small_patches_are_seen_as_if_they_were_enlarged() -> None:
    vit = teacher()
    kept = prune(vit.state_dict(), depth=1, hidden=12, patch_size=4, grid=8)
    patches = images(4, count=6)
    large = functional.interpolate(patches, (16, 16), mode="bicubic", align_corners=False)
    expected = vit.patch_embed.proj(large)
    found = functional.conv2d(
        patches, kept["patch_embed.proj.weight"], kept["patch_embed.proj.bias"], stride=4
    )
    torch.testing.assert_close(found, expected)


def test_positions_keep_their_class_token_and_their_order() -> None:
    state = dict(teacher().state_dict())
    rows = torch.linspace(-1, 1, 4)[:, None].expand(4, 4)
    plane = torch.stack([rows, rows.T, torch.ones(4, 4)], dim=-1).view(1, 16, 3).repeat(1, 1, 4)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], plane], dim=1)
    found = prune(state, depth=1, hidden=12, patch_size=4, grid=8)["pos_embed"]
    assert torch.equal(found[:, :1], state["pos_embed"][:, :1])
    down, across, constant = found[0, 1:, :3].view(8, 8, 3).unbind(-1)
    torch.testing.assert_close(constant, torch.ones(8, 8))
    for each, direction in ((down, 0), (across, 1)):
        assert (each.diff(dim=direction) > 0).all()
        torch.testing.assert_close(each.diff(dim=1 - direction).abs().amax(), torch.tensor(0.0))


def test_the_larger_network_is_neither_changed_nor_shared() -> None:
    state = teacher().state_dict()
    before = {name: value.clone() for name, value in state.items()}
    for value in prune(state, depth=3, hidden=48, patch_size=16, grid=4).values():
        value.fill_(7)
    for name, value in state.items():
        assert torch.equal(value, before[name]), name


def test_a_vit_tiny_becomes_the_embedded_architecture(teacher_state: dict[str, Tensor]) -> None:
    embedded = timm.create_model(EMBEDDED).state_dict()
    kept = prune(teacher_state, depth=6, hidden=384, patch_size=4, grid=8)
    assert {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in embedded.items()}
