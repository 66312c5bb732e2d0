"""The backbone that ships with the package."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from cl_adapters.benchmarks.data.sources import digits_source
from cl_adapters.errors import InputError
from cl_adapters.images.transforms import Preprocess
from cl_adapters.vit import embedded
from cl_adapters.vit.adapted_vit import AdaptedViT
from cl_adapters.vit.embedded import EMBEDDED, check_embedded_file, embedded_card
from cl_adapters.vit.pretrained import load_backbone


def test_it_is_small_and_deep_enough() -> None:
    path = Path(embedded.__file__).parent / "weights" / f"{EMBEDDED}.halves"
    assert path.stat().st_size <= 6_000_000
    loaded = load_backbone(EMBEDDED)
    assert loaded.weights == "embedded"
    assert loaded.model.num_blocks >= 6
    assert loaded.model.input_shape == (3, 32, 32)
    assert (
        sum(value.numel() for value in loaded.model.parameters()) == embedded_card()["parameters"]
    )


def test_timm_knows_it() -> None:
    vit = timm.create_model(EMBEDDED, pretrained=True, num_classes=0)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(AdaptedViT(vit)(images), load_backbone(EMBEDDED).model(images))


def features(model: AdaptedViT, images: object) -> np.ndarray:
    preprocess = Preprocess(image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    batch = torch.stack([preprocess.evaluate(images.read(i)) for i in range(len(images))])  # type: ignore[attr-defined, arg-type]
    with torch.no_grad():
        return normalize(torch.cat([model(part) for part in batch.split(64)]).numpy())


@pytest.mark.slow
def test_its_features_beat_pixels_and_random_weights_on_digits() -> None:
    """Nearest class mean by scikit-learn, not by our own head: the card says 92.7, 87.1 and 27.6."""
    source = digits_source()
    scores = {}
    for weights in (None, "random"):
        model = load_backbone(EMBEDDED, weights=weights).model
        train, test = (features(model, part) for part in (source.train, source.test))
        nearest = NearestCentroid().fit(train, source.train.targets)
        scores[weights] = 100 * nearest.score(test, source.test.targets)
    assert scores[None] == pytest.approx(92.7, abs=1.5)
    assert scores["random"] < 50


def test_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"something else")
    monkeypatch.setattr(embedded, "_FILE", path)
    check_embedded_file.cache_clear()
    with pytest.raises(InputError, match="must have sha256 .*, got"):
        load_backbone(EMBEDDED)
    monkeypatch.undo()
    check_embedded_file.cache_clear()
    load_backbone(EMBEDDED)
