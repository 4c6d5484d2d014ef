"""What the doctor makes of what reclaim rests on: utilisation and parking."""

from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.examination import ExaminedGpu
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.tools.doctor import reclaiming
from jupyterhub_gpuworkshop.tools.doctor.check import Status
from jupyterhub_gpuworkshop.tools.doctor.reading.parking import Parking, read_parking
from jupyterhub_gpuworkshop.workshop import Workshop

from .test_judging_gpus import assert_says, seen

SLICES = tuple(
    ExaminedGpu(label=f"0:{n}", uuid=f"MIG-{n}", tells_utilisation=False)
    for n in (0, 1)
)


def test_gpus_that_tell_their_utilisation_are_fine() -> None:
    told = [replace(gpu, tells_utilisation=True) for gpu in seen().gpus]
    for trusted in (False, True):
        check = reclaiming.judge_utilisation(
            seen(gpus=tuple(told)), without_utilisation=trusted
        )
        assert check.status is Status.OK


def test_where_no_utilisation_is_told_nothing_is_reclaimed_and_the_doctor_says_so() -> (
    None
):
    check = reclaiming.judge_utilisation(seen(gpus=SLICES), without_utilisation=False)
    assert_says(
        check,
        Status.WARN,
        "0:0, 0:1",
        "Nothing is reclaimed there unless idle.without_utilisation: true",
    )


def test_what_is_risked_by_trusting_kernel_state_alone_is_said() -> None:
    check = reclaiming.judge_utilisation(seen(gpus=SLICES), without_utilisation=True)
    assert_says(check, Status.WARN, "background thread", "is taken for idle")


def test_parking_is_looked_at_only_where_it_is_wanted() -> None:
    assert reclaiming.judge_parking(Parking(wanted=False)).status is Status.SKIP
    check = reclaiming.judge_parking(Parking(wanted=True))
    assert_says(check, Status.OK, "keep their variables")
    check = reclaiming.judge_parking(Parking(wanted=True, problem="No cuda-core."))
    assert_says(check, Status.WARN, "No cuda-core. Idle kernels are restarted instead")
    check = reclaiming.judge_parking(Parking(wanted=True, refused=("A slice.",)))
    assert_says(check, Status.WARN, "A slice. Idle kernels there are restarted instead")


def workshop(folder: Path, **idle: object) -> Workshop:
    gpus = {"source": "simulated", "simulated_dir": str(folder)}
    return Workshop.load({"gpus": gpus, "idle": idle})


@pytest.mark.parametrize(
    "idle", [{"action": "park"}, {"groups": {"slow": "restart", "fast": "park"}}]
)
def test_who_would_park_is_asked(tmp_path: Path, idle: dict[str, object]) -> None:
    create_devices(tmp_path / "whole", 1, 16 * GIB)
    assert read_parking(workshop(tmp_path / "whole", **idle)) == Parking(wanted=True)
    (slice_,) = create_devices(tmp_path / "slice", 1, 16 * GIB, parkable=False)
    (refused,) = read_parking(workshop(tmp_path / "slice", **idle)).refused
    assert slice_.name in refused
    missing = read_parking(workshop(tmp_path / "none", **idle))
    assert str(tmp_path / "none") in missing.problem
    assert missing.wanted


def test_nobody_is_asked_where_nothing_is_to_be_parked(tmp_path: Path) -> None:
    nowhere = workshop(tmp_path / "none", groups={"slow": "stop_kernel"})
    assert read_parking(nowhere) == Parking(wanted=False)
