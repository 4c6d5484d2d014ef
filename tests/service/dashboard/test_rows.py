"""What pages are sent of a snapshot, and what nobody is sent of another's."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.idleness import KernelReading, KernelWatch
from jupyterhub_gpuworkshop.core.leases import LeasedDevice
from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.notices import Notice, NoticeKind
from jupyterhub_gpuworkshop.core.reclaim import Circumstances, decide
from jupyterhub_gpuworkshop.core.rules import Action, IdleRules
from jupyterhub_gpuworkshop.core.snapshot import (
    Glance,
    HolderKind,
    KernelState,
    LeaseUse,
    ProcessId,
)
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import Event, EventKind, Refusal
from jupyterhub_gpuworkshop.service.dashboard import rows as made
from jupyterhub_gpuworkshop.service.dashboard.messages import encode
from jupyterhub_gpuworkshop.service.dashboard.rows import EVERYBODY, Rows
from jupyterhub_gpuworkshop.service.store import Recorded
from jupyterhub_gpuworkshop.service.web.auth import Viewer
from tests.service.test_views import ADA, SNAPSHOT, holder, kernel, lease

NOTICES = tuple(
    Notice(id=f"n-{user}", kind=NoticeKind.KERNEL_IDLE, user=user, text="", given_at=1)
    for user in ("ada", "bob")
)


def rows_of(snapshot, before=None, why=lambda kernel: ""):
    return Rows(snapshot, why, before)


def recorded(number=1, user="ada", at=50.0, **details):
    event = Event(
        at=at,
        kind=EventKind.KERNEL_RECLAIMED,
        user=user,
        reason="Idle.",
        details=details,
    )
    return Recorded(id=number, origin="service", event=event)


def room_of(snapshot, before=None):
    return made.room(rows_of(snapshot, before), (), (), None)


def test_an_attendees_own_holds_nothing_of_anybody_else():
    snapshot = replace(SNAPSHOT, notices=NOTICES)
    events = [recorded(detail="bob is in the way", freed_bytes=5)]
    mine = made.mine(rows_of(snapshot), ADA, events, 7200.0)
    text = json.dumps(mine)
    for theirs in ("bob", '"pid": 22', '"pid": 33', '"pid": 44', "nobody"):
        assert theirs not in text
    assert [x["id"] for x in mine["leases"]] == ["lease-ada"]
    assert [x["notebook"] for x in mine["kernels"]] == ["ada/thesis.ipynb"]
    assert [x["pid"] for x in mine["holders"]] == [11]
    assert [x["id"] for x in mine["notices"]] == ["n-ada"]
    assert mine["events"][0]["details"] == {"freed_bytes": 5}
    assert mine["may"] == {"pin_seconds": 7200.0}


@pytest.mark.parametrize("name", ["", "eve"])
def test_who_has_nothing_is_sent_nothing_but_totals(name):
    rows = rows_of(replace(SNAPSHOT, notices=NOTICES))
    viewer = Viewer(name=name, attendee=name)
    mine = made.mine(rows, viewer, [], 60.0)
    kinds = ("leases", "kernels", "holders", "notices", "events")
    assert all(mine[kind] == [] for kind in kinds)
    assert mine["may"]["pin_seconds"] == (60.0 if name else 0)
    (device,) = rows.devices(with_problems=False)
    assert device["memory_total_bytes"] == 40
    assert "problem" not in device
    assert "memory_used_bytes" not in device


def idle(seconds, **more):
    return replace(
        kernel("ada"),
        idle_seconds=seconds,
        age_seconds=seconds + 500.0,
        verdict=f"Idle for {round(seconds)} s of 20 min, holding 2 GiB.",
        cpu=0.0012 + seconds / 1e5,
        device_utilisation=seconds / 1000,
        **more,
    )


def test_a_kernel_to_which_nothing_happens_has_the_same_row_all_the_time():
    rows, seen = None, []
    for seconds in range(60):
        # It is not looked at in the very instant of which the snapshot is.
        at = 100.0 + seconds + (0.4 if seconds % 3 else 0.0)
        snapshot = replace(
            SNAPSHOT, taken_at=at, kernels=(idle(float(seconds), acts_at=at - seconds),)
        )
        rows = rows_of(snapshot, rows)
        seen.append(rows.kernels(EVERYBODY))
    assert all(x == seen[0] for x in seen)
    (row,) = seen[0].values()
    assert (row["idle_since"], row["started_at"]) == (100.0, -400.0)
    assert row["verdict"] == "Idle (limit 20 min), holding 2 GiB."
    for counter in ("idle_seconds", "age_seconds", "device_utilisation"):
        assert counter not in row


def test_a_kernel_that_works_again_and_rests_is_idle_since_then():
    first = rows_of(replace(SNAPSHOT, taken_at=100.0, kernels=(idle(50.0),)))
    (before,) = first.kernels(EVERYBODY).values()
    busy = replace(kernel("ada"), state=KernelState.BUSY)
    second = rows_of(replace(SNAPSHOT, taken_at=105.0, kernels=(busy,)), first)
    (row,) = second.kernels(EVERYBODY).values()
    assert row["idle_since"] is None
    third = rows_of(replace(SNAPSHOT, taken_at=110.0, kernels=(idle(1.0),)), second)
    (after,) = third.kernels(EVERYBODY).values()
    assert (before["idle_since"], after["idle_since"]) == (50.0, 109.0)


def verdicts(case, seconds_each=7.0, rounds=200):
    """Return what is decided about a kernel that stays idle."""
    rules = IdleRules(
        after_seconds=1200.0,
        needed_after_seconds=600.0,
        min_memory_bytes=GIB,
        notice_seconds=300.0,
    )
    for number in range(rounds):
        at = 1000.0 + number * seconds_each
        reading = KernelReading(
            at=at,
            state=KernelState.IDLE,
            last_activity="",
            gpu_utilisation=0.0,
            device_utilisation=0.0,
            cpu_seconds=1.0,
            memory_bytes=2 * GIB,
            process=ProcessId(pid=1, started=1),
            members=frozenset(),
        )
        watch = KernelWatch(reading=reading, idle_since=1000.0)
        yield decide(watch, rules, at, case).reason


@pytest.mark.parametrize(
    "case",
    [
        Circumstances(needed=False, action=Action.PARK),
        Circumstances(needed=True, action=Action.PARK, noticed_at=1300.0),
        Circumstances(needed=False, action=Action.PARK, pinned="Kept by olga."),
    ],
)
def test_what_is_said_of_an_idle_kernel_changes_with_what_is_decided_alone(case):
    said = list(verdicts(case))
    shown = list(dict.fromkeys(map(made.without_times, said)))
    assert len(set(said)) > 20
    assert len(shown) <= 3
    assert not any("Idle for" in x for x in shown)


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("It is busy.", "It is busy."),
        ("Idle for 1 h 30 min of 2 h.", "Idle (limit 2 h)."),
        (
            "Idle for 45 s of 60 s, and somebody waits for a share: it is stopped in "
            "15 s if it stays idle.",
            "Idle (limit 60 s), and somebody waits for a share: it is stopped if it "
            "stays idle.",
        ),
        ("Idle, and it holds no GPU memory.", "Idle, and it holds no GPU memory."),
    ],
)
def test_sentences_lose_their_running_times_and_nothing_else(sentence, shown):
    assert made.without_times(sentence) == shown


def test_kernels_of_one_id_on_several_servers_are_several_rows():
    same = [
        replace(kernel("ada"), server=server, kernel_id=kernel_id)
        for server, kernel_id in (("", "b/c"), ("b", "c"), ("", "c"), ("b/c", ""))
    ]
    assert len(set(map(made.kernel_key, same))) == 4
    assert made.kernel_key(kernel("ada")) == "ada//kernel-ada"


def test_why_a_kernel_cannot_be_paused_stands_in_its_row():
    rows = rows_of(SNAPSHOT, why=lambda x: f"{x.user} uses several GPUs.")
    assert [x["why_not_pause"] for x in rows.kernels(ADA).values()] == [
        "ada uses several GPUs."
    ]


def test_what_has_changed_in_a_room_is_told_and_no_more():
    before = room_of(SNAPSHOT)
    same = room_of(replace(SNAPSHOT, taken_at=105.0))
    assert not made.is_change(made.room_changes(before, same))
    later = replace(
        SNAPSHOT,
        kernels=(replace(kernel("ada"), memory_bytes=9), kernel("eve")),
        holders=SNAPSHOT.holders[1:],
        problems=(),
    )
    changes = made.room_changes(before, room_of(later))
    assert made.is_change(changes)
    assert set(changes["kernels"]) == {
        "ada//kernel-ada",
        "bob//kernel-bob",
        "eve//kernel-eve",
    }
    assert changes["kernels"]["bob//kernel-bob"] is None
    assert changes["kernels"]["ada//kernel-ada"]["memory_bytes"] == 9
    assert changes["holders"] == {"11-1/GPU-0": None}
    assert (changes["leases"], changes["problems"]) == ({}, [])
    assert "waiting" not in changes


_MAP = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))
_ROOM = st.fixed_dictionaries(
    {
        **dict.fromkeys(("leases", "kernels", "holders", "notices"), _MAP),
        **dict.fromkeys(("problems", "waiting", "locked"), st.lists(st.integers(0, 1))),
        "announcement": st.none() | st.just({"text": "Lunch"}),
    }
)


@given(_ROOM, _ROOM)
def test_changes_make_the_one_picture_into_the_other(before, after):
    changes = made.room_changes(before, after)
    assert made.is_change(changes) == (before != after)
    patched = {**before, **changes}
    for name in ("leases", "kernels", "holders", "notices"):
        rows = {**before[name], **changes[name]}
        patched[name] = {key: x for key, x in rows.items() if x is not None}
    assert patched == after


def test_an_organiser_reads_who_waits_who_is_locked_out_and_what_is_announced():
    room = made.room(
        rows_of(SNAPSHOT),
        [Refusal(user="eve", server="", share="1/5", at=3.0)],
        [Locked(name="<b>", address="10.0.0.1", until=9.0)],
        Announcement(text="Lunch", at=1.0, until=None, by="olga"),
    )
    assert room["waiting"] == [{"user": "eve", "server": "", "share": "1/5", "at": 3.0}]
    assert room["locked"] == [{"name": "<b>", "address": "10.0.0.1", "until": 9.0}]
    assert room["announcement"]["text"] == "Lunch"
    assert room["problems"] == ["The server of bob is unknown."]


def wall_of(snapshot, with_names=False, events=()):
    return made.wall(
        rows_of(snapshot),
        waiting=2,
        freed_bytes=7,
        events=events,
        with_names=with_names,
    )


def test_what_is_announced_is_told_to_all_and_by_whom_not_on_the_wall():
    said = Announcement(text="Lunch", at=1.0, until=None, by="olga")
    told = made.mine(rows_of(SNAPSHOT), ADA, (), 60.0, said)["announcement"]
    assert told == {"text": "Lunch", "at": 1.0, "until": None, "by": "olga"}
    wall = made.wall(
        rows_of(SNAPSHOT),
        waiting=0,
        freed_bytes=0,
        events=(),
        with_names=False,
        announcement=said,
    )
    assert wall["announcement"] == "Lunch"
    assert "olga" not in json.dumps(wall)


def test_a_wall_names_nobody_unless_it_is_told_to():
    over = LeaseUse(lease_id="lease-bob", over_bytes={"GPU-0": 3})
    snapshot = replace(SNAPSHOT, uses=(over,), notices=NOTICES)
    events = [recorded(freed_bytes=4, notebook="ada/thesis.ipynb")]
    wall = wall_of(snapshot, events=events)
    for name in ("ada", "bob", "olga", "nobody", "lease-", "python"):
        assert name not in json.dumps({**wall, "leases": 0})
    assert wall["devices"]["GPU-0"] == [
        {"bytes": 5, "over": False, "user": ""},
        {"bytes": 10, "over": True, "user": ""},
        {"bytes": 5, "over": False, "user": ""},
    ]
    assert wall["events"] == [{"at": 50.0, "kind": "kernel_reclaimed", "bytes": 4}]
    assert (wall["leases"], wall["waiting"], wall["freed_bytes_today"]) == (2, 2, 7)
    named = wall_of(snapshot, with_names=True)["devices"]["GPU-0"]
    assert [x["user"] for x in named] == ["ada", "bob", ""]


def test_the_parts_of_a_bar_stay_where_they_are():
    second = replace(lease("zoe"), granted_at=2.0)
    snapshot = replace(SNAPSHOT, leases=(second, *SNAPSHOT.leases))
    for sizes in ((1, 2, 3), (3, 2, 1)):
        holders = tuple(
            replace(holder(user, pid), memory_bytes=size)
            for pid, (user, size) in enumerate(
                zip(("zoe", "bob", "ada"), sizes, strict=True)
            )
        )
        foreign = holder("", 99, HolderKind.FOREIGN)
        wall = wall_of(replace(snapshot, holders=(foreign, *holders)), with_names=True)
        names = [x["user"] for x in wall["devices"]["GPU-0"]]
        assert names == ["ada", "bob", "zoe", ""]


def test_a_lease_of_a_device_that_is_gone_breaks_no_wall():
    gone = LeasedDevice(uuid="GPU-9", label="9", memory_bytes=7, total_bytes=40)
    left = replace(holder("ada", 1), device="GPU-9")
    snapshot = replace(
        SNAPSHOT,
        leases=(replace(lease("ada"), devices=(gone,)),),
        uses=(LeaseUse(lease_id="lease-of-nobody", over_bytes={"GPU-9": 1}),),
        holders=(left, replace(holder("bob", 2), memory_bytes=None)),
    )
    assert wall_of(snapshot)["devices"] == {"GPU-0": []}


def test_readings_come_in_the_order_of_the_devices_and_what_is_unknown_is_null():
    glance = Glance(
        uuid="b",
        memory_total_bytes=9,
        memory_used_bytes=5,
        memory_free_bytes=4,
        utilisation=0.123456,
        power_watts=71.2345,
    )
    assert made.reading_rows(["a", "b"], {"b": glance}) == [
        [None, None, None, None],
        [5, 0.123, None, 71.2],
    ]


def test_what_is_no_text_and_no_number_arrives_as_json_all_the_same():
    odd = {"type": "x", "command": "\udcff<script>é", "part": math.nan, "l": [math.inf]}
    text = encode(odd)
    assert text.isascii()
    assert json.loads(text) == {**odd, "part": None, "l": [None]}
