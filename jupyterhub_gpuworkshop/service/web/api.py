"""The REST API: readers of the current snapshot and of the history.

Owns the routes below ``api/v1`` and ``health``. It changes nothing.
"""

import json
import os
import time
from typing import Any

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError, RequestHandler

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.monitor import Monitor

from .auth import GuardedHandler, said_by
from .views import event_view, own_notices, snapshot_view

_DEFAULT_LIMIT = 100
_LARGEST_LIMIT = 1000
_LARGEST_ID = 2**63 - 1
_NEAR = ("127.0.0.1", "::1")


class ApiHandler(GuardedHandler):
    """A guarded handler that speaks JSON, its errors too."""

    def ask_to_log_in(self) -> None:
        """Say what is missing: a program cannot follow a redirect to a login form."""
        self.set_header("WWW-Authenticate", "token")
        self.send_error(401, reason="Send a JupyterHub token: Authorization: token ...")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong as ``{"message": ...}``."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        said = said_by(error) if isinstance(error, HTTPError) else ""
        self.finish({"message": said or self._reason})


class SnapshotHandler(ApiHandler):
    """``GET api/v1/snapshot``."""

    def initialize(self, auth: HubOAuth, monitor: Monitor) -> None:  # type: ignore[override]  # tornado's own way
        """Take what it reads."""
        super().initialize(auth)
        self._monitor = monitor

    def get(self) -> None:
        """Write the current snapshot, as far as the viewer may see it."""
        snapshot = self._monitor.snapshot
        self.finish(snapshot_view(snapshot, self.viewer, time.time()))
        self._monitor.notices.mark_seen(own_notices(snapshot, self.viewer))


class EventsHandler(ApiHandler):
    """``GET api/v1/events?after=ID&limit=N``."""

    def initialize(self, auth: HubOAuth, history: History) -> None:  # type: ignore[override]  # tornado's own way
        """Take what it reads."""
        super().initialize(auth)
        self._history = history

    def get(self) -> None:
        """Write events after one id, oldest first."""
        events = self._history.after(
            self._number("after", 0, 0, _LARGEST_ID),
            self._number("limit", _DEFAULT_LIMIT, 1, _LARGEST_LIMIT),
            self.viewer.attendee,
        )
        # tornado's own `write` takes no list.
        self.set_header("Content-Type", "application/json")
        self.finish(
            json.dumps([event_view(recorded, self.viewer) for recorded in events])
        )

    def _number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.get_argument(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise HTTPError(400, f"{name} is no number: write {name}={default}, say")
        number = int(text)
        if not least <= number <= most:
            raise HTTPError(400, f"{name} is not between {least} and {most}")
        return number


class HealthHandler(RequestHandler):
    """``GET health``: the process serves. Through the proxy it tells nothing else.

    Whoever asks on this machine, as the doctor does, reads how well, in numbers.
    """

    def initialize(self, monitor: Monitor) -> None:
        """Take what it reads."""
        self._monitor = monitor

    def get(self) -> None:
        """Say so."""
        self.set_header("Cache-Control", "no-store")
        self.finish({"status": "ok", **(self._numbers() if self._is_near() else {})})

    def _is_near(self) -> bool:
        """Whether nobody stands in between: a proxy says for whom it asks."""
        forwarded = {"X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Host", "Forwarded"}
        address = self.request.remote_ip or ""
        return not forwarded & set(self.request.headers) and address in _NEAR

    def _numbers(self) -> dict[str, str | int | float | bool]:
        monitor = self._monitor
        snapshot = monitor.snapshot
        return {
            "version": __version__,
            "is_root": os.geteuid() == 0,
            "rounds": monitor.rounds,
            "age_seconds": round(max(0.0, time.time() - snapshot.taken_at), 3),
            "devices": len(snapshot.inventory.devices),
            "devices_problem": snapshot.inventory.problem,
            "samples": len(snapshot.samples),
            "hub_problem": monitor.hub_problem,
            "servers": monitor.asked,
            "unknown_servers": monitor.unanswered,
        }
