"""Runs installations in children of its own, and kills each at the step it is told.

Run by the tests, with the workshop's keys as JSON on its first line. Then each line is
`install 7` or `update 7`: a child is forked, which ends itself with SIGKILL when it is
about to change the file system for the seventh time; 0 lets it come to its end. How it
ended is the answer.
"""

import json
import os
import signal
import sys
from typing import Any

from jupyterhub_gpuworkshop.tools.material.installing import Run, Watcher, install
from jupyterhub_gpuworkshop.workshop import Workshop

CHANGES = {
    *("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink"),
    *("os.chmod", "os.truncate", "shutil.rmtree"),
}
TO_WRITE = os.O_WRONLY | os.O_RDWR


class Steps(Watcher):
    """Counts steps: also each piece that was written."""

    def __init__(self, last: int) -> None:
        self._left = last

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES or (
            event == "open" and isinstance(args[2], int) and args[2] & TO_WRITE
        ):
            self.step()

    def done(self, count: int) -> None:
        self.step()


def child(what: Workshop, command: str, last: int) -> None:
    steps = Steps(last)
    sys.addaudithook(steps.hook)
    again = command == "update"
    outcomes = install(
        Run(workshop=what, again=again, watcher=steps, warn=lambda _: None)
    )
    os._exit(1 if any(one.became.value == "failed" for one in outcomes) else 0)


def main() -> None:
    what = Workshop.load(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        command, last = line.split()
        pid = os.fork()
        if pid == 0:
            try:
                child(what, command, int(last))
            finally:
                os._exit(3)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
