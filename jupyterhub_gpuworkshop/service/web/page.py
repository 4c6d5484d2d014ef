"""A plain page that shows the snapshot, until the dashboard comes.

Owns the words and numbers on it; `templates/page.html` owns how they stand. It has no
script: a browser asks again by itself, and forms post to `page_acts`.
"""

import datetime
import time
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jupyterhub.services.auth import HubOAuth

from jupyterhub_gpuworkshop.core.archives import file_size
from jupyterhub_gpuworkshop.core.enforcement import LimitKind
from jupyterhub_gpuworkshop.core.units import format_duration, format_size
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.rules import Rules

from .auth import GuardedHandler
from .views import event_view, own_notices, snapshot_view

STATIC_FOLDER = Path(__file__).parent / "static"
_TEMPLATE_FOLDER = Path(__file__).parent / "templates"
_EVENTS = 20
_OLD_AFTER_SECONDS = 60.0
_SHORTEST_REFRESH_SECONDS = 5
_KEEP_SECONDS = 2 * 3600.0
"""What organisers are offered where attendees may not pin."""
_SAID_SECONDS = 20
SAID_COOKIE = "gpuworkshop-said"

# Not %B: that depends on the locale that the service happens to run in.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

_WORDS = {
    "lease_granted": "Share granted",
    "lease_refused": "Share refused",
    "lease_released": "Share given back",
    "lease_quarantined": "Share held back",
    "notice_given": "Told beforehand",
    "kernel_returned": "Back from pause",
    "return_waits": "Waits to come back from pause",
    "kernel_lost": "Restarted: it could not be paused or brought back",
    "over_share": "More than the share in use",
    "kernel_reclaimed": "Memory taken back",
    "reclaim_failed": "Taking memory back failed",
    "reclaim_would": "Memory would be taken back",
    "process_ended": "Process ended",
    "end_failed": "Ending a process failed",
    "device_drained": "GPU taken out of service",
    "device_undrained": "GPU back in service",
    "device_lost": "GPU lost",
    "server_stopped": "Idle server stopped",
    "server_stop_failed": "Stopping an idle server failed",
    "server_stop_would": "Idle server would be stopped",
    "kernel": "in a notebook",
    "terminal": "in a terminal",
    "server": "detached, or the server's own",
    "foreign": "outside the hub",
    "unattributed": "an attendee's, not known whose",
    "active": "in use",
    "quarantined": "held back: its server has not ended",
}


def _word(name: str) -> str:
    return _WORDS.get(name, name)


def _percent(part: float | None) -> str:
    return "unknown" if part is None else f"{part:.0%}"


def _size(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else format_size(size_bytes)


def _worth(lease: dict[str, Any]) -> str:
    """Say what a lease's memory limit is worth, and by whom."""
    if lease["memory_limit"] != LimitKind.HARD.value:
        return "soft, by settings" if lease["memory_limits"] else "no GPU"
    by_driver = "driver" in lease["memory_limits"][0]["enforced_by"]
    return "hard, by the driver" if by_driver else "hard, by the hardware"


def _clock_time(at: float) -> str:
    local = datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc).astimezone()
    return local.strftime("%H:%M:%S")


def _day_and_time(at: float) -> str:
    local = datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc).astimezone()
    return f"{local.day} {_MONTHS[local.month - 1]} {local:%Y at %H:%M %Z}"


_JINJA = Environment(
    loader=FileSystemLoader(_TEMPLATE_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_JINJA.filters.update(
    word=_word,
    percent=_percent,
    size=_size,
    file_size=file_size,
    duration=format_duration,
    clock_time=_clock_time,
    day_and_time=_day_and_time,
    worth=_worth,
)


class PlainHandler(GuardedHandler):
    """A guarded handler that writes pages which look alike."""

    def set_default_headers(self) -> None:
        """Allow a page its own style sheet and its own forms, and nothing else."""
        super().set_default_headers()
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong on a page that looks like the others."""
        self.write_refusal("This page cannot be shown", self._reason)

    def write_refusal(self, heading: str, error: str, refresh_seconds: int = 0) -> None:
        """Write a page that says why something is not shown, or not done."""
        self.write_page(
            "refused.html",
            heading=heading,
            error=error,
            refresh_seconds=refresh_seconds,
        )

    def write_page(self, template: str, **values: Any) -> None:
        """Write one of the pages in the folder of templates."""
        self.finish(
            _JINJA.get_template(template).render(
                prefix=self.settings["prefix"],
                hub_home=f"{self.hub_auth.hub_host}{self.hub_auth.hub_prefix}home",
                **{
                    "viewer": getattr(self, "viewer", None),
                    "refresh_seconds": 0,
                    **values,
                },
            )
        )

    def remember_to_say(self, message: str) -> None:
        """Have the page say so when the browser comes to it next."""
        self.set_signed_cookie(
            SAID_COOKIE,
            f"{self.viewer.name}\n{message}",
            expires_days=None,
            max_age=_SAID_SECONDS,
            path=self.settings["prefix"],
            httponly=True,
            samesite="Strict",
        )

    def remembered(self) -> str:
        """Return what was to be said to this viewer; empty for nothing."""
        kept = self.get_signed_cookie(SAID_COOKIE, max_age_days=1) or b""
        name, _, message = kept.decode().partition("\n")
        return message if name == self.viewer.name else ""


class PageHandler(PlainHandler):
    """``GET`` of the service's root."""

    def initialize(  # type: ignore[override]  # tornado's own way
        self,
        auth: HubOAuth,
        monitor: Monitor,
        history: History,
        rules: Rules,
        refresh_seconds: float,
    ) -> None:
        """Take what it reads."""
        super().initialize(auth)
        self._monitor = monitor
        self._history = history
        self._rules = rules
        self._refresh_seconds = max(_SHORTEST_REFRESH_SECONDS, round(refresh_seconds))

    def get(self) -> None:
        """Write the page."""
        snapshot = self._monitor.snapshot
        view = snapshot_view(snapshot, self.viewer, time.time())
        events = self._history.latest(_EVENTS, self.viewer.attendee)
        labels = {device["uuid"]: device["label"] for device in view["devices"]}
        most_seconds = self._rules.idle().pin_max_seconds
        self.write_page(
            "page.html",
            view=view,
            why_no_devices=snapshot.inventory.problem,
            events=[event_view(recorded, self.viewer) for recorded in events],
            labels=labels,
            no_hard_limit=Counter(
                lease["no_hard_limit"]
                for lease in view["leases"]
                if lease["no_hard_limit"]
            ),
            is_old=view["age_seconds"] > _OLD_AFTER_SECONDS,
            notices=[x for x in view["notices"] if x["user"] == self.viewer.user],
            refresh_seconds=self._refresh_seconds,
            said=self.remembered(),
            xsrf=self.xsrf_token.decode(),
            may_pin=self.viewer.is_organiser or bool(most_seconds),
            keep_seconds=most_seconds or _KEEP_SECONDS,
        )
        # A browser may fetch a page ahead that nobody comes to see.
        headers = self.request.headers
        if "prefetch" not in headers.get("Sec-Purpose", headers.get("Purpose", "")):
            self._monitor.notices.mark_seen(own_notices(snapshot, self.viewer))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong, and try again by itself."""
        self.write_refusal(
            "This page cannot be shown", self._reason, self._refresh_seconds
        )
