"""L2P against the fidelity checklist of the brief and plain loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.errors import InputError
from cl_adapters.strategies.checks.suite import check_strategy
from cl_adapters.strategies.l2p import L2P, L2PConfig
from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.prompted import TWO, Watch, build, images_of

SMALL: dict[str, Any] = {"pool_size": 6, "length": 2, "top_k": 3}
LAYOUTS = pytest.mark.parametrize("layout", ["jax", "port"])


def trained(vit: AdaptedViT, make_stream: Callable[..., Any], **options: Any) -> Any:
    strategy = build("l2p", vit, **{**SMALL, "lr": 0.01, **options})
    strategy.train(make_stream(TWO, per_class=4).train_stream)
    strategy.model.eval()
    return strategy


@torch.no_grad()
def by_hand(strategy: Any, images: Tensor) -> Tensor:
    """The logits, image by image, from timm's own blocks."""
    model, vit, config = strategy.model, strategy.backbone.vit, strategy.config
    found = []
    for image in images:
        query = strategy.backbone(image[None])[0]
        similarity = [float(functional.cosine_similarity(query, key, dim=0)) for key in model.keys]
        best = sorted(range(config.pool_size), key=lambda m: -similarity[m])[: config.top_k]
        rows = torch.cat([model.prompts[m] for m in best])
        stream = strategy.backbone.tokens(image[None])[0]
        if config.layout == "jax":
            stream, first = torch.cat([rows, stream]), 0
        else:
            rows = rows + vit.pos_embed[0, :1]
            stream, first = torch.cat([stream[:1], rows, stream[1:]]), 1
        out = vit.norm(vit.blocks(stream[None]))[0]
        mean = out[first : first + config.top_k * config.length].mean(dim=0)
        found.append(model.heads(mean[None])[0])
    return torch.stack(found)


@LAYOUTS
def test_3_the_head_reads_the_mean_of_the_prompts_tokens(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], layout: str
) -> None:
    strategy = trained(tiny_vit, make_stream, layout=layout)
    images = images_of(make_stream(TWO, per_class=2).test_stream[1])[0]
    with torch.no_grad():
        before = tiny_vit.num_passes
        logits = strategy.model(images).logits
        assert tiny_vit.num_passes - before == 2 * len(images)
    torch.testing.assert_close(logits, by_hand(strategy, images), rtol=1e-3, atol=1e-5)
    start = SMALL["top_k"] * SMALL["length"] if layout == "jax" else 0

    def without_class_token(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        if out.shape[1] == tiny_vit.tokens(images).shape[1]:  # of the query
            return out
        out = out.clone()
        out[:, start] = 7
        return out

    hook = tiny_vit.vit.norm.register_forward_hook(without_class_token)
    with torch.no_grad():
        assert torch.equal(strategy.model(images).logits, logits)
    hook.remove()


@LAYOUTS
def test_4_the_places_of_chosen_prompts_change_nothing(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], layout: str
) -> None:
    strategy = trained(tiny_vit, make_stream, layout=layout, top_k=6)
    images = images_of(make_stream(TWO).test_stream[0])[0]
    with torch.no_grad():
        logits = strategy.model(images).logits
        for value in (strategy.model.prompts, strategy.model.keys):
            value[[0, 3]] = value[[3, 0]]
        torch.testing.assert_close(strategy.model(images).logits, logits, rtol=1e-3, atol=1e-5)


