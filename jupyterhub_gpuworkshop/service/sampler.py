"""Where sampling lives: a process of its own, which may hang, crash and be killed.

Owns that process: starting it, asking it, ending it when it does not answer as it
should. When to try again is `host.Gpus`'s. A hang costs the service one time limit and
no more: the child is killed and a new one asked; one in an uninterruptible call, which
dies only when the driver comes back, is left alone, and few of those are allowed.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import (
    CallHangs,
    SourceLost,
    SourceUnavailable,
)
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Glance
from jupyterhub_gpuworkshop.machine.sampler import (
    ANSWER,
    REQUEST,
    Answer,
    Asked,
    Request,
    Trouble,
)
from jupyterhub_gpuworkshop.machine.source import DeviceSource
from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .loops import OneThread
from .sampler_child import Child, see_end

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 10.0
_STARTS_WITHIN_SECONDS = 30.0
_MOST_UNDEAD = 3


class Sampler(Protocol):
    """A `DeviceSource` that cannot hold up who asks it."""

    async def inventory(self) -> Inventory:
        """Return what exists.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: what is read from went away; `close`, then call again.
            CallHangs: the driver has not come back in time.
        """

    async def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device that answers, as `DeviceSource.sample`.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: what is read from went away; `close`, then call again.
            CallHangs: the driver has not come back in time.
        """

    async def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device, as `DeviceSource.glance`.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: what is read from went away; `close`, then call again.
            CallHangs: the driver has not come back in time.
        """

    async def free_bytes(self) -> Mapping[str, int]:
        """Return what is free on each device, as `DeviceSource.free_bytes`.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: what is read from went away; `close`, then call again.
            CallHangs: the driver has not come back in time.
        """

    async def close(self) -> None:
        """Let go of the driver. The next call starts again."""


def sampler_command(source: str, simulated_dir: Path | None = None) -> list[str]:
    """Return the command of a child that samples.

    Args:
        source: ``"nvml"`` or ``"simulated"``.
        simulated_dir: where the simulated GPUs live.
    """
    command = [sys.executable, "-m", "jupyterhub_gpuworkshop.machine.sampler"]
    command += ["--source", source]
    if simulated_dir is not None:
        command += ["--simulated-dir", str(simulated_dir.absolute())]
    return command


class ChildSampler:
    """Samples in a child process that lives until it fails.

    Args:
        command: of the child, see `sampler_command`.
        timeout_seconds: how long a call may take before the child is killed.
    """

    def __init__(
        self, command: Sequence[str], *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._child: Child | None = None
        self._killed: list[Child] = []
        self._known: tuple[Device, ...] = ()
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The child's; 0 where there is none."""
        return self._child.pid if self._child is not None else 0

    async def inventory(self) -> Inventory:
        """Return what exists."""
        answer = await self._ask(Asked.INVENTORY)
        if answer.inventory is None:
            raise self._nonsense()
        self._known = answer.inventory.devices
        return answer.inventory

    async def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device that answers."""
        return (await self._ask(Asked.SAMPLE)).samples

    async def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device that answers."""
        return (await self._ask(Asked.GLANCE)).glances

    async def free_bytes(self) -> Mapping[str, int]:
        """Return what is free on each device."""
        return (await self._ask(Asked.FREE)).free_bytes

    async def close(self) -> None:
        """Kill the child, and see it end, which it does but in a call that hangs."""
        self._kill()
        ending = [child.ended for child in self._killed]
        if ending:
            await see_end(ending)

    async def _ask(self, asked: Asked) -> Answer:
        async with self._turn:
            try:
                answer = await self._answer(asked)
            except BaseException:
                # Also where nobody waits any longer: an answer that nobody heard has
                # told what processes did since the one before, and it is told once.
                self._kill()
                raise
        if answer.trouble is Trouble.UNAVAILABLE:
            raise SourceUnavailable(answer.problem)
        if answer.trouble is Trouble.LOST:
            raise SourceLost(answer.problem)
        return answer

    async def _answer(self, asked: Asked) -> Answer:
        known: tuple[Device, ...] = ()
        if self._child is None:
            self._child, known = await self._start(), self._known
        child = self._child
        request = Request(number=child.asked + 1, asked=asked, known=known)
        child.asked += 1
        child.write(REQUEST.dump_json(request) + b"\n")
        try:
            async with timeout(self._timeout_seconds):
                line = await child.line()
        except asyncio.TimeoutError:
            raise CallHangs(
                f"The GPU driver has not answered for {self._timeout_seconds:.0f} s. A "
                "new process asks it again; if this goes on, run nvidia-smi, and "
                "reboot the machine if that hangs too."
            ) from None
        try:
            answer = ANSWER.validate_json(line)
        except ValidationError:
            raise self._nonsense() from None
        if answer.number != request.number:
            raise self._nonsense()
        return answer

    async def _start(self) -> Child:
        """Start a child, and wait until it is ready to be asked."""
        self._killed = [child for child in self._killed if not child.ended.done()]
        if len(self._killed) >= _MOST_UNDEAD:
            pids = ", ".join(str(child.pid) for child in self._killed)
            raise CallHangs(
                f"The GPU driver holds on to {len(self._killed)} processes of this "
                f"service that were killed (pids {pids}). No more are started until "
                "one of them ends: reboot the machine."
            )
        try:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                Child,
                *self._command,
                stderr=None,
                # It does not get the Ctrl-C of this process's terminal.
                start_new_session=True,
                # With -m, Python looks for modules in the current folder first: it may
                # be anybody's, and this may be root.
                cwd="/",
            )
        except OSError as error:
            raise SourceUnavailable(
                f"The process that reads the GPUs could not be started: {error}."
            ) from error
        self._child = child
        try:
            async with timeout(_STARTS_WITHIN_SECONDS):
                hello = await child.line()
        except asyncio.TimeoutError:
            raise SourceUnavailable(
                "The process that reads the GPUs has not started within "
                f"{_STARTS_WITHIN_SECONDS:.0f} s: the machine is overloaded, or its "
                "disk hangs."
            ) from None
        with contextlib.suppress(ValidationError):
            if ANSWER.validate_json(hello).number == 0:
                return child
        raise self._nonsense()

    def _nonsense(self) -> SourceLost:
        return SourceLost(
            "The process that reads the GPUs has not answered what was asked. Run "
            f"`{' '.join(self._command)}` on the machine to see why."
        )

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._killed.append(self._child)
            self._child = None


