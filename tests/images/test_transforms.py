import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision.transforms as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.errors import InputError
from cl_adapters.images.transforms import (
    INPUT_RANGES,
    PIPELINES,
    Preprocess,
    crop_box,
    pipeline_settings,
)
from cl_adapters.records.files import digest

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar100_mini.parquet"
HALF = (0.5, 0.5, 0.5)
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
BICUBIC = reference.InterpolationMode.BICUBIC


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make(image_size: int, **options: Any) -> Preprocess:
    return Preprocess(image_size=image_size, mean=MEAN, std=STD, **options)


@pytest.mark.parametrize("size", [1, 7, 32, 33, 96])
def test_evaluation_of_square_images_equals_torchvision(size: int) -> None:
    pipeline = reference.Compose(
        [
            reference.Resize(size, BICUBIC),
            reference.CenterCrop(size),
            reference.ToTensor(),
            reference.Normalize(MEAN, STD),
        ]
    )
    image = noise(32, 32)
    assert torch.equal(make(size).evaluate(image), pipeline(Image.fromarray(image)))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_evaluation_equals_torchvision(height: int, width: int, size: int) -> None:
    whole = reference.Compose(
        [reference.Resize(size, BICUBIC), reference.CenterCrop(size), reference.ToTensor()]
    )
    image = noise(height, width)
    expected = whole(Image.fromarray(image))
    found = Preprocess(image_size=size, mean=(0.0,) * 3, std=(1.0,) * 3).evaluate(image)
    if max(height, width) <= 16 * min(height, width):
        assert torch.equal(found, expected)
    else:
        # Pillow rounds between its two passes, whose order depends on the sizes.
        assert (found - expected).abs().mean() < 0.02


@pytest.mark.parametrize("is_wide", [True, False])
def test_long_and_narrow_images_cost_no_memory(is_wide: bool) -> None:
    image = np.full((1, 2_000_000, 3), 9, np.uint8)
    output = make(224).evaluate(image if is_wide else image.transpose(1, 0, 2))
    assert torch.equal(output, make(224).evaluate(np.full((1, 1, 3), 9, np.uint8)))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 1000), st.floats(0.01, 1.0))
