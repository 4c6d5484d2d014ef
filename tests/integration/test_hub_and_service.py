"""Hub and service together: the link, the tokens, the scopes, the ends."""

import json
import signal
import sys

import psutil
import pytest
import requests

from jupyterhub_gpuworkshop.core.units import GIB
from tests.hub.running_hub import wait_for
from tests.simulated_kernel import SimulatedKernel

pytestmark = pytest.mark.hub

_HEADERS = """
c.Spawner.environment["STUB_HEADER_LOG"] = {folder!r}
c.JupyterHub.load_roles[0]["scopes"].append("custom:gpuworkshop:admin")
"""
_ORGANISER = """
c.JupyterHub.load_roles[0]["scopes"].append("custom:gpuworkshop:admin")
"""


def _service(hub, path, token=None):
    return requests.get(
        f"http://127.0.0.1:{hub.service_port}{hub.base_url}services/gpuworkshop/{path}",
        headers={"Authorization": f"token {token or hub.token}"},
        timeout=20,
    )


def _snapshot(hub):
    answer = _service(hub, "api/v1/snapshot")
    assert answer.ok, answer.text
    return answer.json()


def _service_process(hub):
    return next(
        child
        for child in psutil.Process(hub.process.pid).children()
        if "jupyterhub_gpuworkshop" in child.cmdline() and "service" in child.cmdline()
    )


def test_nothing_a_server_is_sent_opens_another_or_changes_anything(make_hub, tmp_path):
    headers = tmp_path / "headers"
    headers.mkdir()
    hub = make_hub(
        service=True,
        workshop={"monitor": {"interval": "1s"}},
        early=_HEADERS.format(folder=str(headers)),
    ).start()
    hub.add_users("ann", "bea")
    hub.spawn("ann")
    hub.spawn("bea")

    def polls(name):
        lines = [json.loads(x) for x in (headers / name).read_text().splitlines()]
        return [(path, sent) for path, sent in lines if "Authorization" in sent]

    def polled():
        return all((headers / n).exists() and len(polls(n)) > 1 for n in ("ann", "bea"))

    wait_for(polled, why="the service never called the servers")
    assert all("no_track_activity=1" in path for path, _ in polls("ann"))
    token = polls("ann")[0][1]["Authorization"].removeprefix("token ")
    assert token != polls("bea")[0][1]["Authorization"].removeprefix("token ")
    for _, sent in polls("ann"):
        assert hub.token not in json.dumps(sent)
        assert not any(name.lower() == "cookie" for name in sent)

    def as_bearer(method, path, **kwargs):
        return requests.request(
            method,
            f"http://127.0.0.1:{hub.port}/hub/api/{path}",
            headers={"Authorization": f"token {token}"},
            timeout=20,
            **kwargs,
        )

    assert as_bearer("GET", "user").json()["scopes"] == [
        "access:servers!server=ann/",
        *[s for s in as_bearer("GET", "user").json()["scopes"] if s[:4] == "read"],
    ]
    for method, path in [
        ("GET", "users"),
        ("GET", "users/bea"),
        ("DELETE", "users/ann/server"),
        ("DELETE", "users/bea/server"),
        ("POST", "users/ann/tokens"),
        ("POST", "users/mallory"),
        ("POST", "shutdown"),
        ("GET", "services"),
        ("GET", "groups"),
    ]:
        assert as_bearer(method, path).status_code in (403, 404), (method, path)
    assert _service(hub, "api/v1/snapshot", token).status_code == 403
    # The link's secret is not among what servers see either.
    link = requests.post(
        f"http://127.0.0.1:{hub.service_port}/services/gpuworkshop/link",
        data="{}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
    )
    assert link.status_code in (401, 403)

    hub.stop_server("ann")
    assert as_bearer("GET", "user").status_code == 403, "the token outlives the server"
    assert hub.server("bea")["ready"]


