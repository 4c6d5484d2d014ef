"""The websocket of the pages: who may open one, and what goes through it.

Owns the guard in front of it. A socket opens for whom the hub names, by the cookie of
this service's pages or by a token in a header, and from this service's own pages: it
says so by their XSRF token, for an attendee's own server has the same origin. A token
in the address opens nothing, since addresses end up in logs.
"""

import asyncio
import functools
import hmac
import json
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler

from jupyterhub_gpuworkshop.service.web.api import ApiHandler
from jupyterhub_gpuworkshop.service.web.auth import Viewer, viewer_of

from .feed import LOG_IN, MAY_NOT, TRY_LATER, Feed, Seat, View, shown_to
from .messages import encode

_PROOF_SECONDS = 10.0
_PING_SECONDS = 30.0
_LARGEST_MESSAGE_BYTES = 4096
_NOT_ASKED_FOR = 1008
_WHOLE_TEXT = 0x81
_SIXTEEN_BITS, _SIXTY_FOUR_BITS = 126, 127
"""In the place of a frame's length: it follows, in so many bits."""
_PORTS = {"http": ":80", "https": ":443"}


def is_own_origin(origin: str, hosts: list[str]) -> bool:
    """Whether a page of this origin comes from one of these hosts.

    Args:
        origin: as a browser sends it.
        hosts: names, with their ports where these are not the usual ones.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _PORTS.get(parts.scheme)
    if port is None or not parts.netloc:
        return False
    return parts.netloc.lower().removesuffix(port) in {
        host.strip().lower().removesuffix(port) for host in hosts if host.strip()
    }


class LiveHandler(ApiHandler, WebSocketHandler):
    """``GET live?view=attendee|organiser|wall``: a websocket."""

    def initialize(self, auth: HubOAuth, feed: Feed) -> None:  # type: ignore[override]  # tornado's own way
        """Take who fills it."""
        super().initialize(auth)
        self._feed = feed
        self._seat: Seat | None = None
        self._xsrf = b""
        self._patience: asyncio.TimerHandle | None = None

    async def prepare(self) -> None:
        """Find out who it is, what they want to see, and from where they ask."""
        if "token" in self.request.arguments:
            self.send_error(
                400, reason="Send the token as a header, Authorization: token ..."
            )
            return
        await super().prepare()
        if self._finished:
            return
        wanted = self.get_query_argument("view", "")
        if wanted not in {view.value for view in View}:
            raise HTTPError(400, "view is attendee, organiser or wall")
        self._view = View(wanted)
        shown = shown_to(self.viewer, self._view)
        if shown is None:
            raise HTTPError(403, "Only organisers may look at this.")
        self._shown = shown
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            self.set_status(426)
            self.set_header("Upgrade", "websocket")
            self.finish({"message": "This is a websocket: open it as one."})
        elif not self._has_token:
            self._check_page()

    @property
    def _has_token(self) -> bool:
        """Whether a program asks, with a token in a header: no browser sends that."""
        return bool(getattr(self, "_token_authenticated", False))

    def _check_page(self) -> None:
        """Refuse what does not come from a page of this host.

        What the proxies in front say the host is counts too: no page of elsewhere can
        make a browser send their header.
        """
        headers = self.request.headers
        forwarded = headers.get("X-Forwarded-Host", "").partition(",")[0]
        hosts = [headers.get("Host", ""), forwarded]
        if not is_own_origin(headers.get("Origin", ""), hosts):
            raise HTTPError(403, "Only this hub's own pages may open this.")
        self._xsrf = self.xsrf_token

    def check_origin(self, origin: str) -> bool:
        """Leave it at that: `prepare` has looked, where a browser asks."""
        return True

    @property
    def max_message_size(self) -> int:
        """Read next to nothing: a token is all there is to say."""
        return _LARGEST_MESSAGE_BYTES

    @property
    def ping_interval(self) -> float:
        """Find out about those who went without a word, in seconds."""
        return _PING_SECONDS

    @property
    def ping_timeout(self) -> float:
        """Wait so long for an answer, in seconds."""
        return _PING_SECONDS

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin; for a browser, once it has shown that a page of ours asks."""
        self.set_nodelay(True)
        seat = self._seat = Seat(
            viewer=self._shown,
            view=self._view,
            outlet=self,
            with_names=self.get_query_argument("names", "") == "yes",
        )
        if not self._feed.take(seat):
            self.end(TRY_LATER, "Too many pages are open.")
        elif self._has_token:
            self._feed.begin(seat)
        else:
            self._patience = asyncio.get_running_loop().call_later(
                _PROOF_SECONDS, self.end, TRY_LATER, "Nothing was said."
            )

    def on_message(self, message: str | bytes) -> None:
        """Read the one thing that a page has to say; close upon anything else."""
        if self._patience is None or self._seat is None:
            self.end(_NOT_ASKED_FOR, "Nothing is to be said here.")
            return
        self._patience.cancel()
        self._patience = None
        if self._xsrf and hmac.compare_digest(_said(message), self._xsrf):
            self._feed.begin(self._seat)
        else:
            # Somebody has logged in anew meanwhile, in another tab.
            self.end(LOG_IN, "This page is not of now: load it anew.")

    def on_close(self) -> None:
        """Leave."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._seat is not None:
            self._feed.drop(self._seat)

    @property
    def is_drained(self) -> bool:
        """Whether all that was handed to it is on its way."""
        connection = self.ws_connection
        stream = connection.stream if connection is not None else None
        return stream is None or not stream.writing()

    def send(self, message: bytes, then: Callable[[], None] | None = None) -> None:
        """Hand a message to it; call `then` once it is on its way."""
        connection = self.ws_connection
        if connection is None or connection.is_closing():
            return
        stream = connection.stream
        assert stream is not None  # noqa: S101 - or it would be closing
        try:
            # `write_message` would make a task and a frame anew for each viewer.
            sending = stream.write(frame_of(message))
        except StreamClosedError:
            return
        if then is not None:
            sending.add_done_callback(lambda done: then() if _went_well(done) else None)

    def end(self, code: int, reason: str) -> None:
        """Close it; say why before, for some proxies keep that to themselves."""
        if self.is_drained:
            self.send(encode({"type": "bye", "code": code, "reason": reason}))
        self.close(code, reason)
        if self._seat is not None:
            self._feed.drop(self._seat)

    async def ask(self) -> Viewer | int:
        """Ask the hub anew who looks, past all that is remembered."""
        auth = self.hub_auth
        model: dict[str, Any] | None = await auth.user_for_token(
            auth.get_token(self),
            use_cache=False,
            session_id=auth.get_session_id(self),
            sync=False,
        )
        if not model:
            return LOG_IN
        return viewer_of(model) or MAY_NOT


@functools.lru_cache(maxsize=4)
def frame_of(message: bytes) -> bytes:
    """Return a text as one frame, unmasked and not compressed (RFC 6455, 5.2).

    It is made once for all viewers who are sent the same, one after the other.
    """
    length = len(message)
    if length < _SIXTEEN_BITS:
        head = struct.pack("!BB", _WHOLE_TEXT, length)
    elif length < 2**16:
        head = struct.pack("!BBH", _WHOLE_TEXT, _SIXTEEN_BITS, length)
    else:
        head = struct.pack("!BBQ", _WHOLE_TEXT, _SIXTY_FOUR_BITS, length)
    return head + message


def _went_well(done: "asyncio.Future[None]") -> bool:
    return not done.cancelled() and done.exception() is None


def _said(message: str | bytes) -> bytes:
    """Return the XSRF token that was sent; empty where it is none."""
    try:
        xsrf = json.loads(message)["xsrf"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return b""
    return xsrf.encode("utf-8", "replace") if isinstance(xsrf, str) else b""
