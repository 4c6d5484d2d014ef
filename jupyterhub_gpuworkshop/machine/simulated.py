"""Simulated GPUs: a supported source, for the demo, rehearsals and tests.

Owns making the devices of a simulation and reading what processes do with them. The
processes do it through `notebook.simcuda`; the format of the folder between the two
is written down in `notebook.simstate`, and neither side imports the other.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceError, SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Glance, ProcessUse

from .simulated_records import Record, read_records

_VERSION = 1

_COLD_CELSIUS, _WARMER_CELSIUS = 34.0, 9.0
_IDLE_WATTS, _MORE_WATTS = 55.0, 65.0
"""What an air-cooled card tells in a cool room: it has its own when nothing is held, 1
part more with full memory, 3 when something computes."""

_BusyTotals: TypeAlias = dict[tuple[str, str], float]
"""By the record's name and the device: busy seconds from the process's start on."""


def create_devices(
    state_dir: Path,
    count: int,
    memory_bytes: int,
    *,
    name: str = "Simulated GPU",
    reserved_bytes: int = 0,
    seed: int | str | None = None,
    parkable: bool = True,
) -> tuple[Device, ...]:
    """Make a simulation's folder, or give the one that is there new devices.

    Args:
        state_dir: the folder, for GPUWORKSHOP_SIMULATED_GPUS in servers.
        count: how many devices.
        memory_bytes: of each.
        name: the product name of each.
        reserved_bytes: what no process gets of each, as a driver keeps some.
        seed: the same seed gives the same UUIDs; without one they are random.
        parkable: whether memory on them can be parked, which on a MIG slice it cannot.

    Returns:
        The devices, as `SimulatedSource.inventory` will list them.

    Raises:
        SourceError: the folder belongs to somebody else, who could then play tricks.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    if state_dir.stat().st_uid != os.geteuid():
        raise SourceError(
            f"{state_dir} belongs to another user: choose a folder of your own for "
            "the simulated GPUs."
        )
    state_dir.chmod(0o1777)  # every attendee's processes write here, each its own
    lock = state_dir / "lock"
    lock.touch()
    lock.chmod(0o444)  # flock needs no right to write
    content = {
        "version": _VERSION,
        "devices": [
            {
                "uuid": _device_uuid(seed, index),
                "name": name,
                "memory_bytes": memory_bytes,
                "reserved_bytes": reserved_bytes,
                **({} if parkable else {"parkable": False}),
            }
            for index in range(count)
        ],
    }
    new = state_dir / f"devices.{os.urandom(8).hex()}"
    new.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    new.chmod(0o644)
    new.replace(state_dir / "devices.json")
    return read_devices(state_dir)


