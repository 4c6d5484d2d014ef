"""Opening hours at a real hub: who gets in, who is stopped, and what they read."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import yaml
from bs4 import BeautifulSoup
from jupyterhub import orm

from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.hub.closing import Closing
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.doors import DoorKeeper, first_page
from jupyterhub_gpuworkshop.hub.roster_file import change_roster

from .running_hub import RunningHub, wait_for

_CODE = "KWXZ-2345"
_PASSWORD = "correct horse battery"
_EARLY = """
c.JupyterHub.authenticator_class = "gpuworkshop-roster"
import pathlib, time
from jupyterhub_gpuworkshop.hub.doors import DoorKeeper
_ahead = pathlib.Path({ahead!r})
DoorKeeper.clock = staticmethod(lambda: time.time() + float(_ahead.read_text()))
"""
_NAMES = ("ann", "bob", "cy", "di", "fay")

NOT_YET, OPEN, CLOSED, OVER = (1, 2), (-1, 2), (-5, -2), (-500, -400)
"""Hours from now at which the doors open and close."""


def _hours(*spans: tuple[float, float]) -> dict[str, object]:
    now = datetime.now(timezone.utc)
    lines = []
    for begin, end in spans:
        opens, closes = now + timedelta(hours=begin), now + timedelta(hours=end)
        lines.append(f"{opens:%Y-%m-%d %H:%M} to {closes:%Y-%m-%d %H:%M}")
    return {"timezone": "UTC", "hours": lines, "grace": "1 h"}


class House:
    """A hub whose organiser edits the hours."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.root = f"http://127.0.0.1:{hub.port}"
        self.ahead = hub.folder / "ahead"

    def set_hours(self, *spans: tuple[float, float], **more: object) -> None:
        """Save the workshop file with other hours, as an editor does."""
        self.pass_hours(0)
        content = yaml.safe_load(self.hub.workshop_file.read_text())
        content["doors"] = {**_hours(*spans), **more}
        beside = self.hub.workshop_file.with_suffix(".new")
        beside.write_text(yaml.safe_dump(content))
        beside.replace(self.hub.workshop_file)

    def pass_hours(self, hours: float) -> None:
        """Let the hub's doors believe that it is so much later."""
        beside = self.ahead.with_suffix(".new")
        beside.write_text(str(hours * 3600))
        beside.replace(self.ahead)

    def log_in(self, name: str, code: str = _CODE) -> requests.Session:
        """Log in with a browser of one's own; `.landed` is where that leads."""
        session = requests.Session()
        session.headers["Sec-Fetch-Mode"] = "navigate"
        page = session.get(f"{self.root}/hub/login")
        token = BeautifulSoup(page.text, "html.parser").find(
            "input", {"name": "_xsrf"}
        )["value"]
        session.landed = session.post(
            f"{self.root}/hub/login",
            data={"username": name, "password": code, "_xsrf": token},
            allow_redirects=False,
        )
        return session

    def text(self, session: requests.Session, path: str) -> str:
        """Return the words of a page."""
        page = session.get(f"{self.root}{path}")
        words = BeautifulSoup(page.text, "html.parser").get_text().split()
        return " ".join(words)

    def ask_for_server(self, session: requests.Session) -> str:
        """Ask for one's own server on the page; return what the page says."""
        return self.text(session, "/hub/spawn")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    roster = Roster(
        attendees=tuple(Attendee(name=n, code_hash=hash_code(_CODE)) for n in _NAMES),
        organisers=(Organiser(name="olga", password_hash=hash_password(_PASSWORD)),),
    )
    change_roster(folder / "roster.json", lambda _: roster, new=True)
    hub = RunningHub(folder, early=_EARLY.format(ahead=str(folder / "ahead")))
    house = House(hub)
    house.pass_hours(0)
    try:
        hub.start()
        yield house
    finally:
        hub.close()


@pytest.mark.hub
def test_before_the_doors_open_only_organisers_come_in(house: House) -> None:
    house.set_hours(NOT_YET)
    refused = house.log_in("ann").landed
    assert refused.status_code == 403
    assert "The doors open on " in refused.text
    # The hub listens a moment before the banner is there.
    wait_for(
        lambda: "The doors open on " in house.text(requests.Session(), "/hub/login")
    )
    assert house.log_in("olga", _PASSWORD).landed.status_code == 302
    # A wrong code learns nothing more than anybody reads on the page.
    assert "Name or code is wrong" in house.log_in("ann", "WRNG-CDDD").landed.text
    # Who has the right code is not locked out by coming early.
    for _ in range(12):
        assert house.log_in("ann").landed.status_code == 403
    house.set_hours(OPEN)
    assert house.log_in("ann").landed.status_code == 302


