"""The demo in lines: one JSON object each, or plain text.

Owns the two notations. Where the lines go is `output`.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from jupyterhub_gpuworkshop.core.units import format_duration, format_size
from jupyterhub_gpuworkshop.core.wire import EventKind

from .settings import ATTENDEE_PATTERN, ORGANISER, DemoSettings

_WORDS: Mapping[str, str] = {
    EventKind.LEASE_GRANTED: "granted",
    EventKind.LEASE_REFUSED: "refused",
    EventKind.LEASE_RELEASED: "released",
    EventKind.LEASE_QUARANTINED: "quarantined",
    EventKind.KERNEL_RECLAIMED: "reclaimed",
    EventKind.RECLAIM_FAILED: "reclaim failed",
    EventKind.RECLAIM_WOULD: "would reclaim",
}


def ready_object(settings: DemoSettings) -> dict[str, Any]:
    """Return the first object: everything that somebody outside needs."""
    return {
        "event": "ready",
        "hub_url": settings.hub_url,
        "service_url": settings.service_url,
        "organiser": {"name": ORGANISER, "password": settings.organiser_password},
        "attendee": {
            "name_pattern": ATTENDEE_PATTERN,
            "password": settings.attendee_password,
        },
        "api_token": settings.api_token,
    }


def event_object(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of the service's events as `--json` tells it.

    What the event calls a detail stands beside the rest, and never in its place.
    """
    at = datetime.fromtimestamp(event["at"], timezone.utc)
    told = {
        "event": str(event["kind"]),
        "time": at.isoformat(timespec="milliseconds"),
        "attendee": event.get("user", ""),
        "server": event.get("server", ""),
        "devices": list(event.get("devices") or ()),
        "reason": event.get("reason", ""),
    }
    details = event.get("details") or {}
    return told | {name: value for name, value in details.items() if name not in told}


def json_line(content: Mapping[str, Any]) -> str:
    """Return one object as one line."""
    return json.dumps(content, ensure_ascii=True, separators=(", ", ": "))


def ready_lines(settings: DemoSettings) -> list[str]:
    """Return how to log in, for people."""
    return [
        f"The workshop is open: {settings.hub_url}",
        f"  organiser: {ORGANISER}, password {settings.organiser_password}",
        f"  attendees: {ATTENDEE_PATTERN.format(1)}, {ATTENDEE_PATTERN.format(2)}, "
        f"... password {settings.attendee_password}",
        f"  GPU use:   {settings.service_url}",
    ]


def event_line(event: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return one event as a line for people.

    Args:
        event: as the service tells it.
        labels: devices' indices by UUID.
    """
    word, who, reason = event_parts(event, labels)
    return f"{clock_of(event)}  {word:<11}  {who}: {reason}"


def event_parts(
    event: Mapping[str, Any], labels: Mapping[str, str]
) -> tuple[str, str, str]:
    """Return an event as what happened, to whom, and where and why."""
    kind = str(event["kind"])
    who = owner_of(event)
    where = ", ".join(labels.get(uuid, uuid) for uuid in event.get("devices") or ())
    reason = _short_reason(event) or str(event.get("reason", ""))
    if where and f"GPU {where}" not in reason:
        reason = f"GPU {where}: {reason}"
    return _WORDS.get(kind, kind.replace("_", " ")), who, printable(reason)


def owner_of(told: Mapping[str, Any]) -> str:
    """Return whose an event or a kernel is: the attendee, and the server's name."""
    user, server = str(told.get("user", "")), str(told.get("server", ""))
    return printable(f"{user}/{server}" if server else user)


def printable(text: str) -> str:
    """Return a text that can do nothing to a terminal: attendees name notebooks."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _short_reason(event: Mapping[str, Any]) -> str:
    """Return what a reclaim comes to; all signals are more than a line holds."""
    details = event.get("details") or {}
    freed, idle = details.get("freed_bytes"), details.get("idle_seconds")
    if event["kind"] != EventKind.KERNEL_RECLAIMED or freed is None or idle is None:
        return ""
    if details.get("by"):  # somebody said so, and the reason says who
        return ""
    what = details.get("notebook") or "its kernel"
    return f"{format_size(freed)} back, {what} was idle for {format_duration(idle)}"


def clock_of(event: Mapping[str, Any]) -> str:
    """Return an event's time of day, where the reader is."""
    at = datetime.fromtimestamp(event["at"], timezone.utc)
    return at.astimezone().strftime("%H:%M:%S")
