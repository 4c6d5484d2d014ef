"""Hard limits by cgroup, against a double of the driver; none was at hand."""

import ctypes
import os
from pathlib import Path

import pynvml
import pytest

from jupyterhub_gpuworkshop.core.errors import SourceLost, SourceUnavailable
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.limits import CgroupLimits

from .nvml_double import Scenario
from .nvml_double.words import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, gpu

pytestmark = pytest.mark.gcc

NONE = 2**64 - 1
NOT_FOUND = 6
CONTAINER = "0123456789abcdef" * 4
ADA = ("systemd", "jupyter-ada.service")
BOB = ("docker", CONTAINER)
SETTER, GETTER = "nvmlDeviceSetMemoryLimits_v1", "nvmlDeviceGetMemoryLimits_v1"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree of cgroups as systemd and Docker make it."""
    root = tmp_path / "cgroup"
    (root / "system.slice/jupyter-ada.service").mkdir(parents=True)
    (root / f"system.slice/docker-{CONTAINER}.scope/inner").mkdir(parents=True)
    (root / "user.slice/user-1000.slice/user@1000.service/app.slice").mkdir(
        parents=True
    )
    (root / "cgroup.controllers").touch()
    return root


@pytest.fixture
def limits(tree: Path) -> CgroupLimits:
    return CgroupLimits(tree)


# -- whose cgroup it is


def test_units_and_containers_are_found_in_the_tree(limits: CgroupLimits) -> None:
    eve = ("systemd", "jupyter-eve.service")
    assert limits.find([ADA, BOB, eve]) == {
        ADA: "/system.slice/jupyter-ada.service",
        BOB: f"/system.slice/docker-{CONTAINER}.scope",
    }


@pytest.mark.parametrize("driver", ["cgroupfs", "podman", "a slice of its own"])
def test_a_server_may_stand_elsewhere_in_the_tree(
    driver: str, tree: Path, limits: CgroupLimits
) -> None:
    at = {
        "cgroupfs": f"/docker/{CONTAINER}",
        "podman": f"/machine.slice/libpod-{CONTAINER}.scope",
        "a slice of its own": "/jupyter.slice/jupyter-ada.service",
    }[driver]
    place = ADA if driver.startswith("a") else BOB
    for old in ("jupyter-ada.service", f"docker-{CONTAINER}.scope/inner"):
        (tree / "system.slice" / old).rmdir()
    (tree / f"system.slice/docker-{CONTAINER}.scope").rmdir()
    (tree / at[1:]).mkdir(parents=True)
    assert limits.find([ADA, BOB]) == {place: at}


def test_names_that_an_attendee_gives_below_their_own_unit_mean_nothing(
    tree: Path, limits: CgroupLimits
) -> None:
    theirs = tree / "user.slice/user-1000.slice/user@1000.service/app.slice"
    (theirs / "jupyter-eve.service").mkdir()
    (theirs / ("f" * 64)).mkdir()
    found = limits.find([("systemd", "jupyter-eve.service"), ("docker", "f" * 64)])
    assert found == {}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")
def test_a_cgroup_that_somebody_else_could_have_made_is_nobodys(
    tree: Path, limits: CgroupLimits
) -> None:
    (tree / "their.slice").mkdir()
    os.chown(tree / "their.slice", 20001, 20001)
    (tree / "their.slice/jupyter-eve.service").mkdir()
    assert limits.find([("systemd", "jupyter-eve.service")]) == {}


def test_without_cgroups_of_version_2_it_says_so(
    tree: Path, limits: CgroupLimits
) -> None:
    (tree / "cgroup.controllers").unlink()
    with pytest.raises(SourceUnavailable, match="unified_cgroup_hierarchy=1"):
        limits.find([ADA])


# -- what the driver is told

CGROUP = "/system.slice/jupyter-ada.service"


def test_a_hard_limit_is_set_read_back_and_lifted(
    driver: Scenario, tree: Path, limits: CgroupLimits
) -> None:
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    wanted = {"GPU-a": 3 * GIB, "GPU-b": 5 * GIB}
    assert limits.hold(CGROUP, wanted) == (wanted, True)
    at = str(tree / CGROUP[1:])
    assert driver.limits == [("GPU-a", 0, 3 * GIB, at), ("GPU-b", 0, 5 * GIB, at)]
    limits.lift(CGROUP, ["GPU-a", "GPU-b"])
    assert driver.limits[2:] == [("GPU-a", 0, NONE, at), ("GPU-b", 0, NONE, at)]
    assert limits.hold(CGROUP, wanted) == (wanted, True)


def test_what_is_set_already_is_found_and_not_set_again(
    driver: Scenario, tree: Path, limits: CgroupLimits
) -> None:
    driver.say(gpu())
    limits.hold(CGROUP, {"GPU-a": 3 * GIB})
    assert CgroupLimits(tree).hold(CGROUP, {"GPU-a": 3 * GIB}) == (
        {"GPU-a": 3 * GIB},
        False,
    )
    # Never more than the lease; less is somebody else's wish.
    assert limits.hold(CGROUP, {"GPU-a": 4 * GIB}) == ({"GPU-a": 3 * GIB}, False)
    assert limits.hold(CGROUP, {"GPU-a": 2 * GIB}) == ({"GPU-a": 2 * GIB}, True)


def test_a_cgroup_that_is_gone_has_no_limit_to_lift(
    driver: Scenario, tree: Path, limits: CgroupLimits
) -> None:
    driver.say(gpu())
    (tree / CGROUP[1:]).rmdir()
    limits.lift(CGROUP, ["GPU-a"])
    assert driver.limits == []
    assert not limits.is_there(CGROUP)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (NO_PERMISSION, "only root"),
        (NOT_SUPPORTED, "offers no limits by cgroup"),
        (NOT_FOUND, "cgroup_disable=dmem"),
    ],
)
def test_a_driver_that_refuses_is_told_with_what_to_do(
    code: int, said: str, driver: Scenario, limits: CgroupLimits
) -> None:
    driver.say(gpu(), f"fail {SETTER} * {code}")
    with pytest.raises(SourceUnavailable, match=said):
        limits.hold(CGROUP, {"GPU-a": GIB})
    assert driver.calls("nvmlShutdown") == 1


def test_a_limit_that_does_not_stick_is_no_limit(
    driver: Scenario, limits: CgroupLimits
) -> None:
    # The accounting of the driver's own answers so for what has no limit.
    driver.say(gpu(), f"fail {GETTER} * {NOT_SUPPORTED}")
    with pytest.raises(SourceUnavailable, match="does not keep it"):
        limits.hold(CGROUP, {"GPU-a": GIB})


def test_a_lost_gpu_is_a_lost_source(driver: Scenario, limits: CgroupLimits) -> None:
    driver.say(gpu(), f"fail {GETTER} * {GPU_IS_LOST}")
    with pytest.raises(SourceLost):
        limits.hold(CGROUP, {"GPU-a": GIB})


def test_an_old_driver_offers_none(old_driver: Scenario, limits: CgroupLimits) -> None:
    old_driver.say(gpu())
    with pytest.raises(SourceUnavailable, match="driver 615"):
        limits.hold(CGROUP, {"GPU-a": GIB})


def test_an_old_nvidia_ml_py_offers_none(
    driver: Scenario, limits: CgroupLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.say(gpu())
    monkeypatch.delattr(pynvml, SETTER)
    with pytest.raises(SourceUnavailable, match=r"nvidia-ml-py 13\.615\.71"):
        limits.hold(CGROUP, {"GPU-a": GIB})


def test_the_structures_are_laid_out_as_the_driver_reads_them() -> None:
    # nvml.h of CUDA 13.4: a pointer, then numbers of 64 bits.
    sizes = [
        ctypes.sizeof(pynvml.c_nvmlSetMemoryLimits_v1_t),
        ctypes.sizeof(pynvml.c_nvmlGetMemoryLimits_v1_t),
    ]
    assert sizes == [24, 32]
