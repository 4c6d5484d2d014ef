"""What surrounds the hub goes wrong: attendees read a sentence, and all goes on."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from types import SimpleNamespace

import jupyterhub
import psutil
import pytest

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.hub import look
from jupyterhub_gpuworkshop.hub.look import look_once
from jupyterhub_gpuworkshop.hub.spawners import local
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.workshop import Workshop

from .running_hub import wait_for

_FULL_DISK = """
from pathlib import Path
from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger

def failing(name):
    plain = getattr(DurableLedger, name)
    def write(self, *args):
        if Path(f"no-{name}").exists():
            raise LedgerError("The ledger cannot be written: disk is full.")
        return plain(self, *args)
    setattr(DurableLedger, name, write)

for name in ("add", "remove", "quarantine"):
    failing(name)
"""


@pytest.mark.hub
def test_a_full_disk_refuses_shares_without_counting_a_failure(make_hub):
    hub = make_hub(
        gpus=1, early=_FULL_DISK, late="c.Spawner.consecutive_failure_limit = 2"
    ).start()
    hub.add_users("ann")
    (hub.folder / "no-add").touch()
    for _ in range(4):
        answer = hub.api("POST", "users/ann/server")
        assert answer.status_code == 503, answer.text
        assert "Tell the organiser" in answer.json()["message"]
        assert "disk" not in answer.text
    assert "ann is refused a share: The ledger cannot be written" in hub.log
    assert hub.process.poll() is None
    assert not hub.servers_alive()
    (hub.folder / "no-add").unlink()
    hub.spawn("ann")


@pytest.mark.hub
def test_a_full_disk_at_the_release_delays_it_and_loses_nothing(make_hub):
    hub = make_hub(
        gpus=1, workshop={"gpus": {"attendees_per_gpu": 1}}, early=_FULL_DISK
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    (hub.folder / "no-remove").touch()
    hub.stop_server("ann")
    assert hub.leases()
    assert hub.api("POST", "users/bea/server").status_code == 503
    (hub.folder / "no-remove").unlink()
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    hub.spawn("bea")


@pytest.mark.hub
def test_an_attendee_without_access_to_servers_does_not_silence_the_hub(make_hub):
    hub = make_hub(
        gpus=2,
        service=True,
        early="""
c.JupyterHub.load_roles.append({"name": "user", "scopes": ["read:users!user"]})
""",
    ).start()
    wait_for(lambda: "The GPU service answers" in hub.log)
    hub.add_users("ann")
    hub.spawn("ann", wait=False)
    wait_for(lambda: "nothing of it is reclaimed" in hub.log)
    hub.add_users("bea")
    hub.spawn("bea", wait=False)
    wait_for(lambda: "cannot call the server of bea" in hub.log)
    assert "Reporting to the GPU service failed" not in hub.log


@pytest.mark.hub
def test_a_hub_that_ends_with_its_servers_has_no_lease_left(make_hub):
    hub = make_hub(service=True, late="c.JupyterHub.cleanup_servers = True").start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    hub.spawn("bea")
    hub.process.terminate()
    hub.process.wait(30)
    assert not hub.servers_alive()
    assert not hub.leases()


@pytest.mark.hub
def test_a_look_at_the_configuration_leaves_the_running_hub_alone(make_hub):
    hub = make_hub(service=True).start()
    hub.add_users("ann")
    hub.spawn("ann")

    def tokens():
        with sqlite3.connect(hub.folder / "jupyterhub.sqlite") as database:
            found = database.execute(
                "SELECT id FROM api_tokens WHERE note LIKE '%read by the GPU service%'"
            ).fetchall()
        database.close()
        return found

    before = wait_for(tokens)
    done = subprocess.run(
        [sys.executable, "-m", "jupyterhub", "--show-config"],
        cwd=hub.folder,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert tokens() == before
    assert hub.server("ann")["ready"]
    hub.kill()
    hub.start()
    wait_for(lambda: before[0] not in tokens(), why="an old token is still good")


@pytest.mark.hub
def test_until_the_service_has_looked_the_hub_looks_itself(make_hub):
    """A service that answers has not looked yet: its driver takes seconds to load."""
    hub = make_hub(
        gpus=1,
        service=True,
        early="""
