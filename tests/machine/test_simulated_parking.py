"""Parking on simulated GPUs: what others, the source and the process itself see."""

import os
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.parking import ParkState
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.machine.simulated_controls import (
    controlled,
    fail_next,
    read_control,
)
from jupyterhub_gpuworkshop.machine.simulated_parking import SimulatedParker
from tests.simulated_kernel import CellError, SimulatedKernel

from .test_parker_contract import id_of

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to be another user"
)
ATTENDEE = 20001


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    create_devices(tmp_path / "gpus", 1, 4 * GIB)
    return tmp_path / "gpus"


@pytest.fixture
def kernel(state_dir: Path) -> Iterator[SimulatedKernel]:
    """Return one that holds 3 of 4 GiB."""
    with SimulatedKernel(sys.executable, state_dir) as kernel:
        kernel.run("held = simcuda.allocate('3GiB')")
        yield kernel


@pytest.fixture
def other(state_dir: Path) -> Iterator[SimulatedKernel]:
    with SimulatedKernel(sys.executable, state_dir) as kernel:
        yield kernel


@pytest.fixture
def parker(state_dir: Path) -> SimulatedParker:
    return SimulatedParker(state_dir)


def waits(kernel: SimulatedKernel) -> bool:
    """Tell whether a kernel has nothing to answer yet."""
    return not wait([kernel.process.stdout], 0.1)


def test_parked_memory_is_free_for_others_and_on_no_device(
    state_dir: Path,
    parker: SimulatedParker,
    kernel: SimulatedKernel,
    other: SimulatedKernel,
) -> None:
    source = SimulatedSource(state_dir)
    with pytest.raises(CellError, match="Out of memory"):
        other.run("simcuda.allocate('2GiB')")
    parker.park(id_of(kernel.pid))
    (sample,) = source.sample()
    assert (sample.memory_used_bytes, sample.processes) == (0, ())
    other.run("theirs = simcuda.allocate('4GiB')")
    other.run("theirs.free()")
    parker.unpark(id_of(kernel.pid))
    (sample,) = source.sample()
    assert [p.memory_bytes for p in sample.processes or ()] == [3 * GIB]
    assert other.run("simcuda.memory_info()[0]") == GIB


@pytest.mark.parametrize(
    "call",
    [
        "simcuda.allocate(1).size_bytes",
        "simcuda.compute(0)",
        "simcuda.memory_info()[1]",
        "held.free()",
    ],
)
def test_calls_wait_until_the_process_is_back(
    parker: SimulatedParker, kernel: SimulatedKernel, call: str
) -> None:
    parker.park(id_of(kernel.pid))
    kernel.send(call)
    assert waits(kernel)
    parker.unpark(id_of(kernel.pid))
    kernel.receive()


