"""What goes wrong while kernels are parked costs nobody a kernel that could be kept."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.machine.parking import ParkState, ended

from .parking_world import ParkingWorld
from .test_parking import cell, has_ended

CHILD = (
    "import subprocess; child = subprocess.Popen([sys.executable, '-c', "
    "'from jupyterhub_gpuworkshop.notebook import simcuda; import sys; "
    'held = simcuda.allocate("{size}"); print("up", flush=True); sys.stdin.read()\'], '
    "stdin=subprocess.PIPE, stdout=subprocess.PIPE); child.stdout.readline()"
)


@pytest.fixture
async def room(tmp_path):
    """Return a world whose service parks idle kernels."""
    made = await ParkingWorld(tmp_path).open()
    yield made
    await made.close()


def states(room, record):
    return [room.parker.state(process) for process in record.processes]


async def test_a_second_process_does_not_take_the_place_of_what_is_parked(room):
    kernel_id = await room.hold()
    kernel = await room.park(kernel_id)
    (before,) = room.parking.parked
    # A thread of the paused kernel goes on, and starts a process of its own.
    kernel.run(CHILD.format(size="1GiB"))
    await room.look(times=15)
    await room.reap()
    assert set(before.processes) <= set(room.parking.parked[0].processes)
    cell(kernel, "simcuda.compute(0)")
    await room.step(3)
    assert has_ended(kernel)


async def test_of_two_processes_parked_by_half_the_other_half_needs_no_room(room):
    kernel_id = await room.hold("7GiB")
    kernel = room.attendee.kernels[kernel_id]
    kernel.run(CHILD.format(size="7GiB"))
    await room.park(kernel_id)
    (record,) = room.parking.parked
    assert len(record.processes) == 2
    # The service was killed before it had moved the second.
    room.parker.unpark(record.processes[1])
    await room.serve_anew()
    await room.step(4)
    assert states(room, record) == [ParkState.RUNNING] * 2
    assert room.parking.parked == ()


async def test_a_kernel_that_the_driver_ends_while_it_is_parked_is_told_of(
    room, monkeypatch
):
    kernel_id = await room.hold()
    kernel = room.attendee.kernels[kernel_id]

    def ends_it(process, memory_bytes):
        kernel.end()
        room.attendee.start_kernel(kernel_id)  # as its server does
        raise ended(process)

    monkeypatch.setattr(room.parker, "park", ends_it)
    await room.look(times=15)
    await room.reap()
    await room.step(2)
    assert room.parking.parked == ()
    assert EventKind.KERNEL_LOST in room.kinds()
    (told,) = room.notices(NoticeKind.KERNEL_TAKEN)
    assert "variables are gone" in told.text


async def test_a_child_that_ends_while_its_kernel_is_parked_costs_nothing(
    room, monkeypatch
):
    kernel_id = await room.hold()
    kernel = room.attendee.kernels[kernel_id]
    kernel.run(CHILD.format(size="1GiB"))
    park = room.parker.park

    def ends_the_child(process, memory_bytes):
        if process.pid != kernel.process.pid:
            kernel.run("child.kill(); child.wait()")
            raise ended(process)
        park(process, memory_bytes)

    monkeypatch.setattr(room.parker, "park", ends_the_child)
    await room.park(kernel_id)
    await room.step(2)
    assert room.attendee.kernels[kernel_id] is kernel
    kernel.run("assert precious == 42")
    cell(kernel, "simcuda.compute(0)")
    await room.step(2)
    assert has_ended(kernel)


async def test_a_kernel_that_its_owner_restarted_is_not_restarted_again(
    room, monkeypatch
):
    kernel_id = await room.hold()
    await room.park(kernel_id)
    (record,) = room.parking.parked
    await room.parking.put(replace(record, is_broken=True))
    step = room.returns._listening.step

    async def meanwhile(records):
        room.attendee.kernels[kernel_id].end()
        room.attendee.start_kernel(kernel_id)
        return await step(records)

    monkeypatch.setattr(room.returns._listening, "step", meanwhile)
    await room.step()
    assert not [x for x in room.attendee.asked if x.startswith("POST")]


async def test_what_is_locked_and_still_holds_its_memory_waits_for_no_room(
    room, monkeypatch
):
    kernel_id = await room.hold("10GiB")
    park, state = room.parker.park, room.parker.state

    def nobody_knows(process, memory_bytes=None):
        raise ParkError("The driver does not say.")

    monkeypatch.setattr(room.parker, "park", nobody_knows)
    monkeypatch.setattr(room.parker, "state", nobody_knows)
    await room.park(kernel_id)
    assert len(room.parking.parked) == 1
    monkeypatch.setattr(room.parker, "park", park)
    monkeypatch.setattr(room.parker, "state", state)
    await room.step(4)
    assert room.parking.parked == ()
    assert room.notices(NoticeKind.RETURN_WAITS) == []
