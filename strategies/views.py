"""K fixed augmented views of each image: chance that can be met again.

Under random augmentation every use of an image is a new input, so nothing that a frozen part makes
of it can be kept. With K fixed views each use shows one of K inputs, drawn anew; a frozen part then
computes at most K times for an image, whatever the number of epochs. What a view looks like depends
on the image and the pipeline alone, so other seeds and runs meet the same ones.
"""

import hashlib

__all__ = ["FixedViews"]


class FixedViews:
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
        self.count = count
        self._pipeline = pipeline.encode()
        self._moment = b""

    def show(self, moment: str) -> None:
        """Draws a view for each image; the same moment draws the same."""
        self._moment = hashlib.sha256(moment.encode()).digest()

    def shown(self, image: bytes) -> int:
        """Returns the number of the view that an image shows, below K.

        Args:
            image: Digest of the image.
        """
        drawn = hashlib.sha256(self._moment + image).digest()
        return int.from_bytes(drawn[:8], "big") % self.count

    def key(self, image: bytes) -> bytes:
        """Returns a digest of the input that an image shows; it also seeds the view's crop.

        Args:
            image: Digest of the image.
        """
        number = self.shown(image).to_bytes(4, "big")
        return hashlib.sha256(self._pipeline + number + image).digest()
