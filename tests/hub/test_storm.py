"""Many at once: a class that opens its laptops together."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from .running_hub import wait_for

pytestmark = pytest.mark.hub


def test_a_hundred_spawns_at_once_promise_no_device_beyond_what_it_has(make_hub):
    hub = make_hub(
        gpus=8,
        workshop={"gpus": {"attendees_per_gpu": 10}},
        early="c.JupyterHub.concurrent_spawn_limit = 0",
    ).start()
    names = [f"a{i:03d}" for i in range(100)]
    hub.add_users(*names)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: hub.api("POST", f"users/{n}/server"), names))
    outcomes = Counter(answer.status_code in (201, 202) for answer in answers)
    assert outcomes == {True: 80, False: 20}
    refused = [a for a in answers if a.status_code not in (201, 202)]
    for answer in refused:
        assert "All 8 GPUs are taken: 10 of 10 shares each." in answer.text

    leases = hub.leases()
    assert sorted(Counter(x.uuids[0] for x in leases).values()) == [10] * 8
    wait_for(
        lambda: all((s := hub.server(lease.user)) and s["ready"] for lease in leases),
        seconds=90,
        why="some server never became ready",
    )
    for lease in leases:
        hub.api("DELETE", f"users/{lease.user}/server")
    wait_for(lambda: not hub.leases(), seconds=60, why="some lease is still there")
    assert not hub.servers_alive()


@pytest.mark.lab
def test_twenty_jupyterlab_servers_start_at_once(make_hub):
    hub = make_hub(
        early="""
import sys
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.env_keep = ["PATH"]
"""
    ).start()
    names = [f"a{i:02d}" for i in range(20)]
    hub.add_users(*names)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: hub.api("POST", f"users/{n}/server"), names))
    wait_for(
        lambda: all((s := hub.server(name)) and s["ready"] for name in names),
        seconds=240,
        why="some server never became ready",
    )
    leases = hub.leases()
    assert sorted(Counter(x.uuids[0] for x in leases).values()) == [5] * 4
    assert {lease.user for lease in leases} == set(names)
