"""NvmlSource: what it lists and reads, against a double of the driver."""

import pytest

from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource

from .nvml_double import Scenario
from .nvml_double.words import (
    LISTING,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Clock,
    gpu,
    only,
    processes,
)

pytestmark = pytest.mark.gcc


def test_a_gpu_is_described_by_what_the_driver_says(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu("GPU-a", minor=3))
    inventory = source.inventory()
    (device,) = inventory.devices
    assert (device.uuid, device.label, device.minor) == ("GPU-a", "0", 3)
    assert device.name == "NVIDIA Double"
    assert (device.memory_bytes, device.reserved_bytes) == (16 * GIB, 512 * MIB)
    assert (inventory.source, inventory.problem) == ("nvml", "")
    assert device.context_bytes > 0
    assert not device.lost


def test_a_sample_tells_memory_temperature_and_power(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(used=2 * GIB))
    sample = only(source.sample())
    assert sample.memory_used_bytes == 2 * GIB
    assert sample.memory_free_bytes == 16 * GIB - 512 * MIB - 2 * GIB
    assert (sample.temperature_celsius, sample.power_watts) == (41, 125.5)
    assert sample.problem == ""


def test_the_three_process_lists_are_united_by_pid(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu())
    driver.say("process GPU-a 10 300 compute", "process GPU-a 10 500 graphics")
    driver.say("process GPU-a 11 70 graphics", "process GPU-a 12 90 mps")
    driver.say("process GPU-a 13 -1 compute", "process GPU-a 13 40 mps")
    assert {pid: p.memory_bytes for pid, p in processes(source).items()} == {
        10: 500,  # the most that a list states, not the sum
        11: 70,
        12: 90,
        13: 40,
    }


def test_memory_that_the_driver_does_not_state_stays_unknown(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 -1 compute", "process GPU-a 10 -1 graphics")
    assert processes(source)[10].memory_bytes is None


def test_many_processes_are_all_listed(driver: Scenario, source: NvmlSource) -> None:
    driver.say(gpu(), *(f"process GPU-a {pid} 1 compute" for pid in range(1, 301)))
    assert len(processes(source)) == 300


def test_a_list_that_outgrows_its_buffer_is_read_again(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute", f"crowded {LISTING} 2")
    assert list(processes(source)) == [10]


def test_a_list_that_always_outgrows_its_buffer_is_unknown_and_not_empty(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute", f"crowded {LISTING} 99")
    sample = only(source.sample())
    assert sample.processes is None
    assert "processes" in sample.problem
    assert sample.memory_used_bytes == GIB


@pytest.mark.parametrize("kind", ["Compute", "Graphics", "MPSCompute"])
def test_a_list_that_may_not_be_read_is_unknown_and_not_empty(
    driver: Scenario, source: NvmlSource, kind: str
) -> None:
    function = f"nvmlDeviceGet{kind}RunningProcesses_v3"
    driver.say(gpu(), "process GPU-a 10 300 compute")
    driver.say(f"fail {function} * {NO_PERMISSION}")
    sample = only(source.sample())
    assert sample.processes is None
    assert "Insufficient Permissions" in sample.problem


def test_a_gpu_without_graphics_and_mps_has_compute_processes_only(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute")
    for kind in ("Graphics", "MPSCompute"):
        driver.say(f"fail nvmlDeviceGet{kind}RunningProcesses_v3 * {NOT_SUPPORTED}")
    sample = only(source.sample())
    assert [p.pid for p in sample.processes or ()] == [10]
    assert sample.problem == ""


def test_processes_are_listed_as_seldom_as_asked(
    driver: Scenario, source: NvmlSource, clock: Clock
) -> None:
    driver.say(gpu(), gpu("GPU-b", minor=1))
    for _ in range(10):
        source.sample()
        clock.now += 0.5
    assert driver.calls(LISTING, "GPU-a") == 1
    assert driver.calls("nvmlDeviceGetMemoryInfo_v2", "GPU-a") >= 10
    source.sample()
    assert driver.calls(LISTING, "GPU-a") == 2


def test_processes_are_listed_sooner_when_memory_has_changed(
    driver: Scenario, source: NvmlSource, clock: Clock
) -> None:
    driver.say(gpu(used=GIB), gpu("GPU-b", minor=1))
    source.sample()
    driver.change("gpu GPU-a", gpu(used=2 * GIB))
    driver.say("process GPU-a 10 300 compute")
    clock.now += 0.9
    assert source.sample()[0].processes == ()
    clock.now += 0.1
    assert [p.pid for p in source.sample()[0].processes or ()] == [10]
    assert driver.calls(LISTING, "GPU-b") == 1


def test_processes_are_listed_sooner_when_a_stranger_is_at_work(
    driver: Scenario, source: NvmlSource, clock: Clock
) -> None:
    driver.say(gpu())
    source.sample()
    driver.say("process GPU-a 10 300 compute", "working GPU-a 10 50 7")
    driver.say("working GPU-a 99 50 7")  # of a process that no list has
    clock.now += 1.0
    assert processes(source)[10].utilisation == 0.07
    driver.say("working GPU-a 99 60 7")
    clock.now += 1.0
    source.sample()
    assert driver.calls(LISTING) == 2 * 2 - 1  # the first, empty, needed one call


def test_a_stranger_at_work_is_listed_at_once(
    driver: Scenario, source: NvmlSource, clock: Clock
) -> None:
    # Its work is told once: it must not go by because the list is a second old.
    driver.say(gpu(), "process GPU-a 9 300 compute")
    source.sample()
    driver.say("process GPU-a 10 300 compute", "working GPU-a 10 50 7")
    clock.now += 0.1
    assert processes(source)[10].utilisation == 0.07


def test_an_old_driver_is_asked_with_its_older_functions(
    old_driver: Scenario,
) -> None:
    source = NvmlSource(clock=Clock())
    old_driver.say(gpu(used=GIB), "process GPU-a 10 300 compute")
    (device,) = source.inventory().devices
    assert (device.memory_bytes, device.reserved_bytes) == (16 * GIB, 0)
    sample = only(source.sample())
    assert [p.pid for p in sample.processes or ()] == [10]
    assert sample.problem == ""
    assert sample.memory_free_bytes == 16 * GIB - 512 * MIB - GIB
