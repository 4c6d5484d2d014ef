"""The last look at a kernel before its memory is taken: is it still as it was?

Owns what is asked right before an act, for whatever cause, and when it was read: from
then to the act is the window in which somebody who comes back is not seen.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import CallHangs, ServerError
from jupyterhub_gpuworkshop.core.idleness import KernelReading, cpu_between
from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.core.wire import ServerInfo

from .host import Host
from .pins import Pins
from .rules import Rules
from .servers import KernelInfo, Servers
from .watching import Watched

IsAtRest = Callable[[ServerInfo, str], Awaitable[bool]]
"""(server, kernel id) -> whether its main thread waits for something to do."""


class Must(Enum):
    """What must hold still."""

    BE_IDLE = "be idle"
    """It must be as it was when it was decided upon, for want of use."""
    BE_AT_REST = "be at rest"
    """It must not work: a person has it paused, whatever it did until now."""
    BE_THE_SAME = "be the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the last look has shown.

    Attributes:
        change: what differs from what was decided upon, in a sentence; else empty.
        read_at: when state and activity were read, by `time.monotonic`.
        last_activity: in its server's words; empty where it was not read.
    """

    change: str = ""
    read_at: float
    last_activity: str = ""

    def window_seconds(self) -> float:
        """Return how long ago that was."""
        return time.monotonic() - self.read_at


class LastCheck:
    """Asks the server, Linux and the kernel itself one last time.

    Args:
        servers: attendees' servers.
        host: the processes.
        pins: those in force.
        rules: the organiser's.
        is_at_rest: asks a kernel whether it works just now.
        clock: monotonic seconds, the monitor's.
    """

    def __init__(
        self,
        servers: Servers,
        host: Host,
        pins: Pins,
        rules: Rules,
        *,
        is_at_rest: IsAtRest,
        clock: Callable[[], float],
    ) -> None:
        self._servers = servers
        self._host = host
        self._pins = pins
        self._rules = rules
        self._is_at_rest = is_at_rest
        self._clock = clock

    async def look(self, owner: Owner, watched: Watched, must: Must) -> Checked:
        """Look at a kernel again.

        Args:
            owner: the kernel.
            watched: what was decided upon.
            must: what must hold still.
        """
        read_at = time.monotonic()
        reading = watched.watch.reading
        if reading is None or reading.process is None:
            return Checked(change="its process is unknown", read_at=read_at)
        last_activity = ""
        try:
            kernel = await self._servers.kernel(watched.server, owner.kernel_id)
            last_activity = kernel.last_activity
            change = await self._what_changed(owner, watched, reading, kernel, must)
        except (ServerError, CallHangs) as error:
            change = str(error)
        return Checked(change=change, read_at=read_at, last_activity=last_activity)

    async def _what_changed(
        self,
        owner: Owner,
        watched: Watched,
        reading: KernelReading,
        kernel: KernelInfo,
        must: Must,
    ) -> str:
        if reading.process is None or not await self._host.lives(reading.process):
            return "its process has ended"
        if must is Must.BE_THE_SAME:
            return ""
        if kernel.state is not KernelState.IDLE:
            return f"it is {kernel.state.value}"
        if must is Must.BE_IDLE:
            if kernel.last_activity != reading.last_activity:
                return "it was active"
            if self._pins.of(owner) is not None:
                return "it has been pinned"
        if works := await self._works(reading):
            return works
        if kernel.connections == 0:
            return ""
        # A widget's callback moves neither state nor activity: ask the kernel itself,
        # last, for the answer costs it processor time.
        at_rest = await self._is_at_rest(watched.server, owner.kernel_id)
        return "" if at_rest else "it works just now"

    async def _works(self, reading: KernelReading) -> str:
        """Say that its processes have worked since the reading, or ended; or nothing.

        What began and ended in between, as a slider's callback does, shows here alone.
        """
        used_seconds = await self._host.cpu_seconds(reading.members)
        if used_seconds is None:
            return "a process of its own has ended"
        cpu = cpu_between(reading.cpu_seconds, used_seconds, self._clock() - reading.at)
        if cpu is None:
            return "its processor time is unknown"
        if cpu > self._rules.idle().max_cpu:
            return f"its processes work: {cpu:.0%} of a core"
        return ""
