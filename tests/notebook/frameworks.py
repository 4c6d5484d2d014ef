"""The real frameworks, each in an environment of its own, and what tells their cap."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import require_engine

ROOT = Path(__file__).parent.parent.parent

PACKAGES = {
    "torch": "torch==2.13.0 numpy",
    "tensorflow": "tensorflow-cpu",
    "jax": "jax[cpu]",
    "onnxruntime": "onnxruntime",
}

# Without a GPU: as if CUDA had one, and a driver.
FAKE_CUDA = """
import torch
calls = []
for name, fake in {
    "_cuda_init": lambda: None,
    "_cuda_getDeviceCount": lambda: 2,
    "_cuda_getDevice": lambda: 0,
    "_cuda_setMemoryFraction": lambda *call: calls.append(call),
    "_cuda_getMemoryFraction": lambda device: 1.0,
}.items():
    setattr(torch._C, name, fake)
torch.cuda._cudart = torch.cuda._cudart or object()  # a build for CPUs has none
ours = [c for c, *_ in torch.cuda._queued_calls if "gpuworkshop" in c.__module__]
"""
TF_QUIET = "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n"

CAP_OF = {
    "torch": f"""{FAKE_CUDA}
torch.cuda._queued_calls[:] = [(ours[0], [])]
torch.cuda._is_compiled = lambda: True
torch.cuda._lazy_init()
cap = calls[0][0]
""",
    "tensorflow": f"""{TF_QUIET}
import tensorflow
from tensorflow.python.eager import context
cap = context.context().config.gpu_options.per_process_gpu_memory_fraction
""",
    "jax": """
import jax
from jaxlib import xla_client
options = xla_client.generate_pjrt_gpu_plugin_options()
assert options["preallocate"] is False, options
cap = options["memory_fraction"]
""",
    "onnxruntime": """
import onnxruntime
from onnxruntime.capi import onnxruntime_inference_collection as collection
gpu = "CUDAExecutionProvider"
_, (options,) = collection.check_and_normalize_provider_args([gpu], None, [gpu])
cap = int(options["gpu_mem_limit"])
""",
}
"""Programs that end with `cap`: what the framework itself would hand on to CUDA."""

OUT_OF_MEMORY = {
    "torch": "import torch; raise torch.OutOfMemoryError('CUDA out of memory.')",
    "tensorflow": f"""{TF_QUIET}
import tensorflow as tf
raise tf.errors.ResourceExhaustedError(None, None, "OOM on /device:GPU:0 by GPU_0_bfc")
""",
    "jax": "import jax; raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of')",
}
"""Cells that fail as a full GPU makes them fail."""


@functools.cache
def find_python_with(framework: str) -> str | None:
    """Return the Python that a framework is found by, or None.

    GPUWORKSHOP_TORCH_PYTHON and its like name it; else it is in the environment that
    `make test-frameworks` makes; else it may be this one.
    """
    made = ROOT / f".venv-{framework}/bin/python"
    named = os.environ.get(f"GPUWORKSHOP_{framework.upper()}_PYTHON")
    python = named or (str(made) if made.exists() else sys.executable)
    code = f"from importlib.util import find_spec as f; exit(not f({framework!r}))"
    tried = subprocess.run([python, "-c", code])  # noqa: S603 - a Python
    return None if tried.returncode else python


def python_with(framework: str) -> str:
    """Return the Python that a framework is found by, or skip the test."""
    python = find_python_with(framework)
    hint = (
        f"make test-frameworks; or install {PACKAGES[framework]} into an environment "
        f"and name its Python in GPUWORKSHOP_{framework.upper()}_PYTHON"
    )
    require_engine(framework, python is not None, hint)
    return python or ""
