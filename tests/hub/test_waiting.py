"""Places for those who wait for a login."""

from collections.abc import Iterable
from contextlib import ExitStack

import pytest
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.hub.waiting import WaitingRoom


def _fill(room: WaitingRoom, addresses: Iterable[str], places: ExitStack) -> int:
    """Take places until there is none; return how many."""
    for taken, address in enumerate(addresses):
        try:
            places.enter_context(room.place(address))
        except HTTPError as refused:
            if refused.status_code != 503:
                raise
            return taken
    raise AssertionError("there was always another place")


@pytest.mark.parametrize(
    "flooding",
    [
        ["10.0.0.1"] * 100_000,
        # One machine has them all.
        [f"2001:db8::{number:x}" for number in range(1, 10_000)],
    ],
)
def test_a_flood_from_one_machine_leaves_places_to_the_others(
    flooding: list[str],
) -> None:
    room = WaitingRoom()
    with ExitStack() as flood:
        assert _fill(room, flooding, flood) >= 200
        with room.place("10.0.0.2"):
            pass


def test_all_together_are_bounded_and_places_come_back() -> None:
    room = WaitingRoom()
    with ExitStack() as flood:
        addresses = (f"10.0.{number // 250}.{number % 250}" for number in range(50_000))
        most = _fill(room, addresses, flood)
    with pytest.raises(RuntimeError), room.place("10.0.0.1"):
        raise RuntimeError
    with ExitStack() as again:
        addresses = (f"10.1.{number // 250}.{number % 250}" for number in range(50_000))
        assert _fill(room, addresses, again) == most
