"""Collecting work that only containers see, with a real Docker engine."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from jupyterhub_gpuworkshop.hub.homes import DOCKER, Home, Mount
from jupyterhub_gpuworkshop.hub.spawners.docker_request import LEASE_LABEL
from jupyterhub_gpuworkshop.tools.material.collecting import Collected, Plan, collect
from tests.engines.docker_engine import DockerEngine
from tests.engines.host_image import make_image, mount_arguments, mounted_paths

pytestmark = pytest.mark.docker

_HOST = tuple(Mount(kind="bind", source=str(x), target=str(x)) for x in mounted_paths())
_HOME = "/home/jovyan"


@pytest.fixture
def engine(
    docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DockerEngine]:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.socket)
    yield docker_engine
    left = docker_engine.docker("ps", "--all", "--quiet", "--filter=name=gpuworkshop")
    assert left == ""


def _collect(folder: Path, homes: dict[str, Home]) -> dict[str, Collected]:
    plan = Plan(
        homes=homes, folder=folder / "archives", like=folder, largest_bytes=10**7
    )
    done = collect(plan, Console(stderr=True, quiet=True))
    return {one.name: one for one in done}


def _content(folder: Path, name: str) -> dict[str, bytes]:
    data = (folder / f"archives/{name}.tar.gz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        files = [member for member in tar if member.isreg()]
        return {x.name: tar.extractfile(x).read() for x in files}  # type: ignore[union-attr]


def test_a_home_in_a_volume_is_packed_while_nothing_runs(
    engine: DockerEngine, tmp_path: Path
) -> None:
    image = make_image(engine)
    volume = f"gpuws-{os.urandom(4).hex()}"
    engine.docker("volume", "create", volume)
    write = (
        "cd /home/jovyan; echo thesis >a.ipynb; chmod 600 *; ln -s /etc/passwd link; "
        "chown -R 1000 ."
    )
    shell = ["/bin/sh", "-c", write]
    at = f"--volume={volume}:{_HOME}"
    engine.docker("run", "--rm", *mount_arguments(), at, image, *shell)
    mount = Mount(kind="volume", source=volume, target=_HOME)
    home = Home(
        kind=DOCKER, path=_HOME, image=image, user="1000", mounts=(mount, *_HOST)
    )
    result = _collect(tmp_path, {"ann": home})["ann"]
    assert result.problem == ""
    content = _content(tmp_path, "ann")
    assert content.pop("ann/a.ipynb") == b"thesis\n"
    assert b"link: a link that leads outside" in content.pop("ann/LEFT-OUT.txt")
    assert content == {}

    # Docker would make an empty one, and put its archive in the place of this.
    engine.docker("volume", "rm", volume)
    result = _collect(tmp_path, {"ann": home})["ann"]
    assert "is not there any more" in result.problem
    assert _content(tmp_path, "ann")["ann/a.ipynb"] == b"thesis\n"
    assert volume not in engine.docker("volume", "ls", "--quiet").split()


def test_a_home_in_a_container_is_packed_while_it_runs_and_only_its_own(
    engine: DockerEngine, tmp_path: Path
) -> None:
    image = make_image(engine)
    started = {}
    for name in ("ann", "bea"):
        script = (
            f"mkdir -p {_HOME}; echo {name} >{_HOME}/a.ipynb; touch /ready; sleep 600"
        )
        started[name] = engine.docker(
            *("run", "--detach", *mount_arguments(), f"--label={LEASE_LABEL}={name}"),
            *(f"--env=JUPYTERHUB_USER={name}", "--env=JUPYTERHUB_SERVER_NAME="),
            *(image, "/bin/sh", "-c", script),
        )
        wait = "until [ -e /ready ]; do sleep 0.05; done"
        engine.docker("exec", started[name], "/bin/sh", "-c", wait)
    home = Home(kind=DOCKER, path=_HOME, image=image)
    try:
        results = _collect(tmp_path, {"ann": home, "bea": home, "cem": home})
        assert "does not run" in results["cem"].problem
        for name in ("ann", "bea"):
            assert results[name].problem == ""
            assert _content(tmp_path, name) == {f"{name}/a.ipynb": f"{name}\n".encode()}
    finally:
        engine.docker("rm", "--force", *started.values())


def test_an_image_that_is_gone_is_named(engine: DockerEngine, tmp_path: Path) -> None:
    folder = tmp_path / "with, comma"
    folder.mkdir()
    mount = Mount(kind="bind", source=str(folder), target=_HOME)
    home = Home(kind=DOCKER, path=_HOME, image="no-such-image", mounts=(mount,))
    result = _collect(tmp_path, {"ann": home})["ann"]
    assert result.problem.startswith("Packing failed: ")
    assert "no-such-image" in result.problem
    home = replace(home, image=make_image(engine), mounts=(mount, *_HOST))
    (folder / "a.ipynb").write_text("thesis")
    assert _collect(tmp_path, {"ann": home})["ann"].problem == ""
    assert _content(tmp_path, "ann") == {"ann/a.ipynb": b"thesis"}


def test_without_an_engine_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    home = Home(kind=DOCKER, path=_HOME, image="lab")
    result = _collect(tmp_path, {"ann": home})["ann"]
    assert "The Docker engine does not run" in result.problem
