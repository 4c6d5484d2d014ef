"""What people ask for, through the API and the page's forms: who may, and by what."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.snapshot import HolderKind
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.service.ending import Endings
from jupyterhub_gpuworkshop.service.web.routes import web_application

from .service_process import PREFIX
from .site import SERVICE, parts_of
from .stub_hub import StubHub
from .test_ending import holder, outcome, see
from .test_ending import start as start

HOLD = 'held.append(simcuda.allocate("2GiB"))'


class Site:
    """The service's web side around a simulated world, with one kernel of ada's."""

    def __init__(self, world, hub, **parts):
        self.world = world
        HubOAuth.clear_instance()
        HubOAuth.instance(
            api_token="the-services-own",
            api_url=f"http://127.0.0.1:{hub.port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-gpuworkshop",
        )
        self.endings = Endings(world.monitor, world.history)
        parts = parts_of(world, **{"endings": self.endings, **parts})
        application = web_application(SERVICE, parts)
        socket, self.port = bind_unused_port("127.0.0.1")
        self.server = HTTPServer(application, max_body_size=64 * 1024)
        self.server.add_sockets([socket])
        self.client = AsyncHTTPClient(force_instance=True)
        self.kernel_id = world.attendee.start_kernel()
        world.attendee.sessions.append(
            {"path": "thesis.ipynb", "kernel": {"id": self.kernel_id}}
        )
        world.attendee.kernels[self.kernel_id].run(HOLD)

    async def ask(self, method, path, token="", body=None, headers=()):
        """Return the answer, whatever the status."""
        given = dict(headers)
        if token:
            given["Authorization"] = f"token {token}"
        return await self.client.fetch(
            f"http://127.0.0.1:{self.port}{PREFIX}{path}",
            method=method,
            body=body,
            headers=given,
            raise_error=False,
            follow_redirects=False,
            allow_nonstandard_methods=True,
        )

    async def log_in(self, token):
        """Return the cookies of a browser in which this user has opened the page."""
        asked = await self.ask("GET", "")
        state = re.search(r"[?&]state=([^&]+)", asked.headers["Location"])[1]
        cookie = asked.headers["Set-Cookie"].split(";")[0]
        back = await self.ask(
            "GET",
            f"oauth_callback?code={token}&state={state}",
            headers={"Cookie": cookie},
        )
        cookies = [c.split(";")[0] for c in back.headers.get_list("Set-Cookie")]
        cookies = [c for c in cookies if c.startswith("service-gpuworkshop=")][-1:]
        page = await self.ask("GET", "", headers={"Cookie": "; ".join(cookies)})
        cookies += [c.split(";")[0] for c in page.headers.get_list("Set-Cookie")]
        return {"Cookie": "; ".join(cookies)}, BeautifulSoup(page.body, "html.parser")

    @property
    def pinned(self):
        """The names of those who pinned."""
        return [pin.by for pin in self.world.monitor.kept.state.pins]

    async def close(self):
        """Listen no more."""
        await self.endings.close()
        self.client.close()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()


@pytest.fixture
async def site(world):
    hub = StubHub()
    made = Site(world, hub)
    await world.look()
    yield made
    await made.close()
    await hub.stop()


def said(response):
    return json.loads(response.body)["message"]


def own_token(soup):
    """Return the token that a page's script sends along with what it asks for."""
    return json.loads(soup.find(id="page").string)["xsrf"]


async def test_why_a_kernel_is_kept_is_told_with_every_reading(site):
    await site.world.look(times=3)
    path = f"api/v1/kernels/{site.kernel_id}"
    for token in ("ada-token", "organiser-token", "service-token"):
        answer = json.loads((await site.ask("GET", path, token)).body)
        kernel = answer["kernel"]
        assert kernel["memory_bytes"] == 2 * GIB
        assert (kernel["state"], kernel["connections"]) == ("idle", 1)
        assert kernel["verdict"] == "Idle for 10 s of 60 s, holding 2 GiB."
        assert kernel["pinned"] is False
        assert answer["rules"]["limit_seconds"] == 60
        assert answer["rules"]["action"] == "restart"
        assert (answer["notice"], answer["events"]) == (None, [])


