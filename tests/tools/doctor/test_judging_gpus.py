"""What the doctor makes of driver and GPUs: facts in, checks out."""

from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.examination import (
    ABSENT,
    MISMATCH,
    Condition,
    Examination,
    ExaminedGpu,
)
from jupyterhub_gpuworkshop.tools.doctor import gpus
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.doctor.reading.driver import (
    HANGS,
    UNASKED,
    DriverFacts,
    Holding,
    Holdings,
    KernelLog,
    Xid,
    is_server_cgroup,
    parse_xids,
)

DRIVER = "580.95.05"


def seen(**changes: Any) -> Examination:
    """Return an examination of two good GPUs."""
    given: dict[str, Any] = {
        "driver": DRIVER,
        "nvml": f"13.{DRIVER}",
        "cuda": "13.0",
        "gpus": tuple(
            ExaminedGpu(
                label=str(n), uuid=f"GPU-{n}", name="H200", memory_bytes=141 * GIB
            )
            for n in (0, 1)
        ),
        "conditions": tuple(condition(label=str(n)) for n in (0, 1)),
    }
    return Examination(**{**given, **changes})


def condition(**changes: Any) -> Condition:
    """Return what a good GPU says of itself."""
    given: dict[str, Any] = {
        "label": "0",
        "compute_mode": "default",
        "persistence": True,
        "mig": False,
        "mig_pending": False,
        "ecc_uncorrected": 0,
        "pages_pending": False,
        "remap_pending": False,
        "remap_failed": False,
    }
    return Condition(**{**given, **changes})


def linux(**changes: Any) -> DriverFacts:
    """Return what Linux says of two good GPUs."""
    return DriverFacts(**{"on_the_bus": ("a", "b"), "module": DRIVER, **changes})


def assert_says(check: Check, status: Status, *words: str) -> None:
    said = f"{check.finding}\n{check.remedy}"
    assert check.status is status, said
    for word in words:
        assert word in said


def test_a_good_driver_is_told_with_its_versions() -> None:
    check = gpus.judge_driver(seen(), linux())
    assert_says(check, Status.OK, DRIVER, "CUDA up to 13.0", "same version")


@pytest.mark.parametrize(
    ("examination", "facts", "status", "words"),
    [
        (
            seen(),
            linux(module="570.1.1"),
            Status.FAIL,
            ["570.1.1", DRIVER, "$ sudo reboot"],
        ),
        (
            Examination(problem="x", trouble=MISMATCH),
            linux(),
            Status.FAIL,
            ["upgraded while it was in use", "reboot"],
        ),
        (
            Examination(problem="x", trouble=ABSENT),
            linux(module=""),
            Status.FAIL,
            ["2 NVIDIA GPUs on the bus, but no driver", "ubuntu-drivers install"],
        ),
        (
            Examination(problem="x", trouble=ABSENT),
            linux(module="", nouveau=True),
            Status.FAIL,
            ["nouveau holds them"],
        ),
        (
            Examination(problem="x", trouble=ABSENT),
            linux(module="", on_the_bus=()),
            Status.FAIL,
            ["no NVIDIA GPU on the PCI bus", "lspci", "simulated"],
        ),
        (
            Examination(problem="x", trouble=ABSENT),
            linux(),
            Status.FAIL,
            ["libnvidia-ml.so.1", "--gpus all", "libnvidia-compute-580"],
        ),
        (
            Examination(problem="It did not answer.", trouble=HANGS),
            linux(),
            Status.FAIL,
            ["hang", "reboot"],
        ),
        (
            Examination(problem="No process.", trouble=UNASKED),
            linux(),
            Status.SKIP,
            ["No process."],
        ),
        (Examination(problem="Refused."), linux(), Status.FAIL, ["nvidia-smi"]),
        (
            seen(driver="390.157"),
            linux(module="390.157"),
            Status.FAIL,
            ["too old", "450"],
        ),
    ],
)
def test_a_driver_that_is_not_good_is_told_apart(
    examination: Examination, facts: DriverFacts, status: Status, words: list[str]
) -> None:
    assert_says(gpus.judge_driver(examination, facts), status, *words)


