"""Attribution by the cgroups that a real systemd and a real Docker engine make."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.engines.host_image import ROOT, make_image, mount_arguments
from tests.hub.running_hub import wait_for

from .whose_process import ROLES

PROGRAM = Path(__file__).with_name("whose_process.py")
UNIT = "jupyter-ada.service"


def expected(kernel_id):
    holders = {
        "wrapper": ["server", "ada", ""],
        "server": ["server", "ada", ""],
        "kernel": ["kernel", "ada", kernel_id],
        "worker": ["kernel", "ada", kernel_id],
        "orphan": ["server", "ada", ""],
        "terminal": ["terminal", "ada", ""],
    }
    return {
        "holders": holders,
        "server": "server",
        "terminals": ["terminal"],
        "outside": ["orphan"],
    }


def everybody(found):
    return found if found["holders"].keys() == ROLES else None


@pytest.mark.docker
def test_what_runs_in_a_container_is_its_attendees(docker_engine):
    kernel_id = str(uuid.uuid4())
    image = make_image(docker_engine, "gpuworkshop-whose:latest")
    container = docker_engine.docker(
        *("run", "--detach", "--user=1000", *mount_arguments(), image),
        *(sys.executable, str(PROGRAM), "wrapper", kernel_id),
    )

    def explain(engine_id):
        result = subprocess.run(  # noqa: S603  this program
            [sys.executable, str(PROGRAM), "explain", "docker", engine_id, kernel_id],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(result.stdout)

    try:
        found = wait_for(lambda: everybody(explain(container)))
        assert found == expected(kernel_id)
        nobodys = explain("0" * 64)
        assert {kind for kind, _, _ in nobodys["holders"].values()} == {"foreign"}
    finally:
        docker_engine.docker("rm", "--force", container)


@pytest.mark.systemd
def test_what_runs_in_a_unit_is_its_attendees(systemd_machine):
    kernel_id = str(uuid.uuid4())
    systemd_machine.add_user("ada")
    start = ["systemd-run", "--uid=ada", sys.executable, PROGRAM, "wrapper", kernel_id]
    systemd_machine.run(*start[:2], f"--unit={UNIT}", *start[2:])

    def explain(unit):
        result = systemd_machine.run(
            *(sys.executable, PROGRAM, "explain", "systemd", unit, kernel_id),
            env={"PYTHONPATH": str(ROOT)},
        )
        return json.loads(result.stdout)

    assert wait_for(lambda: everybody(explain(UNIT))) == expected(kernel_id)
    nobodys = explain("jupyter-bob.service")
    assert {kind for kind, _, _ in nobodys["holders"].values()} == {"foreign"}
