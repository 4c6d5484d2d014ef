"""Parks the memory of processes on real GPUs, through children that call the driver.

Owns the children: a call into the driver may hang, and whoever makes one holds GPUs
open, so this process makes none. A child that does not come back is killed, and what it
has left is asked for anew, for the move itself happens in the process that is parked.
"""

import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.units import GIB

from .host_room import HostRoom, host_room
from .parking import ParkState, ended, no_slices
from .processes import read_process

_LOCK_SECONDS = 10.0
_PATIENCE_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = GIB // 2
"""Memory of the host that is not pinned, on an old bus, beside other copies."""
_UNKNOWN_BYTES = 80 * GIB
_DIES_WITHIN_SECONDS = 2.0
_MOST_STUCK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a child says: one JSON object on a line.

    Attributes:
        state: the process's, afterwards; empty where the driver does not say.
        problem: what failed, in a sentence; else empty.
        broken: the process is stuck for good, or has ended.
    """

    state: str = ""
    problem: str = ""
    broken: bool = False


class _NoAnswer(Exception):
    """A child did not come back, or broke; the text says which."""


class DriverParker:
    """The `Parker` of the NVIDIA driver's checkpoint API.

    Args:
        lock_seconds: how long a process may take to finish what its GPU computes.
        patience_seconds: how long a child may take besides that and the copy.
        slowest_bytes_per_second: how slow the copy may be.
    """

    def __init__(
        self,
        *,
        lock_seconds: float = _LOCK_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
        slowest_bytes_per_second: float = _SLOWEST_BYTES_PER_SECOND,
    ) -> None:
        self._lock_seconds = lock_seconds
        self._patience_seconds = patience_seconds
        self._slowest_bytes_per_second = slowest_bytes_per_second
        self._available = False
        self._stuck: list[subprocess.Popen[str]] = []

    def unavailable(self) -> str:
        """Return why nothing can be parked here; once it can, that is not asked again.

        Where this user is not root, only the processes of the same user can be parked:
        that is told when it is tried.
        """
        if not self._available:
            problem = _what_is_missing() or self._asked_of_driver()
            self._available = not problem
            return problem
        return self._hanging()

    def cannot_park(self, device: Device) -> str:
        """Return why no memory on this device can be parked; empty where it can."""
        return no_slices(device) if device.parent_uuid is not None else ""

    def room(self, process: ProcessId) -> HostRoom:
        """Return what room there is for a process's GPU memory."""
        return host_room(process)

    def state(self, process: ProcessId) -> ParkState:
        """Return how things stand with a process; see `Parker.state`."""
        if not self._may_touch(process):
            return ParkState.GONE
        try:
            answer = self._ask("state", process, self._patience_seconds)
        except _NoAnswer as error:
            raise ParkError(str(error)) from None
        if not answer.state:
            raise ParkError(answer.problem)
        return ParkState(answer.state)

    def park(self, process: ProcessId, memory_bytes: int | None = None) -> None:
        """Move a process's GPU memory to host RAM; see `Parker.park`."""
        self._move("park", process, memory_bytes, ParkState.PARKED)

    def unpark(self, process: ProcessId, memory_bytes: int | None = None) -> None:
        """Move it back; see `Parker.unpark`."""
        self._move("unpark", process, memory_bytes, ParkState.RUNNING)

    def _move(
        self,
        what: str,
        process: ProcessId,
        memory_bytes: int | None,
        wanted: ParkState,
    ) -> None:
        if not self._may_touch(process):
            raise ended(process)
        copied = _UNKNOWN_BYTES if memory_bytes is None else memory_bytes
        seconds = self._patience_seconds + copied / self._slowest_bytes_per_second
        try:
            answer = self._ask(what, process, seconds + self._lock_seconds)
        except _NoAnswer as error:
            self._take_up(process, wanted, str(error))
            return
        if answer.problem:
            raise ParkError(answer.problem, broken=answer.broken)

    def _take_up(self, process: ProcessId, wanted: ParkState, problem: str) -> None:
        """Look what became of a move whose child is no more, and unlock the process.

        Raises:
            ParkError: the process is not in the state that was wanted.
        """
        try:
            state = self.state(process)
            if state is ParkState.LOCKED:
                # Only unlocks: there is nothing to copy.
                self._ask("unpark", process, self._patience_seconds)
                state = self.state(process)
        except (ParkError, _NoAnswer) as error:
            raise ParkError(
                f"{problem} Nor is it known what became of it: {error}"
            ) from None
        if state is wanted:
            return
        raise ParkError(
            f"{problem} Process {process.pid} is {state.value} now.",
            broken=state in (ParkState.FAILED, ParkState.GONE),
        )

    def _asked_of_driver(self) -> str:
        try:
            return self._ask("check", None, self._patience_seconds).problem
        except _NoAnswer as error:
            return str(error)

    def _may_touch(self, process: ProcessId) -> bool:
        """Say whether the process is there.

        Raises:
            ParkError: it is somebody else's; the driver says no more than "OS call
                failed" then (cuda-checkpoint#6).
        """
        facts = read_process(process.pid, with_details=False)
        if facts is None or facts.started != process.started:
            return False
        if os.geteuid() not in (0, facts.uid):
            raise ParkError(
                f"Process {process.pid} is another user's: only root can park it. Run "
                "the GPU service as root."
            )
        return True

    def _ask(self, what: str, process: ProcessId | None, seconds: float) -> Answer:
        """Have a child do something, and return its answer.

        Raises:
            _NoAnswer: it was killed, or broke.
        """
        problem = self._hanging()
        if problem:
            raise _NoAnswer(problem)
        command = [sys.executable, "-m", "jupyterhub_gpuworkshop.machine.checkpoint"]
        command += ["--lock-seconds", str(self._lock_seconds), what]
        if process is not None:
            command += [str(process.pid), str(process.started)]
        try:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter
                command,
                cwd="/",  # -m looks there first, and nobody else writes there
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C must not stop a move half-way
            )
        except OSError as error:
            raise _NoAnswer(
                f"No child could be started to call the NVIDIA driver: {error}."
            ) from None
        try:
            output, errors = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._kill(child)
            raise _NoAnswer(
                f"The NVIDIA driver did not come back within {seconds:.0f} s."
            ) from None
        except BaseException:
            self._kill(child)
            raise
        try:
            # What the driver's library may print comes before.
            return Answer(**json.loads(output.splitlines()[-1]))
        except (IndexError, TypeError, ValueError):
            last = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise _NoAnswer(
                f"The child that calls the NVIDIA driver ended with "
                f"{child.returncode}: {last}."
            ) from None

    def _kill(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_DIES_WITHIN_SECONDS)
            return
        self._stuck.append(child)

    def _hanging(self) -> str:
        """Say whether the driver holds on to so many children that it is no use."""
        self._stuck = [child for child in self._stuck if child.poll() is None]
        if len(self._stuck) < _MOST_STUCK:
            return ""
        return (
            f"The NVIDIA driver holds on to {len(self._stuck)} processes that called "
            "it and cannot be killed: reboot this machine."
        )


def _what_is_missing() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return (
            "The NVIDIA driver parks GPU memory on Linux and x86-64 only; this is "
            f"{platform.system()} on {platform.machine()}."
        )
    if not (_is_installed("cuda.core") and _is_installed("cuda.bindings")):
        return (
            "Parking needs cuda-core: pip install 'jupyterhub-gpuworkshop[park]' where "
            "the GPU service runs."
        )
    return ""


def _is_installed(name: str) -> bool:
    """Look for a module of the namespace ``cuda``, and import none."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
