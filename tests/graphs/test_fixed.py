"""A fixed graph answers what the model answers, whatever the model does to find it."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_adapters.bundle.model import LearnedModel
from cl_adapters.errors import InputError
from cl_adapters.graphs.fixed import GraphModel
from cl_adapters.graphs.traced import traced
from cl_adapters.strategies.core.output import as_output
from cl_adapters.strategies.mos import MOS, MOSModel
from cl_adapters.strategies.simplecil import PrototypeClassifier, SimpleCIL
from tests.graphs.learned import MEAN, SIX, STD, THREE, images, learned, model_of
from tests.marks import by_default

POLY = {"watch": "slots", "router": "poly", "policy": "every_experience"}
CASES = [
    ("simplecil", {}),
    ("simplecil", {"head": "discriminant"}),
    ("simplecil", {"head": "ridge"}),
    ("ranpac", {"projections": 50}),
    ("aper", {}),
    ("aper", {"variant": "ssf"}),
    ("aper", {"variant": "vpt_shallow"}),
    ("aper", {"variant": "finetune"}),
    ("loranpac", {"projections": 50}),
    ("fecam", {}),
    ("fecam", {"form": "pilot", "first_session": True}),
    ("ease", {}),
    ("finetune", {"peft": "prefix"}),
    ("finetune", {"peft": "lora", "head": "cosine"}),
    ("joint", {"peft": "parallel"}),
    ("lae", {}),
    ("lae", {"peft": "prefix", "head": "cosine"}),
    ("sema", {}),
    ("sema", {"watch": "slots", "router": "learned", "head": "linear"}),
    ("sema", {"watch": "slots", "peft": "lora", "head": "ridge", "beside": False}),
    ("sema", {"peft": "lora", "head": "ridge"}),
    ("mos", {}),
    ("mos", {"peft": "lora", "task_predictor": "prototypes", "head": "cosine"}),
    ("mos", {"peft": "prefix", "retrieval": False, "ensemble": False}),
    ("avalanche:EWC", {}),
    ("inflora", {"rank": 3}),
    ("sd_lora", {}),
    ("cl_lora", {}),
    ("l2p", {}),
    ("dualprompt", {"head": "kac", "general_blocks": 1}),
    ("coda_prompt", {}),
    ("hide_prompt", {}),
    ("l2p", {"prompts": "none"}),
    ("coda_prompt", {"prompts": "one_prompt"}),
    ("slca", {}),
    ("cofima", {}),
    ("ssiat", {}),
    ("tuna", {}),
    ("tuna", {"second": "last"}),
    ("acmap", {}),
    ("sema", {**POLY, "router_splits": 4}),
    ("sema", {**POLY, "peft": "lora"}),
    ("sema", {**POLY, "router": "scalearn_shared"}),
    ("mos", {"set_storage": "one_bit"}),
    ("tuna", {"set_storage": "one_bit"}),
]


def expected(model: Any, batch: Tensor) -> Tensor:
    """Returns the probabilities by the model's own pass: float32 pixels, its forward, a softmax."""
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (MEAN, STD))
    with torch.no_grad():
        logits = as_output(model.strategy.model.eval()((batch / 255 - mean) / std)).logits
    labels = sorted(label for each in model.sheet.learned for label in each)
    return logits.double().softmax(dim=1)[:, labels]


def graph_of(model: Any) -> GraphModel:
    labels = sorted(label for each in model.sheet.learned for label in each)
    return GraphModel(model.strategy, (MEAN, STD), labels)


@pytest.mark.parametrize(
    ("name", "options"),
    by_default(
        CASES, [CASES[place] for place in (0, 3, 4, 9, 11, 15, 17, 18, 20, 23, 24, 26, 27, 30, 43)]
    ),
)
def test_a_graph_answers_as_the_model(name: str, options: dict[str, Any]) -> None:
    model = learned(name, **options)
    batch = images()
    with torch.no_grad():
        found = graph_of(model)(batch)
    torch.testing.assert_close(found.double(), expected(model, batch), atol=2e-6, rtol=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(batch)))
    assert found.shape == (24, len(model.classes))


