"""Samples, processes and kernels, joined to one picture."""

import asyncio
import threading
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import SourceLost, SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import HolderKind, KernelState
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource
from jupyterhub_gpuworkshop.service.host import Gpus
from jupyterhub_gpuworkshop.service.sampler import InThread
from jupyterhub_gpuworkshop.service.web.asked import memory_answer
from jupyterhub_gpuworkshop.service.web.auth import Viewer
from jupyterhub_gpuworkshop.service.web.views import snapshot_view

from .attendee_server import AttendeeServer
from .world import BLINDNESS, World


async def test_memory_in_a_kernel_is_that_kernels_and_its_leases(world):
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("2GiB"))')
    world.attendee.sessions = [{"path": "work.ipynb", "kernel": {"id": kernel_id}}]
    snapshot = await world.look()
    (holder,) = snapshot.holders
    assert holder.kind is HolderKind.KERNEL
    assert (holder.user, holder.kernel_id) == ("ada", kernel_id)
    assert holder.memory_bytes == 2 * GIB
    (kernel,) = snapshot.kernels
    assert kernel.process.pid == world.attendee.kernels[kernel_id].process.pid
    assert (kernel.notebook, kernel.state) == ("work.ipynb", KernelState.IDLE)
    assert kernel.memory_bytes == 2 * GIB
    (use,) = snapshot.uses
    assert use.memory_bytes == {world.devices[0].uuid: 2 * GIB}
    assert snapshot.problems == ()


@pytest.mark.parametrize("to", BLINDNESS)
async def test_what_cannot_be_read_is_unknown_and_no_zero(world, to):
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("2GiB"))')
    organiser = Viewer(name="olga", attendee=None)
    (known,) = snapshot_view(await world.look(), organiser, 0.0)["leases"]
    assert known["memory_used_bytes"] == 2 * GIB

    world.blind(to)
    snapshot = await world.look()
    assert snapshot.uses[0].unknown == {world.devices[0].uuid}
    seen = snapshot_view(snapshot, organiser, 0.0)
    (lease,), (kernel,) = seen["leases"], seen["kernels"]
    assert lease["memory_used_bytes"] is None
    assert lease["devices"][0]["memory_used_bytes"] is None
    assert lease["devices"][0]["over_bytes"] is None
    assert kernel["memory_bytes"] is None
    assert kernel["peak_memory_bytes"] == 2 * GIB
    memory = memory_answer(snapshot, world.devices[0], organiser)
    assert memory["others_bytes"] is None
    assert memory["unexplained_bytes"] is None


async def test_peaks_stay_when_the_memory_is_free_again(world):
    kernel_id = world.attendee.start_kernel()
    kernel = world.attendee.kernels[kernel_id]
    kernel.run('held.append(simcuda.allocate("2GiB"))')
    await world.look()
    kernel.run("held.pop().free()")
    snapshot = await world.look()
    assert snapshot.kernels[0].memory_bytes == 0
    assert snapshot.kernels[0].peak_memory_bytes == 2 * GIB
    assert snapshot.uses[0].peak_memory_bytes == 2 * GIB
    assert world.history.peak_bytes("lease-ada") == 2 * GIB


async def test_the_hub_gets_inventory_use_and_who_is_in_the_way(world, tmp_path):
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("2GiB"))')
    stranger = AttendeeServer(world.simulation, devices=world.devices[1].uuid).start()
    other = stranger.start_kernel()
    stranger.kernels[other].run('held.append(simcuda.allocate("5GiB"))')
    # Nobody anchors the stranger's process once the hub reports no server above it.
    world.report = replace(world.report, servers=())
    await world.look()
    reply = await world.monitor.exchange(world.report)
    await stranger.stop()
    assert reply.inventory.devices == world.devices
    first, second = reply.uses
    assert first.free_bytes == 14 * GIB
    ((who, held_bytes),) = second.in_the_way
    assert held_bytes == 5 * GIB
    pid = stranger.kernels[other].process.pid
    assert who.startswith("a process outside the hub: python")
    assert f"(pid {pid}, user " in who


async def test_a_server_that_answers_no_more_leaves_its_kernels_unknown(world):
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("2GiB"))')
    await world.look(times=3)
    assert world.monitor.snapshot.kernels[0].idle_seconds is not None
    world.attendee.answers["api/kernels"] = (500, b"")
    snapshot = await world.look()
    (kernel,) = snapshot.kernels
    assert kernel.state is KernelState.UNKNOWN
    assert kernel.idle_seconds is None
    # What Linux vouches for does not hang on the server's answer.
    assert snapshot.holders[0].kernel_id == kernel_id
    assert "The server of ada is unknown" in snapshot.problems[0]


