"""`gpuworkshop remove-attendees` at a real hub, with a real GPU service."""

import os
import pwd
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import requests
from click.testing import CliRunner, Result

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.hub.homes import UNIX, Home, Homes, read_homes
from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts, file_beside
from jupyterhub_gpuworkshop.hub.roster_file import change_roster, read_roster
from jupyterhub_gpuworkshop.tools.removing.homes import TLJH_GROUP, tljh_account

from .running_hub import RunningHub, wait_for

pytestmark = pytest.mark.hub

NAMES = ("ann", "anna", "ann-2")
_EARLY = """
c.JupyterHub.authenticator_class = "gpuworkshop-roster"
c.JupyterHub.allow_named_servers = True
c.Authenticator.admin_users = {"olga"}
c.JupyterHub.api_tokens = {"olgas-own-token": "olga", "anns-own-token": "ann"}
"""

STEPS = (
    "change_roster",
    "stop_servers",
    "_delete",
    "remove_home",
    "_forget_beside",
    "forget",
)
KILLED = """
import asyncio, os, signal, sys
from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.tools.removing import carrying_out, history

step = sys.argv.pop(1)
where = history.History if step == "forget" else carrying_out
real = getattr(where, step)

def die(done):
    os.kill(os.getpid(), signal.SIGKILL)

async def wait_and_die(*args, **kwargs):
    die(await real(*args, **kwargs))

def do_and_die(*args, **kwargs):
    die(real(*args, **kwargs))

setattr(where, step, wait_and_die if asyncio.iscoroutinefunction(real) else do_and_die)
main()
"""


class TljhUsers:
    """Unix users as TLJH makes them, gone with the test."""

    def __enter__(self) -> "TljhUsers":
        """Begin."""
        self._made_group = bool(self._sh("getent", "group", TLJH_GROUP))
        if self._made_group:
            assert self._sh("groupadd", TLJH_GROUP) == 0
        self._accounts: list[str] = []
        return self

    def __exit__(self, *_: object) -> None:
        """Take away what is left."""
        for account in self._accounts:
            self._sh("userdel", "--remove", account)
        if self._made_group:
            self._sh("groupdel", TLJH_GROUP)

    def add(self, name: str) -> Home:
        """Make one, and return its home as the hub writes it down."""
        account = tljh_account(name)
        assert self._sh("useradd", "--create-home", account) == 0
        self._accounts.append(account)
        assert self._sh("gpasswd", "--add", account, TLJH_GROUP) == 0
        found = pwd.getpwnam(account)
        return Home(
            kind=UNIX,
            path=found.pw_dir,
            uid=found.pw_uid,
            gid=found.pw_gid,
            account=account,
        )

    @staticmethod
    def has(name: str) -> bool:
        """Return whether anything of a user is on this machine."""
        account = tljh_account(name)
        known = {entry.pw_name for entry in pwd.getpwall()}
        return account in known or Path("/home", account).exists()

    @staticmethod
    def _sh(*command: str) -> int:
        done = subprocess.run(  # noqa: S603 - texts of this file
            command, check=False, capture_output=True, timeout=60
        )
        return done.returncode


class Event:
    """A workshop at its end: a hub, its service, a roster of three and an organiser."""

    def __init__(self, make_hub: Callable[..., RunningHub], folder: Path) -> None:
        self.folder = folder
        self.roster = folder / "roster.json"
        people = tuple(Attendee(name=name, code_hash="x") for name in NAMES)
        organisers = (Organiser(name="olga", password_hash="x"),)
        roster = Roster(attendees=people, organisers=organisers)
        change_roster(self.roster, lambda _: roster, new=True)
        self.archives = folder / "work"
        self.archives.mkdir()
        self.hub = make_hub(
            service=True,
            early=_EARLY,
            workshop={
                "material": {"archives": str(self.archives)},
                "monitor": {"interval": "0.5s"},
            },
        ).start()
        wait_for(lambda: self.service("health"), why="the service does not serve")

    def command(self, *arguments: str) -> list[str]:
        """Return the command line, without the program."""
        return [
            "remove-attendees",
            f"--api-url=http://127.0.0.1:{self.hub.port}/hub/api",
            f"--roster={self.roster}",
            f"--workshop={self.hub.workshop_file}",
            *arguments,
        ]

    def run(self, *arguments: str, answer: str = "") -> Result:
        """Run the command as olga would."""
        environment = {"JUPYTERHUB_API_TOKEN": "olgas-own-token", "COLUMNS": "200"}
        return CliRunner().invoke(
            main, self.command(*arguments), input=answer, env=environment
        )

    def users(self) -> set[str]:
        """Return whom the hub knows."""
        return {user["name"] for user in self.hub.api("GET", "users").json()}

    def history_users(self) -> set[str]:
        """Return of whom something happened, as the service says."""
        answer = self.service("api/v1/events?limit=1000")
        return {event["user"] for event in answer.json()} if answer else set()

    def service(self, path: str) -> requests.Response | None:
        """Ask the GPU service as olga; None while it does not listen."""
        try:
            return requests.get(
                f"http://127.0.0.1:{self.hub.service_port}/services/gpuworkshop/{path}",
                headers={"Authorization": "token olgas-own-token"},
                timeout=30,
            )
        except requests.ConnectionError:
            return None

    def killed_after(self, step: str, name: str) -> "subprocess.CompletedProcess[str]":
        """Run the command in a process that is killed once a step is done."""
        return subprocess.run(  # noqa: S603 - text of this file
            [sys.executable, "-c", KILLED, step, *self.command("--yes", name)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "JUPYTERHUB_API_TOKEN": "olgas-own-token"},
        )

    def may_ask(self, token: str) -> bool:
        """Return whether the hub knows whose a token is."""
        return requests.get(
            f"http://127.0.0.1:{self.hub.port}/hub/api/user",
            headers={"Authorization": f"token {token}"},
            timeout=30,
        ).ok

    def happened(self, *names: str) -> None:
        """Let something happen to each, and wait until the service knows of it."""
        for name in names:
            self.hub.api("POST", f"users/{name}")
            self.hub.spawn(name)
        wait_for(
            lambda: set(names) <= self.history_users(), why="the service knows nothing"
        )

    def left_in_state(self, name: str) -> list[str]:
        """Return the files of the service's state in which a name is, as a word."""
        found = []
        for path in (self.folder / "service").rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            for other in NAMES:
                if other != name and name in other:
                    content = content.replace(other.encode(), b"")
            if name.encode() in content:
                found.append(path.name)
        return found


