"""The pulse: once a second, whatever the driver does."""

import asyncio
from types import SimpleNamespace

import pytest

from jupyterhub_gpuworkshop.core.errors import (
    CallHangs,
    SourceLost,
    SourceUnavailable,
)
from jupyterhub_gpuworkshop.core.snapshot import Glance
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.service.host import Gpus
from jupyterhub_gpuworkshop.service.pulse import Pulse, Pulses
from jupyterhub_gpuworkshop.service.sampler import (
    ChildSampler,
    InThread,
    sampler_command,
)
from tests.machine.nvml_double.words import Clock, gpu, only

MEMORY = "nvmlDeviceGetMemoryInfo_v2"


class Held:
    """A real sampler whose answers come when the test lets them."""

    def __init__(self, sampler):
        self._sampler = sampler
        self.free = {kind: asyncio.Event() for kind in ("sample", "glance")}
        self.asked = []
        for event in self.free.values():
            event.set()

    async def inventory(self):
        return await self._sampler.inventory()

    async def sample(self):
        self.asked.append("sample")
        await self.free["sample"].wait()
        return await self._sampler.sample()

    async def glance(self):
        self.asked.append("glance")
        await self.free["glance"].wait()
        return await self._sampler.glance()

    async def close(self):
        await self._sampler.close()


class Broken:
    """A sampler of a driver that can break."""

    def __init__(self, sampler):
        self._sampler = sampler
        self.error = None
        self.glances = self.closed = 0

    async def inventory(self):
        self._raise()
        return await self._sampler.inventory()

    async def sample(self):
        self._raise()
        return await self._sampler.sample()

    async def glance(self):
        self.glances += 1
        self._raise()
        return await self._sampler.glance()

    async def close(self):
        self.closed += 1
        await self._sampler.close()

    def _raise(self):
        if self.error is not None:
            raise self.error


@pytest.fixture
async def simulated(tmp_path):
    create_devices(tmp_path / "gpus", 2, 16 * GIB)
    sampler = InThread(lambda: SimulatedSource(tmp_path / "gpus"))
    yield sampler
    await sampler.close()


def pulses_of(sampler, clock=None, *, patience_seconds=30.0):
    """Return the GPUs and their pulse; it waits for a driver as long as it takes."""
    clock = clock or Clock()
    gpus = Gpus("simulated", sampler, pause_seconds=5, clock=clock)
    return gpus, Pulses(
        gpus, patience_seconds=patience_seconds, clock=clock, wall=lambda: clock.now
    )


async def test_a_pulse_reads_every_device_and_wakes_who_waits(simulated):
    gpus, pulses = pulses_of(simulated)
    assert (pulses.latest, pulses.rounds) == (Pulse(), 0)
    waiting = asyncio.ensure_future(pulses.newer_than(0))
    await gpus.sample()
    await pulses.step()
    await waiting
    assert pulses.latest.taken_at == 1000.0
    readings = pulses.latest.readings
    assert list(readings) == [device.uuid for device in gpus.inventory.devices]
    assert {x.memory_free_bytes for x in readings.values()} == {16 * GIB}


async def test_before_the_first_sample_nothing_is_asked_and_who_waits_is_woken(
    simulated,
):
    sampler = Broken(simulated)
    _, pulses = pulses_of(sampler)
    waiting = asyncio.ensure_future(pulses.newer_than(0))
    await pulses.step()
    await waiting
    assert (pulses.latest, sampler.glances) == (Pulse(), 0)


async def test_a_fault_of_ours_is_no_end_of_the_pulse():
    async def fails():
        raise ValueError("a bug")

    async def works():
        return (
            Glance(
                uuid="GPU-0",
                memory_total_bytes=2,
                memory_used_bytes=1,
                memory_free_bytes=1,
            ),
        )

    gpus, clock = SimpleNamespace(glance=fails), Clock()
    pulses = Pulses(gpus, patience_seconds=30, clock=clock, wall=lambda: clock.now)
    with pytest.raises(ValueError, match="a bug"):
        await pulses.step()
    assert (pulses.latest.readings, pulses.rounds) == ({}, 1)
    gpus.glance = works
    await pulses.step()
    assert (list(pulses.latest.readings), pulses.rounds) == (["GPU-0"], 2)


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailable("no driver"),
        SourceLost("driver gone"),
        CallHangs("hangs"),
        ValueError("a bug"),
    ],
)
async def test_a_broken_driver_is_told_at_once_and_left_in_peace_as_by_samples(
    simulated, error
):
    sampler, clock = Broken(simulated), Clock()
    gpus, pulses = pulses_of(sampler, clock)
    await gpus.sample()
    await pulses.step()
    seen, sampler.error = pulses.latest, error
    clock.now += 1
    await pulses.step()
    assert pulses.latest == Pulse(taken_at=seen.taken_at)
    assert sampler.closed == isinstance(error, SourceLost)
    sampler.error = None
    # The back-off of the sample: it looks first, and only then the pulse does.
    with pytest.raises(SourceUnavailable):
        await gpus.sample()
    clock.now += 6
    asked, rounds = sampler.glances, pulses.rounds
    await pulses.step()
    assert (sampler.glances, pulses.rounds) == (asked, rounds + 1)
    assert not pulses.latest.readings
    await gpus.sample()
    await pulses.step()
    assert len(pulses.latest.readings) == 2


