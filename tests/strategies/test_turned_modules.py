"""PEFT modules that set themselves from images, before the first experience or after it."""

from typing import Any

import pytest
import torch

from cl_adapters.peft.registry import build_adapters, find_peft
from cl_adapters.strategies import find_strategy
from cl_adapters.strategies.checks.trial import TinyStream, Trial
from cl_adapters.strategies.core.calibrating import GRADIENT_IMAGES, gradient_batches
from cl_adapters.vit.checks import tiny_backbone
from cl_adapters.vit.site_gradients import calibrate_by_gradient, site_gradients


@pytest.mark.parametrize("method", ["finetune", "lae"])
def test_they_turn_at_the_end_of_the_first_experience_and_train_on(method: str) -> None:
    trial = Trial(find_strategy(method), {"peft": "corda"})
    strategy: Any = trial.build()
    trial.train(strategy, TinyStream())
    sets = [strategy.model.online, strategy.model.offline] if method == "lae" else []
    sets = sets or [strategy.model.adapters]
    slot = find_peft("corda").slot
    for block in (0, 1):
        modules = [each.at(slot, block) for each in sets]
        for module in modules:
            assert module.up_start.any(), "it turned"
            assert module.up_before.any(), "after it had learned"
            assert (module.up != module.up_start).any(), "and went on"
            assert (module.up_start == modules[0].up_start).all(), "to the same directions"


@pytest.mark.parametrize("method", ["finetune", "lae"])
def test_they_see_gradients_of_the_first_experience_before_it_and_never_again(method: str) -> None:
    trial = Trial(find_strategy(method), {"peft": "lora_sb", "size": 3})
    strategy: Any = trial.build()
    stream = TinyStream()
    first, second, _ = stream.benchmark.train_stream
    sets = [strategy.model.online, strategy.model.offline] if method == "lae" else []
    sets = sets or [strategy.model.adapters]
    modules = [each.at("key_value", block) for each in sets for block in (0, 1)]
    assert all(each.awaits_gradient for each in modules)
    images, labels = stream.train_sets[0].tensors
    network = tiny_backbone()
    expected = site_gradients(network, [("key_value", 0), ("key_value", 1)], [(images, labels)])
    strategy.train(first)
    assert strategy.timings["gradients"][1] == len(labels)
    strategy.train(second)
    assert "gradients" not in strategy.timings
    for module, gradient in zip(modules, expected * 2, strict=False):
        for up, down, rows in zip(module.up, module.down, gradient.chunk(2), strict=True):
            left, _, right = torch.linalg.svd(-rows.sign())
            torch.testing.assert_close(up @ up.T, left[:, :3] @ left[:, :3].T, atol=1e-3, rtol=0)
            torch.testing.assert_close(down.T @ down, right[:3].T @ right[:3], atol=1e-3, rtol=0)
            torch.testing.assert_close(up @ up.T @ up, up, atol=1e-4, rtol=0)
    learned = modules[0].mix.detach()
    assert (learned - torch.diag_embed(learned.diagonal(dim1=1, dim2=2))).abs().max() > 1e-5


def test_the_images_of_a_gradient_stand_at_even_distances() -> None:
    strategy: Any = Trial(find_strategy("finetune"), {}).build()
    stream = TinyStream(experiences=((0, 1), (2,)), per_class=GRADIENT_IMAGES)
    data = stream.benchmark.train_stream[0].dataset
    batches = gradient_batches(strategy.features, data)
    found = torch.cat([labels for _, labels in batches])
    assert found.tolist() == [0] * (GRADIENT_IMAGES // 2) + [1] * (GRADIENT_IMAGES // 2)
    assert torch.equal(batches[0][0][:3], stream.train_sets[0].tensors[0][:6:2])


@pytest.mark.parametrize("peft", ["lora_sb", "shira_snip"])
def test_the_stack_of_a_first_session_is_shown_them_as_plain_modules_are(peft: str) -> None:
    stream, (first, second, _) = TinyStream(), TinyStream().benchmark.train_stream
    strategy: Any = Trial(find_strategy("aper"), {"peft": peft, "size": 3}).build()
    network = tiny_backbone()
    plain = build_adapters(
        peft,
        embed_dim=32,
        blocks=range(4),
        size=3,
        generator=torch.Generator().manual_seed(0),
        sites=network.site,
    )
    images, labels = stream.train_sets[0].tensors
    calibrate_by_gradient(network, [plain], [(images, labels)])
    strategy.train(first)
    assert strategy.timings["gradients"][1] == len(labels)
    found = dict(strategy.model.first.adapters.modules_apart().named_buffers())
    for name, value in plain.named_buffers():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    strategy.train(second)
    assert "gradients" not in strategy.timings
