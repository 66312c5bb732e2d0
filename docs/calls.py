"""How much of our Python one batch of MOS goes through.

    python docs/calls.py [BACKBONE]

counts the calls and files of a training step (32 images) and of an evaluated batch (64), from the
end of the one before to its own, in the second experience of the digits, with the feature cache on.
An evaluation comes before the one that is counted, so that the cache knows the answers. What reads
the images, in `benchmarks/`, is counted apart.
"""  # noqa: INP001 - no package

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
from avalanche.training.plugins import EvaluationPlugin

import cl_adapters
from cl_adapters.benchmarks.data.sources import open_source
from cl_adapters.benchmarks.streams.class_incremental import make_plan
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.cache.feature_cache import FeatureCache
from cl_adapters.images.transforms import Preprocess
from cl_adapters.strategies.core.checkpointing import ResumablePlugin
from cl_adapters.strategies.mos import MOS, MOSConfig
from cl_adapters.vit.pretrained import load_backbone

OURS: Final = str(Path(cl_adapters.__file__).parent) + "/"
_EMBEDDED: Final = "vit_pico_patch4_32"
_COUNTED: Final = 2  # the batch that is counted, from 0, of the phase that is watched


class CallCounter(ResumablePlugin):
    """Counts calls by file from the end of one batch to the end of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = 0
        self.calls: Counter[str] = Counter()

    def begin(self) -> None:
        """Forgets what was counted."""
        self.batch, self.calls = 0, Counter()

    def after_training_iteration(self, _strategy: object, **_: object) -> None:
        """Follows a training step."""
        self._end_batch()

    def after_eval_iteration(self, _strategy: object, **_: object) -> None:
        """Follows an evaluated batch."""
        self._end_batch()

    def _end_batch(self) -> None:
        self.batch += 1
        sys.setprofile(self._count if self.batch == _COUNTED else None)

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename != __file__:
            self.calls[frame.f_code.co_filename] += 1

    def report(self, title: str) -> str:
        """Returns the counts as a line, and our files with theirs."""
        known = {name: count for name, count in self.calls.items() if name.startswith(OURS)}
        ours = {name: count for name, count in known.items() if "/benchmarks/" not in name}
        reading = sum(known.values()) - sum(ours.values())
        theirs = sum(count for name, count in self.calls.items() if "/avalanche/" in name)
        files = ", ".join(
            f"{Path(name).name} {count}" for name, count in Counter(ours).most_common()
        )
        return (
            f"{title}: {sum(ours.values())} calls of ours in {len(ours)} files, {reading} that "
            f"read images, {theirs} of Avalanche's\n    {files}"
        )


def main(name: str) -> None:
    """Trains two experiences and prints what was counted in the second."""
    torch.set_num_threads(1)  # two wait for each other beside other work
    backbone = (
        load_backbone(name, image_size=32, weights="random")
        if name != _EMBEDDED
        else load_backbone(name)
    )
    pixels = Preprocess(image_size=32, mean=backbone.mean, std=backbone.std)
    source = open_source("digits")
    stream: Any = make_benchmark(source, make_plan(source, increment=5), pixels)
    counter = CallCounter()
    with tempfile.TemporaryDirectory() as folder:
        strategy = MOS(
            backbone=backbone.model,
            config=MOSConfig(epochs=1),
            cache=FeatureCache(Path(folder)),
            fixed_views=True,  # as a run says of images that are not augmented
            plugins=[counter],
            evaluator=EvaluationPlugin(),  # no bars and no numbers of Avalanche's, as in a run
        )
        for experience in stream.train_stream:
            counter.begin()
            strategy.train(experience)
        print(counter.report("training step"))  # noqa: T201 - a command
        for _ in range(2):
            counter.begin()
            strategy.eval(stream.test_stream)
        print(counter.report("evaluated batch"))  # noqa: T201


if __name__ == "__main__":
    main(*(sys.argv[1:] or [_EMBEDDED]))
