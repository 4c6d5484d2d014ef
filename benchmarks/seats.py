"""A room of attendees whose servers and kernels are real processes that only wait."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts
from jupyterhub_gpuworkshop.machine.processes import is_alive, read_process

_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The processes of one attendee.

    Attributes:
        server: the server's.
        kernel_id: of its one kernel.
        holders: the kernel's main process, and what runs below it.
    """

    server: ProcessFacts
    kernel_id: str
    holders: tuple[ProcessFacts, ...]


@contextlib.contextmanager
def seated(attendees: int, holders: int) -> Iterator[tuple[Seat, ...]]:
    """Start a server with a kernel for each attendee; end them all afterwards.

    Args:
        attendees: how many.
        holders: how many processes the kernels have together, workers included.
    """
    script = str(Path(__file__).with_name("process_tree.py"))
    command = [sys.executable, "-S", "-E", script, str(attendees), str(holders)]
    tree = subprocess.Popen(  # noqa: S603  # our own script
        command, stdout=subprocess.PIPE, start_new_session=True
    )
    facts: dict[int, ProcessFacts] = {}
    try:
        assert tree.stdout is not None
        lines = [json.loads(tree.stdout.readline()) for _ in range(attendees + holders)]
        for line in lines:
            found = read_process(line["pid"])
            assert found is not None, "a process of the room has ended"
            facts[found.pid] = found
        yield tuple(
            Seat(
                server=facts[server["pid"]],
                kernel_id=server["kernel_id"],
                holders=tuple(
                    facts[line["pid"]]
                    for line in lines
                    if line["role"] == "holder" and line["seat"] == server["seat"]
                ),
            )
            for server in lines
            if server["role"] == "server"
        )
    finally:
        tree.kill()
        tree.communicate()
        end = time.monotonic() + _END_SECONDS
        while any(is_alive(x.pid, x.started) for x in facts.values()):
            if time.monotonic() > end:
                raise AssertionError("a process of the room does not end")
            time.sleep(0.01)
