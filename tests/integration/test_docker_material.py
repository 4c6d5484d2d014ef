"""A real hub, a real Docker engine: material comes into containers."""

import contextlib
import os
import secrets

import pytest

from jupyterhub_gpuworkshop.hub.homes import read_homes
from tests.hub.running_hub import wait_for
from tests.hub.test_material import install

from .docker_hub import DockerHub

pytestmark = [pytest.mark.docker, pytest.mark.hub]

_VOLUMES = 'c.DockerSpawner.volumes = {{"{homes}/{{username}}": "/home/me/work"}}\n'


@pytest.fixture
def make_docker_hub(docker_engine, tmp_path):
    tmp_path.chmod(0o755)
    for name in ("ann", "bea"):
        home = tmp_path / "homes" / name
        home.mkdir(parents=True)
        os.chown(home, 1000, 1000)
    with contextlib.ExitStack() as stack:

        def make(early="", user="USER 1000:1000", **kwargs):
            hub = DockerHub(
                tmp_path,
                docker_engine,
                prefix=f"t{secrets.token_hex(4)}",
                early=_VOLUMES.format(homes=tmp_path / "homes") + early,
                changes=("WORKDIR /home/me", user),
                **kwargs,
            )
            stack.callback(hub.close)
            return hub

        yield make


def test_notebooks_come_into_containers_and_stay_in_their_volumes(
    make_docker_hub, tmp_path
):
    folder = tmp_path / "material"
    folder.mkdir()
    (folder / "data").mkdir()
    (folder / "data/big.bin").write_text("big")
    hub = make_docker_hub(
        workshop={
            "material": {"folder": str(folder), "open_first": "intro/start.ipynb"}
        }
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("bea")
    install(folder, 1, {"start.ipynb": "1"}, data=True)
    hub.spawn("ann")
    notebook = "/home/me/work/intro/start.ipynb"
    assert hub.inside("ann", "cat", notebook) == "1"
    assert hub.inside("ann", "stat", "-c", "%u", notebook).strip() == "1000"
    variables = hub.variables("ann")
    assert variables["JUPYTERHUB_DEFAULT_URL"] == "/lab/tree/work/intro/start.ipynb"
    assert hub.inside("ann", "cat", "/home/me/work/data/big.bin") == "big"
    assert variables["GPUWORKSHOP_DATA"] == f"{folder}/data"
    # The material itself is not theirs to change.
    with pytest.raises(AssertionError):
        hub.inside("ann", "touch", f"{folder}/data/mine")
    install(folder, 2, {"start.ipynb": "2"}, data=True)
    wait_for(lambda: hub.inside("ann", "cat", notebook) == "2", why=hub.log[-3000:])
    # One that started before there was any material gets it with the next server.
    wait_for(lambda: "Material for bea: 1 could not" in hub.log, why=hub.log[-3000:])
    assert "'Not here. A container that ran before" in hub.log
    home = read_homes(hub.folder / "roster.homes.json")["ann"]
    assert (home.kind, home.path) == ("docker", "/home/me/work")
    assert [x.source for x in home.mounts] == [str(tmp_path / "homes/ann")]
    hub.stop_server("ann")
    hub.wait_until_free("ann")
    hub.spawn("ann")
    assert hub.inside("ann", "cat", notebook) == "2"
    # A hub that is started anew reaches containers that run.
    hub.kill()
    install(folder, 3, {"start.ipynb": "3"}, data=True)
    hub.start()
    wait_for(lambda: hub.inside("ann", "cat", notebook) == "3", why=hub.log[-3000:])


def test_a_container_whose_command_is_roots_gets_files_of_the_homes_owner(
    make_docker_hub, tmp_path
):
    folder = tmp_path / "material"
    folder.mkdir()
    install(folder, 1, {"start.ipynb": "1"})
    hub = make_docker_hub(
        workshop={"material": {"folder": str(folder)}}, user="USER 0:0"
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    owner = hub.inside("ann", "stat", "-c", "%u", "/home/me/work/intro/start.ipynb")
    assert owner.strip() == "1000"


def test_a_container_without_python_or_material_starts_all_the_same(
    make_docker_hub, tmp_path
):
    folder = tmp_path / "material"
    folder.mkdir()
    install(folder, 1, {"start.ipynb": "1"})
    hub = make_docker_hub(
        workshop={"material": {"folder": str(folder)}},
        early='c.Spawner.environment["PATH"] = "/nothing/here"\n',
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    assert "ann gets no material: " in hub.log


_NOWHERE = """
import pathlib
from jupyterhub_gpuworkshop.hub.spawners import docker
_real = docker.with_material
docker.with_material = lambda x, folder, v: _real(x, pathlib.Path("/nowhere"), v)
"""


def test_an_engine_whose_host_lacks_the_folder_starts_servers_all_the_same(
    make_docker_hub, tmp_path
):
    folder = tmp_path / "material"
    folder.mkdir()
    install(folder, 1, {"start.ipynb": "1"})
    hub = make_docker_hub(
        workshop={"material": {"folder": str(folder)}}, early=_NOWHERE
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    assert "name that in c.GpuDockerMixin.material_volume" in hub.log
    assert "Material for ann: 1 could not be brought" in hub.log
