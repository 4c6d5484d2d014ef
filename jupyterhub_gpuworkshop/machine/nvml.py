"""NvmlSource: the devices and readings of a real NVIDIA driver; MIG included.

Owns what must be remembered between calls into NVML: what was seen of each device and
when to ask again. It knows processes by number only: whose they are is for attribution
to say.

A driver can hang, and a call into it then never returns: only processes that can be
spared call this, the service's sampler and the hub's short-lived child.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceLost
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Glance, ProcessUse

from . import nvml_calls as nvml
from .nvml_calls import NVMLError

_log = logging.getLogger(__name__)

_LEAST_SECONDS_BETWEEN_LISTINGS = 1.0
_SECONDS_BETWEEN_REOPENINGS = 30.0
_NOT_TOLD = "The driver does not tell the utilisation of {}."
_NO_SLICES = "it is in MIG mode without slices; create them with nvidia-smi mig"

T = TypeVar("T")


class NvmlSource:
    """A `DeviceSource` over NVML. Not for two threads at once.

    Listing processes makes attendees' CUDA calls wait for the driver's lock, so it is
    done seldom, and sooner when the cheap readings show that something changed.
    """

    def __init__(
        self,
        *,
        process_interval_seconds: float = 5.0,
        known: Sequence[Device] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Touch nothing yet: the first call opens the driver.

        Args:
            process_interval_seconds: how old a list of processes may grow.
            known: devices that were seen before, by an earlier process.
            clock: seconds that never run backwards.
        """
        self._process_interval_seconds = process_interval_seconds
        self._clock = clock
        self._is_open = False
        self._readers: dict[str, _Reader] = {}
        self._known = _by_index(known)
        self._lost_gpus = 0
        self._reopen_after = float("-inf")
        self._complaints: dict[str, str] = {}

    def inventory(self) -> Inventory:
        """Return what exists; with MIG on, the slices and not their GPU.

        Raises:
            SourceUnavailable: there is no driver to talk to.
            SourceLost: the driver went away, or every GPU is lost.
        """
        with nvml.source_errors():
            self._open()
            devices = self._scan()
            if self._lost_gpus and self._clock() >= self._reopen_after:
                # A lost GPU comes back to those only who initialise NVML again.
                self._reopen_after = self._clock() + _SECONDS_BETWEEN_REOPENINGS
                self._shut_down()
                self._open()
                devices = self._scan()
        if self._lost_gpus and not self._readers:
            raise SourceLost(self._all_lost())
        return Inventory(
            devices=devices,
            taken_at=time.time(),
            source="nvml",
            problem="" if devices else self._no_devices(),
        )

    def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device that answers.

        Raises:
            SourceUnavailable: there is no driver to talk to.
            SourceLost: the driver went away, or every GPU is lost.
        """
        if not self._readers:
            self.inventory()
        samples, lost = self._each(
            lambda x: x.sample(self._clock(), self._process_interval_seconds),
            complain=True,
        )
        if lost and not samples:
            raise SourceLost(self._all_lost())
        return tuple(samples)

    def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device; moves nothing of a sample.

        Raises:
            SourceUnavailable: there is no driver to talk to.
            SourceLost: the driver went away, or every GPU is lost.
        """
        if not self._readers:
            self.inventory()
        glances, lost = self._each(_Reader.glance)
        if lost and not glances:
            raise SourceLost(self._all_lost())
        return tuple(glances)

    def free_bytes(self) -> dict[str, int]:
        """Return what an allocation could get on each device; moves no utilisation.

        Raises:
            SourceUnavailable: there is no driver to talk to.
            SourceLost: the driver went away.
        """
        if not self._readers:
            self.inventory()
        free, _ = self._each(lambda x: (x.device.uuid, x.free_bytes()))
        return dict(free)

    def _each(
        self, read: "Callable[[_Reader], T]", *, complain: bool = False
    ) -> tuple[list[T], bool]:
        """Return what is read of each device that answers, and whether one is lost.

        Args:
            read: reads one.
            complain: whether to log which does not answer, and why; once is enough.
        """
        found, lost = [], False
        with nvml.source_errors():
            for reader in self._readers.values():
                try:
                    found.append(read(reader))
                except NVMLError as error:
                    if nvml.is_about_all(error):
                        raise
                    lost = lost or nvml.is_lost(error)
                    if complain:
                        self._complain(reader.device.label, str(error))
                else:
                    if complain:
                        self._complaints.pop(reader.device.label, None)
        return found, lost

    def close(self) -> None:
        """Let go of the driver. The next call starts again."""
        self._readers.clear()
        self._shut_down()

    def _open(self) -> None:
        if not self._is_open:
            nvml.start()
            self._is_open = True

    def _shut_down(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                nvml.stop()
            except NVMLError as error:
                _log.debug("NVML did not shut down cleanly: %s", error)

    def _scan(self) -> tuple[Device, ...]:
        """Look at every GPU; keep what is remembered of those seen before."""
        found: list[Device] = []
        lost: list[Device] = []
        readers: dict[str, _Reader] = {}
        self._lost_gpus = 0
        for index in range(nvml.count_gpus()):
            try:
                opened = nvml.open_gpu(index)
            except NVMLError as error:
                if nvml.is_about_all(error):
                    raise
                self._complain(str(index), str(error))
                if nvml.is_lost(error):
                    self._lost_gpus += 1
                    lost += self._known.get(index, ())
                continue
            self._known[index] = tuple(device for device, _, _ in opened)
            if opened:
                self._complaints.pop(str(index), None)
            else:
                self._complain(str(index), _NO_SLICES)
            for device, handle, gpu in opened:
                reader = self._readers.get(device.uuid) or _Reader(device)
                reader.attach(device, handle, gpu)
                readers[device.uuid] = reader
                found.append(device)
        self._readers = readers
        return (
            *found,
            *(replace(d, lost=True) for d in lost if d.uuid not in readers),
        )

    def _complain(self, label: str, reason: str) -> None:
        """Log why a device is left out, once until it answers again."""
        if self._complaints.get(label) != reason:
            self._complaints[label] = reason
            _log.warning("GPU %s cannot be used: %s", label, reason)

    def _all_lost(self) -> str:
        return (
            f"No GPU answers ({self._why()}). If nvidia-smi does not see them either, "
            "reset them with nvidia-smi --gpu-reset or reboot the machine."
        )

    def _no_devices(self) -> str:
        if self._complaints:
            return f"No GPU can be used ({self._why()})."
        return "The NVIDIA driver runs but sees no GPU. Run nvidia-smi to see why."

    def _why(self) -> str:
        return "; ".join(f"GPU {k}: {v}" for k, v in sorted(self._complaints.items()))


def _by_index(devices: Sequence[Device]) -> dict[int, tuple[Device, ...]]:
    """Return devices by the driver's index of their GPU."""
    by_index: dict[int, tuple[Device, ...]] = {}
    for device in devices:
        index = int(device.label.partition(":")[0])
        by_index[index] = (*by_index.get(index, ()), replace(device, lost=False))
    return by_index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """The processes of a device, as listed at an instant.

    Attributes:
        at: by the source's clock.
        used_bytes: the device's memory used, to notice that it changed.
        memory_bytes: by pid; None where the list could not be read.
        at_work: pids that the driver had at work then, listed or not.
        problem: why it could not.
    """

    at: float
    used_bytes: int
    memory_bytes: dict[int, int | None] | None
    at_work: frozenset[int]
    problem: str = ""


class _Reader:
    """One device, and what must be remembered of it between samples."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._handle: Any = None
        self._gpu: Any = None
        self._is_first = True
        self._device_seen_until = 0
        self._processes_seen_until = 0
        self._glanced_until: int | None = None
        self._listing: _Listing | None = None

    def attach(self, device: Device, handle: Any, gpu: Any) -> None:
        """Take a fresh handle: those of an earlier initialisation are void."""
        self.device, self._handle, self._gpu = device, handle, gpu

    def sample(self, now: float, process_interval_seconds: float) -> DeviceSample:
        """Read the device.

        Raises:
            NVMLError: its memory cannot be read, or it is lost.
        """
        memory = nvml.memory(self._handle)
        utilisation, at_work, problems = self._work()
        listing = self._list(now, process_interval_seconds, memory.used, at_work)
        return DeviceSample(
            uuid=self.device.uuid,
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.used,
            memory_free_bytes=memory.free,
            utilisation=utilisation,
            temperature_celsius=nvml.temperature_celsius(self._gpu),
            power_watts=self._power_watts(),
            processes=_uses(listing, at_work),
            problem=" ".join(p for p in (*problems, listing.problem) if p),
        )

    def glance(self) -> Glance:
        """Read what is cheap to read, and nothing that `sample` tells only once.

        Raises:
            NVMLError: its memory cannot be read, or it is lost.
        """
        memory = nvml.memory(self._handle)
        return Glance(
            uuid=self.device.uuid,
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.used,
            memory_free_bytes=memory.free,
            utilisation=self._glanced_utilisation(),
            temperature_celsius=nvml.temperature_celsius(self._gpu),
            power_watts=self._power_watts(),
        )

    def _glanced_utilisation(self) -> float | None:
        """Return the utilisation since the glance before."""
        if self.device.parent_uuid:
            return None
        since = self._glanced_until
        utilisation, self._glanced_until = nvml.utilisation(self._gpu, since or 0)
        # What the first glance reads goes back to before this source's life.
        return None if since is None else utilisation

    def _power_watts(self) -> float | None:
        """Return what is drawn; a GPU's is not its slices': it would count again."""
        return None if self.device.parent_uuid else nvml.power_watts(self._gpu)

    def free_bytes(self) -> int:
        """Return what an allocation could get.

        Raises:
            NVMLError: it cannot be read.
        """
        return nvml.memory(self._handle).free

    def _work(
        self,
    ) -> tuple[float | None, dict[int, float | None] | None, list[str]]:
        """Return the utilisation of the device and by pid, and what is not told."""
        if self.device.parent_uuid:
            return None, None, [_NOT_TOLD.format("MIG slices")]
        utilisation, self._device_seen_until = nvml.utilisation(
            self._gpu, self._device_seen_until
        )
        at_work, self._processes_seen_until = nvml.processes_at_work(
            self._gpu, self._processes_seen_until
        )
        told = {"the GPU": utilisation, "its processes": at_work}
        problems = [_NOT_TOLD.format(k) for k, v in told.items() if v is None]
        if self._is_first:
            # What was read goes back to before this source's life.
            self._is_first = False
            return None, None, problems
        return utilisation, at_work, problems

    def _list(
        self,
        now: float,
        interval_seconds: float,
        used_bytes: int,
        at_work: dict[int, float | None] | None,
    ) -> _Listing:
        """Return the list of processes, a new one when it is due."""
        last = self._listing
        if last is not None:
            age = now - last.at
            newcomers = set(at_work or ()) - last.at_work - set(last.memory_bytes or ())
            changed = last.used_bytes != used_bytes
            soonest = _LEAST_SECONDS_BETWEEN_LISTINGS if changed else interval_seconds
            # What newcomers did is told only once: they are listed at once.
            if not newcomers and age < min(soonest, interval_seconds):
                return last
        try:
            listed, problem = nvml.processes(self._handle), ""
        except NVMLError as error:
            if nvml.is_lost(error) or nvml.is_about_all(error):
                raise
            listed, problem = None, f"The driver does not list processes: {error}."
        self._listing = _Listing(
            at=now,
            used_bytes=used_bytes,
            memory_bytes=listed,
            at_work=frozenset(at_work or ()),
            problem=problem,
        )
        return self._listing


def _uses(
    listing: _Listing, at_work: dict[int, float | None] | None
) -> tuple[ProcessUse, ...] | None:
    """Join who holds memory with who worked."""
    if listing.memory_bytes is None:
        return None
    return tuple(
        ProcessUse(
            pid=pid,
            memory_bytes=memory_bytes,
            utilisation=None if at_work is None else at_work.get(pid, 0.0),
        )
        for pid, memory_bytes in sorted(listing.memory_bytes.items())
    )
