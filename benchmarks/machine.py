"""The machine that a benchmark runs on: its name, its load, and a process's time."""

import os
import platform
import sqlite3
import time
from pathlib import Path

import jupyterhub
import psutil

QUIET_PERCENT = 10.0
_LOOK_SECONDS = 2.0


def name(folder: Path) -> str:
    """Return the machine in a few lines, for the head of a report.

    Args:
        folder: where the benchmarks write; its file system decides what fsync costs.
    """
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"{platform.system()} {platform.release()}; {file_system(folder)} at {folder}\n"
        f"Python {platform.python_version()}, JupyterHub {jupyterhub.__version__}, "
        f"SQLite {sqlite3.sqlite_version}; {load()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def load() -> str:
    """Return the load averages in words."""
    return "load " + " ".join(f"{x:.2f}" for x in os.getloadavg())


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    path = folder.resolve()
    mounts = {m.mountpoint: m.fstype for m in psutil.disk_partitions(all=True)}
    for place in (path, *path.parents):
        if str(place) in mounts:
            return mounts[str(place)]
    return "unknown"


def wait_until_quiet(limit_seconds: float = 30.0) -> float:
    """Wait until the processors have next to nothing to do.

    Returns:
        How busy they were at last, in percent: more than 10 where the machine did
        not become quiet within the limit.
    """
    end = time.monotonic() + limit_seconds
    while True:
        busy = psutil.cpu_percent(_LOOK_SECONDS)
        if busy <= QUIET_PERCENT or time.monotonic() > end:
            return busy


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process, without its children.

    The process's CPU clock (clock_getcpuclockid(3)) counts nanoseconds, where
    /proc/PID/stat counts hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


class Stopwatch:
    """Wall time from its making on."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """What has passed."""
        return time.monotonic() - self._begin

    def sleep_until(self, seconds: float) -> None:
        """Sleep until so much has passed."""
        time.sleep(max(0.0, seconds - self.seconds))
