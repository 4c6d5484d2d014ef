"""The frameworks as far as a probe touches them, on simulated GPUs.

Each reads its own cap where the real one reads it, and none reads that of simcuda.
FAKE_FAULT in the environment makes them misbehave.
"""

from pathlib import Path

_GPU = """
import os, subprocess, sys, time
from jupyterhub_gpuworkshop.notebook import simcuda

os.environ.pop("GPUWORKSHOP_MEMORY_LIMIT_BYTES", None)
FAULT = os.environ.get("FAKE_FAULT", "")
if FAULT == "hangs":
    # In a session of its own: no group kill reaches it.
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(os.environ["FAKE_PIDS"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(1000)
if FAULT == "dies":
    sys.stderr.write("the driver is gone\\n")
    os.kill(os.getpid(), 9)
if FAULT == "prints":
    print("a banner on stdout", flush=True)
    os.system("echo another one, of a child")

def devices():
    if FAULT == "blind":
        return 0
    return simcuda.device_count() + (FAULT == "sees more")

def total():
    return simcuda.memory_info()[1]

def take(size, limit, error):
    if FAULT == "is hard":
        limit = min(limit, total() // 5 - 2 ** 29)
    if FAULT == "refuses early":
        limit = limit // 3
    if FAULT == "refuses its second":
        free, whole = simcuda.memory_info()
        if free + simcuda.held_bytes() < whole:
            raise error("not beside another")
    if FAULT == "is broken":
        raise ValueError("no kernel image is available")
    if simcuda.held_bytes() + size > limit:
        raise error("over the limit")
    try:
        return simcuda.allocate(size)
    except simcuda.OutOfMemoryError as reason:
        raise error(str(reason)) from None

class Matrix:
    is_cuda, device = True, "/device:GPU:0"
    def __init__(self, rows):
        self.rows = rows
    @property
    def T(self):
        return Matrix([list(x) for x in zip(*self.rows)])
    def __matmul__(self, other):
        off = 1.0 if FAULT == "miscalculates" else 0.0
        columns = list(zip(*other.rows))
        return Matrix([
            [off + sum(a * b for a, b in zip(row, column)) for column in columns]
            for row in self.rows
        ])
    def block_until_ready(self):
        return self
    numpy = block_until_ready
    def tolist(self):
        return self.rows
"""

_FILES = {
    "fake_gpu.py": _GPU,
    "torch/__init__.py": """
from torch import _C, cuda
from fake_gpu import FAULT, Matrix, take, total
__version__, uint8 = "2.99.0", "uint8"
def tensor(rows, device):
    cuda._lazy_init()
    return Matrix(rows)
def empty(size, dtype, device):
    cuda._lazy_init()
    limit = int(_C.fractions.get(0, 1.0) * total())
    return take(size, limit, cuda.OutOfMemoryError)
""",
    "torch/_C.py": """
fractions = {}
def _cuda_setMemoryFraction(fraction, device):
    fractions[device] = fraction
""",
    "torch/cuda/__init__.py": """
from fake_gpu import devices as device_count
class OutOfMemoryError(RuntimeError): pass
_queued, _done = [], []
def _lazy_call(call):
    call() if _done else _queued.append(call)
def _lazy_init():
    if not _done:
        _done.append(True)
        [call() for call in _queued]
def is_available(): return device_count() > 0
def current_device(): return 0
def set_device(device): pass
def empty_cache(): pass
""",
    "tensorflow/__init__.py": """
import contextlib, os
from types import SimpleNamespace
from fake_gpu import Matrix, devices, simcuda, take, total
from tensorflow.python.eager import context
__version__, float32 = "2.99.0", "float32"
class ResourceExhaustedError(Exception): pass
config = SimpleNamespace(list_physical_devices=lambda kind: [kind] * devices())
constant = Matrix
device = contextlib.nullcontext
options = context.Context()._compute_gpu_options()
limit = int((options.per_process_gpu_memory_fraction or 1.0) * total())
if os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH") != "true":
    everything = simcuda.allocate(simcuda.memory_info()[0])
def matmul(a, b, transpose_b): return a @ b.T
def zeros(shape, dtype):
    buffer = take(4 * shape[0] * shape[1], limit, ResourceExhaustedError)
    return SimpleNamespace(device="/device:GPU:0", buffer=buffer)
""",
    "tensorflow/python/__init__.py": "",
    "tensorflow/python/eager/__init__.py": "",
    "tensorflow/python/eager/context.py": """
from types import SimpleNamespace
class Context:
    _config = None
    def _compute_gpu_options(self):
        experimental = SimpleNamespace(virtual_devices=[])
        return SimpleNamespace(
            per_process_gpu_memory_fraction=0.0, experimental=experimental
        )
""",
    "jax/__init__.py": """
import os
from types import SimpleNamespace
from fake_gpu import devices, simcuda, total
__version__ = "0.99.0"
fraction = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))
limit = int(fraction * total())
if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE") != "false":
    preallocated = simcuda.allocate(limit)
def local_devices():
    return [SimpleNamespace(platform="gpu")] * devices() or [
        SimpleNamespace(platform="cpu")
    ]
""",
    "jax/numpy.py": """
import jax
from types import SimpleNamespace
from fake_gpu import Matrix as array, take
uint8 = "uint8"
class XlaRuntimeError(RuntimeError): pass
def exhausted(text):
    return XlaRuntimeError("RESOURCE_EXHAUSTED: " + text)
def zeros(shape, kind):
    # It answers before the work is done.
    return SimpleNamespace(
        block_until_ready=lambda: take(shape[0], jax.limit, exhausted)
    )
""",
    "cupy/__init__.py": """
import os
from types import SimpleNamespace
from fake_gpu import Matrix, devices, take, total
__version__ = "99.0.0"
limit = int(os.environ.get("CUPY_GPU_MEMORY_LIMIT", 0)) or total()
cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=devices))
class OutOfMemoryError(MemoryError): pass
def array(rows, kind): return Matrix(rows)
def empty(size, kind): return take(size, limit, OutOfMemoryError)
def get_default_memory_pool():
    return SimpleNamespace(free_all_blocks=lambda: None)
""",
    "cudf/__init__.py": """
__version__ = "99.12.0"
class Series:
    def __init__(self, values): self.values = list(values)
    def __mul__(self, other):
        return Series(a * b for a, b in zip(self.values, other.values))
    def sum(self): return sum(self.values)
""",
    "rmm/__init__.py": """
from fake_gpu import take, total
def DeviceBuffer(size): return take(size, total(), MemoryError)
""",
}


def write_fakes(folder: Path) -> Path:
    """Write all of them into a folder, for PYTHONPATH."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder
