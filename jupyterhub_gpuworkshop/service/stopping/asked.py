"""Stopping a server because somebody asks for it: its attendee, or an organiser.

Owns who may, why not now, and what is said of it. That the share is free afterwards is
`ends`' to see.
"""

import logging
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.asking import Asker
from jupyterhub_gpuworkshop.core.errors import ActRefused, HubError, NothingThere
from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.service.asked_acts import asker
from jupyterhub_gpuworkshop.service.haste import Haste
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .ends import ServerEnds
from .signals import ServerSignals
from .telling import ServerTeller

_LOG = logging.getLogger(__name__)
_MOST_AT_ONCE = 50
"""Nobody clicks as fast; a program that asks for more has to wait."""


class AskedStops:
    """Stops servers for who asks.

    Args:
        monitor: knows the leases.
        signals: knows which servers run.
        ends: has them stopped.
        teller: says what was done.
        why_not_act: says why no server is stopped by this service, in a sentence.
    """

    def __init__(
        self,
        monitor: Monitor,
        signals: ServerSignals,
        ends: ServerEnds,
        teller: ServerTeller,
        *,
        why_not_act: Callable[[], str] = str,
    ) -> None:
        self._monitor = monitor
        self._signals = signals
        self._ends = ends
        self._teller = teller
        self._why_not_act = why_not_act
        self._haste = Haste()

    def stop(self, viewer: Viewer, lease_id: str) -> str:
        """Have a lease's server stopped.

        Returns:
            What is done, in a sentence; the end itself is not waited for.

        Raises:
            ActRefused: it is not done.
        """
        lease = self._find(viewer, lease_id)
        if why_not := self._why_not_act() or self._why_not(lease):
            raise ActRefused(why_not)
        self._haste.count(viewer)
        asked = asker(viewer, lease.user)
        _LOG.info("%s asks for the end of the server of %s", viewer.name, lease.owner)
        self._ends.begin(lease, self._stop(lease, asked))
        whose = "Your server" if asked.is_own else f"The server of {lease.owner}"
        return (
            f"{whose} is being stopped, and its share given back. That may take a "
            "minute; files stay."
        )

    def _find(self, viewer: Viewer, lease_id: str) -> Lease:
        for lease in self._monitor.snapshot.leases:
            is_theirs = viewer.is_organiser or lease.user == viewer.attendee
            if lease.id == lease_id and is_theirs:
                return lease
        raise NothingThere("There is no such lease now, or none that is yours.")

    def _why_not(self, lease: Lease) -> str:
        if lease.id in self._ends.under_way:
            return "It is being stopped already: wait for what comes of it."
        if lease.state is LeaseState.QUARANTINED:
            return (
                "The hub has stopped this server already, or does not know it any "
                "more, and a process of it has not ended: until it has, the share is "
                "held back."
            )
        if self._monitor.hub_problem:
            return (
                "Whether the share comes free could not be seen now. "
                f"{self._monitor.hub_problem}"
            )
        if self._signals.server_of(lease) is None:
            return (
                "There is no server that runs on this share: it starts just now, or "
                "it has just ended. Try again in some seconds."
            )
        if len(self._ends.under_way) >= _MOST_AT_ONCE:
            return "Too many servers are being stopped: try again in a minute."
        return ""

    async def _stop(self, lease: Lease, asked: Asker) -> None:
        try:
            why_not = await self._ends.stop(lease)
        except HubError as error:
            why_not = f"It was not stopped: {error}."
        if why_not:
            await self._teller.not_stopped_for(lease, asked, why_not)
        else:
            await self._teller.stopped_for(lease, asked)
