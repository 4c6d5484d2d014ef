"""The program that `gpuworkshop doctor --prove-caps` runs as an attendee's kernel.

Owns what a framework is asked to do on the first GPU that it sees: a small result, and
allocations up to a bound. It knows no cap, sets none and judges nothing.

It runs in the attendee's Python, where this package may not be: its text is handed over
on stdin, and it asks for the framework and the standard library only. Requests come on
stdin and answers go to stdout, one JSON object a line; it ends with its stdin, and what
it holds with it. What frameworks print goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable, TextIO

_NUMBERS = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
_PRODUCT = [[5.0, 14.0], [14.0, 50.0]]
"""The numbers by their transposed: small integers, exact at any precision."""

_ROW_BYTES = 2 * 1024**2
_LONGEST = 500


class NotOnGpu(Exception):
    """The framework worked, but elsewhere than on a GPU."""


class Framework:
    """What every framework is asked for. To make one imports it.

    Attributes:
        module: what is imported.
    """

    module = ""

    def __init__(self) -> None:
        self._it: Any = importlib.import_module(self.module)

    def devices(self) -> int:
        """Return how many GPUs it sees."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Return `_NUMBERS` by their transposed, computed on a GPU."""
        raise NotImplementedError

    def allocate(self, size: int) -> Any:
        """Return something that holds so many bytes of a GPU."""
        raise NotImplementedError

    def release(self) -> None:
        """Give back what the framework keeps of memory that was let go."""


class Torch(Framework):
    """PyTorch."""

    module = "torch"

    def devices(self) -> int:
        cuda = self._it.cuda
        return int(cuda.device_count()) if cuda.is_available() else 0

    def compute(self) -> Any:
        numbers = self._it.tensor(_NUMBERS, device="cuda")
        result = numbers @ numbers.T
        if not result.is_cuda:
            raise NotOnGpu(str(result.device))
        return result.tolist()

    def allocate(self, size: int) -> Any:
        kind = self._it.uint8
        return self._it.empty(size, dtype=kind, device="cuda")

    def release(self) -> None:
        self._it.cuda.empty_cache()


class TensorFlow(Framework):
    """TensorFlow, eagerly."""

    module = "tensorflow"

    def devices(self) -> int:
        return len(self._it.config.list_physical_devices("GPU"))

    def compute(self) -> Any:
        with self._it.device("/GPU:0"):
            numbers = self._it.constant(_NUMBERS)
            result = self._it.matmul(numbers, numbers, transpose_b=True)
        return self._on_gpu(result).numpy().tolist()

    def allocate(self, size: int) -> Any:
        with self._it.device("/GPU:0"):
            # In two dimensions: some of its kernels count one in 32 bits.
            shape = [size // _ROW_BYTES, _ROW_BYTES // 4]
            return self._on_gpu(self._it.zeros(shape, self._it.float32))

    @staticmethod
    def _on_gpu(tensor: Any) -> Any:
        # It goes to the CPU without a word where a kernel for the GPU is missing.
        if "GPU" not in tensor.device:
            raise NotOnGpu(tensor.device)
        return tensor


class Jax(Framework):
    """JAX."""

    module = "jax"

    def devices(self) -> int:
        return len([x for x in self._it.local_devices() if x.platform != "cpu"])

    def compute(self) -> Any:
        numbers = importlib.import_module("jax.numpy").array(_NUMBERS)
        return (numbers @ numbers.T).block_until_ready().tolist()

    def allocate(self, size: int) -> Any:
        # It answers at once: the error, if any, comes with the wait.
        numpy = importlib.import_module("jax.numpy")
        return numpy.zeros((size,), numpy.uint8).block_until_ready()


class CuPy(Framework):
    """CuPy."""

    module = "cupy"

    def devices(self) -> int:
        return int(self._it.cuda.runtime.getDeviceCount())

    def compute(self) -> Any:
        numbers = self._it.array(_NUMBERS, "float32")
        return (numbers @ numbers.T).tolist()

    def allocate(self, size: int) -> Any:
        return self._it.empty(size, "uint8")

    def release(self) -> None:
        self._it.get_default_memory_pool().free_all_blocks()


class CuDf(Framework):
    """cuDF, whose columns take their memory from RMM."""

    module = "cudf"

    def devices(self) -> int:
        return int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())

    def compute(self) -> Any:
        first, second = (self._it.Series(row) for row in _NUMBERS)
        return [
            [float((a * b).sum()) for b in (first, second)] for a in (first, second)
        ]

    def allocate(self, size: int) -> Any:
        return importlib.import_module("rmm").DeviceBuffer(size=size)


