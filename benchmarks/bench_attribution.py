"""One pass of attribution against one bare pass over /proc.

::

    python -m benchmarks.bench_attribution

At 8 devices, 200 holders and 100 attendees: reading the facts of every process,
describing what has to be described, and attributing, against listing /proc and
reading each process's stat, in turns of one run. The processes are real; those that
play servers and kernels sleep. Nothing is printed but ratios of this run.
"""

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import uuid

from jupyterhub_gpuworkshop.core.attribution import attribute, worth_describing
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.processes import describe, read_processes

DEVICES, ATTENDEES, KERNELS_EACH = 8, 100, 2
# A server: it starts its kernels, says so, and waits for their end.
SERVER = r"""
exec 3<&0
for id in "$@"; do
  setsid sh -c 'read line' sh -f "/run/kernel-$id.json" <&3 &
done
echo ready
wait
"""


def start_server(kernel_ids: list[str]) -> subprocess.Popen[str]:
    """Start a process that stands for a server, with its kernels below it."""
    return subprocess.Popen(  # noqa: S603 - this very module's text
        ["/bin/sh", "-c", SERVER, "server", *kernel_ids],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def bare_pass() -> int:
    """Read every process's stat, and do nothing with it."""
    read = 0
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                try:
                    with open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123 - the barest way
                        read += len(file.read())
                except OSError:
                    continue
    return read


def full_pass(
    servers: tuple[ServerInfo, ...],
    leases: tuple[Lease, ...],
    samples: tuple[DeviceSample, ...],
    kernels: dict[tuple[str, str], frozenset[str]],
) -> int:
    """Read the facts and attribute; return how many holders are in a kernel."""
    facts = read_processes()
    for pid in worth_describing(samples, facts, servers):
        if pid in facts:
            facts[pid] = describe(facts[pid])
    found = attribute(samples, facts, servers, leases, kernels)
    return sum(bool(holder.kernel_id) for holder in found.holders)


def main() -> None:
    """Measure in paired turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    ids = [[str(uuid.uuid4()) for _ in range(KERNELS_EACH)] for _ in range(ATTENDEES)]
    started = [start_server(kernel_ids) for kernel_ids in ids]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        measure(started, ids, options.turns)
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()  # the kernels read its end, and end
            process.send_signal(signal.SIGKILL)
            process.wait()


def measure(
    started: list[subprocess.Popen[str]], ids: list[list[str]], turns: int
) -> None:
    """Take both times in turns."""
    facts = read_processes()
    servers = tuple(
        ServerInfo(
            lease_id=f"lease-{i}",
            user=f"attendee{i}",
            server="",
            url="http://127.0.0.1:1/",
            token="",
            pid=process.pid,
            started=facts[process.pid].started,
        )
        for i, process in enumerate(started)
    )
    leases = tuple(
        Lease(id=s.lease_id, user=s.user, server="", share="1/5", granted_at=0.0)
        for s in servers
    )
    kernels = {(s.user, ""): frozenset(ids[i]) for i, s in enumerate(servers)}
    parents = {process.pid for process in started}
    holders = [p.pid for p in facts.values() if p.parent in parents]
    samples = tuple(
        DeviceSample(
            uuid=f"GPU-{i}",
            memory_total_bytes=1,
            memory_used_bytes=0,
            memory_free_bytes=1,
            processes=tuple(
                ProcessUse(pid=pid, memory_bytes=1) for pid in holders[i::DEVICES]
            ),
        )
        for i in range(DEVICES)
    )
    ratios, ours, bare = [], [], []
    for _ in range(turns):
        began = time.perf_counter()
        bare_pass()
        between = time.perf_counter()
        in_kernels = full_pass(servers, leases, samples, kernels)
        ended = time.perf_counter()
        assert in_kernels == len(holders) == ATTENDEES * KERNELS_EACH
        bare.append(between - began)
        ours.append(ended - between)
        ratios.append(ours[-1] / bare[-1])
    cuts = statistics.quantiles(ratios, n=20)
    print(f"machine: {platform.node()}, {os.cpu_count()} cores, {platform.release()}")
    print(
        f"{len(facts)} processes, {DEVICES} devices, {len(holders)} holders, "
        f"{ATTENDEES} attendees, {turns} turns"
    )
    print(
        f"facts and attribution / bare pass over /proc: median "
        f"{statistics.median(ratios):.2f} (5 % to 95 %: {cuts[0]:.2f} to "
        f"{cuts[-1]:.2f}); {statistics.median(ours) * 1000:.1f} ms against "
        f"{statistics.median(bare) * 1000:.1f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
