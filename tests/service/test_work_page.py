"""The page where attendees download their work: theirs, and nothing of another's."""

import gzip
import os
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from jupyterhub_gpuworkshop.core.archives import marked, stem_of
from jupyterhub_gpuworkshop.service.web import work
from jupyterhub_gpuworkshop.service.web.routes import web_application
from jupyterhub_gpuworkshop.workshop import Workshop

from .service_process import PREFIX
from .site import SERVICE, no_parts
from .stub_hub import READ, TOKENS, StubHub

_SINCE = 1_764_000_000.0
_CREATED = "2025-11-24T16:00:00.250000Z"
_NO_SUCH = b"There is no such archive."


class Site:
    """The service's web side, with a folder of archives."""

    def __init__(self, hub, folder):
        HubOAuth.clear_instance()
        HubOAuth.instance(
            api_token="the-services-own",
            api_url=f"http://127.0.0.1:{hub.port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-gpuworkshop",
        )
        self.folder = folder
        workshop = Workshop.load({"material": {"archives": str(folder)}})
        application = web_application(
            SERVICE, no_parts(rules=SimpleNamespace(workshop=workshop))
        )
        socket, self.port = bind_unused_port("127.0.0.1")
        self.server = HTTPServer(application, max_body_size=64 * 1024)
        self.server.add_sockets([socket])
        self.client = AsyncHTTPClient(force_instance=True)

    def put(self, name, content, since=_SINCE):
        """Put an archive there, as `material collect` does; return it."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        data = marked(gzip.compress(content, mtime=0), since)
        (self.folder / f"{stem_of(name)}.tar.gz").write_bytes(data)
        return data

    async def ask(self, path, token="", method="GET"):
        """Return the answer, whatever the status."""
        return await self.client.fetch(
            f"http://127.0.0.1:{self.port}{PREFIX}{path}",
            method=method,
            headers={"Authorization": f"token {token}"} if token else {},
            raise_error=False,
            follow_redirects=False,
        )

    async def close(self):
        """Listen no more."""
        self.client.close()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()


@pytest.fixture
async def site(tmp_path, monkeypatch):
    for token, name in (("ada-token", "ada"), ("bob-token", "bob")):
        model = {"name": name, "kind": "user", "scopes": [READ], "created": _CREATED}
        monkeypatch.setitem(TOKENS, token, model)
    hub = StubHub()
    made = Site(hub, tmp_path / "archives")
    yield made
    await made.close()
    await hub.stop()


def words(response):
    return " ".join(BeautifulSoup(response.body, "html.parser").main.text.split())


async def test_an_attendee_downloads_their_own_whatever_the_url_says(site):
    own, others = site.put("ada", b"ada's"), site.put("bob", b"bob's")
    for query in ("", "?name=bob", "?name=../archives/bob", "?name=bob&user=bob"):
        answer = await site.ask(f"work/archive{query}", "ada-token")
        assert answer.code == 200
        assert answer.body == own != others
    assert gzip.decompress(own) == b"ada's"
    headers = answer.headers
    assert headers["Content-Disposition"] == ('attachment; filename="ada-work.tar.gz"')
    assert headers["Content-Length"] == str(len(own))
    assert headers["Content-Type"] == "application/gzip"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Etag" not in headers


async def test_a_head_says_the_size_and_sends_nothing(site):
    own = site.put("ada", b"ada's" * 1000)
    answer = await site.ask("work/archive", "ada-token", method="HEAD")
    assert (answer.code, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(own))
    answer = await site.ask("work/archive", "bob-token", method="HEAD")
    assert answer.code == 404


async def test_a_large_one_comes_in_pieces_and_whole(site):
    own = site.put("ada", os.urandom(3 * work._PIECE_BYTES + 17))
    answer = await site.ask("work/archive", "ada-token")
    assert answer.body == own


async def test_the_page_offers_what_is_there(site):
    site.put("ada", b"x" * 10)
    answer = await site.ask("work", "ada-token")
    soup = BeautifulSoup(answer.body, "html.parser")
    (link,) = soup.main.find_all("a")
    assert link["href"] == f"{PREFIX}work/archive"
    assert "as they were on" in words(answer)
    assert "bob" not in answer.body.decode()
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (await site.ask("work/archive", "ada-token")).code == 200


@pytest.mark.parametrize("made", [True, False], ids=["an empty folder", "no folder"])
async def test_before_anything_is_collected_the_page_says_when_to_come_back(site, made):
    if made:
        site.folder.mkdir()
    answer = await site.ask("work", "ada-token")
    assert answer.code == 200
    assert "has not been packed yet" in words(answer)
    answer = await site.ask("work", "organiser-token")
    assert "sudo gpuworkshop material collect" in words(answer)
    assert (await site.ask("work/archive", "ada-token")).code == 404


async def test_an_account_of_the_same_name_does_not_get_an_earlier_ones_work(site):
    for since in (_SINCE - 86400, 0.0):
        site.put("ada", b"of somebody before", since=since)
        answer = await site.ask("work/archive", "ada-token")
        assert answer.code == 404
        assert "an account that was here before yours" in words(answer)
        assert "account that was here before" in words(
            await site.ask("work", "ada-token")
        )
    (site.folder / "ada.tar.gz").write_bytes(gzip.compress(b"put there by hand"))
    assert (await site.ask("work/archive", "ada-token")).code == 404


async def test_a_token_that_does_not_say_since_when_opens_nothing(site, monkeypatch):
    site.put("ada", b"ada's")
    for created in (None, "yesterday", 5):
        model = {"name": "ada", "kind": "user", "scopes": [READ], "created": created}
        monkeypatch.setitem(TOKENS, f"ada-{created}", model)
        answer = await site.ask("work/archive", f"ada-{created}")
        assert answer.code == 404
        assert "read:users!user" in words(answer)


async def test_who_may_not_look_gets_nothing(site):
    site.put("ada", b"ada's")
    for path in ("work", "work/archive", "work/archive?name=ada"):
        answer = await site.ask(path)
        assert answer.code == 302
        assert "oauth2/authorize" in answer.headers["Location"]
        for token, code in (
            ("nonsense", 302),
            ("stranger-token", 403),
            # A service that is called like an attendee.
            ("reading-service-token", 403),
        ):
            answer = await site.ask(path, token)
            assert answer.code == code, (path, token)
            assert b"ada's" not in answer.body


async def test_nothing_is_posted_there(site):
    for path in ("work", "work/archive"):
        answer = await site.client.fetch(
            f"http://127.0.0.1:{site.port}{PREFIX}{path}",
            method="POST",
            body="x",
            headers={"Authorization": "token ada-token"},
            raise_error=False,
            follow_redirects=False,
        )
        assert answer.code in (403, 405)


async def test_organisers_see_and_get_all_of_them(site):
    archives = {name: site.put(name, name.encode()) for name in ("ada", "zoë", "..")}
    site.put("~", b"-")
    (site.folder / "ada~20240101-000000.tar.gz").write_bytes(b"earlier")
    answer = await site.ask("work", "organiser-token")
    soup = BeautifulSoup(answer.body, "html.parser")
    rows = {
        " ".join(row.th.text.split()): row.a["href"] for row in soup.select("tbody tr")
    }
    assert set(rows) == {"ada", "ada earlier account", "zoë", "..", "~"}
    for name, data in archives.items():
        path = rows[name].removeprefix(PREFIX)
        for token in ("organiser-token", "admin-token", "service-token"):
            assert (await site.ask(path, token)).body == data
    path = rows["ada earlier account"].removeprefix(PREFIX)
    assert (await site.ask(path, "organiser-token")).body == b"earlier"
    assert (await site.ask("work/archive", "organiser-token")).code == 404
    # Whatever has come into the folder by hand.
    (site.folder / 'x"; filename="y.tar.gz').write_bytes(b"odd")
    path = "work/archive?name=x%22%3B%20filename%3D%22y"
    answer = await site.ask(path, "organiser-token")
    assert answer.body == b"odd"
    assert answer.headers["Content-Disposition"].count('"') == 2


@pytest.mark.parametrize(
    "name",
    [
        *("../archives/ada", "..%2Farchives%2Fada", "%2Fetc%2Fpasswd", "%00"),
        *(".", "..", ".lock", "ada.tar.gz", "x" * 5000, "link", "outside", "no-such"),
        *("%0D%0ASet-Cookie:x", "%C3%A9", "*", "a?a"),
    ],
)
async def test_no_name_leads_an_organiser_out_of_the_list(site, name):
    site.put("ada", b"ada's")
    (site.folder / "link.tar.gz").symlink_to("/etc/passwd")
    (site.folder / "outside.tar.gz").symlink_to(site.folder.parent)
    os.mkfifo(site.folder / "pipe.tar.gz")
    (site.folder / ".lock").write_bytes(b"locked")
    answer = await site.ask(f"work/archive?name={name}", "organiser-token")
    assert answer.code in (400, 404)
    assert b"root:" not in answer.body
    assert "Set-Cookie" not in answer.headers


async def test_no_name_of_a_user_leads_elsewhere_or_into_a_header(site, monkeypatch):
    site.folder.mkdir()
    (site.folder.parent / "x.tar.gz").write_bytes(marked(gzip.compress(b""), _SINCE))
    for name in ('x"; filename="y\r\nSet-Cookie: z', "../x", ".lock", "é" * 300):
        model = {"name": name, "kind": "user", "scopes": [READ], "created": _CREATED}
        monkeypatch.setitem(TOKENS, "odd-token", model)
        HubOAuth.instance().cache.clear()
        assert (await site.ask("work", "odd-token")).code == 200
        assert (await site.ask("work/archive", "odd-token")).code == 404
        if len(name) < 100:
            own = site.put(name, b"own")
            answer = await site.ask("work/archive", "odd-token")
            assert answer.body == own
            shown = answer.headers["Content-Disposition"]
            assert shown.count('"') == 2
            assert shown.isascii()
            assert "Set-Cookie" not in answer.headers


async def test_a_link_in_the_place_of_ones_own_is_not_followed(site):
    site.put("bob", b"bob's", since=_SINCE)
    (site.folder / "ada.tar.gz").symlink_to(site.folder / "bob.tar.gz")
    answer = await site.ask("work/archive", "ada-token")
    assert answer.code == 404
    assert "bob" not in answer.body.decode()


async def test_an_archive_that_is_replaced_meanwhile_is_sent_as_it_was(
    site, monkeypatch
):
    own = site.put("ada", os.urandom(3 * work._PIECE_BYTES))
    begin = work.ArchiveHandler._begin

    async def begin_then_replace(handler, until_sent):
        file = await begin(handler, until_sent)
        new = site.folder / ".incoming-x"
        new.write_bytes(b"new")
        new.replace(site.folder / "ada.tar.gz")
        return file

    monkeypatch.setattr(work.ArchiveHandler, "_begin", begin_then_replace)
    assert (await site.ask("work/archive", "ada-token")).body == own


async def test_a_folder_that_cannot_be_read_is_told_without_its_path(site, caplog):
    site.folder.write_text("no folder")
    for token in ("ada-token", "organiser-token"):
        answer = await site.ask("work", token)
        assert answer.code == 503
        assert "Tell the organiser" in words(answer)
        assert str(site.folder) not in answer.body.decode()
    assert str(site.folder) in caplog.text
