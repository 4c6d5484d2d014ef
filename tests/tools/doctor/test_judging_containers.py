"""What the doctor makes of a container engine."""

from typing import Any

import pytest

from jupyterhub_gpuworkshop.tools.doctor import containers
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.doctor.reading.containers import CdiFile, Engine

DRIVER = "580.95.05"
CDI = (CdiFile(path="/etc/cdi/nvidia.yaml", driver=DRIVER),)
STALE = (CdiFile(path="/etc/cdi/nvidia.yaml", driver="570.1"),)


def engine(**changes: Any) -> Engine:
    """Return an engine that answers."""
    given: dict[str, Any] = {
        "address": "unix:///var/run/docker.sock",
        "installed": True,
        "version": "28.1",
        "cgroup_driver": "systemd",
        "cdi_folders": ("/etc/cdi",),
    }
    return Engine(**{**given, **changes})


def assert_says(check: Check, status: Status, *words: str) -> None:
    said = f"{check.finding}\n{check.remedy}"
    assert check.status is status, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("seen", "needed", "status", "words"),
    [
        (engine(), True, Status.OK, ["Docker 28.1"]),
        (Engine(), False, Status.SKIP, ["servers are not containers"]),
        (Engine(), True, Status.FAIL, ["apt install docker.io"]),
        (
            engine(version="", problem="Connection refused"),
            True,
            Status.FAIL,
            ["Connection refused", "systemctl restart docker"],
        ),
        (engine(version="", problem="Connection refused"), False, Status.SKIP, []),
        (
            engine(version="", problem="denied", needs_root=True),
            True,
            Status.SKIP,
            ["Needs root"],
        ),
    ],
)
def test_an_engine_must_answer_where_servers_are_containers(
    seen: Engine, needed: bool, status: Status, words: list[str]
) -> None:
    assert_says(containers.judge_engine(seen, needed), status, *words)


@pytest.mark.parametrize(
    ("seen", "needed", "status", "words"),
    [
        (engine(runtimes=("runc", "nvidia")), True, Status.OK, ["NVIDIA's runtime"]),
        (engine(nvidia_hook=True), True, Status.OK, ["NVIDIA's runtime"]),
        (engine(cdi=CDI), True, Status.OK, ["CDI"]),
        (engine(cdi=STALE), True, Status.FAIL, ["570.1", "cdi generate"]),
        (engine(cdi=STALE, nvidia_hook=True), True, Status.WARN, ["570.1"]),
        (engine(), True, Status.FAIL, ["nvidia-ctk runtime configure"]),
        (engine(name="Podman"), True, Status.FAIL, ["cdi generate"]),
        (engine(cdi=CDI, cdi_folders=()), True, Status.FAIL, ["neither"]),
        (engine(), False, Status.SKIP, []),
        (Engine(), True, Status.SKIP, ["no container engine"]),
    ],
)
def test_how_containers_get_their_gpus(
    seen: Engine, needed: bool, status: Status, words: list[str]
) -> None:
    assert_says(containers.judge_nvidia(seen, DRIVER, needed), status, *words)


def test_without_a_driver_nothing_is_said_of_its_runtime() -> None:
    assert containers.judge_nvidia(engine(), "", True).status is Status.SKIP
    check = containers.judge_daemon_reload(engine(), "", False, True)
    assert check.status is Status.SKIP


@pytest.mark.parametrize(
    ("driver", "links", "needed", "status"),
    [
        ("cgroupfs", False, True, Status.OK),
        ("systemd", True, True, Status.OK),
        ("systemd", False, True, Status.WARN),
        ("systemd", False, False, Status.SKIP),
    ],
)
def test_daemon_reload_takes_gpus_away_where_systemd_does_not_know_them(
    driver: str, links: bool, needed: bool, status: Status
) -> None:
    check = containers.judge_daemon_reload(
        engine(cgroup_driver=driver), DRIVER, links, needed
    )
    assert check.status is status
    if status is Status.WARN:
        assert "nvidia-ctk system create-dev-char-symlinks" in check.remedy


@pytest.mark.parametrize(
    ("image", "there", "needed", "status"),
    [
        ("lab:1", True, True, Status.OK),
        ("lab:1", False, True, Status.FAIL),
        ("lab:1", None, True, Status.SKIP),
        ("", None, True, Status.SKIP),
        ("lab:1", None, False, Status.SKIP),
    ],
)
def test_the_image_must_be_here_before_attendees_are(
    image: str, there: bool | None, needed: bool, status: Status
) -> None:
    check = containers.judge_image(engine(), image, there, needed)
    assert check.status is status
    if status is Status.FAIL:
        assert check.remedy == "$ docker pull lab:1"
