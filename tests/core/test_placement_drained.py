"""A device that an organiser has taken out of service gets no new lease."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.placement import Policy
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import GIB

from .rooms import RULES, TRY_AGAIN, Room, gpus, uuid


@pytest.mark.parametrize("policy", list(Policy))
def test_nobody_comes_to_a_drained_gpu_and_who_is_there_stays(policy: Policy):
    room = Room(gpus(3), rules=replace(RULES, policy=policy))
    there = room.fill(2)
    room.drained = frozenset({there[0].uuids[0]})
    before = len(room.ledger.on(there[0].uuids[0]))
    late = room.fill(10 - (2 - before))
    assert not {lease.uuids[0] for lease in late} & room.drained
    assert len(room.ledger.on(there[0].uuids[0])) == before
    assert room.ledger.leases.keys() >= {lease.id for lease in there}


def test_nobody_is_brought_back_to_a_drained_gpu():
    room = Room(gpus(2), rules=replace(RULES, sticky=True))
    room.leave(room.arrive(user="ann"))
    room.drained = frozenset({uuid(0)})
    assert room.arrive(user="ann").uuids == (uuid(1),)


def test_a_share_of_several_whole_gpus_goes_round_a_drained_one():
    room = Room(gpus(3), drained=frozenset({uuid(1)}))
    assert room.arrive(Share.parse("2 gpus")).uuids == (uuid(0), uuid(2))
    refusal = Room(gpus(3), drained=frozenset({uuid(1)})).refused(Share.parse("3 gpus"))
    assert "GPU 1: out of service" in refusal.reason
    assert refusal.reason.endswith(" Ask the organiser.")


def test_the_attendee_reads_that_it_is_out_of_service_and_the_organiser_why():
    room = Room(gpus(2), drained=frozenset({uuid(1)}))
    room.fill(5)
    refusal = room.refused()
    assert refusal.reason == (
        "No GPU has room for a share of 1/5. GPU 0: 5 of 5 shares taken; "
        f"GPU 1: out of service.{TRY_AGAIN}"
    )
    assert "GPU 1: out of service (an organiser drained it)" in refusal.detail
    alone = Room(gpus(2), drained=frozenset({uuid(0), uuid(1)})).refused()
    assert alone.reason.endswith("GPU 1: out of service. Ask the organiser.")


def test_a_slice_is_out_of_service_with_its_gpu():
    slices = tuple(
        Device(
            uuid=f"MIG-{number}",
            label=f"{number}:0",
            name="x",
            memory_bytes=10 * GIB,
            parent_uuid=uuid(number),
        )
        for number in range(2)
    )
    room = Room(Inventory(devices=slices), drained=frozenset({uuid(0)}))
    assert {lease.uuids for lease in room.fill(5)} == {("MIG-1",)}
    room.drained = frozenset({"MIG-1"})
    assert room.arrive().uuids == ("MIG-0",)
