"""Kernels are parked and come back: with real processes on simulated GPUs."""

import asyncio
from dataclasses import replace
from multiprocessing.connection import wait

import pytest

from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.machine.host_room import HostRoom
from jupyterhub_gpuworkshop.machine.parking import ParkState
from jupyterhub_gpuworkshop.machine.simulated_controls import fail_next
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, read
from jupyterhub_gpuworkshop.service.watching import Watched

from .parking_world import ParkingWorld

LATER = "2026-11-20T10:30:00Z"


@pytest.fixture
async def room(tmp_path):
    """Return a world whose service parks idle kernels."""
    made = await ParkingWorld(tmp_path).open()
    yield made
    await made.close()


def cell(kernel, line="held[0].size_bytes"):
    """Run a cell, as its server tells it, and do not wait for its end."""
    kernel.state, kernel.last_activity = "busy", LATER
    kernel.process.stdin.write(f"{line}\n")
    kernel.process.stdin.flush()


def has_ended(kernel):
    """Tell whether the cell has."""
    return bool(wait([kernel.process.stdout], 0.1))


async def test_an_idle_kernel_is_parked_and_keeps_its_variables_and_its_process(room):
    kernel_id = await room.hold()
    kernel = await room.park(kernel_id)
    (event,) = room.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED
    assert event.details["done"] == "park"
    assert event.details["freed_bytes"] == 2 * GIB
    assert not [x for x in room.attendee.asked if not x.startswith("GET")]
    await room.look()
    assert room.used_bytes() == 0
    (view,) = room.monitor.snapshot.kernels
    assert view.parked_bytes == 2 * GIB
    assert "variables kept" in view.verdict
    (use,) = room.monitor.snapshot.uses
    assert use.parked_bytes == {room.devices[0].uuid: 2 * GIB}
    (told,) = room.notices(NoticeKind.KERNEL_TAKEN)
    assert "paused" in told.text
    kernel.run("assert precious == 42")
    assert room.notes == []


async def test_its_owner_has_it_back_who_runs_a_cell(room):
    kernel = await room.park(await room.hold())
    await room.step(3)
    await room.look()
    assert room.used_bytes() == 0, "nobody came back"
    cell(kernel, "simcuda.compute(0)")
    assert not has_ended(kernel)
    await room.step()
    assert has_ended(kernel)
    await room.look()
    assert room.used_bytes() == 2 * GIB
    assert room.kinds()[-1] is EventKind.KERNEL_RETURNED
    assert room.notices(NoticeKind.KERNEL_TAKEN) == []
    assert read(room.folder / STATE_FILE).parked == ()


async def test_who_is_back_at_once_is_told_neither_of_a_pause_nor_of_a_failure(
    room, monkeypatch
):
    kernel_id = await room.hold()
    kernel, park = room.attendee.kernels[kernel_id], room.parking.park

    async def park_and_come_back(taking, check):
        parked = await park(taking, check)
        kernel.last_activity = LATER
        room.back = asyncio.ensure_future(room.step(2))
        monkeypatch.setattr(room.monitor, "tick", look_late)
        return parked

    async def look_late():
        await room.back
        monkeypatch.undo()
        await room.monitor.tick()

    monkeypatch.setattr(room.parking, "park", park_and_come_back)
    await room.park(kernel_id)
    await room.back
    assert room.kinds() == [EventKind.KERNEL_RECLAIMED, EventKind.KERNEL_RETURNED]
    assert room.notices(NoticeKind.KERNEL_TAKEN) == []


async def test_a_short_cell_that_has_ended_brings_it_back_too(room):
    kernel = await room.park(await room.hold())
    kernel.last_activity = LATER
    await room.step()
    assert room.parking.parked == ()


async def test_what_is_taken_while_it_waits_for_its_turn_is_seen(room, monkeypatch):
    kernel = await room.park(await room.hold("6GiB"))
    other_id = await room.hold("1GiB")
    cell(kernel, "simcuda.compute(0)")
    free_bytes, asked = room.gpus.free_bytes, []

    async def free_until_asked():
        found = await free_bytes()
        if not asked:
            line = "held.append(simcuda.allocate('10GiB'))"
            room.attendee.kernels[other_id].run(line)
        asked.append(found)
        return found

    monkeypatch.setattr(room.gpus, "free_bytes", free_until_asked)
    await room.step()
    assert len(asked) == 2
    assert [x.is_broken for x in room.parking.parked] == [False]
    assert not has_ended(kernel)


async def test_only_servers_with_parked_kernels_are_asked_every_second(room):
    kernel_id = await room.hold()
    await room.look()
    asked = len(room.attendee.asked)
    await room.step(5)
    assert len(room.attendee.asked) == asked
    await room.park(kernel_id)
    asked = len(room.attendee.asked)
    await room.step(5)
    assert len(room.attendee.asked) - asked <= 5


