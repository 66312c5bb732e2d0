import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.evaluation import metrics
from avalanche.logging import TextLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from hypothesis import given
from hypothesis import strategies as st

from cl_adapters.benchmarks.data.sources import array_source, digits_source
from cl_adapters.benchmarks.streams.class_incremental import class_order, make_plan, split_classes
from cl_adapters.benchmarks.streams.experiences import make_benchmark
from cl_adapters.errors import InputError
from cl_adapters.images.transforms import Preprocess

PREPROCESS = Preprocess(image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


def make_source(targets: list[int], classes: int) -> Any:
    """A source whose image i is of the grey level i; every class is on both sides."""
    everything = [*range(classes), *targets]
    images = np.arange(len(everything), dtype=np.uint8).repeat(4).reshape(-1, 2, 2)
    return array_source("test", (images, everything), (images[::-1], everything))


@pytest.mark.parametrize(
    ("num_classes", "start"),
    [
        (50, (43, 41, 23, 14, 13, 40)),
        (100, (68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89)),
        (200, (168, 136, 51, 9, 183, 101, 171, 99, 42, 159)),
        (300, (169, 221, 146, 296, 92, 229)),
    ],
)
def test_the_published_orders_are_reproduced(num_classes: int, start: tuple[int, ...]) -> None:
    assert class_order("numpy1993", num_classes, seed=7)[: len(start)] == start


@given(
    st.sampled_from(["natural", "seeded", "numpy1993", "numpy1995"]),
    st.integers(1, 60),
    st.integers(0, 99),
)
def test_every_order_is_a_fixed_permutation(rule: str, num_classes: int, seed: int) -> None:
    order = class_order(rule, num_classes, seed)
    assert sorted(order) == list(range(num_classes))
    assert class_order(rule, num_classes, seed) == order
    assert all(type(label) is int for label in order)


def test_only_the_seeded_order_follows_the_seed() -> None:
    assert class_order("seeded", 20, 0) != class_order("seeded", 20, 1)
    assert class_order("numpy1993", 20, 0) == class_order("numpy1993", 20, 1)
    assert class_order("natural", 3, 5) == (0, 1, 2)


def test_an_order_may_be_given() -> None:
    given_order = [2, 0, 1]
    assert class_order(given_order, 3) == (2, 0, 1)
    assert class_order("2, 0,1", 3) == (2, 0, 1)
    assert class_order(np.array(given_order), 3) == (2, 0, 1)
    assert given_order == [2, 0, 1]
    assert class_order("0", 1) == (0,)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("numpy1939", "unknown class order 'numpy1939'; did you mean 'numpy199"),
        ("0,1", "class order must hold each class once, 2 is missing"),
        ("", "unknown class order ''"),
        ([], "class order must hold each class once, 0 is missing"),
        ([0, 1, 1], "class order must hold each class once, got 1 twice"),
        ([0, 1, 3], "class order must hold classes 0 to 2, got 3"),
        ([0, 1, -1], "class order must hold classes 0 to 2, got -1"),
        ([0, 1.5, 2], "class order must be a list of class numbers, got"),
        ("0,b,2", "class order must be a list of class numbers, got '0,b,2'"),
    ],
)
def test_a_bad_order_is_refused(rule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_order(rule, 3)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        class_order("seeded", 3, -1)


@given(st.data())
def test_experiences_partition_the_classes(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(1, 60))
    increment = data.draw(st.integers(1, num_classes))
    first = data.draw(st.none() | st.integers(0, num_classes))
    experiences = split_classes(num_classes, increment, first)
    assert [label for each in experiences for label in each] == list(range(num_classes))
    sizes = [len(each) for each in experiences]
    assert sizes[0] == min(first or increment, num_classes)
    assert all(size == increment for size in sizes[1:-1])
    assert all(1 <= size <= increment for size in sizes[1:])


def test_published_settings_have_their_number_of_experiences() -> None:
    assert len(split_classes(100, 5)) == 20
    assert [len(each) for each in split_classes(43, 7, 8)] == [8, 7, 7, 7, 7, 7]
    assert [len(each) for each in split_classes(10, 3)] == [3, 3, 3, 1]
    assert split_classes(10, 5, 0) == split_classes(10, 5)


@pytest.mark.parametrize(
    ("increment", "first", "message"),
    [
        (11, None, "increment must be from 1 to the number of classes, 10, got 11"),
        (0, None, "increment must be from 1 to the number of classes, 10, got 0"),
        (-1, 5, "increment must be from 1 to the number of classes, 10, got -1"),
        (2, 11, "first must be from 1 to the number of classes, 10, got 11"),
        (2, -1, "first must be from 1 to the number of classes, 10, got -1"),
    ],
)
def test_bad_increments_are_refused(increment: int, first: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_classes(10, increment, first)


@given(st.data())
def test_streams_hold_every_image_once_and_no_class_twice(data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, 6))
    targets = data.draw(st.lists(st.integers(0, classes - 1), max_size=20))
    increment = data.draw(st.integers(1, classes))
    source = make_source(targets, classes)
    plan = make_plan(source, increment=increment, seed=data.draw(st.integers(0, 9)))
    for images, parts in ((source.train, plan.train), (source.test, plan.test)):
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(images)))
        for part, positions in zip(parts, plan.experiences, strict=True):
            assert set(images.targets[part]) == {plan.order[position] for position in positions}
            assert (np.diff(part) > 0).all()


