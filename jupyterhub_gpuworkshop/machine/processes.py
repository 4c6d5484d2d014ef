"""What Linux vouches for of processes, read from /proc.

Owns reading /proc and signalling a process that is surely the one that was meant.
It believes nothing that a process can set about itself, but for `command`, which is
for people's eyes. Any process may vanish between two reads: then it is not there.
"""

import functools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
COMMAND_BYTES = 4096
STAT_BYTES = 4096
CGROUP_BYTES = 65536


class _Stat(NamedTuple):
    """The fields of /proc/PID/stat that anybody here asks for."""

    name: bytes
    alive: bool
    parent: int
    session: int
    tty: int
    cpu_seconds: float
    started: int


def read_processes(*, with_details: bool = False) -> dict[int, ProcessFacts]:
    """Read every living process in one pass over /proc.

    Args:
        with_details: read cgroup and command too, which costs two more files each;
            `describe` does it for the few that matter.

    Returns:
        The facts by pid, zombies left out.
    """
    found = {}
    for pid, uid in list_processes():
        facts = parse_facts(pid, uid, _read(pid, "stat", STAT_BYTES))
        if facts is not None:
            found[pid] = describe(facts) if with_details else facts
    return found


def list_processes() -> Iterator[tuple[int, int]]:
    """List the pid and the effective user id of every process, zombies too."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                # The directory is owned by the effective uid even where a process
                # is not dumpable and its files are root's (task_dump_owner, Linux).
                uid = entry.stat(follow_symlinks=False).st_uid
            except OSError:
                continue
            yield int(entry.name), uid


def read_process(pid: int, *, with_details: bool = True) -> ProcessFacts | None:
    """Read one process; None where there is none, or only a zombie.

    Args:
        pid: in this PID namespace.
        with_details: read cgroup and command too.
    """
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    facts = parse_facts(pid, uid, _read(pid, "stat", STAT_BYTES))
    return describe(facts) if facts is not None and with_details else facts


def describe(facts: ProcessFacts) -> ProcessFacts:
    """Add cgroup and command to what is known of a process.

    Returns:
        The facts, unchanged where the process has ended meanwhile.
    """
    cgroup = _read(facts.pid, "cgroup", CGROUP_BYTES)
    argv = _read(facts.pid, "cmdline", COMMAND_BYTES)
    # Read last: were the number another process's by now, this would tell.
    stat = _read_stat(facts.pid)
    if stat is None or stat.started != facts.started:
        return facts
    described = parse_details(facts, cgroup, argv)
    if described.command:
        return described
    return replace(described, command=f"[{_printable(stat.name)}]")


def parse_details(facts: ProcessFacts, cgroup: bytes, argv: bytes) -> ProcessFacts:
    """Add what the texts of /proc/PID/cgroup and cmdline say; maybe no command."""
    return replace(facts, cgroup=_choose_cgroup(cgroup), command=_printable(argv))


def parse_facts(pid: int, uid: int, text: bytes) -> ProcessFacts | None:
    """Return what the text of /proc/PID/stat says; None of a zombie, or of none."""
    stat = _parse_stat(text)
    return _facts(pid, uid, stat) if stat is not None and stat.alive else None


def age_seconds(started: int) -> float:
    """Return how long a process has lived that started at this clock tick of boot."""
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, since_boot - started / _TICKS_PER_SECOND)


@functools.lru_cache(maxsize=1)
def boot_id() -> str:
    """Return the id of this boot of the machine: process ids start anew with each."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def is_alive(pid: int, started: int) -> bool:
    """Tell whether this very process lives; a zombie does not."""
    stat = _read_stat(pid)
    return stat is not None and stat.alive and stat.started == started


def signal_process(pid: int, started: int, signum: int) -> bool:
    """Send a signal to this very process, never to a later one of its number.

    Returns:
        False where the process has ended already.

    Raises:
        PermissionError: the process is somebody else's.
        OSError: this kernel has no pidfd (Linux before 5.3).
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # From here on pidfd means one process for good; is it the right one?
        if not is_alive(pid, started):
            return False
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _facts(pid: int, uid: int, stat: _Stat) -> ProcessFacts:
    return ProcessFacts(
        pid=pid,
        started=stat.started,
        parent=stat.parent,
        session=stat.session,
        uid=uid,
        cpu_seconds=stat.cpu_seconds,
        tty=stat.tty,
    )


def _read(pid: int, name: str, most_bytes: int) -> bytes:
    """Return a file of a process; empty where it cannot be read."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, most_bytes)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _read_stat(pid: int) -> _Stat | None:
    return _parse_stat(_read(pid, "stat", STAT_BYTES))


def _parse_stat(text: bytes) -> _Stat | None:
    """Read /proc/PID/stat (proc_pid_stat(5)); None where it is empty.

    A process may call itself anything, ``) R 1 (`` for example: its name ends at
    the last bracket.
    """
    head, _, tail = text.rpartition(b")")
    fields = tail.split(None, 20)
    if len(fields) < 20:
        return None
    # Field N of the manual is fields[N - 3]. The first thread may have ended before
    # the others: it looks like a zombie while its process lives on (num_threads).
    alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
    return _Stat(
        name=head.partition(b"(")[2],
        alive=alive,
        parent=int(fields[1]),
        session=int(fields[3]),
        tty=int(fields[4]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND,
        started=int(fields[19]),
    )


def _choose_cgroup(text: bytes) -> str:
    """Return the path that says most from /proc/PID/cgroup (cgroups(7)).

    cgroup v2's own line comes first; where v1 is in charge that line says ``/``,
    and systemd's tree, then any controller's, knows better.
    """
    ranked: dict[tuple[bool, int], str] = {}
    for line in text.decode(errors="replace").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2]:
            hierarchy, controllers, path = parts
            rank = 0 if hierarchy == "0" else 1 if controllers == "name=systemd" else 2
            ranked.setdefault((path == "/", rank), path)
    return ranked[min(ranked)] if ranked else ""


def _printable(raw: bytes) -> str:
    """Make text of what a process says, fit for a log and a terminal."""
    text = raw.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()
