"""Whose process is it? Real processes, as notebooks and terminals begin them.

The server and its kernels are plain programs: what Linux says of a process does not
depend on whether Jupyter began it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.attribution import (
    Attribution,
    attribute,
    worth_describing,
)
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.process_reader import ProcessReader
from jupyterhub_gpuworkshop.machine.processes import read_process
from tests.hub.running_hub import wait_for

PROGRAM = Path(__file__).with_name("a_server.py")
KERNEL = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER_KERNEL = "bbbbbbbb-0000-4000-8000-000000000002"
BOBS_KERNEL = "cccccccc-0000-4000-8000-000000000003"
ADA, SECOND, BOB = ("ada", ""), ("ada", "second"), ("bob", "")

Pids = dict[str, int]


@contextlib.contextmanager
def a_server(role: str, *arguments: str) -> Iterator[Pids]:
    """Run a server with all that it begins; give the pid of each by what it is."""
    forged = {"JUPYTERHUB_USER": "bob", "JUPYTERHUB_SERVER_NAME": ""}
    child = subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, str(PROGRAM), role, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **forged},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield {**json.loads(child.stdout.readline()), "server": child.pid}
    finally:
        # It ends all that it began, orphans too, where its input ends.
        child.stdin.close()
        child.wait(timeout=30)
        child.stdout.close()


def info(key: tuple[str, str], pid: int) -> ServerInfo:
    process = read_process(pid)
    assert process is not None
    user, name = key
    return ServerInfo(
        lease_id=f"lease-{user}-{name}",
        user=user,
        server=name,
        url="http://127.0.0.1:1/",
        token="t",
        pid=pid,
        started=process.started,
    )


def explain(
    servers: list[ServerInfo], held: list[int], listed: Mapping[tuple[str, str], str]
) -> Attribution:
    sample = DeviceSample(
        uuid="GPU-0",
        memory_total_bytes=16,
        memory_used_bytes=8,
        memory_free_bytes=8,
        processes=tuple(ProcessUse(pid=pid, memory_bytes=1) for pid in held),
    )
    reader = ProcessReader()
    facts = reader.read()
    for pid in worth_describing([sample], facts, servers):
        facts[pid] = reader.describe(facts[pid])
    leases = [
        Lease(id=x.lease_id, user=x.user, server=x.server, share="1/5", granted_at=0.0)
        for x in servers
    ]
    kernels = {key: frozenset(ids.split()) for key, ids in listed.items()}
    return attribute([sample], facts, servers, leases, kernels)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[tuple[str, str], Pids]]:
    with (
        a_server("everything", KERNEL, OTHER_KERNEL, BOBS_KERNEL) as first,
        a_server("forks", KERNEL) as second,
        a_server("forks", BOBS_KERNEL) as bobs,
    ):
        yield {ADA: first, SECOND: second, BOB: bobs}


def test_every_process_is_its_own_servers_and_kernels(
    servers: dict[tuple[str, str], Pids],
) -> None:
    infos = [info(key, pids["server"]) for key, pids in servers.items()]
    pids = {(key, what): pid for key, x in servers.items() for what, pid in x.items()}
    listed = {ADA: f"{KERNEL} {OTHER_KERNEL}", SECOND: KERNEL, BOB: BOBS_KERNEL}
    found = explain(infos, list(pids.values()), listed)
    names = {pid: name for name, pid in pids.items()}
    told = {names[x.process.pid]: (x.kind.value, x.kernel_id) for x in found.holders}
    owners = {
        names[x.process.pid]: (x.user, x.server, x.lease_id) for x in found.holders
    }
    assert owners == {
        (key, what): (*key, f"lease-{key[0]}-{key[1]}") for key, what in pids
    }
    kernel = ("kernel", KERNEL)
    assert {what: x for (key, what), x in told.items() if key == ADA} == {
        "server": ("server", ""),
        "kernel": kernel,
        "forked worker": kernel,
        "spawned worker": kernel,
        "popen": kernel,
        "!command": kernel,
        "renamed": kernel,
        "kernel of another environment": ("kernel", OTHER_KERNEL),
        "forged kernel": ("server", ""),
        "shell": ("terminal", ""),
        "nohup": ("terminal", ""),
        "setsid": ("server", ""),
    }
    assert told[SECOND, "forked worker"] == kernel
    assert told[BOB, "forked worker"] == ("kernel", BOBS_KERNEL)


def test_what_runs_outside_the_kernels_of_each_server_is_told(
    servers: dict[tuple[str, str], Pids],
) -> None:
    infos = [info(key, pids["server"]) for key, pids in servers.items()]
    listed = {ADA: f"{KERNEL} {OTHER_KERNEL}", SECOND: KERNEL, BOB: BOBS_KERNEL}
    trees = explain(infos, [], listed).servers
    ada = servers[ADA]
    assert {x.pid for x in trees[ADA].terminals} == {ada["shell"], ada["nohup"]}
    assert {x.pid for x in trees[ADA].outside} == {
        ada["setsid"],
        ada["forged kernel"],
    }
    assert trees[ADA].main is not None
    assert trees[ADA].main.pid == ada["server"]
    for key in (SECOND, BOB):
        tree = trees[key]
        assert tree.main is not None
        assert tree.main.pid == servers[key]["server"]
        assert (tree.terminals, tree.outside) == ((), ())


def test_what_outlives_its_terminal_is_in_none() -> None:
    with a_server("everything", KERNEL, OTHER_KERNEL, BOBS_KERNEL) as pids:
        servers = [info(ADA, pids["server"])]
        os.kill(pids["shell"], signal.SIGKILL)

        def nohup_without_tty() -> bool:
            process = read_process(pids["nohup"])
            return process is not None and process.tty == 0

        assert wait_for(nohup_without_tty)
        found = explain(servers, [pids["nohup"]], {})
    (holder,) = found.holders
    assert (holder.kind.value, holder.user) == ("server", "ada")
    assert pids["nohup"] in {x.pid for x in found.servers[ADA].outside}
