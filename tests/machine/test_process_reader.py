"""Reading the processes again and again through files that are kept open."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts
from jupyterhub_gpuworkshop.machine.process_reader import ProcessReader
from jupyterhub_gpuworkshop.machine.processes import read_process
from tests.conftest import require_engine

from .test_processes import WAIT, Child, running

WAIT_THEN_BECOME_ANOTHER = """
import os, sys
print("ready", flush=True)
sys.stdin.readline()
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], "another"])
"""

NOBODY = 65534
WAIT_THEN_BECOME_NOBODY = f"""
import os, sys
print("ready", flush=True)
sys.stdin.readline()
os.setuid({NOBODY})
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def reader() -> Iterator[ProcessReader]:
    reader = ProcessReader()
    yield reader
    reader.close()


def described(reader: ProcessReader, child: Child) -> ProcessFacts:
    return reader.describe(reader.read()[child.pid])


def open_files(name: str) -> list[str]:
    """Return which files of that process this process has open."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except OSError:
            continue
    return [link for link in links if f"{link}/".startswith(f"/proc/{name}/")]


@pytest.mark.parametrize("most_files", [None, 0, 2, 3])
def test_it_reads_what_a_single_read_does(most_files: int | None) -> None:
    reader = ProcessReader(most_files)
    with running(WAIT) as child:
        for _ in range(3):
            assert described(reader, child) == read_process(child.pid)
    reader.close()


def test_files_are_kept_only_as_far_as_they_may_be(reader: ProcessReader) -> None:
    none = ProcessReader(0)
    with running(WAIT) as child:
        described(none, child)
        assert open_files(str(child.pid)) == []
        described(reader, child)
        assert len(open_files(str(child.pid))) == 4
        reader.close()
        assert open_files(str(child.pid)) == []


def test_a_reader_that_nobody_has_any_more_keeps_no_file() -> None:
    reader = ProcessReader()
    with running(WAIT) as child:
        described(reader, child)
        del reader
        assert open_files(str(child.pid)) == []


def test_a_process_that_has_ended_is_gone_and_so_are_its_files(
    reader: ProcessReader,
) -> None:
    with running(WAIT) as child:
        facts = described(reader, child)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid not in reader.read()  # a zombie
        child.wait()
        assert child.pid not in reader.read()
        assert reader.describe(facts) == facts
        assert open_files(str(child.pid)) == []


def test_the_next_read_sees_that_a_process_became_another_program(
    reader: ProcessReader,
) -> None:
    command = [sys.executable, "-c", WAIT_THEN_BECOME_ANOTHER, WAIT]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as child:  # noqa: S603
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before = described(reader, child)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        after = described(reader, child)
        child.kill()
    assert before.process == after.process
    assert not before.command.endswith("another")
    assert after.command.endswith("another")


@pytest.mark.root
def test_the_next_read_sees_that_a_process_became_another_users(
    reader: ProcessReader,
) -> None:
    require_engine("root", os.geteuid() == 0, "run the tests as root")
    command = [sys.executable, "-c", WAIT_THEN_BECOME_NOBODY]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as child:  # noqa: S603
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert reader.read()[child.pid].uid == 0
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        assert reader.read()[child.pid].uid == NOBODY
        child.kill()


def test_its_processor_time_is_read_anew(reader: ProcessReader) -> None:
    before = reader.read()[os.getpid()]
    while os.times().user + os.times().system < before.cpu_seconds + 0.05:
        pass
    assert reader.read()[os.getpid()].cpu_seconds > before.cpu_seconds


def test_what_is_kept_of_an_ended_process_says_nothing_of_another(
    reader: ProcessReader,
) -> None:
    with running(WAIT) as late, running(WAIT, "early") as early:
        described(reader, early)
        early.kill()
        early.wait()
        # As if the number had been given anew.
        reader._let_go(reader._kept[late.pid])
        reader._kept[late.pid] = reader._kept.pop(early.pid)
        assert described(reader, late) == read_process(late.pid)


def test_details_of_an_ended_process_are_not_read_from_another(
    reader: ProcessReader,
) -> None:
    with running(WAIT) as late, running(WAIT, "early") as early:
        facts = replace(reader.read()[early.pid], pid=late.pid)
        early.kill()
        early.wait()
        # As if the number had been given anew since.
        reader._let_go(reader._kept[late.pid])
        reader._kept[late.pid] = reader._kept.pop(early.pid)
        reader._kept[late.pid].facts = facts
        for _ in range(2):
            assert reader.describe(facts) == facts
        assert open_files(str(late.pid)) == []
