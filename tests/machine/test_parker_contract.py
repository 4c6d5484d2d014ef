"""What every Parker promises. A new one is one more class and one more line."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.driver_parking import DriverParker
from jupyterhub_gpuworkshop.machine.parking import Parker, ParkState, open_parker
from jupyterhub_gpuworkshop.machine.processes import read_process
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.machine.simulated_controls import (
    Control,
    fail_next,
    write_control,
)
from jupyterhub_gpuworkshop.machine.simulated_parking import SimulatedParker
from tests.simulated_kernel import SimulatedKernel

from . import cuda_double
from .cuda_double import CHECKPOINT, NOT_SUPPORTED, OUT_OF_MEMORY, RESTORE, CudaDriver

SLICE = Device(
    uuid="MIG-1", label="0:1", name="A100", memory_bytes=GIB, parent_uuid="GPU-1"
)
GPU = Device(uuid="GPU-1", label="0", name="A100", memory_bytes=GIB)


class Machine(Protocol):
    """A machine with a process that holds GPU memory."""

    parker: Parker
    process: ProcessId

    def leave_locked(self) -> None:
        """Do what a caller does that is killed once it has locked the process."""

    def fail_to_park(self, *, broken: bool) -> None:
        """Have the next checkpoint fail."""

    def fail_to_unpark(self) -> None:
        """Have the memory not be free at the next restore."""

    def end(self) -> None:
        """End the process."""


class CudaMachine:
    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._child = subprocess.Popen(["sleep", "1000"])  # noqa: S607 - any process
        self._driver.put(self._child.pid, cuda_double.RUNNING)
        self.parker: Parker = DriverParker()
        self.process = id_of(self._child.pid)

    def leave_locked(self) -> None:
        self._driver.put(self.process.pid, cuda_double.LOCKED)

    def fail_to_park(self, *, broken: bool) -> None:
        self._driver.say(f"fail {CHECKPOINT} {NOT_SUPPORTED}")
        if broken:
            self._driver.say(f"leave {CHECKPOINT} {cuda_double.FAILED}")

    def fail_to_unpark(self) -> None:
        self._driver.say(f"fail {RESTORE} {OUT_OF_MEMORY}")

    def end(self) -> None:
        self._child.kill()
        self._child.wait()


class SimulatedMachine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        create_devices(folder, 1, 4 * GIB)
        self._kernel = SimulatedKernel(sys.executable, folder)
        self._kernel.run("held = simcuda.allocate('1GiB')")
        self.parker: Parker = SimulatedParker(folder)
        self.process = id_of(self._kernel.pid)

    def leave_locked(self) -> None:
        (record,) = self._folder.glob(f"{self.process.pid}-*.json")
        control = Control(state="locked", on_device=True, records=(record.name,))
        write_control(self._folder, self.process, control)

    def fail_to_park(self, *, broken: bool) -> None:
        fail_next(self._folder, "park broken" if broken else "park unharmed")

    def fail_to_unpark(self) -> None:
        fail_next(self._folder, "unpark")

    def end(self) -> None:
        self._kernel.__exit__(None, None, None)


def id_of(pid: int) -> ProcessId:
    facts = read_process(pid, with_details=False)
    assert facts is not None
    return ProcessId(pid=pid, started=facts.started)


@pytest.fixture(params=[pytest.param("driver", marks=pytest.mark.gcc), "simulated"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    machine: Machine
    if request.param == "driver":
        machine = CudaMachine(request.getfixturevalue("cuda_driver"))
    else:
        machine = SimulatedMachine(tmp_path / "gpus")
    yield machine
    machine.end()


def test_a_process_is_parked_and_comes_back(machine: Machine) -> None:
    parker, process = machine.parker, machine.process
    assert parker.unavailable() == ""
    assert parker.state(process) is ParkState.RUNNING
    parker.park(process, GIB)
    assert parker.state(process) is ParkState.PARKED
    parker.unpark(process, GIB)
    assert parker.state(process) is ParkState.RUNNING


def test_asking_twice_does_no_harm(machine: Machine) -> None:
    parker, process = machine.parker, machine.process
    parker.unpark(process)
    parker.park(process)
    parker.park(process)
    assert parker.state(process) is ParkState.PARKED


def test_a_lock_that_a_killed_caller_left_is_taken_up(machine: Machine) -> None:
    machine.leave_locked()
    assert machine.parker.state(machine.process) is ParkState.LOCKED
    machine.parker.unpark(machine.process)
    assert machine.parker.state(machine.process) is ParkState.RUNNING
    machine.leave_locked()
    machine.parker.park(machine.process)
    assert machine.parker.state(machine.process) is ParkState.PARKED


def test_a_process_that_cannot_be_parked_is_let_go(machine: Machine) -> None:
    machine.fail_to_park(broken=False)
    with pytest.raises(ParkError, match=str(machine.process.pid)) as caught:
        machine.parker.park(machine.process)
    assert not caught.value.broken
    assert machine.parker.state(machine.process) is ParkState.RUNNING


def test_a_process_that_a_checkpoint_broke_is_told_to_be(machine: Machine) -> None:
    machine.fail_to_park(broken=True)
    for move in (machine.parker.park, machine.parker.park, machine.parker.unpark):
        with pytest.raises(ParkError, match="stuck") as caught:
            move(machine.process)
        assert caught.value.broken
    assert machine.parker.state(machine.process) is ParkState.FAILED


def test_a_process_whose_memory_was_not_free_is_stuck_for_good(
    machine: Machine,
) -> None:
    machine.parker.park(machine.process)
    machine.fail_to_unpark()
    for _ in range(2):
        with pytest.raises(ParkError, match="stuck") as caught:
            machine.parker.unpark(machine.process)
        assert caught.value.broken
    # The driver calls it parked still.
    stuck = (ParkState.PARKED, ParkState.FAILED)
    assert machine.parker.state(machine.process) in stuck


def test_a_later_process_of_the_same_number_is_left_alone(machine: Machine) -> None:
    earlier = ProcessId(pid=machine.process.pid, started=machine.process.started - 1)
    assert machine.parker.state(earlier) is ParkState.GONE
    for move in (machine.parker.park, machine.parker.unpark):
        with pytest.raises(ParkError, match="has ended") as caught:
            move(earlier)
        assert caught.value.broken
    assert machine.parker.state(machine.process) is ParkState.RUNNING


def test_a_parked_process_that_ends_is_gone(machine: Machine) -> None:
    machine.parker.park(machine.process)
    machine.end()
    assert machine.parker.state(machine.process) is ParkState.GONE
    with pytest.raises(ParkError, match="has ended"):
        machine.parker.unpark(machine.process)


def test_memory_on_a_slice_is_never_parked(machine: Machine) -> None:
    assert "MIG slice" in machine.parker.cannot_park(SLICE)
    assert machine.parker.cannot_park(GPU) == ""


def test_room_is_told(machine: Machine) -> None:
    assert machine.parker.room(machine.process).available_bytes


def test_a_source_has_its_parker(tmp_path: Path) -> None:
    assert isinstance(open_parker("nvml"), DriverParker)
    parker = open_parker("simulated", simulated_dir=tmp_path)
    assert isinstance(parker, SimulatedParker)
    with pytest.raises(ParkError, match="need a directory"):
        open_parker("simulated")
    with pytest.raises(ParkError, match="write nvml or simulated"):
        open_parker("toaster")
