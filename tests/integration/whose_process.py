"""Run inside a unit or a container: a server's processes; outside: whose are they?

``wrapper KERNEL_ID`` becomes a wrapper with a server below it, a kernel with a worker,
a terminal, and an orphan that has left the tree and the session.
``explain ENGINE ID KERNEL_ID`` reads this machine's processes as the service does and
prints, as JSON, whose each of those is, and what runs outside the kernel.
"""

import json
import os
import pty
import subprocess
import sys
import time

KERNEL = "kernel"
WORKER = "worker"
ORPHAN = "orphan"
TERMINAL = "terminal"
ROLES = {"wrapper", "server", KERNEL, WORKER, ORPHAN, TERMINAL}
_FOREVER_SECONDS = 600


def _start(*arguments: str, new_session: bool = False) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  this program
        [sys.executable, __file__, *arguments], start_new_session=new_session
    )


def _run(role: str, kernel_id: str) -> None:
    if role == "wrapper":
        _start("server", kernel_id)
    elif role == "server":
        connection_file = f"/home/x/kernel-{kernel_id}.json"
        _start(KERNEL, kernel_id, "-f", connection_file, new_session=True)
        _start("leaves-an-orphan", kernel_id)
        if pty.fork()[0] == 0:
            command = [sys.executable, __file__, TERMINAL, kernel_id]
            os.execv(sys.executable, command)  # noqa: S606  this program
    elif role == KERNEL:
        _start(WORKER, kernel_id)
    elif role == "leaves-an-orphan":
        _start(ORPHAN, kernel_id, new_session=True)
        os._exit(0)
    time.sleep(_FOREVER_SECONDS)


def _explain(engine: str, engine_id: str, kernel_id: str) -> None:
    from jupyterhub_gpuworkshop.core.attribution import attribute
    from jupyterhub_gpuworkshop.core.leases import Lease
    from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
    from jupyterhub_gpuworkshop.core.wire import ServerInfo
    from jupyterhub_gpuworkshop.machine.process_reader import ProcessReader
    from jupyterhub_gpuworkshop.machine.processes import read_processes
    from jupyterhub_gpuworkshop.service.host import _read_processes

    roles = {}
    for pid, facts in read_processes(with_details=True).items():
        words = facts.command.split()
        # This process, and a client that runs it in a container, name no role.
        role = words[words.index(kernel_id) - 1] if kernel_id in words else ""
        if role in ROLES:
            roles[pid] = role
    server = ServerInfo(
        lease_id="lease-ada",
        user="ada",
        server="",
        url="http://127.0.0.1:1/",
        token="",
        engine=engine,
        engine_id=engine_id,
    )
    sample = DeviceSample(
        uuid="GPU-0",
        memory_total_bytes=16,
        memory_used_bytes=8,
        memory_free_bytes=8,
        processes=tuple(ProcessUse(pid=pid, memory_bytes=1) for pid in roles),
    )
    found = attribute(
        [sample],
        _read_processes(ProcessReader(), (sample,), (server,)).facts,
        [server],
        [Lease(id="lease-ada", user="ada", server="", share="1/5", granted_at=0.0)],
        {("ada", ""): frozenset({kernel_id})},
    )
    holders = {
        roles[x.process.pid]: [x.kind.value, x.user, x.kernel_id] for x in found.holders
    }
    tree = found.servers["ada", ""]
    told = {
        "holders": holders,
        "server": roles.get(tree.main.pid, "") if tree.main else "",
        "terminals": sorted(roles.get(x.pid, "") for x in tree.terminals),
        "outside": sorted(roles.get(x.pid, "") for x in tree.outside),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "explain":
        _explain(*sys.argv[2:5])
    else:
        _run(sys.argv[1], sys.argv[2])
