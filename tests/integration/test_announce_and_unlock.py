"""What organisers ask of the hub through the service: announce, and unlock."""

import os
import subprocess
import sys

import pytest
import requests
from bs4 import BeautifulSoup

from tests.hub.running_hub import RunningHub, wait_for

pytestmark = pytest.mark.hub

_EARLY = """
c.JupyterHub.authenticator_class = "gpuworkshop-roster"
c.JupyterHub.load_roles[0]["scopes"].append("custom:gpuworkshop:admin")
"""
_TEXT = 'Doors open at <b>10</b>.\nBring "your" card & a friend'
_SHOWN = (
    "Doors open at &lt;b&gt;10&lt;/b&gt;.<br>Bring &quot;your&quot; card &amp; a friend"
)


class _Workshop:
    """A hub with a roster of two, and its service."""

    def __init__(self, hub):
        self.hub = hub
        self.sessions = []
        self.login = f"http://127.0.0.1:{hub.port}/hub/login"
        (hub.folder / "people.csv").write_text("name\nann\nbea\n")
        subprocess.run(  # noqa: S603 - our own command
            [
                *(sys.executable, "-m", "jupyterhub_gpuworkshop", "roster", "make"),
                *("--csv", "people.csv", "--address", "http://127.0.0.1"),
            ],
            cwd=hub.folder,
            env=os.environ,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )
        cards = BeautifulSoup((hub.folder / "cards.html").read_text(), "html.parser")
        self.codes = {
            card.select_one(".name").get_text(): card.select_one(".code").get_text()
            for card in cards.select(".card")
        }

    def ask(self, method, path, **kwargs):
        """Call the service's API as an organiser."""
        return requests.request(
            method,
            f"http://127.0.0.1:{self.hub.service_port}/services/gpuworkshop/api/v1/{path}",
            headers={"Authorization": f"token {self.hub.token}"},
            timeout=20,
            **kwargs,
        )

    def knock(self, name, code):
        """Log in; return the answer's status and a browser's session."""
        session = requests.Session()
        self.sessions.append(session)
        session.headers["Sec-Fetch-Mode"] = "navigate"
        form = BeautifulSoup(session.get(self.login, timeout=60).text, "html.parser")
        typed = {
            "username": name,
            "password": code,
            "_xsrf": form.find("input", {"name": "_xsrf"})["value"],
        }
        answer = session.post(
            self.login,
            params={"next": "/hub/home"},
            data=typed,
            allow_redirects=False,
            timeout=60,
        )
        return answer.status_code, session

    def events(self, about):
        """Return what is in the history of this."""
        found = self.ask("GET", "events").json()
        return [event for event in found if event["kind"].startswith(about)]

    def service_is_up(self):
        """Whether it answers, and the hub has reported."""
        try:
            answer = self.ask("GET", "locked")
        except requests.ConnectionError:
            return False
        return answer.ok and answer.json()["locked"] is not None


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    hub = RunningHub(tmp_path_factory.mktemp("hub"), service=True, early=_EARLY)
    made = _Workshop(hub)
    try:
        hub.start()
        wait_for(made.service_is_up, seconds=60, why="nothing is said of lock-outs")
        yield made
    finally:
        for session in made.sessions:
            session.close()
        hub.close()


def test_what_is_announced_stands_on_the_hubs_pages_until_it_is_taken_down(workshop):
    status, ann = workshop.knock("ann", workshop.codes["ann"])
    assert status == 302
    pages = {
        "nobody's login": lambda: requests.get(workshop.login, timeout=60).text,
        "ann's home": lambda: (
            ann.get(workshop.login.replace("login", "home"), timeout=60).text
        ),
        "a page that is not": lambda: (
            ann.get(workshop.login.replace("login", "nowhere"), timeout=60).text
        ),
    }
    made = workshop.ask("POST", "announcement", json={"text": _TEXT, "seconds": 600})
    assert made.ok, made.text
    for name, page in pages.items():
        wait_for(lambda: _SHOWN in page(), why=f"{name} does not show it")  # noqa: B023 - called at once
        assert "<b>10</b>" not in page(), name
    assert workshop.ask("DELETE", "announcement").ok
    for name, page in pages.items():
        wait_for(lambda: "Doors open" not in page(), why=f"{name} shows it still")  # noqa: B023 - called at once
    assert [event["kind"] for event in workshop.events("announcement")] == [
        "announcement_made",
        "announcement_ended",
    ]


def test_who_is_locked_out_is_seen_by_the_organiser_and_let_in_again(workshop):
    for _ in range(20):
        status, _ = workshop.knock("ann", workshop.codes["bea"])
        if status == 429:
            break
    assert workshop.knock("ann", workshop.codes["ann"])[0] == 429

    def locked():
        return workshop.ask("GET", "locked").json()["locked"]

    (one,) = wait_for(locked, why="the service does not learn who is locked out")
    assert (one["name"], one["address"]) == ("ann", "127.0.0.1")
    assert workshop.ask("POST", "attendees/bea/unlock", json={}).status_code == 404
    asked = workshop.ask("POST", "attendees/ann/unlock", json={})
    assert asked.status_code == 202, asked.text
    (event,) = wait_for(
        lambda: workshop.events("attendee"), why="the hub does not say that it is done"
    )
    assert (event["kind"], event["user"]) == ("attendee_unlocked", "ann")
    assert event["details"] == {"by": "test"}
    assert workshop.knock("ann", workshop.codes["ann"])[0] == 302
    wait_for(lambda: not locked(), why="ann is said to wait still")
    assert "'test' lets 'ann' try again: 1 wait ended" in workshop.hub.log
