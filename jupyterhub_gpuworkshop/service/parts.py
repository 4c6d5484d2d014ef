"""What the service is made of, and how its parts hang together.

Owns which part gets which other, the loops that keep them going, and the order in
which they are let go of. When the process starts, listens and ends is `app`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jupyterhub_gpuworkshop.machine.limits import CgroupLimits
from jupyterhub_gpuworkshop.machine.parking import open_parker

from .acting import Actor
from .acts import Acts
from .announcement import Announcing
from .asked_acts import AskedActs
from .credentials import cookie_secret, hub_auth
from .dashboard.feed import Feed
from .dashboard.messages import Messages
from .ending import Endings
from .exchange import Exchange
from .history import History
from .host import Gpus, Host
from .kept import STATE_FILE, Kept
from .kernel_notes import KernelNotes
from .limits import HardCaps
from .link import Link
from .locked import LockedOut
from .loops import forever
from .lost_devices import LostDevices
from .monitor import Monitor
from .only_one import OnlyOne
from .parking.moving import Mover
from .parking.parked import Parking
from .parking.returning import Returns
from .pulse import PULSE_SECONDS, Pulses
from .reaper import Reaper
from .sampler import ChildSampler, sampler_command
from .servers import Servers
from .stopping.making import stopping
from .telling import Teller
from .usage import Usage
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .app import GpuService

_HISTORY_FILE = "history.sqlite"
_DAY_SECONDS = 86_400.0
_LISTEN_EVERY_SECONDS = 1.0


class Parts:
    """Everything that runs in the service.

    Args:
        service: whose settings hold.
    """

    def __init__(self, service: "GpuService") -> None:
        self.rules = service.rules
        workshop, folder = self.rules.workshop, Path(service.state_dir)
        gpus = workshop.gpus
        self._log = service.log
        self.auth = hub_auth(service)
        self.cookie_secret = cookie_secret(folder)
        self.history = History(
            folder / _HISTORY_FILE,
            keep_seconds=workshop.history.keep_days * _DAY_SECONDS,
        )
        self.kept = Kept(folder / STATE_FILE)
        # Who was it until now may have written since this one has read.
        self.only_one = OnlyOne(folder, self.kept.open)
        self.notes = KernelNotes()
        self.servers = Servers(workshop.monitor.timeout)
        self.link = Link(service.report_seconds)
        self.hard_caps = HardCaps(
            self.link, CgroupLimits() if gpus.source == "nvml" else None
        )
        self.gpus = Gpus(
            gpus.source,
            ChildSampler(sampler_command(gpus.source, gpus.simulated_dir)),
            pause_seconds=workshop.monitor.interval,
        )
        self.pulses = Pulses(self.gpus)
        self.usage = Usage(self.pulses, self.history)
        self.host = Host()
        self.monitor = Monitor(
            self.gpus,
            self.host,
            self.servers,
            self.link,
            self.rules,
            self.history,
            kept=self.kept,
            hard_caps=lambda: self.hard_caps.caps,
            why_not_act=self.only_one.why_not,
        )
        self._build_what_acts(service.parent_pid)
        self._build_feed()

    def _build_what_acts(self, parent_pid: int) -> None:
        why_not_act = self.only_one.why_not
        self.actor = Actor(
            self.monitor,
            self.host,
            self.servers,
            Teller(self.monitor.notices, self.history, leave_note=self.notes.add),
            self.rules,
        )
        self.reaper = Reaper(
            self.monitor, self.actor, self.rules, why_not_act=why_not_act
        )
        self.watchdog = Watchdog(
            self.monitor,
            self.actor,
            self.rules,
            self.history,
            why_not_act=why_not_act,
        )
        self._build_parking()
        self.stopping = stopping(self)
        self.monitor.server_verdicts = self.stopping.idle.verdicts
        self.asked = AskedActs(
            self.monitor, self.actor, self.history, why_not_act=why_not_act
        )
        self.endings = Endings(
            self.monitor, self.history, spared={parent_pid}, why_not_act=why_not_act
        )
        self.acts = Acts(
            self.monitor, self.rules, self.history, why_not_act=why_not_act
        )
        self.lost_devices = LostDevices(self.monitor, self.history)
        self._build_what_the_hub_does()

    def _build_what_the_hub_does(self) -> None:
        why_not_act = self.only_one.why_not
        self.announcing = Announcing(
            self.kept, self.history, self.link, why_not_act=why_not_act
        )
        self.locked_out = LockedOut(
            self.link, self.kept, self.history, why_not_act=why_not_act
        )
        self.exchange = Exchange(self.monitor, self.announcing, self.locked_out)

    def _build_feed(self) -> None:
        messages = Messages(
            self.monitor,
            self.pulses,
            self.history,
            self.rules,
            locked=lambda: self.locked_out.locked,
            announcement=lambda: self.announcing.announcement,
        )
        self.feed = Feed(messages, self.monitor, self.pulses)

    def _build_parking(self) -> None:
        gpus = self.rules.workshop.gpus
        mover = Mover(open_parker(gpus.source, simulated_dir=gpus.simulated_dir))
        parking = Parking(mover, self.kept, self.rules, lambda: self.gpus.inventory)
        self.returns = Returns(
            parking,
            mover,
            self.monitor,
            self.actor,
            self.servers,
            self.gpus,
            self.host,
            self.link,
            self.rules,
            why_not_act=self.only_one.why_not,
        )
        self.actor.parks = parking
        self.monitor.watching.parked = parking.of
        self.monitor.watching.why_not_park = parking.why_not

    async def run(self) -> None:
        """Keep everything going, for ever."""
        await self.history.open()

        def loop(
            name: str, step: Callable[[], Awaitable[None]], seconds: float
        ) -> Awaitable[None]:
            return forever(name, step, interval_seconds=seconds, log=self._log)

        interval_seconds = self.rules.workshop.monitor.interval
        await asyncio.gather(
            loop("Looking", self.monitor.tick, interval_seconds),
            loop("Glancing", self.pulses.step, PULSE_SECONDS),
            loop("Remembering usage", self.usage.step, 0.0),
            loop("Writing usage", self.usage.write_when_due, 0.0),
            loop("Setting hard limits", self.hard_caps.step, interval_seconds),
            loop("Being the only one", self.be_the_only_one, interval_seconds),
            loop("Taking memory back", self.reaper.step, 0.0),
            loop("Bringing kernels back", self.returns.step, _LISTEN_EVERY_SECONDS),
            loop("Watching over shares", self.watchdog.step, 0.0),
            loop("Stopping idle servers", self.stopping.idle.step, 0.0),
            loop("Watching for lost GPUs", self.lost_devices.step, 0.0),
            loop("Ending announcements", self.announcing.step, _LISTEN_EVERY_SECONDS),
            loop("Giving up unlocks", self.locked_out.step, _LISTEN_EVERY_SECONDS),
            loop("Leaving notes", self._leave_notes, interval_seconds),
        )

    async def be_the_only_one(self) -> None:
        """Become the one that acts, where no other is; then read what was kept."""
        await self.only_one.step()
        if self.only_one.is_held and not self.kept.is_read:
            await self.kept.open()

    async def close(self) -> None:
        """Let go of everything: first of what acts, last of what it is read from."""
        await self.feed.close()
        await self.actor.close()
        await self.endings.close()
        await self.returns.close()
        await self.stopping.close()
        await self.notes.close()
        await self.monitor.close()
        await self.pulses.close()
        await self.gpus.close()
        await self.usage.close()
        await self.history.flush()
        self.servers.close()

    async def _leave_notes(self) -> None:
        self.notes.step(self.monitor.answers)
