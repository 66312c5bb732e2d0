"""SEMA with routers that keep something of each experience: what is trained, and when."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cl_adapters.vit.adapted_vit import AdaptedViT
from tests.strategies.trained_sema import TWO, Epochs, Scripted, build


def rows_trained(epochs: Epochs) -> list[set[str]]:
    """Of each epoch the blocks whose routers were trained."""
    return [{name.split(".")[2] for name in each if ".rows." in name} for each in epochs.trainable]


@pytest.mark.parametrize("head", ["discriminant", "linear"])
def test_scales_are_learned_in_an_experience_in_which_nothing_grows(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], head: str
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, router="scalearn", policy="never", head=head, lr=0.1)
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    routers = {block: strategy.model.slot(block).router for block in (3, 4, 5)}
    first = {block: each.rows.row.detach().clone() for block, each in routers.items()}
    epochs.trainable.clear()
    strategy.train(stream[1])
    assert rows_trained(epochs) == [{"mlp_3", "mlp_4", "mlp_5"}] * strategy.config.epochs
    assert not any("adapters.0" in name for each in epochs.trainable for name in each)
    for block, router in routers.items():
        assert torch.equal(router.rows.kept[0], first[block])
        fresh = router.fresh(1, strategy.generator(f"router {block}"))
        assert (router.rows.row - fresh).abs().max() > 1e-3
        told = [len(each.dataset) for each in stream]
        assert router.finder.counts.tolist() == told


def test_where_one_block_grows_the_others_learn_to_weigh_what_they_have(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any], scripted: type[Scripted]
) -> None:
    epochs = Epochs()
    strategy = build(
        tiny_vit, epochs, router="poly", detector="scripted", detect_batch_size=24, epochs=1
    )
    stream = make_stream([[0, 1], [2, 3], [4, 5]]).train_stream
    strategy.train(stream[0])
    scripted.fires = lambda _: True  # block 3 grows, then block 4, then block 5
    phases = []
    for experience in stream[1:]:
        epochs.trainable.clear()
        strategy.train(experience)
        phases.append(rows_trained(epochs))
    # One adapter has nothing to weigh; of several all blocks learn weights in the first phase.
    assert phases[0] == [{"mlp_3"}, {"mlp_4"}, {"mlp_5"}]
    assert phases[1] == [{"mlp_3", "mlp_4", "mlp_5"}, {"mlp_4"}, {"mlp_5"}]
    slot = strategy.model.slot(5)
    assert [len(slot), *slot.router.rows.kept.shape] == [3, 2, 1, 2]
    assert slot.router.rows.kept[0].tolist() == [[1.0, 0.0]]
    assert slot.router.finder.counts.tolist() == [len(each.dataset) for each in stream]


def test_without_growth_poly_of_one_adapter_trains_nothing(
    tiny_vit: AdaptedViT, make_stream: Callable[..., Any]
) -> None:
    epochs = Epochs()
    strategy = build(tiny_vit, epochs, router="poly", policy="never", head="discriminant")
    stream = make_stream(TWO).train_stream
    strategy.train(stream[0])
    epochs.trainable.clear()
    strategy.train(stream[1])
    assert epochs.trainable == []
    told = [len(each.dataset) for each in stream]
    assert strategy.model.slot(3).router.finder.counts.tolist() == told
