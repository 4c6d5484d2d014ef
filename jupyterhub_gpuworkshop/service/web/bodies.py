"""Handlers of the REST API that are told something, and that refuse in sentences.

Owns how a small body of JSON is read: nobody is listened to before it is known who it
is, and nobody for long.
"""

import json
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Application, HTTPError, stream_request_body

from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere

from .api import ApiHandler

_STATUS = {ActForbidden: 403, NothingThere: 404}


def status_of(error: ActRefused) -> int:
    """Return the HTTP status that says why something is not done."""
    return _STATUS.get(type(error), 409)


class RefusingHandler(ApiHandler):
    """A handler whose refusals are answers."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say why something was refused, in the sentence that was written for it."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(error, ActRefused):
            self.set_status(status_of(error))
            self.finish({"message": str(error)})
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """A refusal is an answer, and no error of the service's."""
        if not isinstance(value, ActRefused):
            super().log_exception(typ, value, tb)

    def which_server(self) -> tuple[str | None, str | None]:
        """Return whose kernel is meant, where the query says so."""
        query = self.request.query_arguments
        return (
            self.get_query_argument("user") if "user" in query else None,
            self.get_query_argument("server") if "server" in query else None,
        )


@stream_request_body
class BodyHandler(RefusingHandler):
    """A handler that reads a small body of JSON."""

    most_body_bytes = 4096

    def __init__(
        self, application: Application, request: HTTPServerRequest, **kwargs: Any
    ) -> None:
        self._body = bytearray()
        super().__init__(application, request, **kwargs)

    async def prepare(self) -> None:
        """Find out who it is, before a byte of the body is read."""
        await super().prepare()
        length = self.request.headers.get("Content-Length", "0")
        is_short = length.isdecimal() and len(length) < 20
        if not (self._finished or (is_short and int(length) <= self.most_body_bytes)):
            self.set_header("Connection", "close")
            self.send_error(400, reason="The body is too long for what is asked.")

    def data_received(self, chunk: bytes) -> None:
        """Collect the body, as far as it makes sense."""
        if len(self._body) <= self.most_body_bytes:
            self._body += chunk

    def read_body(self, *keys: str, example: object = 3600) -> dict[str, Any]:
        """Return the body: a JSON object with these keys and no others.

        Args:
            keys: all that it has to hold.
            example: what to send: the whole body, or a value that does for each key.

        Raises:
            HTTPError: it is none.
        """
        given = example if isinstance(example, dict) else dict.fromkeys(keys, example)
        told = json.dumps(given)
        try:
            body = json.loads(bytes(self._body) or b"{}")
        except (ValueError, RecursionError):
            raise HTTPError(400, f"The body is no JSON: send {told}") from None
        if not isinstance(body, dict) or body.keys() != set(keys):
            raise HTTPError(400, f"The body does not fit: send {told}")
        return body