async def test_a_kernel_that_is_gone_is_told_from_what_happened_to_it(site):
    world = site.world
    await world.look(times=20)
    await world.reap()
    world.attendee.kernels.pop(site.kernel_id).end()
    await world.look()
    path = f"api/v1/kernels/{site.kernel_id}"
    answer = json.loads((await site.ask("GET", path, "ada-token")).body)
    assert answer["kernel"] is None
    assert [e["kind"] for e in answer["events"]] == ["kernel_reclaimed"]
    assert answer["events"][0]["details"]["cpu"] is not None
    assert (await site.ask("GET", path, "bob-token")).code == 404


@pytest.mark.parametrize("way", ["GET", "POST pin", "DELETE pin"])
async def test_anothers_kernel_answers_as_one_that_is_not(site, way):
    method, _, below = way.partition(" ")
    for token in ("bob-token", "reading-service-token"):
        answers = []
        for kernel_id in (site.kernel_id, "none"):
            path = f"api/v1/kernels/{kernel_id}/{below}".strip("/")
            answers.append(await site.ask(method, path, token, b'{"seconds": 9}'))
        assert [x.code for x in answers] == [404, 404]
        assert answers[0].body == answers[1].body
    path = f"api/v1/kernels/{site.kernel_id}/{below}".strip("/")
    assert (await site.ask(method, path, "stranger-token", b"")).code == 403
    assert (await site.ask(method, path, "", b"")).code == 401
    assert site.pinned == []


async def test_an_attendee_pins_a_kernel_and_lets_it_go(site):
    path = f"api/v1/kernels/{site.kernel_id}/pin"
    answer = json.loads(
        (await site.ask("POST", path, "ada-token", b'{"seconds": 60}')).body
    )
    assert "by ada" in answer["message"]
    assert answer["on_disk"]
    assert answer["pinned_until"] == site.world.monitor.kept.state.pins[0].until
    refused = await site.ask("POST", path, "ada-token", b'{"seconds": null}')
    assert refused.code == 403
    assert "at most 2 h" in said(refused)
    assert (await site.ask("DELETE", path, "ada-token")).code == 200
    assert site.pinned == []
    forever = await site.ask("POST", path, "organiser-token", b'{"seconds": null}')
    assert json.loads(forever.body)["pinned_until"] is None
    await site.world.look()
    view = await site.ask("GET", "api/v1/snapshot", "ada-token")
    (kernel,) = json.loads(view.body)["kernels"]
    assert (kernel["pinned"], kernel["pinned_until"]) == (True, None)
    assert kernel["pinned_by"] == "olga"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        b"60",
        b"\xff",
        b"[" * 4000,
        b'{"seconds": "60"}',
        b'{"seconds": true}',
        b'{"seconds": 0}',
        b'{"seconds": -1}',
        b'{"seconds": NaN}',
        b'{"seconds": 1e999}',
        b'{"seconds": ' + b"9" * 4000 + b"}",
        b'{"seconds": 60, "for": "bob"}',
        b'{"seconds": 60}' + b" " * 5000,
        b'{"seconds": 60}' + b" " * 60_000,
    ],
)
async def test_a_body_nobody_can_read_is_told_with_an_example(site, body):
    path = f"api/v1/kernels/{site.kernel_id}/pin"
    for token in ("ada-token", "organiser-token"):
        answer = await site.ask("POST", path, token, body)
        assert answer.code == 400
        assert "send {" in said(answer) or "too long" in said(answer)
    assert site.pinned == []


async def test_a_length_that_is_none_is_no_error_of_the_services(site):
    path = f"api/v1/kernels/{site.kernel_id}/pin"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(
        f"POST {PREFIX}{path} HTTP/1.1\r\nHost: hub\r\nContent-Length: many\r\n"
        "Authorization: token ada-token\r\n\r\n".encode()
    )
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert site.pinned == []


