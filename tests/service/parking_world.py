"""A whole service without its process, that parks: real processes, simulated GPUs."""

import asyncio

from jupyterhub_gpuworkshop.machine.simulated_parking import SimulatedParker
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, Kept
from jupyterhub_gpuworkshop.service.parking.moving import Mover
from jupyterhub_gpuworkshop.service.parking.parked import Parking
from jupyterhub_gpuworkshop.service.parking.returning import Returns

from .world import RULES, World

PARK = {
    **RULES,
    "idle": {**RULES["idle"], "action": "park"},
    "parking": {"make_room_after": "10s"},
}


class ParkingWorld(World):
    """A world whose service parks."""

    def __init__(self, folder, rules=PARK, room_bytes=2**60):
        super().__init__(folder, rules)
        self.folder = folder
        self.parker = SimulatedParker(
            self.simulation, lock_seconds=1.0, room_bytes=room_bytes
        )
        self.serve()

    def serve(self):
        """Begin a life of the service, as far as parking goes."""
        mover = Mover(self.parker)
        self.parking = Parking(
            mover,
            self.kept,
            self.rules,
            lambda: self.gpus.inventory,
            clock=self.clock,
        )
        self.returns = Returns(
            self.parking,
            mover,
            self.monitor,
            self.actor,
            self.servers,
            self.gpus,
            self.host,
            self.link,
            self.rules,
            clock=self.clock,
        )
        self.actor.parks = self.parking
        self.monitor.watching.parked = self.parking.of
        self.monitor.watching.why_not_park = self.parking.why_not

    async def serve_anew(self):
        """Have the service killed and started again."""
        await self.returns.close()
        self.kept = self.monitor.kept = Kept(self.folder / STATE_FILE)
        await self.kept.open()
        self.serve()

    async def hold(self, size="2GiB", name="held"):
        """Start a kernel that holds memory."""
        await self.look()
        await self.returns.step()
        kernel_id = self.attendee.start_kernel()
        kernel = self.attendee.kernels[kernel_id]
        kernel.run(f"held.append(simcuda.allocate({size!r}))")
        kernel.run("precious = 42")
        return kernel_id

    async def park(self, kernel_id):
        """Wait until it is idle for long enough, and let it be taken."""
        await self.look(times=15)
        await self.reap()
        return self.attendee.kernels[kernel_id]

    async def step(self, times=1):
        """Let those who bring kernels back take a step, and wait for what they do."""
        for _ in range(times):
            self.clock.now += 1.0
            self.link.hear(self.report)
            await self.returns.step()
            await self.settle()

    async def settle(self):
        while self.returns._moving:
            await asyncio.gather(*self.returns._moving.values())
            await asyncio.sleep(0)

    def used_bytes(self):
        """Return what is used on the first device."""
        return self.monitor.snapshot.samples[0].memory_used_bytes

    def kinds(self):
        return [event.kind for event in self.events()]

    def notices(self, kind):
        return [n for n in self.monitor.notices.standing if n.kind is kind]

    async def close(self):
        await self.returns.close()
        await super().close()