@settings(max_examples=300, deadline=None)
def test_crops_equal_torchvision(height: int, width: int, seed: int, low: float) -> None:
    box = crop_box(height, width, scale=(low, 1.0), generator=torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = reference.RandomResizedCrop.get_params(
            torch.empty(3, height, width), [low, 1.0], [3 / 4, 4 / 3]
        )
    assert box == tuple(expected)


@pytest.mark.parametrize("augment", ["crop", "crop_flip"])
def test_training_equals_torchvision(augment: str) -> None:
    steps = [reference.RandomResizedCrop(24, (0.05, 1.0), interpolation=BICUBIC)]
    if augment == "crop_flip":
        steps.append(reference.RandomHorizontalFlip())
    pipeline = reference.Compose([*steps, reference.ToTensor(), reference.Normalize(MEAN, STD)])
    for seed in range(20):
        image = noise(20 + seed, 30, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = pipeline(Image.fromarray(image))
            torch.manual_seed(seed)
            assert torch.equal(make(24, augment=augment).train(image), expected)


def test_training_without_augmentation_is_evaluation() -> None:
    image = noise(20, 30)
    before = torch.random.get_rng_state()
    assert torch.equal(make(16).train(image), make(16).evaluate(image))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_generator_of_ones_own_leaves_the_global_one_alone() -> None:
    image, preprocess = noise(20, 20), make(16, augment="crop_flip")
    before = torch.random.get_rng_state()
    first = preprocess.train(image, torch.Generator().manual_seed(3))
    assert torch.equal(preprocess.train(image, torch.Generator().manual_seed(3)), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_image_is_not_changed() -> None:
    image = noise(16, 16)
    copy = image.copy()
    output = make(16).evaluate(image)
    output.zero_()
    np.testing.assert_array_equal(image, copy)
    assert output.dtype == torch.float32
    assert output.is_contiguous()


def test_the_description_is_plain_json_and_tells_pipelines_apart() -> None:
    first = make(16).describe()
    assert first == {
        "image_size": 16,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bicubic",
        "augment": "none",
        "scale": [0.05, 1.0],
    }
    assert first != make(16, interpolation="bilinear").describe()


def test_input_ranges_are_usable() -> None:
    for values in filter(None, INPUT_RANGES.values()):
        Preprocess(image_size=8, mean=values[0], std=values[1])
    white = np.full((2, 2, 3), 255, np.uint8)
    mean, std = INPUT_RANGES["pilot_01"]
    assert Preprocess(image_size=2, mean=mean, std=std).evaluate(white).max() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image size must be at least 1 pixel, got 0"),
        ({"std": (0.5, 0.0, 0.5)}, "std be positive, got"),
        ({"std": (0.5, float("nan"), 0.5)}, "std be positive, got"),
        ({"mean": (0.5,)}, "mean and std must hold three numbers"),
        ({"interpolation": "nearest"}, "interpolation must be one of bicubic, bilinear, got"),
        ({"augment": "flip"}, "augment must be one of none, crop, crop_flip, got 'flip'"),
        ({"scale": (0.0, 1.0)}, "scale must satisfy 0 < low <= high <= 1, got"),
        ({"scale": (0.5, 0.4)}, "scale must satisfy"),
        ({"resize": 7}, "resize must be at least the image size, 8, got 7"),
        ({"train_interpolation": "box"}, "interpolation must be one of bicubic, bilinear, got"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocess(**{"image_size": 8, "mean": HALF, "std": HALF, **options})


# What the authors' code builds, written down here once more with torchvision's own classes.
BILINEAR = reference.InterpolationMode.BILINEAR
PUBLISHED: dict[str, tuple[Any, Any]] = {
    "pilot": (
        reference.Compose(
            [
                reference.RandomResizedCrop(224, scale=(0.05, 1.0), ratio=(3.0 / 4.0, 4.0 / 3.0)),
                reference.RandomHorizontalFlip(p=0.5),
                reference.ToTensor(),
            ]
        ),
        reference.Compose(
            [reference.Resize(256, BICUBIC), reference.CenterCrop(224), reference.ToTensor()]
        ),
    ),
    "ranpac": (  # of CIFAR's images alone
        reference.Compose(
            [
                reference.RandomResizedCrop(224, scale=(0.05, 1.0), ratio=(3.0 / 4.0, 4.0 / 3.0)),
                reference.RandomHorizontalFlip(p=0.5),
                reference.ToTensor(),
            ]
        ),
        reference.Compose(
            [reference.Resize(224, BICUBIC), reference.CenterCrop(224), reference.ToTensor()]
        ),
    ),
    "inflora": (  # of CIFAR's images alone
        reference.Compose(
            [
                reference.RandomResizedCrop(224),
                reference.RandomHorizontalFlip(),
                reference.ToTensor(),
            ]
        ),
        reference.Compose([reference.Resize(224), reference.CenterCrop(224), reference.ToTensor()]),
    ),
    "lae": (
        reference.Compose(
            [
                reference.RandomResizedCrop(224, interpolation=BILINEAR),
                reference.RandomHorizontalFlip(),
                reference.ToTensor(),
            ]
        ),
        reference.Compose(
            [reference.Resize(256, BILINEAR), reference.CenterCrop(224), reference.ToTensor()]
        ),
    ),
}


def published(name: str, image_size: int = 224) -> Preprocess:
    mean, std = INPUT_RANGES["pilot_01"]
    settings = pipeline_settings(name, image_size)
    return Preprocess(image_size=image_size, mean=mean, std=std, **settings)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (224, 224), (256, 256), (300, 401), (401, 300), (97, 640)]
)
def test_published_evaluation_equals_torchvision(name: str, height: int, width: int) -> None:
    image = noise(height, width)
    expected = PUBLISHED[name][1](Image.fromarray(image))
    assert torch.equal(published(name).evaluate(image), expected)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_a_resize_before_the_centre_crop_equals_torchvision(
    height: int, width: int, size: int, more: int
) -> None:
    whole = reference.Compose(
        [reference.Resize(size + more, BICUBIC), reference.CenterCrop(size), reference.ToTensor()]
    )
    image = noise(height, width)
    expected = whole(Image.fromarray(image))
    found = Preprocess(
        image_size=size, mean=(0.0,) * 3, std=(1.0,) * 3, resize=size + more
    ).evaluate(image)
    if max(height, width) <= 16 * min(height, width):
        assert torch.equal(found, expected)
    else:
        assert (found - expected).abs().mean() < 0.02


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_training_equals_torchvision_and_needs_no_global_state(name: str) -> None:
    flips = 0
    for seed in range(12):
        image = noise(40 + 30 * seed, 230, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = PUBLISHED[name][0](Image.fromarray(image))
        before = torch.random.get_rng_state()
        found = published(name).train(image, torch.Generator().manual_seed(seed))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(found, expected)
        flips += not torch.equal(found, published(name).evaluate(image))
    assert flips == 12, "every crop differs from the evaluation"


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.exists(), reason="CIFAR-100 is not beside the checkout")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_step_of_vit_tiny_hardly_waits_for_its_images(name: str) -> None:
    """On one core; on two the step takes half as long at best, and its images at most a tenth."""
    train = open_source(CIFAR).train
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0).requires_grad_(False)
    batch = torch.rand(8, 3, 224, 224, requires_grad=True)
    own = torch.Generator().manual_seed(0)

    def seconds(work: Callable[[], object], repeats: int) -> float:
        work()
        start = time.process_time()
        for _ in range(repeats):
            work()
        return (time.process_time() - start) / repeats

    step = seconds(lambda: model(batch).sum().backward(), 2) / 8
    image = seconds(lambda: published(name).train(train.read(0), own), 200)
    assert image < 0.05 * step


def test_pipelines_tell_themselves_apart_in_the_fingerprint() -> None:
    descriptions = {name: published(name).describe() for name in PUBLISHED}
    assert descriptions["pilot"] == {
        "image_size": 224,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "interpolation": "bicubic",
        "augment": "crop_flip",
        "scale": [0.05, 1.0],
        "resize": 256,
        "train_interpolation": "bilinear",
    }
    assert descriptions["lae"]["scale"] == [0.08, 1.0]
    assert descriptions["lae"]["interpolation"] == "bilinear"
    assert descriptions["ranpac"].keys() == descriptions["pilot"].keys() - {"resize"}
    assert descriptions["inflora"].keys() == descriptions["lae"].keys() - {"resize"}
    assert set(PIPELINES) == {"plain", *PUBLISHED}
    assert pipeline_settings("plain", 224) == {}


def test_old_recipes_keep_their_digest() -> None:
    """Of the commit before pipelines and protocols; a run of that time must be found again."""
    values = RunConfig.parse({"strategy": "lae"}).model_dump(mode="json")
    assert digest(values, 8) == "1a8f66e9"


def test_a_pipeline_leaves_out_what_it_settles() -> None:
    values = RunConfig.parse({"strategy": "lae", "pipeline": "pilot"}).model_dump(mode="json")
    assert values["pipeline"] == "pilot"
    assert {"augment", "crop_scale", "protocol"}.isdisjoint(values)
    assert RunConfig.parse(values).model_dump(mode="json") == values


@pytest.mark.parametrize(
    ("key", "value"), [("augment", "none"), ("augment", "crop"), ("crop_scale", 0.5)]
)
def test_a_pipeline_does_not_go_with_what_it_settles(key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"`{key}` must go with pipeline 'plain', got 'lae'"):
        RunConfig.parse({"strategy": "lae", "pipeline": "lae", key: value})
