"""Who looks: organiser, attendee, or nobody.

Owns the guard in front of everything that shows something: JupyterHub says who
somebody is, and the scopes say what they may see.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from jupyterhub.services.auth import (
    HubOAuth,
    HubOAuthCallbackHandler,
    HubOAuthenticated,
)
from tornado.web import HTTPError, RequestHandler

_LOG = logging.getLogger(__name__)
_MOST_SAID = 200
READ_SCOPE = "custom:gpuworkshop:read"
_ADMIN_UI = "admin-ui"
_HUB_IS_SILENT = "JupyterHub does not say who you are. Try again soon."
ORGANISER_SCOPES = frozenset({"custom:gpuworkshop:admin", _ADMIN_UI})


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who looks.

    Attributes:
        name: for people's eyes.
        attendee: whose own things are shown; None for an organiser, who sees all.
        is_user: whether it is a person; a service may be called like one.
        since: when the hub made the user, seconds since 1970; None where the token
            does not say.
        is_hub_admin: whether the hub's own admin page opens.
    """

    name: str
    attendee: str | None
    is_user: bool = True
    since: float | None = None
    is_hub_admin: bool = False

    @property
    def is_organiser(self) -> bool:
        """Whether everybody's things are shown."""
        return self.attendee is None

    @property
    def user(self) -> str:
        """The hub's user that this is; empty for a service."""
        return self.name if self.is_user else ""


def viewer_of(model: Mapping[str, Any]) -> Viewer | None:
    """Return what JupyterHub's model of a user or service entitles to; None: nothing.

    A service that may only read has no server of its own: it sees the totals, also
    where it is called like an attendee.
    """
    name, is_user = str(model.get("name", "")), model.get("kind", "user") == "user"
    scopes, since = set(model.get("scopes") or ()), _seconds(model.get("created"))
    if scopes & ORGANISER_SCOPES:
        return Viewer(
            name=name,
            attendee=None,
            is_user=is_user,
            since=since,
            is_hub_admin=_ADMIN_UI in scopes,
        )
    # A scope may be narrowed by a filter; narrowed to anything, it still says "read".
    if any(scope.partition("!")[0] == READ_SCOPE for scope in scopes):
        attendee = name if is_user else ""
        return Viewer(name=name, attendee=attendee, is_user=is_user, since=since)
    return None


def _seconds(moment: object) -> float | None:
    """Read a moment of the hub's API."""
    if not isinstance(moment, str):
        return None
    try:
        # Python 3.10 reads no Z.
        found = datetime.fromisoformat(moment.removesuffix("Z"))
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=timezone.utc)
    return found.timestamp()


def said_by(error: HTTPError) -> str:
    """Return what an error says; empty where it says nothing.

    tornado keeps it as a format, with each per cent sign doubled.
    """
    return (error.log_message or "") % error.args


class OpenHandler(RequestHandler):
    """A handler that answers everybody, with nothing that is anybody's."""

    def set_default_headers(self) -> None:
        """Nothing of it is framed, runs as a page, or is taken for what it is not."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header(
            "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
        )

    def _request_summary(self) -> str:
        """Say what tornado writes into the log of a request that failed.

        The path alone: a query may hold a code or a token.
        """
        request = self.request
        return f"{request.method} {request.path} ({request.remote_ip})"


class CallbackHandler(OpenHandler, HubOAuthCallbackHandler):
    """``GET oauth_callback``: where the hub sends browsers back to."""

    async def prepare(self) -> None:
        """Ask the hub who it is, if anybody, without holding up the loop.

        With a state that it does not know JupyterHub's own handler would wait for the
        hub, and whoever invents one and a token could have everybody wait.
        """
        try:
            await self.hub_auth.get_user(self, sync=False)
        except HTTPError:
            self.send_error(503, reason=_HUB_IS_SILENT)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Keep what a browser brings along within its line of the log."""
        if isinstance(value, HTTPError):
            message, summary = said_by(value), self._request_summary()
            _LOG.warning("%d %s: %r", value.status_code, summary, message[:_MOST_SAID])
        else:
            super().log_exception(typ, value, tb)

    def get_current_user(self) -> Any:
        """Return the hub's model, which `prepare` has asked for already."""
        return getattr(self, "_cached_hub_user", None)


class GuardedHandler(HubOAuthenticated, OpenHandler):
    """A handler that only runs for who may look.

    Attributes:
        viewer: who looks; set before the handler runs.
    """

    viewer: Viewer

    def initialize(self, auth: HubOAuth) -> None:
        """Take the application's way to ask the hub."""
        self.hub_auth = auth

    def set_default_headers(self) -> None:
        """Nothing of it is kept anywhere, either."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        # Of the same origin are attendees' own servers: what they open in a window
        # is not theirs to read.
        self.set_header("Cross-Origin-Opener-Policy", "noopener-allow-popups")

    async def prepare(self) -> None:
        """Ask the hub who it is, without holding up the loop."""
        try:
            model = await self.hub_auth.get_user(self, sync=False)
        except HTTPError:
            # Its message names addresses inside; the log has it.
            self.send_error(503, reason=_HUB_IS_SILENT)
            return
        if not model:
            self.ask_to_log_in()
            return
        if self._is_asked_by_any_page():
            self.send_error(403, reason="Only this service's own pages may ask this.")
            return
        viewer = viewer_of(model)
        if viewer is None:
            self.send_error(
                403, reason="You may not see this workshop's GPUs. Ask the organiser."
            )
            return
        self.viewer = viewer

    def _is_asked_by_any_page(self) -> bool:
        """Whether a script asks that need not be ours, by somebody's cookie.

        JupyterHub wants no XSRF token for such a GET, taking its answer for one that
        no script can read (`_xsrf_utils`): of the same origin every script can, and
        attendees' own servers are of it.
        """
        mode = self.request.headers.get("Sec-Fetch-Mode")
        return mode == "no-cors" and not getattr(self, "_token_authenticated", False)

    def get_current_user(self) -> Any:
        """Return the hub's model, which `prepare` has asked for already."""
        return getattr(self, "_cached_hub_user", None)

    def ask_to_log_in(self) -> None:
        """Answer somebody whom the hub does not know."""
        self.redirect(self.get_login_url())
