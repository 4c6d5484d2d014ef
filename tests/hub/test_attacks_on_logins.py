"""What strangers send to the pages for a login and to join, bytes of any kind."""

from collections.abc import Iterator

import pytest
import requests
from bs4 import BeautifulSoup

from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Room, Roster
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.roster_file import change_roster, read_roster

from .running_hub import RunningHub

pytestmark = pytest.mark.hub

_CODE = "KWXZ-2345"
_FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder = tmp_path_factory.mktemp("bombarded")
    roster = Roster(
        attendees=(Attendee(name="ada", code_hash=hash_code(_CODE)),),
        organisers=(Organiser(name="olga", password_hash=hash_password("a secret")),),
        room=Room(code_hash=hash_code(_CODE), at_most=100),
    )
    change_roster(folder / "roster.json", lambda _: roster, new=True)
    hub = RunningHub(
        folder,
        early='c.JupyterHub.authenticator_class = "gpuworkshop-roster"\n',
    )
    try:
        yield hub.start()
    finally:
        hub.close()


def _send(
    hub: RunningHub, page: str, body: bytes, kind: str = _FORM, **headers: str
) -> requests.Response:
    """Send a body as it is, with the token of the page in front."""
    url = f"http://127.0.0.1:{hub.port}/hub/{page}"
    with requests.Session() as session:
        session.headers["Sec-Fetch-Mode"] = "navigate"
        form = BeautifulSoup(session.get(url).text, "html.parser")
        token = form.find("input", {"name": "_xsrf"})["value"]
        return session.post(
            url,
            params={"_xsrf": token},
            data=body,
            headers={"Content-Type": kind, **headers},
            allow_redirects=False,
        )


@pytest.mark.parametrize("page", ["login", "join"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"username=%ff%fe&password=%ff&room_code=%ff", _FORM),
        (b"\x00\xff\xfe" * 1000, _FORM),
        (b"username=ada&" * 100_000 + b"password=x&room_code=x", _FORM),
        (b"username=ada%0d%0a[I]%20User%20logged%20in&password=x&room_code=x", _FORM),
        (b"username=" + b"%e2%80%ae" * 1000 + b"&password=x&room_code=x", _FORM),
        (b'{"username": "ada", "password": "KWXZ-2345"}', "application/json"),
        (b"--x\r\nno form at all", "multipart/form-data; boundary=x"),
        (b"username=ada&password=x" * 10, "multipart/form-data"),
        (b"", _FORM),
    ],
)
def test_no_bytes_log_anybody_in_or_hurt_the_hub(
    hub: RunningHub, page: str, body: bytes, kind: str
) -> None:
    before = read_roster(hub.folder / "roster.json")
    answer = _send(hub, page, body, kind)
    # JupyterHub itself answers 500 to a login without a name.
    assert answer.status_code >= 400, answer.text[:500]
    assert answer.status_code < 500 or (page == "login" and b"username=" not in body)
    assert "jupyterhub-hub-login" not in answer.cookies
    assert read_roster(hub.folder / "roster.json") == before
    assert hub.api("GET", "info").ok
    assert "\n[I] User logged in" not in hub.log
    assert max(map(len, hub.log.splitlines())) < 5000


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": "olga", "Remote-User": "olga", "X-Remote-User": "olga"},
        {"Authorization": "Basic b2xnYTphIHNlY3JldA=="},
        {"Authorization": "token olga"},
        {"X-Forwarded-For": "127.0.0.1, [I] olga logged in"},
        {"X-Forwarded-For": ", ".join(["10.0.0.1"] * 1000)},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"},
        {"Cookie": "jupyterhub-hub-login=2|1:0|10:1|20:jupyterhub-hub-login|4:b2xn|x"},
    ],
)
def test_no_header_makes_anybody_somebody(
    hub: RunningHub, headers: dict[str, str]
) -> None:
    root = f"http://127.0.0.1:{hub.port}/hub"
    home = requests.get(
        f"{root}/home", headers=headers, allow_redirects=False, timeout=60
    )
    assert home.status_code == 302
    assert home.headers["Location"].startswith("/hub/login")
    for path in ("user", "users", "users/ada"):
        answer = requests.get(f"{root}/api/{path}", headers=headers, timeout=60)
        assert answer.status_code == 403, path
    body = b"username=olga&password=wrong"
    without = {k: v for k, v in headers.items() if k != "Cookie"}
    answer = _send(hub, "login", body, **without)
    assert answer.status_code in (403, 429)
    assert "evil.example" not in answer.text
    assert "olga logged in" not in hub.log


def test_the_names_of_organisers_attendees_and_nobody_get_one_answer(
    hub: RunningHub,
) -> None:
    answers = set()
    for name in ("olga", "ada", "zoe1"):
        body = f"username={name}&password=WRNG-CDDD".encode()
        answer = _send(hub, "login", body, **{"X-Forwarded-For": "192.0.2.77"})
        told = BeautifulSoup(answer.text, "html.parser").select_one(".login_error")
        answers.add((answer.status_code, told.get_text().strip(), *answer.headers))
    assert len(answers) == 1, answers