def test_all_that_is_not_the_gpu_goes_on(
    parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    kernel.run("events = []")
    parker.park(id_of(kernel.pid))
    kernel.run(
        "def background():\n  events.append(simcuda.allocate('1GiB').size_bytes)\n"
        "thread = threading.Thread(target=background)\nthread.start()"
    )
    assert kernel.run("[events, held.size_bytes, simcuda.held_bytes()]") == [
        [],
        3 * GIB,
        3 * GIB,
    ]
    parker.unpark(id_of(kernel.pid))
    assert kernel.run("thread.join() or events") == [GIB]


def test_what_is_computed_comes_to_its_end_first(
    state_dir: Path, kernel: SimulatedKernel
) -> None:
    process = id_of(kernel.pid)
    kernel.send("simcuda.compute(3600)")
    while b'"busy_since": null' in _record(kernel, state_dir):
        assert kernel.process.poll() is None
    with pytest.raises(ParkError, match="computed on") as caught:
        SimulatedParker(state_dir, lock_seconds=0).park(process)
    assert not caught.value.broken
    assert read_control(state_dir, process) is None


def _record(kernel: SimulatedKernel, state_dir: Path) -> bytes:
    (path,) = state_dir.glob(f"{kernel.pid}-*.json")
    return path.read_bytes()


def test_memory_that_somebody_else_took_leaves_the_process_stuck(
    parker: SimulatedParker, kernel: SimulatedKernel, other: SimulatedKernel
) -> None:
    process = id_of(kernel.pid)
    parker.park(process)
    other.run("theirs = simcuda.allocate('2GiB')")
    with pytest.raises(ParkError, match="stuck for good") as caught:
        parker.unpark(process)
    assert caught.value.broken
    assert parker.state(process) is ParkState.FAILED
    other.run("theirs.free()")
    with pytest.raises(ParkError):
        parker.unpark(process)
    kernel.send("simcuda.memory_info()")
    assert waits(kernel)
    assert other.run("simcuda.memory_info()[0]") == 4 * GIB


def test_a_process_that_a_checkpoint_broke_keeps_its_memory(
    state_dir: Path,
    parker: SimulatedParker,
    kernel: SimulatedKernel,
    other: SimulatedKernel,
) -> None:
    fail_next(state_dir, "park broken")
    with pytest.raises(ParkError):
        parker.park(id_of(kernel.pid))
    assert other.run("simcuda.memory_info()[0]") == GIB


def test_an_order_to_fail_is_meant_for_one_move(
    state_dir: Path, parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    process = id_of(kernel.pid)
    fail_next(state_dir, "unpark")
    parker.park(process)  # it was not meant
    fail_next(state_dir, "park unharmed")
    parker.unpark(process)
    with pytest.raises(ParkError, match="as it was told to"):
        parker.park(process)
    parker.park(process)


def test_memory_on_a_device_that_is_like_a_slice_stays(tmp_path: Path) -> None:
    (device,) = create_devices(tmp_path, 1, GIB, parkable=False)
    parker = SimulatedParker(tmp_path)
    assert "MIG slice" in parker.cannot_park(device)
    with SimulatedKernel(sys.executable, tmp_path) as kernel:
        kernel.run("held = simcuda.allocate(1)")
        with pytest.raises(ParkError, match="MIG slice") as caught:
            parker.park(id_of(kernel.pid))
        assert not caught.value.broken
        assert kernel.run("simcuda.memory_info()[0]") == GIB - 1


def test_a_process_without_simulated_gpus_is_not_parked(
    parker: SimulatedParker,
) -> None:
    with pytest.raises(ParkError, match="uses no simulated GPU"):
        parker.park(id_of(os.getpid()))


def test_what_was_computed_before_parking_is_not_counted_after(
    state_dir: Path, parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    now = time.monotonic()
    source = SimulatedSource(state_dir, clock=lambda: now)
    kernel.run("simcuda.compute(0.05)")
    for move in (parker.park, parker.unpark):
        move(id_of(kernel.pid))
        source.sample()
        now += 10
    assert source.sample()[0].utilisation == 0.0


def test_what_is_kept_of_processes_that_are_gone_is_removed(
    state_dir: Path, parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    parked = id_of(kernel.pid)
    parker.park(parked)
    kernel.process.kill()
    kernel.process.wait()
    assert list(controlled(state_dir)) == [parked]
    parker.unpark(id_of(os.getpid()))
    assert list(controlled(state_dir)) == []


def test_a_forked_child_does_not_wait(
    parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    parker.park(id_of(kernel.pid))
    kernel.run(
        "if os.fork() == 0:\n  held.free()\n  os._exit(3)\ncode = os.wait()[1] >> 8"
    )
    assert kernel.run("code") == 3


def test_a_new_program_of_a_parked_process_is_not_parked(
    state_dir: Path, parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    process = id_of(kernel.pid)
    parker.park(process)
    kernel.send(f"os.execl({sys.executable!r}, 'python', '-c', {AGAIN!r})")
    assert kernel.process.stdout is not None
    assert kernel.process.stdout.readline() == f"{GIB}\n"
    assert parker.state(process) is ParkState.RUNNING


AGAIN = """
from jupyterhub_gpuworkshop.notebook import simcuda
print(simcuda.allocate('1GiB').size_bytes, flush=True)
input()
"""


def test_a_parker_whose_gpus_are_gone_says_so(tmp_path: Path) -> None:
    parker = SimulatedParker(tmp_path / "nowhere")
    assert "Cannot find" in parker.unavailable()
    with pytest.raises(ParkError, match="Cannot find"):
        parker.park(ProcessId(pid=os.getpid(), started=1))


def test_only_the_owner_of_the_simulation_parks(
    parker: SimulatedParker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ATTENDEE)
    assert "belongs to another user" in parker.unavailable()


@needs_root
def test_what_an_attendee_puts_there_parks_nobody_and_does_not_keep_us_from_it(
    state_dir: Path, parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    process = id_of(kernel.pid)
    parker.park(process)
    real = state_dir / "parked"
    forged = state_dir / "forged"
    real.rename(forged)
    os.chown(forged, ATTENDEE, -1)
    forged.rename(real)
    assert parker.state(process) is ParkState.RUNNING
    assert kernel.run("simcuda.memory_info()[0]") == GIB
    assert SimulatedSource(state_dir).sample()[0].memory_used_bytes == 3 * GIB
    parker.park(process)
    assert real.stat().st_uid == os.geteuid()
    assert parker.state(process) is ParkState.PARKED


@needs_root
def test_an_attendee_cannot_change_what_is_said_of_the_parked(
    state_dir: Path, parker: SimulatedParker, kernel: SimulatedKernel
) -> None:
    process = id_of(kernel.pid)
    state_dir.parent.chmod(0o755)
    parker.park(process)
    (control,) = (state_dir / "parked").iterdir()
    assert control.stat().st_mode & 0o777 == 0o644
    assert control.parent.stat().st_mode & 0o777 == 0o755
    assert state_dir.stat().st_mode & 0o7777 == 0o1777
    child = os.fork()
    if child == 0:  # an attendee's process, which tries all that would help
        os.setresuid(ATTENDEE, ATTENDEE, ATTENDEE)
        refused = 0
        for attempt in (
            control.unlink,
            lambda: control.write_text("{}"),
            lambda: (state_dir / "parked" / "1-1.json").touch(),
            lambda: control.parent.rename(state_dir / "elsewhere"),
        ):
            try:
                attempt()
            except OSError:
                refused += 1
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
