"""Processes that hold GPU memory whose content is known: PyTorch's, and simulated.

Owns the programs and the pipe to them. A program answers one line of JSON to each it
is sent; while its process is parked it answers none, for its GPU calls wait.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).parent.parent.parent
_PATIENCE_SECONDS = 600

_LOOP = """
import json, sys
for line in sys.stdin:
    order = json.loads(line)
    print(json.dumps(globals()[order.pop("do")](**order)), flush=True)
"""

# Every byte is compared with what the generator makes of the same seed again, piece by
# piece, so that the comparison needs no more than one piece of memory.
TORCH = (
    """
import time, torch
PIECE = 2**26  # of 4 bytes each
pieces, scratch, seed = [], torch.empty(PIECE, dtype=torch.int32, device="cuda"), 0

def _write(into, number):
    generator = torch.Generator(device="cuda")
    into.random_(generator=generator.manual_seed(seed * 100_003 + number))

def hold(size_bytes):
    for _ in range(max(1, size_bytes // (4 * PIECE) - 1)):
        pieces.append(torch.empty_like(scratch))
    torch.cuda.synchronize()
    return 4 * PIECE * (len(pieces) + 1)

def fill(with_seed):
    global seed
    seed = with_seed
    for number, piece in enumerate(pieces):
        _write(piece, number)
    torch.cuda.synchronize()
    return True

def verify():
    intact = True
    for number, piece in enumerate(pieces):
        _write(scratch, number)
        intact = torch.equal(piece, scratch) and intact
    return intact

def bus(size_bytes, times):
    host = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(size_bytes, dtype=torch.uint8, device="cuda")
    best = []
    for to, of in ((host, there), (there, host)):
        seconds = []
        for _ in range(times + 1):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            to.copy_(of, non_blocking=True)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        best.append(size_bytes / min(seconds[1:]))
    return best
"""
    + _LOOP
)

# Simulated memory has no content: that it is still held is all there is to verify.
SIMULATED = (
    """
from jupyterhub_gpuworkshop.notebook import simcuda
held = []

def hold(size_bytes):
    held.append(simcuda.allocate(size_bytes))
    return size_bytes

def fill(with_seed):
    simcuda.compute(0.001)
    return True

def verify():
    free, total = simcuda.memory_info()
    return free <= total - sum(x.size_bytes for x in held)
"""
    + _LOOP
)


class KernelError(Exception):
    """A kernel does not do what it is told."""


class Kernel:
    """A process that holds GPU memory; ends with its `with` block.

    Args:
        python: that runs it.
        program: `TORCH` or `SIMULATED`.
        environment: besides this process's own: which GPU it sees.
    """

    def __init__(self, python: str, program: str, environment: Mapping[str, str]):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
        self._process = subprocess.Popen(  # noqa: S603 - runs this module's text
            [python, "-c", program],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**kept, **environment},
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def do(self, what: str, **arguments: Any) -> Any:
        """Have it do something, and return the answer.

        Raises:
            KernelError: it has ended, or does not answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise KernelError(f"Kernel {self.pid} has ended.") from None
        waited = wait([self._process.stdout], _PATIENCE_SECONDS)
        line = self._process.stdout.readline() if waited else ""
        if not line:
            raise KernelError(f"Kernel {self.pid} gave no answer to {what!r}.")
        return json.loads(line)

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue
