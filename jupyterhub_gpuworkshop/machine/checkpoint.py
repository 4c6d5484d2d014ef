"""``python -m jupyterhub_gpuworkshop.machine.checkpoint park PID STARTED``: one move.

The only importer of cuda-core. Calls the driver's checkpoint API and prints an `Answer`
of `driver_parking` as one line of JSON; it exits with 0, also where the move failed. A
driver that hangs hangs this process, and whoever started it kills it.

It needs no CUDA context and, as NVIDIA's own example (cuda-checkpoint,
src/r570-features.c), does not initialise CUDA: that opens every GPU, and takes a second
where persistence is off. A driver that wants it nevertheless gets it.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from cuda.bindings import driver
from cuda.core.checkpoint import Process

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId

from .driver_parking import Answer
from .parking import ParkState, ended
from .processes import is_alive

T = TypeVar("T")

_CUDA_12_8 = 12080
_LOOK_SECONDS = 0.05
_STATES = {
    "running": ParkState.RUNNING,
    "locked": ParkState.LOCKED,
    "checkpointed": ParkState.PARKED,
    "failed": ParkState.FAILED,
}
_MOVING = re.compile(r"\b[45]\b")
"""CHECKPOINTING and RESTORING, which came with CUDA 13.4 and which cuda-core does not
know: it names the number."""
_MEANINGS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "out of memory",
    "CUDA_ERROR_OPERATING_SYSTEM": "the operating system refused, or an earlier move "
    "has failed",
    "CUDA_ERROR_ILLEGAL_STATE": "its state does not allow it",
    "CUDA_ERROR_NOT_READY": "its GPU did not come to rest in time",
    "CUDA_ERROR_NOT_INITIALIZED": "it does not use CUDA",
}


class _DriverError(Exception):
    """The driver refused a call; the text is for people."""


class _Subject:
    """The process that is moved, looked at around each call into the driver.

    The driver takes nothing but a number, and finds the process by /proc. A pidfd would
    not help: it keeps nobody from getting the number of a process that has ended.
    """

    def __init__(self, process: ProcessId, lock_seconds: float) -> None:
        self.process = process
        self._cuda = Process(process.pid)
        self._lock_milliseconds = max(1, round(1000 * lock_seconds))

    def state(self) -> ParkState:
        """Return the driver's word on it."""
        try:
            return _STATES[self._call(lambda: self._cuda.state)]
        except _DriverError as error:
            if "state" in str(error) and _MOVING.search(str(error)):
                return ParkState.MOVING
            raise

    def settled_state(self) -> ParkState:
        """Return the same, once it is not on its way."""
        while (state := self.state()) is ParkState.MOVING:
            time.sleep(_LOOK_SECONDS)
        return state

    def lock(self) -> None:
        """Let no further call through, and wait for what the GPU computes."""
        self._call(lambda: self._cuda.lock(timeout_ms=self._lock_milliseconds))

    def checkpoint(self) -> None:
        """Move its memory to host RAM."""
        self._call(self._cuda.checkpoint)

    def restore(self) -> None:
        """Move it back."""
        self._call(self._cuda.restore)

    def unlock(self) -> None:
        """Let its calls through."""
        self._call(self._cuda.unlock)

    def _call(self, function: Callable[[], T]) -> T:
        """Call the driver.

        Raises:
            _DriverError: it refuses.
            ParkError: the process has ended, before or meanwhile.
        """
        self._must_live()
        try:
            result = _initialised(function)
        except Exception as error:
            # cuda-core raises a class of its own, RuntimeError and ValueError.
            self._must_live()
            raise _DriverError(_say(error)) from error
        self._must_live()
        return result

    def _must_live(self) -> None:
        if not is_alive(self.process.pid, self.process.started):
            raise ended(self.process)


def check() -> str:
    """Return why the driver cannot park; empty where it can."""
    if not hasattr(driver, "CUcheckpointGpuPair"):
        # Not in 12.9; without it cuda-core makes no call of the API at all.
        return "This cuda-bindings cannot park: pip install 'cuda-bindings>=13.1'."
    try:
        status, version = driver.cuDriverGetVersion()
    except RuntimeError as error:
        return f"There is no NVIDIA driver to park GPU memory: {_say(error)}"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"The NVIDIA driver does not tell its version: {status.name}."
    if version < _CUDA_12_8:
        return (
            "Parking needs NVIDIA driver 570 or later (CUDA 12.8); this one is for "
            f"CUDA {version // 1000}.{version % 1000 // 10}."
        )
    return ""


