"""What breaks around the service: no wrong reclaim, a clear line, and recovery."""

import asyncio
import logging
import sqlite3
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError

from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service import kept as kept_module
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.store import Store

from .parking_world import ParkingWorld
from .test_reaper import HOLD, TOLD_FIRST, acted, idle_kernel
from .world import World


class NextLife(World):
    """The service started again beside an attendee whose server runs on."""

    def __init__(self, folder, before):
        super().__init__(folder)
        self.attendee.http.stop()
        self.attendee, self.clock.now = before.attendee, before.clock.now
        self.report = before.report


async def killed(world):
    """End all of a service at once: nothing of it is told, tidied or written."""
    for task in world.actor._acting.values():
        task.cancel()
    await asyncio.gather(*world.actor._acting.values(), return_exceptions=True)
    await world.monitor.close()
    world.servers.close()


async def begins_to_restart(world):
    """Let the reaper ask for a restart, and no further."""
    world.reaper._seen_rounds = world.monitor.rounds - 1
    await world.reaper.step()
    while True:
        if acted(world):
            break
        await asyncio.sleep(0)


def lines(caplog, level=logging.INFO):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= level and record.name.startswith("jupyterhub_gpuworkshop")
    ]


async def test_who_was_killed_before_the_answer_does_not_restart_it_again(tmp_path):
    first = await World(tmp_path).open()
    kernel_id = await idle_kernel(first)

    def restarted_without_an_answer():
        first.attendee.kernels[kernel_id].end()
        first.attendee.start_kernel(kernel_id)
        first.attendee.kernels[kernel_id].last_activity = "2026-11-20T11:11:11Z"
        # Its owner works with it at once.
        first.attendee.kernels[kernel_id].run(HOLD)
        return (200, asyncio.sleep)

    path = f"api/kernels/{kernel_id}/restart"
    first.attendee.answers[path] = restarted_without_an_answer
    await begins_to_restart(first)
    await killed(first)
    del first.attendee.answers[path]
    next_one = await NextLife(tmp_path, first).open()
    for _ in range(10):
        await next_one.look()
        await next_one.reap()
    assert len(acted(next_one)) == 1
    assert first.attendee.kernels[kernel_id].process.poll() is None
    assert next_one.events() == []
    # What it sees is a kernel in a window of its own, like any other.
    (watched,) = next_one.monitor.kernels.values()
    assert watched.watch.idle_seconds < 60
    await next_one.close()


async def test_who_was_killed_before_the_server_did_it_waits_a_whole_window(tmp_path):
    first = await World(tmp_path).open()
    kernel_id = await idle_kernel(first)
    path = f"api/kernels/{kernel_id}/restart"
    first.attendee.answers[path] = (200, asyncio.sleep)
    await begins_to_restart(first)
    await killed(first)
    del first.attendee.answers[path]
    next_one = await NextLife(tmp_path, first).open()
    for _ in range(11):
        await next_one.look()
        await next_one.reap()
    assert len(acted(next_one)) == 1
    await next_one.look(times=4)
    await next_one.reap()
    assert len(acted(next_one)) == 2
    assert [e.kind for e in next_one.events()] == [EventKind.KERNEL_RECLAIMED]
    await next_one.close()


async def test_a_revoked_token_leaves_kernels_unknown_and_begins_the_window_anew(world):
    await idle_kernel(world)
    world.attendee.answers["api/kernels"] = (403, b"")
    snapshot = await world.look()
    await world.reap()
    assert acted(world) == []
    assert snapshot.kernels[0].state is KernelState.UNKNOWN
    assert "answers with status 403" in snapshot.problems[0]
    del world.attendee.answers["api/kernels"]
    for _ in range(11):
        snapshot = await world.look()
        await world.reap()
    assert acted(world) == []
    assert snapshot.problems == ()
    await world.look(times=4)
    await world.reap()
    assert len(acted(world)) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, b""), "it answers with status 403"),
        ((500, b"oops"), "it answers with status 500"),
        ((302, b"/elsewhere"), "it answers with status 302"),
        ((200, b"<html>"), "its answer is no JSON"),
        ((200, {"id": 7}), "its answer is no kernel"),
        ((200, asyncio.sleep), "it does not answer"),
    ],
    ids=["revoked", "broken", "moved", "no JSON", "no kernel", "never"],
)
async def test_a_server_that_fails_in_the_last_check_keeps_its_kernel(
    world, caplog, answer, said
):
    kernel_id = await idle_kernel(world)
    world.attendee.answers[f"api/kernels/{kernel_id}"] = answer
    if answer[1] is asyncio.sleep:
        world.servers._timeout_seconds = 1.0
    with caplog.at_level(logging.INFO):
        await world.reap()
    assert acted(world) == []
    assert world.events() == []
    (line,) = lines(caplog)
    assert line.startswith(f"Kernel {kernel_id} of ada is kept: {said}")
    world.servers._timeout_seconds = 30
    del world.attendee.answers[f"api/kernels/{kernel_id}"]
    # A busy machine may have made a look of the meantime unknown, hence not idle.
    await world.look(times=15)
    await world.reap()
    assert len(acted(world)) == 1


