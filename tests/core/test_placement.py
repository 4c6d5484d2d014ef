"""Placement: each sentence of what was promised to attendee and organiser."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Ledger
from jupyterhub_gpuworkshop.core.placement import (
    Granted,
    Policy,
    is_excluded,
)
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import GIB
from tests.core.rooms import KEEP_FREE, RULES, TRY_AGAIN, Room, gpus, use, uuid

# -- round-robin


def test_twelve_attendees_on_four_gpus_are_three_on_each():
    room = Room(gpus(4))
    given = [lease.devices[0].label for lease in room.fill(12)]
    assert given == ["0", "1", "2", "3"] * 3
    assert room.spread() == [3, 3, 3, 3]


@pytest.mark.parametrize("last", range(4))
def test_a_tie_goes_to_the_next_after_the_last_given_and_round(last: int):
    room = Room(gpus(4), ledger=Ledger(last_device=uuid(last)))
    given = [lease.devices[0].label for lease in room.fill(4)]
    assert given == [str((last + 1 + step) % 4) for step in range(4)]


def test_the_turn_goes_on_after_the_last_given_also_when_its_lease_is_gone():
    room = Room(gpus(4))
    first, second = room.fill(2)
    room.leave(first)
    room.leave(second)
    assert room.arrive().devices[0].label == "2"


def test_the_turn_goes_on_after_a_last_given_that_is_full():
    room = Room(gpus(3), ledger=Ledger(last_device=uuid(0)))
    room.arrive(Share.parse("1 gpu"))
    assert room.ledger.last_device == uuid(1)
    assert [x.devices[0].label for x in room.fill(2)] == ["2", "0"]


@pytest.mark.parametrize("how", ["lost", "excluded"])
def test_the_turn_goes_on_after_a_last_given_that_takes_no_more(how: str):
    room = Room(gpus(4), ledger=Ledger(last_device=uuid(1)))
    if how == "lost":
        devices = list(room.inventory.devices)
        devices[1] = replace(devices[1], lost=True)
        room.inventory = replace(room.inventory, devices=tuple(devices))
    else:
        room.rules = replace(RULES, exclude=("1",))
    assert [x.devices[0].label for x in room.fill(4)] == ["2", "3", "0", "2"]


def test_a_last_given_that_is_gone_from_the_machine_stops_nobody():
    room = Room(gpus(3), ledger=Ledger(last_device="GPU-gone"))
    assert [x.devices[0].label for x in room.fill(3)] == ["0", "1", "2"]


def test_an_arrival_goes_where_somebody_left_before_it_goes_on():
    room = Room(gpus(4))
    leases = room.fill(8)
    room.leave(leases[1])
    assert room.arrive().devices[0].label == "1"


def test_a_gpu_with_fewer_leases_that_has_no_room_is_passed_over():
    room = Room(gpus(2))
    room.arrive(Share.parse("15GiB"))
    room.arrive(Share.parse("1GiB"))
    room.arrive(Share.parse("1GiB"))
    assert room.spread() == [1, 2]


def test_several_whole_gpus_are_the_next_ones_in_turn():
    room = Room(gpus(4), ledger=Ledger(last_device=uuid(2)))
    assert room.arrive(Share.parse("2 gpus")).uuids == (uuid(3), uuid(0))
    assert room.arrive(Share.parse("2 gpus")).uuids == (uuid(1), uuid(2))


# -- the other policies


def test_least_used_takes_the_most_free_memory_as_observed():
    room = Room(gpus(3), rules=replace(RULES, policy=Policy.LEAST_USED))
    uses = use(0, 9 * GIB) | use(1, 12 * GIB) | use(2, 10 * GIB)
    assert room.arrive(uses=uses).devices[0].label == "1"


def test_least_used_spreads_a_storm_that_sees_one_observation():
    room = Room(gpus(4), rules=replace(RULES, policy=Policy.LEAST_USED))
    uses = use(0, 15 * GIB) | use(1, 15 * GIB) | use(2, 15 * GIB) | use(3, 15 * GIB)
    for _ in range(12):
        room.arrive(Share.parse("1GiB"), uses=uses)
    assert room.spread() == [3, 3, 3, 3]


def test_pack_fills_one_gpu_before_the_next():
    room = Room(gpus(3), rules=replace(RULES, policy=Policy.PACK))
    given = [lease.devices[0].label for lease in room.fill(11)]
    assert given == ["0"] * 5 + ["1"] * 5 + ["2"]


def test_pack_goes_on_with_the_fullest_after_departures():
    room = Room(gpus(2), rules=replace(RULES, policy=Policy.PACK))
    leases = room.fill(8)
    for lease in leases[:3]:
        room.leave(lease)
    assert room.spread() == [2, 3]
    assert room.arrive().devices[0].label == "1"


# -- sticky


@pytest.mark.parametrize("policy", list(Policy))
def test_who_comes_back_gets_the_same_gpu_if_it_has_room(policy: Policy):
    room = Room(gpus(4), rules=replace(RULES, policy=policy, sticky=True))
    room.fill(6)
    back = room.arrive(user="ada")
    room.leave(back)
    room.fill(3)
    again = room.ask(user="ada")
    assert isinstance(again, Granted)
    assert again.devices == back.devices
    assert "sticky" in again.reason
    assert back.devices[0].label in again.reason


def test_who_comes_back_goes_where_there_is_room_when_the_same_gpu_is_full():
    room = Room(gpus(2), rules=replace(RULES, sticky=True))
    back = room.arrive(user="ada")
    room.leave(back)
    room.fill(9)
    spread = room.spread()
    assert sorted(spread) == [4, 5]
    again = room.arrive(user="ada")
    assert again.devices[0].label == str(spread.index(4))


def test_who_comes_back_for_several_gpus_gets_as_many_of_the_same_as_there_are():
    room = Room(gpus(4), rules=replace(RULES, sticky=True))
    room.fill(2)
    back = room.arrive(Share.parse("2 gpus"), user="ada")
    assert back.uuids == (uuid(2), uuid(3))
    room.leave(back)
    for lease in room.fill(1):
        assert lease.uuids == (uuid(2),)
    room.leave(next(iter(room.ledger.leases.values())))
    again = room.arrive(Share.parse("2 gpus"), user="ada")
    assert again.uuids == (uuid(3), uuid(0))


def test_without_sticky_nobody_is_held_to_a_gpu():
    room = Room(gpus(4))
    back = room.arrive(user="ada")
    room.leave(back)
    assert room.arrive(user="ada").uuids == (uuid(1),)


# -- shares


def test_a_share_of_cpu_needs_no_gpu_at_all():
    for room in (Room(Inventory(problem="no driver")), Room(gpus(1))):
        for text in ("cpu", "none"):
            outcome = room.ask(Share.parse(text))
            assert isinstance(outcome, Granted)
            assert outcome.devices == ()


def test_a_whole_gpu_stands_alone():
    room = Room(gpus(2))
    alone = room.arrive(Share.parse("1 gpu"))
    assert alone.devices[0].memory_bytes == 16 * GIB - KEEP_FREE
    assert {x.uuids for x in room.fill(5)} == {(uuid(1),)}
    refusal = room.refused()
    assert "GPU 0: taken whole" in refusal.reason
    room.leave(alone)
    assert room.arrive().uuids == (uuid(0),)


def test_a_whole_gpu_is_not_one_with_somebody_on_it():
    room = Room(gpus(2))
    room.fill(1)
    assert room.arrive(Share.parse("1 gpu")).uuids == (uuid(1),)
    assert room.refused(Share.parse("1 gpu"))


@pytest.mark.parametrize(("spare", "fit"), [(0, 2), (-1, 1)])
def test_the_last_byte_is_not_promised_twice(spare: int, fit: int):
    device = replace(gpus(1).devices[0], memory_bytes=8 * GIB + KEEP_FREE + spare)
    room = Room(Inventory(devices=(device,)))
    share = Share.parse("4GiB")
    room.fill(fit, share)
    assert room.refused(share).reason.startswith(f"The GPU is taken: {fit} of {fit} ")


def test_a_quarantined_lease_takes_its_share_in_full():
    room = Room(gpus(1))
    for lease in room.fill(5):
        room.ledger = room.ledger.quarantine(lease.id)
    assert room.refused().reason.startswith("The GPU is taken: 5 of 5 shares.")


def test_mig_slices_are_devices_of_their_own():
    slices = tuple(
        Device(
            uuid=f"MIG-{number}",
            label=f"0:{number}",
            name="1g.10gb",
            memory_bytes=10 * GIB,
            parent_uuid=uuid(0),
        )
        for number in range(2)
    )
    room = Room(Inventory(devices=slices))
    assert [x.uuids for x in room.fill(4)] == [("MIG-0",), ("MIG-1",)] * 2
    whole = Room(Inventory(devices=slices))
    assert whole.arrive(Share.parse("1 gpu")).uuids == ("MIG-0",)


def test_a_gpu_that_is_cut_into_slices_is_not_promised_beside_them():
    parent = gpus(1).devices[0]
    piece = replace(parent, uuid="MIG-a", label="0:0", parent_uuid=parent.uuid)
    room = Room(Inventory(devices=(parent, piece)))
    assert {x.uuids for x in room.fill(5)} == {("MIG-a",)}
    assert room.refused().reason.startswith("The GPU is taken: 5 of 5 shares.")


# -- exclude


@pytest.mark.parametrize(
    ("name", "excluded"),
    [
        ("0", ["0", "0:0", "0:1"]),
        ("0:1", ["0:1"]),
        ("1", ["1"]),
        ("10", []),
        ("GPU-0000000a-1111", ["0", "0:0", "0:1"]),
        ("GPU-0000000a", ["0", "0:0", "0:1"]),
        ("GPU-0000000b", ["1"]),
        ("MIG-a", ["0:0"]),
        ("GPU-", []),
        ("MIG-", []),
        ("", []),
    ],
)
def test_a_gpu_is_excluded_by_uuid_its_beginning_or_its_index(
    name: str, excluded: list[str]
):
    gpu, other = "GPU-0000000a-1111", "GPU-0000000b-2222"
    names = [
        ("0", gpu, None),
        ("0:0", "MIG-a", gpu),
        ("0:1", "MIG-b", gpu),
        ("1", other, None),
    ]
    devices = [
        Device(uuid=u, label=label, name="x", memory_bytes=GIB, parent_uuid=parent)
        for label, u, parent in names
    ]
    assert [d.label for d in devices if is_excluded(d, (name,))] == excluded


def test_an_excluded_gpu_gets_nobody_and_is_not_counted():
    room = Room(gpus(4), rules=replace(RULES, exclude=("2",)))
    room.fill(15)
    assert room.spread() == [5, 5, 0, 5]
    refusal = room.refused()
    assert refusal.reason.startswith("All 3 GPUs are taken: 5 of 5 shares each.")
    assert "GPU 2: set aside" in refusal.detail


# -- the words of a refusal


def test_the_attendee_reads_that_all_gpus_are_taken_and_what_to_do():
    room = Room(gpus(4))
    room.fill(20)
    assert room.refused().reason == (
        "All 4 GPUs are taken: 5 of 5 shares each." + TRY_AGAIN
    )


@pytest.mark.parametrize(
    ("count", "share", "sentence"),
    [
        (1, "1/5", "The GPU is taken: 5 of 5 shares."),
        (1, "1/1", "The GPU is taken: 1 of 1 share."),
        (2, "1/1", "All 2 GPUs are taken: 1 of 1 share each."),
        (2, "4GiB", "All 2 GPUs are taken: 3 of 3 shares each."),
        (3, "2/5", "All 3 GPUs are taken: 2 of 2 shares each."),
    ],
)
def test_the_sentence_agrees_in_number(count: int, share: str, sentence: str):
    room = Room(gpus(count))
    while isinstance(room.ask(Share.parse(share)), Granted):
        room.arrive(Share.parse(share))
    assert room.refused(Share.parse(share)).reason == sentence + TRY_AGAIN


def test_gpus_that_are_full_for_different_reasons_are_told_one_by_one():
    room = Room(gpus(2))
    room.arrive(Share.parse("1 gpu"))
    room.fill(5)
    assert room.refused().reason == (
        "No GPU has room for a share of 1/5. GPU 0: taken whole; "
        "GPU 1: 5 of 5 shares taken." + TRY_AGAIN
    )


def test_who_wants_a_whole_gpu_reads_why_there_is_none():
    room = Room(gpus(2))
    room.fill(3)
    assert room.refused(Share.parse("1 gpu")).reason == (
        "A share of 1 gpu is not to be had. GPUs with nobody on them: 0 of 2. "
        "GPU 0: shared by 2; GPU 1: shared by 1." + TRY_AGAIN
    )


def test_a_whole_gpu_that_somebody_outside_the_hub_uses_is_refused_with_that_reason():
    refusal = Room(gpus(1)).refused(
        Share.parse("1 gpu"),
        uses=use(0, 8 * GIB, in_the_way=(("root (Xorg)", 8 * GIB),)),
    )
    assert "someone outside the hub holds 8 GiB" in refusal.reason
    assert "Xorg" not in refusal.reason
    assert "root (Xorg) holds 8 GiB" in refusal.detail


@pytest.mark.parametrize("share", ["3 gpus", "20GiB"])
def test_nobody_is_told_to_wait_for_what_cannot_come(share: str):
    refusal = Room(gpus(2)).refused(Share.parse(share))
    assert refusal.reason.endswith(" Ask the organiser.")
    assert "Try again" not in refusal.reason


def test_without_gpus_the_refusal_says_why():
    why = "the NVIDIA driver does not answer"
    refusal = Room(Inventory(problem=why)).refused()
    assert refusal.reason == f"There is no GPU to share: {why}"
    assert "no GPU was found" in Room(Inventory()).refused().reason


def test_only_lost_or_excluded_gpus_are_a_refusal_too():
    lost = Room(gpus(2, lost=True)).refused()
    assert "lost by its driver" in lost.reason
    aside = Room(gpus(2), rules=replace(RULES, exclude=("0", "1"))).refused()
    assert "set aside by the organiser" in aside.reason
