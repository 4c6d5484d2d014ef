"""A lease through a server's whole life, on a real hub with real processes."""

import json
import os
import re
import signal
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from jupyterhub_gpuworkshop.core.units import GIB, MIB

from .running_hub import wait_for

pytestmark = pytest.mark.hub


def _label(hub, lease):
    inventory = json.loads((hub.devices / "devices.json").read_text())
    uuids = [device["uuid"] for device in inventory["devices"]]
    return [uuids.index(uuid) for uuid in lease.uuids]


def test_servers_land_on_gpus_in_turn_and_carry_their_lease(make_hub):
    hub = make_hub().start()
    hub.add_users("ann", "bea", "cem")
    for name in ("ann", "bea", "cem"):
        hub.spawn(name)

    leases = {lease.user: lease for lease in hub.leases()}
    assert [_label(hub, leases[n]) for n in ("ann", "bea", "cem")] == [[0], [1], [2]]

    env = hub.environment_of("bea")
    share = (16 * GIB - 512 * MIB) // 5
    assert env["CUDA_VISIBLE_DEVICES"] == leases["bea"].uuids[0]
    assert env["NVIDIA_VISIBLE_DEVICES"] == leases["bea"].uuids[0]
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert env["GPUWORKSHOP_MEMORY_LIMIT_BYTES"] == str(share)
    assert float(env["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == pytest.approx(
        share / (16 * GIB), abs=0.001
    )
    state = hub.server("bea")["state"]["gpuworkshop"]
    assert state["lease_id"] == leases["bea"].id
    assert state["devices"] == list(leases["bea"].uuids)

    hub.stop_server("bea")
    assert {lease.user for lease in hub.leases()} == {"ann", "cem"}
    assert not (hub.folder / "gpuworkshop-servers" / leases["bea"].id).exists()


def test_twelve_attendees_on_four_gpus_are_three_on_each(make_hub):
    hub = make_hub().start()
    names = [f"a{i:02d}" for i in range(12)]
    hub.add_users(*names)
    for name in names:
        hub.spawn(name, wait=False)
    for name in names:
        wait_for(lambda n=name: (s := hub.server(n)) and s["ready"])
    spread = Counter(uuid for lease in hub.leases() for uuid in lease.uuids)
    assert sorted(spread.values()) == [3, 3, 3, 3]


@pytest.mark.parametrize("limit", [0, 3])
def test_a_refused_attendee_reads_why_and_the_hub_does_not_count_a_failure(
    make_hub, limit
):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 2}},
        late=f"c.Spawner.consecutive_failure_limit = {limit}",
    ).start()
    organisers = hub.token
    hub.add_users("ann", "bea", "cem")
    hub.spawn("ann")
    hub.spawn("bea")
    for _ in range(4):
        answer = hub.api("POST", "users/cem/server")
        assert answer.status_code == 503, answer.text
        assert "The GPU is taken: 2 of 2 shares." in answer.json()["message"]
        assert "ann" not in answer.text
        assert "bea" not in answer.text
    assert hub.process.poll() is None
    assert {lease.user for lease in hub.leases()} == {"ann", "bea"}

    # As the GPU service does it, whose token is good for this alone.
    secrets = (hub.folder / "secrets.env").read_text()
    hub.token = re.search("JUPYTERHUB_API_TOKEN=(.*)", secrets)[1]
    assert hub.api("DELETE", "users/ann/server").status_code in (202, 204)
    wait_for(lambda: {lease.user for lease in hub.leases()} == {"bea"})
    for method, path in [
        ("GET", "users"),
        ("GET", "users/bea"),
        ("DELETE", "users/bea"),
        ("POST", "users/cem/server"),
        ("POST", "users/bea/tokens"),
        ("GET", "groups"),
        ("GET", "services"),
        ("GET", "proxy"),
        ("POST", "shutdown"),
    ]:
        assert hub.api(method, path).status_code in (403, 404), (method, path)
    hub.token = organisers
    hub.spawn("cem")
    assert {lease.user for lease in hub.leases()} == {"bea", "cem"}


