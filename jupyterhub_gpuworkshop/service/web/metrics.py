"""``GET metrics``: the current snapshot as Prometheus reads it.

Owns who is shown what: the totals for everybody who may look, attendees by name for
organisers alone, and only where the workshop file asks for that.
"""

import time
from collections.abc import Callable

from jupyterhub.services.auth import HubOAuth
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.metrics import Facts, Metrics
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.rules import Rules

from .api import ApiHandler

_KEPT_SECONDS = 2.0
_OPENMETRICS = "application/openmetrics-text"


class Scrapes:
    """What was answered, given again for a moment: some look very often.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[bool, str], tuple[object, float, bytes]] = {}

    def answer(
        self, key: tuple[bool, str], of: object, make: Callable[[], bytes]
    ) -> bytes:
        """Return what is known, made anew where it may have changed.

        Args:
            key: for whom, and in which format.
            of: what it is made of, to be compared.
            make: makes it.
        """
        now = self._clock()
        found = self._kept.get(key)
        if found is None or found[0] != of or now - found[1] > _KEPT_SECONDS:
            found = self._kept[key] = (of, now, make())
        return found[2]


class MetricsHandler(ApiHandler):
    """``GET metrics``."""

    def initialize(  # type: ignore[override]  # tornado's own way
        self,
        auth: HubOAuth,
        monitor: Monitor,
        history: History,
        rules: Rules,
        scrapes: Scrapes,
    ) -> None:
        """Take what it reads, and what was answered before."""
        super().initialize(auth)
        self._scrapes = scrapes
        self._monitor = monitor
        self._history = history
        self._rules = rules

    def get(self) -> None:
        """Write what is known now, in the format that was asked for."""
        monitor, history = self._monitor, self._history
        facts = Facts(
            snapshot=monitor.snapshot,
            rounds=monitor.rounds,
            report=monitor.report,
            hub_problem=monitor.hub_problem,
            asked=monitor.asked,
            unanswered=monitor.unanswered,
            history_problem=history.problem,
            tally=history.tally,
            version=__version__,
        )
        by_attendee = (
            self.viewer.is_organiser and self._rules.workshop.metrics.by_attendee
        )
        encode, content_type = _encoder(self.request.headers.get("Accept", ""))

        def make() -> bytes:
            # Of its own: the global one would add this process's numbers.
            registry = CollectorRegistry(auto_describe=False)
            registry.register(Metrics(facts, by_attendee=by_attendee))
            return encode(registry)

        of = (monitor.rounds, monitor.hub_problem, history.problem)
        self.set_header("Content-Type", content_type)
        self.finish(self._scrapes.answer((by_attendee, content_type), of, make))


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return one of two formats: whoever asks may name any version of them."""
    wanted = f"{_OPENMETRICS}; version=1.0.0" if _OPENMETRICS in accept else ""
    return choose_encoder(wanted)
