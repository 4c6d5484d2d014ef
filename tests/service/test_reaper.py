"""Memory is taken back from who is idle, and from nobody else."""

import asyncio
import json
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service.reaper import taking_of
from jupyterhub_gpuworkshop.service.rules import Rules

from .world import BLINDNESS, LOG, RULES, World

HOLD = 'held.append(simcuda.allocate("2GiB"))'


async def idle_kernel(world):
    """Start a kernel that holds memory and is idle long enough to be taken."""
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=15)
    return kernel_id


def acted(world):
    return [a for a in world.attendee.asked if not a.startswith("GET")]


async def test_an_idle_kernel_is_restarted_and_its_memory_is_free(world):
    kernel_id = await idle_kernel(world)
    old = world.attendee.kernels[kernel_id].process
    await world.reap()
    assert acted(world) == [
        f"POST /user/ada/api/kernels/{kernel_id}/restart?no_track_activity=1"
    ]
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED
    assert (event.user, event.devices) == ("ada", (world.devices[0].uuid,))
    assert event.details["freed_bytes"] == 2 * GIB
    assert event.details["idle_seconds"] >= 60
    assert event.details["needed"] is False
    assert event.details["kernel_id"] == kernel_id
    assert event.details["pid"] == old.pid
    assert "Idle for" in event.reason
    assert world.monitor.snapshot.holders == ()


async def test_needed_memory_is_taken_back_earlier(world):
    world.refuse_somebody()
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=6)
    await world.reap()
    (event,) = world.events()
    assert event.details["needed"] is True
    assert event.details["idle_seconds"] < 60


async def test_a_kernel_can_be_stopped_instead(tmp_path):
    rules = {**RULES, "idle": {**RULES["idle"], "action": "stop_kernel"}}
    world = await World(tmp_path, rules).open()
    kernel_id = await idle_kernel(world)
    await world.reap()
    assert acted(world) == [
        f"DELETE /user/ada/api/kernels/{kernel_id}?no_track_activity=1"
    ]
    (event,) = world.events()
    assert event.details["freed_bytes"] == 2 * GIB
    await world.close()


async def test_a_dry_run_says_once_what_it_would_do_and_does_nothing(tmp_path):
    rules = {**RULES, "idle": {**RULES["idle"], "dry_run": True}}
    world = await World(tmp_path, rules).open()
    kernel_id = await idle_kernel(world)
    for _ in range(3):
        await world.reap()
        await world.look()
    assert acted(world) == []
    assert [e.kind for e in world.events()] == [EventKind.RECLAIM_WOULD]
    # A new idle spell is said anew.
    world.attendee.kernels[kernel_id].state = "busy"
    await world.look()
    await world.reap()
    world.attendee.kernels[kernel_id].state = "idle"
    await world.look(times=15)
    await world.reap()
    assert len(world.events()) == 2
    await world.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda kernel: setattr(kernel, "state", "busy"),
        lambda kernel: setattr(kernel, "state", "starting"),
        lambda kernel: setattr(kernel, "state", "who knows"),
        lambda kernel: setattr(kernel, "last_activity", "2026-11-20T10:30:00Z"),
        lambda kernel: kernel.run("simcuda.compute(0.05)"),
        lambda kernel: kernel.run(
            "import subprocess; held.append(subprocess.Popen(['sleep', '60']))"
        ),
    ],
    ids=["busy", "starting", "unknown", "active", "computes", "new process"],
)
async def test_what_changed_since_the_decision_keeps_the_kernel(world, change):
    kernel_id = await idle_kernel(world)
    (due,) = world.monitor.due()
    assert due.kernel_id == kernel_id
    change(world.attendee.kernels[kernel_id])
    await world.reap()
    assert acted(world) == []
    assert world.events() == []


