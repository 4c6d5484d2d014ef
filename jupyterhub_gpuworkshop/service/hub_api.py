"""Asks the hub to stop servers, by its REST API.

Owns the one thing that the service asks of the hub, besides who somebody is. Its own
token may do that and nothing else (`delete:servers`), and goes to the hub alone.
"""

import json
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from jupyterhub_gpuworkshop.core.errors import HubError

_TIMEOUT_SECONDS = 30.0
"""The hub waits for a server to stop for 10 s, and then says that it will."""

_MAX_BODY_BYTES = 64 * 1024
_MAX_TEXT = 300


class HubApi:
    """The hub's REST API.

    Args:
        url: of the API, as in JUPYTERHUB_API_URL.
        token: the service's.
        timeout_seconds: how long one call may take.
    """

    def __init__(
        self, url: str, token: str, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._client = AsyncHTTPClient(
            force_instance=True, max_body_size=_MAX_BODY_BYTES
        )

    def close(self) -> None:
        """Let go of what the client holds."""
        self._client.close()

    async def stop_server(self, user: str, server: str) -> None:
        """Stop a server; a named one stays on its attendee's list.

        One that does not run is fine. The hub may still be at it when this returns.

        Args:
            user: the attendee.
            server: the server's name; empty for the default one.

        Raises:
            HubError: the hub would not, or does not answer.
        """
        path = f"users/{quote(user, safe='')}/"
        path += f"servers/{quote(server, safe='')}" if server else "server"
        # Without a body the hub does not remove a named server.
        request = HTTPRequest(
            f"{self._url}/{path}",
            method="DELETE",
            headers={
                "Authorization": f"token {self._token}",
                "Accept": "application/json",
                "User-Agent": "jupyterhub-gpuworkshop",
            },
            connect_timeout=self._timeout_seconds,
            request_timeout=self._timeout_seconds,
            follow_redirects=False,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
        except Exception as error:
            what = str(error) or type(error).__name__
            raise HubError(f"the hub does not answer at {self._url} ({what})") from None
        if response.code in (202, 204, 404):
            return
        said = _message_in(response.body or b"")
        if response.code == 403:
            raise HubError(
                f"the hub refuses to stop it ({said}): the service's role needs the "
                "scope delete:servers. configure() in jupyterhub_config.py gives it; "
                "restart the hub after an upgrade, and the service too"
            )
        raise HubError(f"the hub answers with status {response.code} ({said})")


def _message_in(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    said = answer.get("message") if isinstance(answer, dict) else None
    text = said if isinstance(said, str) and said else "it does not say why"
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
