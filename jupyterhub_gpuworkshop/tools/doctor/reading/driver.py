"""What there is to know of driver and GPUs: NVML in a child, the rest from Linux."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts
from jupyterhub_gpuworkshop.machine.examination import EXAMINATION, Examination
from jupyterhub_gpuworkshop.machine.processes import read_process, read_processes

from .commands import run_command, run_module

HANGS, UNASKED = "hangs", "unasked"
"""Troubles that an examination in a child can have beside its own."""
_EXAMINE_SECONDS = 30.0
_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers: what a GPU is on the bus."""
_XID = re.compile(r"NVRM: Xid \((?P<where>[^)]*)\):? *(?P<number>\d+)(?P<rest>[^\n]*)")
_MODULE = re.compile(r"\b(\d{3}\.\d+(?:\.\d+)?)\b")
_LOCKS = Path("/var/lock")
_LOCK_NAME = re.compile(r"[\w.-]+ GPGPU exclusive lock for device \d+", re.ASCII)
"""CNTK's CrossProcessMutex: /var/lock/DBN.exe GPGPU exclusive lock for device N.

Anybody may make a file there, and the name goes into a command for root: no other.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A process that holds GPU memory.

    Attributes:
        gpu: the label of the device.
        pid: its number.
        memory_bytes: None where the driver does not say.
        command: its command line, cut short.
        user_id: whose it is; None where it cannot be seen.
        of_the_hub: whether it belongs to an attendee's server, as far as cgroup and
            parents tell.
    """

    gpu: str
    pid: int
    memory_bytes: int | None
    command: str = ""
    user_id: int | None = None
    of_the_hub: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """One kind of trouble in the kernel's log.

    Attributes:
        gpu: the PCI address.
        number: the Xid.
        times: how often since boot.
        last: the last one's text.
    """

    gpu: str
    number: int
    times: int
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLog:
    """Xids of this boot, or why they cannot be read.

    Attributes:
        xids: what the log says.
        problem: why there is no log to read; else empty.
        needs_root: whether root could.
    """

    xids: tuple[Xid, ...] = ()
    problem: str = ""
    needs_root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node.

    Attributes:
        path: /dev/nvidia0, say.
        mode: its permission bits.
        major: of the device.
        minor: of the device.
    """

    path: str
    mode: int
    major: int = 0
    minor: int = 0

    @property
    def open_to_all(self) -> bool:
        """Whether everybody may read and write it."""
        return self.mode & 0o006 == 0o006


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFacts:
    """What Linux says of the driver, without NVML.

    Attributes:
        on_the_bus: PCI addresses of NVIDIA GPUs.
        module: the version of the kernel module that is loaded; empty without.
        nodes: /dev/nvidia*.
        locks: files with which software locks a whole GPU; those that are held.
        nouveau: whether the free driver is loaded in the way of NVIDIA's.
    """

    on_the_bus: tuple[str, ...] = ()
    module: str = ""
    nodes: tuple[Node, ...] = ()
    locks: tuple[str, ...] = ()
    nouveau: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Who holds GPU memory."""

    holdings: tuple[Holding, ...] = ()
    unlisted: tuple[str, ...] = field(default=())
    """Labels of devices whose processes the driver does not list."""


def examine() -> Examination:
    """Ask the driver, in a child that may hang without hanging anybody else."""
    done = run_module(
        "jupyterhub_gpuworkshop.machine.examine", seconds=_EXAMINE_SECONDS
    )
    if done.hung:
        return Examination(
            problem=f"The GPU driver did not answer within {_EXAMINE_SECONDS:.0f} s.",
            trouble=HANGS,
        )
    if done.problem:
        return Examination(
            problem=f"No process could be started to ask the driver: {done.problem}.",
            trouble=UNASKED,
        )
    try:
        return EXAMINATION.validate_json(done.out)
    except ValidationError:
        last = (done.err.strip().splitlines() or ["it wrote nothing"])[-1]
        return Examination(problem=f"Asking the driver failed: {last}", trouble=UNASKED)


def read_driver() -> DriverFacts:
    """Read what Linux says of the driver."""
    return DriverFacts(
        on_the_bus=_on_the_bus(),
        module=_module_version(),
        nodes=tuple(_nodes()),
        locks=_held_locks(),
        nouveau=Path("/sys/module/nouveau").exists(),
    )


def _on_the_bus() -> tuple[str, ...]:
    found = []
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if (
            _word(device / "vendor") == _NVIDIA
            and _word(device / "class")[:6] in _DISPLAY_CLASSES
        ):
            found.append(device.name)
    return tuple(sorted(found))


