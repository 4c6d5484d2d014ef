"""Runs a command for its output, never for longer than it may take."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 10.0
_FIRST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a command wrote.

    Attributes:
        out: to stdout.
        err: to stderr.
        status: how it ended; None where it did not start, or not end in time.
        problem: why there is no status, in a few words; else empty.
        hung: whether it had to be killed when its time was up.
    """

    out: str = ""
    err: str = ""
    status: int | None = None
    problem: str = ""
    hung: bool = False

    @property
    def worked(self) -> bool:
        """Whether it ended well."""
        return self.status == 0


def run_command(
    command: Sequence[str],
    *,
    seconds: float = _SECONDS,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Output:
    """Run a command in a session of its own and kill all of it when its time is up.

    A process in an uninterruptible call dies later: it is not waited for.
    """
    try:
        child = subprocess.Popen(  # noqa: S603  # fixed commands, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **environment} if environment else None,
            start_new_session=True,
        )
    except OSError as error:
        return Output(problem=f"{command[0]}: {error.strerror or error}")
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=1)
        problem = f"{command[0]} did not end within {seconds:.0f} s"
        return Output(problem=problem, hung=True)
    return Output(out=_text(out), err=_text(err), status=child.returncode)


def run_module(name: str, *arguments: str, seconds: float) -> Output:
    """Run a module of ours in this Python.

    In the root folder: ``-m`` looks for modules in the current one first, which may be
    anybody's.
    """
    command = [sys.executable, "-m", name, *arguments]
    return run_command(command, seconds=seconds, folder=Path("/"))


def _text(output: bytes) -> str:
    return output[:_FIRST_BYTES].decode("utf-8", "replace")
