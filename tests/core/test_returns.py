"""Who comes back to a device, when, and who makes room."""

from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.returns import (
    Candidate,
    Waiting,
    who_makes_room,
    who_returns,
)


def waiting(key, since=0.0, **needs):
    return Waiting(key=key, needs_bytes=needs, since=since)


def candidate(key, idle=0.0, **held):
    return Candidate(key=key, held_bytes=held, idle_seconds=idle)


def keys(found):
    return [each.key for each in found]


def test_one_comes_back_where_need_and_margin_are_free():
    assert keys(who_returns([waiting("a", g=6)], {"g": 8}, [], 2)) == ["a"]
    assert who_returns([waiting("a", g=7)], {"g": 8}, [], 2) == []


def test_nobody_comes_back_to_a_device_that_cannot_be_read():
    assert who_returns([waiting("a", g=1)], {"other": 8}, [], 0) == []


def test_one_at_a_time_on_a_device():
    both = [waiting("a", 1, g=1), waiting("b", 2, g=1), waiting("c", 3, h=1)]
    assert keys(who_returns(both, {"g": 9, "h": 9}, [], 0)) == ["a", "c"]
    assert keys(who_returns(both, {"g": 9, "h": 9}, ["g"], 0)) == ["c"]


def test_a_small_one_does_not_overtake_a_large_one():
    both = [waiting("small", 2, g=1), waiting("large", 1, g=9)]
    assert who_returns(both, {"g": 8}, [], 0) == []


def test_a_kernel_on_two_devices_needs_both():
    assert who_returns([waiting("a", g=4, h=4)], {"g": 8, "h": 3}, [], 0) == []
    assert keys(who_returns([waiting("a", g=4, h=4)], {"g": 8, "h": 4}, [], 0)) == ["a"]


def test_the_longest_idle_make_room_and_no_more_than_must():
    idle = [candidate("a", 10, g=4), candidate("b", 30, g=4), candidate("c", 20, g=4)]
    assert who_makes_room(waiting("x", g=8), {"g": 4}, idle, 0) == ["b"]
    assert who_makes_room(waiting("x", g=8), {"g": 4}, idle, 1) == ["b", "c"]
    assert who_makes_room(waiting("x", g=8), {"g": 8}, idle, 0) == []


def test_nobody_makes_room_in_vain():
    idle = [candidate("a", 10, g=2), candidate("b", 30, h=9)]
    assert who_makes_room(waiting("x", g=8), {"g": 4, "h": 0}, idle, 0) == []


_DEVICES = st.sampled_from(["g", "h", "i"])
_BYTES = st.dictionaries(_DEVICES, st.integers(1, 10), min_size=1)


@given(
    needs=st.lists(st.tuples(_BYTES, st.integers(0, 5)), max_size=6),
    free=st.dictionaries(_DEVICES, st.integers(0, 20)),
    returning=st.sets(_DEVICES),
    margin=st.integers(0, 3),
)
def test_no_return_is_begun_without_its_memory(needs, free, returning, margin):
    all_of_them = [
        Waiting(key=i, needs_bytes=need, since=since)
        for i, (need, since) in enumerate(needs)
    ]
    found = who_returns(all_of_them, free, returning, margin)
    used = [uuid for each in found for uuid in each.needs_bytes]
    assert len(used) == len(set(used))
    assert not set(used) & returning
    for each in found:
        for uuid, need in each.needs_bytes.items():
            assert free[uuid] >= need + margin
        earlier = [x for x in all_of_them if x.since < each.since]
        assert not any(set(x.needs_bytes) & set(each.needs_bytes) for x in earlier)
