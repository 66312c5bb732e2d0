import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from cl_adapters.benchmarks.maintenance import pretrain as command
from cl_adapters.benchmarks.maintenance.pretrain import (
    Photographs,
    PretrainConfig,
    Trainer,
    pretrain,
)
from cl_adapters.errors import InputError
from cl_adapters.vit.embedded import EMBEDDED, embedded_card
from cl_adapters.vit.pretrained import load_backbone

ROOT = Path(__file__).parents[4]
# Ten of a class are those whose first is one of the class means.
TRAIN, TEST = [0] * 6 + [1] * 6, [0] * 3 + [1] * 3


def photograph(label: int, place: int) -> bytes:
    """A PNG of noise around red or blue."""
    source = np.random.default_rng(100 * label + place)
    pixels = source.integers(0, 120, (8, 8, 3), dtype=np.uint8)
    pixels[..., 2 * label] += 130
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_data(path: Path, first: int = 0) -> Path:
    labels = TRAIN + TEST
    columns = {
        "image": [photograph(label, first + place) for place, label in enumerate(labels)],
        "label": labels,
        "split": ["train"] * len(TRAIN) + ["test"] * len(TEST),
    }
    pq.write_table(pa.table(columns), path)
    return path


@dataclass(frozen=True)
class Workshop:
    """Inputs and a folder where all runs share one cache of the teacher's features."""

    folder: Path
    teacher: Path

    def config(self, name: str, **settings: Any) -> PretrainConfig:
        small: dict[str, Any] = {
            "data": self.folder / "data.parquet", "teacher": self.teacher,
            "out": self.folder / name, "steps": 4, "decay": 1, "warmup": 2, "photos": 3,
            "drawn": 2, "num_glyphs": 5, "num_emblems": 4, "every": 2, "threads": 1,
        }  # fmt: skip
        return PretrainConfig(**(small | settings))


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


def test_another_seed_gives_another_result(
    workshop: Workshop, unbroken: tuple[PretrainConfig, Seen]
) -> None:
    config = workshop.config("other", seed=1)
    pretrain(config)
    assert not torch.equal(weights_of(config)["cls_token"], weights_of(unbroken[0])["cls_token"])


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


@pytest.mark.parametrize("moment", ["step", "weights", "checkpoint"])
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


