"""Notes to a kernel's owner, in a real kernel and with servers that may be anything."""

import asyncio
import json
from contextlib import closing
from dataclasses import replace

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.service.kernel_notes import (
    KernelNotes,
    leave_note,
    note_code,
)
from jupyterhub_gpuworkshop.service.server_answers import Answer, KernelInfo
from jupyterhub_gpuworkshop.service.servers import Servers

from .real_server import server as server

ID = "0f0e0d0c-0000-4000-8000-000000000001"
TEXT = "Restarted at 10:15: \"idle\" for 2 h.\n'''{x}''' %s \\ \u00e9?"
IPYTHON = {"implementation": "ipython", "language_info": {"name": "python"}}
INFO = ServerInfo(lease_id="lease-ada", user="ada", server="", url="", token="t")


@pytest.mark.lab
async def test_the_first_cell_after_a_restart_says_so_once_and_nothing_else_is_left(
    server,
):
    kernel_id = (await server.ask("api/kernels", "POST", {}))["id"]
    page = await server.open(kernel_id)
    names = "print(sorted([*globals(), *get_ipython().user_ns, len(In)], key=str))"
    await page.run("pass")
    expected = await page.run(names)
    with closing(Servers(timeout_seconds=30)) as servers:
        await servers.restart(server.info, kernel_id)
        notes = KernelNotes()
        notes.add(server.info, kernel_id, TEXT)
        while notes.waiting:
            notes.step(await servers.poll((server.info,)))
            await asyncio.sleep(0.05)
        # Silent requests of pages are not the owner's cells.
        silent = {"code": "1", "silent": True, "store_history": False}
        assert await page.ask("execute_request", silent) == {}
        assert await page.run("print(6 * 7)") == {
            "stderr": TEXT + "\n",
            "stdout": "42\n",
        }
        assert await page.run(names) == expected

        # It is no work that would keep the kernel from being idle.
        async def look():
            return (await servers.poll((server.info,)))["ada", ""].kernels[kernel_id]

        while True:
            kernel = await look()
            if (kernel.state, kernel.connections) == (KernelState.IDLE, 1):
                break
        assert (await look()).last_activity == kernel.last_activity
    page.close()


class Kernel(WebSocketHandler):
    """Answers each request by what the test says; nothing where it says nothing."""

    def initialize(self, said):
        self.said = said

    def open(self, kernel_id):
        """Say what a kernel that talks too much says, to everybody."""
        self.said["headers"] = dict(self.request.headers.get_all())
        session = self.get_query_argument("session_id")
        for message in self.said.get("noise", ()):
            if isinstance(message, str):
                message = message.replace("SESSION", session)
            self.write_message(message, binary=isinstance(message, bytes))

    def on_message(self, message):
        """Reply."""
        request = json.loads(message)
        header = request["header"]
        self.said.setdefault("asked", []).append(request)
        content = self.said.get(header["msg_type"])
        if content == "close":
            self.close()
        elif content is not None:
            kind = header["msg_type"].replace("_request", "_reply")
            reply = {"header": {"msg_type": kind}, "parent_header": header}
            self.write_message(json.dumps({**reply, "content": content}))


class Refusal(RequestHandler):
    """Refuses the websocket, at length."""

    def get(self):
        """Answer with what the test says."""
        self.set_status(302)
        self.set_header("Location", "/api/kernels/x/channels")
        self.finish(b"x" * 1_000_000)


class Silence(RequestHandler):
    """Never answers."""

    async def get(self):
        """Wait."""
        await asyncio.sleep(3600)


@pytest.fixture
async def kernel():
    """Return what a kernel says, with where it is under `info`."""
    said = {"kernel_info_request": IPYTHON, "execute_request": {"status": "ok"}}
    sockets, port = bind_unused_port("127.0.0.1")
    application = Application(
        [
            (r"/(?:user/ada/)?api/kernels/(.+)/channels", Kernel, {"said": said}),
            (r"/refuses/.+", Refusal),
            (r"/never/.+", Silence),
        ]
    )
    http = HTTPServer(application)
    http.add_sockets([sockets])
    said["info"] = replace(INFO, url=f"http://127.0.0.1:{port}/user/ada/")
    yield said
    http.stop()
    await http.close_all_connections()


async def test_what_is_sent_is_one_silent_request_after_the_kernel_said_who_it_is(
    kernel,
):
    assert await leave_note(kernel["info"], ID, TEXT)
    first, second = kernel["asked"]
    assert first["header"]["msg_type"] == "kernel_info_request"
    assert second["content"]["code"] == note_code(TEXT)
    flags = ("silent", "store_history", "allow_stdin", "stop_on_error")
    assert [second["content"][flag] for flag in flags] == [True, False, False, False]
    assert kernel["headers"]["Authorization"] == "token t"
    assert "Cookie" not in kernel["headers"]


