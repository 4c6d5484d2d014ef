"""Calls at the hub's REST API, with the token of the organiser who runs a command.

Owns how the hub is asked and what is said where it does not answer. What for, and in
which order, is the commands'.
"""

import json
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from jupyterhub_gpuworkshop.core.errors import HubError

CALL_SECONDS = 60.0
_MOST_TEXT = 400
_THE_HUB = "The hub"


class HubCalls:
    """The hub's REST API.

    Args:
        api_url: of it.
        token: of somebody who may do what is asked for.
        at_once: how many users are looked after at a time.
        who: who answers there, for messages.
    """

    def __init__(
        self, api_url: str, token: str, at_once: int, who: str = _THE_HUB
    ) -> None:
        self._url = api_url.rstrip("/")
        self._token = token
        self._at_once = at_once
        self._who = who
        # One call waits for a start; others ask meanwhile.
        self._client = AsyncHTTPClient(force_instance=True, max_clients=2 * at_once)

    def close(self) -> None:
        """Let go of what the client holds."""
        self._client.close()

    def elsewhere(self, url: str, who: str, token: str | None = None) -> "HubCalls":
        """Return calls at a service of the hub's; to be closed by themselves.

        Args:
            url: of the service's API.
            who: its name for messages.
            token: to show there; None for the one that is shown to the hub.
        """
        given = self._token if token is None else token
        return HubCalls(url, given, self._at_once, who)

    async def call(
        self,
        method: str,
        path: str,
        *,
        seconds: float = CALL_SECONDS,
        body: str = "{}",
    ) -> HTTPResponse:
        """Call the hub's API; any answer but a refusal of the token is one.

        Args:
            method: GET, POST or DELETE.
            path: below the API's URL.
            seconds: how long it may take.
            body: of a POST, as JSON.

        Raises:
            HubError: nobody answers, or the token is not good for it.
        """
        request = HTTPRequest(
            f"{self._url}/{path}",
            method=method,
            headers={"Authorization": f"token {self._token}"},
            body=body if method == "POST" else None,
            connect_timeout=CALL_SECONDS,
            request_timeout=seconds,
            follow_redirects=False,
        )
        try:
            answer = await self._client.fetch(request, raise_error=False)
        except Exception as error:
            what = str(error) or type(error).__name__
            another = " --api-url names another address."
            raise HubError(
                f"{self._who} does not answer at {self._url} ({what}). Is it running?"
                f"{another if self._who == _THE_HUB else ''}"
            ) from None
        if answer.code in (401, 403):
            raise HubError(
                f"{self._who} refuses the token ({said(answer)}). Make one as an admin "
                "on the hub's page Token, and give it in JUPYTERHUB_API_TOKEN."
            )
        return answer

    async def servers(self, name: str) -> dict[str, Any]:
        """Return a user's servers that are not stopped, by name."""
        answer = await self.call("GET", user_path(name))
        found = json_of(answer).get("servers") if answer.code == 200 else None
        servers: dict[str, Any] = found if isinstance(found, dict) else {}
        return {
            key: one
            for key, one in servers.items()
            if one.get("ready") or one.get("pending")
        }


def user_path(name: str) -> str:
    """Return the path of a user below the API's URL."""
    return f"users/{quote(name, safe='')}"


def json_of(answer: HTTPResponse) -> dict[str, Any]:
    """Return the object of an answer; an empty one where it has none."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def list_of(answer: HTTPResponse) -> list[Any]:
    """Return the list of an answer; an empty one where it has none."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def said(answer: HTTPResponse) -> str:
    """Return what the hub says of a call, as one line for a terminal."""
    return one_line(str(json_of(answer).get("message") or f"status {answer.code}"))


def one_line(text: str) -> str:
    """Return a text of somebody else's as one line for a terminal."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(kept[:_MOST_TEXT].split())
