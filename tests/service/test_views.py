"""Attendees see their own (design, rule 5)."""

import json
from dataclasses import replace

import pytest
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.enforcement import HardCap
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.notices import Notice, NoticeKind
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    HolderKind,
    KernelState,
    KernelView,
    LeaseUse,
    ProcessId,
    Snapshot,
)
from jupyterhub_gpuworkshop.service.web.auth import Viewer, said_by, viewer_of
from jupyterhub_gpuworkshop.service.web.views import own_notices, snapshot_view

ORGANISER = Viewer(name="olga", attendee=None)
ADA = Viewer(name="ada", attendee="ada")
READ = "custom:gpuworkshop:read"


def holder(user, pid, kind=HolderKind.KERNEL):
    return Holder(
        process=ProcessId(pid=pid, started=1),
        device="GPU-0",
        memory_bytes=5,
        utilisation=0.5,
        kind=kind,
        command=f"python secret-of-{user or 'nobody'}.py",
        lease_id=f"lease-{user}" if user else "",
        user=user,
        kernel_id=f"kernel-{user}" if user else "",
    )


def lease(user):
    part = LeasedDevice(uuid="GPU-0", label="0", memory_bytes=7, total_bytes=40)
    return Lease(
        id=f"lease-{user}",
        user=user,
        server="",
        share="1/5",
        devices=(part,),
        granted_at=1.0,
        reason=f"for {user}",
    )


def kernel(user):
    return KernelView(
        lease_id=f"lease-{user}",
        user=user,
        server="",
        kernel_id=f"kernel-{user}",
        notebook=f"{user}/thesis.ipynb",
        state=KernelState.IDLE,
        memory_bytes=5,
        verdict=f"about {user}",
    )


SNAPSHOT = Snapshot(
    taken_at=100.0,
    inventory=Inventory(
        devices=(Device(uuid="GPU-0", label="0", name="X", memory_bytes=40),)
    ),
    samples=(
        DeviceSample(
            uuid="GPU-0",
            memory_total_bytes=40,
            memory_used_bytes=15,
            memory_free_bytes=25,
            utilisation=0.25,
            problem="bob's process cannot be read",
        ),
    ),
    holders=(
        holder("ada", 11),
        holder("bob", 22),
        holder("", 33, HolderKind.FOREIGN),
        holder("bob", 44, HolderKind.UNATTRIBUTED),
    ),
    leases=(lease("ada"), lease("bob")),
    uses=(
        LeaseUse(lease_id="lease-ada", memory_bytes={"GPU-0": 5}, peak_memory_bytes=6),
        LeaseUse(lease_id="lease-bob", memory_bytes={"GPU-0": 5}, peak_memory_bytes=6),
    ),
    kernels=(kernel("ada"), kernel("bob")),
    needed=True,
    problems=("The server of bob is unknown.",),
)


def test_the_use_of_a_lease_is_told_only_where_all_of_it_is_known():
    uses = (replace(SNAPSHOT.uses[0], unknown=frozenset({"GPU-0"})), SNAPSHOT.uses[1])
    snapshot = replace(SNAPSHOT, uses=uses)
    for viewer, expected in ((ADA, [None]), (ORGANISER, [None, 5])):
        shown = snapshot_view(snapshot, viewer, 101.0)
        assert [x["memory_used_bytes"] for x in shown["leases"]] == expected
        on = [x["devices"][0] for x in shown["leases"]]
        assert [x["memory_used_bytes"] for x in on] == expected
        assert on[0]["over_bytes"] is None
    (unseen,) = snapshot_view(replace(SNAPSHOT, uses=()), ADA, 101.0)["leases"]
    assert unseen["memory_used_bytes"] is None


def test_an_attendee_finds_nothing_of_others_but_the_totals():
    text = json.dumps(snapshot_view(SNAPSHOT, ADA, 101.0))
    for theirs in ("bob", "22", "33", "44", "nobody"):
        assert theirs not in text
    for own in ("secret-of-ada", "ada/thesis.ipynb", "about ada", "for ada", "11"):
        assert own in text
    (device,) = json.loads(text)["devices"]
    assert device["memory_used_bytes"] == 15
    assert (device["leases"], device["promised_bytes"]) == (2, 14)


@pytest.mark.parametrize("name", ["", "eve"])
def test_who_has_nothing_sees_totals_alone(name):
    view = snapshot_view(SNAPSHOT, Viewer(name=name, attendee=name), 101.0)
    assert view["leases"] == view["kernels"] == view["holders"] == []
    assert view["devices"][0]["utilisation"] == 0.25