def test_a_run_stopped_while_the_rate_is_flat_may_end_earlier_than_planned(
    workshop: Workshop, unbroken: tuple[PretrainConfig, Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_before_step(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            pretrain(workshop.config("shortened", steps=100))
    pretrain(workshop.config("shortened"))
    assert_equal_runs(workshop.config("shortened"), unbroken[0])


def test_a_finished_run_stays_as_it_is(unbroken: tuple[PretrainConfig, Seen]) -> None:
    config, _ = unbroken
    before = {path: path.read_bytes() for path in config.out.iterdir()}
    with watched() as seen:
        pretrain(config)
    assert seen.sides == []
    assert {path: path.read_bytes() for path in config.out.iterdir()} == before


def test_half_of_the_tokens_are_dropped_until_the_rate_falls(
    unbroken: tuple[PretrainConfig, Seen],
) -> None:
    assert unbroken[1].tokens == [33, 33, 33, 65]


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
    path = ROOT / "cl_adapters" / "vit" / "weights" / f"{EMBEDDED}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert f"{path.stat().st_size:,} bytes" in text
    assert f"{embedded_card()['parameters']:,}" in text
    for point in embedded_card()["curve"]:
        assert f"| {point['step']} | {point['ncm_held_out']:.2f} |" in text


# What follows looks at a trainer alone, without files of images.


def solid_photographs(held_labels: list[int]) -> Photographs:
    """Ten red and ten blue images, and as many held out, red and blue by turns."""
    red, blue = (torch.tensor(colour).view(3, 1, 1) for colour in ((200, 0, 0), (0, 0, 200)))
    images = torch.stack([each.to(torch.uint8).expand(3, 64, 64) for each in (red, blue)])
    labels, held = torch.arange(20) // 10, torch.arange(20) % 2
    features = torch.randn(20, 192, generator=torch.Generator().manual_seed(0))
    return Photographs(images[labels], features, labels, images[held], torch.tensor(held_labels))


def make_trainer(workshop: Workshop, held: list[int] | None = None, **settings: Any) -> Trainer:
    photographs = solid_photographs(held or [0, 1] * 10)
    return Trainer(workshop.config("trainer", **settings), photographs)


@pytest.mark.parametrize(
    ("held", "accuracy"),
    [([0, 1] * 10, 100), ([1, 0] * 10, 0), ([0] * 20, 50)],
)
def test_held_out_images_are_classified_by_the_training_images(
    workshop: Workshop, held: list[int], accuracy: float
) -> None:
    assert make_trainer(workshop, held).evaluate() == accuracy


def test_weights_are_averaged_over_the_steps(workshop: Workshop) -> None:
    trainer = make_trainer(workshop)
    states = [{k: v.clone() for k, v in trainer.average.items()}]
    for _ in range(2):
        trainer.train_step()
        states.append({k: v.clone() for k, v in trainer.student.network.state_dict().items()})
    for name, value in trainer.average.items():
        steps = torch.stack([state[name] for state in states])
        assert (value >= steps.amin(dim=0) - 1e-6).all(), name
        assert (value <= steps.amax(dim=0) + 1e-6).all(), name
    assert not torch.equal(trainer.average["cls_token"], states[-1]["cls_token"])


def test_without_averaging_the_last_weights_are_kept(workshop: Workshop) -> None:
    trainer = make_trainer(workshop, ema=0.0)
    trainer.train_step()
    for name, value in trainer.student.network.state_dict().items():
        assert torch.equal(trainer.average[name], value), name


def test_matrices_of_the_blocks_go_to_muon_and_all_else_to_adamw(workshop: Workshop) -> None:
    trainer = make_trainer(workshop)
    names = {id(value): name for name, value in trainer.student.named_parameters()}
    found = {
        type(optimiser).__name__: [
            names[id(value)] for group in optimiser.param_groups for value in group["params"]
        ]
        for optimiser in trainer.optimisers
    }
    matrices = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert sorted(found["Muon"]) == sorted(
        f"network.blocks.{block}.{name}.weight" for block in range(6) for name in matrices
    )
    assert sorted(found["Muon"] + found["AdamW"]) == sorted(names.values())


def test_the_rate_rises_stays_and_falls_to_zero(workshop: Workshop) -> None:
    config = workshop.config("rate", steps=100, decay=30, warmup=10)
    expected = np.interp(np.arange(101), [-1, 9, 70, 100], [0, 1, 1, 0])
    found = [command._rate(step, config) for step in range(101)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_optimisers_follow_the_rate(workshop: Workshop) -> None:
    trainer = make_trainer(workshop, warmup=4, steps=9, rate=0.1, matrix_rate=0.2)
    for share in (0.25, 0.5):
        trainer.train_step()
        rates = [group["lr"] for each in trainer.optimisers for group in each.param_groups]
        assert rates == pytest.approx([share * 0.2, share * 0.1])


# What follows is what a user may get wrong.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("steps", "decay", "warmup", "photos", "drawn", "every")),
        *((name, -3) for name in ("num_glyphs", "num_emblems", "threads", "seed")),
        *((name, -0.1) for name in ("rate", "matrix_rate", "weight_decay", "ema")),
        ("rate", float("nan")),
        ("matrix_rate", float("inf")),
        ("ema", 1.0),
        ("seed", 2**32),
    ],
)
def test_numbers_out_of_range_are_refused(workshop: Workshop, name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^`{name}` must be at least .*, got {value}$"):
        workshop.config("bad", **{name: value})


@pytest.mark.parametrize("name", ["data", "teacher"])
def test_inputs_that_are_no_files_are_refused(
    workshop: Workshop, tmp_path: Path, name: str
) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=f"^`{name}` must be an existing file, got '{path}'$"):
            pretrain(workshop.config("bad", **{name: path}))
    assert not (workshop.folder / "bad").exists()


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


def run_command(monkeypatch: pytest.MonkeyPatch, config: PretrainConfig, *more: str) -> None:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in vars(config).items()]
    monkeypatch.setattr(sys, "argv", ["pretrain", *given, *more])
    command._main()


def test_the_command_takes_every_setting(
    monkeypatch: pytest.MonkeyPatch, workshop: Workshop
) -> None:
    taken: list[PretrainConfig] = []
    monkeypatch.setattr(command, "pretrain", taken.append)
    config = workshop.config("command", rate=0.25, seed=9, ema=0.5)
    run_command(monkeypatch, config)
    assert taken == [config]


def test_the_command_has_the_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[PretrainConfig] = []
    monkeypatch.setattr(command, "pretrain", taken.append)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--data=a", "--teacher=b", "--out=c"])
    command._main()
    assert taken == [PretrainConfig(data=Path("a"), teacher=Path("b"), out=Path("c"))]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--steps=0", "`steps` must be at least 1 and less than inf, got 0"),
        ("--data=nowhere", "`data` must be an existing file, got 'nowhere'"),
        (f"--data={__file__}", "must be a readable parquet file"),
    ],
)
def test_bad_arguments_end_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workshop: Workshop,
    option: str,
    sentence: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, workshop.config("bad"), option)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
