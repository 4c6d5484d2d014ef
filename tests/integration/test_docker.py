"""A real hub, a real Docker engine: containers and their leases."""

import contextlib
import json
import pwd
import secrets
import sys

import pytest
import requests

from jupyterhub_gpuworkshop.hub.spawners.docker_request import HOOK_TARGET
from tests.hub.running_hub import wait_for

from .docker_hub import DockerHub

pytestmark = [pytest.mark.docker, pytest.mark.hub]

_FINDERS = (
    "import sys, json; print(json.dumps([type(x).__module__ for x in sys.meta_path]))"
)


@pytest.fixture
def make_docker_hub(docker_engine, tmp_path):
    with contextlib.ExitStack() as stack:

        def make(**kwargs):
            prefix = f"t{secrets.token_hex(4)}"
            hub = DockerHub(tmp_path, docker_engine, prefix=prefix, **kwargs)
            stack.callback(hub.close)
            return hub

        yield make


_SHARES = """
c.GpuSpawnerMixin.share = lambda spawner: {
    "cem": "cpu", "dan": "2 gpus",
}.get(spawner.user.name)
c.DockerSpawner.extra_host_config = {
    "device_requests": [{"count": -1, "capabilities": [["gpu"]]}], "shm_size": "1g",
}
"""


def test_each_container_is_handed_the_devices_of_its_lease_and_no_others(
    make_docker_hub,
):
    hub = make_docker_hub(
        early=_SHARES, changes=("ENV NVIDIA_VISIBLE_DEVICES=all",), gpus=4
    ).start()
    hub.add_users("ann", "bea", "cem", "dan")
    for name in ("ann", "bea", "cem", "dan"):
        hub.spawn(name)
    leases = {lease.user: lease for lease in hub.leases()}
    assert [len(leases[x].uuids) for x in ("ann", "bea", "cem", "dan")] == [1, 1, 0, 2]
    assert leases["ann"].uuids != leases["bea"].uuids
    for name, lease in leases.items():
        container = hub.container(name)
        assert (lease.engine, lease.engine_id) == ("docker", container["Id"])
        assert container["Config"]["Labels"]["gpuworkshop.lease"] == lease.id
        assert container["HostConfig"]["ShmSize"] == 1024**3
        # As the engine recorded them: all of the admin's four are not in it.
        requested = container["HostConfig"]["DeviceRequests"] or []
        assert [x for r in requested for x in r["DeviceIDs"]] == list(lease.uuids)
        assert all(r["Count"] == 0 for r in requested)
        inside = hub.variables(name)
        assert inside["CUDA_VISIBLE_DEVICES"] == (",".join(lease.uuids) or "-1")
        assert inside["NVIDIA_VISIBLE_DEVICES"] == (",".join(lease.uuids) or "void")
        assert inside["GPUWORKSHOP_SHARE"] == lease.share
    assert "GPUWORKSHOP_MEMORY_FRACTION" in hub.variables("ann")
    assert "CUPY_GPU_MEMORY_LIMIT" not in hub.variables("cem")
    assert "extra_host_config asks for GPUs in device_requests (all of them" in hub.log


def test_the_hook_is_mounted_read_only_and_every_python_runs_it(make_docker_hub):
    hub = make_docker_hub(
        early="c.GpuSpawnerMixin.share = lambda s: {'cem': 'cpu'}.get(s.user.name)",
        changes=("ENV PYTHONPATH=/opt/of-the-image",),
    ).start()
    hub.add_users("ann", "cem")
    hub.spawn("ann")
    hub.spawn("cem")
    (mount,) = [
        x for x in hub.container("ann")["Mounts"] if x["Destination"] == HOOK_TARGET
    ]
    assert (mount["Type"], mount["RW"]) == ("volume", False)
    finders = json.loads(hub.inside("ann", sys.executable, "-c", _FINDERS))
    assert "gpuworkshop_memory_caps" in finders
    settings = f"{HOOK_TARGET}/gpuworkshop_jupyter"
    assert hub.variables("ann")["JUPYTER_CONFIG_PATH"] == settings
    found = hub.inside("ann", "ls", settings).split()
    assert found == ["jupyter_server_config.py", "lab_button.py"]
    assert hub.variables("ann")["PYTHONPATH"] == f"{HOOK_TARGET}:/opt/of-the-image"
    touch = ("sh", "-c", f"touch {HOOK_TARGET}/x 2>&1 || true")
    assert "Read-only file system" in hub.inside("ann", *touch)
    # Without a device there is nothing to cap.
    destinations = [x["Destination"] for x in hub.container("cem")["Mounts"]]
    assert HOOK_TARGET not in destinations
    assert hub.variables("cem")["PYTHONPATH"] == "/opt/of-the-image"


