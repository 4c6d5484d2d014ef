"""The part of the REST API that says who is locked out, and lets them in again.

Owns the routes ``api/v1/locked`` and ``api/v1/attendees/NAME/unlock``. Both are the
organisers'.
"""

from jupyterhub.services.auth import HubOAuth

from jupyterhub_gpuworkshop.core.errors import ActForbidden
from jupyterhub_gpuworkshop.service.locked import LockedOut

from .bodies import BodyHandler, RefusingHandler


class LockedHandler(RefusingHandler):
    """``GET api/v1/locked``."""

    def initialize(self, auth: HubOAuth, locked_out: LockedOut) -> None:  # type: ignore[override]  # tornado's own way
        """Take what it reads."""
        super().initialize(auth)
        self._locked_out = locked_out

    def get(self) -> None:
        """Write who has to wait after wrong codes, and until when."""
        if not self.viewer.is_organiser:
            raise ActForbidden("Only an organiser may see who is locked out.")
        locked_out = self._locked_out
        rows = [
            {"name": one.name, "address": one.address, "until": one.until}
            for one in locked_out.locked
        ]
        self.finish(
            {
                "locked": rows if locked_out.is_known else None,
                "problem": locked_out.problem,
            }
        )


class UnlockHandler(BodyHandler):
    """``POST api/v1/attendees/NAME/unlock``."""

    def initialize(self, auth: HubOAuth, locked_out: LockedOut) -> None:  # type: ignore[override]  # tornado's own way
        """Take who unlocks."""
        super().initialize(auth)
        self._locked_out = locked_out

    async def post(self, name: str) -> None:
        """Ask the hub to let somebody try again; the answer does not wait for that."""
        self.read_body()
        message = await self._locked_out.unlock(self.viewer, name)
        self.set_status(202)
        self.finish({"message": message})
