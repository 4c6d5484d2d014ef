"""machine.examine: what the doctor's child tells of the driver."""

import subprocess
import sys

import pytest

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.examination import EXAMINATION, Examination
from jupyterhub_gpuworkshop.machine.examine import examine

from .nvml_double import Scenario
from .nvml_double.words import (
    GPU_IS_LOST,
    LISTING,
    MISMATCH,
    NOT_SUPPORTED,
    WORKING,
    gpu,
)

pytestmark = pytest.mark.gcc


def in_a_child(scenario: Scenario) -> Examination:
    child = subprocess.run(
        [sys.executable, "-m", "jupyterhub_gpuworkshop.machine.examine"],
        env=scenario.environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return EXAMINATION.validate_json(child.stdout)


def test_a_child_tells_versions_memory_and_holders(driver: Scenario) -> None:
    driver.say(gpu("GPU-a", used=3 * GIB), "process GPU-a 77 1000 compute")
    seen = in_a_child(driver)
    assert (seen.driver, seen.nvml, seen.cuda) == ("580.95.05", "13.580.95.05", "13.0")
    (one,) = seen.gpus
    assert (one.label, one.uuid, one.minor, one.used_bytes) == (
        "0",
        "GPU-a",
        0,
        3 * GIB,
    )
    assert one.holders == {77: 1000}
    assert seen.problem == ""


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ("compute-mode 3", "compute_mode", "exclusive-process"),
        ("compute-mode 2", "compute_mode", "prohibited"),
        ("compute-mode 0", "compute_mode", "default"),
        ("persistence 1", "persistence", True),
        ("mig-pending 1", "mig_pending", True),
        ("ecc 4", "ecc_uncorrected", 4),
        ("pages-pending 1", "pages_pending", True),
        ("remap-pending 1", "remap_pending", True),
        ("remap-failed 1", "remap_failed", True),
    ],
)
def test_what_is_set_on_a_gpu_is_told(
    driver: Scenario, said: str, field: str, value: object
) -> None:
    driver.say(gpu("GPU-a"), f"set GPU-a {said}")
    (condition,) = examine().conditions
    assert getattr(condition, field) == value


def test_what_a_gpu_does_not_offer_is_unknown(driver: Scenario) -> None:
    driver.say(
        gpu("GPU-a"),
        f"fail nvmlDeviceGetComputeMode GPU-a {NOT_SUPPORTED}",
        f"fail nvmlDeviceGetRemappedRows GPU-a {NOT_SUPPORTED}",
        f"fail {LISTING} GPU-a {NOT_SUPPORTED}",
    )
    seen = examine()
    assert seen.conditions[0].compute_mode is None
    assert seen.conditions[0].remap_failed is None
    assert seen.gpus[0].holders is None
    assert "does not list processes" in seen.gpus[0].problem


WHOLE = ("nvmlDeviceGetSamples", "nvmlDeviceGetUtilizationRates")


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ((), True),
        (WHOLE, True),
        ((WORKING,), True),
        ((*WHOLE, WORKING), False),
    ],
)
def test_utilisation_by_process_or_as_a_whole_suffices(
    driver: Scenario, missing: tuple[str, ...], told: bool
) -> None:
    fails = (f"fail {call} GPU-a {NOT_SUPPORTED}" for call in missing)
    driver.say(gpu("GPU-a"), *fails)
    assert examine().gpus[0].tells_utilisation is told


def test_slices_stand_in_the_place_of_their_gpu(driver: Scenario) -> None:
    driver.say(gpu("GPU-a", mig=1), f"mig GPU-a 2 MIG-x {GIB} 0 0")
    seen = examine()
    assert [each.label for each in seen.gpus] == ["0:2"]
    assert seen.gpus[0].tells_utilisation is False
    assert seen.conditions[0].slices == 1


def test_a_lost_gpu_leaves_the_others_in_sight(driver: Scenario) -> None:
    driver.say(
        gpu("GPU-a"),
        gpu("GPU-b", minor=1),
        f"fail nvmlDeviceGetHandleByIndex_v2 GPU-a {GPU_IS_LOST}",
    )
    seen = examine()
    assert [(each.label, each.uuid) for each in seen.gpus] == [
        ("0", ""),
        ("1", "GPU-b"),
    ]
    assert seen.gpus[0].problem
    assert [each.label for each in seen.conditions] == ["1"]


def test_a_driver_that_was_upgraded_underneath_is_called_a_mismatch(
    driver: Scenario,
) -> None:
    driver.say(f"fail nvmlInitWithFlags * {MISMATCH}")
    seen = examine()
    assert seen.trouble == "mismatch"
    assert "reboot" in seen.problem


def test_without_a_driver_it_says_so(driver: Scenario) -> None:
    environment = {**driver.environment, "LD_LIBRARY_PATH": "/nowhere"}
    child = subprocess.run(
        [sys.executable, "-m", "jupyterhub_gpuworkshop.machine.examine"],
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    seen = EXAMINATION.validate_json(child.stdout)
    if not seen.gpus:  # on a machine with a driver it finds that one
        assert seen.trouble == "absent"
        assert seen.problem
