"""A hub forgets, by itself, the devices of users that are deleted."""

from collections.abc import Callable

import pytest

from .running_hub import RunningHub

pytestmark = pytest.mark.hub

_NAMED = "c.JupyterHub.allow_named_servers = True\n"


def test_the_ledger_forgets_a_deleted_user_and_a_removed_server(
    make_hub: Callable[..., RunningHub],
) -> None:
    hub = make_hub(late=_NAMED).start()
    hub.add_users("ann", "anna")
    for name, server in (("ann", ""), ("ann", "one"), ("ann", "two"), ("anna", "")):
        hub.spawn(name, server)
        hub.stop_server(name, server) if not server else hub.api(
            "DELETE", f"users/{name}/servers/{server}"
        )
    known = {("ann", ""), ("ann", "one"), ("ann", "two"), ("anna", "")}
    assert hub.ledger().previous.keys() == known
    gone = hub.api("DELETE", "users/ann/servers/one", json={"remove": True})
    assert gone.ok, gone.text
    assert hub.ledger().previous.keys() == known - {("ann", "one")}
    assert hub.api("DELETE", "users/ann").ok
    assert hub.ledger().previous.keys() == {("anna", "")}
    # The hub's own memory of it would be written nowhere, but it is gone too.
    hub.add_users("ann")
    hub.spawn("ann")
    assert hub.ledger().previous.keys() == {("ann", ""), ("anna", "")}
