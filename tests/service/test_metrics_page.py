"""``GET metrics`` of a real application: who reads what, and in which format."""

import json
import re
from dataclasses import replace

import pytest
from jupyterhub.services.auth import HubOAuth
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource
from jupyterhub_gpuworkshop.service.metric_catalogue import BY_ATTENDEE, TOTALS
from jupyterhub_gpuworkshop.service.web.routes import web_application

from .service_process import PREFIX
from .site import SERVICE, parts_of
from .stub_hub import StubHub
from .world import RULES, World

BY_NAME = {**RULES, "metrics": {"by_attendee": True}}
ORGANISERS = ("admin-token", "organiser-token", "service-token")
READERS = ("ada-token", "bob-token", "reading-service-token")
ANYBODY = re.compile(r"\b(ada|eve|thesis)\b|user=|server=")
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


class Warm:
    """Simulated devices that tell temperature and power, as a driver does."""

    def __init__(self, folder):
        self._source = SimulatedSource(folder)

    def __getattr__(self, name):
        return getattr(self._source, name)

    def sample(self):
        return tuple(
            replace(sample, temperature_celsius=61.0, power_watts=250.0)
            for sample in self._source.sample()
        )


class Scraped:
    """The web side around a world with a kernel of ada's, and somebody who waits."""

    def __init__(self, world, hub):
        self.world = world
        HubOAuth.clear_instance()
        HubOAuth.instance(
            api_token="the-services-own",
            api_url=f"http://127.0.0.1:{hub.port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-gpuworkshop",
        )
        socket, port = bind_unused_port("127.0.0.1")
        self.address = f"http://127.0.0.1:{port}{PREFIX}"
        self.server = HTTPServer(web_application(SERVICE, parts_of(world)))
        self.server.add_sockets([socket])
        self.client = AsyncHTTPClient(force_instance=True)

    async def ask(self, path="metrics", **headers):
        return await self.client.fetch(
            self.address + path,
            headers={k.replace("_", "-"): v for k, v in headers.items()},
            raise_error=False,
            follow_redirects=False,
        )

    async def text(self, token):
        answer = await self.ask(Authorization=f"Bearer {token}")
        assert answer.code == 200, answer.body
        return answer.body.decode()

    async def close(self):
        self.client.close()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()


@pytest.fixture
async def hub():
    stub = StubHub()
    yield stub
    await stub.stop()


@pytest.fixture
async def scraped(tmp_path, hub, request):
    rules = getattr(request, "param", RULES)
    source = Warm(tmp_path / "gpus")
    world = await World(tmp_path, rules, source).open()
    kernel_id = world.attendee.start_kernel()
    world.attendee.sessions.append(
        {"path": "thesis.ipynb", "kernel": {"id": kernel_id}}
    )
    world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("2GiB"))')
    world.refuse_somebody()
    await world.look(times=2)
    made = Scraped(world, hub)
    yield made
    await made.close()
    await world.close()


by_name = pytest.mark.parametrize("scraped", [BY_NAME], indirect=True, ids=["by-name"])


def names_in(text):
    return {sample.name for family in read(text) for sample in family.samples}


@by_name
async def test_with_everything_there_every_metric_is_told(scraped):
    told = names_in(await scraped.text("organiser-token"))
    assert told == {metric.name for metric in (*TOTALS, *BY_ATTENDEE)}


@by_name
@pytest.mark.parametrize("token", ORGANISERS)
async def test_an_organisers_token_reads_attendees_where_the_workshop_says_so(
    scraped, token
):
    text = await scraped.text(token)
    used = 'attendee_memory_used_bytes{device="[^"]+",gpu="0",server="",user="ada"}'
    assert re.search(rf"gpuworkshop_{used} 2\.147483648e\+09", text)


@by_name
@pytest.mark.parametrize("token", READERS)
async def test_a_token_that_only_reads_gets_totals_and_no_name(scraped, token):
    text = await scraped.text(token)
    assert names_in(text) == {metric.name for metric in TOTALS}
    assert "gpuworkshop_waiting 1.0" in text
    assert not ANYBODY.search(text)


@pytest.mark.parametrize("token", [*ORGANISERS, *READERS])
async def test_nobody_reads_a_name_where_the_workshop_does_not_say_so(scraped, token):
    text = await scraped.text(token)
    assert names_in(text) == {metric.name for metric in TOTALS}
    assert not ANYBODY.search(text)


async def test_nothing_that_is_told_holds_a_token_or_a_process(scraped):
    text = await scraped.text("organiser-token")
    (kernel_id,) = scraped.world.attendee.kernels
    for secret in ("token", "secret", kernel_id, "process_cpu", "python_info"):
        assert secret not in text


async def test_who_may_not_look_reads_nothing(scraped):
    for headers, code in (
        ({}, 401),
        ({"Authorization": "Bearer junk"}, 401),
        ({"Authorization": "token junk"}, 401),
        ({"Cookie": "service-gpuworkshop=junk"}, 401),
        ({"Authorization": "Bearer stranger-token"}, 403),
    ):
        answer = await scraped.ask(**headers)
        assert answer.code == code
        assert json.loads(answer.body)["message"]
        assert b"gpuworkshop_" not in answer.body


async def test_a_token_in_the_address_opens_nothing(scraped):
    answer = await scraped.ask("metrics?token=organiser-token")
    assert answer.code == 401


async def test_a_hub_that_does_not_answer_opens_nothing(scraped, hub):
    hub.broken = True
    assert (await scraped.ask(Authorization="Bearer new-token")).code == 503


async def test_a_person_who_is_logged_in_may_look(scraped):
    asked = await scraped.ask("")
    state = re.search(r"[?&]state=([^&]+)", asked.headers["Location"])[1]
    cookie = asked.headers["Set-Cookie"].split(";")[0]
    back = await scraped.ask(
        f"oauth_callback?code=ada-token&state={state}", Cookie=cookie
    )
    cookies = [x.split(";")[0] for x in back.headers.get_list("Set-Cookie")]
    answer = await scraped.ask(Cookie="; ".join(cookies))
    assert answer.code == 200
    assert b"gpuworkshop_device_up" in answer.body


async def test_the_text_format_is_the_default_and_openmetrics_is_asked_for(scraped):
    plain = await scraped.ask(Authorization="token ada-token")
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert plain.headers["Cache-Control"] == "no-store"
    assert plain.headers["X-Content-Type-Options"] == "nosniff"
    opened = await scraped.ask(Authorization="token ada-token", Accept=OPENMETRICS)
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name for family in read_openmetrics(opened.body.decode())}
    assert "gpuworkshop_events" in families


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics;version=x", "text/plain;version=", ";;,;q", "*/*"],
)
async def test_an_accept_header_that_makes_no_sense_gets_the_text_format(
    scraped, accept
):
    answer = await scraped.ask(Authorization="token ada-token", Accept=accept)
    assert answer.code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_whatever_version_is_asked_for_one_answer_is_made(scraped):
    answers = {}
    for version in ("", ";version=x", ";version=1.0.0", ";version=1.0.77"):
        accept = f"application/openmetrics-text{version}"
        answer = await scraped.ask(Authorization="token ada-token", Accept=accept)
        answers[answer.headers["Content-Type"]] = answer.body
    ((content_type, _),) = answers.items()
    assert "version=1.0.0" in content_type


async def test_it_asks_nobody_anything(scraped):
    world = scraped.world
    before = (world.monitor.rounds, len(world.attendee.asked))
    await scraped.text("ada-token")
    assert (world.monitor.rounds, len(world.attendee.asked)) == before