class SimulatedSource:
    """The `DeviceSource` of simulated GPUs.

    It takes no lock, so that no process can hold it up. What a process did that
    ended since the previous sample is not counted.

    Args:
        state_dir: the folder that `create_devices` made.
        clock: CLOCK_MONOTONIC, which the processes stamp with.
    """

    def __init__(
        self, state_dir: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._samples, self._glances = _Series(), _Series()

    def inventory(self) -> Inventory:
        """Return what exists.

        Raises:
            SourceUnavailable: the folder is not there, or cannot be read.
        """
        return Inventory(
            devices=read_devices(self._state_dir),
            taken_at=time.time(),
            source="simulated",
        )

    def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device, and remove what dead processes left.

        Utilisation covers the time since the previous call; the first call has none
        to tell and says None.

        Raises:
            SourceUnavailable: the folder is not there, or cannot be read.
        """
        return self._look(self._samples)

    def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device; moves nothing of a sample.

        Raises:
            SourceUnavailable: the folder is not there, or cannot be read.
        """
        return tuple(
            Glance(
                uuid=sample.uuid,
                memory_total_bytes=sample.memory_total_bytes,
                memory_used_bytes=sample.memory_used_bytes,
                memory_free_bytes=sample.memory_free_bytes,
                utilisation=sample.utilisation,
                temperature_celsius=sample.temperature_celsius,
                power_watts=sample.power_watts,
            )
            for sample in self._look(self._glances)
        )

    def free_bytes(self) -> dict[str, int]:
        """Return what an allocation could get on each device; moves no utilisation.

        Raises:
            SourceUnavailable: the folder is not there, or cannot be read.
        """
        records = self._records()
        return {
            device.uuid: _sample_device(device, records, None).memory_free_bytes
            for device in read_devices(self._state_dir)
        }

    def _look(self, series: "_Series") -> tuple[DeviceSample, ...]:
        """Return one reading of each device, the next of a series."""
        devices = read_devices(self._state_dir)
        now = self._clock()
        records = self._records()
        rates = series.rates(devices, records, now)
        return tuple(
            _sample_device(device, records, rates[device.uuid] if rates else None)
            for device in devices
        )

    def _records(self) -> list[Record]:
        try:
            return list(read_records(self._state_dir))
        except OSError as error:
            raise SourceUnavailable(
                f"Cannot read the simulated GPUs in {self._state_dir}: {error}"
            ) from error

    def close(self) -> None:
        """Forget the previous sample, and the previous glance."""
        self._samples, self._glances = _Series(), _Series()


class _Series:
    """What processes had computed when devices were read last, for one who reads."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._busy: _BusyTotals = {}

    def rates(
        self, devices: tuple[Device, ...], records: list[Record], now: float
    ) -> dict[str, dict[str, float]] | None:
        """Return each record's share of a device's time since the reading before.

        Returns:
            By UUID and the record's name; None where it is unknown.
        """
        busy = {
            (record.name, device.uuid): record.busy_seconds(device.uuid, now)
            for device in devices
            for record in records
            if device.uuid in record.uses
        }
        seconds = None if self._at is None else now - self._at
        before, self._busy, self._at = self._busy, busy, now
        if seconds is None or seconds <= 0:
            return None
        rates: dict[str, dict[str, float]] = {device.uuid: {} for device in devices}
        for (name, uuid_), total in busy.items():
            # Who had no record at the previous reading had not been busy before it.
            worked = total - before.get((name, uuid_), 0.0)
            rates[uuid_][name] = _between_0_and_1(worked / seconds)
        return rates


def _sample_device(
    device: Device, records: list[Record], rates: dict[str, float] | None
) -> DeviceSample:
    usable_bytes = device.memory_bytes - device.reserved_bytes
    memory: dict[int, int] = {}
    utilisation: dict[int, float] = {}
    for record in records:
        held = min(record.memory_bytes(device.uuid), usable_bytes)
        rate = rates.get(record.name, 0.0) if rates is not None else 0.0
        if held or rate or record.is_busy(device.uuid):
            memory[record.pid] = memory.get(record.pid, 0) + held
            utilisation[record.pid] = utilisation.get(record.pid, 0.0) + rate
    used_bytes = min(sum(memory.values()), usable_bytes)
    known = rates is not None
    is_busy = any(record.is_busy(device.uuid) for record in records)
    warmth = (used_bytes / usable_bytes if usable_bytes else 0.0) + 3 * is_busy
    return DeviceSample(
        uuid=device.uuid,
        memory_total_bytes=device.memory_bytes,
        memory_used_bytes=used_bytes,
        memory_free_bytes=usable_bytes - used_bytes,
        utilisation=_between_0_and_1(sum(utilisation.values())) if known else None,
        temperature_celsius=_COLD_CELSIUS + _WARMER_CELSIUS * warmth,
        power_watts=_IDLE_WATTS + _MORE_WATTS * warmth,
        processes=tuple(
            ProcessUse(
                pid=pid,
                memory_bytes=memory[pid],
                utilisation=_between_0_and_1(utilisation[pid]) if known else None,
            )
            for pid in sorted(memory)
        ),
    )


def read_unparkable(state_dir: Path) -> frozenset[str]:
    """Return the UUIDs of the devices whose memory cannot be parked.

    Raises:
        SourceUnavailable: the folder is not there, or cannot be read.
    """
    with _meaning_devices(state_dir) as devices:
        return frozenset(str(d["uuid"]) for d in devices if not d.get("parkable", True))


def read_devices(state_dir: Path) -> tuple[Device, ...]:
    """Return all devices, in the order of the indices.

    Raises:
        SourceUnavailable: the folder is not there, or cannot be read.
    """
    with _meaning_devices(state_dir) as devices:
        return tuple(
            Device(
                uuid=str(device["uuid"]),
                label=str(index),
                name=str(device["name"]),
                memory_bytes=int(device["memory_bytes"]),
                reserved_bytes=int(device["reserved_bytes"]),
            )
            for index, device in enumerate(devices)
        )


@contextmanager
def _meaning_devices(state_dir: Path) -> Iterator[Any]:
    """Give what devices.json lists, and say what is wrong with it."""
    path = state_dir / "devices.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["version"] != _VERSION:
            raise ValueError(f"its version is {content['version']}, not {_VERSION}")
        yield content["devices"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceUnavailable(
            f"Cannot read the simulated GPUs from {path}: {error}. Is "
            "GPUWORKSHOP_SIMULATED_GPUS the folder that was made for them?"
        ) from error


def _device_uuid(seed: int | str | None, index: int) -> str:
    if seed is None:
        return f"GPU-{uuid.uuid4()}"
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return f"GPU-{uuid.UUID(bytes=digest[:16], version=4)}"


def _between_0_and_1(value: float) -> float:
    return min(1.0, max(0.0, value))
