"""The compose file of the docs: hub, GPU service and attendees in containers."""

import re
import sys
import textwrap

import pytest
import yaml

from jupyterhub_gpuworkshop.core.units import GIB
from tests.conftest import require_engine
from tests.engines.host_image import ROOT
from tests.hub.running_hub import wait_for

from .compose_setup import EXAMPLE, ComposeSetup, compose_command

_BAR = "@jupyterlab/application-extension:top-bar"
_HOLD = textwrap.dedent(
    f"""
    import time
    from jupyterhub_gpuworkshop.notebook import simcuda
    held = simcuda.allocate({GIB})
    time.sleep(600)
    """
)


@pytest.fixture
def setup(docker_engine, tmp_path):
    command = compose_command()
    require_engine("docker", command is not None, "apt install docker-compose")
    setup = ComposeSetup(tmp_path, docker_engine, command)
    try:
        yield setup
    finally:
        setup.remove()


@pytest.mark.docker
@pytest.mark.lab
def test_hub_service_and_attendees_find_one_another_in_containers(setup):
    setup.compose("up", "--detach", "--no-build")
    wait_for(setup.is_up, seconds=90, why="the service is not up")
    wait_for(lambda: setup.snapshot()["devices"], seconds=60, why=setup.logs[-6000:])
    setup.spawn("ann")
    setup.spawn("bea")
    ann = setup.inspect("jupyter-ann")
    assert list(ann["NetworkSettings"]["Networks"]) == ["gpuworkshop"]
    # The link between hub and service is on a network where attendees are not.
    link = setup.engine.docker(
        *("network", "inspect", f"{setup.project}_link"),
        *("--format", "{{range $id, $c := .Containers}}{{$id}} {{end}}"),
    )
    ours = {setup.container("hub"), setup.container("gpu-service")}
    assert set(link.split()) == ours
    # Both are leased, answer the service, and stand on the page of the organiser.
    wait_for(
        lambda: (
            len(setup.snapshot()["leases"]) == 2 and not setup.snapshot()["problems"]
        ),
        seconds=60,
        why="the service does not see them",
    )
    # One click leads from JupyterLab in the container to the page.
    answer = setup.request("GET", f"user/ann/lab/api/settings/{_BAR}")
    buttons = answer.json()["schema"]["properties"]["toolbar"]["default"]
    (button,) = [x for x in buttons if x["name"] == "gpuworkshop"]
    assert button["args"]["url"] == "/services/gpuworkshop/"
    python = (sys.executable, "-c", _HOLD)
    path = f"--env=PYTHONPATH={ROOT}"
    setup.engine.docker("exec", "--detach", path, "jupyter-ann", *python)

    def held_by():
        return {
            (holder["user"], holder["memory_bytes"] >= GIB)
            for holder in setup.snapshot()["holders"]
        }

    wait_for(lambda: held_by() == {("ann", True)}, why=f"{setup.snapshot()}")
    # The service is where it can see whose process it is.
    assert setup.inspect(setup.container("gpu-service"))["HostConfig"]["PidMode"] == (
        "host"
    )

    setup.compose("restart", "hub")
    wait_for(setup.is_up, seconds=90, why="the hub is not back")
    wait_for(lambda: len(setup.snapshot()["leases"]) == 2, seconds=60)
    assert setup.inspect("jupyter-ann")["Id"] == ann["Id"]
    assert setup.request("DELETE", "hub/api/users/ann/server").ok
    wait_for(
        lambda: [x["user"] for x in setup.snapshot()["leases"]] == ["bea"], seconds=60
    )

    setup.remove()
    left = setup.engine.docker(
        "ps", "-aq", f"--filter=label=com.docker.compose.project={setup.project}"
    )
    assert left == ""
    networks = setup.engine.docker("network", "ls", "--format", "{{.Name}}")
    assert "gpuworkshop" not in networks.splitlines()


def test_the_example_copies_what_there_is_and_asks_for_its_passwords():
    lines = (EXAMPLE / "Dockerfile.hub").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (.*)$", lines, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "jupyterhub_gpuworkshop" in copied
    assert [x for x in copied if not (ROOT / x).exists()] == []
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    names = set(re.findall(r"^(\w+)=", (EXAMPLE / ".env.example").read_text(), re.M))
    assert names == set(compose["services"]["hub"]["environment"])
    service = compose["services"]["gpu-service"]
    (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert devices["capabilities"] == ["gpu", "utility"]