async def test_a_failing_sample_stops_the_glances_and_they_mend_no_back_off(simulated):
    sampler, clock = Broken(simulated), Clock()
    gpus, pulses = pulses_of(sampler, clock)
    await gpus.sample()
    sampler.error = SourceUnavailable("no driver")
    waits = []
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            await gpus.sample()
        waits.append(gpus._retry_at - clock.now)
        sampler.error = None
        await pulses.step()
        sampler.error = SourceUnavailable("no driver")
        clock.now = gpus._retry_at
    assert waits == [5, 10, 20]
    assert sampler.glances == 0


async def test_a_glance_waits_for_a_sample_and_the_pulse_goes_on(simulated):
    sampler, clock = Held(simulated), Clock()
    gpus, pulses = pulses_of(sampler, clock, patience_seconds=0.0)
    await gpus.sample()
    while not pulses.latest.readings:
        await pulses.step()
    seen, sampler.asked = pulses.latest, []
    sampler.free["sample"].clear()
    sampling = asyncio.ensure_future(gpus.sample())
    await asyncio.sleep(0)
    rounds = pulses.rounds
    await pulses.step()
    assert pulses.latest is seen
    clock.now += 2
    await pulses.step()
    assert pulses.latest is seen
    clock.now += 2
    await pulses.step()
    assert pulses.latest == Pulse(taken_at=seen.taken_at)
    assert pulses.rounds == rounds + 3
    assert sampler.asked == ["sample"]
    sampler.free["sample"].set()
    await sampling
    while not pulses.latest.readings:
        await pulses.step()
    assert sampler.asked == ["sample", "glance"]


async def test_a_glance_that_hangs_has_no_second_one_beside_it(simulated):
    sampler = Held(simulated)
    gpus, pulses = pulses_of(sampler, patience_seconds=0.0)
    await gpus.sample()
    sampler.free["glance"].clear()
    for _ in range(5):
        await pulses.step()
    assert sampler.asked == ["sample", "glance"]
    await pulses.close()
    await gpus.sample()


@pytest.mark.gcc
async def test_a_driver_that_hangs_costs_the_glances_process_and_one_time_limit(
    driver, monkeypatch
):
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    driver.say(gpu("GPU-a"))
    sampler, clock = ChildSampler(sampler_command("nvml")), Clock()
    gpus, pulses = pulses_of(sampler, clock)
    await gpus.sample()
    await pulses.step()
    assert pulses.latest.readings["GPU-a"].memory_used_bytes == GIB
    hung, patience = sampler.pid, sampler._timeout_seconds
    driver.say(f"hang {MEMORY}")
    sampler._timeout_seconds = 0.05
    pulsing = asyncio.ensure_future(pulses.step())
    for _ in range(5):
        await asyncio.sleep(0)
    assert gpus._turn.locked()
    # It waits for its turn behind the glance, and then lets the driver be.
    with pytest.raises(SourceUnavailable, match="has not answered"):
        await gpus.sample()
    await pulsing
    assert not pulses.latest.readings
    driver.unsay("hang")
    sampler._timeout_seconds = patience
    clock.now += 6
    assert only(await gpus.sample()).uuid == "GPU-a"
    await pulses.step()
    assert pulses.latest.readings["GPU-a"].utilisation is None
    assert sampler.pid not in (0, hung)
    await gpus.close()


@pytest.mark.gcc
async def test_a_child_glances_between_samples_and_takes_nothing_from_them(
    driver, monkeypatch
):
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    driver.say(gpu("GPU-a"), "process GPU-a 10 300 compute", "busy GPU-a 40 10")
    sampler = ChildSampler(sampler_command("nvml"))
    await sampler.sample()
    assert [x.utilisation for x in await sampler.glance()] == [None]
    driver.say("busy GPU-a 50 100", "working GPU-a 10 50 100")
    (glance,) = await sampler.glance()
    assert (glance.utilisation, glance.temperature_celsius) == (1.0, 41.0)
    sample = only(await sampler.sample())
    assert sample.utilisation == 1.0
    assert [use.utilisation for use in sample.processes] == [1.0]
    await sampler.close()


async def test_a_machine_without_gpus_is_not_asked_each_second(simulated, tmp_path):
    create_devices(tmp_path / "gpus", 0, 16 * GIB)
    sampler = Broken(simulated)
    gpus, pulses = pulses_of(sampler)
    await gpus.sample()
    await pulses.step()
    assert (pulses.latest.readings, sampler.glances) == ({}, 0)