async def test_what_changed_in_the_very_last_moment_keeps_the_kernel(world):
    kernel_id = await idle_kernel(world)
    path = f"api/kernels/{kernel_id}"
    world.attendee.answers[path] = (
        200,
        {
            "id": kernel_id,
            "execution_state": "busy",
            "last_activity": world.attendee.kernels[kernel_id].last_activity,
        },
    )
    await world.reap()
    world.attendee.answers[path] = (404, b"")
    await world.look()
    await world.reap()
    assert acted(world) == []


async def test_a_busy_kernel_beside_an_idle_one_runs_on(world):
    idle = world.attendee.start_kernel()
    busy = world.attendee.start_kernel()
    for kernel_id in (idle, busy):
        world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("1GiB"))')
    world.attendee.kernels[busy].state = "busy"
    await world.look(times=40)
    await world.reap()
    assert [x.split("/")[5] for x in acted(world)] == [idle]
    assert world.attendee.kernels[busy].process.poll() is None


async def test_a_failure_is_told_and_tried_again_after_a_pause_that_grows(world):
    kernel_id = await idle_kernel(world)
    world.attendee.answers[f"api/kernels/{kernel_id}/restart"] = (500, b"")
    await world.reap()
    assert [e.kind for e in world.events()] == [EventKind.RECLAIM_FAILED]
    assert "status 500" in world.events()[0].reason
    await world.look(times=5)
    await world.reap()
    assert len(acted(world)) == 1
    await world.look(times=2)
    await world.reap()
    assert len(acted(world)) == 2
    await world.look(times=9)
    await world.reap()
    assert len(acted(world)) == 2
    del world.attendee.answers[f"api/kernels/{kernel_id}/restart"]
    await world.look(times=4)
    await world.reap()
    assert world.events()[-1].kind is EventKind.KERNEL_RECLAIMED


async def test_memory_that_stays_held_is_no_success(world):
    await idle_kernel(world)
    world.attendee.ignores_restart = True
    await world.reap()
    (event,) = world.events()
    assert event.kind is EventKind.RECLAIM_FAILED
    assert "still held" in event.reason


async def test_a_server_that_ends_no_restart_has_few_at_a_time(world):
    for _ in range(6):
        kernel_id = world.attendee.start_kernel()
        world.attendee.kernels[kernel_id].run(HOLD)
        path = f"api/kernels/{kernel_id}/restart"
        world.attendee.answers[path] = (200, asyncio.sleep)
    await world.look(times=15)
    for _ in range(2):
        world.reaper._seen_rounds = world.monitor.rounds - 1
        await world.reaper.step()
        while True:
            if len(acted(world)) == len(world.actor._acting):
                break
            await asyncio.sleep(0)
    assert len(acted(world)) == 4
    assert len(world.monitor.due()) == 6


@pytest.mark.parametrize("to", BLINDNESS)
async def test_memory_that_nobody_can_see_is_not_told_to_be_free(world, to):
    await idle_kernel(world)
    world.attendee.ignores_restart = True
    monitor = world.monitor
    (due,) = monitor.due()
    watched = monitor.kernels[due]
    world.blind(to)
    # What follows the restart is seen by nobody.
    monitor._host.lives = lambda process: asyncio.sleep(0, True)
    world.actor.begin(taking_of(due, watched))
    while world.actor._acting:
        await world.look(0.5)
    (event,) = world.events()
    assert event.kind is EventKind.RECLAIM_FAILED
    assert "unknown" in event.reason


async def test_what_was_told_before_a_dry_run_is_told_anew_after_it(tmp_path):
    rules = {**RULES, "idle": {**RULES["idle"], "notice": "15s"}}
    world = await World(tmp_path, rules).open()
    act = world.rules.workshop
    idle = act.idle.model_copy(update={"dry_run": True})
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=11)
    await world.reap()
    assert len(world.monitor.notices.standing) == 1
    world.rules.workshop = act.model_copy(update={"idle": idle})
    await world.look(times=5)
    await world.reap()
    assert world.monitor.notices.standing == ()
    world.rules.workshop = act
    await world.look()
    await world.reap()
    assert acted(world) == []
    assert len(world.monitor.notices.standing) == 1
    await world.close()


