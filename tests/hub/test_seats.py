"""Seats: the first that come get in, and the others learn it after the code."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Room, Roster
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.roster_file import change_roster
from jupyterhub_gpuworkshop.hub.seats import HELD_SECONDS, Seats

from .running_hub import RunningHub

_CODE = "KWXZ-2345"
_WRONG = "WRNG-CDDD"
_PASSWORD = "correct horse battery"
_WITH_ROSTER = 'c.JupyterHub.authenticator_class = "gpuworkshop-roster"\n'
_PEOPLE = ("ada", "bob", "cy", "dee", "eve", "fay")


def test_of_two_at_once_for_the_last_seat_one_gets_it() -> None:
    seats = Seats(2, clock=lambda: 0.0)
    assert seats.take("ada", _PEOPLE, {"ada"})
    assert seats.take("bob", _PEOPLE, {"ada"})
    assert not seats.take("cy", _PEOPLE, {"ada"})
    assert seats.take("bob", _PEOPLE, {"ada"}), "who holds a seat comes again"
    assert not seats.take("cy", _PEOPLE, {"ada", "bob"})


def test_a_seat_whose_account_never_came_is_free_again() -> None:
    now = 0.0
    seats = Seats(1, clock=lambda: now)
    assert seats.take("ada", _PEOPLE, set())
    now = HELD_SECONDS - 1
    assert not seats.take("bob", _PEOPLE, set())
    now = HELD_SECONDS
    assert seats.take("bob", _PEOPLE, set())
    seats.release("bob")
    assert seats.take("cy", _PEOPLE, set())


def test_only_accounts_of_the_rosters_attendees_take_seats() -> None:
    seats = Seats(2, clock=lambda: 0.0)
    accounts = {"olga", "guest", "somebody-of-last-year"}
    assert seats.take("ada", _PEOPLE, accounts)
    assert seats.take("bob", _PEOPLE, accounts)
    assert not seats.take("cy", _PEOPLE, accounts)
    more_than_seats = {*_PEOPLE}
    assert seats.take("fay", _PEOPLE, more_than_seats), "an account is a seat"


@given(
    most=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(_PEOPLE), st.booleans())),
)
def test_there_are_never_more_than_seats(
    most: int, steps: list[tuple[str, bool]]
) -> None:
    seats = Seats(most, clock=lambda: 0.0)
    accounts: set[str] = set()
    let_in: set[str] = set()
    for name, gets_account in steps:
        if seats.take(name, _PEOPLE, accounts):
            let_in.add(name)
            if gets_account:
                accounts.add(name)
    assert len(let_in) <= most
    assert accounts <= let_in


def _log_in(hub: RunningHub, name: str, code: str) -> requests.Response:
    url = f"http://127.0.0.1:{hub.port}/hub/login"
    with requests.Session() as session:
        session.headers["Sec-Fetch-Mode"] = "navigate"
        page = BeautifulSoup(session.get(url).text, "html.parser")
        token = page.find("input", {"name": "_xsrf"})
        assert token is not None
        data = {"username": name, "password": code, "_xsrf": token["value"]}
        return session.post(url, data=data, allow_redirects=False)


def _roster(path: Path, room: Room | None = None) -> None:
    kept = hash_code(_CODE)
    roster = Roster(
        attendees=tuple(Attendee(name=name, code_hash=kept) for name in _PEOPLE),
        organisers=(Organiser(name="olga", password_hash=hash_password(_PASSWORD)),),
        room=room,
    )
    change_roster(path, lambda _: roster, new=True)


@pytest.mark.hub
def test_the_first_that_come_get_in_and_who_has_an_account_comes_back(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _roster(tmp_path / "roster.json")
    hub = make_hub(early=_WITH_ROSTER, workshop={"roster": {"seats": 3}}).start()
    hub.add_users("ada", "guest")  # as prestart does; a guest is on no roster
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = list(pool.map(lambda n: _log_in(hub, n, _CODE), _PEOPLE[1:5]))
    assert sorted(answer.status_code for answer in answers) == [302, 302, 403, 403]
    refused = next(a for a in answers if a.status_code == 403)
    assert "All seats are taken" in refused.text
    assert "jupyterhub-hub-login" not in refused.cookies
    assert _log_in(hub, "ada", _CODE).status_code == 302
    assert _log_in(hub, "olga", _PASSWORD).status_code == 302
    wrong, unknown = (_log_in(hub, name, _WRONG) for name in ("fay", "nobody"))
    for answer in (wrong, unknown):
        assert answer.status_code == 403
        assert "seats" not in answer.text
    assert hub.api("GET", "users/fay").status_code == 404
    assert hub.api("DELETE", "users/ada").ok
    assert _log_in(hub, "fay", _CODE).status_code == 302


@pytest.mark.hub
def test_nobody_joins_a_room_without_a_seat_in_it(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    room = Room(code_hash=hash_code(_CODE), at_most=40)
    _roster(tmp_path / "roster.json", room)
    hub = make_hub(early=_WITH_ROSTER, workshop={"roster": {"seats": 1}}).start()
    assert _log_in(hub, "ada", _CODE).status_code == 302
    url = f"http://127.0.0.1:{hub.port}/hub/join"
    with requests.Session() as session:
        page = BeautifulSoup(session.get(url).text, "html.parser")
        token = page.find("input", {"name": "_xsrf"})
        assert token is not None
        data = {"username": "gil", "room_code": _CODE, "_xsrf": token["value"]}
        answer = session.post(url, data=data)
        data["room_code"] = _WRONG
        wrong = session.post(url, data=data)
    assert answer.status_code == wrong.status_code == 403
    assert "All seats are taken" in answer.text
    assert "seats" not in wrong.text
