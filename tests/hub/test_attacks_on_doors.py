"""Ways round closed doors, tried at a real hub with what attendees really have.

Their own sessions and API tokens, others' tokens, forged headers, servers of other
names, and the moments in which hours are edited or the hub is restarted.
"""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.roster_file import change_roster

from .running_hub import RunningHub, wait_for
from .test_doors import (
    _CODE,
    _EARLY,
    _PASSWORD,
    CLOSED,
    NOT_YET,
    OPEN,
    OVER,
    House,
)

pytestmark = pytest.mark.hub

_NAMES = ("ann", "bob", "cy", "di", "eve", "fay", "gus")
_MORE = """
c.JupyterHub.allow_named_servers = True
c.Authenticator.auth_refresh_age = 1
c.JupyterHub.default_url = "/hub/home"
c.JupyterHub.template_vars = {
    "announcement": "Lunch is at noon.",
    "announcement_login": lambda user: "Cards are at the door.",
}
"""


def _fill(path: Path) -> None:
    people = tuple(Attendee(name=n, code_hash=hash_code(_CODE)) for n in _NAMES)
    olga = Organiser(name="olga", password_hash=hash_password(_PASSWORD))
    roster = Roster(attendees=people, organisers=(olga,))
    change_roster(path, lambda _: roster, new=True)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("attacked")
    _fill(folder / "roster.json")
    early = _EARLY.format(ahead=str(folder / "ahead")) + _MORE
    house = House(RunningHub(folder, early=early))
    house.pass_hours(0)
    try:
        house.hub.start()
        yield house
    finally:
        house.hub.close()


def _token(house: House, session: requests.Session, name: str) -> dict[str, str]:
    """Make an API token as the page does; return the header that shows it."""
    page = session.get(f"{house.root}/hub/token")
    assert page.ok
    answer = session.post(
        f"{house.root}/hub/api/users/{name}/tokens",
        json={"note": "mine"},
        params={"_xsrf": session.cookies.get("_xsrf", path="/hub/")},
    )
    assert answer.ok, answer.text
    return {"Authorization": f"token {answer.json()['token']}"}


def _ask(house: House, path: str, headers: dict[str, str]) -> requests.Response:
    return requests.post(
        f"{house.root}/hub/api/users/{path}", headers=headers, timeout=60
    )


def _leases(house: House, name: str) -> list[object]:
    return [lease for lease in house.hub.leases() if lease.user == name]


@pytest.mark.parametrize("hours", [CLOSED, OVER])
def test_no_token_of_an_attendee_opens_closed_doors(
    house: House, hours: tuple[float, float]
) -> None:
    house.set_hours(OPEN)
    mine = _token(house, house.log_in("ann"), "ann")
    house.set_hours(hours)
    for path in ("ann/server", f"ann/servers/x{hours[0]}"):
        answer = _ask(house, path, mine)
        assert answer.status_code in (202, 503), answer.text
    # 202 is what JupyterHub says of whatever takes a moment.
    wait_for(
        lambda: not any(s["pending"] for s in house.hub.user("ann")["servers"].values())
    )
    assert not [s for s in house.hub.user("ann")["servers"].values() if s["ready"]]
    assert not _leases(house, "ann")


@pytest.mark.parametrize(
    "path",
    [
        "/hub/spawn?next=%2Fhub%2Fhome",
        "/hub/spawn/bob",
        "/hub/spawn/bob/other?next=/user/bob/lab",
        "/hub/user-redirect/lab/tree/x",
        "/user/bob/lab",
        "/hub/user/bob/lab",
        "/hub/spawn-pending/bob",
        "/hub/spawn?username=olga&groups=gpuworkshop-organiser",
    ],
)
def test_no_address_of_the_hubs_starts_a_server_behind_closed_doors(
    house: House, path: str
) -> None:
    house.set_hours(CLOSED)
    session = house.log_in("bob")
    assert session.landed.status_code == 302
    forged = {
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-User": "olga",
        "Remote-User": "olga",
        "X-JupyterHub-User": "olga",
        "X-HTTP-Method-Override": "POST",
    }
    page = session.get(f"{house.root}{path}", headers=forged)
    assert page.status_code < 600
    assert house.hub.server("bob") is None
    assert not _leases(house, "bob")
    assert not _leases(house, "olga")


def test_what_an_admin_announces_stays_below_what_is_told_of_the_doors(
    house: House,
) -> None:
    house.set_hours(CLOSED)
    for session, path, theirs in (
        (requests.Session(), "/hub/login", "Cards are at the door."),
        (house.log_in("bob"), "/hub/home", "Lunch is at noon."),
    ):
        said = house.text(session, path)
        assert said.index("The doors are closed.") < said.index(theirs)
    olga = house.text(house.log_in("olga", _PASSWORD), "/hub/home")
    assert "Lunch is at noon." in olga
    assert "The doors are closed." not in olga


def test_an_organiser_starts_a_server_behind_closed_doors(house: House) -> None:
    house.set_hours(CLOSED)
    session = house.log_in("olga", _PASSWORD)
    mine = _token(house, session, "olga")
    assert _ask(house, "olga/server", mine).status_code in (201, 202)
    wait_for(lambda: (house.hub.server("olga") or {})["ready"])
    house.hub.stop_server("olga")


