"""What people may ask for: pins, GPUs out of service, names forgotten.

Owns who may ask for what, and that it is done whole or refused with a sentence. That
processes are ended is `ending`'s, and kernels are `acting`'s.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .haste import Haste
from .history import History
from .kept import Kept, KeptState
from .monitor import Monitor
from .pins import in_words
from .rules import Rules
from .web.auth import Viewer

_LOG = logging.getLogger(__name__)
IN_MEMORY_ONLY = (
    " This could not be written to disk: it is in memory only, and ends with this "
    "service."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What has been done.

    Attributes:
        message: it, in sentences.
        on_disk: whether it outlives the service.
    """

    message: str
    on_disk: bool


class Acts:
    """Does what people ask for.

    Args:
        monitor: knows kernels and devices, and keeps pins and drains.
        rules: the organiser's.
        history: takes the events.
        why_not_act: says why another service is to act, in a sentence.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        monitor: Monitor,
        rules: Rules,
        history: History,
        *,
        why_not_act: Callable[[], str] = str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._rules = rules
        self._history = history
        self._why_not_act = why_not_act
        self._wall = wall
        self._haste = Haste()

    def kernel(
        self,
        viewer: Viewer,
        kernel_id: str,
        user: str | None = None,
        server: str | None = None,
    ) -> Owner:
        """Return the kernel that is meant, among those that this viewer may see.

        Its server says which id a kernel has: two servers may say the same.

        Raises:
            NothingThere: there is none.
            ActRefused: there are several.
        """
        found = [
            owner
            for owner in self._monitor.kernels
            if owner.kernel_id == kernel_id
            and (viewer.is_organiser or owner.user == viewer.attendee)
            and user in (None, owner.user)
            and server in (None, owner.server)
        ]
        if not found:
            raise NothingThere("There is no such kernel now, or none that is yours.")
        if len(found) > 1:
            raise ActRefused(
                "Several servers have a kernel of this id: say which one is meant "
                "with ?user=NAME&server=NAME."
            )
        return found[0]

    async def pin(self, viewer: Viewer, owner: Owner, seconds: float | None) -> Done:
        """Keep a kernel from being reclaimed for idleness.

        Args:
            viewer: who asks.
            owner: the kernel, as `kernel` returned it.
            seconds: for how long from now; None without end, for organisers.

        Raises:
            ActRefused: it is not done.
        """
        self._check_turn()
        if not viewer.is_organiser:
            self._check_own(owner, seconds)
        self._haste.count(viewer)
        on_disk = await self._monitor.pins.pin(owner, viewer.name, seconds)
        _LOG.info(
            "%s pins kernel %s of %s, %s",
            viewer.name,
            owner.kernel_id,
            owner.user,
            "without end" if seconds is None else format_duration(seconds),
        )
        pin = self._monitor.pins.of(owner)
        said = in_words(pin) if pin is not None else "That time is over already."
        if pin is not None:
            await self._record_pin(EventKind.KERNEL_PINNED, viewer, owner, said)
        return _done(f"{self._name(owner)}: {said}", on_disk)

    async def unpin(self, viewer: Viewer, owner: Owner) -> Done:
        """Lift a kernel's pin; one without a pin stays without.

        Raises:
            ActRefused: it is not done.
        """
        self._check_turn()
        self._haste.count(viewer)
        was_pinned = self._monitor.pins.of(owner) is not None
        on_disk = await self._monitor.pins.unpin(owner)
        _LOG.info("%s unpins kernel %s of %s", viewer.name, owner.kernel_id, owner.user)
        if was_pinned:
            reason = f"Let go by {viewer.name}."
            await self._record_pin(EventKind.KERNEL_UNPINNED, viewer, owner, reason)
        said = "no longer kept, and reclaimed once it has been idle."
        return _done(f"{self._name(owner)}: {said}", on_disk)

    async def drain(self, viewer: Viewer, uuid: str) -> Done:
        """Take a device out of service: it gets no new lease.

        Raises:
            ActRefused: it is not done.
        """
        self._check_organiser(viewer)
        self._check_turn()
        device = self.device(uuid)
        is_new = uuid not in self._monitor.kept.state.drained
        on_disk = await self._monitor.kept.change(lambda state: _drained(state, uuid))
        if is_new:
            reason = f"{viewer.name} took GPU {device.label} out of service."
            await self._record(EventKind.DEVICE_DRAINED, viewer, uuid, reason)
        message = (
            f"GPU {device.label} gets no new share. Servers on it go on; their "
            "attendees are told, and are placed elsewhere at their next start."
        )
        return self._told(message, on_disk)

    async def undrain(self, viewer: Viewer, uuid: str) -> Done:
        """Take a device back into service.

        Raises:
            ActRefused: it is not done.
        """
        self._check_organiser(viewer)
        self._check_turn()
        kept = self._monitor.kept
        was_drained = uuid in kept.state.drained
        devices = self._monitor.snapshot.inventory.devices
        label = next((x.label for x in devices if x.uuid == uuid), uuid)
        # One that is gone for good can be taken off the list all the same.
        if not was_drained:
            label = self.device(uuid).label
        on_disk = await kept.change(lambda state: _undrained(state, uuid))
        if was_drained:
            reason = f"{viewer.name} took GPU {label} back into service."
            await self._record(EventKind.DEVICE_UNDRAINED, viewer, uuid, reason)
        return self._told(f"GPU {label} gets shares again.", on_disk)

    async def forget(self, viewer: Viewer, names: Collection[str]) -> Done:
        """Let numbers stand for the names of attendees in the history.

        Raises:
            ActRefused: it is not done: one of them is still here, say.
        """
        if not viewer.is_organiser:
            raise ActForbidden("Only an organiser may have names forgotten.")
        self._check_turn()
        if viewer.user in names:
            raise ActRefused(f"{viewer.user} asks, and is not forgotten.")
        for whose, what in (
            (self._monitor.snapshot.leases, "a share"),
            (self._monitor.kept.state.parked, "a paused kernel"),
        ):
            here = sorted({one.user for one in whose} & set(names))
            if here:
                raise ActRefused(
                    f"Still with {what}: {', '.join(here)}. Stop their servers, and "
                    "ask again some seconds later."
                )
        pins_done = await self._monitor.kept.forget(names)
        on_disk = await self._history.forget(names, self._wall()) and pins_done
        # Not who: the log outlives the history.
        _LOG.info(
            "%s had %d names in the history made numbers", viewer.name, len(names)
        )
        return _done("Numbers stand for these names in the history.", on_disk)

    def device(self, uuid: str) -> Device:
        """Return a device that exists.

        Raises:
            NothingThere: there is none of this UUID.
        """
        for device in self._monitor.snapshot.inventory.devices:
            if device.uuid == uuid:
                return device
        raise NothingThere(
            "There is no GPU of this UUID now: api/v1/snapshot lists those there are."
        )

    def _told(self, message: str, on_disk: bool) -> Done:
        """Say what was done, and whether the hub hears of it."""
        return _done(once_told(message, self._monitor.kept), on_disk)

    def _name(self, owner: Owner) -> str:
        watched = self._monitor.kernels.get(owner)
        return watched.view.notebook if watched and watched.view.notebook else "Kernel"

    def _check_turn(self) -> None:
        if why_not := self._why_not_act():
            raise ActRefused(why_not)

    @staticmethod
    def _check_organiser(viewer: Viewer) -> None:
        if not viewer.is_organiser:
            raise ActForbidden("Only an organiser may take GPUs out of service.")

    def _check_own(self, owner: Owner, seconds: float | None) -> None:
        """Refuse an attendee what only organisers may."""
        most_seconds = self._rules.idle().pin_max_seconds
        if not most_seconds:
            raise ActForbidden("In this workshop only organisers pin kernels.")
        most = format_duration(most_seconds)
        if seconds is None or seconds > most_seconds:
            raise ActForbidden(
                f"You may pin a kernel for at most {most}, again and again: send "
                f'{{"seconds": {most_seconds:.0f}}} or less.'
            )
        pin = self._monitor.pins.of(owner)
        if pin is not None and (
            pin.until is None or pin.until > self._wall() + seconds
        ):
            raise ActRefused(f"It is kept for longer already. {in_words(pin)}")

    async def _record_pin(
        self, kind: EventKind, viewer: Viewer, owner: Owner, reason: str
    ) -> None:
        watched = self._monitor.kernels.get(owner)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                user=owner.user,
                server=owner.server,
                reason=reason,
                details={
                    "by": viewer.name,
                    "kernel_id": owner.kernel_id,
                    "lease_id": owner.lease_id,
                    "notebook": watched.view.notebook if watched else "",
                },
            )
        )

    async def _record(
        self, kind: EventKind, viewer: Viewer, uuid: str, reason: str
    ) -> None:
        _LOG.info("%s (%s)", reason, uuid)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                user="",
                devices=(uuid,),
                reason=reason,
                details={"by": viewer.name},
            )
        )


def once_told(message: str, kept: Kept) -> str:
    """Say of what the hub is to do that it is not so yet, where it is not told."""
    if why_waits := kept.why_hub_waits:
        return f"As soon as the hub is told: {message} {why_waits}"
    return message


def _done(message: str, on_disk: bool) -> Done:
    return Done(message=message + ("" if on_disk else IN_MEMORY_ONLY), on_disk=on_disk)


def _drained(state: KeptState, uuid: str) -> KeptState:
    if uuid in state.drained:
        return state
    return replace(state, drained=(*state.drained, uuid))


def _undrained(state: KeptState, uuid: str) -> KeptState:
    return replace(state, drained=tuple(x for x in state.drained if x != uuid))
