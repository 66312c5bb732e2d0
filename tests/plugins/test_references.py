"""Files of plugins: loaded anew where they changed, and named where they fail."""

from pathlib import Path

import pytest

from cl_adapters.plugins.references import in_words, load_module, place_in_plugin


def test_a_file_that_changed_is_another_module_and_one_that_did_not_is_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.py"
    path.write_text("VALUE = 1\n")
    first = load_module(str(path))
    assert load_module(str(path)) is first
    path.write_text("VALUE = 2\n")
    second = load_module(str(path))
    assert (first.VALUE, second.VALUE) == (1, 2)
    path.write_text("VALUE = 1\n")
    assert load_module(str(path)) is first


def test_an_error_is_placed_where_the_plugins_code_last_stood(tmp_path: Path) -> None:
    path = tmp_path / "deep.py"
    path.write_text("def outer():\n    return inner()\n\n\ndef inner():\n    return int('x')\n")
    module = load_module(str(path))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        module.outer()
    assert place_in_plugin(caught.value) == f"{path}, line 6"
    assert in_words(caught.value).endswith(f"({path}, line 6)")
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert place_in_plugin(caught.value) == ""