def test_a_plan_keeps_names_and_describes_itself() -> None:
    source = digits_source()
    plan = make_plan(source, increment=4, order="3,1,4,0,5,9,2,6,8,7")
    assert plan.classes == tuple("3140592687")
    assert plan.experience_of_class.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert plan.describe() == {
        "class_order": [3, 1, 4, 0, 5, 9, 2, 6, 8, 7],
        "experiences": [4, 4, 2],
    }
    seeded = [make_plan(source, increment=4, seed=seed) for seed in (0, 1)]
    assert seeded[0].order != seeded[1].order
    assert seeded[0].describe() == seeded[1].describe()
    assert seeded[0].describe()["class_order"] == "seeded"


def test_benchmarks_hold_what_the_indices_say() -> None:
    source = digits_source()
    plan = make_plan(source, increment=3, first=4, seed=5)
    benchmark = make_benchmark(source, plan, PREPROCESS)
    assert (benchmark.train_stream.name, benchmark.test_stream.name) == ("train", "test")
    for images, stream, parts in (
        (source.train, benchmark.train_stream, plan.train),
        (source.test, benchmark.test_stream, plan.test),
    ):
        seen: set[int] = set()
        for number, experience in enumerate(stream):
            seen |= set(plan.experiences[number])
            assert experience.current_experience == number
            assert experience.classes_in_this_experience == set(plan.experiences[number])
            assert experience.classes_seen_so_far == seen
            indices = parts[number]
            assert len(experience.dataset) == len(indices)
            positions = [plan.order.index(images.targets[index]) for index in indices]
            assert list(experience.dataset.targets) == positions
            for place in (0, len(indices) - 1):
                image, target, task = experience.dataset[place]
                assert torch.equal(image, PREPROCESS.evaluate(images.read(indices[place])))
                assert (target, task) == (positions[place], 0)


def test_train_images_are_augmented_in_train_mode_only() -> None:
    source = digits_source()
    preprocess = Preprocess(image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3, augment="crop")
    plan = make_plan(source, increment=5)
    benchmark = make_benchmark(source, plan, preprocess)
    train, test = (stream[0].dataset for stream in (benchmark.train_stream, benchmark.test_stream))

    def views(dataset: Any) -> int:
        # Of eight pixels there are so few crops that two may be one by chance, but not eight.
        return len({tuple(dataset[0][0].flatten().tolist()) for _ in range(8)})

    assert views(train) > 1
    assert views(train.eval()) == 1
    assert views(test) == 1
    assert views(test.train()) > 1


def test_global_random_states_and_arguments_are_left_alone() -> None:
    source = digits_source()
    order = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    targets, rows = source.train.targets.copy(), source.train.rows.copy()

    def state() -> tuple[object, ...]:
        numpy_state = np.random.get_state()  # noqa: NPY002  # the state under test
        return (
            torch.random.get_rng_state().tolist(),
            [np.asarray(part).tolist() for part in numpy_state],
            random.getstate(),
        )

    before = state()
    for rule in ("seeded", "numpy1993", "natural", order):
        plan = make_plan(digits_source(), increment=3, order=rule, seed=3)
        benchmark = make_benchmark(source, plan, PREPROCESS)
        assert len(benchmark.test_stream[0].dataset[0]) == 3
    assert state() == before
    assert order == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    np.testing.assert_array_equal(source.train.targets, targets)
    np.testing.assert_array_equal(source.train.rows, rows)


def make_evaluator() -> EvaluationPlugin:
    everywhere = {"epoch": True, "experience": True, "stream": True}
    return EvaluationPlugin(
        metrics.accuracy_metrics(minibatch=True, **everywhere),
        metrics.loss_metrics(minibatch=True, **everywhere),
        metrics.forgetting_metrics(experience=True, stream=True),
        metrics.bwt_metrics(experience=True, stream=True),
        metrics.confusion_matrix_metrics(num_classes=10, save_image=False, stream=True),
        metrics.topk_acc_metrics(top_k=3, **everywhere),
        metrics.class_accuracy_metrics(**everywhere),
        loggers=[TextLogger(io.StringIO())],
    )


def test_plain_avalanche_trains_and_measures_on_our_streams() -> None:
    source = digits_source()
    plan = make_plan(source, increment=4, seed=1)
    benchmark = make_benchmark(source, plan, PREPROCESS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
        strategy = Naive(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), 3e-2),
            train_mb_size=32,
            train_epochs=2,
            eval_mb_size=256,
            evaluator=make_evaluator(),
        )
        for experience in benchmark.train_stream:
            strategy.train(experience)
            results = strategy.eval(benchmark.test_stream)
    last = "eval_phase/test_stream/Task000"
    assert results[f"Top1_Acc_Exp/{last}/Exp002"] > 0.9
    assert results["StreamForgetting/eval_phase/test_stream"] > 0.5
    assert results[f"Top1_ClassAcc_Stream/{last}/9"] > 0.8
    assert results[f"Topk_3_Acc_Stream/{last}"] > results[f"Top1_Acc_Stream/{last}"]
    confusion = results["ConfusionMatrix_Stream/eval_phase/test_stream"]
    targets = np.concatenate([stream.dataset.targets for stream in benchmark.test_stream])
    np.testing.assert_array_equal(confusion.sum(dim=1), np.bincount(targets))
