"""What the doctor makes of the machine beside its GPUs."""

from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.tools.doctor import host
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.doctor.reading.driver import DriverFacts, Node
from jupyterhub_gpuworkshop.tools.doctor.reading.host import (
    Cgroups,
    Disk,
    HostMemory,
    ProcMount,
    Selinux,
    Systemd,
    parse_proc_options,
    read_disk,
    unreadable_parts,
)

NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-uvm")


def nodes(*paths: str, mode: int = 0o666) -> DriverFacts:
    return DriverFacts(nodes=tuple(Node(path=path, mode=mode) for path in paths))


def assert_says(check: Check, status: Status, *words: str) -> None:
    said = f"{check.finding}\n{check.remedy}"
    assert check.status is status, said
    for word in words:
        assert word in said


def test_nodes_that_all_may_open_are_fine() -> None:
    assert host.judge_nodes(nodes(*NODES), [0, 1]).status is Status.OK
    assert host.judge_uvm(nodes(*NODES)).status is Status.OK


def test_a_missing_node_fails_and_is_named() -> None:
    check = host.judge_nodes(nodes(*NODES), [0, 1, 2])
    assert_says(check, Status.FAIL, "/dev/nvidia2 missing", "nvidia-modprobe")


def test_nodes_of_a_group_are_a_warning() -> None:
    check = host.judge_nodes(nodes(*NODES, mode=0o660), [0])
    assert_says(check, Status.WARN, "mode 0660", "chmod 0666", "NVreg_DeviceFileMode")


def test_uvm_that_is_missing_after_a_boot_fails_with_its_command() -> None:
    check = host.judge_uvm(nodes("/dev/nvidiactl", "/dev/nvidia0"))
    assert_says(check, Status.FAIL, "$ sudo nvidia-modprobe -u -c=0", "persistenced")


@pytest.mark.parametrize(
    ("groups", "major", "status", "words"),
    [
        (Cgroups(version=1), 615, Status.WARN, ["version 1"]),
        (Cgroups(version=2, controllers=("cpu",)), 580, Status.OK, ["soft here"]),
        (
            Cgroups(version=2, controllers=("dmem",), passed_on=("dmem",)),
            615,
            Status.OK,
            ["dmem controller is on", "hard caps"],
        ),
        (
            Cgroups(version=2, controllers=("dmem",)),
            615,
            Status.OK,
            ["not passed on"],
        ),
    ],
)
def test_cgroups_say_what_caps_can_stand_on(
    groups: Cgroups, major: int, status: Status, words: list[str]
) -> None:
    assert_says(host.judge_cgroups(groups, major, simulated=False), status, *words)


@pytest.mark.parametrize(
    ("options", "hidepid", "gid"),
    [
        ("rw,relatime", 0, None),
        ("rw,hidepid=2", 2, None),
        ("rw,hidepid=invisible,gid=101", 2, 101),
        ("rw,gid=7,hidepid=noaccess", 1, 7),
        ("rw,hidepid=ptraceable", 4, None),
    ],
)
def test_hidepid_is_read_as_old_and_new_kernels_write_it(
    options: str, hidepid: int, gid: int | None
) -> None:
    assert parse_proc_options(options) == ProcMount(hidepid=hidepid, gid=gid)


@pytest.mark.parametrize(
    ("mount", "is_root", "status"),
    [
        (ProcMount(), None, Status.OK),
        (ProcMount(hidepid=2), True, Status.OK),
        (ProcMount(hidepid=2), False, Status.FAIL),
        (ProcMount(hidepid=2, gid=5), False, Status.WARN),
        (ProcMount(hidepid=2), None, Status.WARN),
        (ProcMount(only_pids=True), False, Status.FAIL),
    ],
)
def test_hidden_processes_hurt_a_service_that_is_not_root(
    mount: ProcMount, is_root: bool | None, status: Status
) -> None:
    check = host.judge_hidepid(mount, is_root)
    assert check.status is status
    if status is not Status.OK:
        assert "run as root" in check.remedy


