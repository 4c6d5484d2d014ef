"""NvmlSource: unknown is not idle; MIG tells no utilisation at all."""

import pytest

from jupyterhub_gpuworkshop.core.snapshot import ProcessUse
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource

from .nvml_double import Scenario
from .nvml_double.words import (
    NO_PERMISSION,
    NOT_SUPPORTED,
    TOO_SMALL,
    WORKING,
    gpu,
    only,
    processes,
)

pytestmark = pytest.mark.gcc


def test_the_first_sample_has_no_utilisation_to_tell(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(percent=50), "process GPU-a 10 300 compute")
    driver.say("working GPU-a 10 50 7", "busy GPU-a 40 90")
    sample = only(source.sample())
    assert sample.utilisation is None
    assert [p.utilisation for p in sample.processes or ()] == [None]
    assert sample.problem == ""


def test_utilisation_is_the_mean_since_the_previous_sample(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(percent=3), "busy GPU-a 40 90")
    source.sample()
    driver.say("busy GPU-a 50 100", "busy GPU-a 60 0", "busy GPU-a 70 20")
    assert only(source.sample()).utilisation == pytest.approx(0.4)
    # Nothing new in the driver's buffer: its word of this instant.
    assert only(source.sample()).utilisation == 0.03


def test_a_driver_without_utilisation_samples_tells_that_of_the_instant(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(percent=30), f"fail nvmlDeviceGetSamples * {NOT_SUPPORTED}")
    source.sample()
    assert only(source.sample()).utilisation == 0.3


def test_an_idle_gpu_has_idle_processes_and_not_unknown_ones(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute")
    source.sample()
    assert processes(source)[10].utilisation == 0.0


def test_success_without_a_sample_means_idle_too(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute", f"fail {WORKING} * 0")
    source.sample()
    assert processes(source)[10].utilisation == 0.0


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, TOO_SMALL])
def test_process_utilisation_that_is_not_told_is_unknown_and_not_idle(
    driver: Scenario, source: NvmlSource, code: int
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute", f"fail {WORKING} * {code}")
    source.sample()
    sample = only(source.sample())
    assert [p.utilisation for p in sample.processes or ()] == [None]
    assert "utilisation of its processes" in sample.problem
    assert sample.utilisation == 0.0


def test_a_process_is_as_busy_as_in_its_busiest_sample_since_the_last(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute", "process GPU-a 11 5 compute")
    driver.say("working GPU-a 10 50 99")
    source.sample()
    driver.say("working GPU-a 10 60 20", "working GPU-a 10 70 30")
    driver.say("working GPU-a 10 80 0")
    assert {p.pid: p.utilisation for p in processes(source).values()} == {
        10: 0.3,
        11: 0.0,
    }
    assert processes(source)[10].utilisation == 0.0  # all of that was told before


def test_rows_that_only_pad_the_drivers_answer_do_not_count(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute")
    source.sample()
    driver.say("working GPU-a 10 0 60", "working GPU-a 0 90 80")
    assert processes(source)[10].utilisation == 0.0
    driver.say("working GPU-a 10 85 20")  # no later than the padding's stamp
    assert processes(source)[10].utilisation == 0.2


def test_utilisation_samples_that_outgrow_their_buffer_are_read_again(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute")
    source.sample()
    driver.say("working GPU-a 10 60 20", f"crowded {WORKING} 1")
    assert processes(source)[10].utilisation == 0.2


def test_impossible_utilisation_is_unknown(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute")
    source.sample()
    driver.say("working GPU-a 10 60 4711", "working GPU-a 10 70 0")
    assert processes(source)[10].utilisation is None


def test_readings_that_a_gpu_does_not_offer_are_unknown_and_the_rest_is_told(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "process GPU-a 10 300 compute")
    for name in ("Temperature", "PowerUsage", "UtilizationRates", "Samples"):
        driver.say(f"fail nvmlDeviceGet{name} * {NOT_SUPPORTED}")
    driver.say(f"fail nvmlDeviceGetMinorNumber * {NOT_SUPPORTED}")
    driver.say(f"fail nvmlDeviceGetMigMode * {NOT_SUPPORTED}")
    source.sample()
    sample = only(source.sample())
    assert sample.temperature_celsius is None
    assert sample.power_watts is None
    assert sample.utilisation is None
    assert "utilisation of the GPU" in sample.problem
    assert sample.memory_used_bytes == GIB
    assert [p.pid for p in sample.processes or ()] == [10]
    assert source.inventory().devices[0].minor is None


def mig_machine(driver: Scenario) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-m", minor=1, mig=1))
    driver.say(f"mig GPU-m 0 MIG-x {5 * GIB} {MIB} {GIB}")
    driver.say(f"mig GPU-m 2 MIG-y {5 * GIB} {MIB} 0")  # slot 1 is empty
    driver.say("process MIG-x 20 700 compute", "process GPU-m 20 700 compute")


def test_mig_slices_are_devices_and_their_gpu_is_none(
    driver: Scenario, source: NvmlSource
) -> None:
    mig_machine(driver)
    devices = source.inventory().devices
    assert [(d.uuid, d.label, d.parent_uuid, d.minor) for d in devices] == [
        ("GPU-a", "0", None, 0),
        ("MIG-x", "1:0", "GPU-m", 1),
        ("MIG-y", "1:2", "GPU-m", 1),
    ]
    assert [(d.gpu_instance, d.compute_instance) for d in devices] == [
        *((None, None), (7, 0), (9, 0)),
    ]
    assert devices[1].memory_bytes == 5 * GIB


def test_a_mig_slice_has_processes_and_no_utilisation(
    driver: Scenario, source: NvmlSource
) -> None:
    mig_machine(driver)
    source.sample()
    by_uuid = {sample.uuid: sample for sample in source.sample()}
    mig = by_uuid["MIG-x"]
    assert (mig.utilisation, mig.power_watts, mig.temperature_celsius) == (
        None,
        None,
        41,
    )
    assert mig.memory_used_bytes == GIB
    assert mig.processes == (ProcessUse(pid=20, memory_bytes=700, utilisation=None),)
    assert "MIG" in mig.problem
    assert by_uuid["GPU-a"].problem == ""


def test_a_gpu_in_mig_mode_without_slices_is_no_device_and_says_what_to_do(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu("GPU-m", mig=1))
    inventory = source.inventory()
    assert inventory.devices == ()
    assert "nvidia-smi mig" in inventory.problem
    assert source.sample() == ()


def test_slices_made_later_are_found_by_the_next_inventory(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu("GPU-m", mig=1))
    source.inventory()
    driver.say(f"mig GPU-m 0 MIG-x {5 * GIB} {MIB} 0")
    assert [d.uuid for d in source.inventory().devices] == ["MIG-x"]
    assert [s.uuid for s in source.sample()] == ["MIG-x"]
