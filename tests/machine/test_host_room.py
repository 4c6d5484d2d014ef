"""Whether parked memory has room, from files as Linux has them."""

import os
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.host_room import HostRoom, host_room, why_no_room
from jupyterhub_gpuworkshop.machine.processes import read_process

PROCESS = ProcessId(pid=4711, started=1)
V1_NO_LIMIT = 9223372036854771712


class Host:
    """A host of 64 GiB, of which 40 are available."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.cgroups = folder / "cgroup"
        self.cgroups.mkdir()
        (self.proc / "4711").mkdir(parents=True)
        kib = 40 * GIB // 1024
        (self.proc / "meminfo").write_text(
            f"MemTotal:       67108864 kB\nMemAvailable:   {kib} kB\n"
        )

    def place(self, text: str) -> None:
        """Say what /proc/PID/cgroup says."""
        (self.proc / "4711" / "cgroup").write_text(text)

    def cgroup(self, path: str, *, used: int = 0, cached: int = 0, **limits: object):
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in limits.items():
            (folder / f"memory.{name}").write_text(f"{value}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(
            f"anon 7\ninactive_file {cached}\ntotal_inactive_file {cached}\n"
        )

    def room(self) -> HostRoom:
        return host_room(PROCESS, proc=self.proc, cgroups=self.cgroups)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_without_limits_there_is_what_the_host_has(host: Host) -> None:
    host.place("0::/system.slice/jupyter-ada.service\n")
    host.cgroup("system.slice/jupyter-ada.service", max="max", high="max")
    assert host.room() == HostRoom(available_bytes=40 * GIB)


def test_the_tightest_limit_of_a_process_and_those_above_counts(host: Host) -> None:
    host.place("0::/a/b/c\n")
    host.cgroup("a", max=16 * GIB, used=15 * GIB)
    host.cgroup("a/b", max="max", high=8 * GIB, used=2 * GIB)
    host.cgroup("a/b/c", max=4 * GIB, used=1 * GIB)
    room = host.room()
    assert room.limit_room_bytes == GIB
    assert room.limited_by == str(host.cgroups / "a")
    host.cgroup("a", max=16 * GIB, used=5 * GIB)
    assert host.room().limited_by == str(host.cgroups / "a/b/c")


def test_the_soft_limit_counts_too(host: Host) -> None:
    host.place("0::/a\n")
    host.cgroup("a", max=16 * GIB, high=8 * GIB, used=7 * GIB)
    assert host.room().limit_room_bytes == GIB


def test_files_that_were_only_read_make_way(host: Host) -> None:
    host.place("0::/a\n")
    host.cgroup("a", max=8 * GIB, used=7 * GIB, cached=5 * GIB)
    assert host.room().limit_room_bytes == 6 * GIB


def test_what_is_over_its_limit_has_no_room(host: Host) -> None:
    host.place("0::/a\n")
    host.cgroup("a", max=GIB, used=2 * GIB)
    assert host.room().limit_room_bytes == 0


def test_version_1_is_read_where_it_is_in_charge_of_memory(host: Host) -> None:
    host.place("5:cpu,cpuacct:/x\n4:memory:/user.slice/ada\n0::/elsewhere\n")
    host.cgroup("memory/user.slice", limit_in_bytes=V1_NO_LIMIT)
    host.cgroup("memory/user.slice/ada", limit_in_bytes=8 * GIB, used=5 * GIB)
    assert host.room().limit_room_bytes == 3 * GIB
    host.cgroup("memory/user.slice/ada", limit_in_bytes=V1_NO_LIMIT)
    assert host.room() == HostRoom(available_bytes=40 * GIB)


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("0::/not/there\n", "is not there"),
        ("0::/../outside\n", "outside of what is seen"),
        ("", "its cgroup is not told"),
        ("0::/odd\n", "invalid literal"),
    ],
)
def test_what_is_not_known_is_no_room(host: Host, place: str, problem: str) -> None:
    host.place(place)
    host.cgroup("odd", max="plenty")
    room = host.room()
    assert problem in room.problem
    assert room.problem == why_no_room(1, room, 0)


def test_a_process_that_is_gone_has_no_room(tmp_path: Path) -> None:
    assert "are not known" in Host(tmp_path).room().problem
    own = read_process(os.getpid(), with_details=False)
    assert own is not None
    earlier = ProcessId(pid=own.pid, started=own.started - 1)
    assert host_room(earlier).problem != ""


def test_the_room_of_this_process_can_be_read() -> None:
    own = read_process(os.getpid(), with_details=False)
    assert own is not None
    available = host_room(ProcessId(pid=own.pid, started=own.started)).available_bytes
    assert available is not None
    assert available > 0


def test_a_host_that_does_not_tell_has_no_room(host: Host) -> None:
    (host.proc / "meminfo").write_text("MemTotal: 1 kB\n")
    host.place("0::/\n")
    assert host.room().available_bytes is None
    assert "cannot be read" in why_no_room(1, host.room(), 0)


@pytest.mark.parametrize(
    ("needed", "limit_room", "reason"),
    [
        (6 * GIB, None, ""),
        (6 * GIB + 1, None, "6 GiB do not fit in the host's RAM"),
        (6 * GIB, 6 * GIB, ""),
        (6 * GIB, 6 * GIB - 1, "under the memory limit of the server"),
    ],
)
def test_there_is_room_where_both_host_and_limit_have_it(
    needed: int, limit_room: int | None, reason: str
) -> None:
    room = HostRoom(
        available_bytes=8 * GIB, limit_room_bytes=limit_room, limited_by="/a"
    )
    answer = why_no_room(needed, room, 2 * GIB)
    assert answer.startswith(reason) or reason in answer
    assert bool(answer) == bool(reason)
