"""What is imported for good is not searched for garbage; what comes of a run is."""

import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cl_adapters.loading import loading


@pytest.mark.parametrize("is_on", [True, False])
def test_garbage_is_left_alone_inside_and_looked_for_as_before_afterwards(*, is_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if is_on else gc.disable)()
    try:
        with suppress(ImportError), loading():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is is_on
    finally:
        (gc.enable if before else gc.disable)()


PROCESS = """
import atexit, gc, sys, threading, time
from cl_adapters.loading import call_loaded, whole_process

class Unneeded:
    def __del__(self):
        print("taken apart")

kept = Unneeded()
def late():
    time.sleep(0.2)
    print("a thread ends")
with whole_process():
    atexit.register(print, "registered")
    threading.Thread(target=late).start()
    sys.stderr.write("an error")
    {end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(2)", 2), ("sys.exit()", 0), ("pass", 0), ("1 / 0", 1), ("sys.exit('no')", 1)],
)
def test_a_process_ends_by_its_code_after_its_threads_and_takes_nothing_apart(
    end: str, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(end=end)], capture_output=True, text=True, check=False
    )
    is_short = end not in {"1 / 0", "sys.exit('no')"}  # others end as Python ends
    apart = [] if is_short else ["taken apart"]
    assert done.stdout.splitlines() == ["a thread ends", "registered", *apart]
    assert done.stderr.startswith("an error")
    assert done.returncode == code


def test_a_worker_loads_its_function_without_looking_for_garbage_and_calls_it_as_always(
    tmp_path: Path,
) -> None:
    (tmp_path / "place.py").write_text(
        "import gc\nprint(gc.isenabled())\ndef begin(*given):\n    print(gc.isenabled(), *given)\n"
    )
    work = "from cl_adapters.loading import call_loaded\ncall_loaded('place:begin', 1, 'b')"
    done = subprocess.run(
        [sys.executable, "-c", work], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["False", "True 1 b"]
