"""What people have done to kernels, and say to attendees: in a world of real parts."""

import asyncio
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import (
    ActForbidden,
    ActRefused,
    NothingThere,
    SourceLost,
)
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.machine.simulated_controls import fail_next
from jupyterhub_gpuworkshop.service.acts import Acts
from jupyterhub_gpuworkshop.service.asked_acts import AskedActs
from jupyterhub_gpuworkshop.service.haste import Haste
from jupyterhub_gpuworkshop.service.notices import Notices
from jupyterhub_gpuworkshop.service.parking import parked
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .parking_world import PARK, ParkingWorld
from .world import RULES, World

OLGA = Viewer(name="olga", attendee=None)
ADA = Viewer(name="ada", attendee="ada")
ROBOTS = Viewer(name="robots", attendee=None, is_user=False)
LATER = "2026-11-20T10:30:00Z"
HOLD = 'held.append(simcuda.allocate("{}"))'


def acts_of(world, **more):
    return AskedActs(world.monitor, world.actor, world.history, **more)


async def a_kernel(world, size="2GiB"):
    kernel_id = world.attendee.start_kernel()
    if size:
        world.attendee.kernels[kernel_id].run(HOLD.format(size))
    await world.look()
    return kernel_id


def owner_of(world, kernel_id):
    acts = Acts(world.monitor, world.rules, world.history)
    return acts.kernel(OLGA, kernel_id)


async def reclaim(world, viewer, kernel_id, action=Action.RESTART):
    """Ask for it, and wait for what comes of it."""
    owner = owner_of(world, kernel_id)
    said = await acts_of(world).reclaim(viewer, owner, action)
    await done(world)
    return said


async def done(world):
    while world.actor._acting:
        await world.look(0.5)
        await asyncio.sleep(0)


def posted(world):
    return [x for x in world.attendee.asked if not x.startswith("GET")]


def texts(world):
    return [x.text for x in world.monitor.notices.standing]


@pytest.mark.parametrize("viewer", [OLGA, ROBOTS])
async def test_an_organiser_restarts_a_busy_pinned_small_kernel_though_rules_run_dry(
    tmp_path, viewer
):
    rules = {**RULES, "idle": {**RULES["idle"], "dry_run": True}}
    world = await World(tmp_path, rules).open()
    kernel_id = await a_kernel(world, "64MiB")
    await world.monitor.pins.pin(owner_of(world, kernel_id), "ada", 3600)
    before = world.attendee.kernels[kernel_id]
    before.state = "busy"
    said = await reclaim(world, viewer, kernel_id)
    assert "it is restarted" in said
    assert before.process.poll() is not None
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED
    who = "Organiser olga" if viewer is OLGA else "The service robots"
    assert event.reason == f"{who} restarted it."
    assert event.details["by"] == viewer.name
    assert event.details["action"] == event.details["done"] == "restart"
    assert event.details["freed_bytes"] == 64 * 2**20
    (told,) = world.monitor.notices.standing
    assert (told.kind, told.user) == (NoticeKind.KERNEL_TAKEN, "ada")
    assert f"variables are gone. {who} restarted it." in told.text
    assert world.notes == [told.text]
    await world.close()


async def test_who_frees_a_kernel_of_their_own_need_not_be_told(world):
    kernel_id = await a_kernel(world)
    await reclaim(world, ADA, kernel_id, Action.STOP_KERNEL)
    (event,) = world.events()
    assert event.reason == "ada stopped it."
    assert event.details["freed_bytes"] == 2 * GIB
    assert kernel_id not in world.attendee.kernels
    assert (texts(world), world.notes) == ([], [])


async def test_a_kernel_without_gpu_memory_is_restarted_and_that_is_no_failure(world):
    kernel_id = await a_kernel(world, "")
    await reclaim(world, OLGA, kernel_id)
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED
    assert event.details["freed_bytes"] == 0
    assert len(texts(world)) == 1


async def test_a_kernel_is_restarted_while_no_gpu_can_be_read(world):
    kernel_id = await a_kernel(world)
    world.gpus.sample = _unreadable
    await world.look()
    assert world.monitor.snapshot.samples == ()
    await reclaim(world, OLGA, kernel_id)
    assert [x.kind for x in world.events()] == [EventKind.KERNEL_RECLAIMED]


