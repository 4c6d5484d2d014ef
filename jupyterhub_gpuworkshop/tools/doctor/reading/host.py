"""What there is to know of the machine beside its GPUs."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from .commands import run_command


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcMount:
    """How /proc is mounted.

    Attributes:
        hidepid: 0 where everybody sees every process; 1, 2 and 4 hide others'.
        gid: who sees them all the same; None without.
        only_pids: whether everything but processes is hidden.
    """

    hidepid: int = 0
    gid: int | None = None
    only_pids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """The control groups.

    Attributes:
        version: 2 where the one hierarchy is mounted; 1, or 0 for none.
        controllers: of version 2, at its root.
        passed_on: to the groups below the root.
    """

    version: int
    controllers: tuple[str, ...] = ()
    passed_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemd:
    """systemd, if it runs the machine.

    Attributes:
        is_pid_1: whether it does.
        version: empty where unknown.
        state: running, degraded, starting ...; empty where unknown.
        failed: units that failed.
    """

    is_pid_1: bool
    version: str = ""
    state: str = ""
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selinux:
    """SELinux.

    Attributes:
        enforcing: None where there is none.
        container_use_devices: the boolean; None where it is not known.
    """

    enforcing: bool | None = None
    container_use_devices: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Room where the homes are.

    Attributes:
        path: of the homes, or the nearest folder that is there.
        free_bytes: for who is not root.
        free_inodes: None where the filesystem has no fixed number.
        problem: why it is not known; else empty.
    """

    path: str
    free_bytes: int = 0
    free_inodes: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """The machine's own memory, in bytes; within the limit of this cgroup."""

    total_bytes: int
    available_bytes: int


def read_proc_mount() -> ProcMount:
    """Read the options of /proc: the last mount there counts."""
    options = ""
    for line in _text("/proc/self/mounts").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1] == "/proc" and fields[2] == "proc":
            options = fields[3]
    return parse_proc_options(options)


def parse_proc_options(options: str) -> ProcMount:
    """Read what the kernel writes: numbers, or from 5.8 on words."""
    words = {"off": 0, "noaccess": 1, "invisible": 2, "ptraceable": 4}
    said = dict(option.partition("=")[::2] for option in options.split(","))
    level = said.get("hidepid", "0")
    gid = said.get("gid", "")
    return ProcMount(
        hidepid=words[level] if level in words else int(level or 0),
        gid=int(gid) if gid.isdigit() else None,
        only_pids=said.get("subset") == "pid",
    )


def read_cgroups() -> Cgroups:
    """Read which control groups there are."""
    root = Path("/sys/fs/cgroup")
    controllers = _text(root / "cgroup.controllers")
    if (root / "cgroup.controllers").exists():
        return Cgroups(
            version=2,
            controllers=tuple(controllers.split()),
            passed_on=tuple(_text(root / "cgroup.subtree_control").split()),
        )
    return Cgroups(version=1 if any(root.glob("*/tasks")) else 0)


def read_systemd() -> Systemd:
    """Read whether systemd runs the machine, and how well."""
    if _text("/proc/1/comm").strip() != "systemd":
        return Systemd(is_pid_1=False)
    version = run_command(["systemctl", "--version"]).out.split()
    state = run_command(["systemctl", "is-system-running"]).out.strip()
    listed = run_command(
        ["systemctl", "--failed", "--plain", "--no-legend", "--no-pager"]
    ).out
    return Systemd(
        is_pid_1=True,
        version=version[1] if len(version) > 1 else "",
        state=state,
        failed=tuple(line.split()[0] for line in listed.splitlines() if line.split()),
    )


def read_selinux() -> Selinux:
    """Read whether SELinux enforces, and whether containers may use devices."""
    enforcing = _text("/sys/fs/selinux/enforce").strip()
    if not enforcing:
        return Selinux()
    # "1 1": what holds now, and what is about to.
    devices = _text("/sys/fs/selinux/booleans/container_use_devices").split()
    return Selinux(
        enforcing=enforcing == "1",
        container_use_devices=devices[0] == "1" if devices else None,
    )


def read_disk(path: str) -> Disk:
    """Read the room where the homes are, or will be made."""
    where = Path(path)
    while not where.exists() and where != where.parent:
        where = where.parent
    try:
        seen = os.statvfs(where)
    except OSError as error:
        return Disk(path=str(where), problem=error.strerror or str(error))
    return Disk(
        path=str(where),
        free_bytes=seen.f_bavail * seen.f_frsize,
        free_inodes=seen.f_favail if seen.f_files else None,
    )


def read_memory() -> HostMemory:
    """Read the machine's memory."""
    memory = psutil.virtual_memory()
    return HostMemory(
        total_bytes=memory.total,
        available_bytes=memory.available,
    )


def unreadable_parts(folder: Path) -> tuple[str, ...]:
    """Return the parts of a path that a stranger cannot pass, or read at its end.

    Where a file in the folder is not readable, the file.
    """
    bad = [
        str(part)
        for part in [*reversed(folder.parents), folder]
        if not part.stat().st_mode & 0o001
    ]
    if not folder.stat().st_mode & 0o004:
        bad.append(str(folder))
    bad += [str(f) for f in folder.rglob("*.py") if not f.stat().st_mode & 0o004]
    return tuple(dict.fromkeys(bad))


def has_command(name: str) -> bool:
    """Whether a command is installed, for root too."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"
    return shutil.which(name, path=path) is not None


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
