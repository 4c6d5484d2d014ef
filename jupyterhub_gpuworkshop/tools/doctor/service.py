"""Judges the GPU service: that it runs, sees, is told, may, and reaches."""

from collections.abc import Mapping, Sequence
from typing import Any

from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.hub.setup import ADMIN_SCOPE, READ_SCOPE
from jupyterhub_gpuworkshop.workshop import Workshop

from .check import Check, fail, ok, skip, warn
from .reading.hub_facts import HubFacts
from .reading.service import Answer

_OLD_SECONDS = 60.0
_SILENT = "The service does not answer: see service.reachable."
_TELLS_NOTHING = (
    "The service tells how it is only to who asks on its own machine, not through a "
    "proxy or from another container.",
    "Where it runs in a container:\n"
    "$ docker compose exec gpu-service gpuworkshop doctor",
)
_WHERE_NAMED = (
    "Who it is stands on the service's page, in lines marked Not known (or set "
    "JUPYTERHUB_API_TOKEN to an organiser's token for this command)."
)


def service_url(workshop: Workshop, hub: HubFacts) -> str:
    """Return where the service is, with a slash at the end."""
    settings = workshop.service
    root = (settings.url or f"http://127.0.0.1:{settings.port}").rstrip("/")
    return f"{root}{hub.base_url.rstrip('/')}/services/{settings.name}/"


def judge_reachable(
    answer: Answer, workshop: Workshop, version: str, hub_runs: bool
) -> Check:
    """Judge whether the service answers.

    Args:
        answer: of its ``health``.
        workshop: the organiser's.
        version: of this package.
        hub_runs: whether its hub does: it starts a service that it manages, and
            whoever has not started the one will not have started the other.
    """
    name = "service.reachable"
    unit = workshop.service.name
    restart = (
        "It is started by the hub: restart the hub, and see its log.\n"
        "$ sudo systemctl restart jupyterhub"
        if workshop.service.managed
        else f"$ sudo systemctl restart {unit}\n$ sudo journalctl -u {unit} -n 50"
    )
    if answer.status is None and not hub_runs:
        return skip(
            name,
            f"Nobody answers at {answer.url}, and no hub that would use it runs: "
            "nothing has been started yet.",
        )
    if answer.status is None:
        return fail(name, f"Nobody answers at {answer.url}: {answer.problem}.", restart)
    if answer.status != 200 or not isinstance(answer.body, dict):
        return fail(
            name,
            f"{answer.url} answers with status {answer.status}: something else has the "
            "port, or the hub has another base_url than was found.",
            f"See who listens there, and set service.port to a port that is free:\n"
            f"$ sudo ss -ltnp 'sport = :{workshop.service.port}'",
        )
    theirs = answer.body.get("version")
    if theirs and theirs != version:
        return warn(
            name,
            f"The service is version {theirs}, but {version} is installed: it was not "
            "restarted after the upgrade.",
            restart,
        )
    return ok(name, f"The service answers at {answer.url}.")


def judge_sampling(answer: Answer) -> Check:
    """Judge whether the service sees the GPUs now."""
    name = "service.sampling"
    told = _told(answer)
    if told is None:
        return _not_told(name, answer)
    if not told.get("rounds"):
        return warn(
            name,
            "The service has not looked at the GPUs yet; it has just started, or a "
            "look hangs.",
            "Run the doctor again in a minute.",
        )
    age = float(told.get("age_seconds") or 0)
    if age > _OLD_SECONDS:
        return fail(
            name,
            f"The service's last look at the GPUs is {format_duration(age)} ago: the "
            "driver hangs, or the service does.",
            "$ nvidia-smi\nand restart the service if that answers.",
        )
    if not told.get("devices") or not told.get("samples"):
        why = str(told.get("devices_problem") or "it could not read any").rstrip(".")
        return fail(
            name,
            f"The service sees no GPU: {why}.",
            "If gpus.driver is fine, the service's unit hides the devices "
            "(PrivateDevices, DeviceAllow), or its container lacks them.",
        )
    return ok(name, f"It sees {told['devices']} devices, {age:.0f} s ago.")


def judge_link(answer: Answer) -> Check:
    """Judge whether the hub reports to the service."""
    name = "service.link"
    told = _told(answer)
    if told is None:
        return _not_told(name, answer)
    if told.get("hub_problem"):
        return fail(
            name,
            str(told["hub_problem"]),
            "See that the hub runs, and that both read the same secret "
            "(service.secret_file):\n$ sudo systemctl status jupyterhub",
        )
    return ok(name, "The hub reports to it.")