@pytest.mark.hub
def test_servers_are_started_for_others_before_the_doors_open(house: House) -> None:
    house.set_hours(NOT_YET)
    house.hub.add_users("bob")
    house.hub.spawn("bob")
    assert house.hub.server("bob")["ready"]


@pytest.mark.hub
def test_who_logs_in_after_closing_finds_their_work_and_gets_no_server(
    house: House,
) -> None:
    house.set_hours(CLOSED)
    session = house.log_in("cy")
    assert session.landed.status_code == 302
    assert session.landed.headers["Location"] == "/services/gpuworkshop/work"
    said = house.ask_for_server(session)
    assert "The doors are closed." in said
    assert "download your work until " in said
    assert house.hub.server("cy") is None
    assert not [lease for lease in house.hub.leases() if lease.user == "cy"]
    assert "Your work" in house.text(session, "/hub/home")


@pytest.mark.hub
def test_whoever_is_over_the_hours_is_stopped_and_organisers_are_not(
    house: House,
) -> None:
    house.set_hours(OPEN)
    mine, theirs = house.log_in("di"), house.log_in("olga", _PASSWORD)
    house.hub.spawn("di")
    house.hub.spawn("olga")
    house.pass_hours(1.9)
    assert "The doors close on " in house.text(mine, "/hub/home")
    house.pass_hours(2.1)
    assert "The doors closed on " in house.text(mine, "/hub/home")
    assert "your server is stopped " in house.text(mine, "/hub/home")
    assert "your server is stopped " not in house.text(theirs, "/hub/home")
    assert house.hub.server("di")["ready"]
    house.pass_hours(3.1)
    wait_for(lambda: house.hub.server("di") is None, why=house.hub.log[-3000:])
    assert house.hub.server("olga")["ready"]
    assert "Stopping di: the doors are closed" in house.hub.log
    assert not [lease for lease in house.hub.leases() if lease.user == "di"]


@pytest.mark.hub
def test_when_it_is_over_attendees_are_logged_out_for_good(house: House) -> None:
    house.set_hours(OPEN)
    session = house.log_in("fay")
    assert session.landed.status_code == 302
    house.set_hours(OVER)
    assert "The workshop is over." in house.ask_for_server(session)
    refused = house.log_in("fay").landed
    assert refused.status_code == 403
    assert "The workshop is over." in refused.text


def _keeper(workshop: object) -> DoorKeeper:
    return DoorKeeper(workshop=workshop)


def test_a_broken_edit_leaves_the_hours_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "workshop.yaml"
    path.write_text(yaml.safe_dump({"doors": _hours(NOT_YET)}))
    keeper = _keeper(str(path))
    assert "The doors open on " in keeper.no_login()
    path.write_text("doors: {hours: [never]}")
    assert "The doors open on " in keeper.no_login()
    path.write_text("")
    assert keeper.no_login() == ""


