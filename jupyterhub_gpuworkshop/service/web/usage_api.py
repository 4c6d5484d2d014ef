"""``GET api/v1/usage``: what the devices did over time.

Owns its words, that it is encoded once, however many ask, and that nobody waits for
another's question. It tells totals of devices, which are everyone's (design, rule 5),
and names nobody.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.usage import Span, Usage

from .api import ApiHandler
from .pieces import finish_in_pieces

_GOOD_SECONDS = {Span.MINUTES: 1.0, Span.HOUR: 5.0, Span.DAY: 20.0, Span.EVENT: 60.0}
"""How long an answer is given again, at least."""
_SHARE_OF_TIME = 0.05
"""A day of 64 devices takes a second to write: whoever asks without end gets it again
for so long that the others' pages do not wait."""


@dataclass(slots=True)
class _Made:
    """An answer, or that it is being made."""

    task: "asyncio.Task[bytes]"
    good_until: float = float("inf")


class UsageAnswers:
    """The usage as JSON, made anew only where there is more to tell.

    Args:
        usage: what is told.
        monitor: which devices exist.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        usage: Usage,
        monitor: Monitor,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usage = usage
        self._monitor = monitor
        self._clock = clock
        self._made: dict[tuple[Span, str], _Made] = {}

    def has(self, device: str) -> bool:
        """Whether there is, or was, such a device."""
        return device in self._existing() or self._usage.knows(device)

    async def answer(self, span: Span, device: str) -> bytes:
        """Return the columns of one device, or of all where none is named."""
        now, asked = self._clock(), (span, device)
        if asked not in self._made or self._made[asked].good_until <= now:
            self._made = {k: x for k, x in self._made.items() if x.good_until > now}
            self._made[asked] = _Made(asyncio.ensure_future(self._make(asked)))
        # Whoever asks first may go away before it is made: the others stay.
        return await asyncio.shield(self._made[asked].task)

    async def _make(self, asked: tuple[Span, str]) -> bytes:
        (span, device), took = asked, 0.0
        known = [*dict.fromkeys((*self._usage.devices, *self._existing()))]
        parts: list[bytes] = []
        try:
            for uuid in [device] if device else known:
                began = self._clock()
                parts.append(self._encode(span, uuid))
                took += self._clock() - began
                await asyncio.sleep(0)  # others have their turn
        finally:
            good_seconds = max(_GOOD_SECONDS[span], took / _SHARE_OF_TIME)
            self._made[asked].good_until = self._clock() + good_seconds
        head = f'{{"span":{json.dumps(span.value)},"devices":{{'.encode()
        return head + b",".join(parts) + b"}}"

    def _encode(self, span: Span, device: str) -> bytes:
        found = self._usage.columns(span, [device])
        # Of one that has not been read yet there are columns too, empty ones.
        columns = found.get(device) or Usage.no_columns(span)
        told = json.dumps(columns, separators=(",", ":"))
        return f"{json.dumps(device)}:{told}".encode()

    def _existing(self) -> list[str]:
        return [device.uuid for device in self._monitor.snapshot.inventory.devices]


class UsageHandler(ApiHandler):
    """``GET api/v1/usage?span=minutes|hour|day|event[&device=UUID]``."""

    def initialize(self, auth: HubOAuth, answers: UsageAnswers) -> None:  # type: ignore[override]  # tornado's own way
        """Take what it reads."""
        super().initialize(auth)
        self._answers = answers

    async def get(self) -> None:
        """Write the usage of one device, or of all."""
        text = self.get_argument("span", Span.HOUR.value)
        try:
            span = Span(text)
        except ValueError:
            spans = ", ".join(span.value for span in Span)
            raise HTTPError(
                400, f"span is not one of {spans}: write span={Span.HOUR.value}, say"
            ) from None
        device = self.get_argument("device", "")
        if device and not self._answers.has(device):
            raise HTTPError(404, "there is no such GPU; api/v1/snapshot lists them")
        answer = await self._answers.answer(span, device)
        self.set_header("Content-Type", "application/json")
        await finish_in_pieces(self, answer)