from jupyterhub_gpuworkshop.hub.link import HubLink
from jupyterhub_gpuworkshop.hub import runtime
from dataclasses import replace
import asyncio

plain_apply = HubLink._apply
def _apply(self, reply):
    plain_apply(self, replace(reply, inventory=None))
HubLink._apply = _apply

plain_look = runtime.look_once
async def look_once(*args, **kwargs):
    await asyncio.sleep(3)  # the service answers first
    return await plain_look(*args, **kwargs)
runtime.look_once = look_once
""",
    ).start()
    hub.add_users("ann")
    wait_for(lambda: "The GPU service answers" in hub.log)
    hub.spawn("ann")
    assert len(hub.leases()[0].devices) == 1


@pytest.mark.hub
@pytest.mark.skipif(
    jupyterhub.version_info[0] > 5, reason="JupyterHub 6 does not count refusals"
)
def test_refusals_do_not_count_however_a_success_falls_between(make_hub):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early="""
import asyncio
from jupyterhub.auth import DummyAuthenticator

class Slow(DummyAuthenticator):
    async def post_spawn_stop(self, user, spawner):
        if user.name.startswith("refused"):
            await asyncio.sleep(3)

c.JupyterHub.authenticator_class = Slow
c.Slow.allow_all = True
c.GpuSpawnerMixin.share = lambda s: "cpu" if s.user.name == "cpu" else None
""",
        late="c.Spawner.consecutive_failure_limit = 3",
    ).start()
    names = [f"refused{i}" for i in range(6)]
    hub.add_users("ann", "cpu", *names)
    hub.spawn("ann")
    threads = [
        threading.Thread(target=hub.api, args=("POST", f"users/{name}/server"))
        for name in names
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: hub.log.count("refused, ") >= len(names))
    hub.spawn("cpu")
    for thread in threads:
        thread.join()
    assert "Aborting due to" not in hub.log
    assert "consecutive spawns failed" not in hub.log
    hub.stop_server("ann")
    hub.spawn("refused0")


async def test_a_machine_that_starts_no_child_is_a_problem_that_is_told(
    tmp_path, monkeypatch
):
    create_devices(tmp_path, 1, 16 * GIB)
    workshop = Workshop.load(
        {"gpus": {"source": "simulated", "simulated_dir": str(tmp_path)}}
    )

    async def no_child(*args, **kwargs):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(look, "create_subprocess_exec", no_child)
    inventory = await look_once(workshop)
    assert not inventory.devices
    assert "Resource temporarily unavailable" in inventory.problem


async def test_a_driver_that_hangs_costs_a_child_and_no_more(tmp_path, monkeypatch):
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\necho $$ > $(dirname $0)/pid\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(look.sys, "executable", str(hangs))
    inventory = await look_once(Workshop.load({}), limit_seconds=1)
    assert "did not answer within 1 s" in inventory.problem
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not psutil.pid_exists(pid):
            break
        await asyncio.sleep(0.05)
    assert not psutil.pid_exists(pid), "a zombie or the child itself is left"


def test_a_directory_of_users_is_asked_once_for_each_server(monkeypatch):
    asked = []

    def getpwnam(name):
        asked.append(name)
        if len(asked) == 1:
            raise KeyError(name)  # not made yet
        return SimpleNamespace(pw_uid=1234)

    monkeypatch.setattr(local.pwd, "getpwnam", getpwnam)
    spawner = local.GpuLocalSpawner(user=SimpleNamespace(name="ann", settings={}))
    assert [spawner.attendee_uid() for _ in range(4)] == [None, 1234, 1234, 1234]
    assert asked == ["ann", "ann"]