def test_every_gpu_is_listed_with_its_memory() -> None:
    check = gpus.judge_devices(seen(), linux())
    assert_says(check, Status.OK, "0: H200 141 GiB", "1: H200 141 GiB")


def test_a_gpu_that_does_not_answer_fails() -> None:
    lost = ExaminedGpu(label="1", problem="GPU is lost")
    check = gpus.judge_devices(seen(gpus=(seen().gpus[0], lost)), linux())
    assert_says(check, Status.FAIL, "GPU 1: GPU is lost", "--gpu-reset -i 1")


def test_a_gpu_on_the_bus_that_the_driver_does_not_serve_is_missed() -> None:
    check = gpus.judge_devices(seen(), linux(on_the_bus=("a", "b", "c")))
    assert_says(check, Status.WARN, "3 NVIDIA GPUs on the bus", "serves 2", "dmesg")


def test_a_container_that_hides_the_bus_is_no_trouble() -> None:
    assert gpus.judge_devices(seen(), linux(on_the_bus=())).status is Status.OK


def test_no_gpu_at_all_fails() -> None:
    check = gpus.judge_devices(seen(gpus=(), conditions=()), linux())
    assert_says(check, Status.FAIL, "sees no GPU")


@pytest.mark.parametrize(
    "mode", ["exclusive-process", "exclusive-thread", "prohibited"]
)
def test_a_compute_mode_that_keeps_others_out_fails_with_its_command(mode: str) -> None:
    check = gpus.judge_compute_mode(
        (condition(), condition(label="3", compute_mode=mode))
    )
    assert_says(check, Status.FAIL, f"GPU 3 is in compute mode {mode}")
    assert check.remedy == "$ sudo nvidia-smi -i 3 -c DEFAULT"


@pytest.mark.parametrize("mode", ["default", None])
def test_a_compute_mode_that_lets_all_in_or_is_not_told_is_fine(
    mode: str | None,
) -> None:
    check = gpus.judge_compute_mode((condition(compute_mode=mode),))
    assert check.status is Status.OK


def test_a_lock_on_a_whole_gpu_fails() -> None:
    path = "/var/lock/DBN.exe GPGPU exclusive lock for device 2"
    check = gpus.judge_lock(linux(locks=(path,)))
    assert_says(check, Status.FAIL, "GPU 2", "CNTK", f"fuser -v '{path}'")
    assert gpus.judge_lock(linux()).status is Status.OK


@pytest.mark.parametrize(
    ("one", "status", "words"),
    [
        (condition(), Status.OK, ["MIG is off"]),
        (condition(mig=None, mig_pending=None), Status.OK, ["not offered"]),
        (
            condition(mig_pending=True),
            Status.WARN,
            ["switch MIG on", "--gpu-reset -i 0"],
        ),
        (
            condition(mig=True, mig_pending=True),
            Status.FAIL,
            ["without a slice", "-cgi"],
        ),
        (
            condition(mig=True, mig_pending=True, slices=7),
            Status.OK,
            ["7 MIG slices", "the hardware caps"],
        ),
    ],
)
def test_mig_is_told(one: Condition, status: Status, words: list[str]) -> None:
    assert_says(gpus.judge_mig((one,)), status, *words)


def test_a_driver_that_unloads_in_between_is_worth_a_warning() -> None:
    check = gpus.judge_persistence((condition(persistence=False),))
    assert_says(check, Status.WARN, "nvidia-persistenced")
    assert gpus.judge_persistence((condition(persistence=None),)).status is Status.OK


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, Status.OK, []),
        ({"ecc_uncorrected": None}, Status.OK, []),
        ({"ecc_uncorrected": 3}, Status.WARN, ["GPU 0: 3", "--gpu-reset -i 0"]),
        ({"remap_pending": True}, Status.WARN, ["waits for a reset"]),
        ({"pages_pending": True}, Status.WARN, ["waits for a reset"]),
        (
            {"remap_failed": True},
            Status.FAIL,
            ["could not be repaired", "gpus.exclude"],
        ),
    ],
)
def test_broken_memory_is_told(
    change: dict[str, Any], status: Status, words: list[str]
) -> None:
    assert_says(gpus.judge_memory_errors((condition(**change),)), status, *words)


