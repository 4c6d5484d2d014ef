"""What a real server takes for activity, and what it and Linux say of its users."""

import asyncio
import sys
from contextlib import closing

import pytest

from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.machine.connections import Connections
from jupyterhub_gpuworkshop.service.kernel_channel import is_at_rest
from jupyterhub_gpuworkshop.service.servers import Servers

from .real_server import TOKEN, HTTPRequest, cell, websocket_connect
from .real_server import server as server

_WIDGET = """
import os, time
from comm import get_comm_manager

def opened(comm, message):
    @comm.on_msg
    def said(message):
        flag = message["content"]["data"].get("until")
        while flag and not os.path.exists(flag):
            time.sleep(0.01)
        comm.send({"state": {}})

get_comm_manager().register_target("widget", opened)
"""
_CHATTER = [
    ("comm_info_request", {"target_name": "widget"}, "shell"),
    ("comm_open", {"comm_id": "c", "target_name": "widget", "data": {}}, "shell"),
    ("comm_msg", {"comm_id": "c", "data": {}}, "shell"),
    ("kernel_info_request", {}, "shell"),
    ("kernel_info_request", {}, "control"),
    (
        "history_request",
        {"hist_access_type": "tail", "n": 9, "raw": True, "output": False},
        "shell",
    ),
    ("usage_request", {}, "control"),
    ("comm_close", {"comm_id": "c", "data": {}}, "shell"),
]


@pytest.fixture
async def servers():
    with closing(Servers(timeout_seconds=30)) as calling:
        yield calling


@pytest.mark.lab
async def test_pages_and_widgets_are_not_work_and_cells_are(server, servers):
    kernel_id = (await server.ask("api/kernels", "POST", {}))["id"]
    page = await server.open(kernel_id)
    await page.run(_WIDGET)

    async def activity():
        # What the kernel has published before is counted once it takes a message.
        await page.ask("kernel_info_request", {})
        return (await servers.kernel(server.info, kernel_id)).last_activity

    last = await activity()
    for kind, content, channel in _CHATTER:
        await page.ask(kind, content, channel)
        assert await activity() == last, f"{kind} on {channel} counts as activity"
    page.close()
    page = await server.open(kernel_id)
    assert await activity() == last, "opening a page counts as activity"

    for changes in ({}, {"silent": True}):
        await page.ask("execute_request", cell("x = 1", **changes))
        for _ in range(100):  # the server may hear of it after the page
            now = await activity()
            if now > last:
                break
        assert now > last, f"a cell {changes} does not count as activity"
        last = now

    # A widget's callback that computes is not `busy`, yet the kernel is not at rest.
    assert await is_at_rest(server.info, kernel_id)
    await page.ask("comm_open", {"comm_id": "d", "target_name": "widget", "data": {}})
    flag = server.folder / "enough"
    await page.send("comm_msg", {"comm_id": "d", "data": {"until": str(flag)}})
    assert not await is_at_rest(server.info, kernel_id, 0.5)
    kernel = await servers.kernel(server.info, kernel_id)
    assert (kernel.state, kernel.last_activity) == (KernelState.IDLE, last)
    flag.touch()
    assert await is_at_rest(server.info, kernel_id)
    # A cell that says nothing for long is.
    flag.unlink()
    waits = f"while not os.path.exists({str(flag)!r}): time.sleep(0.01)"
    await page.settled("comm_msg")
    await page.send("execute_request", cell(waits))
    while True:
        kernel = await servers.kernel(server.info, kernel_id)
        if kernel.state is not KernelState.IDLE:
            break
    assert not await is_at_rest(server.info, kernel_id, 0.5)
    assert (kernel.state, kernel.connections) == (KernelState.BUSY, 1)
    flag.touch()
    await page.settled("execute_request")
    page.close()


@pytest.mark.lab
async def test_a_page_without_a_notebook_is_seen_by_its_connection_alone(
    server, servers
):
    def browsers():
        return Connections().count(server.info.pid, server.port)

    before = await servers.status(server.info)
    assert (before.kernels, before.connections, before.terminals) == (0, 0, 0)
    assert before.started <= before.last_activity
    url = f"ws://127.0.0.1:{server.port}/api/events/subscribe"
    authorised = {"Authorization": f"token {TOKEN}"}
    # The page, here in this process, is another to whoever looks from another.
    page = await websocket_connect(HTTPRequest(url, headers=authorised))
    after = await servers.status(server.info)
    assert (after.connections, after.last_activity) == (0, before.last_activity)
    assert await browsers_from_elsewhere(server) == 1
    assert browsers() == 0
    page.close()
    while await browsers_from_elsewhere(server):
        pass
    await server.ask("api/terminals", "POST", {})
    status = await servers.status(server.info)
    assert status.terminals == 1
    assert status.last_activity > before.last_activity


async def browsers_from_elsewhere(server):
    """Count from a process that has none of this one's connections."""
    code = (
        "from jupyterhub_gpuworkshop.machine.connections import Connections; "
        f"print(Connections().count({server.info.pid}, {server.port}))"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    return int(out)