async def test_who_switches_to_a_dry_run_in_the_last_moment_is_heard(world):
    await idle_kernel(world)
    rules = json.dumps({**RULES, "idle": {**RULES["idle"], "dry_run": True}})
    dry = Rules(rules, LOG).workshop
    world.rules.refresh = lambda: setattr(world.rules, "workshop", dry)
    await world.reap()
    assert acted(world) == []


async def test_two_actions_on_one_kernel_never_overlap(world):
    kernel_id = await idle_kernel(world)
    # The server takes its time: the kernel stays due all the while.
    world.attendee.answers[f"api/kernels/{kernel_id}/restart"] = (200, asyncio.sleep)
    for _ in range(3):
        world.reaper._seen_rounds = world.monitor.rounds - 1
        await world.reaper.step()
        while True:
            if acted(world):
                break
            await asyncio.sleep(0)
        await world.look()
        assert len(world.monitor.due()) == 1
    assert len(acted(world)) == 1


TOLD_FIRST = {**RULES, "idle": {**RULES["idle"], "notice": "10s"}}


async def test_the_attendee_is_told_before_and_after(tmp_path):
    world = await World(tmp_path, TOLD_FIRST).open()
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=12)
    await world.reap()
    (notice,) = world.monitor.notices.standing
    assert (notice.user, notice.kernel_id) == ("ada", kernel_id)
    assert notice.seen_at is None
    assert "2 GiB" in notice.text
    assert 'choose "Keep for 30 min" on the page' in notice.text
    assert [e.kind for e in world.events()] == [EventKind.NOTICE_GIVEN]
    # The hub learns of it, and says when it stood on a page of hers.
    reply = await world.monitor.exchange(world.report)
    assert reply.notices == (notice,)
    await world.monitor.exchange(replace(world.report, seen=(notice.id,)))
    await world.look(times=4)
    await world.reap()
    taken = world.events()[-1]
    assert taken.kind is EventKind.KERNEL_RECLAIMED
    assert taken.details["notice_at"] == notice.given_at
    assert taken.details["notice_seen_at"] is not None
    (after,) = world.monitor.notices.standing
    assert "restarted" in after.text
    assert world.notes == [after.text]
    await world.close()


async def test_a_notice_is_withdrawn_when_its_owner_is_back(tmp_path):
    world = await World(tmp_path, TOLD_FIRST).open()
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look(times=12)
    await world.reap()
    world.attendee.kernels[kernel_id].state = "busy"
    await world.look()
    await world.reap()
    assert world.monitor.notices.standing == ()
    world.attendee.kernels[kernel_id].state = "idle"
    await world.look(times=3)
    await world.reap()
    assert acted(world) == []
    await world.close()


async def test_a_kernel_whose_main_thread_works_is_kept(world):
    await idle_kernel(world)
    world.at_rest = False
    await world.reap()
    assert acted(world) == []
    world.at_rest = True
    await world.look()
    await world.reap()
    assert len(acted(world)) == 1


async def test_a_service_beside_another_takes_nothing(world):
    await idle_kernel(world)
    world.reaper._why_not_act = lambda: "Another GPU service (pid 7) runs."
    await world.reap()
    assert acted(world) == []
    assert world.events() == []


async def test_why_and_the_readings_are_in_the_history(world):
    kernel_id = await idle_kernel(world)
    await world.reap()
    (event,) = world.events()
    assert event.details["kernel_id"] == kernel_id
    assert event.details["state"] == "idle"
    assert event.details["gpu_utilisation"] == 0.0
    assert event.details["connections"] == 1
    assert event.details["age_seconds"] is not None
    assert event.details["window_ms"] >= 0
    assert event.details["notice_at"] is None
