"""What features under prompts are worth: `python -m ...maintenance.prompt_features RUNS`.

RUNS are finished runs of prompt methods. Images are classified by the cosine to class means, as
SimpleCIL does, so that no head and no order of experiences plays a part:

    frozen     the plain network's features
    begun      what the method's head reads before anything is trained (L2P, which has all prompts
               from the start)
    learned    what its head reads at the end of the run

All classes, A_last over the test images (micro), in per cent. What `begun` lacks beside `frozen` is
the price of reading the outputs of prompts, and training has to win it back.
"""

from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from torch import Tensor, nn

from cl_adapters.benchmarks.maintenance.batch_leak import called
from cl_adapters.benchmarks.markdown import interval_text, markdown_table
from cl_adapters.benchmarks.running.prepare import prepare
from cl_adapters.benchmarks.running.recipe import RunConfig
from cl_adapters.benchmarks.streams.experiences import read_images
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from cl_adapters.heads.prototypes import PrototypeHead
from cl_adapters.records.run_record import RunRecord
from cl_adapters.strategies.core.prompting import PromptStrategy

__all__ = ["WAYS", "accuracies"]

WAYS: Final = ("frozen", "begun", "learned")
_BATCH: Final = 48


def accuracies(run: Path) -> dict[str, float]:
    """Returns the accuracy of class means over each kind of features, in per cent.

    Args:
        run: A finished run of a prompt method.

    Raises:
        InputError: If the run is of another method.
    """
    record = RunRecord.read(run)
    learned: Any = load(run).strategy
    if not isinstance(learned, PromptStrategy):
        raise InputError(f"runs must be of a prompt method, got {record.strategy!r}")
    prepared = prepare(RunConfig.parse(record.config))
    stream = prepared.benchmark()
    fresh: Any = prepared.strategy
    models = {"frozen": learned.backbone, "learned": _headless(learned.model)}
    if hasattr(fresh.model, "prompts"):  # else they come with the experiences
        models["begun"] = _headless(fresh.model)
    (known, labels), (asked, targets) = map(read_images, (stream.train_stream, stream.test_stream))
    found = {}
    for name, model in models.items():
        means = PrototypeHead(learned.backbone.embed_dim)
        means.add_classes(range(int(labels.max()) + 1))
        means.add(_features(learned, model, known), labels)
        answers = means(_features(learned, model, asked)).argmax(dim=1)
        found[name] = 100 * float((answers == targets).double().mean())
    return found


def _headless(model: Any) -> nn.Module:  # noqa: ANN401 - of any prompt method
    model.heads = nn.Identity()
    found: nn.Module = model.eval()
    return found


@torch.no_grad()
def _features(strategy: Any, model: nn.Module, images: Tensor) -> Tensor:  # noqa: ANN401
    rows = []
    with strategy.features.autocast():
        for batch in torch.split(images, _BATCH):
            output = model(strategy.backbone.inputs(batch, strategy.device))
            rows.append(output if isinstance(output, Tensor) else output.logits)
    return torch.cat(rows).float().cpu()


def _main(
    runs: list[Path],
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    torch.set_num_threads(threads)
    found: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        found.setdefault(called(RunRecord.read(run)), []).append(accuracies(run))
        print(run, found, sep="\t", flush=True)  # noqa: T201 - what it is for
    rows = [
        [name, *(interval_text([e[way] for e in each]) if way in each[0] else "" for way in WAYS)]
        for name, each in found.items()
    ]
    print(f"\n{markdown_table([['trained as', *WAYS], *rows])}")  # noqa: T201


if __name__ == "__main__":
    typer.run(_main)
