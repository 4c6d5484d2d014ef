"""Joining an open event at a real hub: who gets a name, and what the others learn."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from bs4 import BeautifulSoup

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.core.roster import (
    Attendee,
    Organiser,
    Room,
    Roster,
    name_mistake,
)
from jupyterhub_gpuworkshop.hub import homes, joining
from jupyterhub_gpuworkshop.hub.codes import hash_code, is_code
from jupyterhub_gpuworkshop.hub.doors import DoorKeeper
from jupyterhub_gpuworkshop.hub.joining import name_from
from jupyterhub_gpuworkshop.hub.roster_file import change_roster, read_roster

from .running_hub import RunningHub

_ROOM_CODE = "RMCD-2345"
_WRONG = "WRNG-CDDD"
_CARD_CODE = "KWXZ-2345"
_WITH_ROSTER = (
    'c.JupyterHub.authenticator_class = "gpuworkshop-roster"\n'
    'c.Authenticator.admin_users = {"boss"}\n'
    'c.Authenticator.blocked_users = {"banned"}\n'
    'c.Authenticator.username_map = {"eve": "evelyn"}\n'
    'c.RosterAuthenticator.reserved_names = {"help"}\n'
)
_SHARES = {"shares": {"users": {"vip": "2 gpus"}}}


class OpenRoom:
    """A hub with an open room, and people who come in."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        base = f"http://127.0.0.1:{hub.port}{hub.base_url}hub"
        self.join_url = f"{base}/join"
        self.login_url = f"{base}/login"
        self.path = hub.folder / "roster.json"

    def join(
        self, name: str, code: str = _ROOM_CODE, address: str = "", **more: str
    ) -> requests.Response:
        """Type room code and name into the page's form, as a browser would."""
        with _browser(address) as session:
            page = session.get(self.join_url)
            data = {"username": name, "room_code": code, "_xsrf": _token(page), **more}
            return session.post(self.join_url, data=data, allow_redirects=False)

    def open(self, at_most: int) -> None:
        """Open the room anew, for so many."""
        room = Room(code_hash=hash_code(_ROOM_CODE), at_most=at_most)
        change_roster(self.path, lambda before: _with_room(before, room))

    def names(self) -> set[str]:
        """Return who is on the roster."""
        return set(read_roster(self.path).names())


def _browser(address: str = "") -> requests.Session:
    session = requests.Session()
    session.headers["Sec-Fetch-Mode"] = "navigate"
    if address:
        session.headers["X-Forwarded-For"] = address
    return session


def _with_room(before: Roster, room: Room | None) -> Roster:
    return Roster(attendees=before.attendees, organisers=before.organisers, room=room)


def _token(page: requests.Response) -> str:
    field = BeautifulSoup(page.text, "html.parser").find("input", {"name": "_xsrf"})
    assert field is not None, page.text
    return str(field["value"])


def _told(page: requests.Response) -> str:
    error = BeautifulSoup(page.text, "html.parser").select_one(".login_error")
    return " ".join(error.get_text().split()) if error is not None else ""


def _own(page: requests.Response) -> tuple[str, str]:
    """Return the name and the code that the page shows."""
    soup = BeautifulSoup(page.text, "html.parser")
    name, code = soup.find(id="own_name"), soup.find(id="own_code")
    assert name is not None, page.text
    assert code is not None, page.text
    return name.get_text(), code.get_text()


def _fill(path: Path, at_most: int = 1000) -> None:
    roster = Roster(
        attendees=(Attendee(name="ada", code_hash=hash_code(_CARD_CODE)),),
        organisers=(Organiser(name="olga", password_hash="x"),),
        room=Room(code_hash=hash_code(_ROOM_CODE), at_most=at_most),
    )
    change_roster(path, lambda _: roster, new=True)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenRoom]:
    """Return a hub that several tests share: each uses names of its own."""
    folder = tmp_path_factory.mktemp("open-room")
    _fill(folder / "roster.json")
    hub = RunningHub(folder, early=_WITH_ROSTER, workshop=_SHARES)
    try:
        yield OpenRoom(hub.start())
    finally:
        hub.close()


@pytest.mark.hub
@pytest.mark.parametrize(
    "name",
    [
        "olga",
        "boss",
        "BOSS",
        " Boss ",
        "bóss",
        "ada",
        "Ada",
        "banned",
        "eve",
        "evelyn",
        "help",
        "vip",
        "by-hand",
    ],
)
def test_no_name_of_somebody_elses_is_given_to_who_has_the_code(
    room: OpenRoom, name: str
) -> None:
    room.hub.api("POST", "users/by-hand")
    # An admin's name is kept where the hub has no account of it, too.
    room.hub.api("DELETE", "users/boss")
    before = room.path.read_bytes()
    answer = room.join(name)
    assert answer.status_code == 409, answer.text
    assert "This name is taken" in _told(answer)
    assert room.path.read_bytes() == before
    assert "jupyterhub-hub-login" not in answer.cookies


