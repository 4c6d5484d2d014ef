"""The engines that other tests stand on do what those tests take for granted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .docker_engine import DockerEngine
from .host_image import make_image, mount_arguments
from .systemd_machine import NVIDIA_MAJOR

HERE = Path(__file__).parent

_OPEN = """
import errno, os
for name in ("/dev/nvidia0", "/dev/nvidia1", "/dev/null"):
    try:
        os.close(os.open(name, os.O_RDWR))
        print(name, "opens")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""


@pytest.mark.docker
def test_a_container_has_this_python_and_its_packages(docker_engine):
    image = make_image(docker_engine)
    said = docker_engine.docker(
        *("run", "--rm", "--user=1000", *mount_arguments(), image),
        *(sys.executable, "-c", "import jupyterhub, sys; print(sys.executable)"),
    )
    assert said == sys.executable


@pytest.mark.docker
def test_the_engine_records_a_request_for_devices(docker_engine):
    image = make_image(docker_engine)
    docker_engine.docker(
        *("run", "--name=asks", "--gpus=device=GPU-1", *mount_arguments(), image),
        *("/bin/sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES"),
    )
    (found,) = json.loads(docker_engine.docker("inspect", "asks"))
    (request,) = found["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-1"]
    assert docker_engine.docker("logs", "asks") == "GPU-1"
    docker_engine.docker("rm", "asks")


@pytest.mark.docker
def test_host_and_container_reach_each_other(docker_engine):
    image = make_image(docker_engine)
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).status)"
    run = ("run", "--rm", *mount_arguments())
    served = docker_engine.docker(
        *(*run, "--detach", "--publish=8001:8000", image),
        *(sys.executable, "-c", serve),
    )
    address = docker_engine.docker(
        "inspect", "--format={{.NetworkSettings.IPAddress}}", served
    )
    here = subprocess.Popen(  # noqa: S603  this Python
        [
            *(sys.executable, "-m", "http.server", "8002"),
            *("--bind", docker_engine.host_address, "--directory", str(HERE)),
        ],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    patient = (
        "import sys, time, urllib.request as u\n"
        "for _ in range(100):\n"
        "    try:\n"
        "        print(u.urlopen(sys.argv[1], timeout=5).status); break\n"
        "    except OSError: time.sleep(0.1)\n"
    )
    try:
        for url in (f"{address}:8000", f"{docker_engine.published_address}:8001"):
            answer = subprocess.check_output(  # noqa: S603  this Python
                [sys.executable, "-c", patient, f"http://{url}"], text=True
            )
            assert answer.strip() == "200", url
        for url in (f"{docker_engine.host_address}:8002", f"{address}:8000"):
            said = docker_engine.docker(
                *(*run, image, sys.executable, "-c", ask, f"http://{url}")
            )
            assert said == "200", url
    finally:
        here.kill()
        here.wait()
        docker_engine.docker("rm", "--force", served)


@pytest.mark.docker
def test_two_engines_run_side_by_side_and_leave_nothing(docker_engine):
    other = DockerEngine()
    try:
        make_image(other, "only:here")
        assert "only" in other.docker("images")
        assert "only" not in docker_engine.docker("images")
        assert other.published_address != docker_engine.published_address
    finally:
        other.remove()
    assert not other.folder.exists()
    assert f"{other.folder}/" not in Path("/proc/mounts").read_text()


@pytest.mark.systemd
def test_systemd_refuses_the_devices_that_a_unit_may_not_open(systemd_machine):
    systemd_machine.add_user("ada")
    for minor in (0, 1):
        systemd_machine.make_node(f"/dev/nvidia{minor}", NVIDIA_MAJOR, minor)
    run = ("systemd-run", "--quiet", "--wait", "--pipe", "--uid=ada")
    allow = f"--property=DeviceAllow=/dev/char/{NVIDIA_MAJOR}:1"
    script = (sys.executable, "-c", _OPEN)
    free = systemd_machine.run(*run, *script).stdout
    held = systemd_machine.run(*run, allow, *script).stdout
    assert free.splitlines() == [
        *("/dev/nvidia0 ENXIO", "/dev/nvidia1 ENXIO", "/dev/null opens")
    ]
    assert held.splitlines() == [
        *("/dev/nvidia0 EPERM", "/dev/nvidia1 ENXIO", "/dev/null opens")
    ]
