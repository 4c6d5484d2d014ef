"""Judges the hub's configuration."""

import shlex

from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.workshop import Workshop

from .check import Check, fail, needs_root, ok, skip, warn
from .reading.hub_facts import HubFacts, ServiceEntry

_OLDEST, _TOO_NEW = (5, 2), (7, 0)
_QUICKEST_START_SECONDS = 60
"""20 servers at once on 2 cores took 39.5 s (facts: jupyterhub 38)."""
_SPAWNS_AT_ONCE = 100
_DEFAULT_CULL_SECONDS = 600.0
_CULLERS = ("jupyterhub_idle_culler", "jupyterhub-idle-culler", "cull_idle_servers")
_NOT_READ = "The hub's configuration was not read: see hub.config."


def judge_config(hub: HubFacts) -> Check:
    """Judge whether there is a configuration, and whether it shares GPUs."""
    name = "hub.config"
    if not hub.file:
        return skip(
            name,
            "No jupyterhub_config.py was found here, in /etc/jupyterhub or in "
            "/srv/jupyterhub, and no TLJH.",
            "Name it:\n$ gpuworkshop doctor --hub-config FILE",
        )
    if hub.needs_root:
        return needs_root(name, f"{hub.file}: {hub.problem}.")
    if hub.problem:
        return fail(
            name,
            f"{hub.file} was not read: {hub.problem.rstrip('.')}.",
            "See what JupyterHub itself says of it:\n"
            f"$ jupyterhub -f {shlex.quote(hub.file)} --show-config",
        )
    if not hub.configured:
        return fail(
            name,
            f"{hub.file} shares no GPUs: it does not call configure().",
            "Write at its end:\n"
            "    from jupyterhub_gpuworkshop.hub.setup import configure\n"
            '    configure(c, "/etc/jupyterhub/workshop.yaml")\n'
            "and restart the hub.",
        )
    return ok(name, f"{hub.file} loads, and shares GPUs.")


def judge_version(hub: HubFacts, installed: str, running: str) -> Check:
    """Judge JupyterHub's version.

    Args:
        hub: the hub's configuration.
        installed: the version in this environment.
        running: of the hub that answers; empty where none does.
    """
    name = "hub.version"
    version = hub.version or installed
    found = tuple(int(x) for x in version.split(".")[:2] if x.isdigit())
    if len(found) == 2 and not _OLDEST <= found < _TOO_NEW:
        return fail(
            name,
            f"JupyterHub {version}: we support 5.2 to 6.",
            "$ python3 -m pip install 'jupyterhub>=5.2,<7'",
        )
    if running and running != version:
        return warn(
            name,
            f"The hub that runs is JupyterHub {running}, but {version} is installed "
            "here: it was not restarted after an upgrade, or lives in another "
            "environment than this command.",
            "$ sudo systemctl restart jupyterhub",
        )
    others = ", ".join(f"{name} {each}" for name, each in hub.packages.items())
    return ok(name, f"JupyterHub {version}" + (f", {others}." if others else "."))


def judge_spawner(hub: HubFacts) -> Check:
    """Judge whether servers get a lease at all."""
    name = "hub.spawner"
    if not hub.known:
        return skip(name, _NOT_READ)
    short = hub.spawner.rpartition(".")[2]
    if hub.mixin_leftmost is None:
        return fail(
            name,
            f"{short} has no GPU shares: GpuSpawnerMixin is not among its bases.",
            "Call configure(c, ...) after spawner_class is set, or name one of "
            "gpu-local, gpu-systemd, gpu-docker:\n"
            '    c.JupyterHub.spawner_class = "gpu-local"',
        )
    if not hub.mixin_leftmost:
        return fail(
            name,
            f"{short} has GpuSpawnerMixin behind another base, whose start() and "
            "load_state() then go before it: leases are lost.",
            f"Put it leftmost:\n    class {short}(GpuSpawnerMixin, OtherSpawner): ...",
        )
    return ok(name, f"{short}, with the mixin leftmost.")


def judge_remove(hub: HubFacts) -> Check:
    """Judge whether a stopped container goes, and its GPU with it."""
    name = "hub.remove"
    if not hub.known:
        return skip(name, _NOT_READ)
    if not hub.uses_docker:
        return skip(name, "Servers are not containers.")
    if not hub.traits.get("remove"):
        return fail(
            name,
            "c.DockerSpawner.remove is False: a stopped container is started again, "
            "with its old GPU and its old caps.",
            "    c.DockerSpawner.remove = True\n"
            "and remove what is left over:\n"
            "$ docker container prune",
        )
    return ok(name, "Containers are removed when they stop.")


def judge_isolate_devices(hub: HubFacts) -> Check:
    """Judge whether systemd hides every GPU."""
    name = "hub.isolate-devices"
    if not hub.known:
        return skip(name, _NOT_READ)
    if not hub.uses_systemd:
        return skip(name, "Servers are not started by systemd.")
    if hub.traits.get("isolate_devices"):
        return fail(
            name,
            "c.SystemdSpawner.isolate_devices is True: it sets PrivateDevices, and no "
            "server sees a GPU.",
            "    c.SystemdSpawner.isolate_devices = False\n"
            "The spawner opens the leased devices, and no others.",
        )
    return ok(name, "Devices are opened by lease, not hidden altogether.")


def judge_timeouts(hub: HubFacts) -> Check:
    """Judge whether a class can start at once."""
    name = "hub.timeouts"
    if not hub.known:
        return skip(name, _NOT_READ)
    short = {
        trait: seconds
        for trait in ("start_timeout", "http_timeout")
        if isinstance(seconds := hub.traits.get(trait), (int, float))
        and 0 < seconds < _QUICKEST_START_SECONDS
    }
    said = ", ".join(
        f"{trait} {hub.traits.get(trait)} s"
        for trait in ("start_timeout", "http_timeout")
    )
    if short:
        return warn(
            name,
            f"{said}: when a class starts together, servers take 40 s and more, and "
            "some of them would be given up.",
            "    c.Spawner.start_timeout = 180\n    c.Spawner.http_timeout = 120",
        )
    return ok(name, f"{said}.")


def judge_spawn_limits(hub: HubFacts, attendees: int | None) -> Check:
    """Judge whether limits of the hub's stand in the way of the attendees expected."""
    name = "hub.spawn-limits"
    if not hub.known:
        return skip(name, _NOT_READ)
    active, at_once = hub.active_server_limit, hub.concurrent_spawn_limit
    failures = hub.traits.get("consecutive_failure_limit") or 0
    said = (
        f"active_server_limit {active or 'none'}, "
        f"concurrent_spawn_limit {at_once or 'none'}"
    )
    if active and attendees and active < attendees:
        return fail(
            name,
            f"{said}: of {attendees} attendees, {attendees - active} would be refused.",
            f"    c.JupyterHub.active_server_limit = {attendees}",
        )
    if failures and hub.version.startswith("5."):
        return warn(
            name,
            f"consecutive_failure_limit is {failures}: before JupyterHub 6 every "
            "attendee who finds no GPU free counts as a failure, and so many in a row "
            "stop the hub.",
            "    c.Spawner.consecutive_failure_limit = 0",
        )
    needed = min(attendees or 0, _SPAWNS_AT_ONCE)
    if at_once and at_once < needed:
        return warn(
            name,
            f"{said}: when {attendees} attendees start at once, all but {at_once} are "
            "told to try again later.",
            f"    c.JupyterHub.concurrent_spawn_limit = {needed}",
        )
    return ok(name, f"{said}.")


def judge_memory_limit(hub: HubFacts, *, simulated: bool) -> Check:
    """Judge whether one server can take the whole host's memory."""
    name = "hub.memory-limit"
    if not hub.known:
        return skip(name, _NOT_READ)
    limit = hub.traits.get("mem_limit")
    enforced = hub.uses_docker or hub.uses_systemd
    if enforced and limit:
        return ok(name, f"Each server may use {limit} of host memory.")
    if not enforced and hub.is_local and simulated:
        return skip(name, "A rehearsal, with servers as plain processes: no limit.")
    if not enforced and hub.is_local:
        return warn(
            name,
            "Servers are plain processes, whose host memory nobody limits"
            + (" (mem_limit is not enforced for them)" if limit else "")
            + ": one that takes it all ends others.",
            "For a room of people take gpu-systemd or gpu-docker:\n"
            '    c.JupyterHub.spawner_class = "gpu-systemd"\n'
            '    c.Spawner.mem_limit = "8G"',
        )
    if not limit:
        return warn(
            name,
            "No server has a limit on host memory: one that takes it all ends others.",
            "$ sudo tljh-config set limits.memory 8G\n$ sudo tljh-config reload"
            if _is_tljh(hub)
            else '    c.Spawner.mem_limit = "8G"',
        )
    return ok(name, f"Each server may use {limit} of host memory.")


def judge_culler(hub: HubFacts, workshop: Workshop) -> Check:
    """Judge whether something stops servers before our gentler rules take memory."""
    name = "hub.culler"
    if not hub.known:
        return skip(name, _NOT_READ)
    ours = workshop.idle.after
    rules = f"our rules wait {format_duration(ours)}"
    for service in hub.services:
        if not any(word in " ".join(service.command) for word in _CULLERS):
            continue
        seconds = _culls_after(service)
        if seconds < ours:
            return warn(
                name,
                f"The idle culler ({service.name}) stops whole servers after "
                f"{format_duration(seconds)}, variables and all; {rules}.",
                _raise_culler(hub, ours),
            )
        return ok(
            name,
            f"The idle culler waits {format_duration(seconds)}; {rules}.",
        )
    kernels = _kernel_culling(hub)
    if kernels is not None and 0 < kernels < ours:
        return warn(
            name,
            f"Servers end idle kernels after {format_duration(kernels)} whether or not "
            f"memory is needed; {rules}.",
            "Take MappingKernelManager.cull_idle_timeout out of c.Spawner.args.",
        )
    return ok(name, "No idle culler is quicker than our own rules.")


def _culls_after(service: ServiceEntry) -> float:
    words = service.command
    for position, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == "--timeout":
            given = value if equals else "".join(words[position + 1 : position + 2])
            try:
                return float(given)
            except ValueError:
                return _DEFAULT_CULL_SECONDS
    return _DEFAULT_CULL_SECONDS


def _raise_culler(hub: HubFacts, seconds: float) -> str:
    enough = int(seconds) + 3600
    if _is_tljh(hub):
        return (
            f"$ sudo tljh-config set services.cull.timeout {enough}\n"
            "$ sudo tljh-config reload"
        )
    return f"Give it --timeout={enough} in c.JupyterHub.services."


def _is_tljh(hub: HubFacts) -> bool:
    return "/tljh/" in hub.file


def _kernel_culling(hub: HubFacts) -> float | None:
    for word in hub.traits.get("args") or ():
        key, _, value = str(word).partition("=")
        if key.endswith("cull_idle_timeout"):
            try:
                return float(value)
            except ValueError:
                return None
    return None
