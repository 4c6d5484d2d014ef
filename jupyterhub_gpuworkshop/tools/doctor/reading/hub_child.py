"""``python -m ...doctor.reading.hub_child FILE``: a hub's configuration as JSON.

Loads the file as JupyterHub would, without starting a hub, and prints `HubFacts`. It
runs the organiser's own code, so it runs in a child: whatever that code does, prints or
ends, ends here. No secret is printed.
"""

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.setup import ONLY_READ

from .hub_facts import HUB_FACTS, HubFacts, RoleFacts, ServiceEntry

_PACKAGES = ("dockerspawner", "jupyterhub-systemdspawner", "jupyterhub-idle-culler")


def main() -> None:
    """Print what matters; the configuration's own prints go to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    os.environ[ONLY_READ] = "1"
    file = Path(sys.argv[1])
    os.chdir(file.parent)
    facts = load(file)
    os.write(answer, HUB_FACTS.dump_json(facts))
    os._exit(0)  # what the configuration has registered for the end is not for us


def load(file: Path) -> HubFacts:
    """Load the configuration and read it."""
    app = JupyterHub()
    app.raise_config_file_errors = True
    try:
        app.load_config_file(str(file.absolute()))
        return _facts(app, file)
    except GpuWorkshopError as error:
        # A sentence of ours, with what to do.
        return HubFacts(file=str(file), version=_version(), problem=str(error))
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else repr(error)
        return HubFacts(file=str(file), version=_version(), problem=said)


def _facts(app: Any, file: Path) -> HubFacts:
    config = app.config
    spawner = app.spawner_class
    lineage = [f"{x.__module__}.{x.__name__}" for x in spawner.__mro__]
    runtime = config.get("GpuRuntime", {})
    workshop = runtime.get("workshop")
    return HubFacts(
        file=str(file),
        version=_version(),
        packages={
            name: found for name in _PACKAGES if (found := _package_version(name))
        },
        spawner=lineage[0],
        lineage=tuple(lineage),
        mixin_leftmost=_leftmost(spawner),
        configured="service_url" in runtime,
        workshop=workshop if isinstance(workshop, (str, dict)) else None,
        base_url=app.base_url,
        bind_url=app.bind_url,
        public_url=getattr(app, "public_url", "") or "",
        hub_url=_hub_url(app),
        internal_ssl=app.internal_ssl,
        has_certificate=bool(app.ssl_cert) or app.bind_url.startswith("https:"),
        concurrent_spawn_limit=app.concurrent_spawn_limit,
        active_server_limit=app.active_server_limit,
        services=tuple(_service(each) for each in app.services),
        roles=tuple(_role(each) for each in app.load_roles),
        custom_scopes=tuple(app.custom_scopes),
        traits=_traits(spawner, config),
    )


def _leftmost(spawner: type) -> bool | None:
    """Whether the mixin's methods go before the spawner's; None without the mixin."""
    if not issubclass(spawner, GpuSpawnerMixin):
        return None
    for each in spawner.__mro__[1:]:
        if each is GpuSpawnerMixin:
            return True
        # Before the mixin, only what builds on it may stand.
        if not issubclass(each, GpuSpawnerMixin) and "start" in vars(each):
            return False
    return True


def _hub_url(app: Any) -> str:
    if app.hub_bind_url:
        return str(app.hub_bind_url)
    scheme = "https" if app.internal_ssl else "http"
    host = app.hub_ip if app.hub_ip not in ("", "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    return f"{scheme}://{host}:{app.hub_port}"


def _service(entry: Mapping[str, Any]) -> ServiceEntry:
    command = entry.get("command") or ()
    return ServiceEntry(
        name=str(entry.get("name", "")),
        url=str(entry.get("url") or ""),
        command=tuple(
            str(x) for x in ([command] if isinstance(command, str) else command)
        ),
        display=bool(entry.get("display", True)),
        client_scopes=tuple(entry.get("oauth_client_allowed_scopes") or ()),
    )


def _role(entry: Mapping[str, Any]) -> RoleFacts:
    return RoleFacts(
        name=str(entry.get("name", "")),
        scopes=tuple(entry.get("scopes") or ()),
        services=tuple(entry.get("services") or ()),
    )


_TRAITS = (
    "start_timeout",
    "http_timeout",
    "mem_limit",
    "consecutive_failure_limit",
    "args",
    "notebook_dir",
    "home_dir_template",
    "user_workingdir",
    "isolate_devices",
    "remove",
    "image",
    "network_name",
    "use_internal_ip",
    "volumes",
    "memory_hook",
    "memory_hook_path",
)


def _traits(spawner: type, config: Config) -> dict[str, Any]:
    """Return what the spawner's traits would be, without making a spawner.

    As traitlets does it: the section of each class, the most derived last.
    """
    found = {}
    for name, trait in spawner.class_traits().items():  # type: ignore[attr-defined]
        if name not in _TRAITS:
            continue
        value = trait.default()
        for section in spawner.section_names():  # type: ignore[attr-defined]
            if name in config.get(section, {}):
                value = _value(config[section][name], value)
        with contextlib.suppress(Exception):  # what needs a spawner stays as it is
            value = trait._validate(None, value)
        found[name] = _plain(value)
    return found


def _value(given: Any, before: Any) -> Any:
    return given.get_value(before) if isinstance(given, LazyConfigValue) else given


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(x) for x in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return "(set by a function)" if callable(value) else str(value)


def _version() -> str:
    return _package_version("jupyterhub")


def _package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
