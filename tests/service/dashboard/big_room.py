"""A room of any size, its snapshots made by hand, and the feed of it."""

import asyncio
import logging
from dataclasses import replace

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Glance,
    Holder,
    HolderKind,
    KernelState,
    KernelView,
    LeaseUse,
    ProcessId,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.service.dashboard.feed import Feed, Seat, View, shown_to
from jupyterhub_gpuworkshop.service.dashboard.messages import Messages
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.pulse import Pulse, Pulses
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.web.auth import Viewer

KERNELS_EACH = 3


def picture(attendees, devices, at=1000.0):
    """Return a snapshot of attendees with three idle kernels each, one on a GPU."""
    inventory = Inventory(
        devices=tuple(
            Device(uuid=f"GPU-{n}", label=str(n), name="H100", memory_bytes=80 * GIB)
            for n in range(devices)
        )
    )
    return Snapshot(
        taken_at=at,
        inventory=inventory,
        samples=tuple(
            DeviceSample(
                uuid=f"GPU-{n}",
                memory_total_bytes=80 * GIB,
                memory_used_bytes=37 * GIB,
                memory_free_bytes=43 * GIB,
            )
            for n in range(devices)
        ),
        leases=tuple(_lease(f"user-{n}", n % devices) for n in range(attendees)),
        uses=tuple(
            LeaseUse(
                lease_id=f"lease-user-{n}", memory_bytes={f"GPU-{n % devices}": GIB}
            )
            for n in range(attendees)
        ),
        holders=tuple(_holder(n, n % devices) for n in range(attendees)),
        kernels=tuple(
            kernel(f"user-{n}", k, idle_seconds=60.0)
            for n in range(attendees)
            for k in range(KERNELS_EACH)
        ),
    )


def later(snapshot, seconds):
    """Return the same room some seconds later, in which nobody has done anything."""
    return replace(
        snapshot,
        taken_at=snapshot.taken_at + seconds,
        kernels=tuple(
            replace(
                x,
                idle_seconds=x.idle_seconds + seconds,
                age_seconds=x.age_seconds + seconds,
                verdict=f"Idle for {round(x.idle_seconds + seconds)} s of 20 min.",
            )
            for x in snapshot.kernels
        ),
    )


def kernel(user, number, **more):
    """Return a kernel of theirs."""
    return KernelView(
        lease_id=f"lease-{user}",
        user=user,
        server="",
        kernel_id=f"3f6c1d0e-{user}-{number}",
        notebook=f"material/day-{number}/exercise.ipynb",
        state=KernelState.IDLE,
        connections=1,
        memory_bytes=GIB,
        verdict="Idle for 60 s of 20 min.",
        age_seconds=600.0,
        cpu=0.001,
        **more,
    )


def _lease(user, number):
    part = LeasedDevice(
        uuid=f"GPU-{number}",
        label=str(number),
        memory_bytes=10 * GIB,
        total_bytes=80 * GIB,
    )
    return Lease(
        id=f"lease-{user}",
        user=user,
        server="",
        share="1/8",
        devices=(part,),
        granted_at=1.0,
    )


def _holder(number, device):
    return Holder(
        process=ProcessId(pid=1000 + number, started=5),
        device=f"GPU-{device}",
        memory_bytes=GIB,
        utilisation=0.0,
        kind=HolderKind.KERNEL,
        command="python -m ipykernel_launcher",
        lease_id=f"lease-user-{number}",
        user=f"user-{number}",
        kernel_id=f"3f6c1d0e-user-{number}-0",
    )


class Pipe:
    """The end of a viewer's socket: keeps what it is handed, and drains at will."""

    def __init__(self, answer=None):
        self.messages, self.ended = [], None
        self.is_drained = True
        self.answer, self.asked = answer, 0

    def send(self, message, then=None):
        """Take a message."""
        self.messages.append(message)
        if then is not None:
            then()

    def end(self, code, reason):
        """Close."""
        self.ended = code

    async def ask(self):
        """Answer as the hub does."""
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def take(self):
        """Return what came since the last time, and forget it."""
        taken, self.messages = self.messages, []
        return taken


class BigRoom:
    """A feed whose snapshots and readings a test sets."""

    def __init__(self, snapshot):
        self.now = 1000.0
        log = logging.getLogger("test")
        self.history = History(None)
        self.rules = Rules("{}", log)
        self.monitor = Monitor(
            None, None, None, Link(5), self.rules, self.history, wall=lambda: 5.0
        )
        self.pulses = Pulses(None)
        # A test says itself when the feed is to send.
        self.pulses.newer_than = self.monitor.newer_than = self._never
        self.messages = Messages(self.monitor, self.pulses, self.history, self.rules)
        self.feed = Feed(
            self.messages, self.monitor, self.pulses, clock=lambda: self.now
        )
        self.see(snapshot)
        self.pulse()

    async def _never(self, rounds):
        await asyncio.Event().wait()

    def see(self, snapshot):
        """Publish a snapshot; the feed is not told yet."""
        self.monitor.snapshot = snapshot
        self.monitor.rounds += 1

    def pulse(self):
        """Publish readings; the feed is not told yet."""
        devices = self.monitor.snapshot.inventory.devices
        self.pulses.rounds += 1
        self.pulses.latest = Pulse(
            taken_at=float(self.pulses.rounds),
            readings={
                x.uuid: Glance(
                    uuid=x.uuid,
                    memory_total_bytes=x.memory_bytes,
                    memory_used_bytes=37 * GIB + 12345,
                    memory_free_bytes=GIB,
                    utilisation=0.73,
                    temperature_celsius=64.0,
                    power_watts=412.7,
                )
                for x in devices
            },
        )

    async def tick(self, seconds=1.0):
        """Let a second pass for everybody."""
        self.now += seconds
        self.pulse()
        await self.feed.send_readings()

    async def change(self, snapshot):
        """Let everybody see a snapshot."""
        self.see(snapshot)
        await self.feed.send_changes()

    def sit(self, name, view=View.ATTENDEE, *, organiser=False, **more):
        """Give somebody a seat, and let them begin; return their end."""
        viewer = Viewer(name=name, attendee=None if organiser else name)
        pipe = Pipe(answer=viewer)
        seat = Seat(viewer=shown_to(viewer, view), view=view, outlet=pipe, **more)
        pipe.seat = seat
        if self.feed.take(seat):
            self.feed.begin(seat)
        return pipe

    async def close(self):
        """Let go."""
        await self.feed.close()
