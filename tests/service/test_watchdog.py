"""Who uses more than the share is told, then loses idle kernels, and busy ones last."""

import pytest

from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service.watchdog import Watchdog

from .world import RULES, World

HOLD = 'held.append(simcuda.allocate("{}"))'


async def a_world(folder, action="idle_kernels", **idle):
    # Idle kernels are left alone for their idleness: this is about the share.
    rules = {
        **RULES,
        "idle": {**RULES["idle"], "needed_after": "1h", "after": "2h", **idle},
        "over_share": {"grace": "20s", "action": action},
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


async def test_who_keeps_to_the_share_or_is_not_to_be_read_is_left_alone(tmp_path):
    world = await a_world(tmp_path, "restart")
    start(world, "3GiB", state="busy")
    await watch(world, 12)
    assert kinds(world) == []
    await world.close()


async def test_a_dry_run_tells_and_takes_nothing(tmp_path):
    world = await a_world(tmp_path, "restart", dry_run=True)
    start(world, "4GiB", state="busy")
    await watch(world, 12)
    assert kinds(world) == []
    assert restarted(world) == []
    await world.close()
