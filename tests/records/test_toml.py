"""What is written as TOML reads back as it was, by the standard library."""

import tomllib

from hypothesis import example, given
from hypothesis import strategies as st

from cl_adapters.records.toml import toml_lines

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(texts, values, max_size=4))
@example({"emoji": "\U0001f600", "delete": "a\x7fb", "é": "é", "": 'q"\\\n\t\0'})
@example({"\x7f": [1, "\x7f"], "huge": float("inf"), "a b": {"c.d": []}})
def test_everything_comes_back(written: dict[str, object]) -> None:
    assert tomllib.loads("\n".join(toml_lines(written))) == written
