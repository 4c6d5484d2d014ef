"""Asking the GPU service to forget: with which token, and what its answers mean."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from jupyterhub_gpuworkshop.core.errors import HubError
from jupyterhub_gpuworkshop.tools.hub_calls import HubCalls
from jupyterhub_gpuworkshop.tools.removing.history import History


class Stub:
    """A hub and its GPU service, on one port.

    Attributes:
        here: whom the service does not forget, since they have a share.
        on_disk: what it answers.
        shown: the tokens that were shown to the service.
        asked: the names that it was asked for, call by call.
        made: what the hub was asked for as a token.
        revoked: how many tokens were given back.
        answers: status of what the hub says of the service.
    """

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.on_disk = True
        self.kind = "user"
        self.shown: list[str] = []
        self.asked: list[list[str]] = []
        self.made: list[dict[str, Any]] = []
        self.revoked = 0
        self.answers = 200
        socket, self.port = bind_unused_port("127.0.0.1")
        given = {"stub": self}
        self.server = HTTPServer(
            Application(
                [
                    ("/hub/api/user", _User, given),
                    ("/hub/api/services/gpuworkshop", _Service, given),
                    ("/hub/api/users/olga/tokens(?:/a1)?", _Tokens, given),
                    ("/services/gpuworkshop/api/v1/forget", _Forget, given),
                ]
            )
        )
        self.server.add_sockets([socket])


class _Handler(RequestHandler):
    def initialize(self, stub: Stub) -> None:
        self.stub = stub


class _User(_Handler):
    def get(self) -> None:
        self.finish({"name": "olga", "kind": self.stub.kind})


class _Service(_Handler):
    def get(self) -> None:
        self.set_status(self.stub.answers)
        url = f"http://127.0.0.1:{self.stub.port}"
        self.finish({"url": url, "prefix": "/services/gpuworkshop/"})


class _Tokens(_Handler):
    def post(self) -> None:
        self.stub.made.append(json.loads(self.request.body))
        self.set_status(201)
        self.finish({"token": "narrow", "id": "a1"})

    def delete(self) -> None:
        self.stub.revoked += 1
        self.set_status(204)


class _Forget(_Handler):
    def post(self) -> None:
        self.stub.shown.append(self.request.headers["Authorization"])
        names = json.loads(self.request.body)["names"]
        self.stub.asked.append(names)
        if here := self.stub.here & set(names):
            self.set_status(409)
            self.finish({"message": f"Still with a share: {', '.join(here)}."})
        else:
            self.finish({"message": "done", "on_disk": self.stub.on_disk})


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    """Return a hub with a service."""
    made = Stub()
    yield made
    made.server.stop()
    await made.server.close_all_connections()


async def _forget(stub: Stub, names: list[str]) -> dict[str, str]:
    hub = HubCalls(f"http://127.0.0.1:{stub.port}/hub/api", "all-of-olgas", 4)
    try:
        return await History(hub, "gpuworkshop", wait_seconds=0.0).forget(names)
    finally:
        hub.close()


async def test_the_service_is_shown_a_token_that_is_good_for_it_alone(
    stub: Stub,
) -> None:
    assert await _forget(stub, ["ann", "bob"]) == {}
    assert stub.shown == ["token narrow"]
    (made,) = stub.made
    assert made["scopes"] == ["admin-ui", "access:services!service=gpuworkshop"]
    assert made["expires_in"] <= 600
    assert stub.revoked == 1


async def test_a_service_of_the_hub_shows_its_own(stub: Stub) -> None:
    stub.kind = "service"
    assert await _forget(stub, ["ann"]) == {}
    assert stub.shown == ["token all-of-olgas"]
    assert stub.made == []


async def test_one_who_is_there_still_keeps_nobody_else_from_being_forgotten(
    stub: Stub,
) -> None:
    stub.here = {"bob"}
    failed = await _forget(stub, ["ann", "bob", "carl"])
    assert failed.keys() == {"bob"}
    assert "Still with a share: bob." in failed["bob"]
    assert stub.asked == [["ann", "bob", "carl"], ["ann"], ["bob"], ["carl"]]
    assert stub.revoked == 1


async def test_what_is_not_on_disk_is_not_done(stub: Stub) -> None:
    stub.on_disk = False
    assert (await _forget(stub, ["ann"])).keys() == {"ann"}


async def test_many_are_asked_for_a_hundred_at_a_time(stub: Stub) -> None:
    names = [f"attendee-{number:03d}" for number in range(250)]
    assert await _forget(stub, names) == {}
    assert [len(asked) for asked in stub.asked] == [100, 100, 50]
    assert await _forget(stub, []) == {}
    assert len(stub.asked) == 3


async def test_a_hub_without_a_service_has_no_history_to_clean(stub: Stub) -> None:
    stub.answers = 404
    assert await _forget(stub, ["ann"]) == {}
    assert stub.shown == []


async def test_a_hub_that_does_not_say_where_the_service_is_is_an_error(
    stub: Stub,
) -> None:
    stub.answers = 500
    assert (await _forget(stub, ["ann"])).keys() == {"ann"}
    hub = HubCalls(f"http://127.0.0.1:{stub.port}/hub/api", "all-of-olgas", 4)
    with pytest.raises(HubError, match="does not say where its service"):
        await History(hub, "gpuworkshop").url()
    hub.close()
