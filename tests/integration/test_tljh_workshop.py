"""A workshop on TLJH, from its config.yaml to its end: real units, users and homes.

Only TLJH itself is a stand-in (tests/tljh_plugin/stand_in), and the GPUs are simulated.
"""

import csv
import io
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_engine
from tests.engines.docker_engine import EngineTroubleError
from tests.engines.systemd_machine import SystemdMachine
from tests.hub.running_hub import wait_for
from tests.tljh_plugin.tljh_machine import PREFIX, PYTHON, TljhMachine, build_wheel

pytestmark = [pytest.mark.systemd, pytest.mark.hub]

_ADMIN = "token-of-an-admin"
_ADMINS = f"""
c.JupyterHub.services.append(
    {{"name": "admins", "api_token": {_ADMIN!r}, "admin": True}}
)
"""
_ARCHIVES = "/var/lib/gpuworkshop-work"

_VISIT = """
# Logs in and goes where links lead; stands in for the proxy between hub and service.
import sys
from urllib.parse import urljoin
import requests

name, code, path = sys.argv[1:]
session = requests.Session()
session.headers["Sec-Fetch-Mode"] = "navigate"

def at(path):
    port = 10110 if path.startswith("/services/gpuworkshop/") else 15001
    return f"http://127.0.0.1:{port}{path}"

def ask(path):
    try:
        return session.get(at(path), allow_redirects=False)
    except requests.ConnectionError:  # hub or service begins anew
        print(502)
        open("/run/visited", "wb").close()
        sys.exit()

ask("/hub/login")
typed = {"username": name, "password": code, "_xsrf": session.cookies["_xsrf"]}
answer = session.post(at("/hub/login"), data=typed, allow_redirects=False)
if answer.status_code == 302:
    for _ in range(10):
        answer = ask(path)
        if answer.status_code not in (301, 302, 303):
            break
        path = urljoin(path, answer.headers["Location"])
        if path.startswith("/user/"):  # the server's own
            break
open("/run/visited", "wb").write(answer.content)
print(answer.status_code)
"""


class Event:
    """The workshop: its machine, and what organiser and attendees do there."""

    def __init__(self, tljh: TljhMachine) -> None:
        self.tljh = tljh
        self.codes: dict[str, str] = {}

    def describe(self, *hours: str, **material: str) -> None:
        """Write config.yaml."""
        self.tljh.configure(
            {
                "attendees": 8,
                "gpus": {"when_full": "cpu"},
                "monitor": {"interval": "1s"},
                "doors": {"timezone": "UTC", "hours": list(hours), "grace": "0s"},
                "material": {
                    "notebooks": {"lessons": "/srv/lessons"},
                    "open_first": "lessons/start.ipynb",
                    **material,
                },
            },
            auth={"type": "gpuworkshop-roster"},
        )

    def organise(self, *command: object, **kwargs: Any) -> str:
        """Run `gpuworkshop` as root; return what it says."""
        env = {"JUPYTERHUB_API_TOKEN": _ADMIN, "COLUMNS": "200"}
        done = self.tljh.machine.run("gpuworkshop", *command, env=env, **kwargs)
        return done.stdout + done.stderr

    def make_cards(self, *people: object) -> None:
        """Put people on the roster, and keep their codes."""
        papers = ("--cards", "/root/cards.html", "--merge", "/root/mail.csv")
        address = ("--address", "https://gpu.example.org")
        self.organise("roster", *people, *papers, *address)
        table = self.tljh.machine.read("/root/mail.csv").lstrip("\ufeff")
        for row in csv.DictReader(io.StringIO(table)):
            self.codes[row["name"]] = row["code"]
        self.tljh.machine.run("rm", "/root/cards.html", "/root/mail.csv")

    def visit(self, name: str, path: str) -> tuple[int, str]:
        """Log in from a card and open a page; return its status and text.

        The text is the login page's where the login was refused. The status is 502
        where nobody listens.
        """
        command = (PYTHON, "-c", _VISIT, name, self.codes[name], path)
        status = int(self.tljh.machine.run(*command).stdout)
        script = "open('/run/visited', errors='replace').read()"
        read = (PYTHON, "-c", f"print({script})")
        return status, self.tljh.machine.run(*read).stdout

    def unpack(self, name: str) -> dict[str, str]:
        """Download somebody's work as they do; return its files."""
        status, _ = self.visit(name, "/services/gpuworkshop/work/archive")
        assert status == 200
        run = self.tljh.machine.run
        run("rm", "-rf", "/run/work")
        run("mkdir", "/run/work")
        run("tar", "-xzf", "/run/visited", "-C", "/run/work")
        found = run("find", "/run/work", "-type", "f", "-printf", "%P\n").stdout
        return {
            path: self.tljh.machine.read(f"/run/work/{path}")
            for path in found.splitlines()
        }

    def write_as(self, name: str, path: str, text: str) -> None:
        """Write a file into a home as its attendee."""
        script = 'cat >"$1"'
        where = f"/home/jupyter-{name}/{path}"
        write = ("sh", "-c", script, "sh", where)
        self.tljh.machine.run(*write, user=f"jupyter-{name}", input=text)

    def wait_for_server(self, name: str) -> None:
        """Wait until somebody's server is ready."""

        def ready() -> bool:
            servers = self.tljh.api("GET", f"users/{name}").get("servers", {})
            return bool(servers.get("", {}).get("ready"))

        try:
            wait_for(ready, seconds=120)
        except AssertionError:
            told = self.tljh.machine.journal("jupyterhub")[-4000:]
            raise AssertionError(told) from None


