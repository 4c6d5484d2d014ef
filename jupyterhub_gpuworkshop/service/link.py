"""The service's end of the link: the hub reports, and reads the reply.

Owns the last report and its age, and the one endpoint that only the hub may call. The
hub may be gone for a while: what it said last stands, until the tokens in it may be
void.
"""

import hmac
import logging
import time
from collections.abc import Callable
from typing import Protocol

from pydantic import ValidationError
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler, stream_request_body

from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.core.wire import REPLY, REPORT, Reply, Report

_LOG = logging.getLogger(__name__)
_MAX_REPORT_BYTES = 16 * 1024 * 1024
_SILENT_INTERVALS = 3
_VOID_AFTER_SECONDS = 60.0
"""A hub that restarts is back by then; one that is not may have revoked its tokens."""


class Link:
    """What the hub said last.

    Args:
        interval_seconds: how often the hub reports at least.
        clock: monotonic seconds.
    """

    def __init__(
        self, interval_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._report: Report | None = None
        self._heard_at = clock()

    @property
    def report(self) -> Report:
        """The last report; without its servers once the hub was silent for too long."""
        if self._report is None:
            return Report(hub_id="", sent_at=0.0)
        if self._silence_seconds() > self._void_after_seconds():
            return Report(
                hub_id=self._report.hub_id,
                sent_at=self._report.sent_at,
                leases=self._report.leases,
            )
        return self._report

    @property
    def problem(self) -> str:
        """Why what the hub said may be out of date, in a sentence; else empty."""
        silence_seconds = self._silence_seconds()
        if silence_seconds <= _SILENT_INTERVALS * self._interval_seconds:
            return ""
        silence = format_duration(silence_seconds)
        if self._report is None:
            return (
                f"The hub has not reported for {silence}, since this service started: "
                "leases and servers are unknown. Is the hub running, with configure() "
                "in its configuration and the same secret?"
            )
        if silence_seconds > self._void_after_seconds():
            return (
                f"The hub has been silent for {silence}: servers are unknown and "
                "nothing is reclaimed. Is it running?"
            )
        return f"The hub has been silent for {silence}: leases may have changed."

    def hear(self, report: Report) -> None:
        """Take a report in; one that overtook a newer one of the same hub does not."""
        known = self._report
        if (
            known is not None
            and known.hub_id == report.hub_id
            and report.sent_at < known.sent_at
            # A clock that was set back makes every report look old, but not for long.
            and self._silence_seconds() < _SILENT_INTERVALS * self._interval_seconds
        ):
            return
        if known is None or known.hub_id != report.hub_id:
            _LOG.info("A hub reports, with %s leases", len(report.leases))
        self._report = report
        self._heard_at = self._clock()

    def _silence_seconds(self) -> float:
        return self._clock() - self._heard_at

    def _void_after_seconds(self) -> float:
        return max(_VOID_AFTER_SECONDS, 2 * _SILENT_INTERVALS * self._interval_seconds)


class Hub(Protocol):
    """Who takes a report in and replies."""

    async def exchange(self, report: Report) -> Reply:
        """Take a report in; return what the hub should know."""


@stream_request_body
class LinkHandler(RequestHandler):
    """``POST link``: for who knows the secret, and nobody else."""

    def __init__(
        self, application: Application, request: HTTPServerRequest, **kwargs: object
    ) -> None:
        self._body = bytearray()
        super().__init__(application, request, **kwargs)

    def initialize(self, hub: Hub, secret: str) -> None:
        """Take what the application hands over."""
        self._hub = hub
        self._secret = secret

    def prepare(self) -> None:
        """Check the secret before a byte of the body is read."""
        given = self.request.headers.get("Authorization", "")
        expected = f"Bearer {self._secret}"
        if not self._secret or not hmac.compare_digest(
            given.encode("utf-8", "replace"), expected.encode()
        ):
            self.set_header("Connection", "close")
            self._refuse(403, "This is for the hub alone.")
            return
        # Only for who knows the secret: others may not send so much.
        self.request.connection.set_max_body_size(_MAX_REPORT_BYTES)  # type: ignore[union-attr]  # HTTP/1 is all there is

    def data_received(self, chunk: bytes) -> None:
        """Collect the body."""
        if not self._finished:
            self._body += chunk

    async def post(self) -> None:
        """Answer a report with a reply."""
        try:
            report = REPORT.validate_json(bytes(self._body))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"The report does not fit at {where}: {first['msg']}"
            _LOG.error("%s", message)
            self._refuse(400, message)
            return
        reply = await self._hub.exchange(report)
        self.set_header("Content-Type", "application/json")
        self.finish(REPLY.dump_json(reply))

    def _refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish({"message": message})
