"""A frozen ViT with one set of adapters and heads that grow."""

from torch import Tensor, nn

from cl_adapters.heads.linear import ExperienceHeads
from cl_adapters.peft.adapter_set import AdapterSet
from cl_adapters.vit.adapted_vit import AdaptedViT

__all__ = ["AdaptedClassifier"]


class AdaptedClassifier(nn.Module):
    """A frozen backbone, one set of adapters, and heads that grow.

    Args:
        backbone: The frozen ViT.
        adapters: What is trained inside it; None for a linear probe.
        heads: What is trained on its features.
    """

    def __init__(
        self, backbone: AdaptedViT, adapters: AdapterSet | None, heads: ExperienceHeads
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapters = adapters
        self.heads = heads

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits over the classes seen.

        Shape:
            images: (B, 3, S, S). Output: (B, C).
        """
        logits: Tensor = self.heads(self.backbone(images, self.adapters))
        return logits
