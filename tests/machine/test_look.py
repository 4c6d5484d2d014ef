"""The hub's one short-lived child: what it prints, how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import SourceUnavailable
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import INVENTORY
from jupyterhub_gpuworkshop.machine import look
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.machine.source import open_source

from .nvml_double import Scenario

LOOK = (sys.executable, "-m", "jupyterhub_gpuworkshop.machine.look")


def seen(*arguments: str, **environment: str) -> Inventory:
    child = subprocess.run(  # noqa: S603 - our own interpreter
        [*LOOK, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return INVENTORY.validate_json(child.stdout)


@pytest.mark.gcc
def test_it_prints_what_the_driver_has(driver: Scenario) -> None:
    driver.say(f"gpu GPU-a 0 {16 * GIB} 0 0 0 0")
    inventory = seen("--source", "nvml", **driver.environment)
    assert [d.uuid for d in inventory.devices] == ["GPU-a"]
    assert (inventory.source, inventory.problem) == ("nvml", "")
    assert inventory.taken_at > 0


@pytest.mark.gcc
def test_a_driver_that_cannot_be_used_is_an_answer_too(driver: Scenario) -> None:
    driver.say("fail nvmlInitWithFlags * 9")
    inventory = seen("--source", "nvml", **driver.environment)
    assert inventory.devices == ()
    assert inventory.source == "nvml"
    assert "not loaded" in inventory.problem


@pytest.mark.gcc
def test_a_driver_that_fails_on_the_way_out_does_not_spoil_the_answer(
    driver: Scenario,
) -> None:
    driver.say(f"gpu GPU-a 0 {16 * GIB} 0 0 0 0", "hang nvmlShutdown")
    assert seen("--source", "nvml", **driver.environment).devices


@pytest.mark.gcc
def test_a_driver_that_hangs_is_ended_by_whoever_looks(driver: Scenario) -> None:
    driver.say(f"gpu GPU-a 0 {16 * GIB} 0 0 0 0", "hang nvmlDeviceGetUUID")
    os.mkfifo(driver.calls_path)
    calls = os.fdopen(os.open(driver.calls_path, os.O_RDWR), "r")
    child = subprocess.Popen(  # noqa: S603 - our own interpreter
        LOOK, env=os.environ | driver.environment, stdout=subprocess.PIPE
    )
    with calls, child:
        while "nvmlDeviceGetUUID" not in calls.readline():
            pass
        with pytest.raises(subprocess.TimeoutExpired):
            child.communicate(timeout=0.2)
        child.kill()
        assert child.communicate(timeout=30)[0] == b""
    assert child.returncode == -9


def test_it_prints_the_simulated_devices(tmp_path: Path) -> None:
    devices = create_devices(tmp_path / "gpus", 2, 16 * GIB)
    inventory = seen("--source", "simulated", "--simulated-dir", f"{tmp_path}/gpus")
    assert inventory.devices == devices
    assert inventory.source == "simulated"


def test_simulated_devices_that_are_not_there_are_an_answer_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look.main(["--source", "simulated", "--simulated-dir", f"{tmp_path}/none"])
    inventory = INVENTORY.validate_json(capsys.readouterr().out)
    assert inventory.devices == ()
    assert f"{tmp_path}/none" in inventory.problem


def test_simulated_devices_need_to_live_somewhere() -> None:
    inventory = look.look("simulated", None)
    assert "directory" in inventory.problem


def test_a_source_is_opened_by_its_name(tmp_path: Path) -> None:
    assert isinstance(open_source("nvml"), NvmlSource)
    simulated = open_source("simulated", simulated_dir=tmp_path)
    assert isinstance(simulated, SimulatedSource)


def test_a_source_of_another_name_is_refused() -> None:
    with pytest.raises(SourceUnavailable, match=r"'rocm'.*nvml or simulated"):
        open_source("rocm")


def test_whoever_looks_at_simulated_gpus_never_loads_nvml(tmp_path: Path) -> None:
    create_devices(tmp_path, 1, GIB)
    code = (
        "import sys; from pathlib import Path;"
        "from jupyterhub_gpuworkshop.machine import look;"
        f"look.look('simulated', Path({str(tmp_path)!r}));"
        "print([m for m in ('pynvml', 'jupyterhub', 'sqlalchemy', 'tornado')"
        " if m in sys.modules])"
    )
    child = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    )
    assert child.stdout == "[]\n"
