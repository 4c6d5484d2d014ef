"""A server is stopped only where that gives a share to whom it was refused."""

from dataclasses import replace

from jupyterhub_gpuworkshop.core.giving_way import who_gives_way
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import Refusal

from .rooms import RULES, Room, gpus, use, uuid

EVE = Refusal(user="eve", server="", share="1/5", at=1.0)
FAY = Refusal(user="fay", server="", share="1/5", at=2.0)


def chosen(room, refusals, candidates, **more):
    return who_gives_way(
        refusals,
        [lease.id for lease in candidates],
        room.ledger.leases.values(),
        inventory=room.inventory,
        uses=more.pop("uses", {}),
        rules=room.rules,
        drained=room.drained,
        **more,
    )


def test_the_best_candidate_gives_way_for_who_was_refused():
    room = Room(gpus(1))
    leases = room.fill(5)
    assert chosen(room, [EVE], [leases[3], leases[1]]) == {leases[3].id: EVE}


def test_each_refusal_takes_one_server_and_who_waits_longest_comes_first():
    room = Room(gpus(1))
    leases = room.fill(5)
    assert chosen(room, [FAY, EVE], leases[:3]) == {
        leases[0].id: EVE,
        leases[1].id: FAY,
    }
    assert chosen(room, [FAY, EVE], leases[:1]) == {leases[0].id: EVE}


def test_nobody_gives_way_where_trying_again_would_do():
    room = Room(gpus(1))
    leases = room.fill(4)
    assert chosen(room, [EVE], leases) == {}
    # There is room for one of the two.
    assert chosen(room, [EVE, FAY], leases) == {leases[0].id: FAY}


def test_a_server_on_a_gpu_that_nobody_can_get_does_not_give_way():
    room = Room(gpus(2))
    leases = room.fill(10)
    there = [lease for lease in leases if lease.uuids == (uuid(0),)]
    other = [lease for lease in leases if lease.uuids == (uuid(1),)]
    room.drained = frozenset({uuid(0)})
    assert chosen(room, [EVE], there) == {}
    assert chosen(room, [EVE], [*there, *other]) == {other[0].id: EVE}


def test_a_share_that_is_too_small_for_the_refused_does_not_give_way():
    room = Room(gpus(1))
    leases = room.fill(5)
    whole = replace(EVE, share="1 gpu")
    assert chosen(room, [whole], leases) == {}
    large = replace(EVE, share="8GiB")
    assert chosen(room, [large], leases) == {}


def test_a_whole_gpu_gives_way_for_a_part_of_it():
    room = Room(gpus(1))
    (lease,) = room.fill(1, Share.parse("1 gpu"))
    assert chosen(room, [EVE, FAY], [lease]) == {lease.id: EVE}


def test_no_server_gives_way_where_others_hold_the_memory():
    room = Room(gpus(1))
    leases = room.fill(5)
    full = use(0, 0, {leases[0].id: 3 * GIB}, in_the_way=(("root", 12 * GIB),))
    assert chosen(room, [EVE], leases[1:], uses=full) == {}


def test_a_second_server_is_not_stopped_for_one_refusal():
    room = Room(gpus(1))
    leases = room.fill(5)
    assert chosen(room, [EVE], leases, served=[EVE]) == {}


def test_what_was_given_up_for_one_is_not_counted_on_by_another():
    room = Room(gpus(1))
    leases = room.fill(5)
    room.leave(leases[4])
    assert chosen(room, [EVE, FAY], leases[:2], served=[EVE]) == {leases[0].id: FAY}


def test_who_asks_for_no_gpu_or_for_nonsense_takes_nothing():
    room = Room(gpus(1), rules=replace(RULES, sticky=True))
    leases = room.fill(5)
    for share in ("cpu", "none of your business"):
        assert chosen(room, [replace(EVE, share=share)], leases) == {}
