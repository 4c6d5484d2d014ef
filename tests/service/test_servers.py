"""Calling attendees' servers: they may be anything."""

import asyncio
import json
from contextlib import closing
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.service.servers import Servers, ServerStatus

from .attendee_server import TOKEN, AttendeeServer

ID = "0f0e0d0c-0000-4000-8000-000000000001"
OTHER = "0f0e0d0c-0000-4000-8000-000000000002"


def model(**changes):
    return {
        "id": ID,
        "name": "python3",
        "execution_state": "idle",
        "last_activity": "2026-11-20T10:00:00.000000Z",
        "connections": 1,
        **changes,
    }


@pytest.fixture
async def attendee(tmp_path):
    server = AttendeeServer(tmp_path).start()
    yield server
    await server.stop()


@pytest.fixture
async def servers():
    with closing(Servers(timeout_seconds=30)) as calling:
        yield calling


async def ask(servers, attendee):
    answers = await servers.poll((attendee.info,))
    return answers[("ada", "")]


async def test_a_server_says_what_its_kernels_do(attendee, servers):
    attendee.answers["api/kernels"] = (200, [model(), model(id=OTHER, connections=-1)])
    answer = await ask(servers, attendee)
    assert answer.problem == ""
    kernel = answer.kernels[ID]
    assert kernel.state is KernelState.IDLE
    assert kernel.last_activity == "2026-11-20T10:00:00.000000Z"
    assert (kernel.connections, answer.kernels[OTHER].connections) == (1, None)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("busy", KernelState.BUSY),
        ("starting", KernelState.STARTING),
        ("restarting", KernelState.STARTING),
        ("dead", KernelState.UNKNOWN),
        ("a" * 5000, KernelState.UNKNOWN),
    ],
)
async def test_a_state_nobody_knows_is_unknown(attendee, servers, said, state):
    attendee.answers["api/kernels"] = (200, [model(execution_state=said)])
    assert (await ask(servers, attendee)).kernels[ID].state is state


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"<html>hello</html>",
        b"[" * 100_000,
        b'[{"id": ' + b"9" * 50_000 + b"}]",
        b"[" + b" " * 3_000_000 + b"]",
        {"message": "hello"},
        "kernels",
        None,
        [1, 2],
        [model(id="../../hub/api/shutdown")],
        [model(id=7)],
        [model(execution_state=None)],
        [model(execution_state=["idle"])],
        [model(last_activity="<script>")],
        [model(last_activity={"a": 1})],
        [model(), model()],
        [{}],
        [model(id=f"{i:08x}-0000-4000-8000-000000000000") for i in range(201)],
    ],
    ids=lambda body: repr(body)[:30],
)
async def test_nonsense_makes_a_server_unknown(attendee, servers, body):
    attendee.answers["api/kernels"] = (200, body)
    answer = await ask(servers, attendee)
    assert answer.kernels is None
    assert answer.problem
    assert len(answer.problem) < 400


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 500, 503])
async def test_any_other_status_makes_a_server_unknown(attendee, servers, status):
    attendee.answers["api/kernels"] = (status, b"" if status == 204 else b"/elsewhere")
    answer = await ask(servers, attendee)
    assert answer.kernels is None


async def test_a_redirect_is_not_followed(attendee, servers):
    target = f"http://127.0.0.1:{attendee.port}/user/ada/api/sessions"
    attendee.answers["api/kernels"] = (302, target)
    assert (await ask(servers, attendee)).kernels is None
    assert len(attendee.asked) == 1


async def test_a_server_that_never_answers_is_unknown(attendee):
    attendee.answers["api/kernels"] = (200, asyncio.sleep)
    with closing(Servers(timeout_seconds=0.1)) as servers:
        answer = await ask(servers, attendee)
    assert answer.kernels is None
    assert "Timeout" in answer.problem


async def test_a_server_that_never_answers_holds_up_no_other(
    attendee, servers, tmp_path
):
    silent = AttendeeServer(tmp_path, user="bob").start()
    silent.answers["api/kernels"] = (200, asyncio.sleep)
    waiting = asyncio.ensure_future(servers.poll((silent.info,)))
    while True:
        if silent.asked:
            break
        await asyncio.sleep(0)
    assert (await ask(servers, attendee)).kernels == {}
    assert not waiting.done()
    waiting.cancel()
    await silent.stop()


async def test_restarts_that_never_end_hold_up_no_poll(attendee, servers, tmp_path):
    silent = AttendeeServer(tmp_path, user="bob").start()
    kernels = [f"{n:08x}-0000-4000-8000-000000000001" for n in range(250)]
    for kernel_id in kernels:
        path = f"api/kernels/{kernel_id}/restart"
        silent.answers[path] = (200, asyncio.sleep)
    restarts = [
        asyncio.ensure_future(servers.restart(silent.info, kernel_id))
        for kernel_id in kernels
    ]
    while True:
        if len(silent.asked) == len(kernels):
            break
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(ask(servers, attendee), 10)
    assert answer.kernels == {}
    for restart in restarts:
        restart.cancel()
    await asyncio.gather(*restarts, return_exceptions=True)
    await silent.stop()