def test_an_organiser_sees_every_process_and_what_is_unknown():
    view = snapshot_view(SNAPSHOT, ORGANISER, 101.5)
    assert [h["pid"] for h in view["holders"]] == [11, 22, 33, 44]
    assert len(view["kernels"]) == len(view["leases"]) == 2
    assert view["problems"] == ["The server of bob is unknown."]
    assert (view["age_seconds"], view["needed"]) == (1.5, True)
    ours = view["leases"][0]
    assert (ours["memory_used_bytes"], ours["peak_memory_bytes"]) == (5, 6)


def test_who_looks_after_others_sees_their_own_of_the_newest_picture():
    snapshot_view(SNAPSHOT, ORGANISER, 101.0)
    theirs = snapshot_view(SNAPSHOT, ADA, 101.0)
    assert [x["user"] for x in theirs["kernels"]] == ["ada"]
    assert "problem" not in theirs["devices"][0]
    (device,) = snapshot_view(SNAPSHOT, ORGANISER, 101.0)["devices"]
    assert device["problem"] == "bob's process cannot be read"
    later = replace(SNAPSHOT, kernels=(kernel("bob"),), leases=())
    theirs = snapshot_view(later, ADA, 102.0)
    assert theirs["kernels"] == theirs["leases"] == []
    assert theirs["devices"][0]["leases"] == 0


def test_a_lease_tells_what_limits_it_and_whether_that_is_soft_or_hard():
    why = "run the GPU service as root"
    bobs = HardCap(lease_id="lease-bob", cgroup="/bob", by_device={"GPU-0": 7})
    picture = replace(
        SNAPSHOT, hard_caps=(HardCap(lease_id="lease-ada", problem=why), bobs)
    )
    ada, bob = snapshot_view(picture, ORGANISER, 101.0)["leases"]
    assert (ada["memory_limit"], ada["no_hard_limit"]) == ("soft", why)
    assert ada["memory_limits"][0] == {
        "applies_to": "all programs together",
        "kind": "none",
        "limit_bytes": None,
        "enforced_by": "nothing",
    }
    assert (bob["memory_limit"], bob["no_hard_limit"]) == ("hard", "")
    assert bob["memory_limits"][0] == {
        "applies_to": "all programs together",
        "kind": "hard",
        "limit_bytes": 7,
        "enforced_by": "the driver, on cgroup /bob",
    }
    (own,) = snapshot_view(picture, ADA, 101.0)["leases"]
    assert own["memory_limits"] == ada["memory_limits"]
    # How the machine is set up is none of an attendee's concern.
    assert own["no_hard_limit"] == ""
    assert "/bob" not in json.dumps(own)


def test_a_device_that_was_not_read_has_no_numbers():
    snapshot = Snapshot(inventory=SNAPSHOT.inventory)
    (device,) = snapshot_view(snapshot, ORGANISER, 1.0)["devices"]
    assert device["memory_used_bytes"] is None
    assert device["memory_total_bytes"] == 40


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"name": "a", "kind": "user", "scopes": [READ]}, "a"),
        ({"name": "a", "kind": "user", "scopes": [f"{READ}!user=a"]}, "a"),
        ({"name": "a", "kind": "service", "scopes": [READ]}, ""),
        ({"name": "a", "kind": "user", "scopes": ["admin-ui"]}, None),
        (
            {"name": "a", "kind": "service", "scopes": ["custom:gpuworkshop:admin"]},
            None,
        ),
    ],
)
def test_scopes_say_who_looks(model, expected):
    assert viewer_of(model).attendee == expected


@pytest.mark.parametrize(
    "scopes", [[], None, ["self"], ["custom:gpuworkshop:reading"], ["admin-ui!user=a"]]
)
def test_other_scopes_open_nothing(scopes):
    # An admin by flag alone has no scope either.
    model = {"name": "a", "kind": "user", "admin": True, "scopes": scopes}
    assert viewer_of(model) is None


@pytest.mark.parametrize(
    ("kind", "scope", "own"),
    [
        ("user", READ, ["n1"]),
        ("user", "admin-ui", ["n1"]),
        ("service", READ, []),
        ("service", "custom:gpuworkshop:admin", []),
    ],
)
def test_a_service_called_like_an_attendee_reads_no_notice_in_their_place(
    kind, scope, own
):
    viewer = viewer_of({"name": "ada", "kind": kind, "scopes": [scope]})
    notices = tuple(
        Notice(
            id=f"n{number}",
            kind=NoticeKind.KERNEL_IDLE,
            user=user,
            text="",
            given_at=1.0,
        )
        for number, user in enumerate(["bob", "ada", ""])
    )
    assert own_notices(replace(SNAPSHOT, notices=notices), viewer) == own


def test_an_error_says_what_was_written():
    assert said_by(HTTPError(400, "'5 %s' is no share")) == "'5 %s' is no share"
    assert said_by(HTTPError(400, "100% and more")) == "100% and more"
    assert said_by(HTTPError(404, "There is no %s", "kernel")) == "There is no kernel"
    assert said_by(HTTPError(403)) == ""