def test_when_all_are_taken_a_server_can_start_without_a_gpu(make_hub):
    hub = make_hub(
        gpus=1, workshop={"gpus": {"attendees_per_gpu": 1, "when_full": "cpu"}}
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    hub.spawn("bea")
    env = hub.environment_of("bea")
    assert env["CUDA_VISIBLE_DEVICES"] == "-1"
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert env["GPUWORKSHOP_SHARE"] == "cpu"
    assert "GPUWORKSHOP_MEMORY_LIMIT_BYTES" not in env
    lease = next(lease for lease in hub.leases() if lease.user == "bea")
    assert lease.devices == ()
    assert "without a GPU" in lease.reason


def test_without_any_gpu_the_hub_starts_and_cpu_servers_do(make_hub):
    hub = make_hub(gpus=1, workshop={"shares": {"users": {"ann": "cpu"}}})
    (hub.devices / "devices.json").unlink()
    hub.start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    answer = hub.api("POST", "users/bea/server")
    assert answer.status_code == 503
    assert "There is no GPU to share" in answer.json()["message"]


def test_a_crashed_server_gives_its_lease_back(make_hub):
    hub = make_hub(early="c.Spawner.poll_interval = 1").start()
    hub.add_users("ann")
    hub.spawn("ann")
    (server,) = hub.servers_alive()
    server.kill()
    wait_for(lambda: not hub.leases(), why="the lease of a dead server is still there")


def test_named_servers_have_leases_of_their_own(make_hub):
    hub = make_hub(gpus=2, early="c.JupyterHub.allow_named_servers = True").start()
    hub.add_users("ann")
    hub.spawn("ann")
    hub.spawn("ann", "second")
    leases = {lease.server: lease for lease in hub.leases()}
    assert set(leases) == {"", "second"}
    assert leases[""].uuids != leases["second"].uuids
    hub.stop_server("ann", "second")
    assert [lease.server for lease in hub.leases()] == [""]


def test_a_spawn_that_times_out_gives_its_lease_back(make_hub):
    hub = make_hub(
        early="""
c.Spawner.environment["STUB_NEVER_ANSWERS"] = "1"
c.Spawner.http_timeout = 3
"""
    ).start()
    hub.add_users("ann")
    assert hub.api("POST", "users/ann/server").status_code == 500
    assert "Granted 1/5 to ann" in hub.log
    wait_for(lambda: not hub.leases(), why="the lease is still there")
    assert not hub.servers_alive()


def test_a_start_that_takes_too_long_gives_its_lease_back(make_hub):
    hub = make_hub(
        early="""
import asyncio
from jupyterhub.spawner import SimpleLocalProcessSpawner
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin

class Slow(SimpleLocalProcessSpawner):
    async def start(self):
        await asyncio.sleep(3600)

class GpuSlow(GpuSpawnerMixin, Slow):
    pass

c.JupyterHub.spawner_class = GpuSlow
c.Spawner.start_timeout = 2
"""
    ).start()
    hub.add_users("ann")
    assert hub.api("POST", "users/ann/server").status_code == 500
    assert "Granted 1/5 to ann" in hub.log
    wait_for(lambda: not hub.leases(), why="the lease is still there")


def test_a_cancelled_spawn_gives_its_lease_back(make_hub):
    hub = make_hub(early='c.Spawner.environment["STUB_NEVER_ANSWERS"] = "1"').start()
    hub.add_users("ann")
    hub.spawn("ann", wait=False)
    wait_for(lambda: hub.leases() and hub.servers_alive())
    assert hub.api("DELETE", "users/ann/server").ok
    wait_for(lambda: not hub.leases(), why="the lease is still there")
    assert not hub.servers_alive()


def test_a_server_that_will_not_stop_is_quarantined_until_it_is_gone(make_hub):
    hub = make_hub(
        gpus=1,
        workshop={"gpus": {"attendees_per_gpu": 1}},
        early="""
from jupyterhub_gpuworkshop.hub.spawners.local import GpuSimpleSpawner

class Stubborn(GpuSimpleSpawner):
    async def stop(self, now=False):
        raise RuntimeError("cannot be stopped")

c.JupyterHub.spawner_class = Stubborn
c.Spawner.environment["STUB_IGNORES_SIGNALS"] = "1"
""",
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    (server,) = hub.servers_alive()
    os.kill(server.pid, signal.SIGSTOP)  # nothing short of SIGKILL ends it now
    hub.api("DELETE", "users/ann/server")
    wait_for(lambda: [x for x in hub.leases() if x.state == "quarantined"])
    assert hub.api("POST", "users/bea/server").status_code == 503
    # The reconciler asks it to end, then ends it, and only then is there room.
    wait_for(lambda: not hub.leases(), why="the quarantine never ends")
    assert server.pid not in [process.pid for process in hub.servers_alive()]
    hub.spawn("bea")


def test_an_admins_variables_stay_except_where_they_break_the_lease(make_hub):
    hub = make_hub(
        early="""
c.Spawner.environment["CUDA_VISIBLE_DEVICES"] = "0,1,2,3"
c.Spawner.environment["CUPY_GPU_MEMORY_LIMIT"] = "1000000"
c.Spawner.environment["MY_OWN"] = lambda spawner: spawner.user.name
"""
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    env = hub.environment_of("ann")
    assert env["CUDA_VISIBLE_DEVICES"].startswith("GPU-")
    assert env["CUPY_GPU_MEMORY_LIMIT"] == "1000000"
    assert env["MY_OWN"] == "ann"
    assert "Spawner.environment sets CUDA_VISIBLE_DEVICES='0,1,2,3'" in hub.log


def test_shares_come_from_users_groups_and_a_callable(make_hub):
    hub = make_hub(
        workshop={
            "shares": {"users": {"ann": "2 gpus"}, "groups": {"big": "8GiB"}},
        },
        early="""
c.GpuSpawnerMixin.share = lambda spawner: "cpu" if spawner.user.name == "dee" else None
""",
    ).start()
    hub.add_users("ann", "bea", "dee")
    assert hub.api("POST", "groups/big").ok
    assert hub.api("POST", "groups/big/users", json={"users": ["bea"]}).ok
    for name in ("ann", "bea", "dee"):
        hub.spawn(name)
    leases = {lease.user: lease for lease in hub.leases()}
    assert len(leases["ann"].devices) == 2
    assert leases["ann"].exclusive
    assert leases["bea"].devices[0].memory_bytes == 8 * GIB
    assert leases["bea"].uuids[0] not in leases["ann"].uuids
    assert leases["dee"].devices == ()


def test_a_ledger_newer_than_the_code_refuses_shares_and_says_so(make_hub):
    hub = make_hub().start()
    wait_for(lambda: "Looked for GPUs" in hub.log)
    hub.close()
    with sqlite3.connect(hub.folder / "gpuworkshop.sqlite") as database:
        database.execute(
            "UPDATE gpuworkshop_alembic_version SET version_num = 'from_the_future'"
        )
    database.close()
    hub.start()
    hub.add_users("ann")
    answer = hub.api("POST", "users/ann/server")
    assert answer.status_code == 503
    assert "Tell the organiser" in answer.json()["message"]
    assert "newer" in hub.log
    assert not [p for p in hub.servers_alive() if psutil.pid_exists(p.pid)]


def test_the_spawn_page_names_share_and_device_as_it_goes(make_hub):
    hub = make_hub(early='c.Spawner.environment["STUB_NEVER_ANSWERS"] = "1"').start()
    hub.add_users("ann")
    with ThreadPoolExecutor(1) as pool:
        spawning = pool.submit(hub.api, "POST", "users/ann/server")
        wait_for(hub.leases, why="no lease was granted")
        with hub.api("GET", "users/ann/server/progress", stream=True) as stream:
            messages = (
                json.loads(line.removeprefix(b"data: "))["message"]
                for line in stream.iter_lines()
                if line.startswith(b"data: ")
            )
            assert next(m for m in messages if m.startswith("Your share")) == (
                "Your share: 1/5, GPU 0 (3.1 GiB of its memory)"
            )
        assert hub.api("DELETE", "users/ann/server").ok
        spawning.result()
    wait_for(lambda: not hub.leases(), why="the lease is still there")


def test_a_driver_that_hangs_refuses_gpu_shares_and_nothing_else(make_hub):
    hub = make_hub(
        gpus=1,
        workshop={"shares": {"users": {"ann": "cpu"}}},
        early="""
import asyncio, sys
import jupyterhub_gpuworkshop.hub.look as look
plain = asyncio.create_subprocess_exec
def hangs(*command, **kwargs):
    return plain(sys.executable, "-c", "import time; time.sleep(3600)", **kwargs)
look.create_subprocess_exec = hangs
look.LIMIT_SECONDS = 2.0
""",
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    answer = hub.api("POST", "users/bea/server")
    assert answer.status_code == 503
    assert "the GPU driver did not answer within 2 s" in answer.json()["message"]
    assert "the GPU driver did not answer" in hub.log
    (server,) = hub.servers_alive()
    assert [p.pid for p in psutil.Process(hub.process.pid).children()] == [server.pid]
