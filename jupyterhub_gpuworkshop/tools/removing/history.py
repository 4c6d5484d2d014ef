"""Names in the GPU service's history become numbers: asking the service for it.

Owns finding the service, with what to be let in, and asking again while the hub has not
told it yet that a share is free.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tornado.httpclient import HTTPResponse

from jupyterhub_gpuworkshop.core.errors import HubError
from jupyterhub_gpuworkshop.tools.hub_calls import HubCalls, json_of, said, user_path

_AT_ONCE = 100
_WAIT_SECONDS = 20.0
_ASK_AGAIN_SECONDS = 1.0
_TOKEN_SECONDS = 600
_WHO = "The GPU service"
_HAS = "the history has the name still"


class History:
    """The history of one hub's GPU service.

    Args:
        hub: to ask where the service is.
        service: its name at the hub.
        wait_seconds: how long to wait for a service that holds a name still.
    """

    def __init__(
        self, hub: HubCalls, service: str, wait_seconds: float = _WAIT_SECONDS
    ) -> None:
        self._hub = hub
        self._service = service
        self._wait_seconds = wait_seconds

    async def url(self) -> str:
        """Return where the service is; empty where the hub has none of that name.

        Raises:
            HubError: the hub does not say.
        """
        answer = await self._hub.call("GET", f"services/{self._service}")
        if answer.code == 404:
            return ""
        model = json_of(answer)
        url, prefix = model.get("url"), model.get("prefix")
        if (
            answer.code != 200
            or not isinstance(url, str)
            or not isinstance(prefix, str)
        ):
            raise HubError(
                f"The hub does not say where its service {self._service} is "
                f"({said(answer)}). Use the token of an admin."
            )
        return url.rstrip("/") + prefix if url else ""

    async def forget(self, names: Sequence[str]) -> dict[str, str]:
        """Have names forgotten.

        Returns:
            Why not, by the names that are not.
        """
        if not names:
            return {}
        try:
            url = await self.url()
            if not url:
                return {}
            async with self._at(url) as service:
                failed: dict[str, str] = {}
                for start in range(0, len(names), _AT_ONCE):
                    some = names[start : start + _AT_ONCE]
                    failed |= await _forget(service, some, self._wait_seconds)
                return failed
        except HubError as error:
            return dict.fromkeys(names, f"{_HAS}: {error}")

    @asynccontextmanager
    async def _at(self, url: str) -> AsyncIterator[HubCalls]:
        """Yield calls at the service, with a token that is good for little else.

        What listens at the service's address need not be the service: while that is
        away, any attendee's program of the same machine may.

        Raises:
            HubError: the hub makes no such token.
        """
        whoami = json_of(await self._hub.call("GET", "user"))
        if whoami.get("kind") == "service":
            # A service of the hub's has no user to make a token for.
            service = self._hub.elsewhere(url, _WHO)
            try:
                yield service
            finally:
                service.close()
            return
        path = f"{user_path(str(whoami.get('name')))}/tokens"
        wanted = {
            "note": "gpuworkshop remove-attendees",
            "expires_in": _TOKEN_SECONDS,
            "scopes": ["admin-ui", f"access:services!service={self._service}"],
        }
        answer = await self._hub.call("POST", path, body=json.dumps(wanted))
        made = json_of(answer)
        if answer.code != 201 or not isinstance(made.get("token"), str):
            raise HubError(
                f"The hub makes no token for its service ({said(answer)}). Use one of "
                "an admin, with all that an admin may."
            )
        service = self._hub.elsewhere(url, _WHO, made["token"])
        try:
            yield service
        finally:
            service.close()
            await self._hub.call("DELETE", f"{path}/{made.get('id')}")


async def _forget(
    service: HubCalls, names: Sequence[str], wait_seconds: float
) -> dict[str, str]:
    """Have some names forgotten; return why not, by the names that are not."""
    answer = await _ask(service, names)
    waited = 0.0
    # The hub tells the service every few seconds which shares are free.
    while answer.code == 409 and waited < wait_seconds:
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
        waited += _ASK_AGAIN_SECONDS
        answer = await _ask(service, names)
    if answer.code == 200 and json_of(answer).get("on_disk"):
        return {}
    if answer.code == 409 and len(names) > 1:
        failed: dict[str, str] = {}
        for name in names:
            failed |= await _forget(service, [name], 0.0)
        return failed
    return dict.fromkeys(names, f"{_HAS}: {said(answer)}")


async def _ask(service: HubCalls, names: Sequence[str]) -> HTTPResponse:
    body = json.dumps({"names": list(names)})
    return await service.call("POST", "api/v1/forget", body=body)
