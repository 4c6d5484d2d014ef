"""The hub's end of the link: the hub is the service's client.

Owns the loop that sends leases, servers, refusals, events and who is locked out to the
service every few seconds and at once on a change, and brings back inventory, observed
use, drained devices, notices, announcements and whom to unlock. It is never awaited
inside a spawn; either side may be gone for a while and both go on.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from jupyterhub_gpuworkshop.core.errors import LinkError
from jupyterhub_gpuworkshop.core.wire import REPLY, REPORT, Reply, Report, ServerInfo
from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .allocator import Allocator
from .banner import Banner
from .drains import Drains
from .unlocking import Unlocking

_TIMEOUT_SECONDS = 5.0
_COALESCE_SECONDS = 0.05
"""A storm of grants becomes a few reports, not one for each."""
_BETWEEN_SECONDS = 0.5
"""From one report to the next while much changes: each takes the hub's loop some
milliseconds, and a storm has changes all the time."""
_WARN_AFTER = 5
"""The service starts after the hub: its first silences are no news."""


class HubLink:
    """Talks to the service for as long as the hub lives.

    Args:
        url: of the service's end.
        secret: shared with the service, made by `configure`.
        allocator: whose leases and events are sent.
        banner: shows the notices that come back.
        drains: keeps what devices are out of service.
        servers: returns the running servers.
        interval_seconds: between two reports when nothing changes.
        log: the hub's.
        unlocking: knows who is locked out; None where this hub locks nobody out.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        allocator: Allocator,
        banner: Banner,
        drains: Drains,
        servers: Callable[[], tuple[ServerInfo, ...]],
        interval_seconds: float,
        log: "logging.Logger | logging.LoggerAdapter[Any]",
        unlocking: Unlocking | None = None,
    ) -> None:
        self._url = url
        self._secret = secret
        self._allocator = allocator
        self._banner = banner
        self._drains = drains
        self._servers = servers
        self._interval = interval_seconds
        self._log = log
        self._unlocking = unlocking
        self._hub_id = uuid.uuid4().hex
        self._wake = asyncio.Event()
        self._silences = 0
        self.is_up: bool | None = None
        """Whether the service answered last time; None before the first attempt."""
        self.has_looked = False
        """Whether the service has told what there is: its driver may take a while."""

    def poke(self) -> None:
        """Report soon: something has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Report for ever."""
        while True:
            begun = time.monotonic()
            try:
                await self._exchange()
                self._heard()
            except LinkError as error:
                self._silent(error)
            except Exception:
                self._log.exception("Reporting to the GPU service failed")
            try:
                async with timeout(self._interval):
                    await self._wake.wait()
                since = time.monotonic() - begun
                await asyncio.sleep(max(_COALESCE_SECONDS, _BETWEEN_SECONDS - since))
            except asyncio.TimeoutError:
                pass
            self._wake.clear()

    async def _exchange(self) -> None:
        unlocking = self._unlocking
        if unlocking is not None:
            unlocking.soon()
        report = Report(
            hub_id=self._hub_id,
            sent_at=time.time(),
            leases=tuple(self._allocator.ledger.leases.values()),
            servers=self._servers(),
            refusals=self._allocator.refusals,
            events=self._allocator.events,
            seen=self._banner.seen,
            locked=unlocking.locked if unlocking is not None else None,
            unlocked=unlocking.done if unlocking is not None else (),
        )
        request = HTTPRequest(
            self._url,
            method="POST",
            body=REPORT.dump_json(report),
            headers={
                "Authorization": f"Bearer {self._secret}",
                "Content-Type": "application/json",
            },
            connect_timeout=_TIMEOUT_SECONDS,
            request_timeout=_TIMEOUT_SECONDS,
            follow_redirects=False,
        )
        try:
            response = await AsyncHTTPClient().fetch(request)
            reply = REPLY.validate_json(response.body)
        except (HTTPClientError, OSError, ValidationError) as error:
            text = f"the GPU service at {self._url} does not answer well: {error}"
            raise LinkError(text) from error
        self._banner.told(report.seen)
        self._apply(reply)

    def _apply(self, reply: Reply) -> None:
        self._allocator.acknowledge(reply.acknowledged)
        self._allocator.observe(reply.inventory, reply.uses)
        if reply.drained is not None:
            self._drains.hear(reply.drained)
        self._banner.hear(reply.notices)
        if reply.announced is not None:
            self._banner.announce(reply.announced)
        if self._unlocking is not None:
            self._unlocking.hear(reply.unlocks)
        self.has_looked = reply.inventory is not None

    def _heard(self) -> None:
        if not self.is_up:
            self._log.info("The GPU service answers at %s", self._url)
        self.is_up = True
        self._silences = 0

    def _silent(self, error: LinkError) -> None:
        self.is_up = False
        self._silences += 1
        if self._silences == _WARN_AFTER:
            self._log.warning(
                "%s. GPU shares are granted on the last inventory known; nothing is "
                "reclaimed until it is back.",
                error,
            )
