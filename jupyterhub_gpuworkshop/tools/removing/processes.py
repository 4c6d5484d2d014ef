"""What still runs as a user whose home is to go, and ending it.

Owns which processes count. Numbers of users are shared with containers that the
engine's daemon has started: a database in one of them may run under the very number of
an attendee, and is not theirs.
"""

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.tools.hub_calls import one_line

_NOBODYS_GROUP = 65534
_TERM_SECONDS = 5.0
_KILL_ROUNDS = 5
_MOST_SHOWN = 5
_SIGNAL_ALL = """
import os, sys
uid, group, signum = map(int, sys.argv[1:])
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(uid, uid, uid)
os.kill(-1, signum)
"""
"""A signal to all processes of a user, in one step of the kernel's, so that none forks
away; not to who sends it, nor to other users', since it is sent as that user."""


def see_to_processes(uid: int, shown: str, *, end_them: bool) -> None:
    """Make sure that nothing runs as a user.

    Args:
        uid: the user's number.
        shown: who it is, for the message.
        end_them: whether to end what runs still.

    Raises:
        HostError: something runs, and is not ended.
    """
    running, in_containers = processes_of(uid)
    if running and end_them:
        rounds = (signal.SIGTERM, *(signal.SIGKILL,) * _KILL_ROUNDS)
        for signum in rounds:
            if in_containers:
                _signal_each(running, signum)
            else:
                _signal_all(uid, signum)
            psutil.wait_procs(running, _TERM_SECONDS)
            running, in_containers = processes_of(uid)
            if not running:
                break
    if running:
        said = ", ".join(
            f"{one_line(x.info['name'])} (pid {x.pid})" for x in running[:_MOST_SHOWN]
        )
        more = len(running) - _MOST_SHOWN
        raise HostError(
            f"{shown} still has processes: {said}"
            + (f" and {more} more" if more > 0 else "")
            + ". --end-processes ends them"
        )


def processes_of(uid: int) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Return the processes that run as a user, in any of its ids.

    Returns:
        The user's own; and those of containers of somebody else's.
    """
    own: list[psutil.Process] = []
    in_containers: list[psutil.Process] = []
    for process in psutil.process_iter(["uids", "status", "name"]):
        uids = process.info["uids"]
        dead = process.info["status"] == psutil.STATUS_ZOMBIE
        if uids is not None and uid in uids and not dead:
            (in_containers if _is_in_a_container(process.pid) else own).append(process)
    return own, in_containers


def _is_in_a_container(pid: int) -> bool:
    """Whether root has put a process under another root folder than ours.

    In a container that a user has made for themselves, users have numbers of their
    own (user_namespaces(7)): nobody else can change their root folder.
    """
    process, ours = Path("/proc", str(pid)), Path("/proc/self")
    try:
        if (process / "ns/user").readlink() != (ours / "ns/user").readlink():
            return False
        theirs, our_root = (process / "root").stat(), Path("/").stat()
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) != (our_root.st_dev, our_root.st_ino)


def _signal_each(processes: list[psutil.Process], signum: int) -> None:
    for process in processes:
        try:
            process.send_signal(signum)
        except psutil.Error:
            continue  # it has ended


def _signal_all(uid: int, signum: int) -> None:
    command = (sys.executable, "-I", "-S", "-c", _SIGNAL_ALL)
    numbers = (str(uid), str(_NOBODYS_GROUP), str(int(signum)))
    # It fails where there is nobody left to hear it.
    subprocess.run(  # noqa: S603 - text of this module, and numbers
        (*command, *numbers),
        cwd="/",
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
