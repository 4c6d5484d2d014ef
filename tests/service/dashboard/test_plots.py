"""The documents of the plots: made once, by a child, for whoever may look."""

import asyncio
import gzip
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from jupyterhub_gpuworkshop.core.errors import PlotError
from jupyterhub_gpuworkshop.service.dashboard import drawing, plots
from jupyterhub_gpuworkshop.service.dashboard.plots import (
    SLOTS,
    THEMES,
    BokehHandler,
    BokehScript,
    DevicePlotHandler,
    Plots,
)
from tests.service.service_process import PREFIX
from tests.service.stub_hub import StubHub

SCRIPT = f"plots/bokeh-{version('bokeh')}.min.js"
PLOT_JS = Path(plots.__file__).parent / "static" / "plot.js"


def models(value):
    """Yield each model of a document, as it stands in the JSON."""
    if isinstance(value, dict):
        if value.get("type") == "object":
            yield value
        for part in value.values():
            yield from models(part)
    elif isinstance(value, list):
        for part in value:
            yield from models(part)


def of_two_themes(slots=2):
    """Return documents as the child writes them."""
    return [
        json.loads(text) for theme in THEMES for text in drawing.documents(theme, slots)
    ]


def test_no_model_of_a_page_has_the_id_of_another():
    found = [x["id"] for document in of_two_themes() for x in models(document)]
    assert len(set(found)) == len(found) > 100


def test_a_reference_leads_to_a_model_of_the_same_document():
    for document in of_two_themes():
        text = json.dumps(document)
        ids = {x["id"] for x in models(document)}
        assert set(re.findall(r'"id": "([^"]+)"', text)) == ids
        assert document["root_id"] in ids


def test_a_document_needs_no_script_and_no_markup_of_its_own():
    for document in of_two_themes(slots=1):
        names = {x["name"] for x in models(document)}
        assert not {
            x
            for x in names
            if "JS" in x or "HTML" in x or "Div" in x or "Template" in x
        }
        (hover,) = (x for x in models(document) if x["name"] == "HoverTool")
        assert isinstance(hover["attributes"]["tooltips"], list)
        assert "webgl" not in json.dumps(document)


def test_themes_differ_in_colours_alone():
    light, dark = (
        json.dumps(x).replace(f"-{theme}-0", "")
        for x, theme in zip(of_two_themes(slots=1), THEMES, strict=True)
    )
    assert light != dark
    colour = re.compile(r"#[0-9a-f]{6}")
    shape = [re.sub(r'"p\d+"', '"id"', colour.sub("", x)) for x in (light, dark)]
    assert shape[0] == shape[1]


def test_the_columns_are_those_that_the_page_fills():
    filled = re.search(r"export const COLUMNS = (\[[^\]]*\])", PLOT_JS.read_text())
    assert tuple(json.loads(filled[1])) == drawing.COLUMNS


async def test_many_who_ask_at_once_are_served_by_one_child(tmp_path):
    started = tmp_path / "started"
    program = (
        f"open({str(started)!r}, 'a').write('x')\n"
        f"for n in range({SLOTS * len(THEMES)}): print('{{\"n\":%d}}' % n)"
    )
    made = Plots([sys.executable, "-c", program])
    asked = [(theme, slot) for theme in THEMES for slot in range(SLOTS)]
    found = await asyncio.gather(*(made.document(*x) for x in asked))
    assert [json.loads(x)["n"] for x in found] == list(range(len(asked)))
    assert started.read_text() == "x"


async def test_who_asks_first_may_go_away_and_the_others_are_served():
    made = Plots()
    first = asyncio.create_task(made.document("light", 0))
    second = asyncio.create_task(made.document("dark", SLOTS - 1))
    await asyncio.sleep(0)
    first.cancel()
    document = json.loads(await second)
    assert document["root_id"].endswith(f"-dark-{SLOTS - 1}")


async def test_no_module_comes_from_the_folder_that_the_service_was_started_in():
    program = f"import os; print('\\n'.join([os.getcwd()] * {SLOTS * len(THEMES)}))"
    made = Plots([sys.executable, "-c", program])
    assert await made.document("light", 0) == b"/"


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "print('one line')"])
async def test_a_child_that_fails_costs_the_plots_and_is_not_asked_at_once_again(
    program, tmp_path, caplog
):
    started = tmp_path / "started"
    program = f"open({str(started)!r}, 'a').write('x')\n{program}"
    made = Plots([sys.executable, "-c", program])
    for _ in range(3):
        with pytest.raises(PlotError):
            await made.document("light", 0)
    assert started.read_text() == "x"
    assert caplog.text.count("Pages have no plots") == 1
    made._failed_at -= 3600
    with pytest.raises(PlotError):
        await made.document("light", 0)
    assert started.read_text() == "xx"


