"""``GET api/v1/usage``: what the devices did over time.

Owns its words and that it is encoded once, however many ask. It tells totals of
devices, which are everyone's (design, rule 5), and names nobody.
"""

import json
import time
from collections.abc import Callable

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.usage import Span, Usage

from .api import ApiHandler

_GOOD_SECONDS = {Span.MINUTES: 1.0, Span.HOUR: 5.0, Span.DAY: 20.0, Span.EVENT: 60.0}
"""How long an answer is given again: a day of 64 devices takes a while to write."""


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
        self._made: dict[tuple[Span, str], tuple[float, bytes]] = {}

    def has(self, device: str) -> bool:
        """Whether there is, or was, such a device."""
        return device in self._existing() or self._usage.knows(device)

    def answer(self, span: Span, device: str) -> bytes:
        """Return the columns of one device, or of all where none is named."""
        now, asked = self._clock(), (span, device)
        if asked not in self._made or self._made[asked][0] <= now:
            self._made = {k: x for k, x in self._made.items() if x[0] > now}
            self._made[asked] = now + _GOOD_SECONDS[span], self._encode(span, device)
        return self._made[asked][1]

    def _encode(self, span: Span, device: str) -> bytes:
        devices = [device] if device else None
        found = self._usage.columns(span, devices)
        for uuid in self._existing() if devices is None else devices:
            # Of one that has not been read yet there are columns too, empty ones.
            found.setdefault(uuid, Usage.no_columns(span))
        return json.dumps(
            {"span": span.value, "devices": found}, separators=(",", ":")
        ).encode()

    def _existing(self) -> list[str]:
        return [device.uuid for device in self._monitor.snapshot.inventory.devices]


class UsageHandler(ApiHandler):
    """``GET api/v1/usage?span=minutes|hour|day|event[&device=UUID]``."""

    def initialize(self, auth: HubOAuth, answers: UsageAnswers) -> None:  # type: ignore[override]  # tornado's own way
        """Take what it reads."""
        super().initialize(auth)
        self._answers = answers

    def get(self) -> None:
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
        self.set_header("Content-Type", "application/json")
        self.finish(self._answers.answer(span, device))
