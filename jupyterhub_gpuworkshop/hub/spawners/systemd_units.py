"""Units of systemd: what it says of them, and ending one for good.

Owns the calls of systemctl that SystemdSpawner does not make, or makes without looking
at what comes back. A unit counts as ours only where it is transient: made by
`systemd-run`, as SystemdSpawner does, and not by a file that somebody installed.
"""

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.machine.timeouts import timeout

_CALL_SECONDS = 15.0
"""systemd answers in milliseconds, unless the machine is on its knees."""
_STOP_SECONDS = 10.0
_KILL_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.1

_SUFFIX = ".service"
_FITS = re.compile(r"[A-Za-z0-9_.@-]+")
"""What systemd takes, but for its separators ``:`` and ``\\``."""
_MOST_CHARACTERS = 255
_OTHER_SUFFIXES = (
    *(".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path"),
    *(".timer", ".slice", ".scope", _SUFFIX),
)
_CGROUP_TREES = ("", "unified", "systemd")
"""Below /sys/fs/cgroup: version 2 alone, version 2 beside 1, version 1."""
_ALIVE = frozenset(
    {"active", "activating", "deactivating", "reloading", "refreshing", "maintenance"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What systemd says of a unit.

    Attributes:
        state: its ActiveState; ``inactive`` where it does not exist.
        is_ours: whether it is transient, or does not exist.
        cgroup: its cgroup's path, empty where it has none.
    """

    state: str
    is_ours: bool
    cgroup: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or never was."""
        return self.state in ("inactive", "failed")

    @property
    def is_up(self) -> bool:
        """Whether its main process runs."""
        return self.is_ours and self.state in ("active", "reloading", "refreshing")

    def is_alive(self, cgroups: Path) -> bool:
        """Whether any process of it is left, its main process or another."""
        if not self.is_ours:
            return False
        return self.state in _ALIVE or _has_processes(self.cgroup, cgroups)


def why_not(name: str) -> str:
    """Say what keeps a text from being the name of a server's unit, or nothing.

    SystemdSpawner hands names to systemctl as they are: a ``*`` would stop the units
    of others, and a name that ends like a unit's would be another attendee's.

    Args:
        name: without ``.service``.
    """
    odd = "".join(sorted({c for c in name if not _FITS.fullmatch(c)}))
    if odd:
        return f"a unit's name cannot hold {odd!r}"
    if not name or name[0] in ".-":
        return "a unit's name cannot begin so"
    if len(name) > _MOST_CHARACTERS - len(_SUFFIX):
        return f"it is longer than {_MOST_CHARACTERS - len(_SUFFIX)} characters"
    ending = next((s for s in _OTHER_SUFFIXES if name.endswith(s)), "")
    return f"it ends in {ending}, as units of systemd do" if ending else ""


def unit_of(name: str) -> str:
    """Return the unit's full name, which leases have."""
    return f"{name}{_SUFFIX}"


def name_of(unit: str) -> str:
    """Return the name by which SystemdSpawner calls a unit."""
    return unit.removesuffix(_SUFFIX)


async def look_at(name: str) -> Unit:
    """Ask systemd for a unit.

    Args:
        name: without ``.service``.

    Raises:
        HostError: systemd does not answer.
    """
    if why_not(name):
        return Unit(state="inactive", is_ours=False, cgroup="")
    told = await systemctl(
        *("show", "--property=LoadState,ActiveState,Transient,ControlGroup"),
        *("--", unit_of(name)),
    )
    said = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    if "ActiveState" not in said:
        raise HostError(f"systemctl says nothing of {unit_of(name)}: {told!r}")
    absent = said.get("LoadState") == "not-found" and said["ActiveState"] == "inactive"
    return Unit(
        state=said["ActiveState"],
        is_ours=absent or said.get("Transient") == "yes",
        cgroup=said.get("ControlGroup", ""),
    )


async def systemctl(*arguments: str) -> str:
    """Call systemctl; return what it prints.

    Raises:
        HostError: it is not there, fails, or does not come back.
    """
    return await call("systemctl", *arguments)


async def call(program: str, *arguments: str) -> str:
    """Call a program of the system's; return what it prints.

    Raises:
        HostError: it is not there, fails, or does not come back in time.
    """
    told = " ".join((program, *arguments))
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise HostError(f"{told} cannot be run: {error}") from error
    try:
        async with timeout(_CALL_SECONDS):
            out, err = await process.communicate()
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise HostError(f"{told} does not come back; is systemd well?") from None
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode:
        said = err.decode(errors="replace").strip() or f"status {process.returncode}"
        raise HostError(f"{told} failed: {said}")
    return out.decode(errors="replace")


class SystemdEngine:
    """Answers the reconciler about servers' units.

    Args:
        cgroups: where cgroups are mounted.
    """

    def __init__(self, cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._cgroups = cgroups

    async def is_running(self, lease: Lease) -> bool:
        """Say whether any process of the lease's unit is left.

        A unit whose server has crashed can have processes that will not end.
        """
        unit = await look_at(name_of(lease.engine_id))
        return unit.is_alive(self._cgroups)

    async def end(self, lease: Lease) -> None:
        """Stop the lease's unit, and kill what is left of it."""
        name = name_of(lease.engine_id)
        if not await self.is_running(lease):
            return
        await systemctl("stop", "--no-block", "--", unit_of(name))
        if not await self._is_gone(lease, _STOP_SECONDS):
            await systemctl("kill", "--signal=SIGKILL", "--", unit_of(name))
            await self._is_gone(lease, _KILL_SECONDS)
        with contextlib.suppress(HostError):  # it has failed, or there is none by now
            await systemctl("reset-failed", "--", unit_of(name))

    async def _is_gone(self, lease: Lease, seconds: float) -> bool:
        """Wait for the unit's end, so long at most."""
        until = time.monotonic() + seconds
        while await self.is_running(lease):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return True


def _has_processes(cgroup: str, cgroups: Path) -> bool:
    """Whether a cgroup, or one below it, has a process in it."""
    if not cgroup.strip("/"):
        return False
    for tree in _CGROUP_TREES:
        top = cgroups / tree / cgroup.lstrip("/")
        for listing in top.glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                if listing.read_text("ascii").strip():
                    return True
    return False
