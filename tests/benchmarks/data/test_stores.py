from pathlib import Path

import pytest

from cl_adapters.benchmarks.data.stores import FileStore
from cl_adapters.errors import InputError


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image '.*gone\.png' must be readable"):
        FileStore(tmp_path, ["gone.png"]).pixels(0)
