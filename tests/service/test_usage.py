"""Usage over time: gaps where nothing was read, and never a wrong line."""

import asyncio
import sqlite3
from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.snapshot import Glance
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EVENT, Event, EventKind
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.host import Gpus
from jupyterhub_gpuworkshop.service.pulse import Pulse, Pulses
from jupyterhub_gpuworkshop.service.sampler import InThread
from jupyterhub_gpuworkshop.service.store import Peak
from jupyterhub_gpuworkshop.service.usage import Span, Usage
from jupyterhub_gpuworkshop.service.usage_rows import Series

START = 1_800_000_000.0
"""Begins a quarter of an hour, as all multiples of 900 do."""
DAY = 86_400.0


class Room:
    """The usage of one device, or of some, by a clock that the test moves."""

    def __init__(self, path=None, now=START, **kwargs):
        self.now = now
        self.ahead = 0.0  # of the wall clock before what has really passed
        self.history = History(path, clock=self.clock, **kwargs)
        self.pulses = Pulses(None)
        self.usage = Usage(
            self.pulses, self.history, clock=self.clock, wall=lambda: self.now
        )

    def clock(self):
        return self.now - self.ahead

    def leap(self, seconds):
        """Have the wall clock be set, and no time pass."""
        self.now += seconds
        self.ahead += seconds

    async def open(self):
        await self.history.open()
        # As the first step does, which would wait for a pulse then.
        await self.usage._open()
        self.usage._is_open = True
        return self

    def read(self, seconds=1, *, memory=GIB, devices=("GPU-a",), **told):
        """Have so many seconds pass, with a reading at the end of each."""
        for _ in range(seconds):
            self.now += 1
            readings = {uuid: glance(uuid, memory, **told) for uuid in devices}
            self.usage.take(Pulse(taken_at=self.now, readings=readings))

    def miss(self, seconds):
        """Have so many seconds pass in which nothing can be read."""
        for _ in range(int(seconds)):
            self.now += 1
            self.usage.take(Pulse(taken_at=self.now))

    def columns(self, span, uuid="GPU-a"):
        return self.usage.columns(span)[uuid]


def glance(uuid, memory, **told):
    return Glance(
        uuid=uuid,
        memory_total_bytes=16 * GIB,
        memory_used_bytes=memory,
        memory_free_bytes=16 * GIB - memory,
        **told,
    )


async def opened(*args, **kwargs):
    return await Room(*args, **kwargs).open()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "history.sqlite"


async def test_the_last_minutes_are_there_by_the_second_and_no_longer():
    room = await opened()
    room.read(5, utilisation=0.5, temperature_celsius=41.0, power_watts=100.25)
    columns = room.columns(Span.MINUTES)
    assert columns == {
        "at": [START + second for second in range(1, 6)],
        "memory_used_bytes": [GIB] * 5,
        "utilisation": [0.5] * 5,
        "temperature_celsius": [41.0] * 5,
        "power_watts": [100.2] * 5,
    }
    room.read(1000)
    at = room.columns(Span.MINUTES)["at"]
    assert (at[0], at[-1]) == (room.now - 900, room.now)


async def test_what_a_device_does_not_tell_is_unknown_and_breaks_its_line_alone():
    room = await opened()
    room.read(2)
    columns = room.columns(Span.MINUTES)
    assert columns["memory_used_bytes"] == [GIB] * 2
    assert columns["utilisation"] == [None] * 2


async def test_a_second_that_is_late_breaks_no_line_and_a_driver_that_is_gone_does():
    room = await opened()
    room.read(2)
    room.miss(2)
    room.read(1)
    assert None not in room.columns(Span.MINUTES)["memory_used_bytes"]
    room.miss(30)
    assert room.columns(Span.MINUTES)["memory_used_bytes"] == [GIB] * 3 + [None]
    room.read(1)
    columns = room.columns(Span.MINUTES)
    assert columns["memory_used_bytes"] == [GIB] * 3 + [None, GIB]
    assert columns["at"] == sorted(columns["at"])


