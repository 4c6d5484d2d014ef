"""Pins: kernels that are not reclaimed for idleness.

Owns what a pin means and when it is over. They outlive the service (`kept`).
"""

import datetime
import time
from collections.abc import Callable
from dataclasses import replace

from jupyterhub_gpuworkshop.core.attribution import Owner

from .kept import Kept, KeptState, Pin
from .server_answers import MOST_KERNELS


class Pins:
    """All pins.

    Args:
        kept: where they are written.
        wall: seconds since the epoch.
    """

    def __init__(self, kept: Kept, *, wall: Callable[[], float] = time.time) -> None:
        self._kept = kept
        self._wall = wall

    def of(self, owner: Owner) -> Pin | None:
        """Return the pin of a kernel that is in force, or None."""
        now = self._wall()
        for pin in self._kept.state.pins:
            if (pin.lease_id, pin.kernel_id) == (owner.lease_id, owner.kernel_id):
                return pin if pin.until is None or now < pin.until else None
        return None

    async def pin(self, owner: Owner, by: str, seconds: float | None) -> bool:
        """Pin a kernel from now on, in place of an earlier pin.

        Args:
            owner: the kernel.
            by: who does.
            seconds: for how long; None without end.

        Returns:
            Whether it outlives the service: it is in force in any case.
        """
        pin = Pin(
            lease_id=owner.lease_id,
            kernel_id=owner.kernel_id,
            user=owner.user,
            by=by,
            until=None if seconds is None else self._wall() + seconds,
        )
        return await self._kept.change(lambda state: _without(state, owner, pin))

    async def unpin(self, owner: Owner) -> bool:
        """Lift a pin; a kernel without one does no harm.

        Returns:
            Whether that outlives the service.
        """
        return await self._kept.change(lambda state: _without(state, owner))

    async def forget(self, lease_ids: frozenset[str]) -> None:
        """Forget the pins of leases that have ended, and those that are over."""
        now = self._wall()

        def stands(pin: Pin) -> bool:
            is_over = pin.until is not None and pin.until <= now
            return pin.lease_id in lease_ids and not is_over

        if not all(map(stands, self._kept.state.pins)):
            await self._kept.change(
                lambda state: replace(
                    state, pins=tuple(pin for pin in state.pins if stands(pin))
                )
            )


def in_words(pin: Pin) -> str:
    """Say by whom and until when, in a sentence."""
    if pin.until is None:
        return f"Kept by {pin.by}."
    until = datetime.datetime.fromtimestamp(pin.until, tz=datetime.timezone.utc)
    return f"Kept until {until.astimezone():%H:%M} by {pin.by}."


def _without(state: KeptState, owner: Owner, *added: Pin) -> KeptState:
    pins = [
        pin
        for pin in state.pins
        if (pin.lease_id, pin.kernel_id) != (owner.lease_id, owner.kernel_id)
    ]
    # A server may name ever new kernels: its oldest pins are of those that are gone.
    theirs = [pin for pin in pins if pin.lease_id == owner.lease_id]
    for pin in theirs[: max(0, len(theirs) + len(added) - MOST_KERNELS)]:
        pins.remove(pin)
    return replace(state, pins=(*pins, *added))