@pytest.fixture
def event(make_hub: Callable[..., RunningHub], tmp_path: Path) -> Event:
    """Return a workshop at its end."""
    return Event(make_hub, tmp_path)


def test_nothing_is_changed_by_a_list_or_a_wrong_answer(event: Event) -> None:
    event.happened("ann")
    event.hub.spawn("ann", "thesis")
    home = event.hub.folder / "home" / "ann"
    path = event.folder / "roster.homes.json"
    Homes(path).record("ann", Home(kind=UNIX, path=str(home), uid=0, gid=0))
    listed = event.run("--dry-run", "ann")
    assert listed.exit_code == 0, listed.output
    assert "1 would be removed" in listed.output
    assert "2 servers with leases" in listed.output
    assert f"ann: folder {home}" in listed.output, "gpu-simple's homes stay"
    for answer in ("\n", "n\n", "2\n", "yes\n"):
        refused = event.run("ann", answer=answer)
        assert refused.exit_code == 1, refused.output
        assert "Nothing is removed." in refused.output
    assert event.users() == {"ann", "olga"}
    assert len(event.hub.servers_alive()) == 2
    assert read_roster(event.roster).attendee("ann").code_hash == "x"


def test_an_attendees_token_removes_nobody(event: Event) -> None:
    environment = {"JUPYTERHUB_API_TOKEN": "anns-own-token"}
    command = event.command("--yes")
    refused = CliRunner().invoke(main, command, env=environment)
    assert refused.exit_code == 1
    assert "refuses the token" in refused.output
    assert read_roster(event.roster).names() == NAMES
    assert "ann" in event.users()


def test_all_that_was_listed_goes_and_nothing_else(event: Event) -> None:
    hub = event.hub
    event.happened("ann", "anna")
    hub.spawn("ann", "thesis")
    (event.archives / "ann.tar.gz").write_bytes(b"hers")
    homes = event.folder / "roster.homes.json"
    for name in ("ann", "anna"):
        path = str(hub.folder / "home" / name)
        Homes(homes).record(name, Home(kind=UNIX, path=path, uid=0, gid=0))
    assert event.may_ask("anns-own-token")

    done = event.run("ann", answer="1\n")
    assert done.exit_code == 0, done.output
    assert "1 of 1 are removed." in done.output
    assert f"Their work stays in {event.archives}. Move it away" in done.output
    assert event.users() == {"anna", "olga"}
    assert not event.may_ask("anns-own-token")
    assert read_roster(event.roster).names() == ("anna", "ann-2")
    assert len(hub.servers_alive()) == 1
    assert {lease.user for lease in hub.leases()} == {"anna"}
    assert {key[0] for key in hub.ledger().previous} == {"anna"}
    assert (hub.folder / "home" / "ann").is_dir()
    assert (event.archives / "ann.tar.gz").read_bytes() == b"hers"
    assert read_homes(homes).keys() == {"anna"}
    users = event.history_users()
    assert "ann" not in users
    assert "anna" in users
    assert any(user.startswith("attendee ") for user in users)
    assert event.left_in_state("ann") == []
    with closing(sqlite3.connect(hub.folder / "jupyterhub.sqlite")) as db:
        notes = db.execute("SELECT note FROM api_tokens").fetchall()
    assert notes, "the hub keeps tokens there"
    assert not [note for (note,) in notes if "remove-attendees" in str(note)]


