"""What people ask for that the hub must do: stop a server, and show a notice."""

import pytest
import requests

from tests.hub.running_hub import wait_for

pytestmark = pytest.mark.hub

_ORGANISER = """
c.JupyterHub.load_roles[0]["scopes"].append("custom:gpuworkshop:admin")
"""


def _ask(hub, token, method, path, **kwargs):
    return requests.request(
        method,
        f"http://127.0.0.1:{hub.service_port}/services/gpuworkshop/api/v1/{path}",
        headers={"Authorization": f"token {token}"},
        timeout=20,
        **kwargs,
    )


def test_shares_are_given_back_at_a_persons_word(make_hub):
    hub = make_hub(
        service=True, workshop={"monitor": {"interval": "0.5s"}}, early=_ORGANISER
    ).start()
    hub.add_users("ann", "bea")
    for name in ("ann", "bea"):
        hub.spawn(name)
    answer = hub.api(
        "POST", "users/ann/tokens", json={"scopes": ["custom:gpuworkshop:read"]}
    )
    ann = answer.json()["token"]

    def leases():
        try:
            found = _ask(hub, hub.token, "GET", "snapshot").json()["leases"]
        except requests.ConnectionError:
            return None  # the service is not up yet
        return {x["user"]: x["id"] for x in found} if len(found) == 2 else None

    known = wait_for(leases, why="the service does not learn of two leases")
    text = {"text": "It is <b>late</b>."}
    told = _ask(hub, hub.token, "POST", "attendees/bea/notice", json=text)
    assert told.ok, told.text

    def stop(token, name):
        return _ask(hub, token, "POST", f"leases/{known[name]}/stop", json={})

    assert stop(ann, "bea").status_code == 404
    first = wait_for(
        lambda: (x := stop(ann, "ann")).status_code == 202 and x,
        why="the service does not learn that ann's server runs",
    )
    assert "Your server is being stopped" in first.json()["message"]
    wait_for(
        lambda: stop(hub.token, "bea").status_code == 202,
        why="the service does not learn that bea's server runs",
    )

    def stopped():
        found = _ask(hub, hub.token, "GET", "events?limit=1000").json()
        assert "server_stop_failed" not in [x["kind"] for x in found], found
        about = [x for x in found if x["kind"] == "server_stopped"]
        return about if len(about) == 2 else None

    events = wait_for(stopped, seconds=60, why="the leases have not been released")
    by = {x["user"]: x["details"]["by"] for x in events}
    assert by == {"ann": "ann", "bea": "test"}
    assert hub.leases() == []
    assert hub.server("ann") is None
    assert hub.server("bea") is None