async def test_it_waits_until_its_memory_and_the_margin_are_free(room):
    kernel = await room.park(await room.hold("6GiB"))
    other_id = await room.hold("10GiB")
    other = room.attendee.kernels[other_id]
    other.state = "busy"
    cell(kernel, "simcuda.compute(0)")
    await room.step(5)
    assert not has_ended(kernel)
    assert room.kinds()[-1] is EventKind.RETURN_WAITS
    (told,) = room.notices(NoticeKind.RETURN_WAITS)
    assert "6 GiB" in told.text
    # Need alone would be free now, need and margin are not.
    other.run("held.clear(); held.append(simcuda.allocate('9.9GiB'))")
    await room.step()
    assert not has_ended(kernel)
    other.run("held.clear()")
    await room.step()
    assert has_ended(kernel)
    assert room.notices(NoticeKind.RETURN_WAITS) == []
    assert room.kinds().count(EventKind.RETURN_WAITS) == 1


async def test_idle_kernels_are_parked_to_make_room_and_never_restarted(room):
    kernel = await room.park(await room.hold("6GiB"))
    other_id = await room.hold("12GiB")
    cell(kernel, "simcuda.compute(0)")
    await room.look(times=2)
    await room.step()
    assert not room.actor._acting, "it has not been idle for long enough"
    await room.look(times=2)
    await room.step()
    assert [x.kernel_id for x in room.actor._acting] == [other_id]
    while room.actor._acting:
        await room.look(0.5)
    await room.step(2)
    assert has_ended(kernel)
    assert [x.kernel_id for x in room.parking.parked] == [other_id]
    assert not [x for x in room.attendee.asked if not x.startswith("GET")]


async def test_who_cannot_make_room_is_left_alone(room):
    kernel = await room.park(await room.hold("6GiB"))
    await room.hold("12GiB")
    cell(kernel)
    await room.look(times=4)
    fail_next(room.simulation, "park unharmed")
    await room.step()
    while room.actor._acting:
        await room.look(0.5)
    assert room.kinds()[-1] is EventKind.RECLAIM_FAILED
    assert not [x for x in room.attendee.asked if not x.startswith("GET")]


@pytest.mark.parametrize("cause", ["fails", "no room", "slice", "not written"])
async def test_what_cannot_be_parked_is_restarted_and_told_so(tmp_path, cause):
    room_bytes = 5 * GIB if cause == "no room" else 2**60
    room = await ParkingWorld(tmp_path, room_bytes=room_bytes).open()
    kernel_id = await room.hold()
    if cause == "fails":
        fail_next(room.simulation, "park unharmed")
    if cause == "slice":
        room.parker.cannot_park = lambda device: "MIG slices cannot be parked."
        room.parking._asked_at = float("-inf")
        await room.returns.step()
    if cause == "not written":
        room.kept._path = tmp_path / "gpus" / "devices.json" / "no folder"
    old = room.attendee.kernels[kernel_id].process
    await room.look(times=15)
    await room.reap()
    assert room.attendee.kernels[kernel_id].process is not old
    event = room.events()[-1]
    assert event.kind is EventKind.KERNEL_RECLAIMED
    assert event.details["done"] == "restart"
    assert "aused:" in event.reason
    (told,) = room.notices(NoticeKind.KERNEL_TAKEN)
    assert "variables are gone" in told.text
    assert len(room.notes) == 1
    assert room.parking.parked == ()
    await room.close()


async def test_it_is_on_disk_before_anything_moves(room, monkeypatch):
    kernel_id, park, found = await room.hold(), room.parker.park, []

    def look_first(process, memory_bytes):
        found.extend(read(room.folder / STATE_FILE).parked)
        park(process, memory_bytes)

    monkeypatch.setattr(room.parker, "park", look_first)
    await room.park(kernel_id)
    assert [(x.kernel_id, x.notebook) for x in found] == [(kernel_id, "")]


async def test_who_is_back_while_it_is_decided_is_not_parked(room):
    kernel_id = await room.hold()
    await room.look(times=15)
    kernel = room.attendee.kernels[kernel_id]

    async def comes_back(process):
        kernel.last_activity = LATER
        return HostRoom(available_bytes=2**60)

    room.parker.room = lambda process: asyncio.run(comes_back(process))
    await room.reap()
    assert room.events() == []
    assert room.parker.state(room.monitor.snapshot.kernels[0].process) is (
        ParkState.RUNNING
    )


async def test_a_checkpoint_that_breaks_its_process_is_told_as_a_restart(room):
    kernel_id = await room.hold()
    fail_next(room.simulation, "park broken")
    kernel = await room.park(kernel_id)
    assert [x.is_broken for x in room.parking.parked] == [True]
    await room.step()
    assert room.attendee.kernels[kernel_id] is not kernel
    assert room.kinds()[-1] is EventKind.KERNEL_LOST
    (told,) = room.notices(NoticeKind.KERNEL_TAKEN)
    assert "was restarted, and its variables are gone" in told.text
    assert room.parking.parked == ()


