"""Protocols against field.md's facts, numpy's own generator, and what a user may get wrong."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from cl_adapters.benchmarks.data.images import ImageSource
from cl_adapters.benchmarks.data.sources import array_source, folder_source, in_text_order
from cl_adapters.benchmarks.running import protocols
from cl_adapters.benchmarks.running.batch import expand, run_batch
from cl_adapters.benchmarks.running.opening import open_images
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.protocols import (
    PROTOCOLS,
    apply_protocol,
    check_images,
    find_protocol,
    protocol_names,
    protocol_table,
    read_protocol,
)
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.running.verify import differences
from cl_adapters.benchmarks.streams.class_incremental import class_order
from cl_adapters.errors import InputError
from cl_adapters.records.run_record import RunRecord

NAMES = protocol_names()
PAGE = Path(__file__).parents[3] / "docs" / "protocols.md"
IN21K = "vit_base_patch16_224.augreg_in21k"
# By the first part of a protocol's name, where it is not the field's usual one.
ORDERS = {"lae": "natural", "inflora": "natural", "l2p": "natural", "sdlora": "numpy1995"}
SEEDS = {"lae": (1,), "inflora": (0, 1, 2, 3, 4), "l2p": (42,), "sdlora": (1995,)}
# Whose tests show the whole of an image of CIFAR, and whose crops begin at 0.08 of the area.
UNCUT = {"ranpac-cifar100-b0inc10": "ranpac", "inflora-cifar100-b0inc10": "inflora"}
BILINEAR = ("lae", "inflora", "inflora1993")


def colours(folder: Path, classes: list[str]) -> Path:
    """One image a class and side; the class's place in the list is its grey level."""
    for split in ("train", "test"):
        for place, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            Image.new("L", (4, 4), place).save(folder / split / name / "a.png")
    return folder


