"""A server with all that notebooks and terminals begin; it prints their pids as JSON.

``everything KERNEL OTHER BOBS`` begins each kind of process once, ``forks KERNEL`` a
kernel with a worker. All of them end when the standard input does.
"""

import ctypes
import json
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_FIFO = "A_SERVERS_FIFO"


def _tell(what: str, pid: int) -> None:
    with Path(os.environ[_FIFO]).open("ab", buffering=0) as fifo:
        fifo.write(f"{what}={pid}\n".encode())


def _wait() -> None:
    signal.pause()


def _start(*arguments: str, **options: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # noqa: S603
        [sys.executable, __file__, *arguments],
        stdin=subprocess.DEVNULL,
        **options,
    )


def _in_terminal(*arguments: str) -> None:
    """Run this program in a pseudo-terminal of its own, as terminado and IPython do."""
    pid, _ = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, __file__, *arguments])  # noqa: S606


def _rename() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"kworker/0:1")


def _kernel(with_all: bool) -> None:
    fork = multiprocessing.get_context("fork").Process(target=_worker, args=("forked",))
    fork.start()
    if not with_all:
        return
    spawn = multiprocessing.get_context("spawn")
    spawn.Process(target=_worker, args=("spawned",)).start()
    _start("tells", "popen")
    _start("renames", "renamed")
    _in_terminal("tells", "!command")


def _worker(how: str) -> None:
    _tell(f"{how} worker", os.getpid())
    _wait()


def _shell() -> None:
    _tell("shell", os.getpid())
    for command in (["nohup"], ["setsid"]):
        subprocess.Popen(  # noqa: S603  # our own program
            [*command, sys.executable, __file__, "tells", command[0]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _script(kernel_id: str) -> list[str]:
    """A kernel of another environment: a script that becomes the kernel."""
    inner = f'exec "{sys.executable}" "{__file__}" tells "$@"'
    what = "kernel of another environment"
    return ["/bin/sh", "-c", inner, "run.sh", what, f"kernel-{kernel_id}.json"]


def _server(role: str, kernel_ids: list[str]) -> int:
    """Begin everything; return how many will tell of themselves."""
    first, *others = kernel_ids
    kind = "kernel-with-all" if role == "everything" else "kernel-that-forks"
    _start(kind, "-f", f"/x/kernel-{first}.json", start_new_session=True)
    if role == "forks":
        return 2
    other, bobs = others
    subprocess.Popen(  # noqa: S603  # our own script
        _script(other),
        start_new_session=True,
    )
    forged = f"/x/kernel-{bobs}.json"
    _start("tells", "forged kernel", forged, start_new_session=True)
    _in_terminal("shell")
    return 11


def _serve(role: str, kernel_ids: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans stay below it
    threading.Thread(target=_end_with_input, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        fifo = Path(folder) / "fifo"
        os.mkfifo(fifo)
        os.environ[_FIFO] = str(fifo)
        waits_for = _server(role, kernel_ids)
        told: dict[str, int] = {}
        with fifo.open("r+b", buffering=0) as lines:  # never at its end
            while len(told) < waits_for:
                what, _, pid = lines.readline().decode().rstrip().partition("=")
                told[what] = int(pid)
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    _wait()


def _end_with_input() -> None:
    sys.stdin.read()
    _end_all_below(os.getpid())
    os._exit(0)


def _end_all_below(pid: int) -> None:
    """End what is below a process, deepest first."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        _end_all_below(int(child))
        os.kill(int(child), signal.SIGKILL)


def main() -> None:
    """Be what the first argument says."""
    role, *rest = sys.argv[1:]
    if role in ("everything", "forks"):
        _serve(role, rest)
    elif role == "shell":
        _shell()
    elif role.startswith("kernel-"):
        _tell("kernel", os.getpid())
        _kernel(role == "kernel-with-all")
    else:
        if role == "renames":
            _rename()
        _tell(rest[0], os.getpid())
    _wait()


if __name__ == "__main__":
    main()
