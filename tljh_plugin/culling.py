"""TLJH's idle culler must not come before our own, gentler rules.

Owns its timeout, in the hub's configuration only: config.yaml stays the organiser's,
and a later change of `idle.after` is followed.
"""

from collections.abc import Mapping
from typing import Any

MARGIN_SECONDS = 1800
"""By so much a server outlives the time after which its kernels are reclaimed."""

_CULLER = "cull-idle"
_OPTION = "--timeout="


def outlast_idle_rules(c: Any, idle_after_seconds: float) -> None:
    """Raise the culler's timeout above our idle rules, where it is below.

    TLJH culls servers after 10 minutes unless told otherwise, kernels and all (facts:
    jupyterhub 29).

    Args:
        c: the hub's configuration; TLJH has listed its culler there, if it is on.
        idle_after_seconds: when an idle kernel is reclaimed in any case.
    """
    least = int(idle_after_seconds) + MARGIN_SECONDS
    services = c.JupyterHub.get("services", [])
    if isinstance(services, list):
        c.JupyterHub.services = [_patient(service, least) for service in services]


def _patient(service: Any, least: int) -> Any:
    if not isinstance(service, Mapping) or service.get("name") != _CULLER:
        return service
    command = [_raised(word, least) for word in service.get("command", [])]
    return {**service, "command": command}


def _raised(word: str, least: int) -> str:
    seconds = word.removeprefix(_OPTION)
    if seconds == word or not seconds.isdecimal() or int(seconds) >= least:
        return word
    return f"{_OPTION}{least}"