async def test_a_minute_has_means_and_the_most():
    room = await opened()
    room.read(29, memory=GIB, utilisation=0.0, temperature_celsius=40, power_watts=100)
    room.read(30, memory=3 * GIB, utilisation=1.0, temperature_celsius=60)
    room.read(2)
    columns = room.columns(Span.DAY)
    assert columns["at"] == [START, START + 60]
    assert columns["memory_used_bytes"][0] == round(GIB * (29 + 90) / 59)
    assert columns["memory_used_max_bytes"][0] == 3 * GIB
    assert columns["utilisation"][0] == round(30 / 59, 3)
    assert columns["utilisation_max"][0] == 1.0
    assert columns["temperature_celsius"][0] == 60
    assert columns["power_watts"][0] == 100


async def test_a_minute_that_is_not_over_is_shown_as_far_as_it_has_gone():
    room = await opened()
    room.read(70)
    assert room.columns(Span.DAY)["at"] == [START, START + 60]
    room.read(2000)
    assert room.columns(Span.EVENT)["at"] == [START, START + 900, START + 1800]
    room.read(1)
    assert room.columns(Span.EVENT)["memory_used_bytes"] == [GIB] * 3


async def test_an_event_that_begins_is_a_line_and_not_a_point():
    room = await opened()
    room.read(70)
    assert room.columns(Span.EVENT)["at"] == [START, START + 60]
    room.read(1000)
    assert room.columns(Span.EVENT) == room.columns(Span.DAY)
    assert len(room.columns(Span.EVENT)["at"]) == 18
    room.read(1000)
    assert room.columns(Span.EVENT)["at"] == [START, START + 900, START + 1800]


async def test_an_hour_is_minutes_and_then_five_seconds_without_a_break():
    room = await opened()
    room.read(5000)
    columns = room.columns(Span.HOUR)
    at = columns["at"]
    steps = [later - earlier for earlier, later in pairwise(at)]
    assert None not in columns["memory_used_bytes"]
    assert set(steps[:40]) == {60.0}
    assert set(steps[-178:]) == {5.0}
    assert room.now - 3600 <= at[0] < room.now - 3500
    assert room.now - at[-1] <= 10


async def test_the_event_is_there_by_the_quarter():
    room = await opened()
    for _ in range(40):
        room.read(2, memory=2 * GIB)
        room.now += 118
    columns = room.columns(Span.EVENT)
    assert columns["at"] == [START + 900 * n for n in range(6)]
    assert columns["memory_used_bytes"] == [2 * GIB] * 6


async def test_after_a_restart_the_last_hour_is_there(path):
    room = await opened(path)
    room.read(4000, utilisation=0.25)
    before = room.columns(Span.DAY)
    await room.usage.close()
    again = await opened(path, now=room.now + 3)
    assert again.columns(Span.DAY) == before
    assert len(again.columns(Span.HOUR)["at"]) == 60
    again.read(100, utilisation=0.25)
    assert None not in again.columns(Span.HOUR)["utilisation"]
    assert again.columns(Span.EVENT)["at"] == [START + 900 * n for n in range(5)]


async def test_a_service_that_was_killed_leaves_all_but_the_last_minute(path):
    room = await opened(path)
    for _ in range(5):
        room.read(60)
        await room.usage.write()
    again = await opened(path, now=room.now + 600)
    columns = again.columns(Span.DAY)
    assert columns["at"][:-1] == [START + 60 * n for n in range(5)]
    # It was off for a while: the line ends.
    assert columns["memory_used_bytes"] == [GIB] * 5 + [None]


async def test_a_minute_is_written_once_it_is_over_and_no_sooner(path):
    room = await opened(path)
    room.read(1)
    await asyncio.wait_for(room.usage.write_when_due(), 30)
    room.read(50)
    assert not room.usage._is_due.is_set()
    room.read(10)
    await asyncio.wait_for(room.usage.write_when_due(), 30)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT step_seconds, at, device FROM usage")
        assert rows.fetchall() == [(60, int(START), "GPU-a")]


