"""Whether GPU memory that is parked has room in the host's RAM.

Owns reading what the host has available and what the limits of a process's cgroup, and
of those above it, leave: parked memory is the process's own, and counts there. What is
not known is no room.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.units import format_size

from .processes import is_alive

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT_BYTES = 2**60
"""Version 1 writes no limit as a great number: 2**63 less a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """What room there is.

    Attributes:
        available_bytes: on the host, without swapping; None where it is not known.
        limit_room_bytes: what the tightest limit on the process's cgroup or on one
            above it leaves; None where there is no limit, or none can be told.
        limited_by: the folder of the cgroup with that limit.
        problem: why limits cannot be told, in a sentence; else empty.
    """

    available_bytes: int | None
    limit_room_bytes: int | None = None
    limited_by: str = ""
    problem: str = ""


def why_no_room(needed_bytes: int, room: HostRoom, keep_free_bytes: int) -> str:
    """Return why so much cannot be parked, for the organiser; empty where it can.

    Args:
        needed_bytes: GPU memory, which takes as much host RAM.
        room: there is.
        keep_free_bytes: what must be left of the host's RAM.
    """
    needed = format_size(needed_bytes)
    if room.available_bytes is None:
        return "How much of the host's RAM is free cannot be read."
    if room.problem:
        return room.problem
    if room.available_bytes < needed_bytes + keep_free_bytes:
        return (
            f"{needed} do not fit in the host's RAM: "
            f"{format_size(room.available_bytes)} are available, of which "
            f"{format_size(keep_free_bytes)} must stay free."
        )
    if room.limit_room_bytes is not None and room.limit_room_bytes < needed_bytes:
        return (
            f"{needed} do not fit under the memory limit of the server: "
            f"{format_size(room.limit_room_bytes)} are left in {room.limited_by}."
        )
    return ""


def host_room(
    process: ProcessId, *, proc: Path = _PROC, cgroups: Path = _CGROUPS
) -> HostRoom:
    """Read what room there is for a process's GPU memory.

    Args:
        process: whose cgroup counts.
        proc: where /proc is.
        cgroups: where the cgroup hierarchies are mounted.
    """
    available_bytes = _available_bytes(proc)
    try:
        text = (proc / str(process.pid) / "cgroup").read_text(errors="replace")
        tightest = _tightest(text, cgroups)
    except (OSError, ValueError) as error:
        return HostRoom(
            available_bytes=available_bytes,
            problem=f"The memory limits of process {process.pid} are not known: "
            f"{error}.",
        )
    if proc == _PROC and not is_alive(process.pid, process.started):
        return HostRoom(
            available_bytes=available_bytes, problem=f"Process {process.pid} has ended."
        )
    if tightest is None:
        return HostRoom(available_bytes=available_bytes)
    return HostRoom(
        available_bytes=available_bytes,
        limit_room_bytes=tightest.room_bytes,
        limited_by=str(tightest.folder),
    )


@dataclass(frozen=True, order=True, slots=True)
class _Limit:
    room_bytes: int
    folder: Path = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """How a version of cgroups names what is read here (cgroups(7))."""

    limits: tuple[str, ...]
    used: str
    cached: str


_V2 = _Version(
    limits=("memory.max", "memory.high"), used="memory.current", cached="inactive_file"
)
_V1 = _Version(
    limits=("memory.limit_in_bytes",),
    used="memory.usage_in_bytes",
    cached="total_inactive_file",
)


def _tightest(text: str, cgroups: Path) -> _Limit | None:
    """Return the limit that leaves least; None without one.

    Args:
        text: of /proc/PID/cgroup.
        cgroups: where the hierarchies are mounted.

    Raises:
        OSError: a folder or a file of them cannot be read.
        ValueError: it is not where it should be.
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(",") if controllers else [hierarchy]:
            paths[controller] = path
    if "memory" in paths:
        version, top, path = _V1, cgroups / "memory", paths["memory"]
    elif "0" in paths:
        version, top, path = _V2, cgroups, paths["0"]
    else:
        raise ValueError("its cgroup is not told")
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        raise ValueError("its cgroup lies outside of what is seen from here")
    folder = top.joinpath(*parts)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not there")
    limits = [
        limit
        for depth in range(len(parts) + 1)
        if (limit := _limit(top.joinpath(*parts[:depth]), version)) is not None
    ]
    return min(limits, default=None)


def _limit(folder: Path, version: _Version) -> _Limit | None:
    limit = min(_limits(folder, version), default=_NO_LIMIT_BYTES)
    if limit >= _NO_LIMIT_BYTES:
        return None
    used = int((folder / version.used).read_text())
    # Files that were read and are not used any more make way, as Docker counts too.
    used -= min(used, _cached_bytes(folder, version))
    return _Limit(max(0, limit - used), folder)


def _limits(folder: Path, version: _Version) -> Iterator[int]:
    for name in version.limits:
        # Not at the top, nor where the memory controller is not in charge.
        with contextlib.suppress(FileNotFoundError):
            text = (folder / name).read_text().strip()
            if text != "max":
                yield int(text)


def _cached_bytes(folder: Path, version: _Version) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == version.cached:
            return int(value)
    return 0


def _available_bytes(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None
