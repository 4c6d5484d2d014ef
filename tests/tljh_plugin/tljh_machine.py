"""A machine with systemd on which TLJH's stand-in is installed with our wheel.

TLJH is on no registry, so a stand-in of it stands beside this file; the wheel, pip,
systemd, the hub and the units are real.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.engines.docker_engine import DockerEngine
from tests.engines.host_image import ROOT
from tests.engines.systemd_machine import SystemdMachine
from tests.hub.running_hub import wait_for

PREFIX = "/opt/tljh"
PYTHON = f"{PREFIX}/hub/bin/python3"
CONFIG = f"{PREFIX}/config/config.yaml"
UNIT = "/etc/systemd/system/gpuworkshop.service"
STATE = f"{PREFIX}/state/gpuworkshop"

_HERE = Path(__file__).parent
_PACKAGES = "/opt/packages"
_PAGES = "/opt/pages"
_DEVICES = "/srv/gpus"

_SETTLE = f"""
set -e
# Packages of the test's environment, ours left out: the wheel shall bring it.
mkdir -p {PREFIX} /opt/links
for entry in {_PACKAGES}/*; do
  case "$entry" in *gpuworkshop*) ;; *) ln -s "$entry" /opt/links/ ;; esac
done
"$1" -m venv --without-pip {PREFIX}/hub
{PYTHON} -c 'import site; print(site.getsitepackages()[0])' >/run/library
echo /opt/links >"$(cat /run/library)/links.pth"
mkdir {PREFIX}/hub/share
ln -s {_PAGES} {PREFIX}/hub/share/jupyterhub
# Of the host's /usr, which is mounted read-only, /usr/bin may be written to here.
mkdir /run/bin-above /run/bin-work
mount -t overlay overlay \\
  -o lowerdir=/usr/bin,upperdir=/run/bin-above,workdir=/run/bin-work /usr/bin
"""

_EXTRA = f"""
c.SystemdSpawner.cmd = [{PYTHON!r}, "-S", "-E", "/opt/stub_server.py"]
c.SystemdSpawner.default_url = ""
c.Spawner.environment = {{"STUB_HUB_VERSION": __import__("jupyterhub").__version__}}
c.GpuRuntime.report_seconds = 0.5
c.JupyterHub.services.append({{"name": "test", "api_token": "test-token-of-the-test"}})
c.JupyterHub.load_roles.append({{
    "name": "test", "services": ["test"],
    "scopes": ["admin:users", "admin:servers", "admin:server_state", "read:hub",
               "access:services", "list:services", "read:services"],
}})
"""

_BROWSE = """
import sys
import requests
user, path = sys.argv[1:]
base = "http://127.0.0.1:15001"
s = requests.Session()
s.get(base + "/hub/login")
data = {"username": user, "password": "x", "_xsrf": s.cookies["_xsrf"]}
answer = s.post(base + "/hub/login?next=" + path, data=data)
assert answer.ok, answer.text
print(answer.text)
"""


def build_wheel(folder: Path) -> Path:
    """Build our wheel from a copy of what git tracks or would: the tree stays clean."""
    tree = folder / "tree"
    for package in ("jupyterhub_gpuworkshop", "tljh_plugin"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / package, tree / package, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    subprocess.run(  # noqa: S603
        [*command, "--wheel-dir", str(folder / "wheels"), str(tree)], check=True
    )
    (wheel,) = (folder / "wheels").glob("*.whl")
    return wheel


class TljhMachine:
    """One such machine."""

    def __init__(self, engine: DockerEngine, wheel: Path) -> None:
        self.machine = SystemdMachine(
            engine,
            f"--volume={sysconfig.get_path('purelib')}:{_PACKAGES}:ro",
            f"--volume={sysconfig.get_path('data')}/share/jupyterhub:{_PAGES}:ro",
            f"--volume={wheel.parent}:/opt/wheels:ro",
        )
        self._content: dict[str, Any] = {}
        self.wheel = f"/opt/wheels/{wheel.name}"
        run, write = self.machine.run, self.machine.write
        python = Path(sys.executable).resolve()
        run("/bin/sh", "-c", _SETTLE, "sh", python)
        library = self.machine.read("/run/library").strip()
        for file in (_HERE / "stand_in" / "tljh").glob("*.py"):
            write(f"{library}/tljh/{file.name}", file.read_text())
        hub_tests = ROOT / "tests" / "hub"
        write(f"{library}/null_proxy.py", (hub_tests / "null_proxy.py").read_text())
        write("/opt/stub_server.py", (hub_tests / "stub_server.py").read_text())
        write(f"{PREFIX}/config/jupyterhub_config.d/test.py", _EXTRA)
        run("chmod", "700", f"{PREFIX}/config")

    def install(self, *plugins: str) -> str:
        """Run the installer; return what it says."""
        done = self.machine.run(PYTHON, "-m", "tljh.installer", *plugins)
        self.wait_for_hub()
        return done.stdout + done.stderr

    def make_gpus(self, count: int) -> None:
        """Make simulated GPUs of 16 GiB."""
        script = (
            "from pathlib import Path; "
            "from jupyterhub_gpuworkshop.machine.simulated import create_devices; "
            f"create_devices(Path({_DEVICES!r}), {count}, 16 * 2**30)"
        )
        self.machine.run("mkdir", "-p", "/srv")
        self.machine.run(PYTHON, "-c", script)

    def configure(self, workshop: dict[str, Any], **others: Any) -> bool:
        """Write config.yaml, with the simulated GPUs; tell whether that changed it."""
        gpus = {"source": "simulated", "simulated_dir": _DEVICES}
        workshop = {**workshop, "gpus": {**gpus, **workshop.get("gpus", {})}}
        content = {"users": {"admin": ["olga"]}, "gpuworkshop": workshop, **others}
        changed = content != self._content
        self.machine.write(CONFIG, json.dumps(content), mode=0o600)
        self._content = content
        return changed

    def reload(self) -> None:
        """Do what `tljh-config reload` does."""
        self.machine.run("systemctl", "restart", "jupyterhub")
        self.wait_for_hub()

    def wait_for_hub(self) -> None:
        """Wait until the hub answers."""
        up = lambda: self.api("GET", "info").get("version")  # noqa: E731
        try:
            wait_for(up, seconds=180)
        except AssertionError:
            raise AssertionError(self.machine.journal("jupyterhub")[-6000:]) from None

    def api(self, method: str, path: str) -> dict[str, Any]:
        """Call the hub's API; an answer without JSON is an empty one."""
        answer = self.fetch(
            f"http://127.0.0.1:15001/hub/api/{path}", "test-token-of-the-test", method
        )
        try:
            return json.loads(answer)
        except ValueError:
            return {}

    def fetch(self, url: str, token: str = "", method: str = "GET") -> str:
        """Fetch a page from within the machine."""
        header = f"Authorization: token {token}" if token else "X-None: 0"
        command = ("curl", "--silent", "--max-time", 30, "--request", method)
        return self.machine.run(*command, "--header", header, url, check=False).stdout

    def browse(self, user: str, path: str = "/hub/home") -> str:
        """Return a page of the hub as a user who has logged in sees it."""
        return self.machine.run(PYTHON, "-c", _BROWSE, user, path).stdout

    def service(self, path: str) -> str:
        """Fetch something from the GPU service."""
        return self.fetch(f"http://127.0.0.1:10110/services/gpuworkshop/{path}")

    def close(self) -> None:
        """Remove it."""
        self.machine.close()
