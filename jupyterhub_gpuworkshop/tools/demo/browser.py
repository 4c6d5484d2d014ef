"""What a person's browser does with the hub and a JupyterLab server.

Owns the way through login form, spawn page and OAuth redirects to a kernel's
websocket. When and why somebody does so is `habits` and `robots`.
"""

import asyncio
import html
import json
import re
import uuid
from datetime import datetime, timezone
from html.parser import HTMLParser
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
from yarl import URL

from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .welcome import notebook

if TYPE_CHECKING:
    # Before 3.14 aiohttp's class takes no parameter, at run time.
    _Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[bool]"

_PAGE_SECONDS = 60.0
_SPAWN_SECONDS = 300.0
_LOOK_SECONDS = 1.0
_MOST_MESSAGE_BYTES = 64 * 1024 * 1024

_NAVIGATE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
_FETCH = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}


class BrowserError(Exception):
    """A page that a person would not have expected; the text is what it says."""


class SpawnFailed(BrowserError):
    """The server did not start: a refused share, say."""


class ServerGone(BrowserError):
    """The server that was there is not there any more."""


class KernelGone(BrowserError):
    """The kernel that was there is not there any more."""


class _Form(HTMLParser):
    """The hidden fields of a page's forms, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        name = found.get("name")
        if tag == "input" and found.get("type") == "hidden" and name:
            self.fields[name] = found.get("value") or ""


def message_of(page: str) -> str:
    """Return what a page of the hub's says went wrong, as text."""
    match = re.search(
        r'<(p|div)[^>]*class="[^"]*(?:error|alert|spawn-error)[^"]*"[^>]*>(.*?)</\1>',
        page,
        re.DOTALL,
    ) or re.search(r"<(h1|p)[^>]*>(.*?)</\1>", page, re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", match[2]) if match else ""
    return " ".join(html.unescape(text).split())


class Browser:
    """One person's browser, with cookies of its own.

    Args:
        base_url: the hub's public URL; ends in ``/``.
    """

    def __init__(self, base_url: str) -> None:
        self._base = URL(base_url)
        self._server = self._base
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> "Browser":
        """Open it."""
        self._session = aiohttp.ClientSession(
            # The hub's address is a number here, not a name.
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            timeout=aiohttp.ClientTimeout(total=_PAGE_SECONDS),
            headers={"User-Agent": "gpuworkshop-demo"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self._session.close()

    async def log_in(self, name: str, password: str) -> None:
        """Fill in the login form.

        Raises:
            BrowserError: the hub does not let this person in.
        """
        login = self._base / "hub/login"
        async with self._session.get(login, headers=_NAVIGATE) as response:
            form = _Form()
            form.feed(await response.text())
        filled = form.fields | {"username": name, "password": password}
        async with self._session.post(
            # Not the page that follows: it may be one that starts a server.
            login.with_query(next="/hub/home"),
            data=filled,
            headers=_NAVIGATE,
        ) as response:
            if response.status != 200 or response.url.path.endswith("/login"):
                raise BrowserError(message_of(await response.text()))
        self._server = self._base / "user" / name / ""

    async def start_server(self) -> None:
        """Start the server, wait on the spawn page, and open JupyterLab.

        Raises:
            SpawnFailed: it did not start; the text says why.
        """
        page = self._base / "hub/spawn"
        loop = asyncio.get_running_loop()
        until = loop.time() + _SPAWN_SECONDS
        while loop.time() < until:
            async with self._session.get(page, headers=_NAVIGATE) as response:
                text = await response.text()
                if response.url.path.startswith(self._server.path):
                    if response.status == 200:
                        return
                    raise SpawnFailed(message_of(text))
                if response.status != 200 or "spawn-pending" not in response.url.path:
                    raise SpawnFailed(message_of(text))
                page = response.url
            await asyncio.sleep(_LOOK_SECONDS)
        raise SpawnFailed("The server took too long to start.")

    async def open_notebook(self, name: str) -> "Kernel":
        """Open a notebook, make it where it is not there, and connect to its kernel.

        Raises:
            ServerGone: there is no server any more.
        """
        if await self._api("GET", f"contents/{name}?content=0", missing=True) is None:
            content = {"type": "notebook", "content": notebook()}
            await self._api("PUT", f"contents/{name}", content)
        session = await self._api(
            "POST",
            "sessions",
            {
                "path": name,
                "name": name,
                "type": "notebook",
                "kernel": {"name": "python3"},
            },
        )
        url = self._server / "api/kernels" / session["kernel"]["id"] / "channels"
        client = uuid.uuid4().hex
        try:
            socket = await self._session.ws_connect(
                url.with_query(session_id=client),
                headers={
                    "Sec-Fetch-Mode": "websocket",
                    "Sec-Fetch-Site": "same-origin",
                },
                origin=str(self._base.origin()),
                heartbeat=30,
                max_msg_size=_MOST_MESSAGE_BYTES,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise KernelGone(str(error)) from error
        return Kernel(socket, client)

    async def _api(
        self,
        method: str,
        path: str,
        content: dict[str, Any] | None = None,
        *,
        missing: bool = False,
    ) -> Any:
        """Call the server's API as JupyterLab does."""
        cookies = self._session.cookie_jar.filter_cookies(self._server)
        xsrf = cookies["_xsrf"].value if "_xsrf" in cookies else ""
        async with self._session.request(
            method,
            self._server.join(URL(f"api/{path}")),
            json=content,
            headers=_FETCH | {"X-XSRFToken": xsrf},
            allow_redirects=False,
        ) as response:
            if response.status == 404 and missing:
                return None
            if response.status >= 300:
                raise ServerGone(f"{method} {path}: {response.status}")
            return await response.json()


class Kernel:
    """A kernel with a notebook open on it.

    Args:
        socket: the kernel's websocket.
        client: this client's session, as Jupyter's messages call it.
    """

    def __init__(self, socket: "_Socket", client: str) -> None:
        self._socket = socket
        self._client = client

    async def run(self, code: str, timeout_seconds: float) -> str:
        """Run a cell to its end.

        Returns:
            The name of the exception that it raised; empty where it raised none.

        Raises:
            KernelGone: the kernel was restarted, stopped or lost meanwhile.
        """
        message = uuid.uuid4().hex
        try:
            await self._send(message, code)
            async with timeout(timeout_seconds):
                return await self._reply(message)
        except (asyncio.TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            raise KernelGone(f"The kernel does not answer: {error}") from error

    async def _send(self, message: str, code: str) -> None:
        await self._socket.send_json(
            {
                "header": {
                    "msg_id": message,
                    "msg_type": "execute_request",
                    "session": self._client,
                    "username": "",
                    "date": datetime.now(timezone.utc).isoformat(),
                    "version": "5.3",
                },
                "parent_header": {},
                "metadata": {},
                "content": {
                    "code": code,
                    "silent": False,
                    "store_history": True,
                    "user_expressions": {},
                    "allow_stdin": False,
                    "stop_on_error": True,
                },
                "buffers": [],
                "channel": "shell",
            }
        )

    async def _reply(self, message: str) -> str:
        async for received in self._socket:
            if received.type is not aiohttp.WSMsgType.TEXT:
                continue
            content = json.loads(received.data)
            if content["msg_type"] == "status" and content["content"].get(
                "execution_state"
            ) in ("restarting", "autorestarting", "dead"):
                raise KernelGone("The kernel was restarted.")
            answered = content.get("parent_header", {}).get("msg_id")
            if answered == message and content["msg_type"] == "execute_reply":
                return str(content["content"].get("ename", ""))
        raise KernelGone("The connection to the kernel is closed.")

    async def close(self) -> None:
        """Close the notebook; the kernel lives on, with all that it holds."""
        await self._socket.close()