@pytest.mark.parametrize(
    ("experiences", "rounds", "kind"),
    [
        (THREE, 1, "_Unrolled"),
        (THREE, 2, "_Exhaustive"),
        (THREE, 3, "_Exhaustive"),
        (THREE, 4, "_Exhaustive"),
        (SIX, 2, "_Unrolled"),
        (SIX, 4, "_Unrolled"),
        (SIX, 5, "_Exhaustive"),
    ],
)
def test_images_move_among_adapters_as_the_retrieval_lets_them(
    experiences: Any, rounds: int, kind: str
) -> None:
    trained, batch = scattered(experiences, rounds), images(200)
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (MEAN, STD))
    with torch.no_grad():
        model = trained.strategy.model.eval()
        visited = as_output(model((batch / 255 - mean) / std)).extras["retrieval"].visited
        graph = graph_of(trained)
        found = graph(batch)
    asked = (visited >= 0).sum(dim=1)
    assert asked.max() == rounds
    if rounds > 2:
        assert len(set(asked.tolist())) > 1
    assert type(graph.answer).__name__ == kind
    torch.testing.assert_close(found.double(), expected(trained, batch), atol=2e-6, rtol=0)


def scattered(experiences: Any, rounds: int, **options: Any) -> LearnedModel:
    """Returns MOS with sets and owners of chance: images move, come back and go in circles."""
    trained = model_of(MOS, "mos", experiences, rounds=rounds, **options)
    model: MOSModel = trained.strategy.model
    generator = torch.Generator().manual_seed(4 if experiences is THREE else 5)
    with torch.no_grad():
        for value in model.frozen_adapters.tensors():
            value.add_(0.4 * torch.randn(value.shape, generator=generator))
        for layer in model.heads.layers:
            layer.weight.add_(torch.randn(layer.weight.shape, generator=generator))
    owners = [2, 0, -1, 1, 2, 0] if experiences is THREE else [3, 5, 0, 4, 1, 2]
    model.class_to_task.experience_of = torch.tensor(owners)
    return trained


@pytest.mark.parametrize("storage", by_default(["float", "one_bit"], ["float"]))
def test_the_unrolled_retrieval_is_a_graph(storage: str) -> None:
    trained = scattered(THREE, 1, set_storage=storage)
    graph = graph_of(trained)
    assert type(graph.answer).__name__ == "_Unrolled"
    found = traced(graph, 16).module()(images(7))
    torch.testing.assert_close(found.double(), expected(trained, images(7)), atol=2e-6, rtol=0)


def test_the_first_experience_of_lae_has_one_expert() -> None:
    model = learned("lae", ((1, 0),))
    torch.testing.assert_close(
        graph_of(model)(images()).double(), expected(model, images()), atol=2e-6, rtol=0
    )


def test_the_model_is_left_as_it_was() -> None:
    model = learned("mos")
    before = copy.deepcopy(model.strategy.model.state_dict())
    trained = [value.requires_grad for value in model.strategy.model.parameters()]
    graph = graph_of(model)
    with torch.no_grad():
        for value in graph.parameters():
            value.zero_()
    after = model.strategy.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [value.requires_grad for value in model.strategy.model.parameters()] == trained


def test_a_model_that_answers_change_is_refused() -> None:
    with pytest.raises(InputError, match=r"MOS's is changed by each answer; `merge_in_evaluation`"):
        graph_of(learned("mos", merge_in_evaluation=True))


class _Asking(SimpleCIL):
    """Gives its model a query."""

    def query_features(self) -> Any:
        return self.features.feature_extractor(self.backbone, self.backbone)


def test_a_model_that_asks_for_queries_says_how_it_is_a_graph() -> None:
    trained = learned("simplecil")
    asking = copy.copy(trained.strategy)
    asking.__class__ = _Asking
    with pytest.raises(
        InputError, match="must have a `fixed_graph` to be one, and _Asking's has none"
    ):
        GraphModel(asking, (MEAN, STD), [0])


class _Own(PrototypeClassifier):
    """Says how it is a graph: its answers the other way round."""

    def fixed_graph(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.head, _Negated())


class _Negated(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return -logits


class WrongGraph(SimpleCIL):
    """Names another graph than what it does."""

    @classmethod
    def build_model(cls, backbone: Any, config: Any, seed: int) -> _Own:
        return _Own(backbone, config.build_head(backbone.embed_dim, config.cosine_scale))


def test_a_model_may_say_itself_how_it_is_a_graph() -> None:
    model = model_of(WrongGraph, "wrong", ((0, 1),))
    plain = expected(model, images())
    found = graph_of(model)(images())
    torch.testing.assert_close(found.double(), 1 - plain, atol=2e-6, rtol=0)  # of two classes