async def test_a_child_that_hangs_is_ended():
    made = Plots(
        [sys.executable, "-c", "import time; time.sleep(600)"], timeout_seconds=0.1
    )
    before = set(psutil.Process().children())
    with pytest.raises(PlotError, match="were not drawn within"):
        await made.document("light", 0)
    assert set(psutil.Process().children()) <= before


async def test_a_child_that_cannot_be_started_costs_the_plots():
    with pytest.raises(PlotError, match="cannot be drawn"):
        await Plots(["/nonexistent"]).document("light", 0)


class Site:
    """What of the web side serves plots."""

    def __init__(self, hub, made):
        HubOAuth.clear_instance()
        auth = HubOAuth.instance(
            api_token="the-services-own",
            api_url=f"http://127.0.0.1:{hub.port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-gpuworkshop",
        )
        self.script = BokehScript()
        routes = [
            ("plots/device.json", DevicePlotHandler, {"auth": auth, "plots": made}),
            (r"plots/bokeh-([^/]+)\.min\.js", BokehHandler, {"script": self.script}),
        ]
        application = Application(
            [(PREFIX + path, handler, x) for path, handler, x in routes],
            cookie_secret="secret",
        )
        socket, self.port = bind_unused_port("127.0.0.1")
        self.server = HTTPServer(application)
        self.server.add_sockets([socket])
        self.client = AsyncHTTPClient(force_instance=True)

    async def get(self, path, token="", **headers):
        """Return the answer, whatever the status."""
        if token:
            headers["Authorization"] = f"token {token}"
        return await self.client.fetch(
            f"http://127.0.0.1:{self.port}{PREFIX}{path}",
            headers=headers,
            raise_error=False,
            follow_redirects=False,
            decompress_response=False,
        )

    async def close(self):
        """Listen no more."""
        self.client.close()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()


@pytest.fixture
async def site():
    hub = StubHub()
    made = Site(hub, Plots())
    yield made
    await made.close()
    await hub.stop()


async def test_a_plot_is_shown_to_who_may_look_and_to_nobody_else(site):
    assert (await site.get("plots/device.json")).code == 401
    assert (await site.get("plots/device.json", "stranger-token")).code == 403
    for token in ("ada-token", "organiser-token"):
        answer = await site.get("plots/device.json?theme=dark&slot=3", token)
        assert answer.code == 200
        assert json.loads(answer.body)["root_id"].endswith("-dark-3")
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "query", ["theme=pink", "slot=16", "slot=-1", "slot=x", "slot=", "slot=00000001"]
)
async def test_an_odd_question_is_told_what_is_odd(site, query):
    answer = await site.get(f"plots/device.json?{query}", "ada-token")
    assert answer.code == 400
    name = query.partition("=")[0]
    assert json.loads(answer.body)["message"].startswith(f"{name} is ")


async def test_a_page_without_plots_is_told_so_and_nothing_of_the_machine():
    hub = StubHub()
    site = Site(hub, Plots(["/nonexistent"]))
    answer = await site.get("plots/device.json", "ada-token")
    assert answer.code == 503
    assert json.loads(answer.body) == {"message": "Plots cannot be drawn now."}
    await site.close()
    await hub.stop()


async def test_the_script_of_this_version_is_kept_for_a_year(site):
    plain = await site.get(SCRIPT)
    zipped = await site.get(SCRIPT, **{"Accept-Encoding": "gzip, br"})
    for answer in (plain, zipped):
        assert answer.code == 200
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Vary"] == "Accept-Encoding"
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    assert len(zipped.body) < len(plain.body) / 3
    assert b"Bokeh" in plain.body


@pytest.mark.parametrize(
    "path",
    [
        "plots/bokeh-0.0.1.min.js",
        "plots/bokeh-.min.js",
        "plots/bokeh-..%2F..%2Fbokeh-api.min.js",
        SCRIPT.replace("bokeh-", "bokeh-gl-"),
    ],
)
async def test_no_other_file_of_bokeh_is_served(site, path):
    assert (await site.get(path)).code == 404


async def test_where_bokeh_is_gone_there_is_no_script(site, monkeypatch):
    monkeypatch.setattr(
        plots.importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(submodule_search_locations=["/nonexistent"]),
    )
    assert (await site.get(SCRIPT)).code == 503
    monkeypatch.undo()
    assert (await site.get(SCRIPT)).code == 200
