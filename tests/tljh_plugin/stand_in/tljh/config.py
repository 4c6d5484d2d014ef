"""config.yaml over the defaults, as TLJH merges them."""

import sys
from pathlib import Path

import yaml

CONFIG_FILE = Path("/opt/tljh/config/config.yaml")


def load():
    """Return the configuration that is in force."""
    given = yaml.safe_load(CONFIG_FILE.read_text()) if CONFIG_FILE.exists() else None
    config = {"base_url": "/", "users": {}, "services": {}, **(given or {})}
    config["cull"] = {"enabled": True, "timeout": 600}
    config["cull"].update(config["services"].get("cull", {}))
    return config


def apply(config, c):
    """Set what TLJH sets before its plugins are asked."""
    c.JupyterHub.base_url = config["base_url"]
    c.JupyterHub.authenticator_class = config.get("auth", {}).get("type", "dummy")
    c.DummyAuthenticator.allow_all = True
    c.Authenticator.admin_users = set(config["users"].get("admin", []))
    c.UserCreatingSpawner.user_groups = {}
    c.SystemdSpawner.username_template = "jupyter-{USERNAME}"
    c.JupyterHub.services = []
    if config["cull"]["enabled"]:
        culler = "import time; time.sleep(100_000)"
        c.JupyterHub.services.append(
            {
                "name": "cull-idle",
                "admin": True,
                "command": [
                    *(sys.executable, "-c", culler),
                    f"--timeout={config['cull']['timeout']}",
                ],
            }
        )