def _day(offset: int) -> str:
    day = datetime.now(timezone.utc) + timedelta(days=offset)
    return f"{day:%Y-%m-%d}"


def _now_open() -> str:
    return f"{_day(-1)} 00:00 to {_day(1)} 23:00"


def _later() -> str:
    return f"{_day(7)} 09:00 to 17:00"


@pytest.fixture(scope="module")
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Event]:
    """Return a workshop as it is on the morning: four cards, and material."""
    hint = SystemdMachine.INSTALL_HINT
    require_engine("systemd", SystemdMachine.is_installed(), hint)
    engine = request.getfixturevalue("docker_engine")
    wheel: Path = build_wheel(tmp_path_factory.mktemp("wheel"))
    try:
        tljh = TljhMachine(engine, wheel)
    except EngineTroubleError as error:
        require_engine("systemd", False, str(error))
        raise
    try:
        event = Event(tljh)
        event.describe(_now_open())
        tljh.machine.write(f"{PREFIX}/config/jupyterhub_config.d/admins.py", _ADMINS)
        tljh.machine.write("/srv/lessons/start.ipynb", "first")
        tljh.install(tljh.wheel)
        tljh.make_gpus(2)
        event.make_cards("make", "--count", 4)
        event.organise("roster", "organiser", "olga", "--password", "correct horse")
        event.organise("material", "install")
        yield event
    finally:
        tljh.close()


@pytest.fixture
def event(installed: Event) -> Event:
    """Return the same workshop with its doors open."""
    installed.describe(_now_open())
    return installed


def test_from_the_card_to_the_notebooks_at_home(event: Event) -> None:
    status, page = event.visit("attendee-01", "/hub/spawn")
    assert status in (200, 302), page
    event.wait_for_server("attendee-01")
    machine = event.tljh.machine
    notebook = "/home/jupyter-attendee-01/lessons/start.ipynb"
    assert machine.read(notebook) == "first"
    owner = machine.run("stat", "-c", "%U", notebook).stdout.strip()
    assert owner == "jupyter-attendee-01"
    # A mended notebook reaches the server that runs; what was edited stays.
    event.write_as("attendee-01", "lessons/start.ipynb", "edited")
    machine.write("/srv/lessons/start.ipynb", "second")
    event.organise("material", "update")
    beside = "/home/jupyter-attendee-01/lessons/start-updated.ipynb"
    wait_for(lambda: not machine.run("test", "-e", beside, check=False).returncode)
    assert machine.read(beside) == "second"
    assert machine.read(notebook) == "edited"