async def test_a_quarter_that_the_service_did_not_live_to_end_is_made_up_for(path):
    room = await opened(path)
    room.read(850)
    await room.usage.write()
    again = await opened(path, now=room.now + 600)
    assert again.columns(Span.EVENT)["at"][0] == START
    assert again.columns(Span.EVENT)["memory_used_bytes"][0] == GIB


async def test_a_disk_that_breaks_costs_only_the_time_before_a_restart(path):
    room = await opened(path)
    room.read(61)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    path.mkdir()
    room.read(120)
    await room.usage.write()
    assert "not on disk" in room.history.problem
    assert len(room.columns(Span.DAY)["at"]) == 4
    path.rmdir()
    aside.rename(path)
    room.read(60)
    await room.usage.write()
    assert room.history.problem == ""
    assert room.usage._unwritten == set()
    again = await opened(path, now=room.now)
    assert again.columns(Span.DAY)["at"] == [START + 60 * n for n in range(4)]


async def test_a_clock_set_back_leaves_nothing_that_lies_ahead(path):
    room = await opened(path)
    room.read(1300, memory=2 * GIB)
    await room.usage.write()
    room.now -= 600
    for span in Span:
        assert all(at <= room.now for at in room.columns(span)["at"]), span
    room.read(30, memory=GIB)
    for span in Span:
        columns = room.columns(span)
        assert columns["at"] == sorted(set(columns["at"])), span
        assert columns["at"][-1] <= room.now, span
    assert set(room.columns(Span.MINUTES)["memory_used_bytes"][-30:]) == {GIB}
    room.read(60)
    await room.usage.write()
    with closing(sqlite3.connect(path)) as connection:
        ((latest,),) = connection.execute("SELECT max(at) FROM usage").fetchall()
    assert latest <= room.now


async def test_a_device_that_is_gone_is_forgotten_when_its_last_row_is_too_old(path):
    room = await opened(path, keep_seconds=2 * DAY)
    room.read(61, devices=("GPU-a", "GPU-b"))
    room.now += DAY
    room.read(61)
    assert room.columns(Span.EVENT, "GPU-b")["memory_used_bytes"] == [GIB, None]
    room.now += 1.5 * DAY
    room.read(61)
    assert list(room.usage.columns(Span.EVENT)) == ["GPU-a"]


async def test_minutes_are_kept_for_a_day_and_quarters_as_the_organiser_says(path):
    room = await opened(path, keep_seconds=2 * DAY)
    room.read(61)
    room.miss(900)
    await room.usage.write()
    room.now += DAY
    room.read(61)
    await room.usage.write()
    assert room.columns(Span.DAY)["at"] == [START + 960 + DAY, START + 1020 + DAY]
    kept = "SELECT step_seconds, at FROM usage ORDER BY step_seconds, at"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(kept).fetchall() == [
            (60, int(START + 960 + DAY)),
            (900, int(START)),
        ]
    room.now += DAY
    room.read(61)
    await room.usage.write()
    with closing(sqlite3.connect(path)) as connection:
        steps = [step for step, at in connection.execute(kept) if at == START]
    assert steps == []


def event(sequence, at):
    return Event(
        sequence=sequence,
        at=at,
        kind=EventKind.LEASE_GRANTED,
        user="ada",
        devices=("GPU-0",),
        reason="because",
    )


def peak(lease_id, at):
    return Peak(lease_id=lease_id, user="ada", server="", memory_bytes=7, at=at)


