"""Augmented views of images: chance with a source of its own, that can be met again.

Under random augmentation every moment of a run shows a new view of an image. It is drawn from the
moment and the image alone: nothing else that draws numbers changes it, nor does the order of the
images, and a run that goes on after an interruption sees the same. Nothing that a frozen part makes
of such an input can be kept. With K fixed views each moment shows one of K inputs; a frozen part
then computes at most K times for an image, whatever the number of epochs. What they look like
depends on the image and the pipeline alone, so other seeds and runs meet the same ones.
"""

import hashlib

__all__ = ["Augmentation", "FixedViews", "Views"]


class Views:
    """Says which view each image shows at the moment: a new one at each.

    Args:
        pipeline: Digest of the pixel pipeline that makes the views.

    Example:
        >>> views, keys = Views("crops"), set()
        >>> for moment in ("epoch 0", "epoch 1", "epoch 0"):
        ...     views.show(moment)
        ...     keys.add(views.key(b"cat"))
        >>> len(keys), views.key(b"dog") in keys
        (2, False)
    """

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline.encode()
        self._moment = b""

    def show(self, moment: str) -> None:
        """Draws a view for each image; the same moment draws the same."""
        self._moment = hashlib.sha256(moment.encode()).digest()

    def key(self, image: bytes) -> bytes:
        """Returns a digest of the input that an image shows; it also seeds the view's crop.

        Args:
            image: Digest of the image.
        """
        return hashlib.sha256(self._pipeline + self._view(image) + image).digest()

    def _view(self, image: bytes) -> bytes:
        return hashlib.sha256(self._moment + image).digest()


class FixedViews(Views):
    """Says which of its K views each image shows at the moment.

    Args:
        count: K, at least 1.
        pipeline: Digest of the pixel pipeline that makes the views.

    Example:
        >>> views = FixedViews(2, "crops")
        >>> views.show("epoch 0")
        >>> first = views.key(b"cat")
        >>> keys = set()
        >>> for epoch in range(20):
        ...     views.show(f"epoch {epoch}")
        ...     keys.add(views.key(b"cat"))
        >>> len(keys), first in keys
        (2, True)
    """

    def __init__(self, count: int, pipeline: str) -> None:
        super().__init__(pipeline)
        self.count = count

    def shown(self, image: bytes) -> int:
        """Returns the number of the view that an image shows, below K.

        Args:
            image: Digest of the image.
        """
        return int.from_bytes(super()._view(image)[:8], "big") % self.count

    def _view(self, image: bytes) -> bytes:
        return self.shown(image).to_bytes(4, "big")


class Augmentation:
    """What a strategy knows of the training images' augmentation.

    Args:
        fixed_views: Whether training shows each image as evaluation does; or what says which view.
        seed: Of the run.

    Attributes:
        views: What says which view each image shows; None if all show one, or any.
        inputs_repeat: Whether training images show the same input, or one of some, more than once.
    """

    def __init__(self, fixed_views: bool | Views, seed: int) -> None:  # noqa: FBT001 - one thing
        self.fixed_views = fixed_views
        self.views = fixed_views if isinstance(fixed_views, Views) else None
        self.inputs_repeat = fixed_views is True or isinstance(fixed_views, FixedViews)
        self._seed = seed

    def set_augmentation_seed(self, experience: int, moment: str) -> None:
        """Draws which view each image shows from now on, where something says so.

        Args:
            experience: How many experiences have begun.
            moment: Of the experience; the same moment draws the same.
        """
        if self.views is not None:
            self.views.show(f"{self._seed} {experience} {moment}")