@pytest.mark.parametrize(
    ("seen", "needed", "status", "words"),
    [
        (Systemd(is_pid_1=False), False, Status.SKIP, []),
        (Systemd(is_pid_1=False), True, Status.FAIL, ["gpu-docker"]),
        (
            Systemd(is_pid_1=True, version="252", state="running"),
            True,
            Status.OK,
            ["systemd 252, running"],
        ),
        (
            Systemd(is_pid_1=True, state="degraded", failed=("cups.service",)),
            True,
            Status.OK,
            ["degraded"],
        ),
        (
            Systemd(is_pid_1=True, state="degraded", failed=("gpuworkshop.service",)),
            True,
            Status.FAIL,
            ["$ sudo systemctl restart gpuworkshop.service"],
        ),
    ],
)
def test_systemd_matters_where_it_starts_servers(
    seen: Systemd, needed: bool, status: Status, words: list[str]
) -> None:
    assert_says(host.judge_systemd(seen, needed), status, *words)


@pytest.mark.parametrize(
    ("seen", "containers", "status"),
    [
        (Selinux(), True, Status.SKIP),
        (Selinux(enforcing=False), True, Status.OK),
        (Selinux(enforcing=True), False, Status.OK),
        (Selinux(enforcing=True, container_use_devices=True), True, Status.OK),
        (Selinux(enforcing=True, container_use_devices=False), True, Status.FAIL),
    ],
)
def test_selinux_matters_to_containers(
    seen: Selinux, containers: bool, status: Status
) -> None:
    check = host.judge_selinux(seen, containers)
    assert check.status is status
    if status is Status.FAIL:
        assert "setsebool -P container_use_devices on" in check.remedy


def disk(**changes: Any) -> Disk:
    return Disk(**{"path": "/home", "free_bytes": 100 * GIB, **changes})


@pytest.mark.parametrize(
    ("disks", "attendees", "status", "words"),
    [
        ([disk()], 20, Status.OK, ["5 GiB for each of 20 attendees"]),
        ([disk()], None, Status.OK, ["attendees: N"]),
        ([disk()], 90, Status.WARN, ["1.1 GiB for each"]),
        ([disk(free_bytes=GIB)], 20, Status.FAIL, ["du -xhd1 /home"]),
        ([disk(), disk(path="/x", free_bytes=GIB)], 20, Status.FAIL, ["/x"]),
        ([disk(free_inodes=10)], 2, Status.WARN, ["10 more files", "df -i"]),
        ([disk(free_inodes=None)], 2, Status.OK, []),
        ([disk(problem="Stale file handle")], 2, Status.FAIL, ["Stale file handle"]),
        ([], 2, Status.SKIP, []),
    ],
)
def test_room_for_the_homes(
    disks: list[Disk], attendees: int | None, status: Status, words: list[str]
) -> None:
    assert_says(host.judge_disk(disks, attendees), status, *words)


def test_a_folder_of_homes_that_is_yet_to_be_made_counts_where_it_will_be(
    tmp_path: Path,
) -> None:
    found = read_disk(str(tmp_path / "homes" / "later"))
    assert found.path == str(tmp_path)
    assert found.free_bytes > 0


@pytest.mark.parametrize(
    ("available", "attendees", "status"),
    [
        (64 * GIB, 20, Status.OK),
        (64 * GIB, None, Status.OK),
        (32 * GIB, 20, Status.WARN),
        (2 * GIB, 20, Status.FAIL),
    ],
)
def test_host_memory_against_attendees(
    available: int, attendees: int | None, status: Status
) -> None:
    memory = HostMemory(total_bytes=64 * GIB, available_bytes=available)
    assert host.judge_memory(memory, attendees).status is status


def test_the_hook_is_readable_only_if_every_part_of_its_path_is(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "startup"
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").touch(0o644)
    outside = set(unreadable_parts(folder))
    (folder / "closed.py").touch(0o600)
    folder.parent.chmod(0o750)
    found = set(unreadable_parts(folder)) - outside
    assert found == {str(folder.parent), str(folder / "closed.py")}
    check = host.judge_hook(str(folder), sorted(found))
    assert_says(check, Status.FAIL, str(folder.parent), "memory_hook_path")
    assert host.judge_hook(str(folder), []).status is Status.OK


def test_a_limit_for_each_server_is_proposed() -> None:
    memory = HostMemory(total_bytes=GIB, available_bytes=200 * MIB)
    assert_says(host.judge_memory(memory, 1), Status.WARN, "c.Spawner.mem_limit")
