"""The forms of the page: each is posted, done or refused, and leads back to the page.

Owns the routes that the forms post to. Each is opened by the cookie together with the
hub's XSRF token, which the forms bring along; what is done is `acts` and `ending`'s.
"""

import asyncio
import contextlib
from typing import Any

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import ActRefused
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.service.acts import Acts
from jupyterhub_gpuworkshop.service.ending import Endings
from jupyterhub_gpuworkshop.service.monitor import Monitor

from .acts_api import check_pin_seconds, read_process_id
from .bodies import status_of
from .page import PlainHandler
from .views import holder_view

_LOOK_SECONDS = 2.0


class _FormHandler(PlainHandler):
    """What all forms have in common."""

    def initialize(  # type: ignore[override]  # tornado's own way
        self, auth: HubOAuth, monitor: Monitor, acts: Acts, endings: Endings
    ) -> None:
        """Take who does what is asked for."""
        super().initialize(auth)
        self._monitor = monitor
        self._acts = acts
        self._endings = endings

    def ask_to_log_in(self) -> None:
        """Do nothing for a form without the token that this page gave it."""
        if self.request.method == "GET":
            super().ask_to_log_in()
            return
        self.send_error(
            403,
            reason="This form is too old, or is none of this page. Open the page anew.",
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say why it was not done."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        said = error.log_message if isinstance(error, HTTPError) else None
        if isinstance(error, ActRefused):
            self.set_status(status_of(error))
            said = str(error)
        self.write_refusal("That was not done", said or self._reason)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """A refusal is an answer, and no error of the service's."""
        if not isinstance(value, ActRefused):
            super().log_exception(typ, value, tb)

    async def lead_back(self, message: str) -> None:
        """Show the page again, with what has been done."""
        self.remember_to_say(message)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._monitor.tick(), _LOOK_SECONDS)
        self.redirect(self.settings["prefix"], status=303)

    def _kernel(self) -> Owner:
        return self._acts.kernel(
            self.viewer,
            self.get_body_argument("kernel"),
            self.get_body_argument("user"),
            self.get_body_argument("server"),
        )


class KeepHandler(_FormHandler):
    """``POST keep``: pin a kernel."""

    async def post(self) -> None:
        """Pin it for so many seconds; an empty number is without end."""
        text = self.get_body_argument("seconds")
        seconds = None
        if text:
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                raise HTTPError(400, "The number of seconds is none.")
            seconds = check_pin_seconds(int(text))
        done = await self._acts.pin(self.viewer, self._kernel(), seconds)
        await self.lead_back(done.message)


class LetGoHandler(_FormHandler):
    """``POST let-go``: lift a pin."""

    async def post(self) -> None:
        """Lift it."""
        done = await self._acts.unpin(self.viewer, self._kernel())
        await self.lead_back(done.message)


class DrainFormHandler(_FormHandler):
    """``POST drain``: take a device out of service."""

    async def post(self) -> None:
        """Take it out."""
        done = await self._acts.drain(self.viewer, self.get_body_argument("device"))
        await self.lead_back(done.message)


class UndrainFormHandler(_FormHandler):
    """``POST undrain``: take a device back into service."""

    async def post(self) -> None:
        """Take it back."""
        done = await self._acts.undrain(self.viewer, self.get_body_argument("device"))
        await self.lead_back(done.message)


class EndFormHandler(_FormHandler):
    """``GET end`` asks whether a process is meant; ``POST end`` ends it."""

    def get(self) -> None:
        """Write what is about to be ended."""
        holders = self._endings.find(
            _process(self.get_query_argument("process")), self.viewer
        )
        devices = self._monitor.snapshot.inventory.devices
        self.write_page(
            "confirm_end.html",
            holder=holder_view(holders[0]),
            holders=[holder_view(x) for x in holders],
            labels={device.uuid: device.label for device in devices},
            xsrf=self.xsrf_token.decode(),
        )

    async def post(self) -> None:
        """End it."""
        process = _process(self.get_body_argument("process"))
        await self.lead_back(await self._endings.end(process, self.viewer))


def _process(text: str) -> ProcessId:
    try:
        return read_process_id(text)
    except ValueError as error:
        raise HTTPError(400, str(error)) from None
