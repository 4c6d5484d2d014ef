"""gpu-docker: what it is chosen for, and what it refuses before anything starts."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from dockerspawner import DockerSpawner, SwarmSpawner, SystemUserSpawner
from traitlets.config import Config

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.hub.setup import configure
from jupyterhub_gpuworkshop.hub.spawners import docker
from jupyterhub_gpuworkshop.hub.spawners.docker import (
    GpuDockerMixin,
    GpuDockerSpawner,
    make_engine,
)
from jupyterhub_gpuworkshop.hub.spawners.docker_request import HOOK_TARGET


class GpuUserSpawner(GpuDockerMixin, SystemUserSpawner):
    """As the hint has it."""


class GpuSwarmSpawner(GpuDockerMixin, SwarmSpawner):
    """As nobody should."""


def configured(spawner, **sections):
    c = Config()
    c.JupyterHub.spawner_class = spawner
    for section, traits in sections.items():
        c[section].update(traits)
    configure(c, {"service": {"managed": True}})
    return c


@pytest.mark.parametrize(
    "chosen", ["docker", "gpu-docker", "dockerspawner.DockerSpawner", DockerSpawner]
)
def test_dockerspawner_is_replaced_by_the_one_with_shares(chosen):
    c = configured(chosen, DockerSpawner={"remove": True})
    assert c.JupyterHub.spawner_class == "gpu-docker"


@pytest.mark.parametrize("chosen", ["docker", "gpu-docker", GpuUserSpawner])
@pytest.mark.parametrize("section", [{}, {"remove": False}])
def test_containers_that_are_kept_are_refused_with_the_remedy(chosen, section):
    with pytest.raises(WorkshopFileError) as caught:
        configured(chosen, DockerSpawner=section)
    text = str(caught.value)
    assert "c.DockerSpawner.remove = True" in text
    assert "c.DockerSpawner.volumes" in text


@pytest.mark.parametrize(
    ("sections", "accepted"),
    [
        ({"Spawner": {"remove": True}}, True),
        ({"GpuDockerSpawner": {"remove": True}}, True),
        ({"DockerSpawner": {"remove_containers": True}}, True),
        (
            {"DockerSpawner": {"remove": True}, "GpuDockerSpawner": {"remove": False}},
            False,
        ),
        (
            {"DockerSpawner": {"remove": False}, "GpuDockerSpawner": {"remove": True}},
            True,
        ),
    ],
)
def test_remove_counts_as_traitlets_would_set_it(sections, accepted):
    c = Config({name: dict(traits) for name, traits in sections.items()})
    assert (GpuDockerSpawner.mistake_in(c) == "") is accepted
    assert GpuDockerSpawner(config=c).remove is accepted


def test_other_spawners_of_containers_are_told_the_mixin_for_them():
    with pytest.raises(WorkshopFileError) as caught:
        configured("docker-system-user", DockerSpawner={"remove": True})
    hint = str(caught.value)
    assert "class GpuSpawner(GpuDockerMixin, SystemUserSpawner):" in hint
    names: dict[str, object] = {"SystemUserSpawner": SystemUserSpawner}
    code = "\n".join(
        line.removeprefix("    ")
        for line in hint.splitlines()
        if line.startswith("    ") and "c.JupyterHub" not in line
    )
    exec(code, names)  # noqa: S102  # what the organiser is told to write
    made = names["GpuSpawner"]
    c = configured(made, DockerSpawner={"remove": True})
    assert c.JupyterHub.spawner_class is made


@pytest.mark.parametrize("chosen", ["docker-swarm", SwarmSpawner, GpuSwarmSpawner])
def test_swarm_is_refused_with_the_reason(chosen):
    with pytest.raises(WorkshopFileError, match="Docker Swarm picks the GPU itself"):
        configured(chosen, DockerSpawner={"remove": True})


def test_without_dockerspawner_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "jupyterhub_gpuworkshop.hub.spawners.docker", None
    )
    with pytest.raises(WorkshopFileError, match=r"jupyterhub-gpuworkshop\[docker\]"):
        configured("gpu-docker")


def test_the_hook_is_looked_for_in_the_container_and_never_at_the_hubs_own_path():
    for given, expected in (("", HOOK_TARGET), ("/opt/mine", "/opt/mine")):
        c = Config({"GpuSpawnerMixin": {"memory_hook_path": given}})
        assert GpuDockerSpawner(config=c).hook_folder() == expected


def test_the_engine_is_asked_by_a_client_configured_as_the_spawners(monkeypatch):
    made = {}

    def client(**kwargs):
        made.update(kwargs)
        raise OSError("enough")

    monkeypatch.setattr("docker.APIClient", client)
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/of-the-environment.sock")
    c = Config()
    c.DockerSpawner.client_kwargs = {"user_agent": "mine", "timeout": 3}
    app = SimpleNamespace(spawner_class=GpuDockerSpawner, config=c)
    with pytest.raises(OSError, match="enough"):
        make_engine(app).client  # noqa: B018  # it is made when first asked for
    assert made["user_agent"] == "mine"
    assert made["timeout"] == 3
    assert made["base_url"].endswith("/run/of-the-environment.sock")

    c.GpuDockerSpawner.client_kwargs = {"base_url": "tcp://10.0.0.1:2376"}
    with pytest.raises(OSError, match="enough"):
        make_engine(app).client  # noqa: B018
    assert made["base_url"] == "tcp://10.0.0.1:2376"


@pytest.mark.parametrize(("failures", "told"), [(2, None), (9, OSError)])
async def test_an_engine_that_is_away_for_a_moment_is_asked_again(
    monkeypatch, failures, told
):
    asked = []

    async def poll(self):
        asked.append(self)
        if len(asked) <= failures:
            raise OSError("the engine is away")

    monkeypatch.setattr(DockerSpawner, "poll", poll)
    monkeypatch.setattr(docker, "_ASK_AGAIN_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(GpuDockerSpawner, "_log_name", "ann")
    spawner = GpuDockerSpawner.__new__(GpuDockerSpawner)
    with pytest.raises(told) if told else nullcontext():
        assert await spawner.poll() is None
    assert len(asked) == min(failures + 1, 4)
