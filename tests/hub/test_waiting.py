"""Places for those who wait for a login."""

from contextlib import ExitStack

import pytest
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.hub.waiting import WaitingRoom


def test_a_flood_from_one_address_leaves_places_to_the_others() -> None:
    room = WaitingRoom()
    with ExitStack() as flood:
        taken = 0
        with pytest.raises(HTTPError) as refused:
            while True:
                flood.enter_context(room.place("10.0.0.1"))
                taken += 1
        assert refused.value.status_code == 503
        assert taken >= 200
        with room.place("10.0.0.2"):
            pass


def test_all_together_are_bounded_and_places_come_back() -> None:
    room = WaitingRoom()
    with ExitStack() as flood:
        with pytest.raises(HTTPError):
            for number in range(100_000):
                flood.enter_context(room.place(f"10.0.{number // 250}.{number % 250}"))
    with pytest.raises(RuntimeError), room.place("10.0.0.1"):
        raise RuntimeError
    assert not room._by_address