async def test_who_holds_the_memory_has_names_for_the_organiser_alone(site, start):
    world = site.world
    mine = world.monitor.snapshot.holders
    uuid = world.devices[0].uuid
    theirs = holder(start(), user="bob")
    foreign = holder(start(), HolderKind.FOREIGN, user="")
    see(world, *mine, *(h for h in _on(uuid, theirs, foreign)))
    path = f"api/v1/devices/{uuid}/memory"
    every = json.loads((await site.ask("GET", path, "organiser-token")).body)
    assert {h["user"] for h in every["holders"]} == {"ada", "bob", ""}
    own = json.loads((await site.ask("GET", path, "ada-token")).body)
    assert [h["notebook"] for h in own["holders"]] == ["thesis.ipynb"]
    assert (own["own_bytes"], own["others_bytes"]) == (2 * GIB, 2 * GIB)
    assert own["foreign_bytes"] == 2 * GIB
    assert own["memory_free_bytes"] == 14 * GIB
    assert "bob" not in json.dumps(own)
    assert "train.py" not in json.dumps(own)
    none = json.loads((await site.ask("GET", path, "reading-service-token")).body)
    assert (none["holders"], none["own_bytes"]) == ([], 0)
    missing = await site.ask("GET", "api/v1/devices/GPU-x/memory", "ada-token")
    assert missing.code == 404
    assert "no GPU of this UUID" in said(missing)


async def test_what_a_released_server_left_is_ones_own_and_counted_once(site, start):
    uuid = site.world.devices[0].uuid
    left = holder(start(), HolderKind.FOREIGN, user="ada")
    see(site.world, *_on(uuid, left))
    path = f"api/v1/devices/{uuid}/memory"
    own = json.loads((await site.ask("GET", path, "ada-token")).body)
    assert (own["own_bytes"], own["others_bytes"]) == (2 * GIB, 0)
    assert own["foreign_bytes"] == 0
    every = json.loads((await site.ask("GET", path, "organiser-token")).body)
    assert (every["own_bytes"], every["foreign_bytes"]) == (0, 2 * GIB)


async def test_what_happened_to_nobody_is_not_told_who_has_no_name(site, start):
    see(site.world, holder(start(), HolderKind.FOREIGN, user=""))
    (ended,) = site.world.monitor.snapshot.holders
    path = f"api/v1/holders/{ended.process.pid}-{ended.process.started}/end"
    assert (await site.ask("POST", path, "organiser-token")).code == 202
    await outcome(site.endings)
    events = await site.ask("GET", "api/v1/events", "organiser-token")
    assert "train.py" in events.body.decode()
    for path in ("api/v1/events", ""):
        answer = await site.ask("GET", path, "reading-service-token")
        assert answer.code == 200
        assert "train.py" not in answer.body.decode()
        assert "olga" not in answer.body.decode()


async def test_a_page_whose_script_has_not_run_warns_nobody(site):
    notices = site.world.monitor.notices
    notices.give(NoticeKind.PROCESS_ENDED, user="ada", text="It has ended.")
    await site.world.look()
    await site.ask("GET", "", "ada-token")
    assert [x.seen_at for x in notices.standing] == [None]
    await site.ask("GET", "api/v1/snapshot", "ada-token")
    assert None not in [x.seen_at for x in notices.standing]


def _on(uuid, *holders):

    return [replace(x, device=uuid) for x in holders]


async def test_only_organisers_drain_and_end(site, start):
    process = start()
    see(site.world, holder(process))
    name = f"{process.pid}-{process.started}"
    uuid = site.world.devices[0].uuid
    drain, end = f"api/v1/devices/{uuid}/drain", f"api/v1/holders/{name}/end"
    for token, code in {
        "ada-token": 403,
        "reading-service-token": 403,
        "stranger-token": 403,
        "": 401,
    }.items():
        for method, path in (("POST", drain), ("DELETE", drain), ("POST", end)):
            answer = await site.ask(method, path, token, b"")
            assert answer.code == code
            assert said(answer)
    assert site.world.monitor.kept.state.drained == ()
    for name, code in {"1-2": 404, "x": 400, "1": 400, "-1-2": 400, "²-1": 400}.items():
        path = f"api/v1/holders/{name}/end".encode().decode("latin-1")
        assert (await site.ask("POST", path, "admin-token", b"")).code == code
    assert (await site.ask("POST", drain, "admin-token", b"")).code == 200
    assert site.world.monitor.kept.state.drained == (uuid,)
    assert (await site.ask("DELETE", drain, "service-token")).code == 200
    assert site.world.monitor.kept.state.drained == ()
    ended = await site.ask("POST", end, "service-token", b"{}")
    assert ended.code == 202
    await outcome(site.endings)
    assert [e.details["by"] for e in site.world.events()][-1] == "robots"