def test_hours_in_config_yaml_are_heeded_without_a_reload(event: Event) -> None:
    hub = event.tljh.machine.properties("jupyterhub", "MainPID")
    event.describe(_later())
    status, page = event.visit("attendee-02", "/hub/spawn")
    assert status == 403
    assert "The doors open on" in page
    # Servers of a prestart wait for their attendees behind closed doors.
    said = event.organise("prestart", "attendee-03")
    assert "1 of 1 run" in said
    home = "/home/jupyter-attendee-03"
    assert event.tljh.machine.read(f"{home}/lessons/start.ipynb")
    event.describe(_now_open())
    status, _ = event.visit("attendee-02", "/hub/home")
    assert status == 200
    assert event.tljh.machine.properties("jupyterhub", "MainPID") == hub


def test_work_is_handed_out_by_the_service_that_may_write_nowhere(
    event: Event,
) -> None:
    machine = event.tljh.machine
    for name in ("attendee-01", "attendee-03"):
        event.organise("prestart", name)
        event.write_as(name, "mine.txt", f"work of {name}")
    said = event.organise("material", "collect")
    assert "2 of 2 packed" in said
    assert machine.run("stat", "-c", "%a %U", _ARCHIVES).stdout == "700 root\n"
    unit = machine.properties("gpuworkshop", "ProtectSystem", "ProtectHome")
    assert unit["ProtectSystem"] == "strict"
    for name in ("attendee-01", "attendee-03"):
        files = event.unpack(name)
        assert files[f"{name}/mine.txt"] == f"work of {name}"
        assert {path.partition("/")[0] for path in files} == {name}
    # Another's stays out of reach, whatever the address says.
    event.visit("attendee-01", "/services/gpuworkshop/work/archive?name=attendee-03")
    listed = machine.run("tar", "-tzf", "/run/visited").stdout.split()
    assert listed[0].startswith("attendee-01")


def test_archives_in_a_home_are_reached_after_a_reload(event: Event) -> None:
    machine = event.tljh.machine
    event.organise("prestart", "attendee-01")
    event.write_as("attendee-01", "later.txt", "later")
    event.describe(_now_open(), archives="/home/olga/work")
    event.tljh.reload()
    event.organise("material", "collect", "attendee-01")
    assert not machine.run("test", "-e", "/home/olga/work", check=False).returncode

    # The hub has the service begin anew, and does not wait for it.
    where = "/services/gpuworkshop/work/archive"
    wait_for(
        lambda: (
            event.visit("attendee-01", where)[0] == 200
            and "attendee-01/later.txt" in event.unpack("attendee-01")
        ),
        seconds=60,
        why=machine.journal("gpuworkshop")[-4000:],
    )
    event.describe(_now_open())
    event.tljh.reload()


def test_attendees_are_removed_with_unix_user_and_home_and_nobody_else(
    event: Event,
) -> None:
    machine = event.tljh.machine
    for name in ("attendee-01", "attendee-03", "attendee-04"):
        event.organise("prestart", name)
    event.organise("material", "collect")
    machine.add_user("jupyter-attendee-99")
    machine.add_user("olga")

    def there(path: str) -> bool:
        return not machine.run("test", "-e", path, check=False).returncode

    going = ("attendee-01", "attendee-03")
    said = event.organise("remove-attendees", "--dry-run", *going)
    assert "2 would be removed" in said
    assert there("/home/jupyter-attendee-01")
    said = event.organise("remove-attendees", *going, input="2\n")
    assert "2 of 2 are removed" in said
    for name in going:
        assert not there(f"/home/jupyter-{name}")
        gone = machine.run("id", f"jupyter-{name}", check=False)
        assert gone.returncode == 1
        assert event.tljh.api("GET", f"users/{name}").get("status") == 404
        assert there(f"{_ARCHIVES}/{name}.tar.gz")
    for user in ("jupyter-attendee-04", "jupyter-attendee-99", "olga"):
        assert there(f"/home/{user}")
    listed = event.organise("roster", "list")
    assert "attendee-04" in listed
    assert "olga" in listed
    assert "attendee-01" not in listed
    event.wait_for_server("attendee-04")
