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


def refusal(message: str, spawner: Any) -> Exception:
    """Return the exception that refuses a spawn.

    Args:
        message: for the attendee; JupyterHub escapes it.
        spawner: whose start is refused; the hub makes a new one for the next start.
    """
    if SpawnException is not None:
        error: Exception = SpawnException(
            message, reason="gpu_share", status_code=_STATUS
        )
        # The spawn form would show the class and the label before the message.
        error.jupyterhub_message = message  # type: ignore[attr-defined]
        return error
    # JupyterHub 5 adds one for every failed spawn, whatever its kind
    # (handlers/base.py, _track_failure_count): take it off right after. Beforehand is
    # too early, for a spawn that succeeds in between sets the count to zero.
    if spawner._spawn_future is not None:
        settings = spawner.user.settings
        spawner.consecutive_failure_limit = 0  # nor may this one be the last straw

        def take_off(_finished: object) -> None:
            settings["failure_count"] = max(0, settings.get("failure_count", 0) - 1)

        spawner._spawn_future.add_done_callback(take_off)
    return _Refused5(message)
