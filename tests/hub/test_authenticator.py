"""Logging in from a card, at a real hub: who gets in, and what the others learn."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from bs4 import BeautifulSoup
from traitlets.config import Config

from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.hub import authenticator
from jupyterhub_gpuworkshop.hub.authenticator import address_of
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.doors import DoorKeeper
from jupyterhub_gpuworkshop.hub.roster_file import change_roster

from .running_hub import RunningHub, wait_for

pytestmark = pytest.mark.hub

_CODE = "KWXZ-2345"
_PASSWORD = "correct horse battery"
_WITH_ROSTER = (
    "from tests.hub.passwords import ChiefsPassword\n"
    "c.RosterAuthenticator.organiser_authenticator = ChiefsPassword\n"
    'c.JupyterHub.authenticator_class = "gpuworkshop-roster"\n'
    'c.Authenticator.admin_users = {"boss", "chief"}\n'
)


class Room:
    """A hub with a roster, and people who log in at it."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.login_url = f"http://127.0.0.1:{hub.port}/hub/login"
        self.roster = hub.folder / "roster.json"

    def log_in(self, name: str, code: str, address: str = "") -> requests.Response:
        """Type name and code into the page's form, as a browser would."""
        with requests.Session() as session:
            session.headers["Sec-Fetch-Mode"] = "navigate"
            if address:
                session.headers["X-Forwarded-For"] = address
            page = session.get(self.login_url)
            return session.post(
                self.login_url,
                data={"username": name, "password": code, "_xsrf": _token(page)},
                allow_redirects=False,
            )


def _token(page: requests.Response) -> str:
    form = BeautifulSoup(page.text, "html.parser").form
    assert form is not None, page.text
    return str(form.find("input", {"name": "_xsrf"})["value"])


def _told(page: requests.Response) -> str:
    error = BeautifulSoup(page.text, "html.parser").select_one(".login_error")
    return " ".join(error.get_text().split()) if error is not None else ""


