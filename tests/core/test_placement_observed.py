"""Placement by what was observed, and beyond what there is: oversubscribe."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.placement import Granted, PlacementRules, Refused
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from tests.core.rooms import (
    FIFTH,
    KEEP_FREE,
    RULES,
    TRY_AGAIN,
    Room,
    gpus,
    use,
    uuid,
)


@pytest.mark.parametrize("gib", [16, 24, 80, 141])
@pytest.mark.parametrize("processes", [0, 1, 2])
@pytest.mark.parametrize(
    ("reserved_mib", "known"),
    [
        *((mib, True) for mib in (0, 300, 450, 512, 616, 1100)),
        *((mib, False) for mib in (300, 512, 616)),
    ],
)
def test_five_of_five_shares_fit_beside_what_the_driver_takes(
    gib: int, processes: int, reserved_mib: int, known: bool
):
    """As measured on an H200 with driver 580.

    It reserves 615 MiB, and each process with a context costs 9 MiB or less that are
    used but in no process's account. Old drivers do not tell what they reserve.
    """
    room = Room(gpus(1, gib, reserved_bytes=reserved_mib * MIB if known else 0))
    leases: list[Lease] = []
    for _ in range(5):
        held = {lease.id: (518 + 700) * MIB * processes for lease in leases}
        nameless = 9 * MIB * processes * len(leases)
        free = (gib * 1024 - reserved_mib) * MIB - sum(held.values()) - nameless
        leases.append(room.arrive(uses=use(0, free, held)))
    assert room.spread() == [5]


def test_memory_that_no_process_owns_up_to_is_forgiven_only_up_to_what_is_kept_free():
    room = Room(gpus(1))
    room.fill(4)
    free = 16 * GIB - KEEP_FREE
    assert isinstance(room.ask(uses=use(0, free)), Granted)
    assert isinstance(room.ask(uses=use(0, free - KEEP_FREE)), Granted)
    refusal = room.refused(uses=use(0, free - KEEP_FREE - MIB))
    assert "its memory is not free yet" in refusal.reason
    assert "memory used by nobody the driver names" in refusal.detail
    room = Room(gpus(1), rules=PlacementRules())
    room.fill(4)
    assert isinstance(room.ask(uses=use(0, 16 * GIB)), Granted)
    assert isinstance(room.ask(uses=use(0, 16 * GIB - MIB)), Refused)


def test_a_gpu_with_too_little_free_memory_is_passed_over():
    room = Room(gpus(2))
    uses = use(0, 2 * GIB, in_the_way=(("root (train.py)", 13 * GIB),))
    assert {room.arrive(uses=uses).uuids for _ in range(5)} == {(uuid(1),)}
    refusal = room.refused(uses=uses)
    assert refusal.reason == (
        "No GPU has room for a share of 1/5. GPU 0: 2.5 GiB left, someone outside the "
        "hub holds 13 GiB; GPU 1: 5 of 5 shares taken." + TRY_AGAIN
    )
    assert "root (train.py) holds 13 GiB" in refusal.detail


def test_memory_in_the_way_is_not_forgiven_to_a_byte():
    share = FIFTH.bytes_on(gpus(1).devices[0], KEEP_FREE)
    room = Room(gpus(1))
    for free, expected in ((share, Granted), (share - 1, Refused)):
        uses = use(0, free, in_the_way=(("root", 16 * GIB - free),))
        assert isinstance(room.ask(uses=uses), expected)


@pytest.mark.parametrize("used", [0, GIB, 3 * GIB])
def test_what_leases_have_not_used_yet_is_not_given_away(used: int):
    room = Room(gpus(1), rules=PlacementRules())
    share = Share.parse("4GiB")
    lease = room.arrive(share)
    for spare, expected in ((0, Granted), (-1, Refused)):
        free = 4 * GIB + (4 * GIB - used) + spare
        outside = (("root", 16 * GIB - free - used),)
        uses = use(0, free, {lease.id: used}, outside)
        assert isinstance(room.ask(share, uses=uses), expected)


def test_a_lease_over_its_share_is_named_to_the_organiser_alone():
    room = Room(gpus(1))
    room.arrive(user="mallory")
    held = {"lease1": 14 * GIB}
    refusal = room.refused(uses=use(0, 1 * GIB, held))
    assert "someone uses more than their share" in refusal.reason
    assert "mallory" not in refusal.reason
    assert "over their share: mallory" in refusal.detail


def test_a_lease_on_a_gpu_that_is_not_its_own_is_named_to_the_organiser_alone():
    room = Room(gpus(2))
    room.arrive(user="mallory")
    held = {"lease1": 15 * GIB}
    room.rules = replace(RULES, exclude=("0",))
    refusal = room.refused(uses=use(1, 1 * GIB, held))
    assert "mallory" not in refusal.reason
    assert "over their share: mallory" in refusal.detail


def test_a_lease_released_since_the_observation_gives_back_what_it_used():
    room = Room(gpus(1))
    leases = room.fill(5)
    held = {x.id: x.bytes_on(uuid(0)) for x in leases}
    uses = use(0, 0, held)
    assert isinstance(room.ask(uses=uses), Refused)
    room.leave(leases[2])
    assert isinstance(room.ask(uses=uses), Granted)
    room.arrive(uses=uses)
    assert isinstance(room.ask(uses=uses), Refused)


def test_an_observation_from_before_the_grants_does_not_promise_them_away():
    room = Room(gpus(1))
    uses = use(0, 16 * GIB - KEEP_FREE)
    for _ in range(5):
        room.arrive(uses=uses)
    assert isinstance(room.ask(uses=uses), Refused)


def test_a_gpu_that_nobody_observed_is_judged_by_the_ledger_alone():
    room = Room(gpus(2))
    uses = use(0, 0, in_the_way=(("root", 16 * GIB),))
    assert {room.arrive(uses=uses).uuids for _ in range(5)} == {(uuid(1),)}


# -- oversubscribe


@pytest.mark.parametrize(
    ("factor", "parts", "fit"),
    [
        (1.0, 5, 5),
        (1.13, 100, 113),
        (1.2, 5, 6),
        (1.5, 4, 6),
        (2.0, 5, 10),
        (2.3, 10, 23),
        (3.0, 1, 3),
    ],
)
@pytest.mark.parametrize("memory", [10_000_000_000, 16 * GIB])
@pytest.mark.parametrize("observed", [True, False])
def test_oversubscribed_shares_fit_to_the_last(
    factor: float, parts: int, fit: int, memory: int, observed: bool
):
    inventory = gpus(1)
    inventory = replace(
        inventory, devices=(replace(inventory.devices[0], memory_bytes=memory),)
    )
    room = Room(inventory, rules=PlacementRules(oversubscribe=factor))
    uses = use(0, memory) if observed else {}
    for _ in range(fit):
        room.arrive(Share.nth(parts), uses=uses)
    noun = "share" if fit == 1 else "shares"
    refusal = room.refused(Share.nth(parts), uses=uses)
    assert refusal.reason.startswith(f"The GPU is taken: {fit} of {fit} {noun}.")


def test_a_whole_gpu_stands_alone_however_oversubscribed():
    room = Room(gpus(1), rules=replace(RULES, oversubscribe=3.0))
    room.arrive(Share.parse("1 gpu"))
    assert isinstance(room.ask(Share.parse("1 gpu")), Refused)
    assert isinstance(room.ask(Share.parse("1GiB")), Refused)


def test_what_leases_use_is_part_of_what_is_oversubscribed():
    room = Room(gpus(1), rules=PlacementRules(oversubscribe=2.0))
    share = Share.parse("8GiB")
    held: dict[str, int] = {}
    for _ in range(2):
        held[
            room.arrive(share, uses=use(0, 16 * GIB - sum(held.values()), held)).id
        ] = 8 * GIB
    # The memory is all in use, and half of what may be promised is still to be had.
    for _ in range(2):
        room.arrive(share, uses=use(0, 0, held))
    assert isinstance(room.ask(share, uses=use(0, 0, held)), Refused)
