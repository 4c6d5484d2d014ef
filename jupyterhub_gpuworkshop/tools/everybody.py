"""`gpuworkshop prestart` and `stop-all`: everybody's server, a few at a time.

Owns the order of calls at the hub's REST API, and what is said of those that fail.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .hub_calls import CALL_SECONDS, HubCalls, one_line, said, user_path

_START_SECONDS = 600.0
_ASK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Everybody:
    """Whose servers, at which hub.

    Attributes:
        names: the attendees'.
        api_url: of the hub's API.
        token: of somebody who may start and stop their servers.
        at_once: how many at a time.
    """

    names: Sequence[str]
    api_url: str
    token: str
    at_once: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one: done, or why not."""

    name: str
    problem: str = ""


def prestart(everybody: Everybody, console: Console) -> list[Outcome]:
    """Start the server of each who has none that runs; return what became of them.

    Accounts that the hub does not know yet are made.

    Raises:
        HubError: the hub does not answer, or the token is not good for it.
    """
    return asyncio.run(_for_all(everybody, console, "Starting", _start))


def stop_all(everybody: Everybody, console: Console) -> list[Outcome]:
    """Stop all servers of each; return what became of them.

    Raises:
        HubError: the hub does not answer, or the token is not good for it.
    """
    return asyncio.run(_for_all(everybody, console, "Stopping", stop_servers))


async def _for_all(
    everybody: Everybody,
    console: Console,
    verb: str,
    act: Callable[[HubCalls, str], Awaitable[str]],
) -> list[Outcome]:
    hub = HubCalls(everybody.api_url, everybody.token, everybody.at_once)
    turn = asyncio.Semaphore(everybody.at_once)
    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(verb, total=len(everybody.names))

        async def one(name: str) -> Outcome:
            async with turn:
                problem = await act(hub, name)
            bar.advance(task)
            return Outcome(name=name, problem=problem)

        acts = [asyncio.ensure_future(one(name)) for name in everybody.names]
        try:
            return list(await asyncio.gather(*acts))
        finally:
            for each in acts:
                each.cancel()
            hub.close()


async def _start(hub: HubCalls, name: str) -> str:
    """Start a server; return why it did not, or nothing."""
    made = await hub.call("POST", user_path(name))
    if made.code not in (201, 409):
        return f"no account could be made: {said(made)}"
    if "" not in await hub.servers(name):
        asked = await hub.call(
            "POST", f"{user_path(name)}/server", seconds=_START_SECONDS
        )
        if asked.code == 201:
            return ""
        if asked.code != 202:
            return said(asked)
    return await _how_it_went(hub, name)


async def _how_it_went(hub: HubCalls, name: str) -> str:
    """Wait for a start; return why it failed, or nothing."""
    told = await hub.call(
        "GET", f"{user_path(name)}/server/progress", seconds=_START_SECONDS
    )
    events = [
        json.loads(line.removeprefix("data:"))
        for line in told.body.decode(errors="replace").splitlines()
        if line.startswith("data:")
    ]
    last = events[-1] if events else {}
    if last.get("ready"):
        return ""
    return one_line(
        str(last.get("message") or "it did not start; the hub's log says why")
    )


async def stop_servers(hub: HubCalls, name: str) -> str:
    """Stop all servers of somebody; return what did not stop, or nothing."""
    for server in await hub.servers(name):
        path = f"servers/{quote(server, safe='')}" if server else "server"
        answer = await hub.call("DELETE", f"{user_path(name)}/{path}")
        if answer.code not in (202, 204, 404):
            return said(answer)
        waited = 0.0
        while server in await hub.servers(name):
            if waited >= CALL_SECONDS:
                return f"it has not stopped after {CALL_SECONDS:.0f} s"
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            waited += _ASK_AGAIN_SECONDS
    return ""
