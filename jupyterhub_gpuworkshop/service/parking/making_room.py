"""Parks idle kernels to make room for a parked one whose owner is back.

Owns who may be asked to: kernels idle for a while that can be parked. They lose nothing
by it, so nobody is told beforehand, and none is restarted instead.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.returns import Candidate, Waiting, who_makes_room
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.service.acting import Actor
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.taking import Taking

from .parked import Key, Parking


class RoomMaker:
    """Makes room on devices.

    Args:
        parking: knows what can be parked.
        monitor: shows who is idle.
        actor: parks them.
        rules: the organiser's.
        clock: monotonic seconds, the monitor's.
    """

    def __init__(
        self,
        parking: Parking,
        monitor: Monitor,
        actor: Actor,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parking = parking
        self._monitor = monitor
        self._actor = actor
        self._rules = rules
        self._clock = clock

    def make(
        self,
        waiting: Sequence[Waiting[Key]],
        free_bytes: Mapping[str, int],
        taken: frozenset[str],
    ) -> None:
        """Park idle kernels for who waits first at each device.

        Args:
            waiting: whose owners are back.
            free_bytes: what an allocation could get, by device UUID.
            taken: devices to which somebody returns, or on which something moves.
        """
        if self._rules.idle().dry_run:
            return
        seen, margin_bytes = set(taken), self._rules.parking().margin_bytes
        for each in sorted(waiting, key=lambda x: x.since):
            devices = set(each.needs_bytes)
            if devices & seen:
                continue
            seen |= devices
            if any(
                self._actor.is_acting_on(owner)
                and any(holder.device in devices for holder in watched.holders)
                for owner, watched in self._monitor.kernels.items()
            ):
                continue  # what they hold comes free, or not
            chosen = who_makes_room(each, free_bytes, self._candidates(), margin_bytes)
            for owner in chosen:
                self._park_for_another(owner)

    def _candidates(self) -> list[Candidate[Owner]]:
        idle, found = self._rules.idle(), []
        after_seconds = self._rules.parking().make_room_after_seconds
        for owner, watched in self._monitor.kernels.items():
            idle_seconds = watched.watch.idle_seconds
            if (
                idle_seconds is None
                or idle_seconds < after_seconds
                or not watched.watch.is_fresh(self._clock(), idle)
                or watched.is_pinned
                or not watched.memory_on()
                or not self._actor.may_act_on(owner)
                or self._parking.of(owner) is not None
                or self._parking.why_not(owner, watched.holders)
            ):
                continue
            held = {holder.device: 0 for holder in watched.holders}
            for holder in watched.holders:
                held[holder.device] += holder.memory_bytes or 0
            found.append(
                Candidate(key=owner, held_bytes=held, idle_seconds=idle_seconds)
            )
        return found

    def _park_for_another(self, owner: Owner) -> None:
        watched = self._monitor.kernels[owner]
        idle = format_duration(watched.watch.idle_seconds or 0.0)
        self._actor.begin(
            Taking(
                owner=owner,
                watched=watched,
                action=Action.PARK,
                reason=f"Idle for {idle}: it makes room for a paused notebook in which "
                "a cell was run.",
                or_restart=False,
            )
        )
