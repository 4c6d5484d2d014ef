"""A replayed workshop tells the innocent from the idle, and finds who does not."""

import pytest

from benchmarks import replay
from benchmarks.replay.people import Attendee, Doing, Kernel, Work, Workshop
from benchmarks.replay.room import Room
from benchmarks.replay.truth import Truth
from jupyterhub_gpuworkshop.core.rules import IdleRules
from jupyterhub_gpuworkshop.core.units import GIB


def test_in_a_replayed_workshop_only_the_service_hits_nobody_who_works():
    found = replay.play(seed=5, attendees=40, seconds=40 * 60)
    ours = found[replay.OURS]
    assert ours.false == ()
    assert ours.taken > 0
    assert ours.share > 0.75
    # A tab that is open saves what nobody uses, and no tab saves who trains.
    assert found[replay.KERNELS].share < 0.5 < ours.share
    assert "thread" in " ".join(found[replay.CONNECTED].false)
    assert found[replay.SERVERS].false
    assert found[replay.SERVERS].share < 0.5


def room_of_one(*works, needs=((0.0, 10_000.0),)):
    kernel = Kernel(id="one", memory_bytes=GIB, works=works)
    attendee = Attendee(
        name="ada",
        habit="",
        begin=0.0,
        kernels=(kernel,),
        terminals=(),
        tab=(),
        counts_messages=False,
    )
    workshop = Workshop(seed=0, seconds=10_000.0, attendees=(attendee,), needs=needs)
    rules = IdleRules(needed_after_seconds=1000, after_seconds=5000, notice_seconds=100)
    return Room(workshop, Truth(workshop, rules))


CELL = Work(begin=100.0, end=200.0, doing=Doing.CELL)


@pytest.mark.parametrize(
    ("works", "needs", "at", "is_false"),
    [
        ((CELL,), ((0.0, 1e4),), 150.0, True),
        ((CELL,), ((0.0, 1e4),), 1199.0, True),
        ((CELL,), ((0.0, 1e4),), 1200.0, False),
        ((CELL,), (), 1200.0, True),
        ((CELL,), (), 5200.0, False),
        (
            (CELL, Work(begin=200.0, end=3000.0, doing=Doing.THREAD)),
            ((0.0, 1e4),),
            2000.0,
            True,
        ),
    ],
    ids=["busy", "too early", "at the limit", "not needed", "too long", "thread"],
)
def test_what_is_false_is_a_matter_of_the_last_use_and_the_limit(
    works, needs, at, is_false
):
    room = room_of_one(*works, needs=needs)
    room.take("one", at, is_gone=False)
    assert [bool(taken.false) for taken in room.taken] == [is_false]
    room.take("one", at + 1, is_gone=False)
    assert len(room.taken) == 1  # it held nothing any more


def test_who_comes_back_while_a_kernel_is_about_to_end_is_told_apart():
    room = room_of_one(CELL, Work(begin=2000.0, end=2001.0, doing=Doing.CELL))
    room.take("one", 2000.5, is_gone=False, checked_at=1999.9)
    (taken,) = room.taken
    assert taken.raced
    assert not taken.false


@pytest.mark.parametrize(
    ("needs", "due_at"),
    [
        (((0.0, 1e4),), 1200.0),
        (((3000.0, 4000.0),), 3100.0),
        (((0.0, 1000.0),), 5200.0),
        ((), 5200.0),
    ],
    ids=["needed", "needed later: a notice first", "no more needed", "never"],
)
def test_the_oracle_takes_memory_at_the_limit(needs, due_at):
    room = room_of_one(CELL, needs=needs)
    (spell,) = room.truth.kernels["one"].spells
    assert (spell.begin, spell.returns) == (200.0, False)
    assert room.truth.due_at(spell) == due_at


def test_a_replay_is_the_same_again():
    first, second = (replay.play(seed=1, attendees=12, seconds=1800) for _ in range(2))
    assert first == second


def test_who_ignores_the_processor_hits_whoever_prepares_data(monkeypatch):
    monkeypatch.setattr(
        "jupyterhub_gpuworkshop.core.idleness._cpu_signal", lambda cpu, rules: ""
    )
    ours = replay.play(seed=5, attendees=40, seconds=40 * 60)[replay.OURS]
    assert "preprocessing thread" in " ".join(ours.false)
