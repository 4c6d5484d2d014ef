"""The line that ends the traceback of an out-of-memory error in a notebook.

Owns which errors those are, told by their names so that no framework is imported, and
what the line says: the share, what this process holds, where to free more.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable

_GIB = 1024**3
_MIB = 1024**2
_DEEPEST = 8

_SIMCUDA = "jupyterhub_gpuworkshop.notebook.simcuda"
_ALWAYS = {("OutOfMemoryError", x) for x in ("torch", "torch.cuda", _SIMCUDA)} | {
    ("OutOfMemoryError", "cupy.cuda.memory")
}
"""(class, module) of errors that mean nothing else."""

_SAYING: dict[str, tuple[str, str]] = {
    # Up to PyTorch 1.12.
    "RuntimeError": ("builtins", "CUDA out of memory"),
    # On a device: TensorFlow runs out of host memory with the same class.
    "ResourceExhaustedError": ("tensorflow.", "GPU"),
    "XlaRuntimeError": ("jaxlib.", "RESOURCE_EXHAUSTED"),
    "JaxRuntimeError": ("jax", "RESOURCE_EXHAUSTED"),
}
"""Classes that mean it where they are of this module and say this."""


def explained(error: BaseException | None, lines: Any) -> Any:
    """Return a traceback's lines, with one more where memory ran out on a GPU."""
    if not isinstance(lines, list) or not is_out_of_memory(error):
        return lines
    return [*lines, line()]


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, says that a GPU's memory is full."""
    for _ in range(_DEEPEST):
        if error is None:
            return False
        if any(_means_it(kind, error) for kind in type(error).__mro__):
            return True
        error = error.__cause__
    return False


def _means_it(kind: type, error: BaseException) -> bool:
    name, module = kind.__name__, kind.__module__
    if (name, module) in _ALWAYS:
        return True
    start, words = _SAYING.get(name, ("", ""))
    return bool(words) and module.startswith(start) and words in str(error)


def line() -> str:
    """Return the line: your share, what this process holds, where to free more."""
    parts = []
    share = os.environ.get("GPUWORKSHOP_SHARE", "")
    limit = os.environ.get("GPUWORKSHOP_MEMORY_LIMIT_BYTES", "")
    if limit.isdigit():
        size = _say(int(limit))
        # Where the share is an amount of memory, it says the same.
        named = share and not share.upper().endswith("B")
        parts.append(f"your share is {size}" + (f" ({share})" if named else ""))
    held = held_bytes()
    if held:
        parts.append(f"this process holds {_say(held)}, CUDA's own not counted")
    page = os.environ.get("GPUWORKSHOP_PAGE", "")
    parts.append(
        "free more by shutting down kernels you no longer use"
        + (f": {page} shows yours" if page else "")
    )
    return "GPU memory: " + "; ".join(parts) + "."


def held_bytes() -> int:
    """Return what the frameworks of this process hold on GPUs, as they count it."""
    held = 0
    for module, count in _COUNTS.items():
        if module in sys.modules:
            try:
                held += int(count(sys.modules[module]))
            except Exception:  # noqa: S112  # one that cannot say leaves out its part
                continue
    return held


def _torch(torch: Any) -> int:
    if not torch.cuda.is_initialized():
        return 0
    devices = range(torch.cuda.device_count())
    return sum(torch.cuda.memory_reserved(x) for x in devices)


def _tensorflow(tensorflow: Any) -> int:
    config = tensorflow.config
    devices = config.list_logical_devices("GPU")
    names = [x.name.replace("/device:", "") for x in devices]
    return sum(config.experimental.get_memory_info(x)["current"] for x in names)


def _cupy(cupy: Any) -> int:
    return int(cupy.get_default_memory_pool().total_bytes())


def _simcuda(simcuda: Any) -> int:
    return int(simcuda.held_bytes())


_COUNTS: dict[str, Callable[[Any], int]] = {
    "torch": _torch,
    "tensorflow": _tensorflow,
    "cupy": _cupy,
    _SIMCUDA: _simcuda,
}


def _say(size_bytes: int) -> str:
    unit, factor = ("GiB", _GIB) if size_bytes >= _GIB else ("MiB", _MIB)
    return f"{size_bytes / factor:.1f} {unit}"
