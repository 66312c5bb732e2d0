"""The runs behind published numbers: their commands, passes counted image by image, and machines."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from cl_adapters.benchmarks.running.batch import expand
from cl_adapters.benchmarks.running.machine import (
    PASS,
    Images,
    Machine,
    images_at,
    images_of,
    matmul_seconds,
    this_machine,
)
from cl_adapters.benchmarks.running.passes import PASSES
from cl_adapters.benchmarks.running.protocols import find_protocol
from cl_adapters.benchmarks.running.reach import (
    PublishedRun,
    commands_table,
    hours,
    memory,
    obstacles,
    passes,
    published_runs,
    without_protocol,
)
from cl_adapters.benchmarks.running.references import other_options, references
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies import STRATEGIES, options_of
from cl_adapters.vit import pretrained
from tests.benchmarks.running.known_runs import CIFAR, IN21K, ROOT

FAMILY = ("aper", "ease", "fecam", "inflora", "loranpac", "ranpac", "sd_lora", "simplecil", "tuna")


def run_of(strategy: str, protocol: str, **options: str) -> PublishedRun:
    """The first certain run of a strategy over a protocol that has these options."""
    return next(
        run
        for run in published_runs([strategy])
        if run.protocol == protocol
        and run.is_certain
        and run.rows[0].settings.items() >= options.items()
    )


# The commands.


def parsed(command: str) -> tuple[dict[str, str], list[str]]:
    """The options of a command line, and its settings."""
    words = shlex.split(command)
    assert words[:2] == ["cl-adapters", "run"]
    given, settings = {}, []
    for name, value in zip(words[2::2], words[3::2], strict=True):
        if name == "--set":
            settings.append(value)
        else:
            given[name.removeprefix("--")] = value
    return given, settings


def test_the_command_of_each_published_run_is_a_run_that_meets_its_rows(tmp_path: Path) -> None:
    runs = published_runs()
    assert len(runs) > 150
    for run in runs:
        given, settings = parsed(run.command)
        assert given.pop("out") == "runs"
        given["data"] = str(tmp_path)
        (config,) = expand(given, recipe=None, seeds=1, settings=settings)
        protocol = find_protocol(run.protocol)
        assert (config.strategy, config.protocol) == (run.strategy, run.protocol)
        assert config.backbone in ([run.backbone] if run.backbone else protocol.backbones)
        record = RunRecord(
            strategy=config.strategy, stream="", seed=config.seed, fingerprint={}, classes=[],
            config=config.model_dump(mode="json"), experiences=[],
        )  # fmt: skip
        assert [other_options(row, record) for row in run.rows] == [[]] * len(run.rows)


def test_runs_hold_every_number_of_ours_once() -> None:
    rows = [row for run in published_runs() for row in run.rows]
    others = list(without_protocol(STRATEGIES))
    expected = [row for row in references() if row.strategy]
    assert sorted(map(repr, rows + others)) == sorted(map(repr, expected))


def test_the_page_holds_the_commands() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text("utf-8")
    table = text.partition("<!-- commands:begin -->\n")[2].partition("<!-- commands:end -->")[0]
    assert table == commands_table(FAMILY), "run: python docs/generate.py"
    for number in ("92.2", "90.61", "85.14", "91.51", "81.28"):
        assert number in table


# Passes, image by image.


def counted(train: list[int], test: int, looks: dict[str, Any]) -> float:
    """Goes through a stream experience by experience, with a cache of (network, image) pairs."""
    spent, cache = 0.0, set()
    networks = [] if looks["grows"] else list(range(looks["networks"]))
    for place, images in enumerate(train):
        if place == 0 or looks["trains_on"]:
            spent += sum(looks["step"] for _ in range(looks["epochs"]) for _ in range(images))
        if looks["grows"]:
            networks = list(range(place + 1 + looks["networks"]))
        for network in networks:
            cache |= {(network, "train", place, image) for image in range(images)}
            cache |= {(network, "test", image) for image in range(test)}
    return spent + len(cache)


ONCE = {"step": 2.1, "epochs": 20, "trains_on": False, "grows": False, "networks": 1}


@pytest.mark.parametrize(
    ("strategy", "options", "looks"),
    [
        ("simplecil", {}, {**ONCE, "epochs": 0}),
        ("ranpac", {"first_session": "true", "variant": "adapter"}, ONCE),
        ("ranpac", {"first_session": "false"}, {**ONCE, "epochs": 0}),
        ("aper", {"variant": "vpt_shallow"}, {**ONCE, "networks": 2}),
        ("aper", {"variant": "finetune"}, {**ONCE, "networks": 2, "epochs": 5, "step": 3.0}),
        ("ease", {"beta": "0.0"}, {**ONCE, "trains_on": True, "grows": True, "networks": 0}),
        ("ease", {"beta": "1.0"}, {**ONCE, "trains_on": True, "grows": True, "networks": 1}),
    ],
)
def test_passes_are_those_counted_image_by_image(
    strategy: str, options: dict[str, str], looks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = {"ease": "pilot-cub-b0inc10", "aper": CIFAR, "simplecil": CIFAR}.get(
        strategy, "ranpac-cifar100-b0inc10"
    )
    run = run_of(strategy, protocol, **options)
    small = find_protocol(protocol).model_copy(
        update={"classes": 6, "first": None, "increment": 2, "train_images": 30, "test_images": 12}
    )
    monkeypatch.setattr("cl_adapters.benchmarks.running.reach.find_protocol", lambda _: small)
    assert passes(run) == pytest.approx(counted([10, 10, 10], 12, looks))


# What answers in an evaluation: a network by its name and what it costs. A name that holds the
# number of the experience is of a network that learns on.
Answers = Callable[[int], list[tuple[object, float]]]


def walked(steps: Callable[[int], float], after: Callable[[int], float], answers: Answers) -> float:
    """Goes through 3 experiences of 10 train and 4 test images, image by image."""
    spent, known = 0.0, set()
    for experience in range(3):
        for _ in range(10):
            spent += steps(experience) + after(experience)
        for image in range(4 * (experience + 1)):
            for network, cost in answers(experience):
                if (network, image) not in known:
                    known.add((network, image))
                    spent += cost
    return spent


def today(cost: float = 1) -> Answers:
    return lambda now: [(("today", now), cost)]


def prompted(now: int) -> list[tuple[object, float]]:
    return [("query", 1), (("prompts", now), 1)]


def stored(now: int) -> list[tuple[object, float]]:
    return [(("stored", each), 1) for each in range(now + 1)]


@pytest.mark.parametrize(
    ("strategy", "options", "steps", "after", "answers"),
    [  # zoo.md 18
        ("l2p", {}, lambda _: 5 * 3.3, lambda _: 0, prompted),
        ("dualprompt", {"epochs": "7"}, lambda _: 7 * 3.1, lambda _: 0, prompted),
        ("coda_prompt", {}, lambda _: 20 * 3.1, lambda _: 0, prompted),
        ("hide_prompt", {}, lambda _: 50 * 2.1 + 20, lambda _: 2, prompted),
        ("inflora", {}, lambda _: 20 * 2.1, lambda _: 2, today()),
        ("sd_lora", {"epochs": "3"}, lambda _: 3 * 2.1, lambda _: 0, today()),
        ("slca", {}, lambda _: 20 * 3, lambda _: 1, today()),
        ("cofima", {"epochs": "2"}, lambda _: 2 * 3, lambda _: 1 + 3, today()),
        ("cl_lora", {}, lambda now: 30 * (3.7 if now else 2.1), lambda _: 1,
         lambda now: [(("first half", now), 0.5)]
         + [((now, "second half", each), 0.5) for each in range(now + 1)]),
        ("cl_lora", {"distillation": "0"}, lambda _: 30 * 2.1, lambda _: 1,
         lambda now: today(0.5 + (now + 1) / 2)(now)),
        ("ssiat", {}, lambda now: (10 if now else 20) * 2.1, lambda now: 3 if now else 1, today()),
        ("ssiat", {"later_epochs": "none", "pairing": "image"}, lambda _: 20 * 2.1,
         lambda now: 2 if now else 1, today()),
        ("ssiat", {"drift": "false"}, lambda now: (10 if now else 20) * 2.1, lambda _: 1, today()),
        ("tuna", {}, lambda _: 15 * 2.1, lambda _: 1,
         lambda now: [((now, each), 1) for each in range(now + 1)]),
        ("tuna", {"detach_stored": "true"}, lambda _: 15 * 2.1, lambda _: 1, stored),
        ("tuna", {"detach_stored": "true", "second": "universal"}, lambda _: 15 * 2.1,
         lambda _: 1, lambda now: stored(now) + ([(("universal", now), 1)] if now else [])),
        ("acmap", {}, lambda _: 20 * 2.1, lambda now: now + 1, today()),
        ("acmap", {"limit": "2"}, lambda now: 20 * 2.1 if now < 2 else 0,
         lambda now: now + 1 if now < 2 else 1, lambda now: today()(min(now, 1))),
    ],
)  # fmt: skip
def test_passes_of_a_network_that_learns_on_are_those_counted_image_by_image(
    strategy: str,
    options: dict[str, str],
    steps: Callable[[int], float],
    after: Callable[[int], float],
    answers: Answers,
) -> None:
    found = PASSES[strategy](options_of(strategy, "official", options), [10.0] * 3, 12)
    assert found == pytest.approx(walked(steps, after, answers))


def test_passes_of_domains_are_counted_by_experience(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ranpac-cddb-by-domain"
    run = run_of("ranpac", name)
    assert passes(run) is None, "images unknown"
    known = find_protocol(name).model_copy(update={"train_images": 500, "test_images": 40})
    monkeypatch.setattr("cl_adapters.benchmarks.running.reach.find_protocol", lambda _: known)
    assert passes(run) == pytest.approx(20 * 100 * 2.1 + 540)


def test_passes_of_ranpac_on_cifar_are_those_of_the_arithmetic() -> None:
    """20 epochs of 5,000 images at 2.1 passes, then 60,000 images once."""
    name = "ranpac-cifar100-b0inc10"
    assert passes(run_of("ranpac", name, first_session="true")) == 20 * 5_000 * 2.1 + 60_000
    assert passes(run_of("ranpac", name, first_session="false")) == 60_000
    assert passes(run_of("mos", CIFAR)) is None, "not counted here"
    vtab = "pilot-vtab-b0inc10"
    assert passes(run_of("ranpac", vtab, first_session="true")) is None, "images unknown"


def test_a_pass_has_the_products_of_timms_network() -> None:
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0).eval()
        image = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        vit(image)
    assert counter.get_total_flops() / 2 == pytest.approx(PASS, rel=1e-3)
    assert pytest.approx(17.6e9, rel=0.01) == PASS  # zoo.md


# Machines.

FULL = Machine(
    device="cpu", images=(Images(100, 50_000, 10_000),), memory=10**12, seconds_a_pass=0.001
)


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, []),
        ({"images": ()}, ["no images of CIFAR-100 known here"]),
        ({"images": (Images(100, 500, 100),)}, ["no images of CIFAR-100 known here"]),
        ({"memory": 4 * 10**9 - 1}, ["memory: at least 4 GB of 4"]),
        ({"memory": 4 * 10**9}, []),
        ({"memory": None}, []),
        ({"seconds_a_pass": 0.5}, ["time: at least 38 hours of passes on this cpu"]),
    ],
)
def test_each_obstacle_is_named(
    change: dict[str, Any], reasons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cl_adapters.benchmarks.running.reach.are_weights_cached", lambda _: True)
    run = run_of("ranpac", "ranpac-cifar100-b0inc10", first_session="true")
    machine = Machine(**{**vars(FULL), **change})
    assert obstacles(run, machine) == reasons
    assert memory(run) == 4 * 10**9
    assert hours(run, machine) == pytest.approx(270_000 * machine.seconds_a_pass / 3600)


def test_images_whose_number_is_unknown_must_be_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cl_adapters.benchmarks.running.reach.are_weights_cached", lambda _: True)
    run = run_of("ranpac", "pilot-imagenet-a-b0inc20", first_session="true")
    others = Machine(**{**vars(FULL), "images": (Images(200, 24_000, 6_000),)})
    own = Machine(**{**vars(FULL), "images": (Images(200, 5_981, 1_519),)})
    assert obstacles(run, others) == ["no images of ImageNet-A known here"]
    assert obstacles(run, own) == []


def test_weights_are_where_timm_would_look_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    run = run_of("ranpac", "ranpac-cifar100-b0inc10", first_session="true")
    assert obstacles(run, FULL) == ["weights augreg_in21k not in timm's cache"]
    repository = tmp_path / f"models--timm--{IN21K}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    assert not pretrained.are_weights_cached(IN21K)
    (repository / "snapshots" / "abc" / "model.safetensors").write_bytes(b"")
    assert pretrained.are_weights_cached(IN21K)
    assert not pretrained.are_weights_cached(f"{IN21K}_ft_in1k")
    assert obstacles(run, FULL) == []


def test_data_sets_are_counted_and_known_from_runs(tmp_path: Path) -> None:
    for split, number in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for place in range(number):
                pixels = np.full((4, 4), 40 * place, np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{place}.png")
    assert images_at(tmp_path) == (2, 6, 4)
    data = {"classes": 100, "train": {"images": 50_000}, "test": {"images": 10_000}}
    config: dict[str, Any] = {"data": str(tmp_path)}
    record = RunRecord(strategy="mos", stream="", seed=0, config=config, classes=[],
                       fingerprint={"data": data}, experiences=[])  # fmt: skip
    assert images_of(record) == (100, 50_000, 10_000)
    config["data"] = str(tmp_path / "gone")
    assert images_of(record) is None
    config["data"] = None
    assert images_of(record) is None


def test_speed_is_that_of_the_products() -> None:
    machine = this_machine(())
    assert machine.device in {"cpu", "cuda"}
    if machine.device == "cpu":
        products = PASS / (1024 * 768 * 768)
        measured = matmul_seconds(torch.float32) * products
        assert machine.seconds_a_pass == pytest.approx(measured, rel=0.9)
