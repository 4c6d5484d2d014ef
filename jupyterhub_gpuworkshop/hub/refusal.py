"""How a refused share reaches the attendee, on JupyterHub 5.2 and 6 alike.

A refusal is the organiser's policy at work, not a failure of the hub's, so it must
not count towards `Spawner.consecutive_failure_limit`, at which a hub exits.
"""

from typing import Any

from tornado import web

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5
    SpawnException = None

_STATUS = 503


class _Refused5(web.HTTPError):
    """What JupyterHub 5 shows on its page in place of "Unhandled error"."""

    def __init__(self, message: str) -> None:
        super().__init__(_STATUS, "%s", message, reason="No GPU share")
        self.jupyterhub_message = message


def refusal(message: str, settings: dict[str, Any]) -> Exception:
    """Return the exception that refuses a spawn.

    Args:
        message: for the attendee; JupyterHub escapes it.
        settings: the hub's tornado settings, which hold its failure count.
    """
    if SpawnException is not None:
        error: Exception = SpawnException(
            message, reason="gpu_share", status_code=_STATUS
        )
        return error
    # JupyterHub 5 adds one for every failed spawn, whatever its kind
    # (handlers/base.py, _track_failure_count): take it off beforehand.
    settings["failure_count"] = settings.get("failure_count", 0) - 1
    return _Refused5(message)
