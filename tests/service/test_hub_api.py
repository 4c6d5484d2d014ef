"""Asking the hub to stop a server."""

import asyncio
import json
from contextlib import closing

import pytest

from jupyterhub_gpuworkshop.core.errors import HubError
from jupyterhub_gpuworkshop.service.hub_api import HubApi

from .stub_hub import StubHub


@pytest.fixture
async def hub():
    stub = StubHub()
    yield stub
    await stub.stop()


def api(hub, **options):
    url = f"http://127.0.0.1:{hub.port}/hub/api"
    return closing(HubApi(url, "service-token", **options))


@pytest.mark.parametrize(
    ("user", "server", "path"),
    [
        ("ada", "", "users/ada/server"),
        ("ada", "deep-learning", "users/ada/servers/deep-learning"),
        ("a/d?a@x", "", "users/a%2Fd%3Fa%40x/server"),
        ("ada", "../../x", "users/ada/servers/..%2F..%2Fx"),
    ],
)
async def test_a_server_is_stopped_under_its_own_name_and_no_other(
    hub, user, server, path
):
    with api(hub) as asking:
        await asking.stop_server(user, server)
    assert hub.stopped == [f"/hub/api/{path}"]


@pytest.mark.parametrize("status", [202, 404])
async def test_a_server_that_stops_or_is_gone_is_fine(hub, status):
    hub.stopping = (status, b"")
    with api(hub) as asking:
        await asking.stop_server("ada", "")
    assert len(hub.stopped) == 1


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, {"message": "Action is not authorized\n"}, r"ized \).*delete:servers"),
        (400, {"message": "Cannot stop a server"}, r"400 \(Cannot stop a server\)"),
        (500, b"<html>", r"500 \(it does not say why\)"),
        (302, b"", "302"),
        (200, [1], "200"),
    ],
)
async def test_a_hub_that_does_not_do_it_is_quoted(hub, status, body, expected):
    hub.stopping = (status, body if isinstance(body, bytes) else json.dumps(body))
    with api(hub) as asking, pytest.raises(HubError, match=expected):
        await asking.stop_server("ada", "")
    assert len(hub.stopped) == 1, "a redirect was followed"


async def test_a_hub_that_never_answers_or_is_gone_is_an_error(hub):
    hub.stopping = (204, asyncio.sleep)
    with api(hub, timeout_seconds=0.1) as asking:
        with pytest.raises(HubError, match="does not answer at http"):
            await asking.stop_server("ada", "")
        await hub.stop()
        with pytest.raises(HubError, match="does not answer"):
            await asking.stop_server("ada", "")