def test_xids_are_read_from_the_kernels_log() -> None:
    log = (
        "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.\n"
        "usb 1-1: new device\n"
        "[ 12.5] NVRM: Xid (PCI:0000:3b:00): 13, pid=77, Graphics Exception\n"
        "[ 13.5] NVRM: Xid (PCI:0000:3b:00): 13, pid=78, Graphics Exception\n"
    )
    assert [(x.gpu, x.number, x.times) for x in parse_xids(log)] == [
        ("PCI:0000:3b:00", 79, 1),
        ("PCI:0000:3b:00", 13, 2),
    ]


@pytest.mark.parametrize(
    ("log", "status", "words"),
    [
        (KernelLog(), Status.OK, ["No Xid"]),
        (
            KernelLog(problem="not permitted", needs_root=True),
            Status.SKIP,
            ["Needs root", "$ sudo gpuworkshop doctor"],
        ),
        (KernelLog(problem="no dmesg"), Status.SKIP, ["no dmesg"]),
        (
            KernelLog(xids=(Xid(gpu="PCI:1", number=79, times=1),)),
            Status.WARN,
            ["Xid 79 on PCI:1, 1 time (the GPU has fallen off the bus)"],
        ),
        (
            KernelLog(xids=(Xid(gpu="PCI:1", number=13, times=4),)),
            Status.WARN,
            ["Programs can cause", "4 times"],
        ),
    ],
)
def test_xids_are_weighed(log: KernelLog, status: Status, words: list[str]) -> None:
    assert_says(gpus.judge_xid(log), status, *words)


def holding(**changes: Any) -> Holding:
    given = {
        "gpu": "0",
        "pid": 7,
        "memory_bytes": 2 * GIB,
        "command": "python train.py",
    }
    return Holding(**{**given, **changes})


def test_who_is_on_the_gpu_from_outside_is_named_with_what_they_hold() -> None:
    check = gpus.judge_foreign(Holdings(holdings=(holding(),)), 512 * MIB)
    assert_says(check, Status.WARN, "process 7 (python train.py) 2 GiB", "-p 7")


@pytest.mark.parametrize(
    "holdings",
    [
        (),
        (holding(of_the_hub=True),),
        (holding(memory_bytes=100 * MIB), holding(gpu="1", memory_bytes=500 * MIB)),
    ],
)
def test_the_hubs_own_and_what_fits_into_what_is_kept_free_is_fine(
    holdings: tuple[Holding, ...],
) -> None:
    assert (
        gpus.judge_foreign(Holdings(holdings=holdings), 512 * MIB).status is Status.OK
    )


@pytest.mark.parametrize(
    ("cgroup", "in_containers", "ours"),
    [
        ("/system.slice/jupyter-ada.service", False, True),
        ("/system.slice/docker-0f3c.scope", True, True),
        ("/docker/0f3c", True, True),
        ("/system.slice/docker-0f3c.scope", False, False),
        ("/user.slice/user-1000.slice/session-3.scope", True, False),
    ],
)
def test_a_container_is_the_hubs_only_where_servers_are_containers(
    cgroup: str, in_containers: bool, ours: bool
) -> None:
    assert is_server_cgroup(cgroup, in_containers=in_containers) is ours


def test_processes_that_are_not_listed_are_not_called_absent() -> None:
    check = gpus.judge_foreign(Holdings(unlisted=("0",)), 512 * MIB)
    assert check.status is Status.SKIP