async def _unreadable():
    raise SourceLost("The driver went away.")


async def test_two_who_ask_at_once_restart_a_kernel_once(world):
    kernel_id = await a_kernel(world)
    asked, owner = acts_of(world), owner_of(world, kernel_id)
    answers = await asyncio.gather(
        *(asked.reclaim(x, owner, Action.RESTART) for x in (OLGA, ADA, OLGA)),
        return_exceptions=True,
    )
    assert [isinstance(x, ActRefused) for x in answers] == [False, True, True]
    assert "already" in str(answers[1])
    assert not world.actor.may_act_on(owner), "the machine would act beside a person"
    await done(world)
    assert posted(world) == [
        f"POST /user/ada/api/kernels/{kernel_id}/restart?no_track_activity=1"
    ]
    assert len(world.events()) == 1


async def test_a_kernel_that_ends_meanwhile_is_told_and_another_is_not_hit(world):
    kernel_id = await a_kernel(world)
    owner = owner_of(world, kernel_id)
    # Its server gives the next one the same id.
    world.attendee.kernels[kernel_id].end()
    world.attendee.start_kernel(kernel_id)
    await acts_of(world).reclaim(OLGA, owner, Action.RESTART)
    await done(world)
    (event,) = world.events()
    assert event.kind is EventKind.RECLAIM_FAILED
    assert event.reason == (
        "Organiser olga wanted it restarted. It has ended, or is another one by now."
    )
    assert posted(world) == []
    assert texts(world) == []


async def test_a_process_that_only_has_the_number_of_the_one_meant_is_not_hit(world):
    kernel_id = await a_kernel(world)
    owner = owner_of(world, kernel_id)
    watched = world.monitor.kernels[owner]
    reading = watched.watch.reading
    earlier = replace(reading.process, started=reading.process.started - 1)
    watch = replace(watched.watch, reading=replace(reading, process=earlier))
    world.monitor.watching.kernels = {owner: replace(watched, watch=watch)}
    await acts_of(world).reclaim(OLGA, owner, Action.STOP_KERNEL)
    await done(world)
    assert [x.kind for x in world.events()] == [EventKind.RECLAIM_FAILED]
    assert world.attendee.kernels[kernel_id].process.poll() is None


async def test_a_kernel_that_is_gone_is_not_there(world):
    kernel_id = await a_kernel(world)
    owner = owner_of(world, kernel_id)
    world.attendee.kernels.pop(kernel_id).end()
    await world.look()
    with pytest.raises(NothingThere):
        await acts_of(world).reclaim(OLGA, owner, Action.RESTART)


@pytest.mark.parametrize("path", ["api/kernels/{}", "api/kernels/{}/restart"])
async def test_a_server_that_does_not_do_it_is_told_and_not_asked_again(world, path):
    kernel_id = await a_kernel(world)
    world.attendee.answers[path.format(kernel_id)] = (500, b"")
    await reclaim(world, OLGA, kernel_id)
    (event,) = world.events()
    assert event.kind is EventKind.RECLAIM_FAILED
    assert event.reason.startswith("Organiser olga wanted it restarted. ")
    assert "status 500" in event.reason
    assert "tried again" not in event.reason
    assert texts(world) == []
    # A person need not wait for the pause that the machine keeps.
    del world.attendee.answers[path.format(kernel_id)]
    await reclaim(world, OLGA, kernel_id)
    assert world.events()[-1].kind is EventKind.KERNEL_RECLAIMED


async def test_a_server_that_lies_is_no_success_and_nobody_is_told_a_lie(world):
    world.attendee.ignores_restart = True
    kernel_id = await a_kernel(world)
    await reclaim(world, OLGA, kernel_id)
    (event,) = world.events()
    assert event.kind is EventKind.RECLAIM_FAILED
    assert "still held" in event.reason
    assert texts(world) == []


async def test_who_lost_the_variables_is_told_whatever_became_of_the_memory(world):
    kernel_id = await a_kernel(world)
    world.actor._held_by = lambda processes: 2 * GIB
    await reclaim(world, OLGA, kernel_id)
    assert [x.kind for x in world.events()] == [EventKind.RECLAIM_FAILED]
    (told,) = texts(world)
    assert "was restarted" in told