async def test_events_and_peaks_go_with_their_age_and_ids_go_on(path):
    room = await opened(path, keep_seconds=DAY)
    await room.history.take("hub", [event(1, START), event(2, START + DAY)])
    room.history.raise_peak(peak("lease-1", START))
    room.history.raise_peak(peak("lease-2", START + DAY))
    await room.history.flush()
    room.now += DAY + 60
    await room.usage.write()
    for history in (room.history, (await opened(path)).history):
        assert [x.event.sequence for x in history.after(0, 10, None)] == [2]
        assert [x.event.sequence for x in history.after(0, 10, "ada")] == [2]
        assert history.peak_bytes("lease-1") == 0
        assert history.peak_bytes("lease-2") == 7
    room.now += DAY
    await room.usage.write()
    again = (await opened(path)).history
    assert again.after(0, 10, None) == []
    await again.take("hub", [event(3, room.now)])
    assert [recorded.id for recorded in again.after(2, 10, None)] == [3]


async def test_a_clock_that_leaps_ahead_for_a_while_costs_nothing_that_happened(path):
    room = await opened(path, keep_seconds=DAY)
    await room.history.take("hub", [event(1, START)])
    room.history.raise_peak(peak("lease-1", START))
    await room.history.flush()
    await room.usage.write()
    room.leap(9 * DAY)
    for _ in range(3):
        room.now += 60
        await room.usage.write()
    room.leap(-9 * DAY)
    room.now += 60
    await room.usage.write()
    for history in (room.history, (await opened(path)).history):
        assert [x.event.sequence for x in history.after(0, 10, None)] == [1]
        assert history.peak_bytes("lease-1") == 7


async def test_a_clock_that_stays_where_it_leapt_to_is_believed_after_a_day(path):
    room = await opened(path, keep_seconds=DAY)
    await room.history.take("hub", [event(1, START)])
    await room.usage.write()
    room.leap(9 * DAY)
    await room.usage.write()
    room.now += DAY - 60
    await room.usage.write()
    assert len(room.history.after(0, 10, None)) == 1
    room.now += 60
    await room.usage.write()
    assert room.history.after(0, 10, None) == []


async def test_a_clock_that_leaps_ahead_for_a_while_costs_no_usage(path):
    room = await opened(path, keep_seconds=2 * DAY)
    room.read(2000, devices=("GPU-a", "GPU-gone"))
    room.read(80)
    await room.usage.write()
    before = {span: room.usage.columns(span) for span in Span}
    room.leap(9 * DAY)
    room.miss(30)
    room.read(90)
    await room.usage.write()
    room.leap(-9 * DAY)
    room.read(61)
    await room.usage.write()
    again = await opened(path, now=room.now)
    for usage, span in (
        (room.usage, Span.MINUTES),
        (room.usage, Span.DAY),
        (room.usage, Span.EVENT),
        (again.usage, Span.DAY),
        (again.usage, Span.EVENT),
    ):
        since = room.now - (900 if span is Span.MINUTES else DAY)
        for uuid in ("GPU-a", "GPU-gone"):
            known = {at for at in before[span][uuid]["at"] if at >= since}
            assert known <= set(usage.columns(span)[uuid]["at"]), (span, uuid)


async def test_usage_goes_once_the_clock_has_stayed_where_it_leapt_to(path):
    room = await opened(path, keep_seconds=2 * DAY)
    room.read(1000)
    room.leap(9 * DAY)
    room.read(3000)
    # Of what grows by the second no more is kept, in doubt or not.
    assert len(room.usage._series["GPU-a"].seconds) <= 905
    assert room.columns(Span.EVENT)["at"][0] == START
    room.now += DAY
    room.read(61)
    await room.usage.write()
    leapt_at = START + 9 * DAY
    for rows in (room, await opened(path, now=room.now)):
        assert rows.columns(Span.EVENT)["at"][0] >= leapt_at


VERSION_1 = """
CREATE TABLE events (
    id INTEGER NOT NULL, origin VARCHAR NOT NULL, sequence INTEGER NOT NULL,
    event BLOB NOT NULL, PRIMARY KEY (id)
);
CREATE UNIQUE INDEX once_each ON events (origin, sequence);
CREATE TABLE peaks (
    lease_id VARCHAR NOT NULL, kernel_id VARCHAR NOT NULL, user VARCHAR NOT NULL,
    server VARCHAR NOT NULL, memory_bytes INTEGER NOT NULL, at FLOAT NOT NULL,
    PRIMARY KEY (lease_id, kernel_id)
);
PRAGMA user_version = 1;
"""


