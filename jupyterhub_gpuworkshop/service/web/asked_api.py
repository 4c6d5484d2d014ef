"""The part of the REST API that has something done to others' things, or says so.

Owns the routes by which people have kernels paused, restarted or stopped, servers
stopped, and notices given. A browser's cookie alone opens none of them: the hub's XSRF
check is before it.
"""

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.service.acts import Acts
from jupyterhub_gpuworkshop.service.asked_acts import AskedActs
from jupyterhub_gpuworkshop.service.stopping.asked import AskedStops

from .bodies import BodyHandler

_ACTIONS = {action.value: action for action in Action}


class _AskedHandler(BodyHandler):
    """What all of them hand over to."""

    def initialize(  # type: ignore[override]  # tornado's own way
        self, auth: HubOAuth, acts: Acts, asked: AskedActs, stops: AskedStops
    ) -> None:
        """Take who does what is asked for."""
        super().initialize(auth)
        self._acts = acts
        self._asked = asked
        self._stops = stops

    def _say(self, message: str, status: int) -> None:
        self.set_status(status)
        self.finish({"message": message})


class ReclaimHandler(_AskedHandler):
    """``POST api/v1/kernels/ID/reclaim``: the answer does not wait for what comes."""

    async def post(self, kernel_id: str) -> None:
        """Have a kernel paused, restarted or stopped."""
        owner = self._acts.kernel(self.viewer, kernel_id, *self.which_server())
        name = self.read_body("action", example="restart")["action"]
        action = _ACTIONS.get(name) if isinstance(name, str) else None
        if action is None:
            known = '"park", "restart" or "stop_kernel"'
            raise HTTPError(
                400, f'The action is none of {known}: send {{"action": "restart"}}'
            )
        self._say(await self._asked.reclaim(self.viewer, owner, action), 202)


class StopHandler(_AskedHandler):
    """``POST api/v1/leases/ID/stop``: the answer does not wait for the end."""

    def post(self, lease_id: str) -> None:
        """Have a server stopped."""
        self.read_body()
        self._say(self._stops.stop(self.viewer, lease_id), 202)


class NoticeHandler(_AskedHandler):
    """``POST api/v1/attendees/NAME/notice``."""

    # Of 500 characters each may come as an escape of twelve.
    most_body_bytes = 8192

    async def post(self, user: str) -> None:
        """Put a notice before an attendee's eyes."""
        text = self.read_body("text", example="Please free your GPU.")["text"]
        if not isinstance(text, str):
            raise HTTPError(400, 'text is no text: send {"text": "Please ..."}')
        try:
            message = await self._asked.give_notice(self.viewer, user, text)
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        self._say(message, 200)
