"""The TLJH plugin on a machine with systemd: our wheel, pip, a real hub, real units.

Only TLJH itself is a stand-in (tests/tljh_plugin/stand_in), and the GPUs are simulated.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_engine
from tests.engines.docker_engine import EngineTroubleError
from tests.engines.systemd_machine import NVIDIA_MAJOR, SystemdMachine
from tests.hub.running_hub import wait_for
from tests.tljh_plugin.tljh_machine import (
    CONFIG,
    PREFIX,
    PYTHON,
    STATE,
    UNIT,
    TljhMachine,
    build_wheel,
)

pytestmark = [pytest.mark.systemd, pytest.mark.hub]

_WORKSHOP = {"attendees": 8, "monitor": {"interval": "1s"}}
_OVERRIDES = f"{PREFIX}/user/share/jupyter/lab/settings/overrides.json"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return our wheel."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def _machine(request: pytest.FixtureRequest, wheel: Path) -> TljhMachine:
    hint = SystemdMachine.INSTALL_HINT
    require_engine("systemd", SystemdMachine.is_installed(), hint)
    engine = request.getfixturevalue("docker_engine")
    try:
        made = TljhMachine(engine, wheel)
    except EngineTroubleError as error:
        require_engine("systemd", False, str(error))
        raise
    made.configure(_WORKSHOP)
    made.install(made.wheel)
    made.make_gpus(2)
    return made


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest, wheel: Path) -> Iterator[TljhMachine]:
    """Return a machine on which the plugin was installed."""
    made = _machine(request, wheel)
    yield made
    made.close()


@pytest.fixture
def tljh(installed: TljhMachine) -> TljhMachine:
    """Return the same machine with a workshop that has no mistake."""
    if installed.configure(_WORKSHOP):
        installed.reload()
    _wait_for_service(installed)
    return installed


def _wait_for_service(tljh: TljhMachine) -> None:
    def sees() -> bool:
        said = tljh.service("health")
        return '"devices": 2' in said and '"hub_problem": ""' in said

    try:
        wait_for(sees, seconds=180)
    except AssertionError:
        raise AssertionError(tljh.machine.journal("gpuworkshop")[-4000:]) from None


def _start(tljh: TljhMachine, name: str) -> dict[str, Any]:
    """Return a user's server once it runs; ask again while the hub refuses it.

    The service knows the GPUs, and says so, before it has told the hub of them.
    """
    refusal: dict[str, Any] = {}

    def started() -> Any:
        nonlocal refusal
        server = tljh.api("GET", f"users/{name}").get("servers", {}).get("", {})
        if not server:
            refusal = tljh.api("POST", f"users/{name}/server") or refusal
            time.sleep(0.5)
        return server if server.get("ready") else None

    try:
        server: dict[str, Any] = wait_for(started, seconds=180)
    except AssertionError:
        told = tljh.machine.journal("jupyterhub")[-6000:]
        raise AssertionError(f"{refusal}\n{told}") from None
    return server


def _announced(page: str) -> str:
    return " ".join(re.findall(r'class="[^"]*announcement alert[^>]*>(.*)</div>', page))


def test_hub_and_hardened_service_run_and_everybodys_menu_leads_there(
    tljh: TljhMachine,
) -> None:
    for user in ("ada", "olga"):
        page = tljh.browse(user)
        assert 'href="/services/gpuworkshop/"' in page
        assert _announced(page) == ""
    kept = tljh.machine.properties(
        *("gpuworkshop", "ActiveState", "UnitFileState", "ProtectSystem"),
        *("DevicePolicy", "NoNewPrivileges", "MemoryDenyWriteExecute"),
    )
    assert kept == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "ProtectSystem": "strict",
        "DevicePolicy": "closed",
        "NoNewPrivileges": "yes",
        "MemoryDenyWriteExecute": "yes",
    }
    modes = tljh.machine.run("stat", "--format=%a %U", STATE, f"{STATE}/secrets.env")
    assert modes.stdout.split("\n")[:2] == ["700 root", "600 root"]
    secrets = tljh.machine.read(f"{STATE}/secrets.env")
    for line in secrets.split():
        assert line.partition("=")[2] not in tljh.machine.read(UNIT)
        assert line.partition("=")[2] not in tljh.machine.read(CONFIG)


def test_the_unit_verifies_and_is_little_exposed(tljh: TljhMachine) -> None:
    verified = tljh.machine.run("systemd-analyze", "verify", UNIT)
    assert "gpuworkshop" not in verified.stderr
    judged = tljh.machine.run("systemd-analyze", "security", "gpuworkshop.service")
    score = re.search(
        r"exposure level for gpuworkshop.service: ([\d.]+)", judged.stdout
    )
    assert score is not None
    assert float(score[1]) <= 3.0


def test_the_service_may_open_gpus_and_no_other_device(tljh: TljhMachine) -> None:
    tljh.machine.make_node("/dev/nvidia7", NVIDIA_MAJOR, 7)
    tljh.machine.make_node("/dev/disk-like", 10, 229)
    group = "/sys/fs/cgroup/system.slice/gpuworkshop.service/cgroup.procs"
    script = f'echo $$ >{group}; exec cat "$1"'
    said = {
        node: tljh.machine.run("sh", "-c", script, "sh", node, check=False).stderr
        for node in ("/dev/nvidia7", "/dev/disk-like")
    }
    assert "No such device" in said["/dev/nvidia7"]
    assert "not permitted" in said["/dev/disk-like"]


def test_an_attendee_gets_a_share_under_tljhs_own_spawner(tljh: TljhMachine) -> None:
    tljh.api("POST", "users/ann")
    server = _start(tljh, "ann")
    lease = server["state"]["gpuworkshop"]
    assert lease["share"] == "1/4", "eight attendees on two GPUs"
    (device,) = lease["devices"]
    unit = tljh.machine.properties("jupyter-ann", "User", "DevicePolicy", "MainPID")
    user = tljh.machine.run("id", "--user", "jupyter-ann").stdout.strip()
    assert unit["User"] in ("jupyter-ann", user)
    assert unit["DevicePolicy"] in ("closed", "strict")
    environment = tljh.machine.read(f"/proc/{unit['MainPID']}/environ")
    assert f"CUDA_VISIBLE_DEVICES={device}" in environment.split("\0")
    tljh.api("DELETE", "users/ann/server")


def test_material_is_in_a_new_attendees_home_when_their_server_is_ready(
    tljh: TljhMachine,
) -> None:
    tljh.configure(
        {**_WORKSHOP, "material": {"notebooks": {"intro": "/root/start.ipynb"}}}
    )
    tljh.machine.run("sh", "-c", "echo '{}' > /root/start.ipynb")
    tljh.machine.run("gpuworkshop", "material", "install")
    tljh.api("POST", "users/mia")
    _start(tljh, "mia")
    home = "/home/jupyter-mia"
    assert tljh.machine.read(f"{home}/intro/start.ipynb") == "{}\n"
    owner = tljh.machine.run("stat", "-c", "%U", f"{home}/intro/start.ipynb")
    assert owner.stdout.strip() == "jupyter-mia"
    tljh.api("DELETE", "users/mia/server")


def test_a_mistake_refuses_shares_says_why_to_organisers_and_stops_nothing(
    tljh: TljhMachine,
) -> None:
    tljh.configure({**_WORKSHOP, "idle": {"after": "<b>soon</b>"}})
    tljh.reload()
    told = _announced(tljh.browse("olga"))
    assert "gpuworkshop.idle.after" in told
    assert "&lt;b&gt;soon" in told
    assert "<b>soon" not in told
    assert _announced(tljh.browse("ada")) == ""
    tljh.api("POST", "users/bea")
    refused = tljh.api("POST", "users/bea/server")
    assert "workshop's settings have a mistake" in refused["message"]
    # Who is to mend it has a terminal for it, and no GPU.
    server = _start(tljh, "olga")
    assert server["state"]["gpuworkshop"]["share"] == "cpu"
    tljh.api("DELETE", "users/olga/server")
    assert '"devices": 2' in tljh.service("health"), "the service goes on"


def test_the_service_heeds_idle_without_a_restart_and_the_culler_with_one(
    tljh: TljhMachine,
) -> None:
    def culler() -> str:
        return tljh.machine.run("pgrep", "--full", "--list-full", "--", "--timeout=")

    assert "--timeout=9000" in culler().stdout
    tljh.configure({**_WORKSHOP, "idle": {"after": "3 h"}})
    wait_for(
        lambda: "was read again" in tljh.machine.journal("gpuworkshop"), seconds=180
    )
    tljh.reload()
    assert "--timeout=12600" in culler().stdout
    tljh.configure(_WORKSHOP, services={"cull": {"timeout": 700}})
    tljh.reload()
    assert "--timeout=700" in culler().stdout


def test_jupyterlabs_setting_is_merged_and_taken_back(tljh: TljhMachine) -> None:
    mine = {"@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Dark"}}
    tljh.machine.write(_OVERRIDES, json.dumps(mine))
    tljh.configure({**_WORKSHOP, "kernels": {"stop_on_close": True}})
    tljh.reload()
    tracker = "@jupyterlab/notebook-extension:tracker"
    assert json.loads(tljh.machine.read(_OVERRIDES)) == {
        **mine,
        tracker: {"kernelShutdown": True},
    }
    tljh.configure(_WORKSHOP)
    tljh.reload()
    assert json.loads(tljh.machine.read(_OVERRIDES)) == mine


def test_a_second_install_changes_nothing(tljh: TljhMachine) -> None:
    tljh.machine.write(
        "/etc/systemd/system/gpuworkshop.service.d/mine.conf", "[Service]\nNice=5\n"
    )
    files = (CONFIG, UNIT, f"{STATE}/secrets.env", f"{STATE}/service.env")
    tljh.install(tljh.wheel)  # the installer itself writes config.yaml in its own way
    before = [tljh.machine.read(file) for file in files]
    said = tljh.install(tljh.wheel)
    assert "Done!" in said
    assert "GPU workshop" not in said
    assert [tljh.machine.read(file) for file in files] == before
    _wait_for_service(tljh)
    assert tljh.machine.properties("gpuworkshop", "Nice") == {"Nice": "5"}


def test_the_command_is_on_the_path_and_says_when_it_needs_root(
    tljh: TljhMachine,
) -> None:
    link = tljh.machine.run("readlink", "/usr/bin/gpuworkshop").stdout.strip()
    assert link == f"{PREFIX}/hub/bin/gpuworkshop"
    assert "8 attendees" in tljh.machine.run("gpuworkshop", "check").stdout
    for command in (("check",), ("tljh", "packages"), ("tljh", "remove")):
        refused = tljh.machine.run("gpuworkshop", *command, user="nobody", check=False)
        assert refused.returncode == 1
        assert "sudo" in refused.stderr
    # What is somebody else's stays.
    tljh.machine.run("rm", "/usr/bin/gpuworkshop")
    tljh.machine.write("/usr/bin/gpuworkshop", "#!/bin/sh\n", mode=0o755)
    assert "is there already and not ours" in tljh.install()
    assert tljh.machine.read("/usr/bin/gpuworkshop") == "#!/bin/sh\n"
    tljh.machine.run("rm", "/usr/bin/gpuworkshop")


def test_packages_without_a_driver_are_skipped_with_what_to_run_later(
    tljh: TljhMachine,
) -> None:
    tljh.machine.run(PYTHON, "-m", "venv", "--without-pip", f"{PREFIX}/user")
    tljh.configure({**_WORKSHOP, "packages": ["torch", "cupy"]})
    said = tljh.install()
    assert "skipped torch, cupy" in said
    assert "sudo gpuworkshop tljh packages" in said
    assert "Done!" in said


_LOG_IN = """
import sys
import requests
name, code = sys.argv[1:]
url = "http://127.0.0.1:15001/hub/login"
s = requests.Session()
s.get(url)
data = {"username": name, "password": code, "_xsrf": s.cookies["_xsrf"]}
print(s.post(url, data=data, allow_redirects=False).status_code)
"""


def test_attendees_of_the_roster_log_in_where_auth_type_says_so(
    tljh: TljhMachine,
) -> None:
    tljh.configure(_WORKSHOP, auth={"type": "gpuworkshop-roster"})
    tljh.reload()
    make = ("--count", 2, "--address", "https://gpu.example.org")
    files = ("--cards", "/root/cards.html", "--merge", "/root/mail.csv")
    said = tljh.machine.run("gpuworkshop", "roster", "make", *make, *files).stdout
    assert f"{PREFIX}/config/roster.json: 2 attendees" in said
    rows = tljh.machine.read("/root/mail.csv").lstrip("\ufeff").splitlines()
    card = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))

    def log_in(code: str) -> str:
        command = (PYTHON, "-c", _LOG_IN, card["name"], code)
        return tljh.machine.run(*command).stdout.strip()

    assert log_in("BBBB-BBBB") == "403"
    assert log_in(card["code"]) == "302"
    mode = tljh.machine.run("stat", "--format=%a", f"{PREFIX}/config/roster.json")
    assert mode.stdout.strip() == "600"
    # What is left at a mistake elsewhere is that people can log in and read why.
    tljh.configure({"idle": {"after": "soon"}}, auth={"type": "gpuworkshop-roster"})
    tljh.reload()
    assert log_in(card["code"]) == "302"


def test_a_hub_without_gpus_comes_up_and_the_page_says_why(tljh: TljhMachine) -> None:
    tljh.configure({"gpus": {"source": "nvml", "simulated_dir": None}})
    tljh.reload()
    problem = wait_for(
        lambda: json.loads(tljh.service("health") or "{}").get("devices_problem"),
        seconds=180,
    )
    assert "NVIDIA" in problem
    assert 'href="/services/gpuworkshop/"' in tljh.browse("ada")


def test_removal_leaves_tljh_as_it_was(
    request: pytest.FixtureRequest, wheel: Path
) -> None:
    tljh = _machine(request, wheel)
    try:
        _wait_for_service(tljh)
        tljh.api("POST", "users/ann")
        _start(tljh, "ann")
        tljh.machine.run("systemctl", "is-active", "jupyter-ann")
        said = tljh.machine.run("gpuworkshop", "tljh", "remove").stdout
        tljh.wait_for_hub()
        assert "sudo tljh-config unset gpuworkshop" in said
        for gone in (UNIT, STATE, "/usr/bin/gpuworkshop"):
            assert gone in said or gone == UNIT
            assert tljh.machine.run("test", "-e", gone, check=False).returncode
        status = tljh.machine.run("systemctl", "is-active", "gpuworkshop", check=False)
        assert status.stdout.strip() == "inactive"
        assert "gpuworkshop:" in tljh.machine.read(CONFIG)
        assert "services/gpuworkshop" not in tljh.browse("ada")
        assert "ann" in tljh.api("GET", "users/ann")["name"]
        tljh.machine.run("systemctl", "is-active", "jupyter-ann")
        # Servers start as before, without a word of shares.
        tljh.api("POST", "users/bea")
        server = _start(tljh, "bea")
        assert "gpuworkshop" not in server["state"]
    finally:
        tljh.close()
