"""A real process that does with simulated GPUs what it is told, line by line."""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parent.parent
_PATIENCE_SECONDS = 120
PROGRAM = """
import gc, json, os, signal, sys, threading, time
from jupyterhub_gpuworkshop.notebook import simcuda
names = dict(globals())
for line in sys.stdin:
    code = json.loads(line)
    try:
        try:
            program = compile(code, "cell", "eval")
        except SyntaxError:
            exec(compile(code, "cell", "exec"), names)
            reply = {"value": None}
        else:
            reply = {"value": eval(program, names)}
    except BaseException as error:
        classes = [c.__name__ for c in type(error).__mro__]
        reply = {"error": str(error), "classes": classes}
    print(json.dumps(reply, default=repr), flush=True)
"""


class CellError(Exception):
    """A line raised an exception.

    Attributes:
        classes: the names of its class and of its bases.
    """

    def __init__(self, message: str, classes: list[str]):
        super().__init__(message)
        self.classes = classes


class SimulatedKernel:
    """A process with simulated GPUs; ends with its `with` block."""

    def __init__(
        self, python: str, state_dir: Path, environment: Mapping[str, str] | None = None
    ):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
        self.process = subprocess.Popen(  # noqa: S603 - runs this very module's text
            [python, "-W", "error", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "GPUWORKSHOP_SIMULATED_GPUS": str(state_dir),
                **(environment or {}),
            },
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def send(self, code: str) -> None:
        """Have it run a line, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """Wait for the value of the line that was sent."""
        assert self.process.stdout is not None
        answers = wait([self.process.stdout], _PATIENCE_SECONDS)
        assert answers, "the process does not answer"
        reply = json.loads(self.process.stdout.readline())
        if "error" in reply:
            raise CellError(reply["error"], reply["classes"])
        return reply["value"]

    def run(self, code: str) -> Any:
        """Have it run a line, and return the value."""
        self.send(code)
        return self.receive()

    def kill(self) -> None:
        """Kill it, and leave it a zombie until the `with` block ends."""
        self.process.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def end(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(_PATIENCE_SECONDS)

    def __enter__(self) -> "SimulatedKernel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
