"""One process that works with a framework as an attendee's kernel would.

Owns its start, what is asked of it, its time limits and its end: whatever it does, it
is killed with its children when its `with` block ends. The program is
`notebook/probe.py`, handed over as text.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
from pydantic import TypeAdapter, ValidationError

import jupyterhub_gpuworkshop
from jupyterhub_gpuworkshop.core.errors import ProofError

from .account import Account

_PROGRAM = Path(jupyterhub_gpuworkshop.__file__).parent / "notebook" / "probe.py"
_START = (
    "import json, sys; "
    "exec(compile(json.loads(sys.stdin.readline()), 'gpuworkshop-probe', 'exec'))"
)
_ANSWER_BYTES = 64 * 1024
_TOLD_BYTES = 2000
_DEATH_SECONDS = 10.0

T = TypeVar("T")


class ProbeFailed(ProofError):
    """A probe could not be started, broke off, or was too slow."""


class Probe:
    """A probe; it ends with its `with` block, and all that it holds is free.

    Args:
        python: the attendee's Python.
        environment: all of its variables.
        account: whom it runs as.
        folder: where it runs: one that its user can enter.
        limit_seconds: for each answer.

    Raises:
        ProbeFailed: it cannot be started.
    """

    def __init__(
        self,
        python: str,
        environment: Mapping[str, str],
        account: Account,
        folder: str,
        limit_seconds: float,
    ) -> None:
        self._limit_seconds = limit_seconds
        self._doing = "start"
        self._buffer = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        become: dict[str, Any] = {}
        if account.switch:
            become = {
                "user": account.uid,
                "group": account.gid,
                "extra_groups": account.groups,
            }
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the Python asked for
                [python, "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                bufsize=0,
                **become,
            )
        except (OSError, ValueError) as error:
            # A ValueError: a name or a value of the kernel's that no process can have.
            self._stderr.close()
            why = getattr(error, "strerror", None) or error
            raise ProbeFailed(f"{account.name} cannot run {python}: {why}.") from error
        try:
            self._write(_PROGRAM.read_text("utf-8"))
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, kind: type[T], do: str, **request: Any) -> T:
        """Have something done, and wait for the answer.

        Args:
            kind: a dataclass that says what the answer must look like.
            do: what, see `notebook/probe.py`.
            request: its arguments.

        Raises:
            ProbeFailed: it failed, broke off, or took too long.
        """
        self.tell(do, **request)
        return self.answer(kind)

    def tell(self, do: str, **request: Any) -> None:
        """Have something done, and do not wait."""
        self._doing = do
        self._write({"do": do, **request})

    def answer(self, kind: type[T]) -> T:
        """Wait for the answer to what was asked last."""
        line = self._read_line()
        try:
            answer = json.loads(line)
            if "error" in answer:
                raise ProbeFailed(f"`{self._doing}` failed: {answer['error']}")
            return TypeAdapter(kind).validate_python(answer)
        except (ValueError, TypeError, RecursionError, ValidationError):
            raise ProbeFailed(f"`{self._doing}` was answered with {line!r}.") from None

    def end(self) -> None:
        """Kill it and all of its children."""
        # Listed before: when their parent dies they become children of another.
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        # In an uninterruptible call it dies later, and is not waited for.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101 - asked for above
            pipe.close()
        self._stderr.close()

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def _write(self, message: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except OSError:
            raise ProbeFailed(self._ended()) from None

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        stdout = self._process.stdout.fileno()
        deadline = time.monotonic() + self._limit_seconds
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not wait([stdout], left):
                raise ProbeFailed(
                    f"`{self._doing}` had not answered after "
                    f"{self._limit_seconds:.0f} s. {self._told()}".rstrip()
                )
            some = os.read(stdout, _ANSWER_BYTES)
            if not some:
                raise ProbeFailed(self._ended())
            self._buffer += some
            if len(self._buffer) > _ANSWER_BYTES:
                raise ProbeFailed(f"`{self._doing}` was answered without an end.")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self) -> str:
        """Say how it ended by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.returncode
        how = f"signal {-status}" if status and status < 0 else f"status {status}"
        return f"the process ended in `{self._doing}` with {how}. {self._told()}"

    def _told(self) -> str:
        """Return the end of what it wrote to stderr."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TOLD_BYTES))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        last = next((x.strip() for x in reversed(lines) if x.strip()), "")
        return f"Its last words: {last}" if last else ""
