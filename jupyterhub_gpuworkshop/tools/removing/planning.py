"""What would be removed: read, and changed in nothing.

Owns who is left alone. Whose name the roster has is not enough: whoever has power over
the hub or this machine stays, by whatever they got it.
"""

import asyncio
import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import HubError
from jupyterhub_gpuworkshop.core.roster import Roster
from jupyterhub_gpuworkshop.hub.homes import Home
from jupyterhub_gpuworkshop.hub.organisers import ORGANISER_ROLE
from jupyterhub_gpuworkshop.tools.hub_calls import (
    HubCalls,
    json_of,
    list_of,
    said,
    user_path,
)

from .disk import NOTHING, Size, size_of
from .homes import Fate, Judged, judge

_POWERFUL_ROLES = frozenset({"admin", ORGANISER_ROLE})
_SUFFIX = ".tar.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """An attendee who would be removed.

    Attributes:
        name: at the hub.
        has_account: whether the hub knows the name.
        servers: names of those that run; each has its lease.
        home: what is done with it.
        size: of a home that goes.
        archive_at: when their work was packed, seconds since the epoch; None for
            never, as far as this user may see.
        active_at: when the hub last heard of work of theirs; None for never.
    """

    name: str
    has_account: bool
    servers: tuple[str, ...] = ()
    home: Judged
    size: Size = NOTHING
    archive_at: float | None = None
    active_at: float | None = None

    @property
    def is_collected(self) -> bool:
        """Whether no work would be lost, as far as that can be told by times."""
        if self.active_at is None and self.home.fate is not Fate.GOES:
            return True
        if self.archive_at is None:
            return False
        return self.active_at is None or self.active_at <= self.archive_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be removed, and who is left alone.

    Attributes:
        going: who would be removed.
        left: who would not, and why, in a sentence.
    """

    going: tuple[Going, ...] = ()
    left: tuple[tuple[str, str], ...] = ()


async def make_plan(
    hub: HubCalls,
    roster: Roster,
    homes: Mapping[str, Home],
    archives: Path,
    names: Sequence[str],
) -> Plan:
    """Return what is to be removed of these people.

    Args:
        hub: to ask.
        roster: who is an attendee, and who an organiser.
        homes: as the hub wrote them down.
        archives: the folder of collected work.
        names: whom; all of the roster's attendees without any.

    Raises:
        RosterError: one of them is nobody's on the roster.
        HubError: the hub does not say who is an admin.
    """
    wanted = tuple(dict.fromkeys(names)) or roster.names()
    roster.without(wanted)  # refused where somebody is unknown
    powerful_groups = await _powerful_groups(hub)
    asking = asyncio.Semaphore(8)

    async def one(name: str) -> tuple[str, dict[str, Any] | None]:
        async with asking:
            return name, await user_model(hub, name)

    models = dict(await asyncio.gather(*(one(name) for name in wanted)))
    going: list[Going] = []
    left: list[tuple[str, str]] = []
    for name in wanted:
        model = models[name]
        why = "an organiser on the roster" if roster.organiser(name) else ""
        why = why or why_powerful(model, powerful_groups)
        judged = judge(name, homes)
        if not why and judged.fate is Fate.IN_DOUBT:
            why = judged.why
        if why:
            left.append((name, why))
            continue
        going.append(
            Going(
                name=name,
                has_account=model is not None,
                servers=_running(model),
                home=judged,
                size=(
                    await asyncio.to_thread(size_of, judged.path)
                    if judged.fate is Fate.GOES and judged.path is not None
                    else NOTHING
                ),
                archive_at=_archive_at(archives, name),
                active_at=_active_at(model),
            )
        )
    return Plan(going=tuple(going), left=tuple(left))


async def user_model(hub: HubCalls, name: str) -> dict[str, Any] | None:
    """Return what the hub says of a user; None where it knows none.

    Raises:
        HubError: it does not say whether that is an admin.
    """
    path = f"{user_path(name)}?include_stopped_servers=1"
    answer = await hub.call("GET", path)
    if answer.code == 404:
        return None
    model = json_of(answer)
    if answer.code != 200 or not isinstance(model.get("admin"), bool):
        raise HubError(
            f"The hub does not say whether {name} is an admin ({said(answer)}). Use "
            "the token of an admin."
        )
    return model


def why_powerful(model: Mapping[str, Any] | None, groups: Collection[str]) -> str:
    """Say why somebody is no mere attendee; empty for an attendee.

    Args:
        model: what the hub says of them.
        groups: those whose members have power.
    """
    if model is None:
        return ""
    if model["admin"]:
        return "an admin of the hub"
    if roles := _POWERFUL_ROLES & set(model.get("roles") or ()):
        return f"has the role {', '.join(sorted(roles))} at the hub"
    if mine := set(groups) & set(model.get("groups") or ()):
        return f"is in the group {', '.join(sorted(mine))}, which has power at the hub"
    return ""


async def _powerful_groups(hub: HubCalls) -> frozenset[str]:
    found = await _all_groups(hub)
    return frozenset(
        str(group.get("name"))
        for group in found
        if _POWERFUL_ROLES & set(group.get("roles") or ())
    )


async def _all_groups(hub: HubCalls) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        # The hub hands out a page of them at most.
        answer = await hub.call("GET", f"groups?limit=200&offset={len(found)}")
        page = [x for x in list_of(answer) if isinstance(x, dict)]
        found += page
        if len(page) < 200:
            return found


def _servers(model: Mapping[str, Any] | None) -> Mapping[str, Any]:
    servers = (model or {}).get("servers")
    return servers if isinstance(servers, dict) else {}


def _running(model: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(
        name
        for name, server in _servers(model).items()
        if server.get("ready") or server.get("pending")
    )


def _active_at(model: Mapping[str, Any] | None) -> float | None:
    """Return when a server of theirs was last in use: a look at a page is no work."""
    times = [_instant(x.get("last_activity")) for x in _servers(model).values()]
    return max((x for x in times if x is not None), default=None)


def _instant(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _archive_at(archives: Path, name: str) -> float | None:
    try:
        return (archives / f"{name}{_SUFFIX}").stat().st_mtime
    except OSError:
        return None
