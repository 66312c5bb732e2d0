"""Class means over features under prompts: those of a plain network are SimpleCIL's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from cl_adapters.benchmarks.maintenance.prompt_features import WAYS, accuracies
from cl_adapters.benchmarks.streams.experiences import read_images
from cl_adapters.bundle.files import load
from cl_adapters.errors import InputError
from cl_adapters.reports.load import load_runs
from tests.bundle.runs import learn, write_pictures

OPTIONS = {"epochs": 2, "batch_size": 8, "lr": 0.02}


def test_each_kind_of_features_is_what_the_head_reads(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", each=20)
    prepared, run = learn(data, tmp_path / "runs", "l2p", options=OPTIONS)
    found = accuracies(run)
    assert set(found) == set(WAYS)
    _, plain = learn(data, tmp_path / "runs", "simplecil")
    (other,) = load_runs([plain]).finished
    assert found["frozen"] == pytest.approx(other.values["a_last_micro"])
    # What goes into the head, seen as the run answers, and means class by class.
    strategy: Any = load(run).strategy
    read: list[torch.Tensor] = []
    strategy.model.heads.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    benchmark = prepared.benchmark()
    rows = []
    for stream in (benchmark.train_stream, benchmark.test_stream):
        images, labels = read_images(stream)
        strategy.answer(images)
        rows.append((functional.normalize(read[-1].detach().float(), dim=1), labels, read[-1]))
    (_, known, raw), (asked, targets, _) = rows
    means = torch.stack([raw[known == label].detach().mean(dim=0) for label in range(4)])
    answers = (asked @ functional.normalize(means, dim=1).T).argmax(dim=1)
    assert found["learned"] == pytest.approx(100 * float((answers == targets).double().mean()))


def test_prompts_that_come_with_experiences_have_no_beginning(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures")
    _, run = learn(data, tmp_path / "runs", "dualprompt", options=OPTIONS)
    assert set(accuracies(run)) == {"frozen", "learned"}
    _, plain = learn(data, tmp_path / "runs", "simplecil")
    with pytest.raises(InputError, match="of a prompt method, got 'simplecil'"):
        accuracies(plain)