async def test_a_server_that_is_slow_now_and_then_keeps_nobodys_kernel_alive(world):
    # Everybody's round waits for it: what counts is when the processes were read.
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run('held.append(simcuda.allocate("2GiB"))')
    read, poll = world.monitor._host.processes, world.servers.poll
    were_read = asyncio.Event()
    slow = [0.0, 0.0, 4.9, 0.0, 4.9, 0.0]

    async def working(samples, servers):
        """Read processes of which each uses 40 % of a core."""
        found = await read(samples, servers)
        used = 0.4 * world.clock.now
        facts = {p: replace(f, cpu_seconds=used) for p, f in found.facts.items()}
        were_read.set()
        return replace(found, facts=facts)

    async def slowly(servers):
        answers = await poll(servers)
        await were_read.wait()
        were_read.clear()
        world.clock.now += slow.pop(0)
        return answers

    world.monitor._host.processes, world.servers.poll = working, slowly
    await world.look(times=2)
    while slow:
        await world.look(seconds=0.1)
        (watched,) = world.monitor.kernels.values()
        assert watched.watch.idle_seconds, watched.watch.why_not
        assert watched.watch.cpu <= 0.4


async def test_a_hub_that_is_silent_is_told_and_soon_leaves_servers_unknown(world):
    world.attendee.start_kernel()
    await world.look()
    world.clock.now += 16
    await world.monitor.tick()
    assert "silent for 16 s" in world.monitor.snapshot.problems[0]
    assert len(world.monitor.snapshot.kernels) == 1
    world.clock.now += 60
    await world.monitor.tick()
    assert world.monitor.snapshot.kernels == ()
    assert world.monitor.snapshot.leases == world.report.leases
    assert "nothing is reclaimed" in world.monitor.snapshot.problems[0]


async def test_memory_is_needed_once_somebody_was_refused(world):
    assert not (await world.look()).needed
    world.refuse_somebody()
    assert (await world.look()).needed


async def test_rounds_asked_for_at_the_same_time_are_one(world):
    await world.look()
    rounds = world.monitor.rounds
    first = world.monitor.tick()
    second = world.monitor.tick()
    await first
    await second
    assert world.monitor.rounds <= rounds + 2


class Scripted:
    """A source that does what a list says, then what a real one does."""

    def __init__(self, folder, *script):
        self._real = SimulatedSource(folder)
        self.script = list(script)
        self.closed = 0

    def inventory(self):
        return self._real.inventory()

    def sample(self):
        if self.script:
            self.script.pop(0)()
        return self._real.sample()

    def close(self):
        self.closed += 1


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    "error",
    [
        SourceLost("The driver is gone."),
        SourceUnavailable("No driver."),
        ZeroDivisionError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_devices_that_cannot_be_read_are_unknown_and_tried_again(tmp_path, error):
    source = Scripted(tmp_path / "gpus")
    world = await World(tmp_path, source=source).open()
    await world.look()
    known = (await world.monitor.exchange(world.report)).uses
    source.script.append(raising(error))
    snapshot = await world.look()
    assert snapshot.samples == ()
    assert len(snapshot.problems) == 1
    reply = await world.monitor.exchange(world.report)
    assert reply.inventory.devices == world.devices
    assert reply.uses == known
    snapshot = await world.look()
    assert len(snapshot.samples) == 2
    assert source.closed == isinstance(error, SourceLost)
    await world.close()


async def test_a_driver_that_hangs_makes_devices_unknown_and_holds_up_nothing(
    tmp_path,
):
    gate = threading.Event()
    calls = []

    def hang():
        calls.append(1)
        gate.wait(60)

    source = Scripted(tmp_path / "gpus", hang)
    world = World(tmp_path)
    world.monitor._gpus = Gpus(
        "simulated",
        InThread(lambda: source, timeout_seconds=0.05),
        pause_seconds=5,
        clock=world.clock,
    )
    await world.open()
    for _ in range(3):
        snapshot = await world.look()
        assert "The GPU driver has not answered" in snapshot.problems[0]
    assert calls == [1]
    threads = [t for t in threading.enumerate() if "GPU driver" in t.name]
    assert all(thread.daemon for thread in threads)
    gate.set()
    while not snapshot.samples:
        snapshot = await world.look()
    assert snapshot.problems == ()
    await world.close()


async def test_pauses_between_attempts_grow_and_end(tmp_path):
    attempts = []

    def absent():
        attempts.append(1)
        raise SourceUnavailable("There is no driver.")

    world = World(tmp_path)
    world.monitor._gpus = Gpus(
        "nvml", InThread(absent), pause_seconds=5, clock=world.clock
    )
    await world.open()
    await world.look(seconds=5, times=120)
    assert 10 <= len(attempts) <= 16
    reply = await world.monitor.exchange(world.report)
    assert reply.inventory.problem == "There is no driver."
    assert reply.inventory.source == "nvml"
    await world.close()