def test_every_published_split_of_the_issue_is_there() -> None:
    assert {
        "pilot-cifar100-b0inc5", "pilot-cifar100-b0inc10", "pilot-cifar100-b0inc20",
        "pilot-cub-b0inc10", "pilot-imagenet-r-b0inc5", "pilot-imagenet-r-b0inc20",
        "pilot-imagenet-a-b0inc10", "pilot-imagenet-a-b0inc20", "pilot-objectnet-b0inc10",
        "pilot-objectnet-b0inc20", "pilot-omnibenchmark-b0inc20", "pilot-omnibenchmark-b0inc30",
        "pilot-vtab-b0inc10", "sema-cifar100-b0inc10", "sema-imagenet-r-b0inc10",
        "sema-imagenet-a-b0inc10", "sema-vtab-b0inc10", "lae-cifar100-b0inc10",
        "lae-imagenet-r-b0inc20",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_keeps_to_the_fields_conventions(name: str) -> None:
    protocol = find_protocol(name)
    group, _, rest = name.partition("-")
    assert bool(protocol.domains) == rest.endswith("-by-domain")
    if not protocol.domains:
        assert protocol.increment == int(rest.rpartition("inc")[2])
        start = int(rest.rpartition("-b")[2].partition("inc")[0])
        assert (protocol.first or 0) == start
    assert protocol.input_range == "pilot_01", "none of them normalises its inputs"
    usual = "lae" if group in BILINEAR else "pilot"
    assert protocol.pipeline == UNCUT.get(name, usual)
    is_natural = protocol.domains or "vtab" in name or name.startswith("sema-imagenet-a")
    assert protocol.class_order == ("natural" if is_natural else ORDERS.get(group, "numpy1993"))
    is_by_task = group in {"sema", "ranpac", "l2p"} and not protocol.domains
    assert protocol.metrics.a_last == ("a_last_task_mean" if is_by_task else "a_last_micro")
    assert protocol.seeds == SEEDS.get(group, (1993,))
    assert set(protocol.backbones) <= set(timm.list_models("vit_base*", pretrained=True))
    for text in (protocol.layout, protocol.published, protocol.source):
        assert text
        assert "http" not in text


def test_the_weights_are_those_of_the_pins() -> None:
    """timm 0.6.12 and 0.9.8 mean different networks by one name; LAE takes the paper's own."""
    tags = {
        name: [each.rpartition(".")[2] for each in find_protocol(name).backbones] for name in NAMES
    }
    assert tags["pilot-cifar100-b0inc5"] == ["augreg_in21k", "augreg_in21k_ft_in1k"]
    assert tags["sema-vtab-b0inc10"] == ["augreg2_in21k_ft_in1k", "augreg_in21k"]
    assert tags["lae-cifar100-b0inc10"] == ["orig_in21k"]


@pytest.mark.parametrize("name", NAMES)
def test_the_orders_of_1993_are_reproduced(name: str) -> None:
    protocol = find_protocol(name)
    expected = list(range(protocol.classes))
    if protocol.class_order == "numpy1995":
        np.random.RandomState(1995).shuffle(expected)
        assert expected[:8] == [146, 198, 169, 126, 142, 183, 108, 86]  # SD-LoRA's logs
    if protocol.class_order == "numpy1993":
        np.random.RandomState(1993).shuffle(expected)  # what `permutation` does to a range
        start = {
            100: [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89],
            200: [168, 136, 51, 9, 183, 101, 171, 99, 42, 159],
            300: [169, 221, 146, 296, 92, 229],
            196: [],  # Cars: nobody prints them
        }[protocol.classes]
        assert expected[: len(start)] == start
    assert list(class_order(protocol.class_order, protocol.classes)) == expected
    sizes, step = protocol.sizes, protocol.increment
    if step is None:
        assert sizes == [protocol.classes] * len(protocol.domains)
        return
    first = protocol.first or step
    assert sizes == [first] + [step] * ((protocol.classes - first) // step)
    assert sum(sizes) == protocol.classes


@pytest.mark.parametrize("name", NAMES)
def test_the_file_says_what_the_pixels_go_through(name: str) -> None:
    words = tomllib.loads((PROTOCOLS / f"{name}.toml").read_text("utf-8"))
    is_lae = name.partition("-")[0] in BILINEAR
    assert words["test"] == {
        "resize": 224 if name in UNCUT else 256, "interpolation": "bilinear" if is_lae else "bicubic", "crop": 224,
    }  # fmt: skip
    assert words["train"] == {
        "crop": 224, "scale": [0.08 if is_lae else 0.05, 1.0], "ratio": [0.75, 1.3333],
        "interpolation": "bilinear", "flip": 0.5,
    }  # fmt: skip


def test_the_page_holds_the_table_of_the_files() -> None:
    text = PAGE.read_text("utf-8")
    between = text.partition("<!-- protocols:begin -->\n")[2].partition("<!-- protocols:end -->")[0]
    assert between == protocol_table()
    for name in NAMES:
        values = tomllib.loads((PROTOCOLS / f"{name}.toml").read_text("utf-8"))
        (row,) = [line for line in between.splitlines() if f"`{name}`" in line]
        cut = f"B{values.get('first', 0)}-Inc{values.get('increment')}"
        if "domains" in values:
            cut = f"domain by domain: {', '.join(values['domains'])}"
        assert f"{values['classes']} classes, {cut}" in row
        assert f"`{values['metrics']['a_last']}`" in row


def test_a_protocol_fills_the_recipe(tmp_path: Path) -> None:
    given = {
        "strategy": "simplecil,lae",
        "protocol": "pilot-cifar100-b0inc5",
        "data": str(tmp_path),
    }
    configs = expand(given, recipe=None, seeds=2, settings=["lae.epochs=9"])
    assert [(each.strategy, each.seed) for each in configs] == [
        ("simplecil", 1993), ("lae", 1993), ("simplecil", 1994), ("lae", 1994),
    ]  # fmt: skip
    config = configs[1]
    assert config.options == {"epochs": 9}
    assert (config.increment, config.first, config.class_order) == (5, None, "numpy1993")
    assert (config.backbone, config.image_size) == (IN21K, 224)
    assert (config.pipeline, config.input_range) == ("pilot", "pilot_01")
    assert config.model_dump(mode="json")["protocol"] == "pilot-cifar100-b0inc5"


@pytest.mark.parametrize("name", ["sema-vtab-b0inc10", "ranpac-cddb-by-domain"])
def test_the_recipe_in_a_record_repeats_the_run(tmp_path: Path, name: str) -> None:
    given = {"strategy": "mos", "protocol": name, "data": str(tmp_path)}
    (config,) = expand(given, recipe=None, seeds=1, settings=[])
    again = apply_protocol(config.model_dump(mode="json"))
    assert RunConfig.parse(again) == config


def test_what_a_protocol_leaves_free_may_be_given(tmp_path: Path) -> None:
    free = {
        "strategy": "lae", "seed": 7, "device": "auto", "precision": "bf16", "threads": 2,
        "weights": "w.npz", "fidelity": "official", "data": str(tmp_path), "increment": 20,
        "backbone": f"{IN21K}_ft_in1k", "protocol": "pilot-imagenet-a-b0inc20",
    }  # fmt: skip
    (config,) = expand(free, recipe=None, seeds=1, settings=[])
    assert {name: getattr(config, name) for name in free} == free


def test_without_a_protocol_nothing_changes() -> None:
    values = {"strategy": "lae", "increment": 3}
    assert apply_protocol(values) == values


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"protocol": "ranpac-cddb-by-domain", "increment": 1}, "`increment` must not be given"),
        ({"protocol": "ranpac-cddb-by-domain", "domain_order": "natural"},
         "`domain_order` must be 'gaugan,biggan,wild,whichfaceisreal,san' under protocol"),
        ({"protocol": "pilot-cifar-b0inc5"}, "did you mean 'pilot-cifar100-b0inc5'"),
        ({"increment": 10}, "`increment` must be 5 under protocol 'pilot-cifar100-b0inc5', got 10"),
        ({"first": 50}, "`first` must be None under protocol"),
        ({"class_order": "natural"}, "`class_order` must be 'numpy1993' under protocol"),
        ({"scenario": "shift"}, "`scenario` must be 'class' under protocol"),
        ({"input_range": "timm"}, "`input_range` must be 'pilot_01' under protocol"),
        ({"pipeline": "plain"}, "`pipeline` must be 'pilot' under protocol"),
        ({"backbone": "vit_base_patch16_224"}, r"`backbone` must be .*augreg_in21k' or .*got"),
        ({"augment": "crop"}, "`augment` must not be given under protocol .*, got 'crop'"),
        ({"domain_order": "natural"}, "`domain_order` must not be given under protocol"),
        ({"weights": "random"}, "must be those of its backbone, got 'random'"),
        ({"data": None}, r"must be given its images by --data; expected is a folder with train/"),
        ({"data": "nowhere"}, "'nowhere' of protocol .* must exist; expected is .*; published by"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    values = {"protocol": "pilot-cifar100-b0inc5", "data": str(tmp_path), **given}
    with pytest.raises(InputError, match=message) as error:
        apply_protocol(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("increment = 5", "increment = 101"), "must not be larger than the 100 classes"),
        (('_in21k"', '"', 1), None),
        (('patch16_224.augreg_in21k"', 'patch16_224"'), "must carry an explicit tag"),
        (("resize = 256", "resize = 224"), "must say what pipeline 'pilot' does"),
        (("pilot_01", "zero_one"), "input_range must be one of"),
        (("numpy1993", "torch1993"), "class_order: Input should be 'natural', 'numpy1993' or"),
        (("increment = 5", ""), "must be of `increment` classes or of one domain each"),
        (("increment = 5", 'increment = 5\ndomains = ["a"]'), "must be of `increment` classes or"),
        (("increment = 5", 'first = 5\ndomains = ["a"]'), "must be of `increment` classes or"),
        (("seeds = [1993]", "seeds = []"), "seeds: "),
        (("title =", "tittle ="), "title: Field required"),
        (("[train]", "[[["), "must be a readable TOML file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, change: tuple[Any, ...], message: str) -> None:
    text = (PROTOCOLS / "pilot-cifar100-b0inc5.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change), "utf-8")
    if message is None:
        assert read_protocol(path).name == "mine"
        return
    with pytest.raises(InputError, match=message):
        read_protocol(path)


def small_source(classes: int) -> ImageSource:
    images = np.zeros((classes, 2, 2), np.uint8)
    return array_source("few", (images, range(classes)), (images, range(classes)))


def test_images_are_compared_with_the_protocol() -> None:
    protocol = find_protocol("pilot-cifar100-b0inc5")
    with pytest.raises(InputError, match="must hold the 100 classes of protocol .*, got 10;"):
        check_images(protocol, small_source(10))
    notes = check_images(protocol, small_source(100))
    assert [note.split(" and protocol")[0] for note in notes] == [
        "'few' holds 100 train images", "'few' holds 100 test images",
    ]  # fmt: skip
    assert check_images(find_protocol("sema-vtab-b0inc10"), small_source(50)) == []


def test_folders_are_numbered_as_torchvision_does(tmp_path: Path) -> None:
    """OmniBenchmark's folders are bare numbers; the authors' order follows their text."""
    folder = colours(tmp_path, [str(number) for number in range(12)])
    natural, text = folder_source(folder), in_text_order(folder_source(folder))
    assert natural.classes[:3] == ("0", "1", "2")
    assert list(text.classes) == sorted(map(str, range(12)))
    for images in (text.train, text.test):
        for index in range(len(images)):
            level = int(images.read(index)[0, 0, 0])
            assert text.classes[images.targets[index]] == str(level)
    assert text.describe() == natural.describe()
    assert in_text_order(text) is text


def test_only_protocols_number_by_text_and_the_fingerprint_says_so(tmp_path: Path) -> None:
    folder = colours(tmp_path, [str(number) for number in range(11)])
    values = {
        "strategy": "simplecil", "data": str(folder), "class_order": "natural", "increment": 11,
        "backbone": "test_vit", "weights": "random", "image_size": 32,
    }  # fmt: skip
    plain = prepare(RunConfig.parse(values)).record
    named = prepare(RunConfig.parse({**values, "protocol": "any"})).record
    assert plain.classes[:3] == ["0", "1", "2"]
    assert named.classes[:3] == ["0", "1", "10"]
    assert named.fingerprint == {**plain.fingerprint, "class_names": "in text order"}
    assert open_images(RunConfig.parse(values)).classes[2] == "2"


def test_the_wrong_data_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = colours(tmp_path / "few", ["a", "b"])
    given = {"strategy": "simplecil", "protocol": "pilot-cub-b0inc10", "data": str(folder)}
    configs = expand(given, recipe=None, seeds=1, settings=[])
    with pytest.raises(InputError, match="must hold the 200 classes of protocol"):
        run_batch(configs, tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


def tiny_protocol() -> str:
    text = (PROTOCOLS / "pilot-cifar100-b0inc5.toml").read_text("utf-8")
    for old, new in (
        ("classes = 100", "classes = 12"),
        ("_images = 50000", "_images = 12"),
        ("_images = 10000", "_images = 12"),
        ("increment = 5", "increment = 4"),
        (IN21K, "test_vit.r160_in1k"),
        ("224", "32"),
        ("resize = 256", "resize = 36"),
    ):
        text = text.replace(old, new)
    return text


def test_a_run_of_a_protocol_has_the_fingerprint_that_verify_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the file to the record, with a small network and folders of bare numbers."""
    (tmp_path / "tiny.toml").write_text(tiny_protocol(), "utf-8")
    monkeypatch.setattr(protocols, "PROTOCOLS", tmp_path)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "weights.safetensors")
    images = colours(tmp_path / "images", [str(number) for number in range(12)])
    given = {
        "strategy": "simplecil", "protocol": "tiny", "data": str(images),
        "weights": str(tmp_path / "weights.safetensors"),
    }  # fmt: skip
    configs = expand(given, recipe=None, seeds=1, settings=[])
    (folder,) = run_batch(configs, tmp_path / "runs", quiet=True)
    record = RunRecord.read(folder)
    expected = np.array(sorted(map(str, range(12))))[np.random.RandomState(1993).permutation(12)]
    assert record.classes == expected.tolist()
    assert record.seed == 1993
    assert record.fingerprint["pixels"]["resize"] == 36
    assert differences(record, find_protocol("tiny")) == []
    assert run_batch(configs, tmp_path / "runs", quiet=True) == [folder], "found again"


def two_domains(folder: Path) -> Path:
    """Two classes in two domains, one image of each on each side, in a table."""
    rows = []
    for split in ("train", "test"):
        for domain in ("gan", "face"):
            for label in ("real", "fake"):
                name = f"{split}-{domain}-{label}.png"
                Image.new("L", (4, 4), 10 * len(rows)).save(folder / name)
                rows.append(f"{name},{label},{split},{domain}")
    table = folder / "table.csv"
    table.write_text("\n".join(["image,label,split,domain", *rows]) + "\n", "utf-8")
    return table


def test_a_run_of_a_protocol_of_domains_has_the_fingerprint_that_verify_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PROTOCOLS / "ranpac-cddb-by-domain.toml").read_text("utf-8")
    domains = '["gaugan", "biggan", "wild", "whichfaceisreal", "san"]'
    for name, order in (
        ("small-by-domain", '["gan", "face"]'),
        ("turned-by-domain", '["face", "gan"]'),
    ):
        small = text.replace(domains, order).replace("resize = 256", "resize = 36")
        small = small.replace(IN21K, "test_vit.r160_in1k").replace("224", "32")
        (tmp_path / f"{name}.toml").write_text(small, "utf-8")
    monkeypatch.setattr(protocols, "PROTOCOLS", tmp_path)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "weights.safetensors")
    given = {
        "strategy": "simplecil", "protocol": "small-by-domain", "data": str(two_domains(tmp_path)),
        "weights": str(tmp_path / "weights.safetensors"),
    }  # fmt: skip
    (folder,) = run_batch(
        expand(given, recipe=None, seeds=1, settings=[]), tmp_path / "runs", quiet=True
    )
    record = RunRecord.read(folder)
    assert record.fingerprint["experiences"] == [2, 2]
    assert differences(record, find_protocol("small-by-domain")) == []
    assert differences(record, find_protocol("turned-by-domain")) == [
        "domain_order: ['gan', 'face'] instead of ['face', 'gan']"
    ]
    record.fingerprint.pop("scenario")
    assert differences(record, find_protocol("small-by-domain")) == [
        "scenario: none instead of domain"
    ]
