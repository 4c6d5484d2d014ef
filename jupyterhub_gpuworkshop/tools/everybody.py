"""`gpuworkshop prestart` and `stop-all`: everybody's server, a few at a time.

Owns the order of calls at the hub's REST API, and what is said of those that fail. It
acts with the token of the organiser who runs it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from jupyterhub_gpuworkshop.core.errors import HubError

_CALL_SECONDS = 60.0
_START_SECONDS = 600.0
_ASK_AGAIN_SECONDS = 0.5
_MOST_TEXT = 400


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
    return asyncio.run(_for_all(everybody, console, "Stopping", _stop))


class _Hub:
    """The calls that are needed."""

    def __init__(self, everybody: Everybody) -> None:
        self._url = everybody.api_url.rstrip("/")
        self._token = everybody.token
        # One call waits for a start; others ask meanwhile.
        self._client = AsyncHTTPClient(
            force_instance=True, max_clients=2 * everybody.at_once
        )

    def close(self) -> None:
        self._client.close()

    async def call(
        self, method: str, path: str, *, seconds: float = _CALL_SECONDS
    ) -> HTTPResponse:
        """Call the hub's API; any answer but a refusal of the token is one."""
        request = HTTPRequest(
            f"{self._url}/{path}",
            method=method,
            headers={"Authorization": f"token {self._token}"},
            body="{}" if method == "POST" else None,
            connect_timeout=_CALL_SECONDS,
            request_timeout=seconds,
            follow_redirects=False,
        )
        try:
            answer = await self._client.fetch(request, raise_error=False)
        except Exception as error:
            what = str(error) or type(error).__name__
            raise HubError(
                f"The hub does not answer at {self._url} ({what}). Is it running? "
                "--api-url names another address."
            ) from None
        if answer.code in (401, 403):
            raise HubError(
                f"The hub refuses the token ({_said(answer)}). Make one as an admin on "
                "the hub's page Token, and give it in JUPYTERHUB_API_TOKEN."
            )
        return answer

    async def servers(self, name: str) -> dict[str, Any]:
        """Return a user's servers that are not stopped, by name."""
        answer = await self.call("GET", _path(name))
        found = _json(answer).get("servers") if answer.code == 200 else None
        servers: dict[str, Any] = found if isinstance(found, dict) else {}
        return {
            key: one
            for key, one in servers.items()
            if one.get("ready") or one.get("pending")
        }


async def _for_all(
    everybody: Everybody,
    console: Console,
    verb: str,
    act: Callable[[_Hub, str], Awaitable[str]],
) -> list[Outcome]:
    hub = _Hub(everybody)
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


async def _start(hub: _Hub, name: str) -> str:
    """Start a server; return why it did not, or nothing."""
    made = await hub.call("POST", _path(name))
    if made.code not in (201, 409):
        return f"no account could be made: {_said(made)}"
    if "" not in await hub.servers(name):
        asked = await hub.call("POST", f"{_path(name)}/server", seconds=_START_SECONDS)
        if asked.code == 201:
            return ""
        if asked.code != 202:
            return _said(asked)
    return await _how_it_went(hub, name)


async def _how_it_went(hub: _Hub, name: str) -> str:
    """Wait for a start; return why it failed, or nothing."""
    told = await hub.call(
        "GET", f"{_path(name)}/server/progress", seconds=_START_SECONDS
    )
    events = [
        json.loads(line.removeprefix("data:"))
        for line in told.body.decode(errors="replace").splitlines()
        if line.startswith("data:")
    ]
    last = events[-1] if events else {}
    if last.get("ready"):
        return ""
    return _line(str(last.get("message") or "it did not start; the hub's log says why"))


async def _stop(hub: _Hub, name: str) -> str:
    """Stop all servers of somebody; return what did not stop, or nothing."""
    for server in await hub.servers(name):
        path = f"servers/{quote(server, safe='')}" if server else "server"
        answer = await hub.call("DELETE", f"{_path(name)}/{path}")
        if answer.code not in (202, 204, 404):
            return _said(answer)
        waited = 0.0
        while server in await hub.servers(name):
            if waited >= _CALL_SECONDS:
                return f"it has not stopped after {_CALL_SECONDS:.0f} s"
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            waited += _ASK_AGAIN_SECONDS
    return ""


def _path(name: str) -> str:
    return f"users/{quote(name, safe='')}"


def _json(answer: HTTPResponse) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _said(answer: HTTPResponse) -> str:
    return _line(str(_json(answer).get("message") or f"status {answer.code}"))


def _line(text: str) -> str:
    """Return a text of the hub's as one line for a terminal."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(kept[:_MOST_TEXT].split())
