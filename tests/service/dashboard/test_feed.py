"""What is made for those who look, how often, and what becomes of who does not read.

Sizes and counts; how long it takes is for the benchmarks.
"""

import asyncio
import json
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.wire import Event, EventKind
from jupyterhub_gpuworkshop.service.dashboard import feed as feed_module
from jupyterhub_gpuworkshop.service.dashboard.feed import Seat, View
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .big_room import BigRoom, kernel, later, picture

SMALL = picture(attendees=3, devices=2)


@pytest.fixture
async def room():
    made = BigRoom(SMALL)
    await made.history.open()
    yield made
    await made.close()


def read(messages):
    return [json.loads(message) for message in messages]


def kinds(messages):
    return [message["type"] for message in read(messages)]


def organiser(room, name="olga", view=View.ORGANISER, **more):
    return room.sit(name, view, organiser=True, **more)


def event(user, kind=EventKind.KERNEL_RECLAIMED, **details):
    return Event(at=4.0, kind=kind, user=user, reason="Idle.", details=details)


async def test_while_nobody_looks_nothing_is_made_or_waited_for(room):
    tasks = asyncio.all_tasks()
    for _ in range(5):
        await room.tick()
        await room.change(later(room.monitor.snapshot, 5.0))
    assert not room.messages.encoded
    assert room.messages._found == {}
    assert asyncio.all_tasks() == tasks
    pipe = room.sit("user-0")
    assert len(asyncio.all_tasks()) == len(tasks) + 2
    made = sum(room.messages.encoded.values())
    room.feed.drop(pipe.seat)
    await asyncio.sleep(0)
    for _ in range(5):
        await room.tick()
        await room.change(later(room.monitor.snapshot, 5.0))
    assert sum(room.messages.encoded.values()) == made
    assert room.messages._found == {}
    assert asyncio.all_tasks() == tasks


async def test_everything_is_encoded_once_however_many_look():
    room = BigRoom(picture(attendees=200, devices=8))
    await room.history.open()
    attendees = [room.sit(f"user-{n}") for n in range(200)]
    tabs = [room.sit(f"user-{n}") for n in range(10)]
    organisers = [organiser(room, f"o-{n}") for n in range(5)]
    walls = [organiser(room, f"w-{n}", View.WALL) for n in range(3)]
    named = organiser(room, "w", View.WALL, with_names=True)
    everybody = [*attendees, *tabs, *organisers, *walls, named]
    # The hellos name each one.
    assert room.messages.encoded.pop("hello") == len(everybody)
    assert room.messages.encoded == {
        "devices": 2,
        "tick": 1,
        "mine": 200,
        "room": 1,
        "wall": 2,
    }
    for pipe in everybody:
        pipe.take()
    room.messages.encoded.clear()
    for _ in range(3):
        await room.tick()
    assert room.messages.encoded == {"tick": 3}
    sent = [pipe.take() for pipe in everybody]
    assert {tuple(kinds(messages)) for messages in sent} == {("tick",) * 3}
    assert len({id(message) for messages in sent for message in messages}) == 3

    room.messages.encoded.clear()
    await room.change(later(room.monitor.snapshot, 5.0))
    assert not room.messages.encoded
    now = room.monitor.snapshot
    works = replace(now.kernels[0], memory_bytes=7)
    await room.change(replace(now, kernels=(works, *now.kernels[1:])))
    assert room.messages.encoded == {"mine": 1, "room": 1}
    assert kinds(attendees[0].take()) == kinds(tabs[0].take()) == ["mine"]
    assert attendees[1].take() == []
    changes = [pipe.take() for pipe in organisers]
    assert len({id(message) for messages in changes for message in messages}) == 1
    await room.close()


async def test_little_is_sent_where_little_changes_in_a_big_room():
    room = BigRoom(picture(attendees=500, devices=64))
    await room.history.open()
    olga = organiser(room)
    _, devices, full, tick = olga.take()
    whole = json.loads(full)
    assert len(whole["kernels"]) == 1500
    assert len(full) < 3_000_000
    assert len(devices) < 20_000
    assert len(tick) < 4000
    sent = 0
    for _ in range(10):
        await room.change(later(room.monitor.snapshot, 5.0))
        sent += sum(map(len, olga.take()))
    assert sent == 0
    now = room.monitor.snapshot
    works = replace(now.kernels[700], memory_bytes=7, verdict="It is busy.")
    await room.change(
        replace(now, kernels=(*now.kernels[:700], works, *now.kernels[701:]))
    )
    (changes,) = olga.take()
    assert len(changes) < 1500
    assert list(json.loads(changes)["kernels"]) == [f"user-233//{works.kernel_id}"]
    ada = room.sit("user-0")
    assert sum(map(len, ada.take())) < 40_000
    await room.close()