def judge_servers(
    answer: Answer, hub: HubFacts, problems: Sequence[str] | None
) -> Check:
    """Judge whether the service reaches every server, with the remedy for its kind.

    Args:
        answer: of its ``health``.
        hub: the hub's configuration.
        problems: what the snapshot says is unknown, for an organiser's token; None
            without one.
    """
    name = "service.servers"
    told = _told(answer)
    if told is None:
        return _not_told(name, answer)
    servers, unknown = int(told.get("servers", 0)), int(told.get("unknown_servers", 0))
    if unknown:
        named = [x for x in problems or () if x.startswith("The server of ")]
        return fail(
            name,
            f"The service does not reach {unknown} of {servers} servers: their kernels "
            "are unknown, and nothing of theirs is reclaimed. " + " ".join(named),
            _reach(hub) + ("" if named else f"\n{_WHERE_NAMED}"),
        )
    if not servers:
        return skip(name, "No server runs whose kernels it could ask for.")
    return ok(name, f"It reaches all {servers} servers.")


def _reach(hub: HubFacts) -> str:
    if hub.internal_ssl:
        return (
            "c.JupyterHub.internal_ssl is on: servers answer only who has a "
            "certificate of the hub's, which the service has not. Switch it off:\n"
            "    c.JupyterHub.internal_ssl = False"
        )
    if hub.uses_docker:
        network = hub.traits.get("network_name") or "jupyterhub"
        return (
            "Hub, service and attendees' containers must be on one Docker network:\n"
            f"    c.DockerSpawner.network_name = {network!r}\n"
            "    c.DockerSpawner.use_internal_ip = True\n"
            f"$ docker network inspect {network}\n"
            f"$ docker network connect {network} SERVICE_CONTAINER"
        )
    return (
        "Servers listen on this machine: see that a firewall lets the service in, and "
        "whether they answer at all:\n$ sudo ss -ltnp | grep -i jupyterhub"
    )


def judge_scopes(
    hub: HubFacts, workshop: Workshop, who: Answer | None, has_secret: bool
) -> Check:
    """Judge whether organisers and attendees may see what is theirs.

    Args:
        hub: the hub's configuration.
        workshop: the organiser's.
        who: the hub's answer to the service's own token; None where it was not asked.
        has_secret: whether the secrets of a service that the hub does not start could
            be read.
    """
    name = "service.scopes"
    service = workshop.service.name
    if not hub.known:
        return skip(name, "The hub's configuration was not read: see hub.config.")
    if (wrong := _wrong_in_configuration(hub, service)) is not None:
        finding, remedy = wrong
        return fail(name, finding, remedy)
    if workshop.service.managed:
        return ok(name, "Attendees and organisers may see the service's page.")
    if not has_secret:
        return skip(
            name,
            "The configuration is right; the service's token is in "
            f"{workshop.service.secret_file}, which this user cannot read.",
            "$ sudo gpuworkshop doctor",
        )
    if who is None or who.status is None:
        return skip(name, "The configuration is right; the hub does not answer.")
    if who.status in (401, 403):
        return fail(
            name,
            f"The hub does not know the service's token of "
            f"{workshop.service.secret_file}: nobody can log in to the service.",
            "The hub reads it when it starts:\n$ sudo systemctl restart jupyterhub",
        )
    return ok(name, "The hub knows the service's token; all may see the page.")


def _wrong_in_configuration(hub: HubFacts, service: str) -> tuple[str, str] | None:
    last = "Call configure(c, ...) at the very end of the hub's configuration."
    entry = next((x for x in hub.services if x.name == service), None)
    if entry is None:
        return (f"No service {service!r} is registered with the hub.", last)
    if lacking := {READ_SCOPE, ADMIN_SCOPE} - set(hub.custom_scopes):
        return (f"c.JupyterHub.custom_scopes lacks {_listed(lacking)}.", last)
    if lacking := {READ_SCOPE, ADMIN_SCOPE, "admin-ui"} - set(entry.client_scopes):
        return (
            f"The service may not ask for {_listed(lacking)}: organisers are taken for "
            "attendees, or nobody is let in.",
            last,
        )
    role = next((x for x in hub.roles if x.name == "user"), None)
    needed = {READ_SCOPE, f"access:services!service={service}"}
    has = set(role.scopes) if role else set()
    if "access:services" in has:
        needed.discard(f"access:services!service={service}")
    if lacking := needed - has:
        return (
            f"The role user lacks {_listed(lacking)}: attendees cannot see their GPU.",
            last,
        )
    return None


def _listed(words: set[str]) -> str:
    return ", ".join(sorted(words))


def _told(answer: Answer) -> Mapping[str, Any] | None:
    told = answer.body
    return told if isinstance(told, dict) and "rounds" in told else None


def _not_told(name: str, answer: Answer) -> Check:
    if answer.status != 200:
        return skip(name, _SILENT)
    return skip(name, *_TELLS_NOTHING)
