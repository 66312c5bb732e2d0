"""A page says what experience 3 is, where that is the same in all its runs."""

from cl_adapters.records.run_record import RunRecord
from cl_adapters.reports.experience_names import (
    experience_label,
    experience_names,
    experience_sentence,
)


def record(
    classes: list[str], experiences: list[list[int]], names: object = None, seed: int = 0
) -> RunRecord:
    fingerprint = {} if names is None else {"experience_names": names}
    return RunRecord(
        strategy="lae", stream="pets", seed=seed, config={}, fingerprint=fingerprint,
        classes=classes, experiences=experiences, versions={}, host={},
    )  # fmt: skip


def test_experiences_are_called_by_their_classes() -> None:
    one = record(["cat", "dog", "emu"], [[0, 1], [2]])
    assert experience_sentence([one, one]) == "experiences: 1 (cat, dog), 2 (emu)"


def test_and_by_their_names_where_they_have_some() -> None:
    one = record(["cat", "dog", "emu"], [[0, 1], [2]], ["home", "zoo"])
    assert experience_sentence([one]) == "experiences: 1 home (cat, dog), 2 zoo (emu)"


def test_names_that_do_not_fit_are_none() -> None:
    for names in (["home"], "ab", 3):
        one = record(["cat", "dog"], [[0], [1]], names)
        assert experience_sentence([one]) == "experiences: 1 (cat), 2 (dog)"


def test_nothing_is_said_where_runs_differ_or_classes_return() -> None:
    one, other = record(["cat", "dog"], [[0], [1]]), record(["dog", "cat"], [[0], [1]], seed=1)
    assert experience_sentence([one, other]) == ""
    assert experience_sentence([record(["cat", "dog"], [[0, 1], [0, 1]])]) == ""


def test_long_streams_are_cut_and_say_so() -> None:
    names = [f"c{place}" for place in range(50)]
    text = experience_sentence([record(names, [[place] for place in range(50)])])
    assert text.endswith("20 (c19) and 30 more")
    assert experience_sentence([record(names, [list(range(50))])]) == (
        "experiences: 1 (c0, c1, c2, c3 and 46 more)"
    )


def test_an_experience_is_called_by_its_folder_or_else_by_its_classes() -> None:
    named = record(["cat", "dog", "emu"], [[0, 1], [2]], ["home", "zoo"])
    assert experience_names([named, named]) == ["home", "zoo"]
    plain = record(["cat", "dog", "emu"], [[0, 1], [2]])
    assert experience_names([plain]) == ["cat, dog", "emu"]
    again = record(["cat", "dog"], [[0, 1], [0, 1]], ["2026-01", "2026-02"])
    assert experience_names([again]) == ["2026-01", "2026-02"]


def test_folders_name_experiences_though_seeds_order_their_classes_differently() -> None:
    one = record(["cat", "dog"], [[0, 1], [0, 1]], ["home", "zoo"])
    other = record(["dog", "cat"], [[0, 1], [0, 1]], ["home", "zoo"], seed=1)
    assert experience_names([one, other]) == ["home", "zoo"]


def test_experiences_are_numbers_where_runs_differ_or_classes_return() -> None:
    one, other = record(["cat", "dog"], [[0], [1]]), record(["dog", "cat"], [[0], [1]], seed=1)
    assert experience_names([one, other]) == []
    assert experience_names([record(["cat"], [[0], [0]])]) == []
    first, second = (record(["cat"], [[0]], [name]) for name in ("home", "zoo"))
    assert experience_names([first, second]) == []


def test_names_are_cut_at_the_end_and_never_break_a_line() -> None:
    assert experience_label(2, "cat, dog, emu, gnu", 9) == "2: cat, dog\u2026"
    assert experience_label(2, "cat, dog", 8) == "2: cat, dog"
    (name,) = experience_names([record(["cat"], [[0]], ["a\nb" + "c" * 500])])
    assert name.startswith("a\ufffdb")
    assert len(name) <= 80