async def test_servers_are_found_by_name_too(attendee, servers):
    info = attendee.info
    named = replace(info, url=info.url.replace("127.0.0.1", "localhost"))
    answers = await servers.poll((named,))
    assert answers[("ada", "")].kernels == {}


async def test_a_server_that_is_not_there_is_unknown(attendee, servers):
    info = attendee.info
    await attendee.stop()
    answers = await servers.poll((info,))
    assert answers[("ada", "")].kernels is None


async def test_no_header_is_good_anywhere_else_and_no_call_leaves_a_trace(
    attendee, servers
):
    kernel_id = attendee.start_kernel()
    await ask(servers, attendee)
    await servers.kernel(attendee.info, kernel_id)
    await servers.restart(attendee.info, kernel_id)
    await servers.stop(attendee.info, kernel_id)
    assert len(attendee.headers) == 5
    for headers in attendee.headers:
        assert headers.pop("Authorization") == f"token {TOKEN}"
        assert set(headers) <= {
            "Accept",
            "Connection",
            "Content-Length",
            "Content-Type",
            "Host",
            "User-Agent",
        }
    assert all(asked.endswith("?no_track_activity=1") for asked in attendee.asked)


async def test_sessions_are_asked_for_when_a_kernel_is_new_and_seldom_else(
    attendee, servers
):
    attendee.answers["api/kernels"] = (200, [model()])
    attendee.answers["api/sessions"] = lambda: (
        200,
        [{"path": "a\nb.ipynb" + "x" * 900, "kernel": {"id": ID}}],
    )
    for _ in range(5):
        answer = await ask(servers, attendee)
    assert answer.notebooks[ID].startswith("a b.ipynb")
    assert len(answer.notebooks[ID]) == 300
    sessions = [asked for asked in attendee.asked if "sessions" in asked]
    assert len(sessions) == 2


@pytest.mark.parametrize(
    "sessions",
    [{}, [1], [{"kernel": 3}], [{"path": 1, "kernel": {"id": ID}}], b"junk"],
    ids=repr,
)
async def test_nonsense_for_sessions_costs_the_names_and_nothing_else(
    attendee, servers, sessions
):
    attendee.answers["api/kernels"] = (200, [model()])
    attendee.answers["api/sessions"] = (200, sessions)
    answer = await ask(servers, attendee)
    assert set(answer.kernels) == {ID}
    assert not any(answer.notebooks.values())


async def test_one_kernel_read_again_must_be_that_kernel(attendee, servers):
    attendee.answers[f"api/kernels/{ID}"] = (200, json.dumps(model(id=OTHER)).encode())
    with pytest.raises(ServerError, match="another kernel"):
        await servers.kernel(attendee.info, ID)


async def test_a_server_that_refuses_to_restart_is_told(attendee, servers):
    attendee.answers[f"api/kernels/{ID}/restart"] = (500, b"")
    with pytest.raises(ServerError, match="status 500"):
        await servers.restart(attendee.info, ID)


STATUS = {
    "kernels": 2,
    "connections": 1,
    "last_activity": "2026-11-20T10:00:00.000000Z",
    "started": "2026-11-20T09:00:00.000000Z",
}


async def test_a_server_says_how_busy_it_is_as_a_whole(attendee, servers):
    attendee.answers["api/status"] = (200, STATUS)
    attendee.answers["api/terminals"] = (200, [{"name": "1"}, {"name": "2"}])
    expected = ServerStatus(**STATUS, terminals=2)
    assert await servers.status(attendee.info) == expected
    assert all(asked.endswith("?no_track_activity=1") for asked in attendee.asked)


@pytest.mark.parametrize(
    ("status", "body", "terminals"),
    [
        (200, [], 0),
        (404, b"", 0),  # it has no terminals at all
        (403, b"", None),
        (200, {"message": "hello"}, None),
        (200, b"junk", None),
        (200, [1] * 1001, None),
    ],
)
async def test_terminals_that_cannot_be_counted_are_unknown(
    attendee, servers, status, body, terminals
):
    attendee.answers["api/status"] = (200, STATUS)
    attendee.answers["api/terminals"] = (status, body)
    assert (await servers.status(attendee.info)).terminals == terminals


@pytest.mark.parametrize(
    "changes",
    [
        {"kernels": -1},
        {"kernels": True},
        {"connections": "1"},
        {"last_activity": None},
        {"started": "<script>"},
    ],
    ids=repr,
)
async def test_a_status_that_does_not_fit_is_unknown(attendee, servers, changes):
    attendee.answers["api/status"] = (200, {**STATUS, **changes})
    with pytest.raises(ServerError, match="no status"):
        await servers.status(attendee.info)


async def test_one_server_can_be_asked_alone(attendee, servers):
    attendee.answers["api/kernels"] = (200, [model()])
    assert set((await servers.ask(attendee.info)).kernels) == {ID}
    attendee.answers["api/kernels"] = (500, b"")
    assert (await servers.ask(attendee.info)).problem