def write_version_1(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.executemany(
            "INSERT INTO events VALUES (?, 'hub', ?, ?)",
            [(n, n, EVENT.dump_json(event(n, START + n * DAY))) for n in (1, 2)],
        )
        connection.execute(
            "INSERT INTO peaks VALUES ('lease-1', '', 'ada', '', 7, ?)", (START,)
        )
        connection.commit()


async def test_a_file_of_before_usage_was_kept_loses_nothing(path):
    write_version_1(path)
    room = await opened(path, keep_seconds=2.5 * DAY, now=START + DAY)
    assert room.history.problem == ""
    found = room.history.after(0, 10, None)
    assert [x.event for x in found] == [event(n, START + n * DAY) for n in (1, 2)]
    assert room.history.peak_bytes("lease-1") == 7
    room.read(61)
    await room.history.take("hub", [event(3, room.now)])
    await room.usage.write()
    again = await opened(path, now=room.now)
    assert len(again.history.after(0, 10, None)) == 3
    assert again.columns(Span.DAY)["memory_used_bytes"] == [GIB]
    # Its events grow old as others do.
    room.now = START + 4 * DAY
    await room.usage.write()
    found = (await opened(path)).history.after(0, 10, None)
    assert [x.event.sequence for x in found] == [2]


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path):
    write_version_1(path)
    refuses = """
    CREATE TRIGGER refuses BEFORE UPDATE ON events WHEN old.id = 2
    BEGIN SELECT RAISE(ABORT, 'no'); END
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(refuses)
        connection.commit()
    room = await opened(path)
    assert "not on disk" in room.history.problem
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        assert connection.execute(tables).fetchall() == [("events",), ("peaks",)]
        assert len(connection.execute("SELECT * FROM events").fetchone()) == 4


async def test_without_a_file_usage_is_kept_in_memory():
    room = await opened(None)
    room.read(61)
    await room.usage.close()
    assert len(room.columns(Span.DAY)["at"]) == 2


async def test_a_service_that_ends_before_it_has_begun_waits_for_nothing(path):
    room = Room(path)
    await room.usage.close()
    assert not path.exists()


async def test_it_takes_in_what_the_pulse_reads(tmp_path):
    create_devices(tmp_path / "gpus", 2, 16 * GIB)
    sampler = InThread(lambda: SimulatedSource(tmp_path / "gpus"))
    gpus = Gpus("simulated", sampler, pause_seconds=5)
    pulses = Pulses(gpus, patience_seconds=30)
    history = History(None)
    await history.open()
    usage = Usage(pulses, history)
    await gpus.sample()
    stepping = asyncio.ensure_future(usage.step())
    await pulses.step()
    await stepping
    found = usage.columns(Span.MINUTES)
    assert list(found) == [device.uuid for device in gpus.inventory.devices]
    assert [x["memory_used_bytes"] for x in found.values()] == [[0], [0]]
    assert usage.rounds == 1
    # A reading that is shown again is taken once.
    usage.take(pulses.latest)
    assert usage.rounds == 1
    await gpus.close()


@given(
    st.lists(
        st.tuples(
            st.floats(-4000, 4000).map(lambda x: x / 4),
            st.integers(0, 15),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_rows_are_in_the_order_of_time_whatever_the_clock_does(moves):
    series, now = Series(3 * DAY), START
    for jump, steady, is_read in moves:
        now += jump
        for _ in range(steady):
            now += 1
            if is_read:
                series.take(now, (1.0, 0.5, 41.0, 100.0))
            else:
                series.settle(now)
        series.settle(now)
        for rows in (series.seconds, series.thin, series.minutes, series.quarters):
            assert list(rows.at) == sorted(set(rows.at))
            assert all(at <= now for at in rows.at)
            assert {len(column) for column in rows.columns.values()} == {len(rows)}
