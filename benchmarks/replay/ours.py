"""The service in a simulated workshop: its own classes, driven in simulated time.

Owns how the service is put together here; all that decides and acts is the service's.
"""

import asyncio
import json
import logging
import random
from dataclasses import dataclass
from typing import cast

from jupyterhub_gpuworkshop.core.wire import Event, Refusal, Report
from jupyterhub_gpuworkshop.service.acting import Actor
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.host import Gpus, Host
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.notices import Notices
from jupyterhub_gpuworkshop.service.reaper import Reaper
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.servers import Servers
from jupyterhub_gpuworkshop.service.telling import Teller

from .driver import Clock, Driver
from .edges import EPOCH_SECONDS, LiveServers, Machine, info_of, lease_of
from .room import Room

_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 10.0
"""As rarely as the workshop file allows: it sees least then."""
_WORKSHOP = json.dumps({"monitor": {"interval": f"{INTERVAL_SECONDS:.0f}s"}})
_TICK_IS_LATE = 1 / 200
_MOST_EVENTS = 10_000


def make_rules() -> Rules:
    """Return the rules of a workshop file that says how often to look, and no more."""
    return Rules(_WORKSHOP, _LOG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """What came of it.

    Attributes:
        rounds: how many snapshots there were.
        events: what the history says.
    """

    rounds: int
    events: tuple[Event, ...]


class _Service:
    """The service, as `service.app` puts it together, on a room."""

    def __init__(self, room: Room, seed: int, clock: Clock) -> None:
        self._room = room
        self._clock = clock
        self.dice = random.Random(seed)  # noqa: S311  # to be the same again
        # In one workshop of ten the driver cannot be read for a moment.
        fails_at = self.dice.uniform(0, 10) * room.workshop.seconds
        driver = Driver(room, self.dice, clock, fails_at)
        # The stand-ins have what is called of these, and nothing of what they touch.
        host = cast(Host, Machine(room, clock))
        live_servers = LiveServers(room, self.dice, clock)
        servers = cast(Servers, live_servers)
        rules, self.history = make_rules(), History(None, keep=_MOST_EVENTS)
        self.link = Link(INTERVAL_SECONDS, clock)
        gpus = Gpus("replay", driver, pause_seconds=10.0, clock=clock)
        self.monitor = Monitor(
            gpus,
            host,
            servers,
            self.link,
            rules,
            self.history,
            notices=Notices(clock=clock, wall=self._wall),
            clock=clock,
            wall=self._wall,
        )
        self.actor = Actor(
            self.monitor,
            host,
            servers,
            Teller(self.monitor.notices, self.history, wall=self._wall),
            rules,
            is_at_rest=live_servers.is_at_rest,
            clock=clock,
        )
        self.reaper = Reaper(self.monitor, self.actor, rules, clock=clock)

    def _wall(self) -> float:
        return EPOCH_SECONDS + self._clock()

    def report(self) -> Report:
        """Return what the hub says now."""
        at = self._clock()
        servers = tuple(self._room.running(at))
        waiting = Refusal(user="latecomer", server="", share="1/10", at=self._wall())
        return Report(
            hub_id="hub",
            sent_at=self._wall(),
            leases=tuple(lease_of(server) for server in servers),
            servers=tuple(info_of(server) for server in servers),
            refusals=(waiting,) if self._room.truth.is_needed(at) else (),
        )

    async def look(self) -> None:
        """Look again and again until the workshop is over."""
        while self._clock() < self._room.workshop.seconds:
            began = self._clock()
            if self.dice.random() < _TICK_IS_LATE:
                await asyncio.sleep(self.dice.uniform(2, 20))
            await self.monitor.exchange(self.report())
            await self.monitor.tick()
            await asyncio.sleep(max(0.0, began + INTERVAL_SECONDS - self._clock()))

    async def reclaim(self) -> None:
        """Carry out what follows, for ever."""
        while True:
            await self.reaper.step()


async def replay_ours(room: Room) -> Ours:
    """Let the service rule a room until the workshop is over.

    Needs `simulated_time.SimulatedLoop`.
    """
    clock = asyncio.get_running_loop().time
    service = _Service(room, room.workshop.seed, clock)
    await service.history.open()
    reclaiming = asyncio.ensure_future(service.reclaim())
    looking = asyncio.ensure_future(service.look())
    try:
        # Whichever fails ends the replay.
        await asyncio.wait((looking, reclaiming), return_when=asyncio.FIRST_COMPLETED)
        for task in (looking, reclaiming):
            if task.done():
                task.result()
    finally:
        looking.cancel()
        reclaiming.cancel()
        await asyncio.gather(looking, reclaiming, return_exceptions=True)
        await service.actor.close()
        await service.monitor.close()
    recorded = service.history.after(0, _MOST_EVENTS, None)
    return Ours(
        rounds=service.monitor.rounds, events=tuple(each.event for each in recorded)
    )
