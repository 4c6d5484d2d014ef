"""What a lease says, and the ledger as a value."""

from dataclasses import FrozenInstanceError, replace

import pytest

from jupyterhub_gpuworkshop.core.leases import (
    Lease,
    LeasedDevice,
    LeaseState,
    Ledger,
)
from jupyterhub_gpuworkshop.core.units import GIB


def lease(
    lease_id: str, user: str = "ada", server: str = "", *uuids: str, gib: int = 3
) -> Lease:
    return Lease(
        id=lease_id,
        user=user,
        server=server,
        share="1/5",
        devices=tuple(
            LeasedDevice(
                uuid=uuid,
                label=str(number),
                memory_bytes=gib * GIB,
                total_bytes=16 * GIB,
            )
            for number, uuid in enumerate(uuids)
        ),
        granted_at=1.0,
    )


def test_a_lease_names_its_owner_with_the_server_where_it_has_a_name():
    assert lease("1", "ada").owner == "ada"
    assert lease("1", "ada", "second").owner == "ada/second"


def test_a_server_named_like_a_line_of_the_log_stays_in_its_line():
    # An attendee may name a server anything.
    named = lease("1", "ada", "x\n[I] organiser grace unlocks ada\u202e\x1b[2J")
    assert named.owner == "ada/x [I] organiser grace unlocks ada  [2J"


def test_a_lease_says_what_it_may_use_of_each_device():
    two = lease("1", "ada", "", "GPU-a", "GPU-b")
    assert two.bytes_on("GPU-a") == two.bytes_on("GPU-b") == 3 * GIB
    assert two.bytes_on("GPU-c") == 0
    assert two.uuids == ("GPU-a", "GPU-b")


def test_a_ledger_is_not_changed_by_what_is_done_with_it():
    before = Ledger()
    after = before.with_lease(lease("1", "ada", "", "GPU-a"))
    after.without(["1"])
    after.quarantine("1")
    assert before == Ledger()
    assert list(after.leases) == ["1"]
    assert after.leases["1"].state is LeaseState.ACTIVE
    with pytest.raises(FrozenInstanceError):
        after.last_device = "GPU-b"  # type: ignore[misc]  # that is the point


def test_a_grant_is_remembered_for_round_robin_and_for_sticky():
    ledger = Ledger().with_lease(lease("1", "ada", "x", "GPU-a", "GPU-b"))
    assert ledger.last_device == "GPU-b"
    assert ledger.previous == {("ada", "x"): ("GPU-a", "GPU-b")}


def test_a_share_of_cpu_moves_neither_the_turn_nor_the_memory_of_a_device():
    ledger = Ledger().with_lease(lease("1", "ada", "", "GPU-a"))
    ledger = ledger.without(["1"]).with_lease(lease("2", "ada", ""))
    assert ledger.last_device == "GPU-a"
    assert ledger.previous == {("ada", ""): ("GPU-a",)}


def test_a_release_keeps_what_round_robin_and_sticky_need():
    ledger = Ledger().with_lease(lease("1", "ada", "", "GPU-a")).without(["1"])
    assert not ledger.leases
    assert ledger.last_device == "GPU-a"
    assert ledger.previous == {("ada", ""): ("GPU-a",)}


def test_a_release_of_what_is_gone_does_no_harm():
    ledger = Ledger().with_lease(lease("1", "ada", "", "GPU-a"))
    assert ledger.without(["nobody's", "nobody's"]) == ledger
    assert not ledger.without(["1", "1", "2"]).leases


def test_many_leases_are_released_at_once_from_any_iterable():
    ledger = Ledger()
    for number in range(4):
        ledger = ledger.with_lease(lease(str(number), f"u{number}", "", "GPU-a"))
    left = ledger.without(str(number) for number in range(3))
    assert list(left.leases) == ["3"]


def test_a_quarantined_lease_counts_in_full_but_is_nobodys_lease():
    ledger = Ledger().with_lease(lease("1", "ada", "", "GPU-a")).quarantine("1")
    assert ledger.of("ada", "") is None
    (kept,) = ledger.on("GPU-a")
    assert kept.state is LeaseState.QUARANTINED
    assert kept.bytes_on("GPU-a") == 3 * GIB


def test_a_lease_is_found_by_user_and_server_beside_a_quarantined_one():
    ledger = Ledger().with_lease(lease("old", "ada", "", "GPU-a")).quarantine("old")
    ledger = ledger.with_lease(lease("new", "ada", "", "GPU-b"))
    ledger = ledger.with_lease(lease("other", "ada", "second", "GPU-b"))
    found = ledger.of("ada", "")
    assert found is not None
    assert found.id == "new"
    assert ledger.of("ada", "third") is None
    assert ledger.of("bob", "") is None


def test_only_the_leases_of_a_device_are_on_it():
    ledger = Ledger().with_lease(lease("1", "ada", "", "GPU-a", "GPU-b"))
    ledger = ledger.with_lease(lease("2", "bob", "", "GPU-b"))
    ledger = ledger.with_lease(lease("3", "eve", ""))
    assert [x.id for x in ledger.on("GPU-b")] == ["1", "2"]
    assert [x.id for x in ledger.on("GPU-a")] == ["1"]
    assert ledger.on("GPU-c") == ()


def test_the_same_lease_written_twice_stands_once():
    one = lease("1", "ada", "", "GPU-a")
    ledger = Ledger().with_lease(one).with_lease(replace(one, reason="again"))
    assert [x.reason for x in ledger.leases.values()] == ["again"]


def test_a_user_or_one_server_of_theirs_is_forgotten() -> None:
    previous = dict.fromkeys((("ann", ""), ("ann", "x"), ("anna", "")), ("a",))
    ledger = Ledger(previous=previous, last_device="a")
    assert sorted(ledger.forgetting("ann", "x").previous) == [("ann", ""), ("anna", "")]
    assert sorted(ledger.forgetting("ann").previous) == [("anna", "")]
    assert ledger.forgetting("ann").last_device == "a"
