"""configure(c, workshop): one call in jupyterhub_config.py.

Owns what is set in the hub's configuration: spawner, service, link, roles and scopes.
It adds to what is there and never replaces it.
"""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from jupyterhub.spawner import Spawner
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.workshop import Workshop

from .doors import DoorKeeper, first_page
from .mixin import GpuSpawnerMixin
from .organisers import ORGANISER_ROLE
from .runtime import GpuRuntime
from .spawners.docker_request import NO_SWARM

READ_SCOPE = "custom:gpuworkshop:read"
ADMIN_SCOPE = "custom:gpuworkshop:admin"
SERVICE_ROLE = "gpuworkshop-service"

ONLY_READ = "GPUWORKSHOP_ONLY_READ"
"""The environment variable of who loads a hub's configuration without a hub, as the
doctor does: what that would make or change on the host is left alone."""

_SPAWNERS = {
    "jupyterhub.spawner.LocalProcessSpawner": "gpu-local",
    "jupyterhub.spawner.SimpleLocalProcessSpawner": "gpu-simple",
    "dockerspawner.dockerspawner.DockerSpawner": "gpu-docker",
    "systemdspawner.systemdspawner.SystemdSpawner": "gpu-systemd",
}
"""Bare spawners, and the one of ours that does the same with GPU shares."""

_MIXINS = {
    "jupyterhub.spawner.LocalProcessSpawner": ("spawners.local", "GpuLocalMixin"),
    "dockerspawner.dockerspawner.DockerSpawner": ("spawners.docker", "GpuDockerMixin"),
    "systemdspawner.systemdspawner.SystemdSpawner": (
        *("spawners.systemd", "GpuSystemdMixin"),
    ),
}
"""What goes in front of a spawner that is made of one of these."""

_UNABLE = {"dockerspawner.swarmspawner.SwarmSpawner": NO_SWARM}
"""Spawners that no mixin helps, and why."""

_HTTP_TIMEOUT_SECONDS = 120
_START_TIMEOUT_SECONDS = 180
"""A class that starts together on a small machine needs more than JupyterHub's 30 s:
20 servers at once on 2 cores took 39.5 s (facts: jupyterhub 38)."""


def configure(
    c: Config, workshop: str | Path | Mapping[str, Any] | None = None
) -> None:
    """Share the hub's GPUs: call this at the end of jupyterhub_config.py.

    Args:
        c: the hub's configuration, as far as it is set.
        workshop: the workshop file's path, or its content, or nothing for the
            defaults.

    Raises:
        WorkshopFileError: a mistake in the workshop file, or a spawner class that
            cannot take shares; the text says what to do.
    """
    source: str | dict[str, Any]
    if isinstance(workshop, Mapping):
        source = dict(workshop)
    else:
        source = os.fspath(Path(workshop).absolute()) if workshop else {}
    rules = Workshop.load(source)
    if "service_url" in c.GpuRuntime:
        raise WorkshopFileError(
            "configure(c, ...) was called twice: once is enough, at the end of "
            "jupyterhub_config.py."
        )
    _raise_timeouts(c, _set_spawner(c))
    service_url, secret = _add_service(c, rules, source)
    _add_roles(c, rules.service.name)
    _set_roster(c, os.fspath(rules.roster_file(source)), rules)
    _set_doors(c, rules.service.name, source)
    c.GpuRuntime.workshop = source
    c.GpuRuntime.service_url = service_url
    c.GpuRuntime.link_secret = secret
    _start_with_the_hub()


def _set_roster(c: Config, path: str, rules: Workshop) -> None:
    """Say where the roster is, for a hub whose authenticator asks it."""
    c.RosterAuthenticator.setdefault("roster_file", path)
    c.RosterAuthenticator.setdefault("seats", rules.roster.seats or 0)
    # Who took such a name with the room's code would have the share, or the role, that
    # goes with it: the hub gives roles by name whenever it starts.
    with_role = {
        name for role in _listed(c, "load_roles") for name in role.get("users", ())
    }
    given = c.RosterAuthenticator.get("reserved_names", ())
    reserved = given.get_value(set()) if isinstance(given, LazyConfigValue) else given
    c.RosterAuthenticator.reserved_names = {
        *(*reserved, *with_role, *rules.shares.users),
    }
    manages = c.RosterAuthenticator.get("manage_groups", True)
    asks = c.JupyterHub.get("authenticator_class") == "gpuworkshop-roster"
    if asks and manages and _mapped(c, "load_groups"):
        raise WorkshopFileError(
            "c.JupyterHub.load_groups is set, but with the authenticator "
            "gpuworkshop-roster the roster says who is in which group, and JupyterHub "
            "takes one of the two. Take load_groups out and give the roster a column "
            "`group`; or set c.RosterAuthenticator.manage_groups = False, and groups "
            "and shares of the roster are not heeded."
        )