class InThread:
    """Samples in a thread of this process: for sources that neither hang nor crash.

    Simulations in benchmarks and tests are; no driver is.

    Args:
        open_source: makes the source; called in the thread.
        timeout_seconds: how long a call may take before the devices are unknown.
    """

    def __init__(
        self,
        open_source: Callable[[], DeviceSource],
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._open = open_source
        self._source: DeviceSource | None = None
        self._thread = OneThread("The GPU driver")
        self._timeout_seconds = timeout_seconds

    async def inventory(self) -> Inventory:
        """Return what exists."""
        return await self._thread.call(
            lambda: self._opened().inventory(), self._timeout_seconds
        )

    async def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device that answers."""
        return await self._thread.call(
            lambda: self._opened().sample(), self._timeout_seconds
        )

    async def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device that answers."""
        return await self._thread.call(
            lambda: self._opened().glance(), self._timeout_seconds
        )

    async def free_bytes(self) -> Mapping[str, int]:
        """Return what is free on each device."""
        return await self._thread.call(
            lambda: self._opened().free_bytes(), self._timeout_seconds
        )

    async def close(self) -> None:
        """Let go of the source."""
        if self._source is not None:
            await self._thread.call(self._source.close, self._timeout_seconds)

    def _opened(self) -> DeviceSource:
        if self._source is None:
            self._source = self._open()
        return self._source