async def test_who_does_not_read_is_passed_over_and_catches_up(room):
    slow, quick, ada = organiser(room), organiser(room, "otto"), room.sit("user-0")
    first = slow.take()
    slow.is_drained = ada.is_drained = False
    ada.take()
    for number in range(10):
        await room.tick()
        now = room.monitor.snapshot
        works = replace(now.kernels[0], memory_bytes=number)
        await room.change(replace(now, kernels=(works, *now.kernels[1:])))
    assert slow.take() == ada.take() == []
    assert kinds(quick.take()).count("room") == 11
    slow.is_drained = ada.is_drained = True
    await room.tick()
    caught_up = read(slow.take())
    assert [x["type"] for x in caught_up] == ["room", "tick"]
    assert caught_up[0]["base"] is None
    assert caught_up[0]["version"] > json.loads(first[2])["version"]
    assert caught_up[0]["kernels"]["user-0//3f6c1d0e-user-0-0"]["memory_bytes"] == 9
    assert kinds(ada.take()) == ["mine", "tick"]
    await room.change(replace(SMALL, kernels=()))
    (changes,) = read(slow.take())
    assert changes["base"] == caught_up[0]["version"]


async def test_who_reads_nothing_for_a_minute_is_let_go(room):
    stalled, other = room.sit("user-0"), room.sit("user-1")
    stalled.is_drained = False
    for _ in range(60):
        await room.tick()
    assert stalled.ended is None
    await room.tick()
    assert (stalled.ended, other.ended) == (1013, None)
    assert room.feed.viewers == 1


async def test_what_changes_makes_the_first_picture_into_the_last(room):
    olga = organiser(room)
    seen = read(olga.take())[2]
    for number in range(4):
        snapshot = replace(
            later(room.monitor.snapshot, 5.0),
            kernels=(*SMALL.kernels[number:], kernel("eve", number, idle_seconds=1.0)),
            leases=SMALL.leases[number:],
            problems=(f"Problem {number}.",),
        )
        await room.history.add(event(f"user-{number}"))
        await room.change(snapshot)
        # The devices tell how many leases are on them.
        (changes,) = [x for x in read(olga.take()) if x["type"] == "room"]
        assert changes["base"] == seen["version"]
        for name in ("leases", "kernels", "holders", "notices"):
            rows = {**seen[name], **changes.pop(name)}
            changes[name] = {key: row for key, row in rows.items() if row is not None}
        changes["events"] += seen["events"]
        seen = {**seen, **changes}
    fresh = read(organiser(room, "otto").take())[2]
    assert fresh["base"] is None
    assert {**seen, "base": None} == fresh
    assert [x["user"] for x in fresh["events"]] == [f"user-{n}" for n in (3, 2, 1, 0)]


async def test_events_reach_those_whom_they_are_about(room):
    ada, bob = room.sit("user-0"), room.sit("user-1")
    wall = organiser(room, "w", View.WALL)
    for pipe in (ada, bob, wall):
        pipe.take()
    await room.history.add(event("user-0", freed_bytes=9, detail="for organisers"))
    await room.change(later(SMALL, 5.0))
    (mine,) = read(ada.take())
    assert [x["details"] for x in mine["events"]] == [{"freed_bytes": 9}]
    assert bob.take() == []
    (shown,) = read(wall.take())
    assert shown["events"] == [{"at": 4.0, "kind": "kernel_reclaimed", "bytes": 9}]


async def test_what_was_freed_today_is_told_of_today_alone(room):
    await room.history.add(replace(event("user-0", freed_bytes=9), at=1e9))
    room.messages._wall = lambda: 1e9 + 1.0
    wall = organiser(room, view=View.WALL)
    assert read(wall.take())[2]["freed_bytes_today"] == 9
    room.messages._wall = lambda: 1e9 + 3 * 86400
    await room.change(later(SMALL, 5.0))
    assert read(wall.take())[0]["freed_bytes_today"] == 0


async def test_names_that_are_forgotten_stay_on_no_page(room):
    await room.history.add(event("user-9"))
    olga = organiser(room)
    olga.take()
    await room.history.forget(["user-9"], 10.0)
    await room.change(later(SMALL, 5.0))
    (again,) = read(olga.take())
    assert again["base"] is None
    assert "user-9" not in json.dumps(again)