class SimCuda(Framework):
    """Simulated GPUs: no arithmetic, but memory that must add up."""

    module = "jupyterhub_gpuworkshop.notebook.simcuda"

    def devices(self) -> int:
        return int(self._it.device_count())

    def compute(self) -> Any:
        size = 1024
        with self._it.allocate(size):
            self._it.compute(0)
            held = self._it.held_bytes()
        left = self._it.held_bytes()
        return _PRODUCT if (held, left) == (size, 0) else [held, left]

    def allocate(self, size: int) -> Any:
        return self._it.allocate(size)


FRAMEWORKS: dict[str, type[Framework]] = {
    "torch": Torch,
    "tensorflow": TensorFlow,
    "jax": Jax,
    "cupy": CuPy,
    "cudf": CuDf,
    "simcuda": SimCuda,
}


class Probe:
    """One framework in this process, and what it holds."""

    def __init__(self) -> None:
        self._framework: Any = None
        self._held: list[Any] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request; its errors are answers too."""
        known: dict[str, Callable[..., dict[str, Any]]] = {
            "kernel": self._kernel,
            "start": self._start,
            "compute": self._compute,
            "block": self._block,
            "fill": self._fill,
        }
        do = request.pop("do")
        try:
            return known[do](**request)
        except Exception as error:
            return {"error": _said(error)}

    def _kernel(self) -> dict[str, Any]:
        """Find the Python of the kernel that a notebook here starts with."""
        environment: dict[str, str] = {}
        first = sys.executable
        try:
            manager: Any = importlib.import_module("jupyter_client.kernelspec")
            spec = manager.KernelSpecManager().get_kernel_spec("python3")
            environment = dict(spec.env)
            # Jupyter takes the server's own for a bare name.
            first = spec.argv[0] if os.sep in spec.argv[0] else first
        except Exception as error:
            return {"python": first, "environment": {}, "why": _said(error)}
        return {"python": first, "environment": environment, "why": ""}

    def _start(self, framework: str) -> dict[str, Any]:
        """Import the framework, and count the GPUs that it sees."""
        kind = FRAMEWORKS[framework]
        if importlib.util.find_spec(kind.module.partition(".")[0]) is None:
            return {"installed": False}
        hooked = "gpuworkshop_memory_caps" in sys.modules
        self._framework = kind()
        answer = {"installed": True, "version": self._version(), "hooked": hooked}
        try:
            return {**answer, "devices": self._framework.devices(), "why": ""}
        except Exception as error:
            return {**answer, "devices": 0, "why": _said(error)}

    def _version(self) -> str:
        module: Any = sys.modules[self._framework.module]
        return str(getattr(module, "__version__", ""))

    def _compute(self) -> dict[str, Any]:
        """Have a small result computed."""
        result = self._framework.compute()
        return {"right": result == _PRODUCT, "result": repr(result)[:_LONGEST]}

    def _block(self, size_bytes: int) -> dict[str, Any]:
        """Ask for one block, and give it back."""
        refused = self._take(size_bytes)
        self._let_go()
        return {"refused": refused}

    def _fill(self, block_bytes: int, up_to_bytes: int) -> dict[str, Any]:
        """Take block after block until one is refused or the bound is reached."""
        refused = ""
        while not refused and (len(self._held) + 1) * block_bytes <= up_to_bytes:
            refused = self._take(block_bytes)
        return {"held_bytes": len(self._held) * block_bytes, "refused": refused}

    def _take(self, size_bytes: int) -> str:
        """Hold one more block; return how it was refused, or nothing.

        Any other error than one for want of memory goes on.
        """
        try:
            self._held.append(self._framework.allocate(size_bytes))
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            return _said(error)
        return ""

    def _let_go(self) -> None:
        self._held.clear()
        gc.collect()
        self._framework.release()


def _is_out_of_memory(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    known = {"OutOfMemoryError", "MemoryError", "ResourceExhaustedError"}
    text = str(error)
    return bool(
        names & known
        or "RESOURCE_EXHAUSTED" in text
        or "out of memory" in text.lower()
        or "cudaErrorMemoryAllocation" in text
    )


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {text}"[:_LONGEST]


def main() -> None:
    """Answer until stdin ends."""
    # Frameworks print what they like: the answers have a way of their own.
    answers: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    probe = Probe()
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        answers.write(json.dumps(probe.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
