"""Who gets which page, what may run on it, and that every word of it is there."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient

from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service.dashboard import look, words
from tests.service.service_process import PREFIX
from tests.service.stub_hub import StubHub

from .fed_site import FedSite

DASHBOARD = Path(look.__file__).parent
WORDS = json.loads((DASHBOARD / "words_en.json").read_text("utf-8"))
MARKUP = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
async def site():
    hub = StubHub()
    made = FedSite(hub)
    yield made
    await made.close()
    await hub.stop()


async def get(site, path="", *, token="ada-token"):  # noqa: S107 - a double's
    given = {"Authorization": f"token {token}"} if token else {}
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(
            f"{site.address}{PREFIX}{path}",
            headers=given,
            raise_error=False,
            follow_redirects=False,
        )
    finally:
        client.close()


def soup_of(answer):
    return BeautifulSoup(answer.body, "html.parser")


def data_of(answer, name):
    return json.loads(soup_of(answer).find(id=name).string)


@pytest.mark.parametrize(
    ("token", "script", "is_organiser"),
    [
        ("ada-token", "attendee.js", False),
        ("organiser-token", "organiser.js", True),
        ("admin-token", "organiser.js", True),
        ("service-token", "organiser.js", True),
        ("reading-service-token", "attendee.js", False),
    ],
)
async def test_who_looks_gets_their_own_page(site, token, script, is_organiser):
    answer = await get(site, token=token)
    assert answer.code == 200
    (module,) = soup_of(answer).select("script[type=module]")
    assert module["src"].endswith(f"/{script}")
    assert data_of(answer, "page")["is_organiser"] is is_organiser
    links = [a["href"] for a in soup_of(answer).select("nav a")]
    assert (f"{PREFIX}wall" in links) is is_organiser
    assert ("/hub/admin" in links) is (token == "admin-token")


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        ("organiser-token", "olga", "olga organiser"),
        ("organiser-token", "Organiser", "Organiser"),
        ("ada-token", "ada", "ada"),
    ],
)
async def test_the_head_says_once_who_is_an_organiser(
    site, monkeypatch, token, name, said
):
    from tests.service import stub_hub

    monkeypatch.setitem(
        stub_hub.TOKENS, token, {**stub_hub.TOKENS[token], "name": name}
    )
    head = soup_of(await get(site, token=token)).select_one(".who > span")
    assert " ".join(head.get_text().split()) == said


@pytest.mark.parametrize("path", ["", "wall", "work"])
async def test_a_stranger_gets_no_page_and_who_is_unknown_is_to_log_in(site, path):
    refused = await get(site, path, token="stranger-token")
    assert refused.code == 403
    assert "You may not see this workshop's GPUs" in soup_of(refused).get_text()
    assert soup_of(refused).find(id="page") is None
    for token in ("", "no-such-token"):
        answer = await get(site, path, token=token)
        assert answer.code == 302
        assert "/hub/api/oauth2/authorize" in answer.headers["Location"]


async def test_the_wall_is_for_organisers_only_and_names_only_when_asked(site):
    refused = await get(site, "wall")
    assert refused.code == 403
    assert "organiser" in refused.body.decode()
    wall = await get(site, "wall", token="organiser-token")
    assert wall.code == 200
    assert soup_of(wall).find(id="names")["href"] == f"{PREFIX}wall?names=yes"
    named = await get(site, "wall?names=yes", token="organiser-token")
    assert soup_of(named).find(id="names")["href"] == f"{PREFIX}wall"


@pytest.mark.parametrize("path", ["", "wall", "work"])
async def test_a_page_lets_nothing_run_that_is_written_into_it(site, path):
    answer = await get(site, path, token="organiser-token")
    rules = dict(
        rule.split(" ", 1)
        for rule in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    soup = soup_of(answer)
    for script in soup.find_all("script"):
        assert script.get("src") or script["type"] == "application/json"
    for tag in soup.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], tag
        for name in ("src", "href"):
            assert re.match(r"/|#|data:,$", tag.get(name, "/")), tag


async def test_a_page_of_the_service_holds_neither_tokens_nor_figures(site):
    answer = await get(site, token="organiser-token")
    text = answer.body.decode()
    assert "organiser-token" not in text
    assert "the-services-own" not in text
    page = data_of(answer, "page")
    assert sorted(page) == ["hub", "is_organiser", "prefix", "user", "xsrf"]
    assert page["xsrf"]


async def test_a_name_with_markup_is_a_name(site, monkeypatch):
    from tests.service import stub_hub

    eve = {**stub_hub.TOKENS["ada-token"], "name": MARKUP}
    monkeypatch.setitem(stub_hub.TOKENS, "markup-token", eve)
    answer = await get(site, token="markup-token")
    assert b"<img src=x" not in answer.body
    assert data_of(answer, "page")["user"] == MARKUP
    assert MARKUP in soup_of(answer).select_one(".who").get_text()


async def test_files_are_kept_for_good_under_their_version_only(site):
    page = soup_of(await get(site))
    path = page.select_one("script[type=module]")["src"].removeprefix(PREFIX)
    kept = await get(site, path, token="")
    assert kept.code == 200
    assert "immutable" in kept.headers["Cache-Control"]
    assert "javascript" in kept.headers["Content-Type"]
    assert kept.headers["X-Content-Type-Options"] == "nosniff"
    # After an update an open page asks for what it had: it may not keep the new file.
    old = await get(site, "static/0123456789ab/dom.js", token="")
    assert old.headers["Cache-Control"] == "no-cache"
    for outside in ("../look.py", "..%2Flook.py", "%2e%2e/look.py", "nothing.js"):
        answer = await get(site, f"static/{look.VERSION}/{outside}", token="")
        assert answer.code in (403, 404), outside


def texts():
    """Return what uses words, by file."""
    files = [
        *(DASHBOARD / "static").glob("*.js"),
        *(DASHBOARD / "templates").glob("*.html"),
        *DASHBOARD.glob("*.py"),
        *(DASHBOARD.parent / "web").glob("*.py"),
    ]
    return {file.name: file.read_text("utf-8") for file in files}


def used(pattern):
    return {
        found: name for name, text in texts().items() for found in pattern.findall(text)
    }


def test_every_word_that_is_used_is_there():
    parts = "|".join(WORDS)
    wanted = used(re.compile(rf"""say\(\s*["'`]((?:{parts})\.\w+)["'`]"""))
    assert len(wanted) > 100
    for name, file in wanted.items():
        assert name in words.words_of(*WORDS), f"{file} says {name}"


def test_every_word_that_is_there_is_used():
    parts = "|".join(WORDS)
    names = set(used(re.compile(rf"""["'`]((?:{parts})\.\w+)["'`]""")))
    # Of names that are put together, the beginning is there to find.
    begun = set(used(re.compile(rf"`((?:{parts})\.\w*)\$\{{"))) - {"attendee."}
    assert [
        name
        for name in words.words_of(*WORDS)
        if name not in names and not name.startswith(tuple(begun))
    ] == []


def test_every_kind_of_event_has_its_words():
    assert set(WORDS["events"]) == {kind.value for kind in EventKind}


def test_a_number_chooses_its_form_and_values_stay_as_they_are():
    assert words.say("work.count", count=1, size="{x}").startswith("1 archive, {x}")
    assert words.say("work.count", count=0, size="").startswith("0 archives")
    with pytest.raises(KeyError):
        words.say("work.count", count=2)


@pytest.mark.parametrize("token", ["", "ada-token"])
async def test_a_page_that_is_not_there_looks_like_the_others(site, token):
    answer = await get(site, "nowhere/<b>", token=token)
    assert answer.code == 404
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "There is no such page." in soup_of(answer).text
    assert b"<b>" not in answer.body


@pytest.mark.parametrize("token", ["ada-token", ""])
@pytest.mark.parametrize(
    "path",
    [
        *("", "wall", "work", "no-such-page", "plots/device.json"),
        *("oauth_callback", "oauth_callback?code=1&state=2", "oauth_callback?error=x"),
        *("static/0/dom.js", "static/0/no-such.js", "static/0/%2e%2e/look.py"),
        "plots/bokeh-1.min.js",
    ],
)
async def test_nothing_at_all_is_framed_or_lets_script_of_elsewhere_run(
    site, path, token, monkeypatch
):
    asks = HubOAuth._call_coroutine

    def asks_without_waiting(auth, sync, *rest, **more):
        assert not sync, "the hub is waited for on the loop, and it may be silent"
        return asks(auth, sync, *rest, **more)

    monkeypatch.setattr(HubOAuth, "_call_coroutine", asks_without_waiting)
    answer = await get(site, path, token=token)
    assert answer.code < 500
    headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
