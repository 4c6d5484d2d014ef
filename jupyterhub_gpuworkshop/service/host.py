"""What this process reads of the machine: devices, samples, processes.

Owns when devices are looked at: again where the driver was lost, more and more seldom
where there is nothing to see. `sampler` has what a driver that hangs cannot stop, so it
stops sampling and nothing else (design, rule 3); /proc is read in a thread of its own.
"""

import asyncio
import contextlib
import functools
import logging
import pwd
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from jupyterhub_gpuworkshop.core.attribution import worth_describing
from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import (
    CallHangs,
    SourceError,
    SourceLost,
    SourceUnavailable,
)
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Glance,
    ProcessFacts,
    ProcessId,
)
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.process_reader import ProcessReader
from jupyterhub_gpuworkshop.machine.processes import is_alive, read_process

from .loops import OneThread
from .sampler import Sampler

_LOG = logging.getLogger(__name__)
_LOOK_AGAIN_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 60.0
_TIMEOUT_SECONDS = 10.0

T = TypeVar("T")


class Gpus:
    """The devices, through whatever source there is.

    Args:
        name: the source's name, for an inventory that shows nothing.
        sampler: reads the source.
        pause_seconds: before the first new attempt; each further one waits longer.
        clock: monotonic seconds.

    Attributes:
        inventory: what exists, as last seen; None before the first look has ended.
    """

    def __init__(
        self,
        name: str,
        sampler: Sampler,
        *,
        pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inventory: Inventory | None = None
        self._name = name
        self._sampler = sampler
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._looked_at = float("-inf")
        self._failures = 0
        self._retry_at = float("-inf")
        self._problem = "The GPUs have not been looked at yet."
        self._is_seen = False
        self._turn = asyncio.Lock()

    async def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device, looking at what exists where that is due.

        Raises:
            SourceError: the devices cannot be read now.
            CallHangs: the driver has not come back.
        """
        async with self._turn:
            if self._clock() < self._retry_at:
                raise SourceUnavailable(self._problem)
            samples = await self._asked(self._read)
            if self._failures:
                _LOG.info("The GPUs can be read again")
            self._failures, self._is_seen = 0, True
            return samples

    async def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device.

        It waits for a sample that is under way. Where the devices cannot be read, it is
        a sample that finds out when they can again: this asks no driver before then.

        Raises:
            SourceError: the devices cannot be read now.
            CallHangs: the driver has not come back.
        """
        async with self._turn:
            if not self._is_seen:
                raise SourceUnavailable(self._problem)
            if self.inventory is None or not self.inventory.devices:
                return ()
            return await self._asked(self._glance)

    async def free_bytes(self) -> Mapping[str, int]:
        """Return what an allocation could get on each device that can be read, now.

        Raises:
            SourceError: the devices cannot be read now.
            CallHangs: the driver has not come back.
        """
        if self._clock() < self._retry_at:
            raise SourceUnavailable(self._problem)
        try:
            return await self._sampler.free_bytes()
        except SourceLost:
            await self._sampler.close()
            raise

    async def close(self) -> None:
        """Let go of the driver, whether it answers or not."""
        with contextlib.suppress(CallHangs):
            await self._sampler.close()

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what the driver answers; after a failure it is left in peace."""
        try:
            return await ask()
        except (SourceError, CallHangs) as error:
            self._back_off(str(error))
            raise
        except Exception as error:
            # A source that breaks in a way of its own is a source that is not there.
            _LOG.exception("Reading the GPUs failed")
            self._back_off(f"Reading the GPUs failed: {error!r}")
            raise SourceUnavailable(self._problem) from error

    async def _glance(self) -> tuple[Glance, ...]:
        try:
            return await self._sampler.glance()
        except SourceLost:
            await self._sampler.close()
            raise

    async def _read(self) -> tuple[DeviceSample, ...]:
        if self._clock() - self._looked_at > _LOOK_AGAIN_SECONDS:
            try:
                self.inventory = await self._sampler.inventory()
            except SourceLost:
                await self._sampler.close()
                self.inventory = await self._sampler.inventory()
            self._looked_at = self._clock()
        try:
            return await self._sampler.sample()
        except SourceLost:
            await self._sampler.close()
            raise

    def _back_off(self, problem: str) -> None:
        if problem != self._problem or not self._failures:
            _LOG.warning("The GPUs cannot be read: %s", problem)
        pause = min(_LONGEST_PAUSE_SECONDS, self._pause_seconds * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._retry_at = self._clock() + pause
        self._looked_at = float("-inf")
        self._problem = problem
        self._is_seen = False
        self._say_nothing_is_seen(problem)

    def _say_nothing_is_seen(self, problem: str) -> None:
        """Give the hub a reason where it has no devices; else what it knows stands."""
        if self.inventory is None or not self.inventory.devices:
            self.inventory = Inventory(
                taken_at=time.time(), source=self._name, problem=problem
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The processes of the machine at one instant.

    Attributes:
        facts: by pid.
        user_names: of the Unix users that hold devices, by user id.
    """

    facts: Mapping[int, ProcessFacts] = field(default_factory=dict)
    user_names: Mapping[int, str] = field(default_factory=dict)


class Host:
    """Reads processes, in a thread of its own."""

    def __init__(self, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._thread = OneThread("/proc")
        self._reader = ProcessReader()
        self._timeout_seconds = timeout_seconds

    async def processes(
        self, samples: tuple[DeviceSample, ...], servers: tuple[ServerInfo, ...]
    ) -> Processes:
        """Return what Linux vouches for of every process.

        Raises:
            CallHangs: /proc has not come back.
            OSError: it cannot be read.
        """
        return await self._thread.call(
            functools.partial(_read_processes, self._reader, samples, servers),
            self._timeout_seconds,
        )

    async def lives(self, process: ProcessId) -> bool:
        """Tell whether this very process lives.

        Raises:
            CallHangs: /proc has not come back.
        """
        return await self._thread.call(
            functools.partial(is_alive, process.pid, process.started),
            self._timeout_seconds,
        )

    async def cpu_seconds(self, processes: Collection[ProcessId]) -> float | None:
        """Return the processor time that these have used; None where one has ended.

        Raises:
            CallHangs: /proc has not come back.
        """
        return await self._thread.call(
            lambda: _cpu_seconds(processes), self._timeout_seconds
        )


def _read_processes(
    reader: ProcessReader,
    samples: tuple[DeviceSample, ...],
    servers: tuple[ServerInfo, ...],
) -> Processes:
    facts = reader.read()
    for pid in worth_describing(samples, facts, servers):
        if pid in facts:
            facts[pid] = reader.describe(facts[pid])
    uids = {
        facts[use.pid].uid
        for sample in samples
        for use in sample.processes or ()
        if use.pid in facts
    }
    return Processes(facts=facts, user_names={uid: _user_name(uid) for uid in uids})


def _cpu_seconds(processes: Collection[ProcessId]) -> float | None:
    total = 0.0
    for process in processes:
        facts = read_process(process.pid, with_details=False)
        if facts is None or facts.process != process:
            return None
        total += facts.cpu_seconds
    return total


@functools.lru_cache(maxsize=1024)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
