"""A network is found in what trainers write around it, where there is one reading."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from cl_adapters.errors import InputError
from cl_adapters.vit.pretrained import load_backbone
from cl_adapters.vit.state_dicts import find_state

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return timm.create_model("test_vit", img_size=32, num_classes=5).state_dict()


def behind(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


PREFIXES = [
    "module.", "backbone.", "model.", "student.", "teacher.", "encoder.", "_orig_mod.",
    "module.module.", "model.backbone.", "_orig_mod.module.encoder.", "net.vit.", "visual.trunk.",
]  # fmt: skip
ENTRIES = [
    "state_dict", "model", "teacher", "student", "state_dict_ema", "model_state_dict", "ema",
    "net", "weights", "encoder",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_prefix_of_all_names_is_left_out_and_told(
    tmp_path: Path, state: State, prefix: str
) -> None:
    torch.save(state, tmp_path / "plain.pt")
    plain = load_backbone("test_vit", weights=tmp_path / "plain.pt", image_size=32)
    torch.save(behind(prefix, state), tmp_path / "w.pt")
    found = load_backbone("test_vit", weights=tmp_path / "w.pt", image_size=32)
    assert found.digest == plain.digest  # of what was used
    assert f"without the prefix '{prefix}'" in found.notices[0]
    assert plain.notices == ()


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_the_one_entry_that_fits_is_taken_and_told(state: State, entry: str, prefix: str) -> None:
    momenta = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    held = {"epoch": 3, "optimizer": momenta, entry: behind(prefix, state), "best": None}
    found = find_state(held, "weights")
    assert (found.entry, found.prefix) == (entry, prefix)
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())
    assert f"from its entry '{entry}'" in found.describe()


def test_what_lies_beside_the_network_is_left_out_and_told(state: State) -> None:
    head = {"dino_head.mlp.0.weight": torch.zeros(2), "dino_head.mlp.0.bias": torch.zeros(2)}
    found = find_state({"teacher": behind("backbone.", state) | head}, "weights")
    assert found.tensors.keys() == state.keys()
    assert found.others == tuple(head)
    assert found.describe().endswith("leaving out 'dino_head.mlp.0.weight', 'dino_head.mlp.0.bias'")
    beside = find_state({**state, "epoch": 3}, "weights")
    assert (beside.tensors.keys(), beside.others) == (state.keys(), ("epoch",))


SEVERAL: list[tuple[Any, str]] = [
    (lambda s: {"student": s, "teacher": s}, "one in each of the entries 'student', 'teacher'"),
    (lambda s: {"model": s, "model_ema": s, "epoch": 1}, "entries 'model', 'model_ema'"),
    (lambda s: behind("student.", s) | behind("teacher.", s), "prefixes 'student.', 'teacher.'"),
    (lambda s: {"state_dict": behind("base.", s) | behind("momentum.", s)}, "'base.', 'momentum.'"),
    (lambda _: {"optimizer": {}, "epoch": 3}, "dict with 'optimizer' .dict., 'epoch' .int."),
    (lambda _: {}, "got dict without a tensor"),
    (lambda _: None, "got NoneType"),
    (lambda _: {"a": {"b": {"c": torch.ones(2)}}}, "got dict with 'a' .dict."),
]


@pytest.mark.parametrize(("make", "message"), SEVERAL, ids=[message for _, message in SEVERAL])
def test_what_can_be_read_in_no_way_or_in_two_is_refused_by_name(
    state: State, make: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        find_state(make(state), "weights")


def test_a_tensor_that_is_missing_is_told_with_those_that_are_there(
    tmp_path: Path, state: State
) -> None:
    torch.save({f"vit.embeddings.{index}": torch.ones(2) for index in range(9)}, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match="is missing; the file holds 'vit.embeddings.0', .* and 5 more"
    ):
        load_backbone("test_vit", weights=tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_asks_for_code_is_refused_in_a_sentence_that_says_for_what(
    tmp_path: Path, state: State, zipped: bool
) -> None:
    path = tmp_path / "w.pth"
    held = {"model": state, "args": argparse.Namespace(lr=1)}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        load_backbone("test_vit", weights=path)
    text = str(caught.value)
    assert "free of code, got objects of 'argparse.Namespace'" in text
    assert "torch.save(model.state_dict()" in text
    assert not re.search(r"\x1b|\n", text)


def test_a_whole_model_is_refused_in_a_sentence_that_says_its_classes(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit"), tmp_path / "w.pth")
    with pytest.raises(
        InputError, match="got objects of 'timm.layers.* and .* more, which"
    ) as caught:
        load_backbone("test_vit", weights=tmp_path / "w.pth")
    assert not re.search(r"\x1b|\n", str(caught.value))