async def test_nothing_is_done_while_another_service_acts(world):
    kernel_id = await a_kernel(world)
    asked = acts_of(world, why_not_act=lambda: "Another GPU service acts.")
    with pytest.raises(ActRefused, match="Another GPU service"):
        await asked.reclaim(OLGA, owner_of(world, kernel_id), Action.RESTART)
    with pytest.raises(ActRefused, match="Another GPU service"):
        await asked.give_notice(OLGA, "ada", "Hello")
    assert (posted(world), texts(world)) == ([], [])


async def test_where_nothing_can_be_paused_that_is_said_and_nothing_restarted(world):
    kernel_id = await a_kernel(world)
    with pytest.raises(ActRefused, match="cannot be paused: parking is not set up"):
        await reclaim(world, ADA, kernel_id, Action.PARK)
    assert (posted(world), world.events()) == ([], [])


def test_an_attendee_may_not_fill_the_history_with_what_is_asked_for():
    now = [1000.0]
    haste = Haste(lambda: now[0])
    bob = Viewer(name="bob", attendee="bob")
    for _ in range(12):
        now[0] += 2
        haste.count(ADA)
    with pytest.raises(ActRefused, match="12 things within a minute"):
        haste.count(ADA)
    haste.count(bob)
    for _ in range(100):
        haste.count(OLGA)
    now[0] += 38  # a minute after the first of them
    haste.count(ADA)
    with pytest.raises(ActRefused):
        haste.count(ADA)
    now[0] += 60
    haste.count(bob)
    assert set(haste._asked) == {"bob"}, "it is remembered for ever"


async def test_who_asks_without_end_is_stopped(world):
    kernel_id = await a_kernel(world, "")
    world.attendee.answers[f"api/kernels/{kernel_id}"] = (500, b"")
    asked, owner = acts_of(world), owner_of(world, kernel_id)
    refused = 0
    for _ in range(14):
        try:
            await asked.reclaim(ADA, owner, Action.RESTART)
        except ActRefused:
            refused += 1
        await done(world)
    assert refused == 2
    assert len(world.events()) == 12


@pytest.fixture
async def room(tmp_path):
    """A world that can park, in which the rules never do."""
    rules = {**PARK, "idle": RULES["idle"]}
    made = await ParkingWorld(tmp_path, rules).open()
    yield made
    await made.close()


async def test_a_kernel_is_paused_at_a_persons_word_and_back_with_the_next_cell(room):
    kernel_id = await room.hold()
    await room.look()
    kernel = room.attendee.kernels[kernel_id]
    # It was used after the last look, and is at rest by now.
    kernel.last_activity = LATER
    await reclaim(room, OLGA, kernel_id, Action.PARK)
    (event,) = room.events()
    assert event.reason == "Organiser olga paused it."
    assert (event.details["done"], event.details["freed_bytes"]) == ("park", 2 * GIB)
    assert "variables are kept" in texts(room)[0]
    await room.step(3)
    assert len(room.parking.parked) == 1, "it came back by itself"
    kernel.last_activity = "2026-11-20T10:31:00Z"
    await room.step(2)
    assert room.parking.parked == ()
    kernel.run("assert precious == 42")
    assert posted(room) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_what_works_is_not_paused_for_it_would_come_back_at_once(room, when):
    kernel_id = await room.hold()
    kernel = room.attendee.kernels[kernel_id]
    if when == "before":
        kernel.state = "busy"
    await room.look()
    if when == "before":
        with pytest.raises(ActRefused, match="works just now"):
            await reclaim(room, OLGA, kernel_id, Action.PARK)
        assert room.events() == []
    else:
        room.at_rest = False
        await reclaim(room, OLGA, kernel_id, Action.PARK)
        (event,) = room.events()
        assert event.kind is EventKind.RECLAIM_FAILED
        assert event.reason == (
            "Organiser olga wanted it paused. It was left alone: it works just now."
        )
    assert room.parking.parked == ()
    assert posted(room) == []


