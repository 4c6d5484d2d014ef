"""The GPU service as a systemd unit beside TLJH's hub.

Owns where the service finds the hub, and that the unit runs what the configuration
says. The unit itself is `tools.unit`'s.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.tools.tljh_places import SECTION, TljhPlaces
from jupyterhub_gpuworkshop.tools.unit import (
    NAME,
    Unit,
    put_in_place,
    readable,
    systemctl,
    writable,
)
from jupyterhub_gpuworkshop.workshop import Workshop

_EVERYWHERE = ("", "*", "0.0.0.0", "::")  # noqa: S104  compared with, not bound to


_READ_AT_START: Any = {
    "gpus": {"source", "simulated_dir"},
    "history": True,
    "material": {"archives"},
    "monitor": True,
    "service": True,
}
"""What of the workshop the service reads when it starts, and not again."""


def ensure_unit(
    c: Any, workshop: Workshop, places: TljhPlaces, *, has_mistake: bool = False
) -> None:
    """Make the unit what it should be, and let it run.

    Whoever has disabled or masked it is believed to want that.

    Args:
        c: the hub's configuration, as far as it is set.
        workshop: whose service it is.
        places: of TLJH.
        has_mistake: config.yaml has one: a service that runs goes on as it is, for it
            could not start again.

    Raises:
        HostError: systemd does not do it, or there is none; or the secrets' file is
            no file.
    """
    if has_mistake and (places.units / NAME).exists():
        _start(restart=False)
        return
    secret_file = workshop.service.secret_file or places.secret_file
    if not secret_file.is_file():  # of a folder, it would shut everybody out
        raise HostError(
            f"service.secret_file: {secret_file} is not a file. Name one in a folder "
            "of root's, or take the line out: sudo tljh-config unset "
            f"{SECTION}.service.secret_file"
        )
    secret_file.chmod(0o600)
    news = _write(places.environment_file, _environment(c, workshop, secret_file))
    unit = Unit(
        workshop=places.workshop,
        environment_files=(places.environment_file, secret_file),
        writable=writable(workshop),
        readable=readable(workshop),
        local_only=True,
    )
    first = not (places.units / NAME).exists()
    if put_in_place(unit, places.units):
        systemctl("daemon-reload")
        news = True
    if first:
        systemctl("enable", "--quiet", NAME)
    _start(restart=news)


def _start(*, restart: bool) -> None:
    if systemctl("is-enabled", NAME, check=False) == "enabled":
        # The hub does not wait for it: it starts without the service, too.
        systemctl("restart" if restart else "start", "--no-block", NAME)


def _environment(c: Any, workshop: Workshop, secret_file: Path) -> str:
    base, name = _base_url(c), workshop.service.name
    variables = {
        "JUPYTERHUB_API_URL": f"{_hub(c)}{base}hub/api",
        "JUPYTERHUB_BASE_URL": base,
        "JUPYTERHUB_SERVICE_NAME": name,
        "JUPYTERHUB_SERVICE_PREFIX": f"{base}services/{name}/",
    }
    # The last line changes with what else the service has read when it started.
    settings = workshop.model_dump_json(include=_READ_AT_START)
    stamp = f"# {__version__} {secret_file.stat().st_mtime_ns} {settings}"
    return "\n".join([*(f"{k}={v}" for k, v in variables.items()), stamp, ""])


def _base_url(c: Any) -> str:
    given = (
        c.JupyterHub.get("base_url") or urlsplit(c.JupyterHub.get("bind_url", "")).path
    )
    return f"/{given.strip('/')}/" if given and given.strip("/") else "/"


def _hub(c: Any) -> str:
    """Return where the hub's API listens, as this host reaches it."""
    bind = urlsplit(c.JupyterHub.get("hub_bind_url", ""))
    host = (
        c.JupyterHub.get("hub_connect_ip")
        or bind.hostname
        or c.JupyterHub.get("hub_ip", "")
    )
    port = bind.port or c.JupyterHub.get("hub_port", 8081)
    return f"http://{'127.0.0.1' if host in _EVERYWHERE else host}:{port}"


def _write(path: Path, text: str) -> bool:
    """Write a file that is root's alone; return whether that changed it."""
    if path.exists() and path.read_text("utf-8") == text:
        path.chmod(0o600)
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
    return True