@pytest.mark.parametrize(
    "info",
    [
        {"implementation": "IRkernel", "language_info": {"name": "R"}},
        {"implementation": "ipython", "language_info": {"name": "sage"}},
        {"implementation": "ipython", "language_info": "python"},
        {"implementation": "ipython"},
        {},
        [],
    ],
    ids=repr,
)
async def test_no_other_kernel_is_told_anything(kernel, info):
    kernel["kernel_info_request"] = info
    assert not await leave_note(kernel["info"], ID, TEXT)
    assert len(kernel["asked"]) == 1


async def test_a_kernel_that_would_not_have_it_has_none(kernel):
    kernel["execute_request"] = {"status": "error", "ename": "NameError"}
    assert not await leave_note(kernel["info"], ID, TEXT)


async def test_behind_a_cell_of_the_owners_it_waits_in_the_kernel(kernel):
    kernel["execute_request"] = None
    assert await leave_note(kernel["info"], ID, TEXT, reply_seconds=0.1)


async def test_a_busy_kernel_is_tried_again_later(kernel):
    kernel["kernel_info_request"] = None
    with pytest.raises(ServerError, match="busy"):
        await leave_note(kernel["info"], ID, TEXT, reply_seconds=0.1)


async def test_noise_is_passed_over(kernel):
    kernel["noise"] = [
        "",
        "no JSON",
        b"\xff\x00",
        "[]",
        '{"parent_header": "SESSION"}',
        json.dumps(
            {
                "header": {"msg_type": "kernel_info_reply"},
                "parent_header": {"session": "another"},
                "content": {"implementation": "SESSION"},
            }
        ),
        "x" * 1_000_000,
        *["{}"] * 500,
    ]
    assert await leave_note(kernel["info"], ID, TEXT)


async def test_a_kernel_that_says_too_much_at_once_is_unknown(kernel):
    kernel["noise"] = ["x" * 9_000_000]
    with pytest.raises(ServerError):
        await leave_note(kernel["info"], ID, TEXT)


async def test_a_kernel_that_leaves_is_unknown(kernel):
    kernel["kernel_info_request"] = "close"
    with pytest.raises(ServerError):
        await leave_note(kernel["info"], ID, TEXT)


@pytest.mark.parametrize("place", ["refuses", "never", "nowhere"])
async def test_a_server_that_does_not_let_us_in_is_unknown(kernel, place):
    info = kernel["info"]
    info = replace(info, url=info.url.replace("user/ada", place))
    with pytest.raises(ServerError, match="cannot be talked to"):
        await leave_note(info, ID, TEXT, open_seconds=0.2 if place == "never" else 30)
    assert "asked" not in kernel, "the redirect was followed"


async def until(holds):
    while True:
        if holds():
            break
        await asyncio.sleep(0)


def answer(**changes):
    known = {"kernel_id": ID, "state": KernelState.IDLE, "last_activity": "", **changes}
    return {("ada", ""): Answer(kernels={ID: KernelInfo(**known)})}


async def test_a_note_waits_until_somebody_is_connected(kernel):
    notes = KernelNotes()
    notes.add(kernel["info"], ID, "old")
    notes.add(kernel["info"], ID, TEXT)
    for said in (answer(connections=0), answer(), {("ada", ""): Answer(problem="?")}):
        notes.step(said)
    # Whatever had begun would come before this.
    await leave_note(kernel["info"], ID, "another")
    assert len(kernel["asked"]) == 2
    assert notes.waiting == {("lease-ada", ID)}
    for _ in range(2):
        notes.step(answer(connections=1))
    await until(lambda: not notes.waiting)
    assert [x["header"]["msg_type"] for x in kernel["asked"][2:]] == [
        "kernel_info_request",
        "execute_request",
    ]
    assert kernel["asked"][3]["content"]["code"] == note_code(TEXT)


@pytest.mark.parametrize("said", [{}, {("ada", ""): Answer(kernels={})}], ids=repr)
async def test_a_note_for_a_kernel_that_is_gone_is_forgotten(kernel, said):
    notes = KernelNotes()
    notes.add(kernel["info"], ID, TEXT)
    notes.step(said)
    assert not notes.waiting


async def test_it_is_tried_a_few_times_and_then_no_more(kernel, caplog):
    caplog.set_level("INFO")
    kernel["kernel_info_request"] = "close"
    notes = KernelNotes()
    notes.add(kernel["info"], ID, TEXT)
    while notes.waiting:
        notes.step(answer(connections=1))
        await asyncio.sleep(0)
    assert len(kernel["asked"]) == 5
    assert f"No note is left in kernel {ID} of ada: " in caplog.text


async def test_what_is_under_way_ends_with_the_service(kernel):
    kernel["kernel_info_request"] = None
    notes = KernelNotes()
    notes.add(kernel["info"], ID, TEXT)
    notes.step(answer(connections=1))
    await until(lambda: "asked" in kernel)
    await asyncio.wait_for(notes.close(), 10)
