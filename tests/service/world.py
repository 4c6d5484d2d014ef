"""A whole service without its process: real parts around one simulated machine."""

import json
import logging
from dataclasses import dataclass, replace

from jupyterhub_gpuworkshop.core.errors import SourceLost
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import Refusal, Report
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.service.acting import Actor
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.host import Gpus, Host
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, Kept
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.reaper import Reaper
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.sampler import InThread
from jupyterhub_gpuworkshop.service.servers import Servers
from jupyterhub_gpuworkshop.service.telling import Teller

from .attendee_server import AttendeeServer

LOG = logging.getLogger("test")
RULES = {
    "idle": {
        "needed_after": "20s",
        "after": "60s",
        "min_memory": "256MiB",
        "max_cpu": 1.0,
        "notice": "0s",
    },
    "monitor": {"interval": "5s", "timeout": "30s"},
}


@dataclass
class Clock:
    """Monotonic seconds: next to none pass but when the test says so."""

    now: float = 1000.0

    def __call__(self):
        self.now += 0.001
        return self.now


BLINDNESS = ("driver", "lists", "sizes", "/proc")
"""The driver as a whole, its lists of processes, what each of these holds; whose they
are."""


def _unsized(processes):
    return tuple(replace(x, memory_bytes=None) for x in processes or ())


class World:
    """One attendee on one of two simulated GPUs of 16 GiB, watched."""

    def __init__(self, folder, rules=RULES, source=None):
        self.simulation = folder / "gpus"
        self.at_rest = True
        self.notes = []
        self.devices = create_devices(self.simulation, 2, 16 * GIB, seed=1)
        self.clock = Clock()
        self.attendee = AttendeeServer(
            self.simulation, devices=self.devices[0].uuid
        ).start()
        self.rules = Rules(json.dumps(rules), LOG)
        self.history = History(folder / "history.sqlite")
        self.servers = Servers(30)
        self.kept = Kept(folder / STATE_FILE)
        self.link = Link(5, self.clock)
        host = self.host = Host()
        self.gpus = Gpus(
            "simulated",
            InThread(lambda: source or SimulatedSource(self.simulation)),
            pause_seconds=5,
            clock=self.clock,
        )
        self.monitor = Monitor(
            self.gpus,
            host,
            self.servers,
            self.link,
            self.rules,
            self.history,
            kept=self.kept,
            clock=self.clock,
        )
        self.actor = Actor(
            self.monitor,
            host,
            self.servers,
            Teller(
                self.monitor.notices,
                self.history,
                leave_note=lambda server, kernel_id, text: self.notes.append(text),
            ),
            self.rules,
            is_at_rest=self.is_at_rest,
            clock=self.clock,
        )
        self.reaper = Reaper(self.monitor, self.actor, self.rules, clock=self.clock)
        self.report = Report(
            hub_id="hub",
            sent_at=0.0,
            leases=(self.lease("ada"),),
            servers=(self.attendee.info,),
        )

    def lease(self, user, device=0, memory_bytes=3 * GIB):
        device = self.devices[device]
        return Lease(
            id=f"lease-{user}",
            user=user,
            server="",
            share="1/5",
            granted_at=1.0,
            devices=(
                LeasedDevice(
                    uuid=device.uuid,
                    label=device.label,
                    memory_bytes=memory_bytes,
                    total_bytes=device.memory_bytes,
                ),
            ),
        )

    async def is_at_rest(self, server, kernel_id):
        """Answer for the kernel's main thread."""
        return self.at_rest

    def blind(self, to):
        """Have the service read one thing no more, of `BLINDNESS`; return the cure."""
        sees = self.monitor._host if to == "/proc" else self.monitor._gpus
        name = "processes" if to == "/proc" else "sample"
        read = getattr(sees, name)

        async def unread(*_):
            if to == "/proc":
                raise OSError("no /proc")
            if to == "driver":
                raise SourceLost("It is gone.")
            samples = await read()
            if to == "lists":
                return tuple(replace(x, processes=None) for x in samples)
            return tuple(replace(x, processes=_unsized(x.processes)) for x in samples)

        setattr(sees, name, unread)
        return lambda: setattr(sees, name, read)

    def refuse_somebody(self):
        """Make memory needed."""
        refusal = Refusal(user="eve", server="", share="1/5", at=1.0)
        self.report = replace(self.report, refusals=(refusal,))

    async def open(self):
        """Begin."""
        await self.history.open()
        await self.kept.open()
        return self

    async def look(self, seconds=5.0, times=1):
        """Let time pass and the monitor look, again and again."""
        for _ in range(times):
            self.clock.now += seconds
            self.link.hear(self.report)
            await self.monitor.tick()
        return self.monitor.snapshot

    async def reap(self):
        """Let the reaper see the last snapshot, and wait for what it does."""
        self.reaper._seen_rounds = self.monitor.rounds - 1
        await self.reaper.step()
        while self.actor._acting:
            await self.look(0.5)

    def events(self):
        """Return what is in the history."""
        return [recorded.event for recorded in self.history.after(0, 1000, None)]

    async def close(self):
        """End what runs."""
        await self.actor.close()
        await self.monitor.close()
        await self.attendee.stop()
        self.servers.close()