def test_nobody_starts_a_server_for_somebody_else(house: House) -> None:
    house.set_hours(OPEN)
    house.hub.add_users("cy")
    mine = _token(house, house.log_in("eve"), "eve")
    house.set_hours(CLOSED)
    strangers = ({}, {"Authorization": "token " + "0" * 32}, {"Cookie": "a=b"})
    for headers in (mine, *strangers):
        assert _ask(house, "cy/server", headers).status_code in (403, 404)
    assert house.hub.server("cy") is None
    # Nor does a server's own token, which its attendee can read.
    house.set_hours(OPEN)
    house.hub.spawn("eve")
    own = house.hub.environment_of("eve")["JUPYTERHUB_API_TOKEN"]
    house.set_hours(CLOSED)
    for path in ("eve/servers/again", "cy/server"):
        answer = _ask(house, path, {"Authorization": f"token {own}"})
        assert answer.status_code in (403, 404)


def test_servers_of_other_names_are_stopped_too(house: House) -> None:
    house.set_hours(OPEN)
    mine = _token(house, house.log_in("di"), "di")
    for server in ("", "one", "two"):
        assert _ask(house, f"di/servers/{server}", mine).status_code in (201, 202)
        wait_for(lambda server=server: (house.hub.server("di", server) or {})["ready"])
    house.set_hours(CLOSED)
    wait_for(lambda: not _leases(house, "di"), why=house.hub.log[-3000:])
    assert not any(s["ready"] for s in house.hub.user("di")["servers"].values())


def test_hours_that_are_set_to_end_in_the_past_end_what_attendees_have_started(
    house: House,
) -> None:
    house.set_hours(OPEN)
    house.hub.add_users("gus")
    mine = _token(house, house.log_in("fay"), "fay")
    assert _ask(house, "fay/server", mine).status_code in (201, 202)
    wait_for(lambda: (house.hub.server("fay") or {})["ready"])
    house.hub.spawn("gus")
    house.set_hours((-5, -2))
    wait_for(lambda: house.hub.server("fay") is None, why=house.hub.log[-3000:])
    # What was started for somebody, after that moment, is for the next morning.
    assert house.hub.server("gus")["ready"]


def test_a_hub_that_was_away_while_the_doors_closed_stops_what_it_finds(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _fill(tmp_path / "roster.json")
    early = _EARLY.format(ahead=str(tmp_path / "ahead")) + _MORE
    house = House(make_hub(early=early))
    house.pass_hours(0)
    house.set_hours(OPEN)
    house.hub.start()
    mine = _token(house, house.log_in("ann"), "ann")
    assert _ask(house, "ann/server", mine).status_code in (201, 202)
    wait_for(lambda: (house.hub.server("ann") or {})["ready"])
    house.hub.kill()
    house.set_hours((-5, -2))
    house.hub.start()
    wait_for(lambda: not _leases(house, "ann"), why=house.hub.log[-3000:])
    assert house.hub.server("ann") is None


def test_a_demoted_organiser_is_an_attendee_at_the_doors(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _fill(tmp_path / "roster.json")
    early = _EARLY.format(ahead=str(tmp_path / "ahead")) + _MORE
    house = House(make_hub(early=early))
    house.pass_hours(0)
    house.set_hours(CLOSED)
    house.hub.start()
    session = house.log_in("olga", _PASSWORD)
    house.hub.spawn("olga")

    def demote(roster: Roster) -> Roster:
        olga = Attendee(name="olga", code_hash=hash_code(_CODE))
        return Roster(attendees=(*roster.attendees, olga))

    change_roster(tmp_path / "roster.json", demote)
    house.set_hours(NOT_YET)
    wait_for(
        lambda: "/hub/login" in session.get(f"{house.root}/hub/home").url,
        why="olga is still logged in",
    )
    assert house.log_in("olga").landed.status_code == 403
    house.set_hours(CLOSED)
    assert house.log_in("olga").landed.status_code == 302
    assert not house.hub.user("olga")["admin"]
    house.hub.stop_server("olga")
    mine = _token(house, house.log_in("olga"), "olga")
    assert _ask(house, "olga/server", mine).status_code in (202, 503)
    wait_for(lambda: not (house.hub.server("olga") or {}).get("pending"))
    assert house.hub.server("olga") is None


def test_who_comes_to_a_server_that_was_started_early_gets_in_only_by_logging_in(
    house: House,
) -> None:
    house.set_hours(NOT_YET)
    name = "cy"
    house.hub.spawn(name)
    answer = house.log_in(name).landed
    assert answer.status_code == 403
    stranger = requests.get(
        f"{house.root}/hub/api/oauth2/authorize",
        params={
            "client_id": f"jupyterhub-user-{name}",
            "response_type": "code",
            "state": uuid.uuid4().hex,
        },
        allow_redirects=False,
        timeout=60,
    )
    assert stranger.status_code in (302, 403)
    assert "code=" not in stranger.headers.get("Location", "")
    house.hub.stop_server(name)
