"""Servers, kernels and their workers that are real processes and do nothing.

A script: it makes them, prints a line of JSON for each, and waits. Each ends as soon
as its parent has, so that killing the script ends them all. Standard library only.
"""

import ctypes
import json
import os
import signal
import sys
import uuid

_PR_SET_PDEATHSIG = 1
_KERNEL = "import os, signal, sys; os.write(1, sys.argv[-1].encode()); signal.pause()"
"""It is announced by itself: before the exec its command line is another."""


def _fork() -> bool:
    """Return whether this is the child, which ends as soon as its parent has."""
    parent = os.getpid()
    if os.fork():
        return False
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    return True


def _kernel_id(seat: int) -> str:
    return str(uuid.UUID(int=seat, version=4))


def _line(role: str, seat: int) -> str:
    line = {
        "role": role,
        "seat": seat,
        "pid": os.getpid(),
        "kernel_id": _kernel_id(seat),
    }
    return json.dumps(line) + "\n"


def _say(line: str) -> None:
    # One write of a short line to a pipe is not torn by those of others.
    os.write(1, line.encode())


def _sit(seat: int, holders: int) -> None:
    """Be an attendee's server; never return."""
    if holders and _fork():
        os.setsid()
        for _ in range(holders - 1):
            if _fork():
                _say(_line("holder", seat))
                _wait()
        connection = f"/home/attendee{seat:03d}/runtime/kernel-{_kernel_id(seat)}.json"
        command = [sys.executable, "-S", "-E", "-c", _KERNEL, "-f", connection]
        command.append(_line("holder", seat))
        os.execv(sys.executable, command)  # noqa: S606  # that is the point
    _say(_line("server", seat))
    _wait()


def _wait() -> None:
    while True:
        signal.pause()


def _main(attendees: int, holders: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here becomes a zombie
    for seat in range(attendees):
        if _fork():
            _sit(seat, holders // attendees + (seat < holders % attendees))
    _wait()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
