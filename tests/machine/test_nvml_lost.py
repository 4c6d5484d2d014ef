"""NvmlSource: a driver that goes away, in part or as a whole."""

import logging

import pytest

from jupyterhub_gpuworkshop.core.errors import SourceLost, SourceUnavailable
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource

from .nvml_double import Scenario
from .nvml_double.words import (
    GPU_IS_LOST,
    LISTING,
    MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    WORKING,
    Clock,
    gpu,
)

pytestmark = pytest.mark.gcc


def test_one_lost_gpu_among_several_is_marked_and_the_others_go_on(
    driver: Scenario, source: NvmlSource, caplog: pytest.LogCaptureFixture
) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    source.sample()
    driver.say(f"fail * GPU-b {GPU_IS_LOST}")
    with caplog.at_level(logging.WARNING):
        assert [s.uuid for s in source.sample()] == ["GPU-a"]
        assert [s.uuid for s in source.sample()] == ["GPU-a"]
    assert [(d.uuid, d.lost) for d in source.inventory().devices] == [
        ("GPU-a", False),
        ("GPU-b", True),
    ]
    assert [s.uuid for s in source.sample()] == ["GPU-a"]
    assert len(caplog.records) == 1  # said once, not on every sample


def test_a_lost_gpu_comes_back(driver: Scenario, source: NvmlSource) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    source.sample()
    driver.say(f"fail * GPU-b {GPU_IS_LOST}")
    source.inventory()
    driver.unsay("fail")
    assert [d.lost for d in source.inventory().devices] == [False, False]
    back = source.sample()[1]
    assert back.uuid == "GPU-b"
    assert back.utilisation is None  # nothing was seen of it in between


def test_a_lost_gpu_has_nvml_initialised_again_now_and_then(
    driver: Scenario, source: NvmlSource, clock: Clock
) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    source.inventory()
    driver.say(f"fail * GPU-b {GPU_IS_LOST}")
    for _ in range(5):
        source.inventory()
        clock.now += 5
    assert driver.calls("nvmlInitWithFlags") == 2
    clock.now += 30
    source.inventory()
    assert driver.calls("nvmlInitWithFlags") == 3
    assert driver.calls("nvmlShutdown") == 2


@pytest.mark.parametrize("code", [15, 16, 999], ids=["lost", "reset", "unknown"])
def test_when_every_gpu_is_lost_the_source_is_lost_until_it_is_opened_again(
    driver: Scenario, source: NvmlSource, code: int
) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    source.sample()
    driver.say(f"fail * GPU-a {code}", f"fail * GPU-b {code}")
    with pytest.raises(SourceLost, match="nvidia-smi"):
        source.sample()
    with pytest.raises(SourceLost):
        source.inventory()
    driver.unsay("fail")
    source.close()
    assert [s.uuid for s in source.sample()] == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    "function",
    [LISTING, WORKING, "nvmlDeviceGetSamples", "nvmlDeviceGetMemoryInfo_v2"],
)
def test_a_gpu_lost_in_the_middle_of_a_sample_is_left_out(
    driver: Scenario, source: NvmlSource, function: str
) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    source.inventory()
    driver.say(f"fail {function} GPU-b {GPU_IS_LOST}")
    assert [s.uuid for s in source.sample()] == ["GPU-a"]


@pytest.mark.parametrize(
    "function", ["*", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetCount_v2"]
)
def test_a_driver_upgraded_in_use_needs_a_new_process_and_says_so(
    driver: Scenario, source: NvmlSource, function: str
) -> None:
    driver.say(gpu())
    source.sample()
    driver.say(f"fail {function} * {MISMATCH}")
    with pytest.raises(SourceLost, match=r"upgraded.*only a new process.*reboot"):
        source.inventory()
    source.close()
    with pytest.raises(SourceLost, match="upgraded"):
        source.sample()


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetMemoryInfo_v2", LISTING, WORKING, "nvmlDeviceGetSamples"]
)
def test_a_driver_upgraded_between_two_samples_says_so(
    driver: Scenario, source: NvmlSource, clock: Clock, function: str
) -> None:
    driver.say(gpu())
    source.sample()
    clock.now += 60
    driver.say(f"fail {function} * {MISMATCH}")
    with pytest.raises(SourceLost, match="upgraded"):
        source.sample()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(9, "not loaded"), (NO_PERMISSION, "/dev/nvidia")],
)
def test_a_driver_that_cannot_be_opened_says_why(
    driver: Scenario, source: NvmlSource, code: int, sentence: str
) -> None:
    driver.say(gpu(), f"fail nvmlInitWithFlags * {code}")
    with pytest.raises(SourceUnavailable, match=sentence):
        source.inventory()
    driver.unsay("fail")
    assert len(source.inventory().devices) == 1


def test_a_driver_that_forgot_us_is_lost(driver: Scenario, source: NvmlSource) -> None:
    driver.say(gpu())
    source.sample()
    driver.say("fail * * 1")
    with pytest.raises(SourceLost, match="does not answer"):
        source.sample()


def test_a_driver_without_gpus_is_an_empty_inventory_with_a_reason(
    driver: Scenario, source: NvmlSource
) -> None:
    inventory = source.inventory()
    assert inventory.devices == ()
    assert "no GPU" in inventory.problem
    assert source.sample() == ()


def test_a_gpu_whose_memory_is_not_told_is_left_out_with_its_reason(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu("GPU-a"))
    for name in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"):
        driver.say(f"fail {name} GPU-a {NOT_SUPPORTED}")
    inventory = source.inventory()
    assert inventory.devices == ()
    assert "GPU 0: Not Supported" in inventory.problem
    driver.say(gpu("GPU-b", minor=1))
    assert [d.uuid for d in source.inventory().devices] == ["GPU-b"]


def test_close_shuts_down_once_and_does_no_harm_unopened(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu())
    source.close()
    assert driver.calls("nvmlShutdown") == 0
    source.inventory()
    source.sample()
    source.close()
    source.close()
    assert driver.calls("nvmlInitWithFlags") == 1
    assert driver.calls("nvmlShutdown") == 1


def test_a_driver_that_fails_to_shut_down_does_not_keep_us(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu(), "fail nvmlShutdown * 999")
    source.inventory()
    source.close()
    assert len(source.inventory().devices) == 1


def test_a_gpu_that_an_earlier_process_knew_is_lost_and_not_forgotten(
    driver: Scenario, source: NvmlSource
) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-m", minor=1, mig=1))
    driver.say("mig GPU-m 0 MIG-x 100 0 0", "mig GPU-m 1 MIG-y 100 0 0")
    known = source.inventory().devices
    driver.say(f"fail * GPU-m {GPU_IS_LOST}")
    later = NvmlSource(known=known).inventory()
    assert [(d.uuid, d.lost) for d in later.devices] == [
        ("GPU-a", False),
        ("MIG-x", True),
        ("MIG-y", True),
    ]