@pytest.mark.hub
@pytest.mark.parametrize("name", ["root", "daemon", "ubuntu", "systemd-network"])
def test_no_account_of_the_system_is_given(room: OpenRoom, name: str) -> None:
    answer = room.join(name)
    assert answer.status_code == 400, answer.text
    assert "account of the system" in _told(answer)
    assert name not in room.names()


@pytest.mark.parametrize(
    "account",
    ["workstation", "jupyter-workstation"],
)
def test_no_unix_user_of_this_host_is_given_nor_an_earlier_attendees_of_tljh(
    account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roster.json"
    _fill(path)

    def look_up(name: str) -> object:
        if name != account:
            raise KeyError(name)
        return object()

    monkeypatch.setattr(joining.pwd, "getpwnam", look_up)
    current = read_roster(path).room
    assert current is not None
    with pytest.raises(joining._Refused, match="taken"):
        joining._write_down(path, current, "workstation", "BBBBCCCC")
    joining._write_down(path, current, "another", "BBBBCCCC")
    assert read_roster(path).names() == ("ada", "another")


def test_nobody_gets_the_name_whose_home_is_still_there(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    _fill(path)
    home = homes.Home(kind=homes.DOCKER, path="/home/jovyan")
    homes.Homes(homes.file_beside(path)).record("earlier", home)
    current = read_roster(path).room
    assert current is not None
    with pytest.raises(joining._Refused, match="taken"):
        joining._write_down(path, current, "earlier", "BBBBCCCC")
    homes.file_beside(path).write_bytes(b"{")
    with pytest.raises(HostError):
        joining._write_down(path, current, "earlier", "BBBBCCCC")
    assert read_roster(path).names() == ("ada",)


def test_the_name_that_tljh_makes_of_a_long_one_is_looked_up_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def look_up(name: str) -> object:
        asked.append(name)
        raise KeyError(name)

    monkeypatch.setattr(joining.pwd, "getpwnam", look_up)
    assert not joining._is_on_host("a-name-that-is-too-long")
    # As generate_system_username of TLJH 2.0 writes it.
    assert asked == ["a-name-that-is-too-long", "jupyter-a-name-that-is-too-6de1c"]


@pytest.mark.hub
def test_somebody_joins_and_logs_in_with_the_code_that_is_shown_once(
    room: OpenRoom,
) -> None:
    with _browser() as session:
        page = session.get(room.join_url)
        data = {
            "username": " Zoë Müller ",
            "room_code": "rmcd 2345",
            "_xsrf": _token(page),
        }
        answer = session.post(room.join_url, data=data, allow_redirects=False)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        name, code = _own(answer)
        assert name == "zoe-muller"
        attendee = read_roster(room.path).attendee(name)
        assert attendee is not None
        assert attendee.joined
        assert is_code(attendee.code_hash, code)
        form = BeautifulSoup(answer.text, "html.parser").form
        assert form is not None
        assert form["method"] == "post"
        assert code not in form["action"]
        given = {field["name"]: field["value"] for field in form.find_all("input")}
        action = requests.compat.urljoin(room.join_url, form["action"])
        signed_in = session.post(action, data=given, allow_redirects=False)
        assert signed_in.status_code == 302, signed_in.text
    user = room.hub.user(name)
    assert not user["admin"]
    assert code not in room.hub.log
    assert code not in room.path.read_text()
    assert _ROOM_CODE not in room.hub.log


@pytest.mark.hub
def test_a_wrong_code_gets_the_same_answer_whether_the_name_is_taken_or_not(
    room: OpenRoom,
) -> None:
    taken = room.join("ada", _WRONG, "10.9.0.1")
    free = room.join("xyz", _WRONG, "10.9.0.1")
    assert taken.status_code == free.status_code == 403
    assert "The room code is wrong" in _told(taken)
    strip = re.compile(r'value="[^"]*"|_xsrf: "[^"]*"|xsrf_token: "[^"]*"')
    cleaned = [strip.sub("", page.text) for page in (taken, free)]
    assert cleaned[0] == cleaned[1]
    assert set(taken.headers) == set(free.headers)
    assert "xyz" not in room.names()


@pytest.mark.hub
def test_who_guesses_waits_and_neither_the_room_nor_a_login_does(
    room: OpenRoom,
) -> None:
    address = "192.0.2.7"
    for _ in range(5):
        assert room.join("guesser", _WRONG, address).status_code == 403
        assert room.join("ada", _WRONG, address).status_code == 403
    refused = room.join("guesser", _ROOM_CODE, address)
    assert refused.status_code == 429
    assert "Too many wrong codes. Try again in" in _told(refused)
    assert room.join("innocent", _ROOM_CODE, address).status_code == 200
    with _browser(address) as session:
        page = session.get(room.login_url)
        data = {"username": "ada", "password": _CARD_CODE, "_xsrf": _token(page)}
        answer = session.post(room.login_url, data=data, allow_redirects=False)
    assert answer.status_code == 302, answer.text


@pytest.mark.hub
def test_a_form_without_its_token_makes_nobody_an_attendee(room: OpenRoom) -> None:
    data = {"username": "forged", "room_code": _ROOM_CODE}
    answer = requests.post(room.join_url, data=data, timeout=60)
    assert answer.status_code == 403
    assert "This form is too old" in answer.text
    from_elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = requests.post(room.join_url, data=data, headers=from_elsewhere, timeout=60)
    assert answer.status_code == 403
    assert "forged" not in room.names()


@pytest.mark.hub
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a" * 1_000_000, _ROOM_CODE),
        ("bounded", "x" * 1_000_000),
        ("a\r\n[I 2026] forged joined", _ROOM_CODE),
        ("a\x00b\x1b[31m", _ROOM_CODE),
        ("<script>alert(1)</script>", _ROOM_CODE),
        ("../../etc/passwd", _ROOM_CODE),
        ("=cmd|'/c calc'!A1", _ROOM_CODE),
        ("аda", _ROOM_CODE),  # noqa: RUF001 - a Cyrillic letter
        ("%(x)s%n", _ROOM_CODE),
        ("", _ROOM_CODE),
        ("bounded", "<script>alert(1)</script>"),
    ],
)
def test_odd_input_is_refused_and_adds_no_line_to_the_log(
    room: OpenRoom, name: str, code: str
) -> None:
    before = room.path.read_bytes()
    answer = room.join(name, code)
    assert answer.status_code in (400, 403), answer.text[:500]
    assert "<script>alert(1)" not in answer.text
    assert "%%" not in answer.text
    assert room.path.read_bytes() == before
    assert "\n[I 2026] forged" not in room.hub.log
    assert "\x1b[31m" not in room.hub.log
    assert max(map(len, room.hub.log.splitlines())) < 5000