def test_a_mistake_elsewhere_in_the_file_opens_no_doors(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    section = {"doors": _hours(NOT_YET), "attendees": "many"}
    path.write_text(yaml.safe_dump({"gpuworkshop": section}))
    keeper = _keeper(f"{path}#gpuworkshop")
    assert "The doors open on " in keeper.no_login()
    section["doors"] = _hours(OPEN)
    path.write_text(yaml.safe_dump({"gpuworkshop": section, "more": 1}))
    assert keeper.no_login() == ""
    path.write_text("gpuworkshop: [")
    assert keeper.no_login() == ""


def test_an_admins_first_page_stays_while_the_doors_are_open() -> None:
    keeper = _keeper({"doors": _hours(OPEN)})
    nobody = SimpleNamespace(current_user=None, base_url="/")
    assert first_page(lambda _: keeper, "gpus", "/hub/home")(nobody) == "/hub/home"
    assert first_page(lambda _: keeper, "gpus", lambda _: "/x")(nobody) == "/x"
    assert first_page(lambda _: keeper, "gpus", "")(nobody) == ""


@pytest.mark.parametrize(
    ("name", "active", "hours", "leads"),
    [
        ("ann", False, CLOSED, "/services/gpus/work"),
        ("ann", True, CLOSED, "/hub/home"),
        ("ann", False, OPEN, "/hub/home"),
        ("ann", False, OVER, "/hub/home"),
        ("olga", False, CLOSED, "/hub/home"),
    ],
)
def test_only_who_has_no_server_behind_closed_doors_is_led_to_their_work(
    name: str, active: bool, hours: tuple[float, float], leads: str
) -> None:
    keeper = _keeper({"doors": _hours(hours)})
    user = _User(name, 100.0)
    user.active = active
    handler = SimpleNamespace(current_user=user, base_url="/")
    assert first_page(lambda _: keeper, "gpus", "/hub/home")(handler) == leads


class _Proxy:
    """A proxy whose first calls fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    async def delete_user(self, user: object, server: str) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the proxy is away")


_RUNNING = {"name": "", "ready": True, "pending": None, "is_own_start": False}


class _User:
    """One of the hub's users, whose server was started at a time."""

    def __init__(self, name: str, started: float, **spawner: object) -> None:
        self.name = name
        self.admin = name == "olga"
        self.orm_user = orm.User(name=name)
        self.active = True
        self.stopped: list[str] = []
        started_at = datetime.fromtimestamp(started, timezone.utc).replace(tzinfo=None)
        self.spawners = {
            "": SimpleNamespace(
                **_RUNNING | spawner,
                orm_spawner=SimpleNamespace(started=started_at),
                _log_name=name,
            )
        }

    async def stop(self, server: str) -> None:
        self.stopped.append(server)
        self.spawners[server].ready = False


def _closed_at(now: float) -> DoorKeeper:
    keeper = _keeper(
        {
            "doors": {
                "timezone": "UTC",
                "hours": ["1970-01-01 00:00 to 01:00", "1970-01-02 00:00 to 01:00"],
                "grace": "10 min",
            }
        }
    )
    keeper.clock = lambda: now
    return keeper


_STOPS_AT = 3600.0 + 600


async def test_what_is_started_for_the_next_morning_is_not_stopped() -> None:
    users = [
        _User("ann", 100.0),
        _User("bob", _STOPS_AT - 1),
        _User("for-tomorrow", _STOPS_AT),
        _User("olga", 100.0),
        _User("starting", 100.0, pending="spawn"),
        _User("gone", 100.0, ready=False),
    ]
    app = SimpleNamespace(
        users={user.name: user for user in users},
        proxy=_Proxy(),
        log=logging.getLogger("test"),
    )
    await Closing(app, _closed_at(_STOPS_AT - 1)).stop_those_due()
    assert [user.name for user in users if user.stopped] == []
    await Closing(app, _closed_at(_STOPS_AT)).stop_those_due()
    assert [user.name for user in users if user.stopped] == ["ann", "bob"]


async def test_what_an_attendee_started_is_stopped_whatever_the_hours_were_then() -> (
    None
):
    ann = _User("ann", _STOPS_AT + 30, is_own_start=True)
    olga = _User("olga", _STOPS_AT + 30, is_own_start=True)
    app = SimpleNamespace(
        users={"ann": ann, "olga": olga},
        proxy=_Proxy(),
        log=logging.getLogger("test"),
    )
    # The organiser has just written that the doors closed a minute ago.
    await Closing(app, _closed_at(_STOPS_AT + 60)).stop_those_due()
    assert (ann.stopped, olga.stopped) == ([""], [])
    # Who is no organiser any more has no server then, either.
    olga.admin = False
    await Closing(app, _closed_at(_STOPS_AT + 60)).stop_those_due()
    assert olga.stopped == [""]


async def test_hours_that_are_made_longer_while_servers_stop_keep_the_others() -> None:
    users = {f"a{number}": _User(f"a{number}", 100.0) for number in range(20)}
    keeper = _closed_at(_STOPS_AT)

    class Proxy(_Proxy):
        async def delete_user(self, user: object, server: str) -> None:
            keeper.clock = lambda: 100.0

    app = SimpleNamespace(users=users, proxy=Proxy(), log=logging.getLogger("test"))
    await Closing(app, keeper).stop_those_due()
    assert 1 <= len([user for user in users.values() if user.stopped]) <= 4


async def test_a_stop_that_fails_holds_up_nobody_and_is_tried_again() -> None:
    ann, bob = _User("ann", 100.0), _User("bob", 100.0)
    app = SimpleNamespace(
        users={"ann": ann, "bob": bob},
        proxy=_Proxy(failures=1),
        log=logging.getLogger("test"),
    )
    closing = Closing(app, _closed_at(_STOPS_AT))
    await closing.stop_those_due()
    assert len(ann.stopped + bob.stopped) == 1
    await closing.stop_those_due()
    assert (ann.stopped, bob.stopped) == ([""], [""])
