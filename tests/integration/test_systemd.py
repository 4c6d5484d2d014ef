"""gpu-systemd under systemd itself: units, their devices, and the life of a lease."""

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_engine
from tests.engines.systemd_machine import NVIDIA_MAJOR, SystemdMachine
from tests.hub.running_hub import ROOT, wait_for
from tests.machine import nvml_double
from tests.machine.nvml_double.words import gpu

from .systemd_hub import NODES, PLAIN, SystemdHub, install_driver

pytestmark = [pytest.mark.hub, pytest.mark.systemd]

REFUSED, ALLOWED = "EPERM", "ENXIO"
"""What answers an open: of a closed node, and of one with nothing behind it."""

SHARED = {
    *("/dev/nvidiactl", "/dev/nvidia-modeset"),
    *("/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
}
UNIT = "jupyter-{}-singleuser.service"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that machine and host share, readable by every attendee."""
    path = tmp_path / "shared"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def machine(folder: Path, request: pytest.FixtureRequest) -> Iterator[SystemdMachine]:
    present = SystemdMachine.is_installed()
    require_engine("systemd", present, SystemdMachine.INSTALL_HINT)
    engine = request.getfixturevalue("docker_engine")
    machine = SystemdMachine(engine, f"--volume={folder}:{folder}")
    yield machine
    machine.close()


@pytest.fixture
def driver(folder: Path) -> nvml_double.Scenario:
    """A driver with two GPUs whose minor numbers are not their indices."""
    require_engine("gcc", shutil.which("gcc") is not None, "apt install gcc libc6-dev")
    (folder / "driver").mkdir()
    library = nvml_double.build(folder / "driver")
    scenario = nvml_double.Scenario(folder, library)
    scenario.say(gpu("GPU-a", minor=1), gpu("GPU-b", minor=0))
    return scenario


@pytest.fixture
def make_hub(folder: Path, machine: SystemdMachine) -> Callable[..., SystemdHub]:
    def make(*names: str, **kwargs: Any) -> SystemdHub:
        for name in names:
            machine.add_user(name)
        hub = SystemdHub(folder, machine, **kwargs).start()
        hub.add_users(*names)
        return hub

    return make


@pytest.fixture
def make_gpu_hub(
    make_hub: Callable[..., SystemdHub],
    machine: SystemdMachine,
    driver: nvml_double.Scenario,
) -> Callable[..., SystemdHub]:
    """A factory of hubs on a machine with the double of a driver."""

    def make(*names: str, **kwargs: Any) -> SystemdHub:
        environment = install_driver(machine, driver)
        workshop = {"gpus": {"source": "nvml", "attendees_per_gpu": 1}}
        return make_hub(*names, workshop=workshop, environment=environment, **kwargs)

    return make


def opened(hub: SystemdHub, name: str) -> set[str]:
    """Return which of NVIDIA's nodes a server may open; every other is refused."""
    answers = hub.opens(name, *NODES)
    assert set(answers.values()) <= {REFUSED, ALLOWED}, answers
    return {path for path, answer in answers.items() if answer == ALLOWED}


def test_a_server_opens_the_gpu_of_its_lease_and_no_other(make_gpu_hub, machine):
    early = """
c.SystemdSpawner.unit_extra_properties = {
    "CPUWeight": "33",
    "Description": "The server of {USERNAME}",
    "DeviceAllow": ["/dev/char/10:200 rw", "/dev/nvidia2 rw"],
}
"""
    hub = make_gpu_hub("ada", "bea", early=early)
    for name in ("ada", "bea"):
        hub.spawn(name)
    leases = {lease.user: lease for lease in hub.leases()}
    minors = {"GPU-a": "/dev/nvidia1", "GPU-b": "/dev/nvidia0"}
    for name in ("ada", "bea"):
        (uuid,) = leases[name].uuids
        assert hub.environment_of(name)["CUDA_VISIBLE_DEVICES"] == uuid
        # It does not matter what the attendee does to the environment.
        assert opened(hub, name) == {minors[uuid], *SHARED}
        assert set(hub.opens(name, *PLAIN).values()) == {"opens"}
        assert (leases[name].engine, leases[name].engine_id) == (
            *("systemd", UNIT.format(name)),
        )
    assert {x for lease in leases.values() for x in lease.uuids} == set(minors)

    wanted = ("DevicePolicy", "DeviceAllow", "CPUWeight", "Description", "User", "UID")
    shown = machine.properties(UNIT.format("ada"), *wanted)
    assert shown["DevicePolicy"] == "closed"
    # What is the admin's survives, but for a GPU past the lease.
    assert shown["CPUWeight"] == "33"
    assert shown["Description"] == "The server of ada"
    assert "/dev/char/10:200 rw" in shown["DeviceAllow"].splitlines()
    assert "nvidia2" not in shown["DeviceAllow"]
    assert "/dev/nvidia2 rw of unit_extra_properties is left out" in hub.log
    assert shown["UID"] == machine.run("id", "-u", "ada").stdout.strip()
    # Docker's containers would lose their GPUs here.
    machine.run("systemctl", "daemon-reload")
    assert opened(hub, "ada") == {minors[leases["ada"].uuids[0]], *SHARED}
    hub.stop_server("ada")
    assert [lease.user for lease in hub.leases()] == ["bea"]


def test_a_share_of_cpu_reaches_no_gpu_and_a_new_share_counts_from_the_next_start(
    make_gpu_hub, folder
):
    share = folder / "share"
    share.write_text("cpu")
    hub = make_gpu_hub(
        "ada",
        early=f"c.GpuSpawnerMixin.share = lambda spawner: open({str(share)!r}).read()",
    )
    hub.spawn("ada")
    assert opened(hub, "ada") == set()
    assert set(hub.opens("ada", *PLAIN).values()) == {"opens"}
    share.write_text("2 gpus")
    assert opened(hub, "ada") == set()
    hub.stop_server("ada")
    hub.spawn("ada")
    assert opened(hub, "ada") == {"/dev/nvidia0", "/dev/nvidia1", *SHARED}


def test_a_slice_opens_with_its_own_capabilities_only(make_gpu_hub, driver):
    driver.change("gpu GPU-a", gpu("GPU-a", minor=1, mig=1))
    driver.change("gpu GPU-b", f"mig GPU-a 0 MIG-x {5 * 2**30} 0 0")
    hub = make_gpu_hub("ada")
    hub.spawn("ada")
    (lease,) = hub.leases()
    assert lease.uuids == ("MIG-x",)
    caps = {f"/dev/nvidia-caps/nvidia-cap{minor}" for minor in (66, 67)}
    assert opened(hub, "ada") == {"/dev/nvidia1", *caps, *SHARED}


def test_a_dev_of_its_own_gives_way_to_the_lease(make_gpu_hub):
    hub = make_gpu_hub("ada", early="c.SystemdSpawner.isolate_devices = True")
    hub.spawn("ada")
    assert len(opened(hub, "ada")) == 1 + len(SHARED)
    assert "isolate_devices (PrivateDevices=yes) is off for this server" in hub.log


def test_simulated_gpus_leave_the_real_ones_closed(make_hub, machine):
    for minor in (0, 1):
        machine.make_node(f"/dev/nvidia{minor}", NVIDIA_MAJOR, minor)
    hub = make_hub("ada")
    hub.spawn("ada")
    nodes = ["/dev/nvidia0", "/dev/nvidia1"]
    assert set(hub.opens("ada", *nodes).values()) == {REFUSED}
    assert hub.leases()[0].devices


def test_servers_and_leases_live_through_a_killed_hub(make_hub, machine):
    hub = make_hub("ada", "bea", gpus=2)
    for name in ("ada", "bea"):
        hub.spawn(name)
    before = {lease.user: lease for lease in hub.leases()}
    pids = {name: machine.properties(UNIT.format(name), "MainPID") for name in before}
    hub.kill()
    hub.start()
    wait_for(lambda: (s := hub.server("ada")) and s["ready"])
    assert {lease.user: lease for lease in hub.leases()} == before
    assert pids == {
        name: machine.properties(UNIT.format(name), "MainPID") for name in before
    }
    assert hub.server("ada")["state"]["gpuworkshop_unix_user"] == "ada"
    hub.stop_server("ada")
    assert [lease.user for lease in hub.leases()] == ["bea"]
    assert len(hub.servers_alive()) == 1


def test_a_unit_that_the_hub_forgot_is_ended_and_its_lease_released(make_hub):
    hub = make_hub("ada", "bea", gpus=1, workshop={"gpus": {"attendees_per_gpu": 1}})
    hub.spawn("ada")
    hub.kill()
    with sqlite3.connect(hub.folder / "jupyterhub.sqlite") as database:
        database.execute("UPDATE spawners SET server_id = NULL")
        database.execute("DELETE FROM servers WHERE id > 1")
    database.close()
    (server,) = hub.servers_alive()
    hub.start()
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    assert not server.is_running()
    assert "Ending the forgotten server of ada" in hub.log
    hub.spawn("bea")


def test_a_hub_killed_while_a_unit_starts_loses_no_share(make_hub):
    hub = make_hub(
        "ada",
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early="""
import os, pathlib, signal
from systemdspawner import SystemdSpawner
plain_start = SystemdSpawner.start
async def start(self):
    result = await plain_start(self)
    killed = pathlib.Path("killed")
    if not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result
SystemdSpawner.start = start
""",
    )
    with pytest.raises(OSError, match=r".*"):
        hub.spawn("ada")
    hub.wait_for_death()
    assert len(hub.servers_alive()) == 1
    assert len(hub.leases()) == 1
    hub.start()
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    assert not hub.servers_alive()
    assert hub.server("ada") is None
    hub.spawn("ada")


def test_a_process_that_outlives_its_server_keeps_the_share_until_it_is_ended(
    make_hub, machine
):
    hub = make_hub(
        "ada",
        early="""
c.Spawner.environment["LEAVES_A_PROCESS"] = "1"
c.SystemdSpawner.unit_extra_properties = {"KillMode": "process"}
""",
    )
    hub.spawn("ada")
    assert len(hub.servers_alive()) == 2
    hub.stop_server("ada")
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    assert "Quarantined the lease of ada" in hub.log
    assert not hub.servers_alive()


def test_a_crashed_server_gives_its_share_back(make_hub, machine):
    hub = make_hub("ada", early="c.Spawner.poll_interval = 1")
    hub.spawn("ada")
    machine.run("systemctl", "kill", "--signal=SIGKILL", UNIT.format("ada"))
    wait_for(lambda: not hub.leases(), why="the lease outlives its server")
    assert hub.server("ada") is None


def test_named_servers_run_side_by_side(make_hub, machine):
    hub = make_hub("ada", gpus=2, workshop={"gpus": {"attendees_per_gpu": 1}})
    hub.spawn("ada")
    hub.spawn("ada", "lab")
    units = {lease.server: lease.engine_id for lease in hub.leases()}
    assert units == {
        "": "jupyter-ada-singleuser.service",
        "lab": "jupyter-ada-singleuser--lab.service",
    }
    assert len(hub.servers_alive()) == 2
    hub.stop_server("ada", "lab")
    assert [lease.server for lease in hub.leases()] == [""]
    assert len(hub.servers_alive()) == 1


def test_a_name_that_does_not_fit_a_unit_is_refused_and_stops_nobody(make_hub):
    hub = make_hub("ada")
    hub.spawn("ada")
    hub.add_users("a*")
    answer = hub.api("POST", "users/a*/server")
    assert answer.status_code == 503
    assert "does not fit a unit" in answer.json()["message"]
    assert "cannot hold '*'" in hub.log
    assert [lease.user for lease in hub.leases()] == ["ada"]
    assert len(hub.servers_alive()) == 1
    assert hub.server("ada")["ready"]


def test_a_start_refused_for_the_name_of_anothers_unit_leaves_that_server_running(
    make_hub,
):
    hub = make_hub(
        *("ada", "ada--x"),
        early='c.SystemdSpawner.unit_name_template = "jupyter-{USERNAME}"\n',
    )
    hub.spawn("ada--x")
    answer = hub.api("POST", "users/ada/servers/x")
    assert answer.status_code == 503
    assert "another one runs under its name" in answer.json()["message"]
    # The hub stops what it could not start.
    wait_for(lambda: not hub.api("GET", "users/ada").json()["servers"])
    assert len(hub.servers_alive()) == 1
    assert [lease.user for lease in hub.leases()] == ["ada--x"]


def test_a_unit_that_systemd_refuses_is_told_without_waiting(make_hub):
    hub = make_hub(
        "ada", early='c.SystemdSpawner.unit_extra_properties = {"NoSuchThing": "x"}'
    )
    answer = hub.api("POST", "users/ada/server")
    assert answer.status_code in (202, 500)
    wait_for(lambda: "ended as soon as it was started" in hub.log)
    wait_for(lambda: not hub.leases(), why="the share is lost for good")


def test_uvm_is_loaded_before_the_first_server_of_a_boot(make_gpu_hub, machine, folder):
    said = folder / "modprobe"
    machine.write(
        "/opt/bin/nvidia-modprobe", f'#!/bin/sh\necho "$@" >>{said}\n', mode=0o755
    )
    early = """
import os
os.environ["PATH"] = "/opt/bin:" + os.environ["PATH"]
"""
    hub = make_gpu_hub("ada", "bea", early=early)
    hub.spawn("ada")
    assert not said.exists(), "it was loaded already"
    machine.run("umount", "/proc/devices")
    hub.spawn("bea")
    assert said.read_text() == "-c=0 -u\n"
    assert "nvidia-uvm is not loaded" not in hub.log
    machine.run("rm", "/opt/bin/nvidia-modprobe")
    hub.stop_server("bea")
    hub.spawn("bea")
    assert "Run `nvidia-modprobe -c=0 -u` as root" in hub.log


def test_the_rules_in_the_docs_close_the_gpus_to_an_attendees_own_manager(machine):
    text = (ROOT / "docs/explanation/what-is-soft.md").read_text()
    recipe = text.partition("```bash\n")[2].partition("```")[0].replace("sudo ", "")
    machine.make_node("/dev/nvidia0", NVIDIA_MAJOR, 0)
    machine.run("chmod", "666", "/dev/nvidia0")
    assert (machine.add_user("organiser"), machine.add_user("ada")) == (1000, 1001)

    def outside(uid: int) -> str:
        """Return what a program of the user's own manager meets at the GPU."""
        machine.run("systemctl", "start", f"user@{uid}.service")
        run = ("systemd-run", "--user", "--wait", "--pipe", "cat", "/dev/nvidia0")
        manager = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
        user = "ada" if uid == 1001 else "organiser"
        return machine.run(*run, user=user, env=manager, check=False).stderr

    assert "No such device or address" in outside(1001)
    machine.run("bash", "-euc", recipe)
    assert "Operation not permitted" in outside(1001)
    assert "No such device or address" in outside(1000)


def test_the_python_of_the_tests_is_the_machines(machine):
    said = machine.run(sys.executable, "-c", "import systemdspawner; print('here')")
    assert said.stdout == "here\n"