async def test_to_look_at_something_never_does_anything(site):
    uuid = site.world.devices[0].uuid
    headers, _ = await site.log_in("organiser-token")
    for path in (
        f"api/v1/kernels/{site.kernel_id}/pin?seconds=60",
        f"api/v1/devices/{uuid}/drain",
        "api/v1/holders/1-1/end",
    ):
        assert (await site.ask("GET", path, "organiser-token")).code == 405, path
        assert (await site.ask("GET", path, headers=headers)).code == 405, path
    assert site.pinned == []
    assert site.world.monitor.kept.state.drained == ()


async def test_a_cookie_without_this_pages_own_token_does_nothing(site):
    headers, page = await site.log_in("ada-token")
    olga, page_of_olga = await site.log_in("organiser-token")
    pin = f"api/v1/kernels/{site.kernel_id}/pin"
    uuid, process = site.world.devices[0].uuid, "1-1"
    for cookies, stolen in ((headers, page_of_olga), (olga, page)):
        for wrong in (None, "", "x", own_token(stolen)):
            given = cookies if wrong is None else {**cookies, "X-XSRFToken": wrong}
            for path in (
                pin,
                f"api/v1/devices/{uuid}/drain",
                f"api/v1/holders/{process}/end",
            ):
                answer = await site.ask("POST", path, "", b'{"seconds": 60}', given)
                assert answer.code == 401, (path, wrong)
            assert (await site.ask("DELETE", pin, "", headers=given)).code == 401
    assert site.pinned == []
    assert site.world.monitor.kept.state.drained == ()


async def test_the_page_does_what_its_buttons_ask_for(site):
    headers, page = await site.log_in("ada-token")
    mine = {**headers, "X-XSRFToken": own_token(page)}
    pin = f"api/v1/kernels/{site.kernel_id}/pin?user=ada&server="
    answer = await site.ask("POST", pin, "", b'{"seconds": 1800}', mine)
    assert (answer.code, site.pinned) == (200, ["ada"])
    assert "Kept until" in said(answer)
    assert (await site.ask("DELETE", pin, "", headers=mine)).code == 200
    assert site.pinned == []
    olga, page = await site.log_in("organiser-token")
    hers = {**olga, "X-XSRFToken": own_token(page)}
    drain = f"api/v1/devices/{site.world.devices[0].uuid}/drain"
    # A button sends no body where there is nothing to say.
    assert (await site.ask("POST", drain, "", headers=hers)).code == 200
    assert site.world.monitor.kept.state.drained == (site.world.devices[0].uuid,)
    assert (await site.ask("DELETE", drain, "", headers=hers)).code == 200
    assert site.world.monitor.kept.state.drained == ()


async def test_a_page_reaches_nothing_of_others(site):
    bob, page = await site.log_in("bob-token")
    theirs = {**bob, "X-XSRFToken": own_token(page)}
    pin = f"api/v1/kernels/{site.kernel_id}/pin"
    for query in ("", "?user=ada&server="):
        answer = await site.ask("POST", pin + query, "", b'{"seconds": 60}', theirs)
        assert answer.code == 404
    drain = f"api/v1/devices/{site.world.devices[0].uuid}/drain"
    for method in ("POST", "DELETE"):
        assert (await site.ask(method, drain, "", headers=theirs)).code == 403
    end = "api/v1/holders/1-1/end"
    assert (await site.ask("POST", end, "", b"{}", theirs)).code == 403
    assert site.pinned == []


async def test_an_organiser_ends_a_process_from_the_page(site, start):
    process = start()
    headers, page = await site.log_in("organiser-token")
    hers = {**headers, "X-XSRFToken": own_token(page)}
    see(site.world, holder(process))
    (shown,) = site.world.monitor.snapshot.holders
    which = f"{shown.process.pid}-{shown.process.started}"
    answer = await site.ask("POST", f"api/v1/holders/{which}/end", "", b"{}", hers)
    assert answer.code == 202
    await outcome(site.endings)
    assert [e.kind.value for e in site.world.events()] == ["process_ended"]


async def test_two_who_ask_at_once_are_both_answered(site):
    path = f"api/v1/kernels/{site.kernel_id}/pin"
    answers = await asyncio.gather(
        *(site.ask("POST", path, "admin-token", b'{"seconds": 60}') for _ in range(5))
    )
    assert {x.code for x in answers} == {200}
    assert site.pinned == ["root"]
