"""A classifier in closed form for each path that images can take through a network that grew.

A path is the set of adapters that one kind of images goes through. Features under other adapters
are other features, and one covariance does not fit objects, signs and sketches together: so each
path has statistics of its own, over the classes that it learned. What all paths learned can be
asked as well, by one classifier over features that need not be the same. With x an image of path p
that has features g for the shared classifier and f for that of its path,

    by path     log q_p(c | f)                        for classes c that p has learned
    both        log q(c | g) + log q_p(c | f)

Shapes: B batch, D features of a path, E those of the shared classifier, P paths, G classes of all
paths (a class of two paths counts twice), C classes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_adapters.buffers import GrowingBuffers, count_members
from cl_adapters.heads.linear import UNSEEN_LOGIT
from cl_adapters.heads.registry import ClosedHead
from cl_adapters.heads.ridge import RidgeHead

__all__ = ["PathClassifiers"]


class PathClassifiers(GrowingBuffers):
    """Classifiers by path; one path learns at a time.

    Args:
        build: Makes the classifier of a path, without a class yet.
        shared: The classifier over all images that answers beside those of paths; None: none does.

    Attributes:
        active: () int64, the path that learns.
        group_paths, group_classes: (G,) int64, path and class of each group; a path's classifier
            has its groups as columns, in the order in which they came.
    """

    grows_by_learning = True

    def __init__(self, build: Callable[[], ClosedHead], shared: ClosedHead | None) -> None:
        super().__init__()
        self._build, self.shared = build, shared
        self.paths = nn.ModuleList()
        self._num_classes = 0
        self.register_buffer("active", torch.zeros((), dtype=torch.int64))
        for name in ("group_paths", "group_classes"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))
        self.active: Tensor
        self.group_paths: Tensor
        self.group_classes: Tensor
        self._columns: list[list[int]] | None = None  # classes of each path, as the groups say

    def add_classes(self, classes: Sequence[int]) -> None:
        """Makes room for classes that have no column yet."""
        self._num_classes = max(self._num_classes, 1 + max(classes, default=-1))
        if self.shared is not None:
            self.shared.add_classes(classes)

    def begin(self, path: int) -> None:
        """Lets a path learn; P makes a new one."""
        if path == len(self.paths):
            self._add_path()
        self.active.fill_(path)

    def _add_path(self) -> None:
        self.paths.append(self._build().to(self.active.device))

    def _of(self, path: int) -> ClosedHead:
        head: ClosedHead = self.paths[path]  # type: ignore[assignment] # of a ModuleList
        return head

    def cost(self, classes: int) -> int:
        """Returns the numbers that one more path holds once it has learned some classes."""
        head = self._build()
        head.add_classes(range(classes))
        held = sum(int(value.numel()) for value in head.state_dict().values())
        return held + 2 * classes  # path and class of each group

    @torch.no_grad()
    def add(self, features: Tensor, wide: Tensor, targets: Tensor) -> None:
        """Adds images to the active path, and to the shared classifier.

        Shape:
            features: (B, D). wide: (B, E). targets: (B,), labels below C.
        """
        path = int(self.active)
        known = self._classes_of(path)
        new = [each for each in torch.unique(targets).tolist() if each not in known]
        count = len(new)
        self.group_paths = functional.pad(self.group_paths, (0, count), value=path)
        self.group_classes = torch.cat((self.group_classes, self.group_classes.new_tensor(new)))
        columns = {label: place for place, label in enumerate([*known, *new])}
        places = torch.tensor([columns[each] for each in targets.tolist()], device=targets.device)
        self._columns = None
        self._of(path).add_classes(range(len(columns)))
        self._of(path).add(features, places)
        if self.shared is not None:
            self.shared.add(wide, targets)

    def _classes_of(self, path: int) -> list[int]:
        # Plain numbers, so that a graph of the network has no question about them.
        if self._columns is None or len(self._columns) != len(self.paths):
            groups = list(zip(self.group_paths.tolist(), self.group_classes.tolist(), strict=True))
            self._columns = [
                [label for place, label in groups if place == each]
                for each in range(len(self.paths))
            ]
        return self._columns[path]

    def buffers_loaded(self) -> None:
        """Forgets the classes of the state before."""
        self._columns = None

    def solve(self, strength: float) -> None:
        """Lets what was added count, where classifiers have to be solved.

        Args:
            strength: Of the ridge.
        """
        for head in (self._of(int(self.active)), self.shared):
            if isinstance(head, RidgeHead):
                head.solve(strength)

    def forward(self, features: Tensor, wide: Tensor, paths: Tensor) -> Tensor:
        """Returns the logits of each image, over all classes; `UNSEEN_LOGIT` off its path.

        Shape:
            features: (B, D). wide: (B, E). paths: (B,), below P. Output: (B, C), float32.
        """
        shape = features.shape[0], self._num_classes
        logits = features.new_full(shape, UNSEEN_LOGIT, dtype=torch.float32)
        shared = None if self.shared is None else self.shared(wide).float().log_softmax(dim=1)
        for path in range(len(self.paths)):
            columns = torch.tensor(self._classes_of(path), device=features.device)
            found = self._of(path)(features).float().log_softmax(dim=1)
            if shared is not None:
                found = _above_unseen(found + shared[:, columns])
            placed = torch.full_like(logits, UNSEEN_LOGIT).index_copy(1, columns, found)
            logits = torch.where((paths == path)[:, None], placed, logits)
        return logits

    def rebuild(self, state: Mapping[str, Tensor], name: str) -> None:
        """Makes room for the paths that a state holds under a name."""
        while len(self.paths) < count_members(state, f"{name}.paths"):
            self._add_path()


def _above_unseen(logits: Tensor) -> Tensor:
    # Two classifiers that are each certain of another class rule out all of a path. The likeliest
    # then still stays above the classes that are not on it.
    top = logits.amax(dim=1, keepdim=True)
    return logits + (UNSEEN_LOGIT / 2 - top).clamp_min(0)
