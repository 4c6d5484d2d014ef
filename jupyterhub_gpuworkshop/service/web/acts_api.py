"""The part of the REST API that asks about one thing, or asks for something.

Owns the routes for one kernel, one device and one process below ``api/v1``, and for
names to forget. A browser's cookie alone opens none that changes anything: the hub's
XSRF check is before it.
"""

from typing import Any

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.errors import NothingThere
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.service.acts import Acts, Done
from jupyterhub_gpuworkshop.service.ending import Endings
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.watching import subject_of

from .asked import events_of_kernel, kernel_answer, memory_answer
from .bodies import BodyHandler, RefusingHandler

_MOST_EVENTS_LOOKED_THROUGH = 10_000
_MOST_NAMES = 100
_LONGEST_PIN_SECONDS = 366 * 24 * 3600


def read_process_id(text: str) -> ProcessId:
    """Read ``PID-STARTED``.

    Raises:
        ValueError: it is none.
    """
    pid, _, started = text.partition("-")
    for part in (pid, started):
        if not (part.isascii() and part.isdigit() and len(part) < 20):
            raise ValueError(
                f"{text[:50]!r} is no process: write PID-STARTED, as `holders` of "
                "api/v1/snapshot has `pid` and `started`"
            )
    return ProcessId(pid=int(pid), started=int(started))


def check_pin_seconds(seconds: object) -> float | None:
    """Return for how long to pin; None for a pin without end.

    Raises:
        HTTPError: it is no such number.
    """
    if seconds is None:
        return None
    if (
        isinstance(seconds, (int, float))
        and not isinstance(seconds, bool)
        and 1 <= seconds <= _LONGEST_PIN_SECONDS
    ):
        return float(seconds)
    raise HTTPError(
        400,
        f"seconds is no number from 1 to {_LONGEST_PIN_SECONDS}: send "
        '{"seconds": 3600}, or {"seconds": null} for a pin without end',
    )


def check_names(names: object) -> list[str]:
    """Return the names that were sent.

    Raises:
        HTTPError: they are none.
    """
    if (
        isinstance(names, list)
        and 0 < len(names) <= _MOST_NAMES
        and all(isinstance(name, str) and 0 < len(name) <= 255 for name in names)
    ):
        return names
    raise HTTPError(
        400, f'names is no list of 1 to {_MOST_NAMES} names: send {{"names": ["ada"]}}'
    )


class _AskHandler(RefusingHandler):
    """What all of them read."""

    def initialize(  # type: ignore[override]  # tornado's own way
        self,
        auth: HubOAuth,
        monitor: Monitor,
        history: History,
        rules: Rules,
        acts: Acts,
        endings: Endings,
    ) -> None:
        """Take what it reads, and who does what is asked for."""
        super().initialize(auth)
        self._monitor = monitor
        self._history = history
        self._rules = rules
        self._acts = acts
        self._endings = endings


class KernelHandler(_AskHandler):
    """``GET api/v1/kernels/ID``: why it was or was not reclaimed."""

    def get(self, kernel_id: str) -> None:
        """Write all readings, the rules, the notice and the last events."""
        viewer, user = self.viewer, self.which_server()[0]
        try:
            owner = self._acts.kernel(viewer, kernel_id, *self.which_server())
        except NothingThere:
            owner = None
        of_user = user if viewer.is_organiser else viewer.attendee
        events = events_of_kernel(
            self._history.latest(_MOST_EVENTS_LOOKED_THROUGH, of_user),
            kernel_id,
            owner.key if owner is not None else None,
        )
        if owner is None and not events:
            raise NothingThere(
                "There is no such kernel, and nothing is known of it, or it is not "
                "yours."
            )
        notice = None
        if owner is not None:
            notice = self._monitor.notices.about(subject_of(owner))
        self.finish(
            kernel_answer(
                self._monitor.kernels[owner] if owner is not None else None,
                self._rules.idle(),
                notice,
                events,
                viewer,
            )
        )
        if notice is not None and notice.user == viewer.user:
            self._monitor.notices.mark_seen([notice.id])


class MemoryHandler(_AskHandler):
    """``GET api/v1/devices/UUID/memory``: who holds it."""

    def get(self, uuid: str) -> None:
        """Write who does: names for the organiser, one's own and sums for others."""
        device = self._acts.device(uuid)
        self.finish(memory_answer(self._monitor.snapshot, device, self.viewer))


class _ActHandler(_AskHandler, BodyHandler):
    """What all of them do that change something."""

    def _say(self, done: Done, **more: Any) -> None:
        self.finish({"message": done.message, "on_disk": done.on_disk, **more})


class PinHandler(_ActHandler):
    """``POST`` and ``DELETE`` of ``api/v1/kernels/ID/pin``."""

    async def post(self, kernel_id: str) -> None:
        """Pin a kernel."""
        owner = self._acts.kernel(self.viewer, kernel_id, *self.which_server())
        seconds = check_pin_seconds(self.read_body("seconds")["seconds"])
        done = await self._acts.pin(self.viewer, owner, seconds)
        pin = self._monitor.pins.of(owner)
        self._say(done, pinned_until=pin.until if pin is not None else None)

    async def delete(self, kernel_id: str) -> None:
        """Lift a pin."""
        owner = self._acts.kernel(self.viewer, kernel_id, *self.which_server())
        self._say(await self._acts.unpin(self.viewer, owner))


class DrainHandler(_ActHandler):
    """``POST`` and ``DELETE`` of ``api/v1/devices/UUID/drain``."""

    async def post(self, uuid: str) -> None:
        """Take a device out of service."""
        self.read_body()
        self._say(await self._acts.drain(self.viewer, uuid))

    async def delete(self, uuid: str) -> None:
        """Take it back."""
        self._say(await self._acts.undrain(self.viewer, uuid))


class ForgetHandler(_ActHandler):
    """``POST api/v1/forget``."""

    async def post(self) -> None:
        """Let numbers stand for names in the history."""
        names = check_names(self.read_body("names", example=["ada", "bob"])["names"])
        self._say(await self._acts.forget(self.viewer, names))


class EndHandler(_ActHandler):
    """``POST api/v1/holders/PID-STARTED/end``."""

    async def post(self, process: str) -> None:
        """Ask a process to end; the answer does not wait for that."""
        self.read_body()
        try:
            wanted = read_process_id(process)
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        message = await self._endings.end(wanted, self.viewer)
        self.set_status(202)
        self.finish({"message": message})
