"""A kernel of a running server, driven over its own websocket, past any proxy."""

import json
import uuid
from typing import Any

import requests
import websocket

_PATIENCE_SECONDS = 180


class DirectKernel:
    """One kernel; `run` returns what a cell printed.

    Args:
        url: the server's own, ending in ``/``.
        token: opens the server.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"token {token}"}
        self.id = self._call("POST", "api/kernels").json()["id"]
        self._socket = websocket.create_connection(
            url.replace("http", "ws", 1) + f"api/kernels/{self.id}/channels",
            header=self._headers,
            timeout=_PATIENCE_SECONDS,
        )

    def _call(self, method: str, path: str) -> requests.Response:
        answer = requests.request(
            method, self._url + path, headers=self._headers, timeout=_PATIENCE_SECONDS
        )
        assert answer.ok, answer.text
        return answer

    def state(self) -> dict[str, Any]:
        """Return the server's model of the kernel."""
        return self._call("GET", f"api/kernels/{self.id}").json()

    def send(self, code: str) -> str:
        """Start a cell without waiting; return its message id."""
        message_id = uuid.uuid4().hex
        header = {"msg_id": message_id, "msg_type": "execute_request", "version": "5.3"}
        self._socket.send(
            json.dumps(
                {
                    "header": {**header, "username": "", "session": message_id},
                    "parent_header": {},
                    "metadata": {},
                    "channel": "shell",
                    "content": {"code": code, "silent": False, "stop_on_error": True},
                }
            )
        )
        return message_id

    def run(self, code: str) -> str:
        """Run a cell to its end; return its output, or its error's name and text."""
        message_id = self.send(code)
        printed = []
        while True:
            message = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            elif message["msg_type"] == "error":
                printed.append(f"{content['ename']}: {content['evalue']}")
            elif content.get("execution_state") == "idle":
                return "".join(printed)

    def close(self) -> None:
        """Close the tab: the kernel lives on, forgotten."""
        self._socket.close()
