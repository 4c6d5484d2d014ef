"""Who uses more than the share is told, then loses idle kernels, and busy ones last."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service.watchdog import Watchdog

from .world import BLINDNESS, RULES, World

HOLD = 'held.append(simcuda.allocate("{}"))'


async def a_world(folder, over_share="idle_kernels", **idle):
    # Idle kernels are left alone for their idleness: this is about the share.
    rules = {
        **RULES,
        "idle": {**RULES["idle"], "needed_after": "1h", "after": "2h", **idle},
        "over_share": {"grace": "20s", "action": over_share},
    }
    world = await World(folder, rules).open()
    world.watchdog = Watchdog(
        world.monitor, world.actor, world.rules, world.history, clock=world.clock
    )
    return world


def start(world, size, state="idle"):
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD.format(size))
    world.attendee.kernels[kernel_id].state = state
    return kernel_id


async def watch(world, times):
    for _ in range(times):
        await world.look()
        await world.watchdog.step()
        while world.actor._acting:
            await world.look(0.5)


def restarted(world):
    return [a.split("/")[5] for a in world.attendee.asked if a.startswith("POST")]


def kinds(world):
    return [event.kind for event in world.events()]


async def test_two_kernels_that_exceed_the_share_together_are_told_of_first(tmp_path):
    world = await a_world(tmp_path)
    small, large = start(world, "1GiB"), start(world, "3GiB")
    await watch(world, 4)
    assert world.monitor.notices.standing == ()
    await watch(world, 1)
    (notice,) = world.monitor.notices.standing
    assert "4 GiB of GPU 0 where the share is 3 GiB" in notice.text
    assert kinds(world) == [EventKind.OVER_SHARE]
    await watch(world, 3)
    assert restarted(world) == []
    await watch(world, 2)
    assert restarted(world) == [large]
    assert world.attendee.kernels[small].process.poll() is None
    # What is left fits: nothing more is taken, and the notice is down.
    await watch(world, 12)
    assert restarted(world) == [large]
    assert "over_share" not in [n.kind.value for n in world.monitor.notices.standing]
    await world.close()


@pytest.mark.parametrize("action", ["notice", "idle_kernels"])
async def test_a_busy_kernel_is_not_touched_unless_the_organiser_says_so(
    tmp_path, action
):
    world = await a_world(tmp_path, action)
    start(world, "4GiB", state="busy")
    await watch(world, 20)
    assert kinds(world) == [EventKind.OVER_SHARE]
    assert restarted(world) == []
    await world.close()


async def test_where_the_organiser_says_so_the_largest_busy_one_goes_last(tmp_path):
    world = await a_world(tmp_path, "restart")
    idle, busy = start(world, "1GiB"), start(world, "4GiB", state="busy")
    await watch(world, 12)
    assert restarted(world) == [idle, busy]
    await world.close()


async def test_who_keeps_to_the_share_is_left_alone(tmp_path):
    world = await a_world(tmp_path, "restart")
    start(world, "3GiB", state="busy")
    await watch(world, 12)
    assert kinds(world) == []
    await world.close()


@pytest.mark.parametrize("to", BLINDNESS)
async def test_who_is_not_to_be_read_is_neither_told_nor_touched(tmp_path, to):
    world = await a_world(tmp_path, "restart")
    start(world, "4GiB", state="busy")
    see_again = world.blind(to)
    await watch(world, 12)
    assert kinds(world) == []
    assert restarted(world) == []
    # Once it can be read, the same is seen and told.
    see_again()
    await watch(world, 6)
    assert kinds(world) == [EventKind.OVER_SHARE]
    # And what was told stands no longer than it can be read.
    world.blind(to)
    await watch(world, 12)
    assert restarted(world) == []
    assert world.monitor.notices.standing == ()
    await world.close()


@pytest.mark.parametrize(
    ("idle_action", "said"),
    [
        ("park", "idle notebooks of yours are paused, their variables kept"),
        ("restart", "idle notebooks of yours are restarted, and their variables are"),
        ("stop_kernel", "idle notebooks of yours are stopped, and their variables are"),
    ],
)
async def test_the_notice_says_what_is_done_to_that_attendees_kernels(
    tmp_path, idle_action, said
):
    # Not what everybody else's kernels would meet.
    other = "restart" if idle_action != "restart" else "stop_kernel"
    world = await a_world(tmp_path, action=other, groups={"class": idle_action})
    info = replace(world.attendee.info, groups=("class",))
    world.report = replace(world.report, servers=(info,))
    start(world, "4GiB")
    await watch(world, 5)
    (notice,) = world.monitor.notices.standing
    assert f"In 20 s {said}" in notice.text
    assert "busy" not in notice.text
    await world.close()


async def test_the_notice_says_that_busy_ones_follow_where_they_do(tmp_path):
    world = await a_world(tmp_path, "restart")
    start(world, "4GiB", state="busy")
    await watch(world, 5)
    (notice,) = world.monitor.notices.standing
    assert "When no idle one is left, busy ones are restarted too, the" in notice.text
    await world.close()


async def test_a_notice_after_which_nothing_is_done_threatens_with_nothing(tmp_path):
    world = await a_world(tmp_path, "notice")
    start(world, "4GiB")
    await watch(world, 5)
    (notice,) = world.monitor.notices.standing
    assert notice.text.endswith("shut down notebooks that you do not need.")
    assert notice.acts_at is None
    await world.close()


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_the_act_is_recorded_with_the_notice_that_announced_it(tmp_path, state):
    world = await a_world(tmp_path, "restart")
    start(world, "4GiB", state)
    await watch(world, 5)
    (notice,) = world.monitor.notices.standing
    world.monitor.notices.mark_seen([notice.id])
    while not restarted(world):
        await watch(world, 1)
    taken = world.events()[-1]
    assert taken.kind is EventKind.KERNEL_RECLAIMED
    assert taken.details["notice_at"] == notice.given_at
    assert taken.details["notice_seen_at"] is not None
    await world.close()


async def test_a_notice_stands_until_what_it_announced_is_told(tmp_path):
    world = await a_world(tmp_path)
    kernel_id = start(world, "4GiB")
    await watch(world, 8)
    (notice,) = world.monitor.notices.standing
    told = world.actor.teller.taken

    async def late(*what):
        # The share is kept again, and the watchdog has seen it.
        await world.look()
        await world.watchdog.step()
        await told(*what)

    world.actor.teller.taken = late
    await watch(world, 1)
    assert restarted(world) == [kernel_id]
    assert world.events()[-1].details["notice_at"] == notice.given_at
    await watch(world, 1)
    assert notice not in world.monitor.notices.standing
    await world.close()


async def test_an_act_that_does_not_begin_is_not_told_anew(tmp_path):
    world = await a_world(tmp_path, "restart")
    start(world, "4GiB", state="busy")
    may, world.actor.may_act_on = world.actor.may_act_on, lambda owner: False
    await watch(world, 20)
    assert kinds(world) == [EventKind.OVER_SHARE]
    assert restarted(world) == []
    world.actor.may_act_on = may
    await watch(world, 1)
    assert len(restarted(world)) == 1
    await world.close()


async def test_a_dry_run_tells_and_takes_nothing(tmp_path):
    world = await a_world(tmp_path, "restart", dry_run=True)
    start(world, "4GiB", state="busy")
    await watch(world, 12)
    assert kinds(world) == []
    assert restarted(world) == []
    await world.close()


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_who_has_given_back_since_the_last_look_loses_nothing(tmp_path, state):
    world = await a_world(tmp_path, "restart")
    kernel_id = start(world, "4GiB", state=state)
    await watch(world, 5)
    assert EventKind.OVER_SHARE in kinds(world)
    for _ in range(5):
        await world.look()
    world.attendee.kernels[kernel_id].run("held.clear()")
    await world.watchdog.step()
    while world.actor._acting:
        await world.look(0.5)
    assert restarted(world) == []
    await world.close()
