"""What the doctor reads: hubs, engines, services and locks, as they are."""

import fcntl
import json
import os
import socketserver
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from certipy import Certipy

from jupyterhub_gpuworkshop.tools.doctor.reading import containers, driver, service
from jupyterhub_gpuworkshop.tools.doctor.reading.hub import read_hub
from jupyterhub_gpuworkshop.tools.doctor.reading.hub_facts import HubFacts

CONFIG = """
from jupyterhub_gpuworkshop.hub.setup import configure
print("something of the organiser's")
c.JupyterHub.bind_url = "http://:8000/class/"
c.Spawner.mem_limit = "2G"
c.LocalProcessSpawner.mem_limit = "3G"
c.Spawner.args.extend(["--debug"])
c.JupyterHub.services = [
    {{"name": "other", "api_token": "a-secret", "command": "cull --timeout=5"}},
]
configure(c, {workshop!r})
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(CONFIG.format(workshop={"attendees": 7}))
    return file


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[HubFacts, Path]:
    """Return what is read of an ordinary configuration, and its folder."""
    folder = tmp_path_factory.mktemp("hub")
    workshop = {
        "service": {"managed": False, "secret_file": str(folder / "secrets.env")}
    }
    file = folder / "jupyterhub_config.py"
    file.write_text(CONFIG.format(workshop=workshop))
    return read_hub(file), folder


def test_a_hubs_configuration_is_read_as_the_hub_reads_it(
    read: tuple[HubFacts, Path],
) -> None:
    facts, _ = read
    assert facts.problem == ""
    assert facts.configured
    assert facts.mixin_leftmost is True
    assert facts.spawner.endswith("GpuLocalSpawner")
    assert (facts.bind_url, facts.base_url) == ("http://:8000/class/", "/class/")
    assert facts.traits["mem_limit"] == "3G"
    assert facts.traits["args"] == ["--debug"]
    assert facts.traits["start_timeout"] == 180
    assert [each.name for each in facts.services] == ["other", "gpuworkshop"]
    assert facts.services[0].command == ("cull --timeout=5",)
    assert "custom:gpuworkshop:read" in facts.roles[0].scopes


def test_reading_a_configuration_makes_no_file_and_tells_no_secret(
    read: tuple[HubFacts, Path],
) -> None:
    facts, folder = read
    assert [path.name for path in folder.iterdir()] == ["jupyterhub_config.py"]
    assert "a-secret" not in repr(facts)


def test_a_configuration_with_a_mistake_is_told_with_the_mistake(config: Path) -> None:
    config.write_text("c.JupyterHub.port = nonsense")
    facts = read_hub(config)
    assert not facts.known
    assert facts.problem == "NameError: name 'nonsense' is not defined"


def test_a_configuration_that_ends_the_program_ends_only_its_own(config: Path) -> None:
    config.write_text("import os; os._exit(3)")
    assert "ended without a word" in read_hub(config).problem
    config.write_text("import sys; sys.exit('No licence.')")
    assert "No licence." in read_hub(config).problem


def test_a_demos_configuration_is_left_alone(config: Path) -> None:
    config.write_text('"""Written by `gpuworkshop demo`; gone with it."""\n1 / 0')
    assert "demo" in read_hub(config).problem


def test_what_is_found_but_anybody_may_write_is_not_run(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.chmod(0o666)
    monkeypatch.chdir(config.parent)
    facts = read_hub(None)
    assert facts.file == "jupyterhub_config.py"
    assert "--hub-config" in facts.problem
    config.chmod(0o644)
    assert read_hub(None).configured


def test_what_is_found_where_anybody_may_put_another_is_not_run(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = config.parent / "theirs"
    theirs.mkdir()
    (theirs / config.name).symlink_to(config)
    monkeypatch.chdir(theirs)
    assert read_hub(None).configured
    theirs.chmod(0o777)
    assert "--hub-config" in read_hub(None).problem
    theirs.chmod(0o1777)  # as /tmp: nobody replaces what is another's
    assert read_hub(None).configured
    # The link is safe, and where it leads is not.
    config.parent.chmod(0o777)
    theirs.chmod(0o755)
    assert "--hub-config" in read_hub(None).problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a link away")
def test_a_link_of_somebody_else_is_not_followed(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = config.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / config.name
    link.symlink_to(config)
    os.lchown(link, 65534, 65534)
    monkeypatch.chdir(shared)
    assert "--hub-config" in read_hub(None).problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to a group")
def test_what_a_group_may_write_is_not_run_unless_it_is_roots(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    config.chmod(0o664)
    assert read_hub(None).configured
    os.chown(config, 0, 65534)
    assert "--hub-config" in read_hub(None).problem


def test_modules_beside_the_configuration_shadow_nothing_of_ours(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "jupyterhub.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(config.parent)
    assert read_hub(config).configured


def test_a_mixin_behind_another_base_is_seen(config: Path) -> None:
    config.write_text(
        "from jupyterhub.spawner import Spawner\n"
        "from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin\n"
        "class Other(Spawner):\n"
        "    async def start(self): ...\n"
        "    async def stop(self): ...\n"
        "    async def poll(self): ...\n"
        "class Behind(Other, GpuSpawnerMixin): pass\n"
        "c.JupyterHub.spawner_class = Behind\n"
    )
    facts = read_hub(config)
    assert facts.problem == ""
    assert facts.mixin_leftmost is False


class _Docker(BaseHTTPRequestHandler):
    """What an engine answers to the two questions of the doctor."""

    def do_GET(self) -> None:
        """Answer."""
        known: dict[str, Any] = {
            "/info": {
                "ServerVersion": "28.1",
                "CgroupDriver": "systemd",
                "Runtimes": {"runc": {}, "nvidia": {}},
                "CDISpecDirs": ["/etc/cdi"],
                "DockerRootDir": "/var/lib/docker",
            },
            "/images/lab%3A1/json": {},
            "/images/lab:1/json": {},
        }
        body = known.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        """Return nothing: a Unix socket has no address."""
        return ""


@pytest.fixture
def docker_socket(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "docker.sock"
    with socketserver.UnixStreamServer(str(path), _Docker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_an_engine_is_asked_through_its_socket(
    docker_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{docker_socket}")
    engine = containers.read_engine()
    assert engine.answers
    assert (engine.version, engine.cgroup_driver) == ("28.1", "systemd")
    assert engine.runtimes == ("runc", "nvidia")
    assert containers.image_is_there(engine, "lab:1") is True
    assert containers.image_is_there(engine, "lab:2") is False


def test_an_engine_that_is_gone_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine = containers.read_engine()
    assert not engine.answers
    assert "No such file" in engine.problem
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    assert "no socket" in containers.read_engine().problem


class _Hub(BaseHTTPRequestHandler):
    """A page of a hub."""

    def do_GET(self) -> None:
        """Answer, or lead from one page to the other."""
        if self.path == "/old":
            self.send_response(302)
            self.send_header("Location", "/new")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/new" else 403)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()
        self.wfile.write(b'{"version": "6.1.1"}')

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub_server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_address_is_asked_where_it_leads_and_not_through_a_proxy(
    hub_server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    root = f"http://127.0.0.1:{hub_server.server_port}"
    answer = service.ask(f"{root}/old")
    assert (answer.status, answer.final_url) == (200, f"{root}/new")
    assert answer.headers["x-jupyterhub-version"] == "6.1.1"
    assert answer.body == {"version": "6.1.1"}
    assert service.ask(f"{root}/forbidden").status == 403


def test_who_does_not_answer_is_told_with_the_reason() -> None:
    assert service.ask("http://127.0.0.1:9/").problem == "Connection refused"
    assert "https://" in service.ask("hub.example.org").problem
    assert "https://" in service.ask("file:///etc/passwd").problem
    assert service.ask("http://[broken/").problem


def test_a_certificate_that_browsers_do_not_take_is_told_apart(
    hub_server: HTTPServer, tmp_path: Path
) -> None:
    certificate = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    hub_server.socket = context.wrap_socket(hub_server.socket, server_side=True)
    answer = service.ask(f"https://127.0.0.1:{hub_server.server_port}/new")
    assert answer.bad_certificate
    assert "self" in answer.problem
    assert service.days_left(answer.url) is None


def _self_signed(folder: Path) -> Path:
    certipy = Certipy(store_dir=str(folder))
    files = certipy.create_ca("authority")["files"]
    both = folder / "both.pem"
    both.write_text(Path(files["cert"]).read_text() + Path(files["key"]).read_text())
    return both


def test_only_a_lock_that_is_held_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_LOCKS", tmp_path)
    path = tmp_path / "DBN.exe GPGPU exclusive lock for device 0"
    with path.open("w") as file:
        assert driver.read_driver().locks == ()
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert driver.read_driver().locks == (str(path),)
    assert path.exists()
    assert driver.read_driver().locks == ()


def test_a_lock_whose_name_would_be_a_command_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_LOCKS", tmp_path)
    for name in (
        "x GPGPU exclusive lock for device 0'; touch taken; '",
        "$(id) GPGPU exclusive lock for device 0",
        "x GPGPU exclusive lock for device 0\n$ rm -r x GPGPU lock for device 0",
    ):
        with (tmp_path / name).open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            assert driver.read_driver().locks == ()
