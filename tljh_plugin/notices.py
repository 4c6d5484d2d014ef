"""What organisers read on the hub's pages.

Owns the announcement. JupyterHub puts it on the page as HTML (facts: jupyterhub 46), so
every word of it is escaped: a mistake quotes what somebody typed.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

_HEADING = "GPU workshop: something needs an organiser."


def announce(c: Any, notices: Sequence[str]) -> None:
    """Show notices to hub admins on every page, above what is announced already."""
    given = c.JupyterHub.get("template_vars", {})
    variables = dict(given if isinstance(given, Mapping) else given.get_value({}))
    variables["announcement"] = _for_admins(
        as_html(notices), variables.get("announcement", "")
    )
    c.JupyterHub.template_vars = variables


def as_html(notices: Sequence[str]) -> str:
    """Return notices as HTML, each line of theirs on a line of its own."""
    lines = [line for notice in notices for line in notice.splitlines()]
    return "<br>".join([f"<strong>{escape(_HEADING)}</strong>", *map(escape, lines)])


def _for_admins(ours: str, theirs: Any) -> Callable[[Any], str]:
    """Return what JupyterHub calls for each page, with who looks at it or None."""

    def announcement(user: Any) -> str:
        other = (theirs(user) if callable(theirs) else theirs) or ""
        if user is None or not user.admin:
            return str(other)
        return f"{ours}<hr>{other}" if other else ours

    return announcement
