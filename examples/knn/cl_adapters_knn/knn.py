"""KNN: the nearest images seen so far vote, by the features of the frozen network.

Nothing is trained and nothing is forgotten, but everything is kept: a row of features an image.
What a method that stores less has to reach.

Reference: Zhirong Wu, Yuanjun Xiong, Stella X. Yu, Dahua Lin, "Unsupervised Feature Learning via
Non-Parametric Instance Discrimination", CVPR 2018, arXiv:1805.01978, section 3.4.

With s_i the cosine of a test image to image i, and N_k the k images of the largest s:

    w_i = exp(s_i / tau)
    score of class c = sum of w_i over the i in N_k of class c, divided by the sum of all w_i

Differs from the paper: the images come an experience at a time; `neighbours=20`, since a class has
tens of images here (theirs: 200 of 1.3 million).
"""

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers
from cl_adapters.strategies.core.config import StrategyConfig
from cl_adapters.strategies.core.features import FeatureExtractor
from cl_adapters.strategies.core.strategy import AdapterStrategy, Phase
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["KNN", "KNNConfig", "Neighbours"]


class KNNConfig(StrategyConfig):
    """Options of KNN."""

    neighbours: int = Field(default=20, ge=1, description="k, images that vote")
    temperature: float = Field(default=0.07, gt=0, description="tau, of the votes' weights")


class Neighbours(GrowingBuffers):
    """The backbone, and the directions and labels of all images seen."""

    grows_by_learning = True

    def __init__(self, backbone: AdaptedViT, config: KNNConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.num_classes = 0
        self.register_buffer("rows", torch.zeros(0, backbone.embed_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.rows: Tensor
        self.labels: Tensor

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Keeps images: features (B, D), labels (B,)."""
        self.rows = torch.cat([self.rows, functional.normalize(features.float(), dim=1)])
        self.labels = torch.cat([self.labels, labels])

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the log of the scores, (B, C), of images (B, 3, S, S) or features (B, D)."""
        features = inputs if inputs.ndim == 2 else self.backbone(inputs)
        cosines = functional.normalize(features.float(), dim=1) @ self.rows.T
        nearest = cosines.topk(min(self.config.neighbours, len(self.rows)), dim=1)
        votes = (nearest.values / self.config.temperature).softmax(dim=1)
        scores = votes.new_zeros(len(votes), self.num_classes)
        scores.scatter_add_(1, self.labels[nearest.indices], votes)
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()


class KNN(AdapterStrategy):
    """Lets the nearest images seen so far vote; nothing depends on the seed."""

    config_class = KNNConfig
    config: KNNConfig
    model: Neighbours
    learns_by_gradient = False

    @classmethod
    def build_model(cls, backbone: AdaptedViT, config: KNNConfig, seed: int) -> nn.Module:  # noqa: ARG003
        """Returns the backbone with no image yet."""
        return Neighbours(backbone, config)

    def add_classes(self, classes: Sequence[int], generator: torch.Generator) -> None:  # noqa: ARG002
        """Gives a column to each label."""
        self.model.num_classes = max(self.model.num_classes, *(label + 1 for label in classes))

    def phases(self) -> Iterator[Phase]:
        """Yields nothing: no epoch is trained."""
        yield from ()

    def frozen_features(self) -> FeatureExtractor:
        """Returns the whole backbone: no image passes it twice where there is a cache."""
        return self.features.feature_extractor(self.backbone, self.backbone)

    def end_experience(self) -> None:
        """Keeps the images of the experience."""
        frozen = self.features.cached_features(self.experience.dataset, self.frozen_features())
        for features, labels in frozen.batches():
            self.model.add(features.to(self.device), labels.to(self.device))