async def test_a_device_that_comes_or_goes_is_told_before_its_readings(room):
    ada, olga = room.sit("user-0"), organiser(room)
    version = read(ada.take())[1]["version"]
    olga.take()
    room.see(replace(SMALL, drained=frozenset({"GPU-1"})))
    await room.tick()
    devices, tick = read(ada.take())
    assert devices["version"] == tick["version"] > version
    assert [x["drained"] for x in devices["devices"]] == [False, True]
    assert "problem" not in devices["devices"][0]
    assert "problem" in read(olga.take())[0]["devices"][0]
    lost = replace(SMALL.inventory, devices=(), problem="The driver is gone.")
    room.see(replace(SMALL, inventory=lost))
    await room.tick()
    devices, tick = read(ada.take())
    assert (devices["devices"], tick["devices"]) == ([], [])
    assert "why_none" not in devices
    assert read(olga.take())[0]["why_none"] == "The driver is gone."


async def test_a_notice_is_seen_by_whom_it_was_handed_to_and_by_nobody_else(room):
    notices = room.monitor.notices
    notices.give(NoticeKind.KERNEL_IDLE, user="user-0", text="Soon.")
    room.see(replace(SMALL, notices=notices.standing))
    organiser(room)
    organiser(room, "user-0", View.ORGANISER)
    service = Viewer(name="user-0", attendee="", is_user=False)
    pipe = room.sit("user-1")
    seat = Seat(viewer=service, view=View.ATTENDEE, outlet=pipe)
    assert room.feed.take(seat)
    room.feed.begin(seat)
    assert notices.standing[0].seen_at is None
    stalled = room.sit("user-0")
    assert notices.standing[0].seen_at == 5.0
    # Not where the socket takes nothing.
    stalled.is_drained = False
    notices.give(NoticeKind.KERNEL_TAKEN, user="user-0", text="Gone.")
    await room.change(replace(SMALL, notices=notices.standing))
    assert notices.standing[1].seen_at is None
    stalled.is_drained = True
    await room.tick()
    assert notices.standing[1].seen_at == 5.0


async def test_no_more_look_than_there_are_seats(room, monkeypatch):
    monkeypatch.setattr(feed_module, "MOST", 4)
    pipes = [room.sit(f"user-{n}") for n in range(6)]
    assert [bool(pipe.messages) for pipe in pipes] == [True] * 4 + [False] * 2
    room.feed.drop(pipes[0].seat)
    assert room.sit("user-5").messages


async def test_the_hub_is_asked_about_a_few_at_a_time(room):
    pipes = [room.sit(f"user-{n}") for n in range(12)]
    gate = asyncio.Event()

    async def wait(pipe):
        pipe.asked += 1
        await gate.wait()
        return pipe.answer

    for pipe in pipes:
        pipe.ask = lambda pipe=pipe: wait(pipe)
    room.now += 1000
    for _ in range(4):
        await room.tick()
        await asyncio.sleep(0)
    assert sum(pipe.asked for pipe in pipes) == 5
    gate.set()
    for _ in range(10):
        await room.tick()
        await asyncio.sleep(0)
    assert [pipe.asked for pipe in pipes] == [1] * 12
    assert room.feed.viewers == 12


async def test_a_picture_that_cannot_be_made_is_felt_by_one_alone(
    room, monkeypatch, caplog
):
    ada, bob, olga = room.sit("user-0"), room.sit("user-1"), organiser(room)
    for pipe in (ada, bob, olga):
        pipe.take()
    made = room.messages.mine

    def broken(viewer):
        if viewer.name == "user-0":
            raise RuntimeError("a mistake")
        return made(viewer)

    monkeypatch.setattr(room.messages, "mine", broken)
    await room.tick()
    assert (ada.ended, bob.ended, olga.ended) == (feed_module.TRY_LATER, None, None)
    assert kinds(bob.take()) == kinds(olga.take()) == ["tick"]
    assert "What user-0 looks at cannot be made" in caplog.text
    assert "a mistake" in caplog.text
    await room.tick()
    assert kinds(bob.take()) == ["tick"]
    for pipe in (bob, olga):
        room.feed.drop(pipe.seat)
    tasks = asyncio.all_tasks()
    assert room.sit("user-0").ended == feed_module.TRY_LATER
    assert asyncio.all_tasks() == tasks
    monkeypatch.undo()
    again = room.sit("user-0")
    assert kinds(again.take()) == ["hello", "devices", "mine", "tick"]
