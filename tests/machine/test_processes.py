"""Reading /proc and signalling, with real processes."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts, ProcessId
from jupyterhub_gpuworkshop.machine import processes
from jupyterhub_gpuworkshop.machine.processes import (
    boot_id,
    describe,
    is_alive,
    read_process,
    read_processes,
    signal_process,
)

Child = subprocess.Popen[str]


@contextlib.contextmanager
def running(program: str, *arguments: str) -> Iterator[Child]:
    """Run a program that prints a line once it is ready, in a session of its own."""
    child = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


WAIT = "import signal; print('ready', flush=True); signal.pause()"


def facts_of(child: Child) -> ProcessFacts:
    facts = read_process(child.pid)
    assert facts is not None
    return facts


def test_a_process_is_read_with_all_that_is_known_of_it() -> None:
    own = read_process(os.getpid())
    with running(WAIT, "-f", "/run/kernel-abc.json") as child:
        facts = facts_of(child)
    assert own is not None
    assert facts.pid == facts.session == child.pid
    assert facts.process == ProcessId(pid=child.pid, started=facts.started)
    assert facts.parent == own.pid == os.getpid()
    assert own.session == os.getsid(0)
    assert facts.uid == os.geteuid()
    assert facts.started >= own.started > 0
    assert own.cpu_seconds > 0
    assert facts.command.startswith(f"{sys.executable} -c import signal")
    assert facts.command.endswith("-f /run/kernel-abc.json")
    assert facts.cgroup == own.cgroup
    assert facts.cgroup in Path("/proc/self/cgroup").read_text()


def test_one_pass_finds_every_process_and_leaves_out_the_dear_parts() -> None:
    with running(WAIT) as child:
        found = read_processes()
        detailed = read_processes(with_details=True)
        facts = facts_of(child)
    assert found[child.pid].process == facts.process
    assert (found[child.pid].command, found[child.pid].cgroup) == ("", "")
    assert detailed[child.pid].command == facts.command
    assert describe(found[child.pid]).process == facts.process
    assert {1, os.getpid(), os.getppid()} <= found.keys()
    assert all(pid == facts.pid for pid, facts in found.items())


RENAME = f"""
import ctypes
ctypes.CDLL(None).prctl(15, ctypes.c_char_p(b') R 1 (x) Z'), 0, 0, 0)
{WAIT}
"""


def test_a_process_that_calls_itself_strange_names_is_read_all_the_same() -> None:
    with running(RENAME) as child:
        assert Path(f"/proc/{child.pid}/comm").read_text() == ") R 1 (x) Z\n"
        facts = facts_of(child)
        assert read_processes()[child.pid].parent == os.getpid()
        assert is_alive(child.pid, facts.started)
    assert facts.parent == os.getpid()
    assert facts.session == child.pid


def test_a_command_is_cut_short_and_fit_for_a_terminal() -> None:
    with running(WAIT, "\x1b[2J\nx\udcff", "a" * 10_000) as child:
        command = facts_of(child).command
    assert command.isprintable()
    assert len(command) <= 4096


def test_a_zombie_is_dead() -> None:
    with running(WAIT) as child:
        started = facts_of(child).started
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert " Z " in Path(f"/proc/{child.pid}/stat").read_text()
        assert not is_alive(child.pid, started)
        assert read_process(child.pid) is None
        assert child.pid not in read_processes()
        assert not signal_process(child.pid, started, signal.SIGTERM)


EXIT_CALLS = {"x86_64": 60, "aarch64": 93}

FIRST_THREAD_ENDS = """
import ctypes, os, sys, threading, time
def report():
    while ' Z ' not in open('/proc/self/stat').read():
        time.sleep(0)
    print('ready', flush=True)
    threading.Event().wait()
