"""The history: exactly once, bounded, and never in the way."""

import asyncio
import sqlite3
import stat
import threading
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.wire import Event, EventKind
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.store import Peak, Store


def event(sequence, user="ada"):
    return Event(
        sequence=sequence,
        at=1000.0 + sequence,
        kind=EventKind.LEASE_GRANTED,
        user=user,
        devices=("GPU-0",),
        reason="because",
        details={"share": "1/5"},
    )


def peak(memory_bytes, lease_id="lease-1", kernel_id="", at=1.0):
    return Peak(
        lease_id=lease_id,
        kernel_id=kernel_id,
        user="ada",
        server="",
        memory_bytes=memory_bytes,
        at=at,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "history.sqlite"


async def opened(path, **kwargs):
    history = History(path, **kwargs)
    await history.open()
    return history


def sequences(history, **kwargs):
    found = history.after(0, 1000, None, **kwargs)
    return [recorded.event.sequence for recorded in found]


async def test_events_sent_again_are_in_the_history_once(path):
    history = await opened(path)
    assert await history.take("hub", [event(1), event(2)]) == 2
    assert await history.take("hub", [event(3), event(1), event(2)]) == 3
    assert sequences(history) == [1, 2, 3]


async def test_also_after_a_restart_of_the_service(path):
    first = await opened(path)
    await first.take("hub", [event(1), event(2)])
    second = await opened(path)
    assert await second.take("hub", [event(2), event(3)]) == 3
    assert sequences(second) == [1, 2, 3]
    assert second.after(0, 1, None)[0].event == event(1)


async def test_another_life_of_the_hub_counts_from_one_again(path):
    history = await opened(path)
    await history.take("hub-1", [event(1), event(2)])
    assert await history.take("hub-2", [event(1)]) == 1
    assert [r.id for r in history.after(0, 10, None)] == [1, 2, 3]


async def test_the_services_own_events_are_kept_too(path):
    history = await opened(path)
    await history.take("hub", [event(1)])
    await history.add(replace(event(0), kind=EventKind.KERNEL_RECLAIMED))
    again = await opened(path)
    kinds = [r.event.kind for r in again.after(1, 10, None)]
    assert kinds == [EventKind.KERNEL_RECLAIMED]


async def test_events_are_read_by_user_and_in_portions(path):
    history = await opened(path)
    users = ["ada", "bob", "ada", "ada"]
    await history.take("hub", [event(i + 1, u) for i, u in enumerate(users)])
    assert [r.id for r in history.after(0, 2, "ada")] == [1, 3]
    assert [r.id for r in history.after(3, 2, "ada")] == [4]
    assert [r.id for r in history.latest(2, None)] == [4, 3]
    assert history.after(0, 10, "") == []


async def test_the_history_is_bounded_in_memory_and_on_disk(path):
    history = await opened(path, keep=5)
    await history.take("hub", [event(i) for i in range(1, 21)])
    for i in range(20):
        history.raise_peak(peak(1, lease_id=f"lease-{i}", at=float(i)))
    await history.flush()
    assert sequences(history) == [16, 17, 18, 19, 20]
    again = await opened(path, keep=5)
    assert sequences(again) == [16, 17, 18, 19, 20]
    assert again.peak_bytes("lease-19") == 1
    assert again.peak_bytes("lease-14") == 0


async def test_who_reads_their_own_finds_what_is_kept_and_no_more(path):
    history = await opened(path, keep=4)
    users = ["bob", "ada", "bob", "ada", "eve", "ada"]
    await history.take("hub", [event(i + 1, u) for i, u in enumerate(users)])
    for kept in (history, await opened(path, keep=4)):
        assert [r.id for r in kept.after(0, 10, None)] == [3, 4, 5, 6]
        assert [r.id for r in kept.after(0, 10, "ada")] == [4, 6]
        assert [r.id for r in kept.after(3, 1, "ada")] == [4]
        assert [r.id for r in kept.latest(10, "bob")] == [3]


async def test_peaks_only_rise_and_outlive_the_service(path):
    history = await opened(path)
    for memory_bytes in (5, 9, 7):
        history.raise_peak(peak(memory_bytes))
    history.raise_peak(peak(3, kernel_id="kernel"))
    await history.flush()
    history.raise_peak(peak(11))
    await history.flush()
    again = await opened(path)
    assert again.peak_bytes("lease-1") == 11
    assert again.peak_bytes("lease-1", "kernel") == 3
    assert again.peak_bytes("lease-2") == 0


async def test_nobody_else_may_read_it(path):
    history = await opened(path)
    await history.take("hub", [event(1)])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_of_a_newer_version_is_left_alone(path):
    await (await opened(path)).take("hub", [event(1)])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    history = await opened(path)
    assert "newer version" in history.problem
    assert await history.take("hub", [event(1)]) == 1
    assert sequences(history) == [1]


async def test_a_broken_file_costs_the_history_and_nothing_else(path):
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)
    history = await opened(path)
    assert "not a database" in history.problem
    assert await history.take("hub", [event(1), event(2)]) == 2
    await history.add(event(0))
    assert len(history.after(0, 10, None)) == 3
    # Once it is out of the way, all that is still in memory is written.
    path.unlink()
    await history.flush()
    assert history.problem == ""
    assert len((await opened(path)).after(0, 10, None)) == 3


async def test_an_event_that_nobody_can_read_costs_itself_and_nothing_else(path):
    first = await opened(path)
    await first.take("hub", [event(1), event(2), event(3)])
    with sqlite3.connect(path) as connection:
        connection.execute(
            'UPDATE events SET event = \'{"kind": "of 2030"}\' WHERE sequence = 2'
        )
    again = await opened(path)
    assert again.problem == ""
    assert sequences(again) == [1, 3]
    assert await again.take("hub", [event(4)]) == 4
    third = await opened(path)
    assert [x.id for x in third.after(0, 9, None)] == [1, 3, 4]
    # It may name somebody: with the first name that is forgotten it goes.
    assert await third.forget(["ada"], 9999.0)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM events").fetchall() == [
            (1,),
            (3,),
            (4,),
        ]
    connection.close()


async def test_what_was_there_before_a_bad_start_is_not_overwritten(path):
    await (await opened(path)).take("hub-1", [event(1), event(2)])
    aside = path.with_suffix(".aside")
    path.rename(aside)
    path.mkdir()
    history = await opened(path)
    assert history.problem
    path.rmdir()
    aside.rename(path)
    await history.take("hub-2", [event(1)])
    assert history.problem == ""
    assert len((await opened(path)).after(0, 10, None)) == 3


async def test_a_disk_that_hangs_holds_up_nobody(path, monkeypatch):
    history = await opened(path, timeout_seconds=0.05)
    gate = threading.Event()
    write = Store.write

    def hang(*args):
        gate.wait(60)
        write(*args)

    monkeypatch.setattr(Store, "write", hang)
    assert await history.take("hub", [event(1)]) == 1
    assert await history.take("hub", [event(2)]) == 2
    assert "has not answered" in history.problem
    gate.set()
    while history.problem:
        await history.flush()
        await asyncio.sleep(0)
    assert sequences(await opened(path)) == [1, 2]


async def test_without_a_file_it_is_kept_in_memory():
    history = await opened(None)
    assert await history.take("hub", [event(1)]) == 1
    history.raise_peak(peak(4))
    await history.flush()
    assert (sequences(history), history.problem) == ([1], "")