def test_polling_leaves_no_trace_in_anybodys_activity(make_hub):
    hub = make_hub(
        service=True, workshop={"monitor": {"interval": "0.5s"}}, early=_ORGANISER
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    _wait_for_devices(hub)
    before = hub.user("ann")
    first = _snapshot(hub)["taken_at"]
    wait_for(lambda: _snapshot(hub)["taken_at"] > first + 3, why="no polling")
    after = hub.user("ann")
    assert after["last_activity"] == before["last_activity"]
    assert (
        after["servers"][""]["last_activity"] == before["servers"][""]["last_activity"]
    )


def test_the_hub_places_by_what_the_service_observes(make_hub):
    hub = make_hub(
        gpus=2,
        service=True,
        workshop={"monitor": {"interval": "0.5s"}},
        early=_ORGANISER,
    ).start()
    hub.add_users("ann", "bea")
    first, second = (device["uuid"] for device in _wait_for_devices(hub))
    with SimulatedKernel(
        sys.executable, hub.devices, {"CUDA_VISIBLE_DEVICES": first}
    ) as outsider:
        outsider.run(f"x = simcuda.allocate({15 * GIB})")
        wait_for(
            lambda: any(
                d["uuid"] == first and d["memory_used_bytes"] == 15 * GIB
                for d in _snapshot(hub)["devices"]
            ),
            why="the outsider's memory is not seen",
        )
        # The hub hears of it with its next report, half a second later.
        # Of a busy machine a sample may be too old to place by, now and then.
        wait_for(lambda: _respawned(hub, "ann") == (second,))
        wait_for(lambda: _respawned(hub, "bea") == (second,))
        assert [lease.uuids for lease in hub.leases()] == [(second,), (second,)]
        (holder,) = _snapshot(hub)["holders"]
        assert holder["kind"] == "foreign"


def _respawned(hub, name):
    if hub.server(name) is not None:
        hub.stop_server(name)
    hub.spawn(name)
    return next(lease.uuids for lease in hub.leases() if lease.user == name)


def _wait_for_devices(hub):
    return wait_for(lambda: _service_is_up(hub) and _snapshot(hub)["devices"])


def _service_is_up(hub):
    try:
        return _service(hub, "health").ok
    except requests.ConnectionError:
        return False


def test_the_service_ends_with_a_killed_hub_and_the_next_one_takes_its_port(make_hub):
    hub = make_hub(service=True, early=_ORGANISER).start()
    hub.add_users("ann")
    hub.spawn("ann")
    _wait_for_devices(hub)
    old = _service_process(hub)
    hub.kill()
    wait_for(lambda: not old.is_running(), why="the old service lives on")
    hub.start()
    wait_for(
        lambda: _service_is_up(hub) and _snapshot(hub)["leases"],
        why="the new service knows of no lease",
    )
    assert _snapshot(hub)["leases"][0]["user"] == "ann"
    # Its server is called with a token that the new hub made.
    wait_for(lambda: not _snapshot(hub)["problems"], why="problems stay")


def test_a_hub_killed_as_it_starts_the_service_leaves_none_behind(make_hub):
    hub = make_hub(service=True)
    hub.launch()
    wait_for(lambda: "Spawning" in hub.log, seconds=60)
    service = wait_for(lambda: _service_process_or_none(hub))
    hub.kill()
    wait_for(lambda: not service.is_running(), why="the service lives on")


def _service_process_or_none(hub):
    try:
        return _service_process(hub)
    except StopIteration:
        return None


def test_events_reach_the_history_once_though_the_service_was_away(make_hub):
    hub = make_hub(gpus=1, service=True, early=_ORGANISER).start()
    hub.add_users("ann", "bea")
    _wait_for_devices(hub)
    service = _service_process(hub)
    service.send_signal(signal.SIGSTOP)
    hub.spawn("ann")
    hub.spawn("bea")
    hub.stop_server("ann")
    service.send_signal(signal.SIGCONT)

    def events():
        answer = _service(hub, "api/v1/events?after=0&limit=100")
        assert answer.ok, answer.text
        found = answer.json()
        return [(event["kind"], event["user"]) for event in found]

    expected = [
        ("lease_granted", "ann"),
        ("lease_granted", "bea"),
        ("lease_released", "ann"),
    ]
    wait_for(lambda: events() == expected, why="events are lost or doubled")


def test_an_attendee_sees_their_own_and_the_totals(make_hub):
    hub = make_hub(service=True, early=_ORGANISER).start()
    hub.add_users("ann", "zoe")
    hub.spawn("ann")
    hub.spawn("zoe")
    wait_for(lambda: _service_is_up(hub) and len(_snapshot(hub)["leases"]) == 2)
    token = hub.api(
        "POST", "users/ann/tokens", json={"scopes": ["custom:gpuworkshop:read"]}
    ).json()["token"]
    answer = _service(hub, "api/v1/snapshot", token)
    assert answer.ok, answer.text
    assert "zoe" not in answer.text
    seen = answer.json()
    assert [lease["user"] for lease in seen["leases"]] == ["ann"]
    assert [device["leases"] for device in seen["devices"]] == [1, 1, 0, 0]
    events = _service(hub, "api/v1/events", token)
    assert events.ok
    assert "zoe" not in events.text

    narrow = hub.api(
        "POST", "users/ann/tokens", json={"scopes": ["read:users!user"]}
    ).json()["token"]
    assert _service(hub, "api/v1/snapshot", narrow).status_code == 403
    assert _service(hub, "api/v1/snapshot", "nonsense").status_code in (401, 403)


def test_a_refused_attendee_is_not_told_who_is_in_the_way(make_hub):
    hub = make_hub(
        gpus=1,
        service=True,
        workshop={"gpus": {"attendees_per_gpu": 2}, "monitor": {"interval": "0.5s"}},
        early=_ORGANISER,
    ).start()
    hub.add_users("ann", "zoe")
    _wait_for_devices(hub)
    with SimulatedKernel(sys.executable, hub.devices) as outsider:
        outsider.run(f"x = simcuda.allocate({12 * GIB})")

        def refused():
            answer = hub.api("POST", "users/ann/server")
            if answer.status_code != 503:
                hub.stop_server("ann")
                return ""
            return answer.text

        text = wait_for(refused, why="the outsider is in nobody's way")
        assert "someone outside the hub holds 12 GiB" in text
        assert str(outsider.process.pid) not in text
    token = hub.api(
        "POST", "users/ann/tokens", json={"scopes": ["custom:gpuworkshop:read"]}
    ).json()["token"]

    def refusals(as_whom):
        events = _service(hub, "api/v1/events", as_whom).json()
        return [event for event in events if event["kind"] == "lease_refused"]

    (theirs,) = wait_for(lambda: refusals(token))
    (organisers,) = refusals(hub.token)
    assert f"pid {outsider.process.pid}" in organisers["details"]["detail"]
    assert "detail" not in theirs["details"]
    assert f"pid {outsider.process.pid}" not in json.dumps(theirs)


def test_behind_a_base_url_everything_is_below_it(make_hub):
    hub = make_hub(service=True, base_url="/gpu/class/", early=_ORGANISER).start()
    hub.add_users("ann")
    hub.spawn("ann")
    wait_for(lambda: _service_is_up(hub) and _snapshot(hub)["leases"])
    assert "/gpu/class/user/ann/" in hub.user("ann")["server"]


def test_with_subdomains_and_https_in_front_logins_go_to_the_hubs_own_host(make_hub):
    host = "https://hub.example.org"
    hub = make_hub(
        service=True,
        early=_ORGANISER + f"c.JupyterHub.subdomain_host = {host!r}\n",
    ).start()
    hub.add_users("ann")
    hub.spawn("ann")
    wait_for(lambda: _service_is_up(hub) and _snapshot(hub)["leases"])
    answer = requests.get(
        f"http://127.0.0.1:{hub.service_port}/services/gpuworkshop/",
        headers={"X-Forwarded-Proto": "https", "Host": "services.hub.example.org"},
        allow_redirects=False,
        timeout=20,
    )
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith(f"{host}/hub/api/oauth2/authorize?")
    assert "secure" in answer.headers["Set-Cookie"].lower()
    assert hub.user("ann")["server"] == "https://ann.hub.example.org/user/ann/"