threading.Thread(target=report).start()
ctypes.CDLL(None).syscall(int(sys.argv[1]), 0)
"""


@pytest.mark.skipif(
    platform.machine() not in EXIT_CALLS, reason="exit's number is not known here"
)
def test_a_process_whose_first_thread_has_ended_is_alive() -> None:
    number = EXIT_CALLS[platform.machine()]
    with running(FIRST_THREAD_ENDS, str(number)) as child:
        assert " Z " in Path(f"/proc/{child.pid}/stat").read_text()
        assert child.pid in read_processes()
        assert is_alive(child.pid, facts_of(child).started)


def test_a_process_that_is_gone_is_nowhere() -> None:
    with running(WAIT) as child:
        facts = facts_of(child)
    assert read_process(child.pid) is None
    assert child.pid not in read_processes()
    assert not is_alive(child.pid, facts.started)
    assert not signal_process(child.pid, facts.started, signal.SIGTERM)
    bare = ProcessFacts(
        pid=facts.pid,
        started=facts.started,
        parent=facts.parent,
        session=facts.session,
        uid=facts.uid,
        cpu_seconds=0.0,
    )
    assert describe(bare) == bare


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    with running(WAIT) as child:
        facts = facts_of(child)
        earlier = facts.started - 1
        assert not is_alive(child.pid, earlier)
        assert not signal_process(child.pid, earlier, signal.SIGKILL)
        assert child.poll() is None
        assert is_alive(child.pid, facts.started)
        reused = read_processes()[child.pid]
        forgotten = ProcessFacts(
            pid=reused.pid,
            started=earlier,
            parent=1,
            session=1,
            uid=0,
            cpu_seconds=0.0,
        )
        assert describe(forgotten).command == ""


def test_a_signal_reaches_the_process_that_was_meant() -> None:
    with running(WAIT) as child:
        started = facts_of(child).started
        assert signal_process(child.pid, started, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM


def test_signalling_leaves_no_descriptor_open() -> None:
    with running(WAIT) as child:
        started = facts_of(child).started
        before = len(list(Path("/proc/self/fd").iterdir()))
        signal_process(child.pid, started, 0)
        signal_process(child.pid, started - 1, 0)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


SWITCH_USER = f"import os, signal; os.setuid(20001)\n{WAIT}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_the_user_is_told_even_of_a_process_that_hides_its_files() -> None:
    with running(SWITCH_USER) as child:
        # After setuid a process is not dumpable, and its files are root's.
        assert Path(f"/proc/{child.pid}/stat").stat().st_uid == 0
        assert facts_of(child).uid == 20001
        assert read_processes()[child.pid].uid == 20001


def test_the_boot_has_an_id() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/system.slice/jupyter-ada.service\n", "/system.slice/jupyter-ada.service"),
        ("0::/a:b (deleted)\n", "/a:b (deleted)"),
        ("0::/\n", "/"),
        ("4:memory:/docker/abc\n1:name=systemd:/x.service\n0::/\n", "/x.service"),
        ("4:memory:/slurm/job_3\n1:name=systemd:/\n0::/\n", "/slurm/job_3"),
        ("4:memory:/slurm/job_3\n0::/y.scope\n", "/y.scope"),
        ("", ""),
        ("nonsense\n", ""),
    ],
)
def test_the_cgroup_that_says_most_is_chosen(text: str, expected: str) -> None:
    assert processes._choose_cgroup(text.encode()) == expected


@given(st.binary(max_size=15), st.sampled_from([b"R", b"S", b"D", b"T", b"I"]))
def test_no_name_hides_a_process(name: bytes, state: bytes) -> None:
    fields = b" ".join(b"%d" % n for n in range(4, 53))
    stat = processes._parse_stat(b"77 (" + name + b") " + state + b" " + fields)
    assert stat is not None
    assert stat.alive
    assert (stat.parent, stat.session, stat.started) == (4, 6, 22)
    assert stat.cpu_seconds == (14 + 15) / os.sysconf("SC_CLK_TCK")


@given(st.binary(max_size=60))
def test_half_a_line_is_no_process(text: bytes) -> None:
    # Fewer than twenty fields: what a process that vanishes may leave us with.
    assert processes._parse_stat(text[:30]) is None
