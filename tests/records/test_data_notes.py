import pytest

from cl_adapters.records.data_notes import data_sentences


def test_counts_become_sentences_in_their_order() -> None:
    data = {"layout": "class folders", "left_out": {"b": 1200, "a": 1}, "images": {"in grey": 1}}
    assert data_sentences(data) == [
        "data: class folders",
        "data: 1,201 left out (b: 1,200, a: 1)",
        "data: 1 image in grey",
    ]


@pytest.mark.parametrize(
    "data",
    [
        None, [], "x", 3, {}, {"layout": 3}, {"layout": ""}, {"left_out": [1]}, {"left_out": {}},
        {"left_out": {"a": 0}}, {"left_out": {"a": True}}, {"images": {"a": "1"}}, {"images": None},
    ],
)  # fmt: skip
def test_what_no_run_wrote_is_passed_over(data: object) -> None:
    assert data_sentences(data) == []
