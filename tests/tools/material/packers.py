"""Collects in children of its own, and kills each at the step it is told.

Run by a test, with the folders on its first line. Each further line is a number: a
child is forked, which ends itself with SIGKILL at so manieth a change of the file
system, or piece written; 0 lets it come to its end. How it ended is the answer.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from jupyterhub_gpuworkshop.hub.homes import UNIX, Home
from jupyterhub_gpuworkshop.machine.archives import Incoming
from jupyterhub_gpuworkshop.tools.material.collecting import Plan, collect

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.link", "os.chmod", "os.chown"}
_TO_WRITE = os.O_WRONLY | os.O_RDWR


class _Steps:
    def __init__(self, last: int) -> None:
        self._left = last

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _CHANGES or (
            event == "open" and isinstance(args[2], int) and args[2] & _TO_WRITE
        ):
            self.step()


def _child(folder: Path, last: int) -> None:
    home = Home(
        kind=UNIX,
        path=str(folder / "home"),
        uid=os.getuid(),
        gid=os.getgid(),
        user_since=1.0,
    )
    steps = _Steps(last)
    sys.addaudithook(steps.hook)
    write, keep = Incoming.write, Incoming.keep

    def counted_write(self: Incoming, data: bytes) -> None:
        steps.step()
        write(self, data[: len(data) // 2])
        steps.step()
        write(self, data[len(data) // 2 :])

    def counted_keep(self: Incoming, since: float) -> None:
        steps.step()
        keep(self, since)

    Incoming.write = counted_write  # type: ignore[method-assign]
    Incoming.keep = counted_keep  # type: ignore[method-assign]
    (one,) = collect(
        Plan(
            homes={"ann": home},
            folder=folder / "archives",
            like=folder,
            largest_bytes=10**9,
        ),
        Console(stderr=True, quiet=True),
    )
    os._exit(1 if one.problem else 0)


def main() -> None:
    folder = Path(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _child(folder, int(line))
            finally:
                os._exit(3)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
