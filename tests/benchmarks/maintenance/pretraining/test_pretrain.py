"""Pretraining from files of images to weights and card, stopped and continued."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cl_adapters.benchmarks.maintenance import pretrain as command
from cl_adapters.benchmarks.maintenance.pretrain import (
    PretrainConfig,
    Trainer,
    pretrain,
)
from cl_adapters.errors import InputError
from cl_adapters.vit.embedded import EMBEDDED, embedded_card, embedded_weights
from cl_adapters.vit.pretrained import load_backbone
from tests.benchmarks.maintenance.pretraining.workshop import TRAIN, Workshop, write_data

ROOT = Path(__file__).parents[4]


@dataclass
class Seen:
    """What passed through networks: images by size, and tokens of each forward in training."""

    sides: list[int]
    tokens: list[int]


@contextmanager
def watched() -> Iterator[Seen]:
    seen = Seen([], [])
    blocks: list[nn.Module] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, PatchEmbed):
            seen.sides += [inputs[0].shape[-1]] * len(inputs[0])
        elif isinstance(module, Block) and module.training:
            blocks.append(module)
            if module is blocks[0]:
                seen.tokens.append(inputs[0].shape[1])

    hook = nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        yield seen
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, teacher_file: Path) -> Workshop:
    folder = tmp_path_factory.mktemp("pretrain")
    write_data(folder / "data.parquet")
    return Workshop(folder, teacher_file)


@pytest.fixture(scope="module")
def unbroken(workshop: Workshop) -> tuple[PretrainConfig, Seen]:
    """A run from start to end, and what passed through its networks."""
    config = workshop.config("unbroken")
    with watched() as seen:
        pretrain(config)
    return config, seen


def weights_of(config: PretrainConfig) -> dict[str, Tensor]:
    return dict(load_file(config.out / f"{EMBEDDED}.safetensors"))


def card_of(config: PretrainConfig) -> dict[str, Any]:
    return dict(json.loads((config.out / f"{EMBEDDED}.json").read_text("utf-8")))


def assert_equal_runs(one: PretrainConfig, two: PretrainConfig) -> None:
    """Weights, whole training state and learning curve are the same to the last bit."""
    for name in (f"{EMBEDDED}.safetensors", "checkpoint.safetensors"):
        left, right = load_file(one.out / name), load_file(two.out / name)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), key
    assert card_of(one) == card_of(two)


@pytest.mark.slow
def test_one_seed_gives_one_result_and_the_teacher_is_asked_once(
    workshop: Workshop, unbroken: tuple[PretrainConfig, Seen]
) -> None:
    config, seen = unbroken
    assert seen.sides.count(224) == len(TRAIN)
    torch.rand(3)  # whatever was drawn before
    with watched() as seen_again:
        pretrain(workshop.config("twin"))
    assert_equal_runs(config, workshop.config("twin"))
    assert seen_again.sides.count(224) == 0


WRITTEN = ("weights", "checkpoint")  # files


def stop_before_step(patch: pytest.MonkeyPatch, step: int) -> None:
    whole = Trainer.train_step

    def train_step(self: Trainer) -> dict[str, float]:
        if self.step == step:
            raise KeyboardInterrupt
        return whole(self)

    patch.setattr(Trainer, "train_step", train_step)


def stop_while_writing(patch: pytest.MonkeyPatch, size: Callable[[int], bool]) -> None:
    """Breaks off while the second file of a kind, told by its number of tensors, is written."""
    written = []

    def save(tensors: dict[str, Tensor], path: Path, facts: dict[str, str] | None = None) -> None:
        written.append(len(tensors))
        if size(len(tensors)) and sum(size(number) for number in written) == 2:
            Path(path).write_bytes(b"half a file")
            raise KeyboardInterrupt
        save_file(tensors, path, facts)

    patch.setattr(command, "save_file", save)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", *WRITTEN])
def test_a_run_that_was_stopped_continues_as_if_it_had_not(
    workshop: Workshop,
    unbroken: tuple[PretrainConfig, Seen],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    config = workshop.config(f"stopped-{moment}")
    with monkeypatch.context() as patch:
        if moment == "step":
            stop_before_step(patch, 3)
        else:
            number = len(weights_of(unbroken[0]))
            stop_while_writing(patch, lambda n: (n == number) == (moment == "weights"))
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    with watched() as seen:
        pretrain(config)
    assert len(seen.tokens) == 2  # it went on from step 2 and did not begin again
    assert_equal_runs(config, unbroken[0])


@pytest.mark.slow
def test_a_run_stopped_while_the_rate_is_flat_may_end_earlier_than_planned(
    workshop: Workshop, unbroken: tuple[PretrainConfig, Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_before_step(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            pretrain(workshop.config("shortened", steps=100))
    pretrain(workshop.config("shortened"))
    assert_equal_runs(workshop.config("shortened"), unbroken[0])


@pytest.mark.slow
def test_a_finished_run_stays_as_it_is(unbroken: tuple[PretrainConfig, Seen]) -> None:
    config, _ = unbroken
    before = {path: path.read_bytes() for path in config.out.iterdir()}
    with watched() as seen:
        pretrain(config)
    assert seen.sides == []
    assert {path: path.read_bytes() for path in config.out.iterdir()} == before


@pytest.mark.slow
def test_half_of_the_tokens_are_dropped_until_the_rate_falls(
    unbroken: tuple[PretrainConfig, Seen],
) -> None:
    assert unbroken[1].tokens == [33, 33, 33, 65]


@pytest.mark.slow
def test_the_weights_load_as_the_embedded_backbone(
    unbroken: tuple[PretrainConfig, Seen],
) -> None:
    config, _ = unbroken
    path = config.out / f"{EMBEDDED}.safetensors"
    loaded = load_backbone(EMBEDDED, weights=path).model.vit.state_dict()
    state = load_file(config.out / "checkpoint.safetensors")
    for name, value in loaded.items():
        assert torch.equal(value, state[f"average.{name}"].half().float()), name
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.slow
def test_the_card_tells_what_was_done(unbroken: tuple[PretrainConfig, Seen]) -> None:
    config, _ = unbroken
    card = card_of(config)
    weights = (config.out / f"{EMBEDDED}.safetensors").read_bytes()
    assert card["name"] == EMBEDDED
    assert card["sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["parameters"] == sum(value.numel() for value in weights_of(config).values())
    for name in ("data", "teacher"):
        content = getattr(config, name).read_bytes()
        assert card["inputs"][name] == hashlib.sha256(content).hexdigest()
    for name, value in card["recipe"].items():
        assert value == getattr(config, name)
    assert card["recipe"].keys() | {"data", "teacher", "out"} == {
        entry.name for entry in dataclasses.fields(PretrainConfig)
    }
    assert card["steps_taken"] == 4
    assert [point["step"] for point in card["curve"]] == [2, 4]
    for point in card["curve"]:
        assert point["ncm_held_out"] in (0, 50, 100)  # of two images
        losses = [point[name] for name in ("features", "teacher", "labels", "glyphs", "emblems")]
        assert all(np.isfinite(losses))
        assert min(losses) > 0


def test_the_shipped_weights_were_made_with_the_default_settings() -> None:
    nowhere = Path("nowhere")
    config = PretrainConfig(data=nowhere, teacher=nowhere, out=nowhere)
    shipped = embedded_card()["recipe"]
    for name, value in config.numbers().items():
        if name != "threads":  # changes the last bits only
            assert shipped[name] == value, name
    assert embedded_card()["steps_taken"] == config.steps


def test_the_model_card_names_the_shipped_file() -> None:
    text = (ROOT / "docs" / "model_card.md").read_text("utf-8")
    path = ROOT / "cl_adapters" / "vit" / "weights" / f"{EMBEDDED}.halves"
    weights = embedded_weights()
    assert hashlib.sha256(weights).hexdigest() in text
    assert f"{len(weights):,} bytes" in text
    assert f"{path.stat().st_size:,} bytes" in text
    assert f"{embedded_card()['parameters']:,}" in text
    for point in embedded_card()["curve"]:
        assert f"| {point['step']} | {point['ncm_held_out']:.2f} |" in text


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_settings(
    workshop: Workshop, unbroken: tuple[PretrainConfig, Seen]
) -> None:
    config, _ = unbroken
    with pytest.raises(InputError, match="^`seed` must be 0 as in .*unbroken.*, got 7$"):
        pretrain(workshop.config("unbroken", seed=7, steps=6))
    with pytest.raises(InputError, match="^`num_glyphs` must be 5 as in .*, got 6$"):
        pretrain(workshop.config("unbroken", num_glyphs=6))
    with pytest.raises(InputError, match="^`steps` must be at least 4 as in .*, got 3$"):
        pretrain(workshop.config("unbroken", steps=3))
    assert card_of(config)["steps_taken"] == 4


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_images(
    workshop: Workshop, unbroken: tuple[PretrainConfig, Seen], tmp_path: Path
) -> None:
    config, _ = unbroken
    other = write_data(tmp_path / "other.parquet", first=50)
    old, new = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (config.data, other))
    with (
        watched() as seen,
        pytest.raises(InputError, match=f"^`data` must be {old} as in .*, got {new}$"),
    ):
        pretrain(workshop.config("unbroken", data=other))
    assert seen.sides.count(224) == len(TRAIN)  # the cache was of the first images
