"""A websocket to one kernel of an attendee's server, for a question or two.

Owns the messages of Jupyter's protocol that the service sends. What comes back is
hostile until it fits, and bounded in size, number and time. **Only for kernels that
somebody is connected to**: jupyter_server keeps what a kernel says for a page that has
lost its connection, and throws it away when anybody else connects.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .server_answers import cut
from .servers import Resolver, headers_for

_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""What others are told comes along: a figure may be large."""

_MAX_REPLIES = 100
_OPEN_SECONDS = 30.0
_REST_SECONDS = 5.0


class KernelChannel:
    """Asks a kernel one thing after another."""

    def __init__(self) -> None:
        self._session = uuid.uuid4().hex
        self._replies: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._connection: WebSocketClientConnection | None = None

    async def open(
        self, server: ServerInfo, kernel_id: str, timeout_seconds: float
    ) -> None:
        """Connect, which waits until the kernel has started."""
        request = HTTPRequest(
            f"ws{server.url.removeprefix('http')}api/kernels/{kernel_id}/channels"
            f"?session_id={self._session}",
            headers=headers_for(server),
            connect_timeout=timeout_seconds,
            request_timeout=timeout_seconds,
            follow_redirects=False,
            # A refusal may come with a body of any length: it is dropped.
            streaming_callback=lambda chunk: None,
        )
        connecting = asyncio.ensure_future(
            websocket_connect(
                request,
                on_message_callback=self._take,
                max_message_size=_MAX_MESSAGE_BYTES,
                resolver=Resolver(),
            )
        )
        try:
            self._connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()

    async def send(self, kind: str, content: dict[str, Any]) -> None:
        """Send one request on the channel that the owner's cells take."""
        if self._connection is None:
            raise ServerError("it is not connected")
        header = {
            "msg_id": f"{self._session}_{kind}",
            "msg_type": kind,
            "session": self._session,
            "username": "gpuworkshop",
            "version": "5.3",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}}
        await self._connection.write_message(
            json.dumps({**message, "content": content, "channel": "shell"})
        )

    async def reply_to(self, kind: str) -> dict[str, Any]:
        """Wait for the reply to a request that was sent; return its content."""
        wanted = f"{kind.removesuffix('_request')}_reply"
        for _ in range(_MAX_REPLIES):
            message = await self._replies.get()
            if message is None:
                break
            header, content = message.get("header"), message.get("content")
            if isinstance(header, dict) and header.get("msg_type") == wanted:
                return content if isinstance(content, dict) else {}
        raise ServerError("it closes the kernel's websocket, or talks nonsense there")

    def _take(self, message: str | bytes | None) -> None:
        """Keep what may be for us; everybody connected is told everything."""
        if message is None:
            self._replies.put_nowait(None)
        elif (
            isinstance(message, str)
            and self._session in message
            and self._replies.qsize() < _MAX_REPLIES
        ):
            try:
                read = json.loads(message)
            except (ValueError, RecursionError):
                return
            parent = read.get("parent_header") if isinstance(read, dict) else None
            if isinstance(parent, dict) and parent.get("session") == self._session:
                self._replies.put_nowait(read)


def _close_late(connecting: "asyncio.Future[WebSocketClientConnection]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


@asynccontextmanager
async def kernel_channel(
    server: ServerInfo, kernel_id: str, timeout_seconds: float
) -> AsyncIterator[KernelChannel]:
    """Connect to a kernel for a while.

    Args:
        server: the kernel's.
        kernel_id: the Jupyter kernel id.
        timeout_seconds: how long it may take to connect.

    Raises:
        ServerError: it cannot be had, or goes away.
    """
    channel = KernelChannel()
    try:
        await channel.open(server, kernel_id, timeout_seconds)
        yield channel
    except ServerError:
        raise
    except Exception as error:
        # Whatever nonsense comes back, and however the client takes it.
        what = cut(str(error) or type(error).__name__)
        raise ServerError(f"its kernel cannot be talked to ({what})") from None
    finally:
        channel.close()


async def is_at_rest(
    server: ServerInfo, kernel_id: str, within_seconds: float = _REST_SECONDS
) -> bool:
    """Ask a kernel that somebody is connected to whether it takes the next message.

    It does not while its main thread is taken: by a cell, and by a widget's callback
    too, which servers with our settings report as `idle`.

    Args:
        server: the kernel's.
        kernel_id: the Jupyter kernel id.
        within_seconds: for the kernel's answer, once we are connected.

    Raises:
        ServerError: it is unknown.
    """
    async with kernel_channel(server, kernel_id, _OPEN_SECONDS) as channel:
        await channel.send("kernel_info_request", {})
        try:
            async with timeout(within_seconds):
                await channel.reply_to("kernel_info_request")
        except asyncio.TimeoutError:
            return False
        return True
