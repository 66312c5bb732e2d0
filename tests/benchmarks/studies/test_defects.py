"""The study of published code: every defect can be turned on, and its price is a difference."""

from pathlib import Path

import pytest

from cl_adapters.benchmarks.studies.defects import DEFECTS, Defect, Price, prices, table
from cl_adapters.errors import InputError
from cl_adapters.reports.load import load_runs
from cl_adapters.strategies import find_strategy
from tests.benchmarks.studies.test_rounding import RECIPE
from tests.bundle.runs import write_pictures


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda each: " ".join(each.options))
def test_a_defect_is_off_by_default_and_changes_what_it_names(defect: Defect) -> None:
    config = find_strategy(defect.strategy).config_class()
    changed = config.override(dict(each.split("=", 1) for each in defect.options))
    before, after = config.model_dump(), changed.model_dump()
    different = {name for name in before if before[name] != after[name]}
    assert different == {each.split("=", 1)[0] for each in defect.options}


# The JAX original of DualPrompt is right, ports are not; TUNA's two are its settings for ImageNet-R.
ELSEWHERE = {("dualprompt", "prompt_pairing=port"), ("tuna", "mean_scaling=tuna")}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda each: " ".join(each.options))
def test_what_authors_code_does_is_what_official_does(defect: Defect) -> None:
    official = find_strategy(defect.strategy).config_class.official()
    is_on = official.override(dict(each.split("=", 1) for each in defect.options)) == official
    is_elsewhere = (defect.strategy, defect.options[0]) in ELSEWHERE
    assert is_on is not (is_elsewhere or defect.options[0].startswith("orthogonality"))


def test_prices_are_differences_of_the_runs_of_one_order(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.format(data=write_pictures(tmp_path / "data", each=6)))
    found = list(prices(recipe, 2, tmp_path / "runs", ["sd_lora"]))
    assert [(each.defect.strategy, each.seed) for each in found] == [("sd_lora", 0), ("sd_lora", 1)]
    runs = load_runs([tmp_path / "runs"]).finished
    assert len(runs) == 4
    for run in runs:
        (price,) = (each for each in found if each.seed == run.record.seed)
        is_on = "keep_function" in run.record.config.get("options", {})
        pair = run.values["a_last_micro"], run.values["a_avg_micro"]
        assert pair == pytest.approx(price.having if is_on else price.without)


def test_the_table_has_a_row_a_defect_with_students_interval() -> None:
    defect = Defect("tuna", ("second=last",), "the universal set is never reached")
    found = [
        Price(defect, 0, (70.0, 80.0), (71.0, 80.0)),
        Price(defect, 1, (60.0, 70.0), (63.0, 71.0)),
    ]
    cells = [each.strip() for each in table(found).splitlines()[2].strip("|").split("|")]
    # Of 1 and 3: t(0.975, 1) = 12.706, s = sqrt(2), over sqrt(2).
    assert cells == [
        "tuna", "the universal set is never reached", "`second=last`", "2", "65.0",
        "+2.0 ± 12.7", "+0.5 ± 6.4",
    ]  # fmt: skip


def test_a_method_without_a_known_defect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--strategy must name some of l2p, .*, got 'lae'"):
        next(prices(tmp_path / "none.toml", 1, tmp_path, ["lae"]))
