"""What every DeviceSource promises. A new one is one more class and one more line."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from jupyterhub_gpuworkshop.core.errors import SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.machine.source import DeviceSource

from .nvml_double import Scenario

TOTAL, RESERVED = 16 * GIB, 512 * MIB


class Machine(Protocol):
    """A machine with two devices, and somebody who uses them."""

    source: DeviceSource

    def hold(self, uuid: str, memory_bytes: int) -> int:
        """Have a process hold memory, and return its pid."""

    def compute(self, uuid: str) -> None:
        """Have that process compute for a moment."""

    def let_go(self) -> None:
        """End that process."""

    def take_away(self) -> None:
        """Leave nothing to read from."""

    def bring_back(self) -> None:
        """Undo `take_away`."""


class NvmlMachine:
    def __init__(self, driver: Scenario) -> None:
        self._driver = driver
        driver.say(self._gpu("GPU-a", 0), self._gpu("GPU-b", 0))
        self.source: DeviceSource = NvmlSource(process_interval_seconds=0)

    def hold(self, uuid: str, memory_bytes: int) -> int:
        self._driver.change(f"gpu {uuid}", self._gpu(uuid, memory_bytes))
        self._driver.say(f"process {uuid} 4711 {memory_bytes} compute")
        return 4711

    def compute(self, uuid: str) -> None:
        self._driver.say(f"busy {uuid} 40 90", f"working {uuid} 4711 40 90")

    def let_go(self) -> None:
        self._driver.unsay("process")
        for uuid in ("GPU-a", "GPU-b"):
            self._driver.change(f"gpu {uuid}", self._gpu(uuid, 0))

    def take_away(self) -> None:
        self.source.close()
        self._driver.say("fail nvmlInitWithFlags * 9")

    def bring_back(self) -> None:
        self._driver.unsay("fail")

    def _gpu(self, uuid: str, used_bytes: int) -> str:
        minor = int(uuid == "GPU-b")
        return f"gpu {uuid} {minor} {TOTAL} {RESERVED} {used_bytes} 0 0"


class SimulatedMachine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        create_devices(folder, 2, TOTAL, reserved_bytes=RESERVED)
        self.source: DeviceSource = SimulatedSource(folder)
        self._holder: subprocess.Popen[bytes] | None = None

    def hold(self, uuid: str, memory_bytes: int) -> int:
        code = (
            "from jupyterhub_gpuworkshop.notebook import simcuda;"
            f"held = simcuda.allocate({memory_bytes});"
            "print(flush=True)\n"
            "while True: input(); simcuda.compute(0.02); print(flush=True)"
        )
        self._holder = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", code],
            env={
                "GPUWORKSHOP_SIMULATED_GPUS": str(self._folder),
                "CUDA_VISIBLE_DEVICES": uuid,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"
        return self._holder.pid

    def compute(self, uuid: str) -> None:
        assert self._holder is not None
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(b"\n")
        self._holder.stdin.flush()
        assert self._holder.stdout.readline() == b"\n"

    def let_go(self) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    def take_away(self) -> None:
        self._folder.rename(self._folder.with_name("away"))

    def bring_back(self) -> None:
        self._folder.with_name("away").rename(self._folder)


@pytest.fixture(params=[pytest.param("nvml", marks=pytest.mark.gcc), "simulated"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    if request.param == "nvml":
        yield NvmlMachine(request.getfixturevalue("driver"))
    else:
        simulated = SimulatedMachine(tmp_path / "gpus")
        yield simulated
        simulated.let_go()


def by_uuid(source: DeviceSource) -> dict[str, DeviceSample]:
    return {sample.uuid: sample for sample in source.sample()}


def test_the_inventory_names_every_device_once(machine: Machine) -> None:
    before = time.time()
    inventory = machine.source.inventory()
    assert len({d.uuid for d in inventory.devices}) == 2
    assert [d.label for d in inventory.devices] == ["0", "1"]
    assert {d.memory_bytes for d in inventory.devices} == {TOTAL}
    assert {d.reserved_bytes for d in inventory.devices} == {RESERVED}
    assert before <= inventory.taken_at <= time.time()
    assert inventory.source != "none"
    assert inventory.problem == ""


def test_looking_twice_shows_the_same_devices(machine: Machine) -> None:
    first = machine.source.inventory()
    assert machine.source.inventory().devices == first.devices


def test_a_sample_reads_every_device_in_the_inventorys_order(
    machine: Machine,
) -> None:
    samples = machine.source.sample()
    devices = machine.source.inventory().devices
    assert [s.uuid for s in samples] == [d.uuid for d in devices]


def test_memory_adds_up(machine: Machine) -> None:
    uuid = machine.source.inventory().devices[0].uuid
    machine.hold(uuid, 3 * GIB)
    for sample in machine.source.sample():
        assert sample.memory_total_bytes == TOTAL
        used_and_free = sample.memory_used_bytes + sample.memory_free_bytes
        assert used_and_free == TOTAL - RESERVED


def test_a_process_that_holds_memory_is_listed_on_its_device_alone(
    machine: Machine,
) -> None:
    here, there = (d.uuid for d in machine.source.inventory().devices)
    machine.source.sample()
    pid = machine.hold(there, 2 * GIB)
    samples = by_uuid(machine.source)
    (use,) = samples[there].processes or ()
    assert (use.pid, use.memory_bytes) == (pid, 2 * GIB)
    assert samples[there].memory_used_bytes == 2 * GIB
    assert samples[here].processes == ()
    assert samples[here].memory_used_bytes == 0


def test_memory_is_free_when_its_process_is_gone(machine: Machine) -> None:
    uuid = machine.source.inventory().devices[0].uuid
    machine.hold(uuid, 2 * GIB)
    assert by_uuid(machine.source)[uuid].processes
    machine.let_go()
    sample = by_uuid(machine.source)[uuid]
    assert sample.processes == ()
    assert sample.memory_free_bytes == TOTAL - RESERVED


def test_the_first_sample_has_no_utilisation_and_the_next_one_has(
    machine: Machine,
) -> None:
    uuid = machine.source.inventory().devices[0].uuid
    machine.hold(uuid, GIB)
    first = by_uuid(machine.source)[uuid]
    assert first.utilisation is None
    assert [p.utilisation for p in first.processes or ()] == [None]
    second = by_uuid(machine.source)[uuid]
    assert second.utilisation == 0.0
    assert [p.utilisation for p in second.processes or ()] == [0.0]
    assert second.problem == ""


def test_a_closed_source_starts_again(machine: Machine) -> None:
    devices = machine.source.inventory().devices
    machine.source.sample()
    machine.source.close()
    machine.source.close()
    samples = machine.source.sample()
    assert [s.utilisation for s in samples] == [None, None]
    assert machine.source.inventory().devices == devices


def test_nothing_to_read_from_is_said_and_passes_when_it_is_back(
    machine: Machine,
) -> None:
    devices = machine.source.inventory().devices
    machine.take_away()
    with pytest.raises(SourceUnavailable, match=r"."):
        machine.source.inventory()
    with pytest.raises(SourceUnavailable):
        machine.source.sample()
    machine.bring_back()
    assert machine.source.inventory().devices == devices
    assert len(machine.source.sample()) == 2


def test_free_memory_is_that_of_a_sample_and_moves_no_utilisation(
    machine: Machine,
) -> None:
    source = machine.source
    source.sample()
    device = source.inventory().devices[1]
    machine.hold(device.uuid, 2 * GIB)
    free = source.free_bytes()
    samples = by_uuid(source)
    assert free == {uuid: x.memory_free_bytes for uuid, x in samples.items()}
    assert samples[device.uuid].utilisation is not None


def test_a_glance_reads_every_device_as_a_sample_does(machine: Machine) -> None:
    source = machine.source
    device = source.inventory().devices[1]
    machine.hold(device.uuid, 2 * GIB)
    glances, samples = source.glance(), source.sample()
    assert [x.uuid for x in glances] == [x.uuid for x in samples]
    for glance, sample in zip(glances, samples, strict=True):
        assert glance.memory_total_bytes == sample.memory_total_bytes
        assert glance.memory_used_bytes == sample.memory_used_bytes
        assert glance.memory_free_bytes == sample.memory_free_bytes
        assert glance.temperature_celsius == sample.temperature_celsius
        assert glance.power_watts == sample.power_watts


def test_a_glance_tells_the_utilisation_since_the_glance_before(
    machine: Machine,
) -> None:
    source = machine.source
    source.sample()
    assert [x.utilisation for x in source.glance()] == [None, None]
    source.sample()
    assert [x.utilisation for x in source.glance()] == [0.0, 0.0]
    source.close()
    assert [x.utilisation for x in source.glance()] == [None, None]


def test_what_was_done_before_a_glance_is_in_the_next_sample_all_the_same(
    machine: Machine,
) -> None:
    source = machine.source
    uuid = source.inventory().devices[0].uuid
    machine.hold(uuid, GIB)
    source.sample()
    source.glance()
    machine.compute(uuid)
    (first, *_) = source.glance()
    assert first.utilisation is not None
    assert first.utilisation > 0
    sample = by_uuid(source)[uuid]
    assert sample.utilisation is not None
    assert sample.utilisation > 0
    (use,) = sample.processes or ()
    assert use.utilisation is not None
    assert use.utilisation > 0


def test_samples_take_nothing_from_a_glance(machine: Machine) -> None:
    source = machine.source
    uuid = source.inventory().devices[0].uuid
    machine.hold(uuid, GIB)
    source.glance()
    source.sample()
    machine.compute(uuid)
    source.sample()
    (first, *_) = source.glance()
    assert first.utilisation is not None
    assert first.utilisation > 0


def test_nothing_to_glance_at_is_said_and_passes_when_it_is_back(
    machine: Machine,
) -> None:
    machine.source.glance()
    machine.take_away()
    with pytest.raises(SourceUnavailable, match=r"."):
        machine.source.glance()
    machine.bring_back()
    assert len(machine.source.glance()) == 2
