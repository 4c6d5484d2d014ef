"""The pulse: once a second, what is cheap to read of every device.

Owns the latest reading, one immutable value that is swapped whole, and its rhythm,
which goes on also where the driver hangs: whoever waits for the next pulse is woken.
It knows nothing of processes, kernels and leases: they are the monitor's.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jupyterhub_gpuworkshop.core.errors import CallHangs, SourceError
from jupyterhub_gpuworkshop.core.snapshot import Glance

from .host import Gpus

PULSE_SECONDS = 1.0
_PATIENCE_SECONDS = 0.5
_STALE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """All devices, at one instant.

    Attributes:
        taken_at: when they were read, in wall-clock seconds since the epoch; 0 before
            they ever were.
        readings: by UUID; empty while they cannot be read.
    """

    taken_at: float = 0.0
    readings: Mapping[str, Glance] = field(default_factory=dict)


class Pulses:
    """Glances at the devices, publishes.

    Args:
        gpus: the devices.
        patience_seconds: how long a round waits for the driver, which may be busy with
            a sample, before it goes on with what is known.
        stale_seconds: how old the last reading may grow before nothing is known.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        latest: the current one; the very same object until there is another.
        rounds: how many rounds there were, those without a reading too.
    """

    def __init__(
        self,
        gpus: Gpus,
        *,
        patience_seconds: float = _PATIENCE_SECONDS,
        stale_seconds: float = _STALE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.latest = Pulse()
        self.rounds = 0
        self._gpus = gpus
        self._patience_seconds = patience_seconds
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._wall = wall
        self._read_at = float("-inf")
        self._glance: asyncio.Task[tuple[Glance, ...]] | None = None
        self._published = asyncio.Event()

    async def step(self) -> None:
        """Publish what a glance shows, or that it shows nothing."""
        if self._glance is None:
            self._glance = asyncio.ensure_future(self._gpus.glance())
        # One that takes longer is left to end, and no second one begins beside it.
        await asyncio.wait({self._glance}, timeout=self._patience_seconds)
        try:
            if self._glance.done():
                glance, self._glance = self._glance, None
                self._take(glance)
            elif self._clock() - self._read_at > self._stale_seconds:
                self._know_nothing()
        finally:
            self.rounds += 1
            published, self._published = self._published, asyncio.Event()
            published.set()

    async def newer_than(self, rounds: int) -> None:
        """Wait for a round after the one of this number."""
        while self.rounds <= rounds:
            await self._published.wait()

    async def close(self) -> None:
        """Let go of a glance that is under way."""
        if self._glance is not None:
            self._glance.cancel()
            await asyncio.gather(self._glance, return_exceptions=True)
            self._glance = None

    def _take(self, glance: "asyncio.Task[tuple[Glance, ...]]") -> None:
        try:
            glances = glance.result()
        except (SourceError, CallHangs):
            # Why is in the log already, and in the snapshot's problems.
            self._know_nothing()
            return
        except Exception:
            self._know_nothing()
            raise
        self._read_at = self._clock()
        self.latest = Pulse(
            taken_at=self._wall(), readings={glance.uuid: glance for glance in glances}
        )

    def _know_nothing(self) -> None:
        if self.latest.readings:
            self.latest = Pulse(taken_at=self.latest.taken_at)