async def test_a_move_that_fails_restarts_nothing(room):
    kernel_id = await room.hold()
    await room.look()
    fail_next(room.simulation, "park")
    await reclaim(room, ADA, kernel_id, Action.PARK)
    (event,) = room.events()
    assert event.kind is EventKind.RECLAIM_FAILED
    assert event.reason.startswith("ada wanted it paused. Not paused: ")
    assert posted(room) == []
    room.attendee.kernels[kernel_id].run("assert precious == 42")


@pytest.mark.parametrize("action", [Action.RESTART, Action.STOP_KERNEL])
@pytest.mark.parametrize("viewer", [OLGA, ADA])
async def test_a_paused_kernel_is_ended_and_nobody_says_that_it_came_back(
    room, action, viewer
):
    kernel_id = await room.hold()
    await room.look()
    await reclaim(room, OLGA, kernel_id, Action.PARK)
    await room.look()
    with pytest.raises(ActRefused, match="paused already"):
        await reclaim(room, viewer, kernel_id, Action.PARK)
    owner = owner_of(room, kernel_id)
    await acts_of(room).reclaim(viewer, owner, action)
    # Its owner runs a cell at the same time, and it is looked for that all along.
    room.attendee.kernels[kernel_id].last_activity = LATER
    while room.actor._acting:
        await room.step()
        await room.look(0.5)
    await room.step(2)
    assert room.kinds()[-1] is EventKind.KERNEL_RECLAIMED, "and then it came back"
    assert room.kinds().count(EventKind.KERNEL_RECLAIMED) == 2
    assert room.parking.parked == ()
    assert not any("paused" in text for text in texts(room))
    assert len(texts(room)) == (1 if viewer is OLGA else 0)
    await room.look()
    assert [x.parked_at for x in room.monitor.snapshot.kernels] in ([None], [])


async def test_a_move_that_hangs_holds_up_nobody_for_ever(room, monkeypatch):
    kernel_id = await room.hold()
    await room.look()
    await reclaim(room, OLGA, kernel_id, Action.PARK)
    await room.look()
    monkeypatch.setattr(parked, "_STILL_SECONDS", 0.05)
    async with room.parking._mover.turn([room.devices[0].uuid]):
        await reclaim(room, OLGA, kernel_id)
    assert room.kinds()[-1] is EventKind.RECLAIM_FAILED
    assert room.events()[-1].reason.endswith("on its GPU has not come back.")
    assert posted(room) == []
    await reclaim(room, OLGA, kernel_id)
    assert room.kinds()[-1] is EventKind.KERNEL_RECLAIMED


async def test_a_notice_of_an_organisers_stands_until_another_or_until_it_is_read():
    now = [1000.0]
    notices = Notices(wall=lambda: now[0])
    for text in ("one", "two"):
        notices.give(NoticeKind.FROM_ORGANISER, user="ada", text=text)
    (notice,) = notices.standing
    assert notice.text == "two"
    now[0] += 3600
    notices.expire()
    assert notices.standing
    notices.mark_seen([notice.id])
    now[0] += 301
    notices.expire()
    assert notices.standing == ()
    notices.give(NoticeKind.FROM_ORGANISER, user="ada", text="nobody reads it")
    now[0] += 12 * 3600 + 1
    notices.expire()
    assert notices.standing == ()


async def test_an_organiser_says_something_to_who_is_here(world):
    await world.look()
    asked = acts_of(world)
    said = await asked.give_notice(OLGA, "ada", " Please use <GPU 1>. ")
    assert said.startswith("ada reads it")
    reply = await world.monitor.exchange(world.report)
    (notice,) = reply.notices
    assert (notice.kind, notice.user) == (NoticeKind.FROM_ORGANISER, "ada")
    assert notice.text == "Organiser olga: Please use <GPU 1>."
    (event,) = world.events()
    assert event.kind is EventKind.NOTICE_GIVEN
    assert (event.user, event.details["by"]) == ("ada", "olga")
    with pytest.raises(ActForbidden):
        await asked.give_notice(ADA, "ada", "Hello")
    for nobody in ("bob", ""):
        with pytest.raises(NothingThere):
            await asked.give_notice(OLGA, nobody, "Hello")
    with pytest.raises(ValueError, match="501 characters"):
        await asked.give_notice(OLGA, "ada", "x" * 501)
    assert len(world.events()) == 1