async def test_a_return_that_breaks_its_process_is_told_as_a_restart(room):
    kernel_id = await room.hold()
    kernel = await room.park(kernel_id)
    fail_next(room.simulation, "unpark")
    cell(kernel)
    await room.step()
    assert read(room.folder / STATE_FILE).parked[0].is_broken
    # The driver would say that it is parked: our own record is what counts.
    await room.serve_anew()
    await room.step(2)
    assert room.attendee.kernels[kernel_id] is not kernel
    assert room.kinds()[-1] is EventKind.KERNEL_LOST


async def test_a_kernel_stays_parked_over_a_restart_of_the_service(room):
    kernel = await room.park(await room.hold())
    await room.serve_anew()
    await room.step(2)
    await room.look()
    assert room.used_bytes() == 0
    cell(kernel, "simcuda.compute(0)")
    await room.step()
    assert has_ended(kernel)


async def test_a_record_of_what_never_moved_is_dropped(room):
    kernel_id = await room.hold()
    await room.park(kernel_id)
    (record,) = room.parking.parked
    room.parker.unpark(record.processes[0])
    await room.serve_anew()
    assert len(room.parking.parked) == 1
    await room.step()
    assert room.parking.parked == ()
    assert room.kinds()[-1] is EventKind.KERNEL_RECLAIMED, "nothing more is told"


async def test_what_was_left_locked_is_let_go(room, monkeypatch):
    await room.park(await room.hold())
    (record,) = room.parking.parked
    room.parker.unpark(record.processes[0])
    locked = {"state": ParkState.LOCKED}
    monkeypatch.setattr(room.parker, "state", lambda process: locked["state"])
    let_go = []
    monkeypatch.setattr(room.parker, "unpark", lambda *given: let_go.append(given))
    await room.serve_anew()
    await room.step(5)
    assert let_go == [], "what a killed service had begun may still go on"
    await room.step(6)
    assert let_go == [(record.processes[0], 2 * GIB)]
    assert room.parking.parked == ()


async def test_records_of_another_boot_are_dropped(room):
    await room.park(await room.hold())
    (record,) = room.parking.parked
    await room.parking.put(replace(record, boot_id="another"))
    await room.serve_anew()
    await room.step()
    assert room.parking.parked == ()


async def test_a_kernel_that_ended_while_it_was_parked_is_forgotten(room):
    kernel_id = await room.hold()
    kernel = await room.park(kernel_id)
    room.attendee.kernels.pop(kernel_id)
    kernel.end()
    await room.step()
    assert room.parking.parked == ()
    assert room.kinds() == [EventKind.KERNEL_RECLAIMED]


@pytest.mark.parametrize("silence", ["does not answer", "is gone from the hub"])
async def test_whose_return_could_not_be_seen_comes_back_by_itself(room, silence):
    await room.park(await room.hold())
    if silence == "does not answer":
        room.attendee.answers["api/kernels"] = (500, {})
    else:
        room.report = replace(room.report, servers=())
    await room.step()
    room.clock.now += 50
    await room.step()
    assert len(room.parking.parked) == 1
    room.clock.now += 12
    await room.step()
    assert room.parking.parked == ()
    assert room.events()[-1].reason.startswith("Its server does not answer.")


async def test_a_pinned_kernel_makes_no_room(room):
    kernel = await room.park(await room.hold("6GiB"))
    await room.hold("12GiB")
    await room.look()
    (owner,) = (
        owner for owner, x in room.monitor.kernels.items() if x.memory_on() == 12 * GIB
    )
    await room.monitor.pins.pin(owner, "ada", None)
    cell(kernel)
    await room.look(times=4)
    await room.step()
    assert not room.actor._acting


async def test_two_return_to_one_device_one_after_the_other(room, monkeypatch):
    first = await room.park(await room.hold("3GiB"))
    second = await room.park(await room.hold("3GiB"))
    assert len(room.parking.parked) == 2
    order, unpark = [], room.parker.unpark

    def one_at_a_time(process, memory_bytes):
        order.append(("begins", process.pid))
        unpark(process, memory_bytes)
        order.append(("ends", process.pid))

    monkeypatch.setattr(room.parker, "unpark", one_at_a_time)
    cell(second, "simcuda.compute(0)")
    await room.step(0)
    cell(first, "simcuda.compute(0)")
    await room.step(3)
    assert [what for what, _ in order] == ["begins", "ends", "begins", "ends"]
    assert room.parking.parked == ()


async def test_parking_frees_no_lease_and_no_share(room):
    await room.park(await room.hold())
    await room.look()
    reply = await room.monitor.exchange(room.report)
    assert [x.id for x in room.monitor.snapshot.leases] == ["lease-ada"]
    assert reply.uses[0].by_lease == {}
    assert isinstance(next(iter(room.monitor.kernels.values())), Watched)