def test_what_was_known_of_wrong_codes_goes_with_the_name(event: Event) -> None:
    lock_outs = LockOuts(file_beside(event.roster))
    for name in ("ann", "anna"):
        lock_outs.failed(name, "10.0.0.1")
        lock_outs.succeeded(name, "10.0.0.2")
    assert event.run("--yes", "ann").exit_code == 0
    with closing(sqlite3.connect(file_beside(event.roster))) as db:
        known = [
            db.execute("SELECT name FROM pairs").fetchall(),
            db.execute("SELECT name FROM names").fetchall(),
            db.execute("SELECT name FROM good").fetchall(),
        ]
    assert known == [[("anna",)], [("anna",)], [("anna",)]]


def test_all_of_a_roster_goes_and_it_stays_a_roster(event: Event) -> None:
    event.happened("ann", "ann-2")
    done = event.run(answer="3\n")
    assert done.exit_code == 0, done.output
    assert "3 of 3 are removed." in done.output
    roster = read_roster(event.roster)
    assert roster.names() == ()
    assert roster.organiser("olga")
    assert event.users() == {"olga"}
    assert [event.left_in_state(name) for name in NAMES] == [[], [], []]
    again = event.run("--yes")
    assert again.exit_code == 0
    assert "There is nobody to remove." in again.output


def test_organisers_and_admins_are_left_whatever_the_roster_says(event: Event) -> None:
    hub = event.hub
    hub.add_users("anna", "ann-2")
    promoted = requests.patch(
        f"http://127.0.0.1:{hub.port}/hub/api/users/anna",
        json={"admin": True},
        headers={"Authorization": "token olgas-own-token"},
        timeout=30,
    )
    assert promoted.ok, promoted.text
    done = event.run("--yes", "olga", "anna", "ann")
    assert done.exit_code == 1, done.output
    assert "olga: an organiser on the roster" in done.output
    assert "anna: an admin of the hub" in done.output
    assert event.users() == {"olga", "anna", "ann-2"}
    assert read_roster(event.roster).names() == ("anna", "ann-2")
    assert read_roster(event.roster).attendee("anna").code_hash == "x"
    unknown = event.run("--yes", "eve", "ann-2")
    assert unknown.exit_code == 1
    assert "no attendee eve" in unknown.output
    assert "ann-2" in event.users()


def test_work_that_is_in_no_archive_is_warned_of(event: Event) -> None:
    event.happened("ann", "anna")
    event.hub.stop_server("ann")
    listed = event.run("--dry-run")
    assert "WARNING: the latest work of 2 of them is in no archive" in listed.output
    assert "sudo gpuworkshop material collect" in listed.output
    (event.archives / "ann.tar.gz").write_bytes(b"")
    listed = event.run("--dry-run")
    assert "work of 1 of them is in no archive" in listed.output
    assert "in no archive: anna." in listed.output


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes accounts: run it as root")
def test_a_run_that_is_killed_after_any_step_is_begun_again(event: Event) -> None:
    # Each step with an attendee of its own, and "rm-" so that nobody's account is hit.
    names = [f"rm-{step.strip('_').replace('_', '-')[:12]}" for step in STEPS]
    people = tuple(Attendee(name=name, code_hash="x") for name in names)
    change_roster(event.roster, lambda before: before.plus(people))
    homes = event.folder / "roster.homes.json"
    with TljhUsers() as machine:
        event.happened(*names)
        for name in names:
            Homes(homes).record(name, machine.add(name))
        for step, name in zip(STEPS, names, strict=True):
            killed = event.killed_after(step, name)
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            roster = read_roster(event.roster)
            assert roster.attendee(name).code_hash == "", step
            again = event.run("--yes", name)
            assert again.exit_code == 0, (step, again.output)
            assert name not in event.users()
            assert name not in read_roster(event.roster).names()
            assert name not in read_homes(homes)
            assert event.left_in_state(name) == []
            assert not machine.has(name), step
    assert read_roster(event.roster).names() == NAMES
    assert event.hub.leases() == []


def test_without_the_service_the_name_stays_on_the_roster_until_it_is_back(
    event: Event,
) -> None:
    event.happened("ann")
    assert event.hub.process is not None
    for process in psutil.Process(event.hub.process.pid).children():
        if "service" in " ".join(process.cmdline()):
            process.kill()
    wait_for(lambda: not event.history_users(), why="the service serves still")
    done = event.run("--yes", "ann")
    assert done.exit_code == 1, done.output
    assert "the history has the name still: The GPU service does not" in done.output
    assert "They cannot log in any more. Run this again." in done.output
    assert read_roster(event.roster).attendee("ann").code_hash == ""
    assert "ann" not in event.users()
    event.hub.kill()
    event.hub.start()
    wait_for(event.history_users, why="the service does not serve again")
    again = event.run("--yes", "ann")
    assert again.exit_code == 0, again.output
    assert event.left_in_state("ann") == []
