"""TLJH's installer in its order, without what is not a plugin's to see."""

import itertools
import logging
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tljh import config, hooks

_UNIT = """\
[Service]
User=root
Restart=always
WorkingDirectory=/opt/tljh/state
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
Environment=TLJH_INSTALL_PREFIX=/opt/tljh
Environment=PATH=/opt/tljh/hub/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/opt/tljh/hub/bin/python3 -m jupyterhub -f {config} --upgrade-db

[Install]
WantedBy=multi-user.target
"""


def main():
    """Install the plugins named on the command line, then the hub."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pip = [sys.executable, "-m", "pip", "install", "--upgrade", "--no-index"]
    if len(sys.argv) > 1:
        subprocess.check_call([*pip, *sys.argv[1:]])  # noqa: S603
    manager = hooks.plugin_manager()

    for path in (config.CONFIG_FILE.parent, Path("/opt/tljh/state")):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = config.CONFIG_FILE
    values = (yaml.safe_load(file.read_text()) if file.exists() else None) or {}
    manager.hook.tljh_config_post_install(config=values)
    file.write_text(yaml.safe_dump(values))

    group = ["/usr/sbin/groupadd", "--force", "jupyterhub-users"]
    subprocess.check_call(group)  # noqa: S603

    unit = _UNIT.format(config=Path(__file__).with_name("jupyterhub_config.py"))
    Path("/etc/systemd/system/jupyterhub.service").write_text(unit)
    for command in ("daemon-reload", "restart jupyterhub", "enable --quiet jupyterhub"):
        subprocess.check_call(["/usr/bin/systemctl", *command.split()])  # noqa: S603

    for hook in (
        "tljh_extra_apt_packages",
        "tljh_extra_hub_pip_packages",
        "tljh_extra_user_conda_packages",
        "tljh_extra_user_conda_channels",
        "tljh_extra_user_pip_packages",
    ):
        packages = set(itertools.chain(*getattr(manager.hook, hook)()))
        assert not packages, hook
    manager.hook.tljh_post_install()
    os.write(1, b"Done!\n")


if __name__ == "__main__":
    main()