def park(subject: _Subject) -> None:
    """Lock and checkpoint; where that fails, let the process go.

    Raises:
        ParkError: the process is not parked.
    """
    pid = subject.process.pid
    state = _state_to_move(subject)
    if state is ParkState.PARKED:
        return
    try:
        if state is ParkState.RUNNING:
            subject.lock()
        subject.checkpoint()
        state = subject.settled_state()
        if state is not ParkState.PARKED:
            raise _DriverError(f"it says done, but the process is {state.value}")
    except _DriverError as error:
        broken = not _put_back(subject)
        what = "is stuck" if broken else "goes on using its GPU"
        raise ParkError(
            f"The NVIDIA driver did not park process {pid}, which {what}: {error}.",
            broken=broken,
        ) from error


def unpark(subject: _Subject) -> None:
    """Restore and unlock, whatever of it is still to be done.

    Raises:
        ParkError: the process does not use its GPU again.
    """
    pid = subject.process.pid
    state = _state_to_move(subject)
    if state is ParkState.PARKED:
        state = _restore(subject)
    try:
        if state is ParkState.LOCKED:
            subject.unlock()
        state = subject.settled_state()
    except _DriverError as error:
        raise ParkError(
            f"The NVIDIA driver did not unlock process {pid}: {error}."
        ) from error
    if state is not ParkState.RUNNING:
        raise ParkError(
            f"Process {pid} was brought back, but the NVIDIA driver says that it is "
            f"{state.value}.",
            broken=state is ParkState.FAILED,
        )


def _restore(subject: _Subject) -> ParkState:
    problem = ""
    try:
        subject.restore()
    except _DriverError as error:
        problem = str(error)
    try:
        state = subject.settled_state()
    except _DriverError as error:
        problem, state = problem or str(error), ParkState.PARKED
    # Whatever it answered: where the memory is back, somebody else may have done it.
    if state in (ParkState.PARKED, ParkState.FAILED):
        raise ParkError(
            f"The NVIDIA driver did not bring back the memory of process "
            f"{subject.process.pid}, which is stuck for good: "
            f"{problem or f'it says done, but the process is {state.value}'}.",
            broken=True,
        )
    return state


def _state_to_move(subject: _Subject) -> ParkState:
    try:
        state = subject.settled_state()
    except _DriverError as error:
        raise ParkError(
            "The NVIDIA driver does not tell the state of process "
            f"{subject.process.pid}: {error}."
        ) from error
    if state is ParkState.FAILED:
        raise ParkError(
            f"The NVIDIA driver says that process {subject.process.pid} is stuck since "
            "an earlier move failed.",
            broken=True,
        )
    return state


def _put_back(subject: _Subject) -> bool:
    """Try to let a process go on; say whether it does."""
    try:
        if subject.settled_state() is ParkState.PARKED:
            subject.restore()
        if subject.settled_state() is ParkState.LOCKED:
            subject.unlock()
        return subject.settled_state() is ParkState.RUNNING
    except _DriverError:
        return False


def _initialised(function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        if "CUDA_ERROR_NOT_INITIALIZED" not in str(error):
            raise
        driver.cuInit(0)
        return function()


def _say(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    code = text.partition(":")[0]
    if code in _MEANINGS:
        return f"{_MEANINGS[code]} ({code})"
    if isinstance(error, RuntimeError) and "not supported" in text:
        # All that cuda-core says of NOT_SUPPORTED, and so of a process whose memory
        # cannot be moved.
        return (
            "not supported: of this driver, or of memory as this process uses it "
            "(managed, or shared with another process)"
        )
    return text


def _answer(what: str, subject: _Subject) -> Answer:
    try:
        # Asked no more often than it must be: the driver may take seconds to say.
        if what == "park":
            park(subject)
            state = ParkState.PARKED
        elif what == "unpark":
            unpark(subject)
            state = ParkState.RUNNING
        else:
            state = subject.state()
        return Answer(state=state.value)
    except ParkError as error:
        problem, broken = str(error), error.broken
    except _DriverError as error:
        problem, broken = f"The NVIDIA driver does not answer: {error}.", False
    return Answer(problem=problem, broken=broken)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_gpuworkshop.machine.checkpoint",
        description="Park a process's GPU memory, or bring it back.",
    )
    parser.add_argument("what", choices=("check", "state", "park", "unpark"))
    parser.add_argument("pid", type=int, nargs="?", default=0)
    parser.add_argument(
        "started", type=int, nargs="?", help="in clock ticks since boot", default=0
    )
    parser.add_argument("--lock-seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    if options.what == "check":
        answer = Answer(problem=check())
    else:
        process = ProcessId(pid=options.pid, started=options.started)
        answer = _answer(options.what, _Subject(process, options.lock_seconds))
    sys.stdout.write(json.dumps(asdict(answer)) + "\n")
    sys.stdout.flush()
    # A driver that hangs on the way out would keep the answer back.
    os._exit(0)


if __name__ == "__main__":
    main()