def _set_doors(c: Config, service: str, source: str | dict[str, Any]) -> None:
    """Keep the opening hours; who logs in after them finds the way to their work."""
    c.DoorKeeper.setdefault("workshop", source)
    c.JupyterHub.default_url = first_page(
        lambda handler: DoorKeeper.of(handler.settings),
        service,
        c.JupyterHub.get("default_url", ""),
    )


def is_only_read() -> bool:
    """Whether the configuration is only read, and no hub will start with it."""
    return bool(os.environ.get(ONLY_READ))


def _set_spawner(c: Config) -> type[Spawner]:
    """Choose the spawner with GPU shares; return the class that it is made of."""
    chosen = c.JupyterHub.get("spawner_class", "default")
    found = _import(chosen) if isinstance(chosen, str) else chosen
    if (name := _SPAWNERS.get(_full_name(found))) is not None:
        c.JupyterHub.spawner_class = name
        ours = _import(name)
    elif issubclass(found, GpuSpawnerMixin):
        named = isinstance(chosen, str) and chosen.startswith("gpu-")
        c.JupyterHub.spawner_class = chosen if named else found
        ours = found
    else:
        raise WorkshopFileError(_how_it_takes_shares(found))
    if mistake := ours.mistake_in(c):
        raise WorkshopFileError(mistake)
    return found


def _full_name(spawner: type) -> str:
    """Return what names a class that need not be installed."""
    return f"{spawner.__module__}.{spawner.__qualname__}"


def _how_it_takes_shares(found: type[Spawner]) -> str:
    """Say what to do with a spawner that cannot take shares."""
    bases = [_full_name(base) for base in found.__mro__]
    told = f"c.JupyterHub.spawner_class = {found.__name__} cannot take GPU shares. "
    for base in bases:
        if base in _UNABLE:
            return told + _UNABLE[base]
    module, mixin = next(
        (_MIXINS[base] for base in bases if base in _MIXINS),
        ("mixin", "GpuSpawnerMixin"),
    )
    return (
        f"{told}Put the mixin in front of it:\n"
        f"    from jupyterhub_gpuworkshop.hub.{module} import {mixin}\n"
        f"    class GpuSpawner({mixin}, {found.__name__}):\n"
        '        """With GPU shares."""\n'
        "    c.JupyterHub.spawner_class = GpuSpawner"
    )


def _raise_timeouts(c: Config, spawner: type[Spawner]) -> None:
    """Set what is unset, unless the spawner's own default is longer still."""
    for name, seconds in (
        ("http_timeout", _HTTP_TIMEOUT_SECONDS),
        ("start_timeout", _START_TIMEOUT_SECONDS),
    ):
        if spawner.class_traits()[name].default() < seconds:
            c.Spawner.setdefault(name, seconds)


def _import(name: str) -> Any:
    """Return a spawner class by the name that JupyterHub would take."""
    trait = JupyterHub.spawner_class
    found = trait.load_entry_points().get(name.lower())
    try:
        return found.load() if found is not None else trait._resolve_string(name)
    except ImportError as error:
        raise WorkshopFileError(
            f"c.JupyterHub.spawner_class = {name!r} cannot be imported: {error}. "
            "Install it in the hub's environment, or mend its name."
            + _extra_of(name.lower())
        ) from error


def _extra_of(name: str) -> str:
    """Say how to install what a spawner of ours needs."""
    extra = name.removeprefix("gpu-")
    if extra == name or extra in ("local", "simple"):
        return ""
    return f" It comes with: pip install 'jupyterhub-gpuworkshop[{extra}]'"


def _add_service(
    c: Config, rules: Workshop, source: str | dict[str, Any]
) -> tuple[str, str]:
    """Register the GPU service; return its URL and the link's secret."""
    name = rules.service.name
    url = rules.service.url or f"http://127.0.0.1:{rules.service.port}"
    service: dict[str, Any] = {
        "name": name,
        "url": url,
        "display": True,
        "oauth_no_confirm": True,
        # What the page asks of whoever logs in: nothing but who they are, since when,
        # and whether they organise. An account is told from an earlier one of the
        # same name by that, whose work is not theirs.
        "oauth_client_allowed_scopes": [
            *(READ_SCOPE, ADMIN_SCOPE, "admin-ui", "read:users!user"),
        ],
    }
    if rules.service.managed:
        secret = secrets.token_hex(32)
        given = source if isinstance(source, str) else json.dumps(source)
        service["command"] = [sys.executable, "-m", "jupyterhub_gpuworkshop", "service"]
        service["environment"] = {
            "GPUWORKSHOP_LINK_SECRET": secret,
            "GPUWORKSHOP_WORKSHOP": given,
            "GPUWORKSHOP_HUB_PID": str(os.getpid()),
        }
    else:
        kept = _kept_secrets(rules)
        secret = kept["GPUWORKSHOP_LINK_SECRET"]
        service["api_token"] = kept["JUPYTERHUB_API_TOKEN"]
    c.JupyterHub.services = [*_listed(c, "services"), service]
    return url, secret


