"""``python -m jupyterhub_gpuworkshop.machine.sampler``: read the devices when asked to.

The service's one long-lived child. It reads a `Request` a line from stdin and writes an
`Answer` a line to stdout, both as JSON; the first answer, to no request, says that it
has started. A driver that hangs hangs this process, one that crashes ends it, and who
started it starts another: it owns nothing worth keeping. It ends when stdin does, so
with the process that asks, also in the middle of a call that hangs.
"""

import argparse
import faulthandler
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceLost, SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Glance

from .source import DeviceSource, open_source

_LOG = logging.getLogger(__name__)
_LOG_FORMAT = "[%(levelname)1.1s %(asctime)s.%(msecs).03d %(name)s] %(message)s"
"""The service's: both write into the same log."""


class Asked(str, Enum):
    """What can be asked."""

    INVENTORY = "inventory"
    SAMPLE = "sample"
    GLANCE = "glance"
    FREE = "free"


class Trouble(str, Enum):
    """Why there is no reading."""

    UNAVAILABLE = "unavailable"
    """There is nothing to read from: ask again later."""
    LOST = "lost"
    """The driver went away, or something broke: a new process may see it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing that is asked.

    Attributes:
        number: comes back with the answer; from 1 on.
        asked: what.
        known: the devices that an earlier process saw; in the first request only.
    """

    number: int
    asked: Asked
    known: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of it.

    Attributes:
        number: of the request; 0 where nothing was asked.
        inventory: what exists, if that was asked.
        samples: one reading of each device that answers, if those were asked.
        glances: what is cheap to read of each, if that was asked.
        free_bytes: what is free on each device, by UUID, if that was asked.
        trouble: why there is nothing.
        problem: the same in a sentence.
    """

    number: int
    inventory: Inventory | None = None
    samples: tuple[DeviceSample, ...] = field(default=())
    glances: tuple[Glance, ...] = field(default=())
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    trouble: Trouble | None = None
    problem: str = ""


REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
"""``.dump_json(value)`` gives bytes, ``.validate_json(line)`` reads them."""


class _Server:
    """Answers requests, one at a time, in a thread of its own.

    Args:
        name: of the source.
        simulated_dir: where simulated GPUs live.
        answers: where they go.
    """

    def __init__(self, name: str, simulated_dir: Path | None, answers: BinaryIO):
        self._name = name
        self._simulated_dir = simulated_dir
        self._answers = answers
        self._source: DeviceSource | None = None

    def serve(self, requests: "queue.SimpleQueue[bytes]") -> None:
        """Answer for as long as this process lives."""
        try:
            self._write(Answer(number=0))
            while True:
                self._write(self._answer(REQUEST.validate_json(requests.get())))
        except BaseException:
            traceback.print_exc()
        finally:
            # Without this thread nobody would ever be answered.
            os._exit(1)

    def _answer(self, request: Request) -> Answer:
        number = request.number
        try:
            if self._source is None:
                self._source = open_source(
                    self._name, simulated_dir=self._simulated_dir, known=request.known
                )
            if request.asked is Asked.INVENTORY:
                return Answer(number=number, inventory=self._source.inventory())
            if request.asked is Asked.GLANCE:
                return Answer(number=number, glances=self._source.glance())
            if request.asked is Asked.FREE:
                return Answer(number=number, free_bytes=self._source.free_bytes())
            return Answer(number=number, samples=self._source.sample())
        except SourceUnavailable as error:
            trouble, problem = Trouble.UNAVAILABLE, str(error)
        except SourceLost as error:
            trouble, problem = Trouble.LOST, str(error)
        except Exception as error:
            # A source that breaks in a way of its own is a source that is not there.
            _LOG.exception("Reading the GPUs failed")
            trouble, problem = Trouble.LOST, f"Reading the GPUs failed: {error!r}"
        return Answer(number=number, trouble=trouble, problem=problem)

    def _write(self, answer: Answer) -> None:
        self._answers.write(ANSWER.dump_json(answer) + b"\n")
        self._answers.flush()


def _take_stdout() -> BinaryIO:
    """Return stdout, and send to stderr what a library prints there."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer until nobody can ask any more."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_gpuworkshop.machine.sampler",
        description="Read the GPUs of this machine for each line on stdin.",
    )
    parser.add_argument("--source", choices=("nvml", "simulated"), default="nvml")
    parser.add_argument(
        "--simulated-dir", type=Path, help="where the simulated GPUs live"
    )
    options = parser.parse_args(arguments)
    # A library that crashes says where, in the service's log.
    faulthandler.enable()
    logging.basicConfig(format=_LOG_FORMAT, level=logging.INFO)
    server = _Server(options.source, options.simulated_dir, _take_stdout())
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=server.serve, args=(requests,), daemon=True).start()
    for line in sys.stdin.buffer:
        requests.put(line)
    # At once: the thread may be in a call that never comes back.
    os._exit(0)


if __name__ == "__main__":
    main()