def _module_version() -> str:
    version = _word(Path("/sys/module/nvidia/version"))
    if version:
        return version
    found = _MODULE.search(_word(Path("/proc/driver/nvidia/version")))
    return found[1] if found else ""


def _nodes() -> list[Node]:
    nodes = []
    for path in [*Path("/dev").glob("nvidia*"), *Path("/dev").glob("nvidia-caps/*")]:
        try:
            seen = path.stat()
        except OSError:
            continue
        if stat.S_ISCHR(seen.st_mode):
            nodes.append(
                Node(
                    path=str(path),
                    mode=stat.S_IMODE(seen.st_mode),
                    major=os.major(seen.st_rdev),
                    minor=os.minor(seen.st_rdev),
                )
            )
    return sorted(nodes, key=lambda node: node.path)


def _held_locks() -> tuple[str, ...]:
    """Return CNTK's lock files that a process holds: /proc/locks names the inodes."""
    held = {
        fields[5].rpartition(":")[2]
        for line in _word(Path("/proc/locks")).splitlines()
        if len(fields := line.split()) > 5
    }
    found = []
    for path in _LOCKS.glob("* GPGPU exclusive lock for device *"):
        try:
            if _LOCK_NAME.fullmatch(path.name) and str(path.stat().st_ino) in held:
                found.append(str(path))
        except OSError:
            continue
    return tuple(sorted(found))


def _word(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def read_holdings(examination: Examination, *, in_containers: bool) -> Holdings:
    """Say of each process that holds memory what Linux vouches for.

    Args:
        examination: who holds memory.
        in_containers: whether servers are containers.
    """
    processes = read_processes()
    holdings = []
    for gpu in examination.gpus:
        for pid, size in (gpu.holders or {}).items():
            facts = read_process(pid)
            holdings.append(
                Holding(
                    gpu=gpu.label,
                    pid=pid,
                    memory_bytes=size,
                    command=facts.command[:80] if facts else "",
                    user_id=facts.uid if facts else None,
                    of_the_hub=facts is not None
                    and (
                        is_server_cgroup(facts.cgroup, in_containers=in_containers)
                        or _under_a_hub(pid, processes)
                    ),
                )
            )
    unlisted = tuple(
        gpu.label for gpu in examination.gpus if gpu.uuid and gpu.holders is None
    )
    return Holdings(holdings=tuple(holdings), unlisted=unlisted)


_UNIT = re.compile(r"/jupyter-[^/]*\.service")
_CONTAINER = re.compile(r"/docker[-/]|/libpod-|/machine\.slice")


def is_server_cgroup(cgroup: str, *, in_containers: bool) -> bool:
    """Whether a cgroup is that of an attendee's server.

    Args:
        cgroup: its path.
        in_containers: whether servers are containers; else a container is somebody
            else's.
    """
    return bool(_UNIT.search(cgroup) or (in_containers and _CONTAINER.search(cgroup)))


_HUB_COMMAND = re.compile(
    r"(^|/|-m )(jupyterhub|jupyterhub[-.]singleuser|jupyter-labhub)( |$)"
)


def _under_a_hub(pid: int, processes: Mapping[int, ProcessFacts]) -> bool:
    """Whether one of its parents is a JupyterHub, or a server of one."""
    seen: set[int] = set()
    while pid in processes and pid not in seen:
        seen.add(pid)
        facts = read_process(pid)
        if facts is None:
            return False
        if _HUB_COMMAND.search(facts.command):
            return True
        pid = facts.parent
    return False


def read_kernel_log() -> KernelLog:
    """Look for Xids since boot: in the journal, else in the kernel's own buffer.

    Who may not read the journal sees an empty one.
    """
    journal = run_command(["journalctl", "-k", "-b", "--no-pager", "-q", "-o", "cat"])
    if journal.worked and journal.out.strip() and not _is_partial(journal.err):
        return KernelLog(xids=parse_xids(journal.out))
    buffer = run_command(["dmesg"])
    if buffer.worked:
        return KernelLog(xids=parse_xids(buffer.out))
    said = buffer.err.strip().splitlines()
    return KernelLog(
        problem=buffer.problem or (said[0] if said else "dmesg failed"),
        needs_root=os.geteuid() != 0,
    )


def _is_partial(said: str) -> bool:
    return "not seeing messages" in said or "permission" in said.lower()


def parse_xids(log: str) -> tuple[Xid, ...]:
    """Read the Xids in a kernel's log, however often each occurs."""
    found: dict[tuple[str, int], Xid] = {}
    for match in _XID.finditer(log):
        key = match["where"], int(match["number"])
        before = found[key].times if key in found else 0
        found[key] = Xid(
            gpu=key[0],
            number=key[1],
            times=before + 1,
            last=match["rest"].strip(" ,")[:120],
        )
    return tuple(found.values())