async def test_a_full_disk_under_the_history_changes_nothing_but_the_history(
    tmp_path, monkeypatch, caplog
):
    world = await World(tmp_path).open()
    await idle_kernel(world)
    full = sqlite3.OperationalError("database or disk is full")

    def fail(*_):
        raise OperationalError("INSERT", {}, full)

    monkeypatch.setattr(Store, "write", fail)
    await world.reap()
    snapshot = await world.look(times=3)
    assert [e.kind for e in world.events()] == [EventKind.KERNEL_RECLAIMED]
    problem = "The history is not on disk, only in memory: database or disk is full"
    assert lines(caplog, logging.ERROR) == [problem]
    assert problem in snapshot.problems
    monkeypatch.undo()
    snapshot = await world.look()
    snapshot = await world.look()
    assert snapshot.problems == ()
    again = History(tmp_path / "history.sqlite")
    await again.open()
    assert len(again.after(0, 10, None)) == 1
    await world.close()


async def test_a_full_disk_under_the_state_parks_nobody_until_there_is_room(
    tmp_path, monkeypatch, caplog
):
    world = await ParkingWorld(tmp_path).open()
    await world.kept.open()
    kernel_id = await world.hold()
    write = kept_module._write

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_module, "_write", fail)
    kernel = await world.park(kernel_id)
    assert world.parking.parked == ()
    # As where a kernel cannot be parked for any other reason.
    (event,) = world.events()
    assert event.details["done"] == "restart"
    assert "could not be written down" in event.reason
    assert kernel.process.poll() is None
    assert len(lines(caplog, logging.ERROR)) == 1
    assert "No space left on device" in lines(caplog, logging.ERROR)[0]
    monkeypatch.setattr(kept_module, "_write", write)
    kernel.run(HOLD)
    await world.park(kernel_id)
    assert [x.kernel_id for x in world.parking.parked] == [kernel_id]
    assert world.kept.problem == ""
    await world.close()


async def test_a_hub_that_starts_again_as_another_costs_nobody_a_kernel(world, caplog):
    await idle_kernel(world)
    before = world.report
    # It comes up, and does not know yet which servers run.
    world.report = replace(before, hub_id="next", sent_at=-3600.0, servers=())
    with caplog.at_level(logging.INFO):
        await world.look()
    await world.reap()
    assert acted(world) == []
    assert "A hub reports, with 1 leases" in lines(caplog)
    # It knows them again, and has handed out another token: the old one is void.
    world.report = replace(before, hub_id="next", sent_at=-3599.0)
    for _ in range(11):
        await world.look()
        await world.reap()
    assert acted(world) == []
    await world.look(times=4)
    await world.reap()
    assert len(acted(world)) == 1


@pytest.mark.parametrize("jump_seconds", [3600, -3600])
async def test_a_wall_clock_that_jumps_moves_no_window_and_no_notice(
    tmp_path, jump_seconds
):
    world = await World(tmp_path, TOLD_FIRST).open()
    wall = [1_800_000_000.0]
    monitor = world.monitor
    for each in (
        monitor,
        monitor.notices,
        monitor.pins,
        monitor.watching,
        world.actor.teller,
    ):
        each._wall = lambda: wall[0]
    world.report = replace(world.report, sent_at=wall[0])
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=12)
    await world.reap()
    (notice,) = monitor.notices.standing
    wall[0] += jump_seconds
    world.report = replace(world.report, sent_at=wall[0])
    await world.look()
    await world.reap()
    assert monitor.notices.standing == (notice,)
    assert acted(world) == []
    # The time that the notice gave has passed, whatever the clock on the wall says.
    await world.look(times=3)
    await world.reap()
    assert len(acted(world)) == 1
    assert world.events()[-1].details["notice_at"] == notice.given_at
    await world.close()


async def test_a_host_that_slept_begins_every_window_anew(world):
    await world.look()
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=3)
    await world.look(seconds=2 * 3600.0)
    await world.reap()
    (watched,) = world.monitor.kernels.values()
    assert watched.watch.why_not == "There was a gap between two readings."
    for _ in range(11):
        await world.look()
        await world.reap()
    assert acted(world) == []
    await world.look(times=4)
    await world.reap()
    assert len(acted(world)) == 1
