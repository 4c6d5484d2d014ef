"""SIGKILL of the hub at every step: no share is lost, no device promised twice."""

import os
import signal
import sqlite3

import psutil
import pytest

from .running_hub import wait_for

pytestmark = pytest.mark.hub

_DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

_KILLS = {
    "before the write": """
import os, signal
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
def add(self, lease):
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("DIE"):
    DurableLedger.add = add
""",
    "after the write": """
import os, signal
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
plain_add = DurableLedger.add
def add(self, lease):
    plain_add(self, lease)
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("DIE"):
    DurableLedger.add = add
""",
    "in mid-spawn": """
import os, signal
from jupyterhub.spawner import LocalProcessSpawner
plain_start = LocalProcessSpawner.start
async def start(self):
    await plain_start(self)
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("DIE"):
    LocalProcessSpawner.start = start
""",
}


def _start_again(hub):
    hub.environment.pop("DIE")
    return hub.start()


@pytest.mark.parametrize("moment", _KILLS)
def test_a_hub_killed_while_a_server_starts_loses_no_share(make_hub, moment):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early=_KILLS[moment],
        environment={"DIE": "1"},
    ).start()
    hub.add_users("ann", "bea")
    with pytest.raises(OSError, match=r".*"):
        hub.spawn("ann")
    hub.wait_for_death()
    orphans = hub.servers_alive()
    assert len(orphans) == (moment == "in mid-spawn")

    _start_again(hub)
    # While the orphan lives, its device is promised to nobody else.
    if orphans:
        assert hub.leases() or not orphans[0].is_running()
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    assert not hub.servers_alive()
    hub.spawn("bea")
    assert [lease.user for lease in hub.leases()] == ["bea"]


def test_an_orphan_of_a_killed_hub_keeps_its_device_until_it_is_gone(make_hub):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early=_KILLS["in mid-spawn"]
        + 'c.Spawner.environment["STUB_IGNORES_SIGNALS"] = "1"\n',
        environment={"DIE": "1"},
    ).start()
    hub.add_users("ann", "bea")
    with pytest.raises(OSError, match=r".*"):
        hub.spawn("ann")
    hub.wait_for_death()
    (orphan,) = hub.servers_alive()
    os.kill(orphan.pid, signal.SIGSTOP)

    _start_again(hub)
    answer = hub.api("POST", "users/bea/server")
    assert answer.status_code == 503 or not psutil.pid_exists(orphan.pid)
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    assert orphan.pid not in [process.pid for process in hub.servers_alive()]


def test_running_servers_keep_their_leases_through_a_killed_hub(make_hub):
    hub = make_hub(gpus=2).start()
    hub.add_users("ann", "bea", "cem")
    hub.spawn("ann")
    hub.spawn("bea")
    before = {lease.user: lease for lease in hub.leases()}
    hub.kill()
    hub.start()
    wait_for(lambda: (s := hub.server("ann")) and s["ready"])
    assert {lease.user: lease for lease in hub.leases()} == before
    hub.spawn("cem")
    after = {lease.user: lease for lease in hub.leases()}
    assert {name: after[name] for name in before} == before
    state = hub.server("ann")["state"]["gpuworkshop"]
    assert state["lease_id"] == before["ann"].id
    hub.stop_server("ann")
    assert {lease.user for lease in hub.leases()} == {"bea", "cem"}


def test_a_hub_killed_in_mid_stop_neither_loses_nor_doubles_a_share(make_hub):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early="""
import os, signal
from jupyterhub.spawner import LocalProcessSpawner
plain_signal = LocalProcessSpawner._signal
async def _signal(self, number):
    answer = await plain_signal(self, number)
    if number == signal.SIGINT:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
if os.environ.get("DIE"):
    LocalProcessSpawner._signal = _signal
""",
        environment={"DIE": "1"},
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    with pytest.raises(OSError, match=r".*"):
        hub.stop_server("ann")
    hub.wait_for_death()
    _start_again(hub)
    wait_for(lambda: not hub.leases(), why="the share is lost for good")
    hub.spawn("bea")
    assert [lease.user for lease in hub.leases()] == ["bea"]


def test_a_server_that_died_while_the_hub_was_down_gives_its_lease_back(make_hub):
    hub = make_hub().start()
    hub.add_users("ann")
    hub.spawn("ann")
    hub.kill()
    (server,) = hub.servers_alive()
    server.kill()
    hub.start()
    wait_for(lambda: not hub.leases(), why="the lease is still there")


def test_a_reboot_voids_leases_even_where_process_ids_recur(make_hub):
    hub = make_hub(gpus=1, workshop={"gpus": {"attendees_per_gpu": 1}}).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    (innocent,) = hub.servers_alive()
    hub.kill()
    # After a reboot another process has the number that ann's server had.
    with sqlite3.connect(hub.folder / "gpuworkshop.sqlite") as database:
        database.execute("UPDATE gpuworkshop_leases SET boot_id = 'an earlier boot'")
    database.close()
    hub.start()
    wait_for(lambda: not hub.leases(), why="the lease outlived the reboot")
    hub.spawn("bea")
    assert innocent.is_running(), "a process that only has the number was ended"


def test_a_reused_process_id_is_not_taken_for_the_server(make_hub):
    hub = make_hub(gpus=1, workshop={"gpus": {"attendees_per_gpu": 1}}).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    (lease,) = hub.leases()
    hub.kill()
    (innocent,) = hub.servers_alive()
    record = hub.folder / "gpuworkshop-servers" / lease.id
    pid, started = record.read_text().split()
    record.write_text(f"{pid} {int(started) - 1}\n")
    hub.start()
    wait_for(lambda: not hub.leases(), why="the lease is held by a stranger")
    assert innocent.is_running(), "a process that only has the number was ended"
    hub.spawn("bea")