def test_5_an_answer_depends_on_its_image_alone(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = trained(tiny_vit, make_stream)
    model = trained(tiny_vit, make_stream, selection="batch").model
    images = images_of(make_stream(TWO).test_stream[0])[0]
    others = torch.cat([images[:1], torch.randn_like(images[1:])])
    with torch.no_grad():
        first = strategy.model(images).logits[0]
        assert torch.equal(strategy.model(others).logits[0], first)
        chosen = model(images).extras["chosen"]
        assert (chosen == chosen[0]).all()


def test_6_prompts_that_no_image_chose_get_no_gradient(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    strategy = trained(tiny_vit, make_stream)
    images, targets = images_of(make_stream(TWO, per_class=2).train_stream[1])
    model = strategy.model.train()
    model.zero_grad()
    query = tiny_vit(images).detach().requires_grad_()
    with torch.no_grad():
        model.keys[:3] = query[0] * torch.tensor([[1.0], [2.0], [3.0]])
        model.keys[3:] = -model.keys[:3]
    strategy.output = output = model(images[:1], query[:1])
    assert set(output.extras["chosen"].flatten().tolist()) == {0, 1, 2}
    torch.autograd.backward(strategy.batch_loss(output.logits, targets[:1]))
    assert model.prompts.grad.flatten(1).any(dim=1).tolist() == [True] * 3 + [False] * 3
    assert not model.keys.grad[3:].any()
    assert all(value.grad is None for value in tiny_vit.parameters())


@pytest.mark.parametrize("selection", ["image", "batch"])
def test_steps_equal_a_plain_loop_with_clipped_gradients(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], selection: str
) -> None:
    watch = Watch()
    options = {**SMALL, "lr": 0.01, "key_weight": 0.5, "selection": selection, "clip_norm": 0.2}
    strategy = build("l2p", tiny_vit, watch, **options)
    strategy.train(make_stream(TWO, per_class=8).train_stream)
    assert max(watch.lengths) <= 0.2 + 1e-6  # 7
    assert len(watch.steps) == 4
    for step in (0, 2):  # the first of each experience, with a new optimiser
        experience, start, images, targets = watch.steps[step]
        parameters = {
            name: value.clone().requires_grad_()
            for name, value in start.items()
            if not name.startswith("heads.layers.0") or experience == 0
        }
        prompts, keys = parameters["prompts"], parameters["keys"]
        with torch.no_grad():
            queries = tiny_vit(images)
        cosines = functional.normalize(queries, dim=1) @ functional.normalize(keys, dim=1).T
        chosen = [
            sorted(range(6), key=lambda m, row=row: -float(row[m]))[:3] for row in cosines.detach()
        ]
        if selection == "batch":
            votes = [sum(m in each for each in chosen) for m in range(6)]
            chosen = [sorted(range(6), key=lambda m: (-votes[m], m))[:3]] * len(images)
        features = []
        for image, best in zip(images, chosen, strict=True):
            rows = torch.cat([prompts[m] for m in best])
            stream = torch.cat([rows, tiny_vit.tokens(image[None])[0]])
            features.append(tiny_vit.vit.norm(tiny_vit.vit.blocks(stream[None]))[0, :6].mean(dim=0))
        own = parameters[f"heads.layers.{experience}.weight"]
        logits = torch.stack(features) @ own.T + parameters[f"heads.layers.{experience}.bias"]
        labels = torch.tensor([sorted(TWO[experience]).index(int(each)) for each in targets])
        near = torch.stack([cosines[b, m] for b, best in enumerate(chosen) for m in best]).sum()
        loss = functional.cross_entropy(logits, labels) - 0.5 * near / len(images)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters.values(), 0.2)
        torch.optim.Adam(parameters.values(), lr=0.01).step()
        after = watch.steps[step + 1][1]
        for name, value in parameters.items():
            torch.testing.assert_close(after[name], value.detach(), rtol=1e-3, atol=2e-4)


def test_official_is_the_originals_settings_on_one_device() -> None:
    config = L2PConfig.official()
    assert (config.pool_size, config.length, config.top_k) == (10, 10, 4)
    assert (config.key_weight, config.clip_norm, config.selection) == (1.0, 1.0, "batch")
    assert (config.init, config.layout, config.epochs, config.batch_size) == ("jax", "jax", 5, 16)
    assert config.lr == pytest.approx(0.015 / 8)
    assert config.by_batch == "selection=batch"


def test_new_prompts_and_heads_are_the_originals_or_the_ports(tiny_vit: AdaptedViT) -> None:
    for init, low, high, std in (("jax", 0, 0.01, 0), ("port", -1, 1, 0.02)):
        strategy = build("l2p", tiny_vit, init=init)
        strategy.register_classes((0, 1))
        for value in (strategy.model.prompts.detach(), strategy.model.keys.detach()):
            assert low <= float(value.min())
            assert float(value.max()) <= high
            assert float(value.max()) > 0.95 * high
        weights = strategy.model.heads.layers[0].weight.detach()
        assert float(weights.std()) == pytest.approx(std, rel=0.2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 11}, "`top_k` must be at most `pool_size`, 10, got 11"),
        ({"length": 0}, "`length`.* greater than or equal to 1, got 0"),
        ({"selection": "vote"}, "`selection`.*'image' or 'batch', got 'vote'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        L2PConfig().override(options)


def test_a_backbone_without_class_token_reads_something_else(pooled_vit: AdaptedViT) -> None:
    with pytest.raises(
        InputError, match="`layout` must be 'jax' with a backbone whose class token"
    ):
        build("l2p", pooled_vit, layout="port")
    assert pooled_vit.reads == "avg of the patch tokens"
    strategy = build("l2p", pooled_vit, **SMALL)
    strategy.register_classes((0, 1))
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        tokens = pooled_vit.run(pooled_vit.tokens(images))
        torch.testing.assert_close(pooled_vit(images), pooled_vit.vit.fc_norm(tokens.mean(dim=1)))
        assert strategy.model.eval()(images).logits.shape == (2, 2)


def test_only_the_vote_fails_the_check_of_batches() -> None:
    (sentence,) = check_strategy(L2P, options={"selection": "batch"}, checks=["batches"])
    assert sentence.startswith("batches: an image must get the same logits alone as in a batch")