def _kept_secrets(rules: Workshop) -> dict[str, str]:
    """Read, or make, the file of secrets that an external service reads too.

    Its lines are ``NAME=value``, so that systemd's EnvironmentFile takes it.
    """
    if rules.service.secret_file is None:
        raise WorkshopFileError(
            "service.secret_file: is needed where service.managed is false, so that "
            "hub and GPU service find the same secrets. Name a file in a folder that "
            "both can read, for example /etc/gpuworkshop/secrets.env; the hub makes it."
        )
    path = Path(rules.service.secret_file)
    names = ("GPUWORKSHOP_LINK_SECRET", "JUPYTERHUB_API_TOKEN")
    if is_only_read():
        # A file that root makes would lock the hub out, where the hub is not root.
        return dict.fromkeys(names, "")
    if not path.exists():
        made = "".join(f"{name}={secrets.token_hex(32)}\n" for name in names)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(made)
    kept = dict(
        line.split("=", 1) for line in path.read_text().splitlines() if "=" in line
    )
    missing = [name for name in names if not kept.get(name)]
    if missing:
        raise WorkshopFileError(
            f"service.secret_file: {path} lacks {' and '.join(missing)}. Remove the "
            "file, and it is made anew; then restart the GPU service."
        )
    return kept


def _add_roles(c: Config, service: str) -> None:
    c.JupyterHub.custom_scopes = {
        READ_SCOPE: {
            "description": "See one's own GPU share and the GPUs' totals, and pin "
            "one's own kernels"
        },
        ADMIN_SCOPE: {
            "description": "See and manage everybody's GPU use",
            "subscopes": [READ_SCOPE],
        },
        **_mapped(c, "custom_scopes"),
    }
    access = f"access:services!service={service}"
    roles = [dict(role) for role in _listed(c, "load_roles")]
    user = next((role for role in roles if role.get("name") == "user"), None)
    if user is None:
        # The scopes that JupyterHub gives the role where nobody sets it.
        user = {"name": "user", "scopes": ["self"]}
        roles.append(user)
    user["scopes"] = [*user.get("scopes", ["self"]), READ_SCOPE, access]
    if not any(role.get("name") == ORGANISER_ROLE for role in roles):
        roles.append(
            {
                "name": ORGANISER_ROLE,
                "description": "Organisers of the workshop who are not hub admins",
                "scopes": [ADMIN_SCOPE, access],
            }
        )
    ours = next((role for role in roles if role.get("name") == SERVICE_ROLE), None)
    if ours is None:
        ours = {
            "name": SERVICE_ROLE,
            "description": "The GPU service, which stops idle servers",
        }
        roles.append(ours)
    _add(ours, "scopes", "delete:servers")
    _add(ours, "services", service)
    c.JupyterHub.load_roles = roles


def _add(role: dict[str, Any], key: str, value: str) -> None:
    """Put a value into one of a role's lists, which stays the admin's otherwise."""
    given = role.get(key, [])
    role[key] = [*given, *([] if value in given else [value])]


def _listed(c: Config, name: str) -> list[Any]:
    """Return a list trait as far as it is set, ``c.X.append(...)`` included."""
    value = c.JupyterHub.get(name, [])
    return list(value if isinstance(value, (list, tuple)) else value.get_value([]))


def _mapped(c: Config, name: str) -> dict[str, Any]:
    value = c.JupyterHub.get(name, {})
    return dict(value if isinstance(value, Mapping) else value.get_value({}))


def _start_with_the_hub() -> None:
    """Start the runtime when the hub listens, not only at the first spawn.

    The configuration is loaded on the hub's own running loop. Elsewhere (``jupyterhub
    token``, a test) there is none, and the first spawn starts the runtime.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    if JupyterHub.initialized():
        task = loop.create_task(_start_when_it_listens(JupyterHub.instance()))
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)


_TASKS: set["asyncio.Task[None]"] = set()
"""A loop keeps only weak references to its tasks."""


async def _start_when_it_listens(app: Any) -> None:
    while app.http_server is None:  # noqa: ASYNC110  # the hub has no event for it
        await asyncio.sleep(0.1)
    try:
        GpuRuntime.of(app.tornado_settings).start()
    except Exception:
        app.log.exception("GPU shares cannot be granted until this is mended")
