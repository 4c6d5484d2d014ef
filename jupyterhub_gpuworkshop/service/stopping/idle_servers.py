"""The loop that stops idle servers whose share somebody waits for.

Owns the windows of all servers, who is told, and that everything is read once more
before a server is stopped, which is `ends`'. What is idle is `core.idle_servers`' to
say, whom it helps `core.giving_way`'s.
"""

import logging
import time
from collections.abc import Callable, Mapping

from jupyterhub_gpuworkshop.core.errors import HubError
from jupyterhub_gpuworkshop.core.giving_way import who_gives_way
from jupyterhub_gpuworkshop.core.idle_servers import (
    ServerDecisionKind,
    ServerWatch,
    decide_server,
    is_nearly_due,
    observe_server,
)
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.wire import EventKind, Refusal
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.pause import Pause
from jupyterhub_gpuworkshop.service.rules import Rules

from .ends import ServerEnds
from .signals import ServerSignals
from .telling import Judged, ServerTeller, subject_of

_LOG = logging.getLogger(__name__)


class IdleServers:
    """Carries out what `core.idle_servers` decides.

    Args:
        monitor: has the last picture.
        signals: the rest of what is known of servers.
        ends: has servers stopped.
        rules: the organiser's.
        teller: says what was done.
        why_not_act: says why another is to act, in a sentence; empty where we may.
        clock: monotonic seconds, the monitor's.

    Attributes:
        servers: each server with a share of a device, by lease id, with the reason
            why it is, or is not, about to be stopped.
    """

    def __init__(
        self,
        monitor: Monitor,
        signals: ServerSignals,
        ends: ServerEnds,
        rules: Rules,
        teller: ServerTeller,
        *,
        why_not_act: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.servers: Mapping[str, Judged] = {}
        self._monitor = monitor
        self._signals = signals
        self._ends = ends
        self._rules = rules
        self._teller = teller
        self._why_not_act = why_not_act
        self._clock = clock
        self._seen_rounds = 0
        self._watches: dict[str, ServerWatch] = {}
        self._said: dict[str, float] = {}
        self._served: set[Refusal] = set()
        self._pauses: dict[str, Pause] = {}
        self._hub_pause = Pause()

    def verdicts(self) -> Mapping[str, str]:
        """Return why each server is, or is not, about to be stopped, by lease id."""
        return {
            lease_id: judged.decision.reason
            for lease_id, judged in self.servers.items()
        }

    async def step(self) -> None:
        """Wait for the next snapshot, and carry out what follows from it."""
        await self._monitor.newer_than(self._seen_rounds)
        self._seen_rounds = self._monitor.rounds
        self._look()
        self._forget()
        if self._why_not_act():
            return
        await self._ask()
        await self._give_notices()
        due = self._due()
        if not due:
            return
        if self._rules.idle().dry_run:
            for lease_id in due:
                await self._say(self.servers[lease_id])
            return
        await self._look_again_and_stop(due)

    def _look(self) -> None:
        """Take in the last snapshot, and decide anew."""
        rules = self._rules.idle()
        leases = self._signals.leases()
        self._watches = {
            lease_id: observe_server(
                self._watches.get(lease_id, ServerWatch()),
                self._signals.read(lease),
                rules,
            )
            for lease_id, lease in leases.items()
        }
        wanted = self._who_gives_way(leases)
        self.servers = {
            lease_id: Judged(
                lease=lease,
                watch=self._watches[lease_id],
                decision=decide_server(
                    self._watches[lease_id],
                    rules,
                    self._clock(),
                    wanted=lease_id in wanted,
                    noticed_at=self._monitor.notices.given_at(subject_of(lease)),
                ),
                refusal=wanted.get(lease_id),
            )
            for lease_id, lease in leases.items()
        }

    def _who_gives_way(self, leases: Mapping[str, Lease]) -> Mapping[str, Refusal]:
        """Return whose share is wanted, and by whom: the longest idle give way first.

        Those whose attendees have been told come before them, so that nobody is told
        in vain.
        """
        now, rules = self._clock(), self._rules.idle()
        candidates = [
            lease_id
            for lease_id, watch in self._watches.items()
            if now >= self._hub_pause.until
            and is_nearly_due(watch, rules)
            and lease_id not in self._ends.under_way
            and self._pauses.get(lease_id, Pause()).until <= now
        ]
        given_at = self._monitor.notices.given_at
        candidates.sort(
            key=lambda lease_id: (
                given_at(subject_of(leases[lease_id])) is None,
                self._watches[lease_id].idle_since,
            )
        )
        return who_gives_way(
            self._signals.refusals(),
            candidates,
            [
                x
                for x in self._monitor.snapshot.leases
                if x.id not in self._ends.under_way
            ],
            inventory=self._monitor.snapshot.inventory,
            uses=self._monitor.device_uses,
            rules=self._rules.placement(),
            drained=self._monitor.snapshot.drained,
            served=self._served,
        )

    def _forget(self) -> None:
        """Keep nothing about servers that are gone and idle spells that ended."""
        self._served &= set(self._signals.refusals())
        self._pauses = {k: v for k, v in self._pauses.items() if k in self.servers}
        self._said = {
            lease_id: since
            for lease_id, since in self._said.items()
            if lease_id in self.servers
            and self.servers[lease_id].watch.idle_since == since
        }
        told = [
            judged.lease
            for judged in self.servers.values()
            if judged.decision.acts_at is not None
            and not self._why_not_act()
            # Of a dry run nobody is told, nor held to what was told before it.
            and not self._rules.idle().dry_run
        ]
        ending = self._ends.under_way.values()
        self._monitor.notices.keep_only(
            NoticeKind.SERVER_IDLE, {subject_of(lease) for lease in (*told, *ending)}
        )

    async def _ask(self) -> None:
        readings = {
            lease_id: watch.reading
            for lease_id, watch in self._watches.items()
            if watch.reading is not None and lease_id not in self._ends.under_way
        }
        to_be_asked = self._signals.to_be_asked(readings, self._rules.idle())
        await self._signals.ask([self.servers[x].lease for x in to_be_asked])

    async def _give_notices(self) -> None:
        """Tell each attendee whose server's time is nearly up, once."""
        for judged in self.servers.values():
            decision = judged.decision
            if decision.kind is ServerDecisionKind.NOTICE and decision.acts_at:
                await self._teller.announce(judged, decision.acts_at - self._clock())

    def _due(self) -> list[str]:
        return [
            lease_id
            for lease_id, judged in self.servers.items()
            if judged.decision.kind is ServerDecisionKind.STOP
            and lease_id not in self._ends.under_way
        ]

    async def _say(self, judged: Judged) -> None:
        """Say what would be done, once in an idle spell."""
        lease_id, since = judged.lease.id, judged.watch.idle_since
        if since is not None and lease_id not in self._said:
            self._said[lease_id] = since
            await self._teller.record(
                EventKind.SERVER_STOP_WOULD, judged, judged.decision.reason
            )

    async def _look_again_and_stop(self, due: list[str]) -> None:
        """Read everything once more; what is due then, in the same spell, is ended."""
        before = {lease_id: self.servers[lease_id] for lease_id in due}
        looked_at = time.monotonic()
        await self._monitor.tick()
        self._seen_rounds = self._monitor.rounds
        await self._signals.ask([judged.lease for judged in before.values()])
        self._look()
        if self._rules.idle().dry_run or self._why_not_act():
            return
        still_due = self._due()
        for lease_id, judged in before.items():
            now = self.servers.get(lease_id)
            if (
                now is not None
                and lease_id in still_due
                and now.watch.idle_since == judged.watch.idle_since
            ):
                self._begin(now, looked_at)
            else:
                why = now.decision.reason if now is not None else "It has ended."
                _LOG.info("The server of %s is kept: %s", judged.lease.owner, why)

    def _begin(self, judged: Judged, looked_at: float) -> None:
        self._ends.begin(
            judged.lease,
            self._stop(judged, looked_at),
            lambda: self._pause(judged.lease),
        )

    def _pause(self, lease: Lease) -> float:
        return self._pauses.setdefault(lease.id, Pause()).lengthen(self._clock())

    async def _stop(self, judged: Judged, looked_at: float) -> None:
        lease = judged.lease
        if judged.refusal is not None:
            self._served.add(judged.refusal)
        window_seconds = time.monotonic() - looked_at
        try:
            why_not = await self._ends.stop(lease)
        except HubError as error:
            if judged.refusal is not None:
                self._served.discard(judged.refusal)
            # It is not this server that is in the way: none can be stopped now.
            seconds = self._hub_pause.lengthen(self._clock())
            await self._failed(judged, f"It was not stopped: {error}.", seconds)
            return
        self._hub_pause = Pause()
        if why_not:
            await self._failed(judged, why_not, self._pause(lease))
            return
        await self._teller.stopped(judged, window_seconds)

    async def _failed(self, judged: Judged, why: str, pause_seconds: float) -> None:
        await self._teller.record(
            EventKind.SERVER_STOP_FAILED,
            judged,
            f"{why} It is tried again in {pause_seconds:.0f} s, if it is idle then.",
        )
