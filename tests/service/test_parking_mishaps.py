"""What goes wrong while kernels are parked costs nobody a kernel that could be kept."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.machine.parking import ParkState, ended
from jupyterhub_gpuworkshop.service import kept as kept_module
from jupyterhub_gpuworkshop.service.last_check import Checked
from jupyterhub_gpuworkshop.service.taking import Taking

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


async def test_nothing_is_restarted_before_it_is_known_whether_it_can_be_parked(room):
    kernel_id = await room.hold()
    kernel = room.attendee.kernels[kernel_id]
    await room.look(times=15)
    # The organiser has just written `action: park`, and the driver is still asked.
    room.serve()
    await room.look()
    await room.reap()
    assert room.attendee.kernels[kernel_id] is kernel
    await room.returns.step()
    await room.park(kernel_id)
    assert [x.kernel_id for x in room.parking.parked] == [kernel_id]


async def test_two_kernels_on_two_devices_do_not_take_the_same_host_memory(
    tmp_path, monkeypatch
):
    room = await ParkingWorld(tmp_path, room_bytes=7 * GIB).open()
    kernel_id = await room.hold()
    await room.look(times=15)
    (watched,) = room.monitor.kernels.values()
    (owner,) = room.monitor.kernels
    other = replace(owner, kernel_id="other")
    moved, on_other = [], replace(watched.holders[0], device=room.devices[1].uuid)
    monkeypatch.setattr(room.parker, "park", lambda *given: moved.append(given))
    looked, both_have_looked = [], asyncio.Event()

    async def look():
        looked.append(True)
        if len(looked) == 2:
            both_have_looked.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(both_have_looked.wait(), 0.3)
        return Checked(read_at=0.0)

    def taking(owner, watched):
        return Taking(owner=owner, watched=watched, action=Action.PARK, reason="Idle.")

    results = await asyncio.gather(
        room.parking.park(taking(owner, watched), look),
        room.parking.park(taking(other, replace(watched, holders=(on_other,))), look),
    )
    # Of 7 GiB 4 must stay free: there is room for the 2 GiB of one.
    assert sorted(bool(x.why_not) for x in results) == [False, True]
    assert len(moved) == 1
    assert kernel_id
    await room.close()


async def test_records_that_were_read_late_are_asked_for_too(room, monkeypatch):
    kernel_id = await room.hold("10GiB")
    kernel = await room.park(kernel_id)
    (record,) = room.parking.parked
    # It was killed before anything moved, and its disk hangs when it starts again.
    room.parker.unpark(record.processes[0])

    def hangs(path):
        raise OSError("Input/output error")

    monkeypatch.setattr(kept_module, "_take", hangs)
    await room.serve_anew()
    await room.step()
    monkeypatch.undo()
    await room.kept.open()
    await room.step()
    assert room.parking.parked == ()
    assert room.attendee.kernels[kernel_id] is kernel


async def test_who_comes_back_does_not_queue_behind_those_who_are_parked(room):
    kernel = await room.park(await room.hold())
    other_id = await room.hold()
    await room.look(times=15)
    async with room.returns._mover.turn([room.devices[0].uuid]):
        room.reaper._seen_rounds = room.monitor.rounds - 1
        await room.reaper.step()
        assert [x.kernel_id for x in room.actor._acting] == [other_id]
        cell(kernel, "simcuda.compute(0)")
        await room.step(2)
    while room.actor._acting:
        await room.look(0.5)
    assert other_id not in [x.kernel_id for x in room.parking.parked]
    await room.step()
    assert has_ended(kernel)
    await room.look(times=2)
    await room.step()
    await room.reap()
    assert [x.kernel_id for x in room.parking.parked] == [other_id]