@pytest.mark.hub
def test_input_that_is_no_text_is_refused(room: OpenRoom) -> None:
    with _browser() as session:
        token = _token(session.get(room.join_url))
        answer = session.post(
            room.join_url,
            data=f"_xsrf={token}&username=%ff%fe&room_code=%80".encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
    assert answer.status_code == 400


@pytest.mark.hub
def test_name_and_code_in_the_url_are_not_looked_at(room: OpenRoom) -> None:
    given = {"username": "by-url", "room_code": _ROOM_CODE}
    page = requests.get(room.join_url, params=given, timeout=60)
    assert "by-url" not in BeautifulSoup(page.text, "html.parser").form.decode()
    with _browser() as session:
        token = _token(session.get(room.join_url))
        answer = session.post(room.join_url, params=given, data={"_xsrf": token})
    assert answer.status_code == 400
    assert "by-url" not in room.names()


@pytest.mark.hub
def test_of_two_at_once_exactly_one_gets_the_name(room: OpenRoom) -> None:
    with ThreadPoolExecutor(max_workers=6) as pool:
        answers = list(pool.map(lambda _: room.join("wanted"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 3]
    (won,) = (answer for answer in answers if answer.status_code == 200)
    attendee = read_roster(room.path).attendee("wanted")
    assert attendee is not None
    assert is_code(attendee.code_hash, _own(won)[1])


@pytest.mark.hub
def test_who_is_signed_in_needs_no_other_name(room: OpenRoom) -> None:
    with _browser() as session:
        page = session.get(room.join_url)
        data = {"username": "once", "room_code": _ROOM_CODE, "_xsrf": _token(page)}
        name, code = _own(session.post(room.join_url, data=data))
        page = session.get(room.login_url)
        data = {"username": name, "password": code, "_xsrf": _token(page)}
        session.post(room.login_url, data=data, allow_redirects=False)
        page = session.get(room.join_url)
        assert "You are signed in as" in page.text
        token = session.cookies.get("_xsrf", path="/hub/")
        again = {"username": "twice", "room_code": _ROOM_CODE, "_xsrf": token}
        assert session.post(room.join_url, data=again).status_code == 403
    assert "twice" not in room.names()


@pytest.mark.hub
def test_a_full_room_takes_nobody_and_of_many_for_the_last_place_one_gets_it(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _fill(tmp_path / "roster.json", at_most=2)
    room = OpenRoom(make_hub(early=_WITH_ROSTER).start())
    assert room.join("first").status_code == 200
    with ThreadPoolExecutor(max_workers=6) as pool:
        answers = list(pool.map(lambda number: room.join(f"n{number}"), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, *[403] * 5]
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert _told(refused) == "The room is full: ask the organisers."
    assert read_roster(room.path).joined == 2
    change_roster(room.path, lambda before: before.without(["first"]))
    assert room.join("next").status_code == 200


@pytest.mark.hub
def test_nothing_is_there_unless_a_room_is_open_and_the_roster_is_good(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    _fill(tmp_path / "roster.json")
    room = OpenRoom(make_hub(early=_WITH_ROSTER, base_url="/gpu/").start())
    with _browser() as session:
        link = BeautifulSoup(session.get(room.login_url).text, "html.parser").find(
            "a", string="Join with the room code"
        )
        assert link is not None
        assert link["href"] == "/gpu/hub/join"
        page = session.get(room.join_url)
        data = {"username": "late", "room_code": _ROOM_CODE, "_xsrf": _token(page)}
        good = room.path.read_bytes()
        room.path.write_bytes(b"{")
        closed = session.get(room.join_url)
        assert closed.status_code == 404
        assert "No room is open here" in closed.text
        assert 'name="room_code"' not in closed.text
        room.path.write_bytes(good)
        assert session.get(room.join_url).status_code == 200
        change_roster(room.path, lambda before: _with_room(before, None))
        assert session.get(room.join_url).status_code == 404
        assert session.post(room.join_url, data=data).status_code == 404
        assert "/hub/join" not in session.get(room.login_url).text
    assert room.names() == {"ada"}


def test_a_room_that_was_given_another_code_meanwhile_takes_nobody(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roster.json"
    _fill(path)
    earlier = Room(code_hash="of an earlier code", at_most=1000)
    with pytest.raises(joining._Refused, match="closed"):
        joining._write_down(path, earlier, "late", "BBBBCCCC")
    assert read_roster(path).names() == ("ada",)


async def test_nobody_joins_before_the_doors_open_nor_when_it_is_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roster.json"
    _fill(path)
    ours = _joining(tmp_path)
    for hours, said in (
        ("2999-01-01 09:00 to 17:00", "The doors open on"),
        ("2001-01-01 09:00 to 17:00", "The workshop is over"),
    ):
        doors = DoorKeeper(workshop={"doors": {"timezone": "UTC", "hours": hours}})
        handler = SimpleNamespace(
            request=SimpleNamespace(connection=None, headers={}),
            settings={"gpuworkshop_doors": doors},
        )
        with pytest.raises(joining._Refused, match=said) as caught:
            await ours.join(handler, "early", _ROOM_CODE)
        assert caught.value.status == 403
        # Who has not the code does not read more than everybody does.
        with pytest.raises(joining._Refused, match="code is wrong"):
            await ours.join(handler, "early", _WRONG)
    assert read_roster(path).names() == ("ada",)


async def test_a_flood_is_refused_before_anything_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[threading.Thread] = []

    def record(kept: str | None, typed: str) -> bool:
        hashed.append(threading.current_thread())
        return False

    monkeypatch.setattr(joining, "is_code", record)
    monkeypatch.setattr(joining, "_MOST_WAITING", 3)
    monkeypatch.setattr(joining, "_MOST_FROM_ONE", 2)
    _fill(tmp_path / "roster.json")
    ours = _joining(tmp_path)
    handler, other = (
        SimpleNamespace(
            request=SimpleNamespace(
                connection=None, headers={"X-Forwarded-For": address}
            ),
            settings={},
        )
        for address in ("192.0.2.1", "192.0.2.2")
    )
    with ExitStack() as flood:
        for _ in range(2):
            flood.enter_context(ours._waiting.place("192.0.2.1"))
        with pytest.raises(joining._Refused, match="Try again") as caught:
            await ours.join(handler, "ada", _WRONG)
        assert caught.value.status == 503
        assert not hashed
        # Whoever is elsewhere has their turn all the same.
        with pytest.raises(joining._Refused, match="wrong"):
            await ours.join(other, "ada", _WRONG)
    with pytest.raises(joining._Refused, match="wrong"):
        await ours.join(handler, "ada", _WRONG)
    assert len(hashed) == 2
    assert threading.current_thread() not in hashed


def _joining(folder: Path) -> Any:
    from traitlets.config import Config

    from jupyterhub_gpuworkshop.hub.authenticator import RosterAuthenticator

    config = Config({"RosterAuthenticator": {"roster_file": f"{folder}/roster.json"}})
    return RosterAuthenticator(config=config)._joining


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Ada", "ada"),
        ("  ada lovelace ", "ada-lovelace"),
        ("Ada_L.", "ada-l"),
        ("Åse", "ase"),
        ("ａｄａ", "ada"),  # noqa: RUF001 - in full width
        ("Straße", "strasse"),
    ],
)
def test_what_reads_the_same_is_the_same_name(typed: str, name: str) -> None:
    assert name_from(typed) == name
    assert name_mistake(name) is None
