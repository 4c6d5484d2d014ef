"""The configuration of the demo's hub; this runs inside the hub's process.

Owns how a real JupyterHub is set up for one run in one folder. What makes GPU shares
of it is `hub.setup.configure`, as on any other hub.
"""

import atexit
import ctypes
import json
import os
import shutil
import signal
import site
import sys
from pathlib import Path
from typing import Any

from traitlets.config import Config

from jupyterhub_gpuworkshop.hub.setup import ADMIN_SCOPE, configure

from .authenticator import DemoAuthenticator
from .settings import HOST, DemoSettings
from .welcome import write_welcome

_PR_SET_PDEATHSIG = 1

API_SCOPES = [
    "admin:users",
    "admin:servers",
    "access:servers",
    "read:hub",
    ADMIN_SCOPE,
    "access:services!service=gpuworkshop",
]
"""The token's: create users, start and stop servers and read their state, access them,
and read the GPU service as an organiser."""

# Nothing of a demo's should call the internet.
_LAB_ARGUMENTS = [
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
    # Looking for language servers runs npm, which takes its time.
    "--LanguageServerManager.autodetect=False",
]
_LAB_SETTINGS = {
    # It would ask everybody who comes whether to fetch news.
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}
}


def apply(c: Config, settings_file: Path) -> None:
    """Configure the hub: the demo's jupyterhub_config.py calls this.

    Args:
        c: the hub's configuration.
        settings_file: what `DemoSettings.save` wrote.
    """
    settings = DemoSettings.load(settings_file)
    _end_with(settings)
    folder = settings.directory
    c.JupyterHub.bind_url = settings.hub_url
    c.JupyterHub.hub_ip = HOST
    c.JupyterHub.hub_port = settings.hub_port
    c.JupyterHub.db_url = f"sqlite:///{folder}/jupyterhub.sqlite"
    c.JupyterHub.cookie_secret_file = f"{folder}/cookie_secret"
    c.JupyterHub.authenticator_class = DemoAuthenticator
    c.DemoAuthenticator.organiser_password = settings.organiser_password
    c.DemoAuthenticator.attendee_password = settings.attendee_password
    c.Authenticator.allow_all = True  # who knows a password of this run may come in
    c.ConfigurableHTTPProxy.command = list(settings.proxy_command)
    c.ConfigurableHTTPProxy.api_url = f"http://{HOST}:{settings.proxy_api_port}"
    c.ConfigurableHTTPProxy.pid_file = f"{folder}/proxy.pid"
    _configure_servers(c, settings)
    c.JupyterHub.services = [{"name": "demo", "api_token": settings.api_token}]
    c.JupyterHub.load_roles = [
        {"name": "demo", "services": ["demo"], "scopes": list(API_SCOPES)}
    ]
    configure(c, settings.workshop)


def _configure_servers(c: Config, settings: DemoSettings) -> None:
    homes = settings.directory / "homes"

    def welcome(spawner: Any) -> None:
        write_welcome(homes / spawner.user.name)

    c.JupyterHub.spawner_class = "gpu-simple"
    c.SimpleLocalProcessSpawner.home_dir_template = f"{homes}/{{username}}"
    c.Spawner.ip = HOST
    c.Spawner.cmd = _singleuser_command()
    c.Spawner.args = _LAB_ARGUMENTS + (["--allow-root"] if os.geteuid() == 0 else [])
    c.Spawner.default_url = "/lab"
    c.Spawner.pre_spawn_hook = welcome
    c.Spawner.environment = {
        "GPUWORKSHOP_SIMULATED_GPUS": os.fspath(settings.simulated_dir),
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108  # its own default
        # HOME is another one there: `pip install --user` packages would be lost.
        "PYTHONUSERBASE": site.getuserbase(),
        "JUPYTER_CONFIG_PATH": os.fspath(_lab_settings(settings.directory)),
    }


def _lab_settings(folder: Path) -> Path:
    """Write down what JupyterLab is to begin with; return where it looks for that."""
    path = folder / "jupyter/labconfig/default_setting_overrides.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_LAB_SETTINGS))
    return path.parent.parent


def _singleuser_command() -> list[str]:
    """Return the server of this very installation, whatever the PATH says."""
    script = Path(sys.executable).with_name("jupyterhub-singleuser")
    if script.exists():
        return [os.fspath(script)]
    return [sys.executable, "-m", "jupyterhub.singleuser"]


def _end_with(settings: DemoSettings) -> None:
    """End this hub, and leave no file, when the demo is gone without a word."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != settings.demo_pid:
        shutil.rmtree(settings.directory, ignore_errors=True)
        sys.exit("The demo is gone already.")

    def tidy_up() -> None:
        if os.getppid() != settings.demo_pid:
            shutil.rmtree(settings.directory, ignore_errors=True)

    atexit.register(tidy_up)


def write_config(settings: DemoSettings) -> Path:
    """Write the jupyterhub_config.py of a run, and the settings beside it."""
    settings.save()
    path = settings.directory / "jupyterhub_config.py"
    path.write_text(
        '"""Written by `gpuworkshop demo`; gone when the demo is."""\n\n'
        "from pathlib import Path\n\n"
        "from jupyterhub_gpuworkshop.tools.demo.hub_config import apply\n\n"
        f"apply(c, Path({json.dumps(os.fspath(settings.file))}))  # noqa: F821\n"
    )
    return path
