"""The part of the REST API that announces something to everybody.

Owns the route ``api/v1/announcement``.
"""

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.service.announcement import Announcing

from .auth import Viewer
from .bodies import BodyHandler
from .views import Json

_LEAST_SECONDS = 60
_MOST_SECONDS = 7 * 24 * 3600
_EXAMPLE = {"text": "Doors open at 10.", "seconds": 3600}


def check_seconds(seconds: object) -> float | None:
    """Return for how long to announce; None for until it is taken down.

    Raises:
        HTTPError: it is no such number.
    """
    if seconds is None:
        return None
    if (
        isinstance(seconds, (int, float))
        and not isinstance(seconds, bool)
        and _LEAST_SECONDS <= seconds <= _MOST_SECONDS
    ):
        return float(seconds)
    raise HTTPError(
        400,
        f"seconds is no number from {_LEAST_SECONDS} to {_MOST_SECONDS}: send "
        '"seconds": 3600, or "seconds": null for until it is taken down',
    )


def announcement_view(announcing: Announcing, viewer: Viewer) -> Json | None:
    """Return what is announced; who did is the organisers' to see."""
    found = announcing.announcement
    if found is None:
        return None
    by = {"by": found.by} if viewer.is_organiser else {}
    return {"text": found.text, "at": found.at, "until": found.until, **by}


class AnnouncementHandler(BodyHandler):
    """``GET``, ``POST`` and ``DELETE`` of ``api/v1/announcement``."""

    # Of 500 characters each may come as an escape of twelve.
    most_body_bytes = 8192

    def initialize(self, auth: HubOAuth, announcing: Announcing) -> None:  # type: ignore[override]  # tornado's own way
        """Take who announces."""
        super().initialize(auth)
        self._announcing = announcing

    def get(self) -> None:
        """Write what is announced."""
        self._answer()

    async def post(self) -> None:
        """Announce something."""
        body = self.read_body("text", "seconds", example=_EXAMPLE)
        seconds = check_seconds(body["seconds"])
        if not isinstance(body["text"], str):
            raise HTTPError(400, "text is no text: put it between quotes")
        try:
            done = await self._announcing.announce(self.viewer, body["text"], seconds)
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        self._answer(message=done.message, on_disk=done.on_disk)

    async def delete(self) -> None:
        """Take it down."""
        done = await self._announcing.take_down(self.viewer)
        self._answer(message=done.message, on_disk=done.on_disk)

    def _answer(self, **more: str | bool) -> None:
        stands = announcement_view(self._announcing, self.viewer)
        self.finish({"announcement": stands, **more})
