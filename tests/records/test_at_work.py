"""Who writes to a run directory is noticed by every reader, and readers stop nobody."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from cl_adapters.benchmarks.running.run_folder import only_writer
from cl_adapters.errors import InputError
from cl_adapters.records.at_work import check_not_at_work

WRITER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("at work", flush=True)
    sys.stdin.readline()
"""


def test_a_writer_in_another_process_is_noticed_until_it_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / ".lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin
        assert writer.stdout
        assert writer.stdout.readline() == "at work\n"
        for _ in range(2):
            with pytest.raises(InputError, match="must not be at work, but another process"):
                check_not_at_work(tmp_path)
        writer.communicate("\n")
    check_not_at_work(tmp_path)


def test_many_readers_at_once_do_not_notice_each_other(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    ends, refused = time.monotonic() + 0.5, []

    def read() -> None:
        try:
            while time.monotonic() < ends:
                check_not_at_work(tmp_path)
        except InputError as error:
            refused.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for each in readers:
        each.start()
    for each in readers:
        each.join()
    assert not refused


def test_a_writer_waits_while_a_reader_looks(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows has no shared lock")
    place = tmp_path / ".lock"
    place.touch()
    with place.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        check_not_at_work(tmp_path)  # one more reader beside
        timer = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        with only_writer(tmp_path), pytest.raises(InputError, match="must not be at work"):
            check_not_at_work(tmp_path)
        timer.join()


def test_a_folder_that_nobody_ever_wrote_to_stays_as_it_is(tmp_path: Path) -> None:
    check_not_at_work(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with FileLock(tmp_path / ".lock"):
        pass
    check_not_at_work(tmp_path)