def test_a_hook_in_the_image_is_found_there_and_nothing_is_mounted(make_docker_hub):
    hub = make_docker_hub(
        early='c.GpuSpawnerMixin.memory_hook_path = "/opt/in-the-image"'
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    assert hub.variables("ann")["PYTHONPATH"] == "/opt/in-the-image"
    destinations = [x["Destination"] for x in hub.container("ann")["Mounts"]]
    assert not [x for x in destinations if "gpuworkshop/startup" in x]


def test_a_volume_that_somebody_removed_is_filled_again(make_docker_hub):
    hub = make_docker_hub().start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    hub.stop_server("ann")
    hub.wait_until_free("ann")
    (volume,) = hub.engine.docker(
        "volume", "ls", "--quiet", "--filter=label=gpuworkshop.hook"
    ).split()
    hub.engine.docker("volume", "rm", volume)
    hub.spawn("bea")
    assert "gpuworkshop_memory_caps" in hub.inside(
        "bea", sys.executable, "-c", _FINDERS
    )


# -- a lease through the life of its container


_ONE_EACH = {"gpus": {"attendees_per_gpu": 1}}


def test_a_stopped_server_takes_its_container_along_and_gives_its_lease_back(
    make_docker_hub,
):
    hub = make_docker_hub(gpus=1, workshop=_ONE_EACH).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    assert hub.api("POST", "users/bea/server").status_code == 503
    hub.stop_server("ann")
    hub.wait_until_free("ann")
    hub.spawn("bea")


@pytest.mark.parametrize("how", [("kill",), ("rm", "--force")])
def test_a_container_that_dies_behind_the_hubs_back_gives_its_lease_back(
    make_docker_hub, how
):
    hub = make_docker_hub(
        gpus=1, workshop=_ONE_EACH, early="c.Spawner.poll_interval = 1"
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    hub.engine.docker(*how, hub.container("ann")["Id"])
    hub.wait_until_free("ann")
    hub.spawn("bea")


def test_containers_live_through_a_killed_hub_and_their_leases_with_them(
    make_docker_hub,
):
    hub = make_docker_hub(gpus=2).start()
    hub.add_users("ann", "bea", "cem")
    hub.spawn("ann")
    hub.spawn("bea")
    before = {lease.user: lease for lease in hub.leases()}
    hub.kill()
    hub.engine.docker("kill", hub.container("bea")["Id"])
    hub.start()
    wait_for(lambda: (s := hub.server("ann")) and s["ready"])
    hub.wait_until_free("bea")
    assert hub.leases() == [before["ann"]]
    assert hub.container("ann")["Id"] == before["ann"].engine_id
    hub.stop_server("ann")
    hub.wait_until_free("ann")


_KILLS = {
    "before the container is in the ledger": """
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin as Where
def identify_lease(self, *arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
name, instead = "identify_lease", identify_lease
""",
    "before the container starts": """
from dockerspawner import DockerSpawner as Where
async def start_object(self):
    os.kill(os.getpid(), signal.SIGKILL)
name, instead = "start_object", start_object
""",
    "after the container has started": """
from dockerspawner import DockerSpawner as Where
plain = Where.start_object
async def start_object(self):
    await plain(self)
    os.kill(os.getpid(), signal.SIGKILL)
name, instead = "start_object", start_object
""",
}
_DIE = """
import os, signal
{how}
if os.environ.get("DIE"):
    setattr(Where, name, instead)
"""


@pytest.mark.parametrize("moment", _KILLS)
def test_a_hub_killed_in_mid_spawn_leaves_no_container_and_loses_no_share(
    make_docker_hub, moment
):
    hub = make_docker_hub(
        gpus=1,
        workshop=_ONE_EACH,
        # So long the hub waits for a server whose address it did not live to write.
        early=_DIE.format(how=_KILLS[moment]) + "c.Spawner.http_timeout = 20\n",
        environment={"DIE": "1"},
    ).start()
    hub.add_users("ann", "bea")
    with pytest.raises(requests.ConnectionError):
        hub.spawn("ann")
    hub.wait_for_death()
    (container,) = hub.ids()
    (lease,) = hub.leases()
    known = "in the ledger" not in moment
    assert lease.engine_id == (container if known else "")

    del hub.environment["DIE"]
    hub.start()

    def settled():
        server = hub.server("ann")
        if server and server["ready"]:
            # The hub has found its server again; so it is not lost.
            hub.stop_server("ann")
        return not hub.leases() and not hub.ids()

    wait_for(settled, seconds=120, why="a container or a share is left")
    hub.spawn("bea")
    assert [lease.user for lease in hub.leases()] == ["bea"]


def test_a_server_that_the_ledger_cannot_name_does_not_start(make_docker_hub):
    hub = make_docker_hub(
        early="""
from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
def identify(self, *arguments):
    raise LedgerError("the disk is full")
DurableLedger.identify = identify
"""
    ).start()
    hub.add_users("ann")
    answer = hub.api("POST", "users/ann/server")
    assert answer.status_code == 503, answer.text
    assert "the hub's GPU ledger cannot be used" in answer.text
    wait_for(lambda: not hub.ids(), why="a container is left")
    wait_for(lambda: not hub.leases(), why="a lease is left")


def test_an_engine_in_trouble_is_not_taken_for_a_server_that_is_gone(make_docker_hub):
    hub = make_docker_hub(
        early="""
import pathlib
from docker.api.client import APIClient
from docker.errors import APIError
from dockerspawner import DockerSpawner
import requests
trouble = pathlib.Path("trouble")
def troubled(plain):
    def method(self, *args, **kwargs):
        if trouble.exists():
            response = requests.Response()
            response.status_code = 500
            raise APIError("containerd is gone", response)
        return plain(self, *args, **kwargs)
    return method
for name in ("inspect_container", "containers"):
    setattr(APIClient, name, troubled(getattr(APIClient, name)))
c.Spawner.poll_interval = 1
"""
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    (hub.folder / "trouble").touch()
    wait_for(lambda: "does not say whether" in hub.log, why="nobody asked")
    (hub.folder / "trouble").unlink()
    asked = hub.log.count("does not say whether")
    assert hub.server("ann")["ready"]
    hub.stop_server("ann")
    hub.wait_until_free("ann")
    assert asked


# -- what is refused at the start


def test_containers_that_are_kept_are_refused_at_start_too(make_docker_hub):
    hub = make_docker_hub()
    config = hub.folder / "jupyterhub_config.py"
    config.write_text(config.read_text() + "\nc.DockerSpawner.remove = False\n")
    hub.start()
    hub.add_users("ann")
    answer = hub.api("POST", "users/ann/server")
    assert answer.status_code == 503
    assert "Tell the organiser" in answer.text
    assert "Write c.DockerSpawner.remove = True" in hub.log
    assert not hub.ids()
    assert not hub.leases()


@pytest.mark.parametrize("template", ["", "{prefix}-{username}"])
def test_named_servers_have_containers_of_their_own(make_docker_hub, template):
    hub = make_docker_hub(
        early="c.JupyterHub.allow_named_servers = True\n"
        + (f"c.DockerSpawner.name_template = {template!r}\n" if template else "")
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    hub.spawn("ann", "two")
    ids = {lease.server: lease.engine_id for lease in hub.leases()}
    assert sorted(hub.ids()) == sorted(ids.values())
    hub.stop_server("ann", "two")
    wait_for(lambda: hub.ids() == [ids[""]], why="they share a fate")
    assert [lease.server for lease in hub.leases()] == [""]


_SYSTEM_USERS = """
from dockerspawner import SystemUserSpawner
from jupyterhub_gpuworkshop.hub.spawners.docker import GpuDockerMixin

class GpuUserSpawner(GpuDockerMixin, SystemUserSpawner):
    pass

c.JupyterHub.spawner_class = GpuUserSpawner
c.SystemUserSpawner.host_homedir_format_string = "{homes}/{{username}}"
"""


def test_the_mixin_gives_shares_to_system_users_in_containers_too(
    make_docker_hub, tmp_path
):
    home = tmp_path / "homes" / "games"
    home.mkdir(parents=True)
    hub = make_docker_hub(early=_SYSTEM_USERS.format(homes=home.parent)).start()
    hub.add_users("games")
    hub.spawn("games")
    (lease,) = hub.leases()
    container = hub.container("games")
    assert lease.engine_id == container["Id"]
    assert container["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == [*lease.uuids]
    account = pwd.getpwnam("games")
    assert container["Config"]["User"] == f"{account.pw_uid}:{account.pw_gid}"
    assert hub.variables("games")["CUDA_VISIBLE_DEVICES"] == lease.uuids[0]
    hub.stop_server("games")
    hub.wait_until_free("games")


def test_a_server_whose_containers_name_is_anothers_is_refused_and_stops_nobody(
    make_docker_hub,
):
    hub = make_docker_hub(
        early='c.DockerSpawner.name_template = "{prefix}-shared"\n'
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    before = hub.ids()
    answer = hub.api("POST", "users/bea/server")
    assert answer.status_code == 503
    assert "another one runs under its name" in answer.json()["message"]
    assert "shared is that of ann" in hub.log
    # The hub stops what it could not start.
    wait_for(lambda: not hub.api("GET", "users/bea").json()["servers"])
    wait_for(lambda: [lease.user for lease in hub.leases()] == ["ann"])
    assert hub.ids() == before
    assert hub.container("shared")["State"]["Running"]
    # After a restart of the hub it is still ann's.
    hub.kill()
    hub.start()
    wait_for(lambda: (s := hub.server("ann")) and s["ready"])
    hub.stop_server("ann")
    assert hub.ids() == []
