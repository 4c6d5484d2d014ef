"""The reconciler ends what the hub has forgotten, and nothing else."""

import sqlite3

import pytest

from .running_hub import wait_for

pytestmark = pytest.mark.hub


def _reconciled_again(hub):
    """Wait until the ledger has surely been compared twice with what runs."""
    hub.add_users("passer-by")
    hub.spawn("passer-by")
    hub.stop_server("passer-by")
    hub.spawn("passer-by")
    hub.stop_server("passer-by")


def test_a_renamed_attendee_keeps_server_and_lease_through_a_restart(make_hub):
    hub = make_hub(gpus=2).start()
    hub.add_users("ann")
    hub.spawn("ann")
    (server,) = hub.servers_alive()
    (lease,) = hub.leases()
    assert hub.api("PATCH", "users/ann", json={"name": "anna"}).ok
    hub.kill()
    hub.start()
    wait_for(lambda: (s := hub.server("anna")) and s["ready"])
    _reconciled_again(hub)
    assert server.is_running()
    assert hub.leases() == [lease]
    assert hub.server("anna")["state"]["gpuworkshop"]["lease_id"] == lease.id
    hub.stop_server("anna")
    assert not hub.leases()


def test_servers_live_through_a_ledger_that_is_mended_while_the_hub_runs(make_hub):
    hub = make_hub(gpus=1, workshop={"gpus": {"attendees_per_gpu": 2}}).start()
    hub.add_users("ann", "bea", "cem")
    hub.spawn("ann")
    (server,) = hub.servers_alive()
    (lease,) = hub.leases()
    hub.kill()

    def set_version(old, new):
        with sqlite3.connect(hub.folder / "gpuworkshop.sqlite") as database:
            database.execute(
                "UPDATE gpuworkshop_alembic_version "
                "SET version_num = replace(version_num, ?, ?)",
                (old, new),
            )
            (now,) = database.execute(
                "SELECT version_num FROM gpuworkshop_alembic_version"
            ).fetchone()
        database.close()
        return now

    version = set_version("", "")
    set_version(version, "from_the_future")
    hub.start()
    wait_for(lambda: (s := hub.server("ann")) and s["ready"])
    assert hub.api("POST", "users/bea/server").status_code == 503
    set_version("from_the_future", version)

    hub.spawn("bea")
    _reconciled_again_without_room(hub)
    assert server.is_running(), "a server that the hub has on record was ended"
    assert lease in hub.leases()
    assert hub.api("POST", "users/cem/server").status_code == 503
    hub.stop_server("ann")
    assert {lease.user for lease in hub.leases()} == {"bea"}


def _reconciled_again_without_room(hub):
    for _ in range(3):
        assert hub.api("POST", "users/cem/server").status_code == 503
        hub.stop_server("bea")
        hub.spawn("bea")


def test_only_its_own_records_are_removed_from_the_folder_of_records(make_hub):
    hub = make_hub()
    hub.close()
    folder = hub.folder / "shared"
    config = hub.folder / "jupyterhub_config.py"
    config.write_text(config.read_text() + f'\nc.GpuRuntime.state_dir = "{folder}"\n')
    (folder / "home").mkdir(parents=True)
    (folder / "jupyterhub.sqlite").write_text("precious")
    hub.start()
    hub.add_users("ann")
    hub.spawn("ann")
    hub.stop_server("ann")
    assert sorted(path.name for path in folder.iterdir()) == [
        "home",
        "jupyterhub.sqlite",
    ]
    assert "could not be reconciled" not in hub.log


def test_a_folder_of_records_that_cannot_be_made_refuses_shares_and_says_so(make_hub):
    hub = make_hub()
    (hub.folder / "file").write_text("in the way")
    config = hub.folder / "jupyterhub_config.py"
    config.write_text(
        config.read_text() + f'\nc.GpuRuntime.state_dir = "{hub.folder}/file/x"\n'
    )
    hub.start()
    hub.add_users("ann")
    answer = hub.api("POST", "users/ann/server")
    assert answer.status_code == 503, answer.text
    assert "Tell the organiser" in answer.json()["message"]
    assert "state_dir" in hub.log


def test_a_forgotten_server_is_given_time_to_end(make_hub):
    hub = make_hub(
        gpus=1,
        early="""
from jupyterhub_gpuworkshop.hub.spawners.local import GpuSimpleSpawner

class Stubborn(GpuSimpleSpawner):
    async def stop(self, now=False):
        raise RuntimeError("cannot be stopped")

c.JupyterHub.spawner_class = Stubborn
c.Spawner.environment["STUB_ENDS_AFTER"] = "3"
""",
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    (server,) = hub.servers_alive()
    hub.api("DELETE", "users/ann/server")
    wait_for(lambda: not hub.leases(), why="the quarantine never ends")
    assert "Sent SIGTERM to the forgotten server of ann" in hub.log
    assert "Sent SIGKILL" not in hub.log
    assert not server.is_running()


def test_a_server_without_a_record_that_will_not_stop_keeps_its_device(make_hub):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early="""
from pathlib import Path
from jupyterhub.spawner import Spawner
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.spawners.local import GpuSimpleSpawner

class Elsewhere(Spawner):
    # A server on another machine: it answers, and lives while this file is there.
    async def start(self):
        Path("elsewhere").touch()
        return ("127.0.0.1", self.hub.port)

    async def poll(self):
        return None if Path("elsewhere").exists() else 0

    async def stop(self, now=False):
        raise RuntimeError("cannot be stopped")

class GpuElsewhere(GpuSpawnerMixin, Elsewhere):
    pass

c.JupyterHub.spawner_class = GpuElsewhere
from jupyterhub.user import User
async def _wait_up(self, spawner):
    spawner._start_pending = spawner._waiting_for_response = False
    return spawner
User._wait_up = _wait_up
""",
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    hub.api("DELETE", "users/ann/server")
    wait_for(lambda: [x for x in hub.leases() if x.state == "quarantined"])
    for _ in range(3):
        # Each refusal is a later moment: the reconciler was asked to come soon.
        answer = hub.api("POST", "users/bea/server")
        assert answer.status_code == 503, "the device is promised twice"
        with pytest.raises(AssertionError):
            wait_for(lambda: not hub.leases(), seconds=1)
    (hub.folder / "elsewhere").unlink()
    wait_for(lambda: not hub.leases(), why="the quarantine never ends")
    hub.spawn("bea")
