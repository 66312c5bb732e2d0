"""Detectors of folders: what they are shown, and which blocks they name."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from cl_adapters.benchmarks.running import runner
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.bundle.files import load
from cl_adapters.bundle.watching import MIN_SHIFT, WINDOW, FolderWatch, Seen
from cl_adapters.errors import InputError
from cl_adapters.strategies.core.paths import SLOTS
from tests.bundle.runs import TINY

SIZE = 6


def tokens(count: int, seed: int, moved: dict[int, float] | None = None) -> dict[int, Tensor]:
    """Mean tokens of three blocks; some blocks see all images moved."""
    source = torch.Generator().manual_seed(seed)
    low = torch.randn(3, 2, SIZE, generator=torch.Generator().manual_seed(7))
    return {
        block: torch.randn(count, 2, generator=source) @ low[block - 1]
        + 0.1 * torch.randn(count, SIZE, generator=source)
        + (moved or {}).get(block, 0.0)
        for block in (1, 2, 3)
    }


def seen(found: dict[int, Tensor], size: int = 50) -> Seen:
    kept = Seen()
    for start in range(0, len(found[1]), size):
        kept.add({block: rows[start : start + size] for block, rows in found.items()})
    return kept


@pytest.fixture(scope="module")
def watch() -> FolderWatch:
    found = FolderWatch.new(SIZE, num_blocks=4)
    found.fit(seen(tokens(300, seed=0)))
    return found


def test_the_last_blocks_are_watched(watch: FolderWatch) -> None:
    assert watch.blocks == (1, 2, 3)
    assert FolderWatch.new(SIZE, num_blocks=2).blocks == (0, 1)


def test_a_shift_is_seen_in_the_blocks_that_have_it(watch: FolderWatch) -> None:
    verdicts = watch.judge(seen(tokens(300, seed=1, moved={2: 1.0})))
    assert [each.block for each in verdicts if each.is_shifted] == [2]
    (shifted,) = (each for each in verdicts if each.block == 2)
    assert shifted.images == 300
    assert shifted.fired == shifted.windows == 2
    assert shifted.all.score > shifted.all.threshold >= MIN_SHIFT


def test_images_like_those_of_training_are_no_shift(watch: FolderWatch) -> None:
    for seed in range(2, 12):
        assert not any(each.is_shifted for each in watch.judge(seen(tokens(200, seed=seed))))


def test_a_state_gives_the_same_verdicts(watch: FolderWatch) -> None:
    assert watch.settings is not None
    again = FolderWatch.of(watch.settings, watch.state(), "bundle")
    new = seen(tokens(150, seed=3, moved={1: 0.3}))
    assert again.judge(new) == watch.judge(new)
    with pytest.raises(InputError, match="bundle must hold the detectors of a watch"):
        FolderWatch.of({**watch.settings, "num_features": 3}, watch.state(), "bundle")
    with pytest.raises(InputError, match="bundle must hold the detectors of a watch"):
        FolderWatch.of({}, watch.state(), "bundle")


def test_windows_hold_every_image_once_and_a_small_rest_joins_the_last() -> None:
    for count, sizes in (
        (1, [1]),
        (WINDOW, [WINDOW]),
        (2 * WINDOW - 1, [2 * WINDOW - 1]),
        (2 * WINDOW + 5, [WINDOW, WINDOW + 5]),
    ):
        rows = torch.arange(float(count))[:, None]
        parts = list(seen({1: rows}).windows(1))
        assert [len(each) for each in parts] == sizes
        assert torch.cat(parts).sort(dim=0).values.tolist() == rows.tolist()


def test_of_many_images_a_random_part_is_kept_the_same_in_each_block() -> None:
    counts = torch.zeros(40)
    for seed in range(300):
        kept = Seen(most=10, seed=seed)
        for start in range(0, 40, 8):
            rows = torch.arange(float(start), start + 8)[:, None]
            kept.add({1: rows, 2: -rows})
        assert kept.images == 40
        assert torch.equal(kept.tokens(1), -kept.tokens(2))
        found = kept.tokens(1)[:, 0].long()
        assert len(found.unique()) == 10
        counts[found] += 1
    # Each image is kept in a quarter of the draws; 75 +- 7.5 of 300.
    assert counts.min() > 45
    assert counts.max() < 105


def test_too_few_images_are_refused(watch: FolderWatch) -> None:
    with pytest.raises(InputError, match="at least 10 training images, got 9"):
        FolderWatch.new(SIZE, num_blocks=4).fit(seen(tokens(9, seed=0)))
    with pytest.raises(InputError, match="at least one to be judged, got none"):
        watch.judge(Seen())


def photos(month: int, seed: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """Noise with a slope: dark ones, the same in negative, and grey stripes without noise."""
    source = np.random.default_rng([month, seed])
    slope = np.linspace(0, 80, 40)[:, None, None]
    noise = source.integers(0, 60, (count, 40, 40, 3)) + slope * source.random((count, 1, 1, 1))
    stripes = 120 + 80 * np.sign(np.sin(np.arange(40) * source.uniform(1, 3, (count, 1))))
    third = np.broadcast_to(stripes[:, None, :, None], noise.shape)
    return list((noise, 255 - noise, third)[month].astype(np.uint8))


def test_photos_of_all_months_together_look_like_those_of_training(tmp_path: Path) -> None:
    for month in (0, 1):
        for name in ("ant", "bee"):
            folder = tmp_path / "data" / f"2026-0{month + 1}" / name
            folder.mkdir(parents=True)
            for index, pixels in enumerate(photos(month, len(name) + (name == "bee"), 40)):
                Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    recipe = {"strategy": "sema", "data": str(tmp_path / "data"), "domain_folders": True, **TINY}
    few = {**SLOTS, "epochs": 1, "views": 1}
    config = RunConfig.parse({**recipe, "scenario": "domain", "options": few})
    model = load(runner.run(prepare(config), tmp_path / "runs"))
    assert model.watch is not None
    assert max(len(model.watch.bank.of(block)) for block in model.watch.blocks) > 1

    def shifted(*parts: list[npt.NDArray[np.uint8]]) -> list[int]:
        kept = Seen()
        images = [model.prepared(each) for part in parts for each in part]
        model.answer(torch.stack(images), seen=kept)
        assert model.watch is not None
        return [each.block for each in model.watch.judge(kept) if each.is_shifted]

    first, second = photos(0, 9, 30), photos(1, 9, 30)
    assert shifted(first) == shifted(second) == shifted(first, second) == []
    assert shifted(photos(2, 9, 30)) != []
