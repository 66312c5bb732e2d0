"""The sizes that the code keeps (`docs/house.py`)."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOUSE = runpy.run_path(str(ROOT / "docs" / "house.py"))


def test_every_limit_is_kept() -> None:
    assert HOUSE["beyond"](HOUSE["measure"]()) == []


def test_lines_are_counted_without_docstrings_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    body = "\n".join(f"    x{number} = {number}" for number in range(30))
    (tmp_path / "code" / "a.py").write_text(
        f'def fits():\n    """One.\n\n    Two.\n    """\n{body.replace("    x0 = 0", "", 1)}\n'
        f"async def long():\n{body}\n    return x0\n"
        "class Small:\n    def one(self): ...\n    def _two(self): ...\n"
    )
    (tmp_path / "code" / "again").symlink_to(tmp_path / "code", target_is_directory=True)
    sizes = HOUSE["measure"](("code",), tmp_path)
    assert sizes.files == {"code/a.py": 70}
    assert {name.split(":")[1]: lines for name, lines in sizes.functions.items()} == {
        "fits": 31, "long": 32, "one": 1, "_two": 1,
    }  # fmt: skip
    assert [name.split(":")[1] for name in sizes.long_functions] == ["fits", "long"]
    assert list(sizes.classes.values()) == [1]


def test_each_limit_can_be_broken() -> None:
    kept = dict(HOUSE["LIMITS"])
    sizes = HOUSE["Sizes"](dict(kept), {"f:g:1": 10}, {"f:C:1": 20})
    # Four files alone have another median than the code.
    assert [each for each in HOUSE["beyond"](sizes) if "median" not in each] == []
    first = next(iter(kept))
    for broken in (
        HOUSE["Sizes"]({**kept, first: kept[first] + 1}, {"f:g:1": 10}, {}),
        HOUSE["Sizes"]({**kept, "other.py": 401}, {"f:g:1": 10}, {}),
        HOUSE["Sizes"](dict(kept), {"f:g:1": 31}, {}),
        HOUSE["Sizes"](dict(kept), {"f:g:1": 10}, {"f:C:1": 21}),
    ):
        assert len([each for each in HOUSE["beyond"](broken) if "median" not in each]) == 1