def _fill(path: Path, count: int = 0) -> None:
    kept = hash_code(_CODE)
    people = (
        Attendee(name="ada", code_hash=kept, group="team-a", share=Share.parse("1/8")),
        Attendee(name="bob", code_hash=kept),
        Attendee(name="cy", code_hash=kept),
        Attendee(name="boss", code_hash=kept),
        *(Attendee(name=f"a{number}", code_hash=kept) for number in range(count)),
    )
    olga = Organiser(name="olga", password_hash=hash_password(_PASSWORD))
    roster = Roster(attendees=people, organisers=(olga,))
    change_roster(path, lambda _: roster, new=True)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Return a hub that several tests share: each uses names of its own."""
    folder = tmp_path_factory.mktemp("room")
    _fill(folder / "roster.json", count=100)
    hub = RunningHub(folder, early=_WITH_ROSTER)
    try:
        yield Room(hub.start())
    finally:
        hub.close()


def test_an_attendee_logs_in_from_the_card_and_gets_group_and_share(room: Room) -> None:
    answer = room.log_in(" Ada ", "kwxz 2345")
    assert answer.status_code == 302, answer.text
    user = room.hub.user("ada")
    assert sorted(user["groups"]) == ["gpu-share:1/8", "team-a"]
    assert not user["admin"]
    assert room.hub.spawn("ada")["state"]["gpuworkshop"]["share"] == "1/8"


def test_an_organiser_logs_in_with_a_password_and_not_in_capitals(room: Room) -> None:
    assert room.log_in("olga", _PASSWORD.upper()).status_code == 403
    assert room.log_in("olga", _PASSWORD).status_code == 302
    assert room.hub.user("olga")["admin"]


def test_nobody_gets_an_organisers_name_by_the_roster(room: Room) -> None:
    assert room.log_in("boss", _CODE).status_code == 403
    assert "is an organiser's name" in room.hub.log


def test_another_authenticator_checks_admins_passwords_and_nobody_elses(
    room: Room,
) -> None:
    assert room.log_in("chief", "of another kind").status_code == 302
    assert room.hub.user("chief")["admin"]
    for name, code in (
        ("chief", _CODE),
        ("a9", "of another kind"),
        ("x", "of another kind"),
    ):
        assert room.log_in(name, code, "10.3.0.1").status_code == 403


def test_wrong_codes_and_unknown_names_get_the_same_answer(room: Room) -> None:
    known = room.log_in("cy", "WRNG-CDDD", "10.9.0.1")
    unknown = room.log_in("xy", "WRNG-CDDD", "10.9.0.1")
    assert known.status_code == unknown.status_code == 403
    assert "Name or code is wrong" in _told(known)
    strip = re.compile(r'value="[^"]*"|_xsrf: "[^"]*"|nonce-[\w-]+')
    cleaned = [
        strip.sub("", page.text).replace("cy", "xy") for page in (known, unknown)
    ]
    assert len(cleaned[0]) == len(cleaned[1])
    assert set(known.headers) == set(unknown.headers)


def test_who_guesses_is_locked_out_and_the_room_behind_the_address_is_not(
    room: Room,
) -> None:
    room_address = "192.0.2.7"
    for _ in range(5):
        assert room.log_in("a1", "WRNG-CDDD", room_address).status_code == 403
    refused = room.log_in("a1", _CODE, room_address)
    assert refused.status_code == 429
    assert "Too many wrong codes. Try again in" in refused.text
    assert room.log_in("a2", _CODE, room_address).status_code == 302
    for _ in range(5):
        room.log_in("nobody-at-all", "WRNG-CDDD", room_address)
    unknown = room.log_in("nobody-at-all", _CODE, room_address)
    assert unknown.status_code == 429, "an unknown name is locked out all the same"


def test_a_header_that_anybody_can_send_makes_no_new_address(room: Room) -> None:
    for number in range(5):
        forged = f"198.51.100.{number}, 192.0.2.9"
        assert room.log_in("a3", "WRNG-CDDD", forged).status_code == 403
    assert room.log_in("a3", _CODE, "198.51.100.77, 192.0.2.9").status_code == 429


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.9", "192.0.2.9"),
        ("::1", "192.0.2.9, ::ffff:127.0.0.1", "192.0.2.9"),
        ("10.0.0.2", "6.6.6.6,192.0.2.9", "192.0.2.9"),
        ("10.0.0.3", "192.0.2.9", "10.0.0.3"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.9:8123", "192.0.2.9"),
        ("127.0.0.1", "6.6.6.6, [2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "6.6.6.6, nonsense", "127.0.0.1"),
    ],
)
def test_the_address_is_what_our_own_proxies_saw(
    peer: str, forwarded: str, seen: str
) -> None:
    context = SimpleNamespace(
        address=(peer, 5000), trusted_downstream={"::ffff:10.0.0.2"}
    )
    request = SimpleNamespace(
        connection=SimpleNamespace(context=context),
        headers={"X-Forwarded-For": forwarded} if forwarded else {},
    )
    assert address_of(SimpleNamespace(request=request)) == seen


async def test_codes_are_hashed_off_the_hubs_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path / "roster.json")
    threads: list[threading.Thread] = []

    def record(kept: str | None, typed: str) -> bool:
        threads.append(threading.current_thread())
        return True

    monkeypatch.setattr(authenticator, "is_code", record)
    monkeypatch.setattr(authenticator, "is_password", record)
    config = Config({"RosterAuthenticator": {"roster_file": f"{tmp_path}/roster.json"}})
    ours = authenticator.RosterAuthenticator(config=config)
    request = SimpleNamespace(connection=None, headers={})
    handler = SimpleNamespace(
        request=request, settings={"gpuworkshop_doors": DoorKeeper()}
    )
    for name in ("ada", "olga", "nobody-at-all"):
        await ours.authenticate(handler, {"username": name, "password": "x"})
    assert len(threads) == 3
    assert threading.current_thread() not in threads


def test_a_form_without_its_token_is_refused(room: Room) -> None:
    answer = requests.post(
        room.login_url,
        data={"username": "a4", "password": _CODE},
        allow_redirects=False,
        timeout=60,
    )
    assert answer.status_code == 403
    assert "jupyterhub-hub-login" not in answer.cookies


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a" * 1_000_000, _CODE),
        ("a5", "x" * 1_000_000),
        ("a5", "\x00\x01"),
        ("a5\r\n[I 2026] User logged in: a5", _CODE),
        ("<script>alert(1)</script>", _CODE),
        ("../../etc/passwd", _CODE),
    ],
)
def test_odd_input_is_refused_and_adds_no_line_to_the_log(
    room: Room, name: str, code: str
) -> None:
    answer = room.log_in(name, code)
    assert answer.status_code in (400, 403), answer.text[:500]
    assert "<script>alert(1)" not in answer.text
    assert "\n[I 2026] User logged in" not in room.hub.log
    assert max(map(len, room.hub.log.splitlines())) < 5000
    assert room.hub.api("GET", "info").ok


def test_the_page_escapes_what_a_link_puts_into_it(room: Room) -> None:
    given = {"username": '"><script>x</script>'}
    page = requests.get(room.login_url, params=given, timeout=60)
    assert "<script>x" not in page.text
    field = BeautifulSoup(page.text, "html.parser").find(id="username_input")
    assert field["value"] == '"><script>x</script>'


def test_a_hundred_log_in_at_once_while_the_hub_answers(room: Room) -> None:
    with ThreadPoolExecutor(max_workers=100) as pool:
        logins = [
            pool.submit(room.log_in, f"a{number}", _CODE, f"10.0.0.{number}")
            for number in range(100)
        ]
        while not all(login.done() for login in logins):
            assert room.hub.api("GET", "info").ok
        answers = [login.result().status_code for login in logins]
    assert answers == [302] * 100


def test_the_roster_is_heeded_without_a_restart(room: Room) -> None:
    new = hash_code("BBBB-CCCC")
    change_roster(room.roster, lambda roster: roster.with_codes({"a7": new}))
    assert room.log_in("a7", _CODE, "10.1.0.1").status_code == 403
    assert room.log_in("a7", "BBBB-CCCC", "10.1.0.1").status_code == 302
    change_roster(room.roster, lambda roster: roster.without(["a7"]))
    assert room.log_in("a7", "BBBB-CCCC", "10.1.0.1").status_code == 403
    good = room.roster.read_bytes()
    room.roster.write_bytes(b"{")
    assert room.log_in("a8", _CODE, "10.1.0.1").status_code == 302
    assert "the last good roster is in force" in room.hub.log
    room.roster.write_bytes(good)


def test_who_was_taken_off_the_roster_is_logged_out(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _fill(tmp_path / "roster.json")
    hub = make_hub(early=_WITH_ROSTER + "c.Authenticator.auth_refresh_age = 1\n")
    room = Room(hub.start())
    with requests.Session() as session:
        page = session.get(room.login_url)
        data = {"username": "bob", "password": _CODE, "_xsrf": _token(page)}
        session.post(room.login_url, data=data, allow_redirects=False)
        home = f"http://127.0.0.1:{hub.port}/hub/home"
        assert session.get(home, allow_redirects=False).status_code == 200
        change_roster(room.roster, lambda roster: roster.without(["bob"]))
        wait_for(
            lambda: session.get(home, allow_redirects=False).status_code == 302,
            why="bob is still logged in",
        )


def test_an_organiser_who_was_taken_off_is_one_no_more_and_a_token_goes_on(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _fill(tmp_path / "roster.json")
    hub = make_hub(early=_WITH_ROSTER + "c.Authenticator.auth_refresh_age = 1\n")
    room = Room(hub.start())
    hub.add_users("guest")
    token = hub.api("POST", "users/guest/tokens", json={}).json()["token"]
    with requests.Session() as session:
        page = session.get(room.login_url)
        data = {"username": "olga", "password": _PASSWORD, "_xsrf": _token(page)}
        session.post(room.login_url, data=data, allow_redirects=False)
        home = f"http://127.0.0.1:{hub.port}/hub/home"
        assert session.get(home, allow_redirects=False).status_code == 200
        change_roster(room.roster, lambda roster: roster.without(["olga"]))
        wait_for(
            lambda: session.get(home, allow_redirects=False).status_code == 302,
            why="olga is still logged in",
        )
    hub.token = token
    assert hub.api("GET", "user").json()["name"] == "guest"


def test_groups_set_twice_are_refused_with_what_to_do(
    make_hub: Callable[..., RunningHub],
) -> None:
    hub = make_hub(
        early=_WITH_ROSTER + 'c.JupyterHub.load_groups = {"a": {"users": []}}\n'
    )
    hub.launch()
    assert hub.process is not None
    assert hub.process.wait(60) != 0
    assert "Take load_groups out" in hub.log


def test_a_lock_survives_a_restart_and_an_organiser_lifts_it(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from jupyterhub_gpuworkshop.cli import main

    _fill(tmp_path / "roster.json")
    hub = make_hub(early=_WITH_ROSTER)
    room = Room(hub.start())
    for _ in range(5):
        assert room.log_in("bob", "WRNG-CDDD").status_code == 403
    hub.kill()
    hub.start()
    assert room.log_in("bob", _CODE).status_code == 429
    command = ["roster", "unlock", "bob", "--roster", str(room.roster)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert room.log_in("bob", _CODE).status_code == 302
