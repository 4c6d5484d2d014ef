"""``GET metrics``: the current snapshot as Prometheus reads it.

Owns who is shown what: the totals for everybody who may look, attendees by name for
organisers alone, and only where the workshop file asks for that.
"""

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


class MetricsHandler(ApiHandler):
    """``GET metrics``."""

    def initialize(  # type: ignore[override]  # tornado's own way
        self, auth: HubOAuth, monitor: Monitor, history: History, rules: Rules
    ) -> None:
        """Take what it reads."""
        super().initialize(auth)
        self._monitor = monitor
        self._history = history
        self._rules = rules

    def get(self) -> None:
        """Write what is known now, in the format that was asked for."""
        monitor, history = self._monitor, self._history
        facts = Facts(
            snapshot=monitor.snapshot,
            rounds=monitor.rounds,
            listed=monitor.listed,
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
        # Of its own: the global one would add this process's numbers.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Metrics(facts, by_attendee=by_attendee))
        encode, content_type = _encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(encode(registry))


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # It compares the version that is asked for without seeing that it is none.
        return choose_encoder("")
