"""The import hook against PyTorch and TensorFlow themselves, each where it is.

Each lives in an environment of its own: GPUWORKSHOP_TORCH_PYTHON and
GPUWORKSHOP_TENSORFLOW_PYTHON name its Python, where it is not the one of the tests.
"""

import functools
import os
import subprocess
import sys

import pytest

from tests.conftest import require_engine

from .hooked_python import start, value_of


@functools.cache
def python_with(module: str) -> str | None:
    """Return the Python that a module is found by, or None."""
    variable = f"GPUWORKSHOP_{module.upper()}_PYTHON"
    python = os.environ.get(variable, sys.executable)
    code = f"from importlib.util import find_spec as f; exit(not f({module!r}))"
    tried = subprocess.run([python, "-c", code])  # noqa: S603 - a Python
    return None if tried.returncode else python


@pytest.fixture
def torch_python() -> str:
    python = python_with("torch")
    hint = (
        "python3 -m venv torch && torch/bin/pip install torch numpy && "
        "export GPUWORKSHOP_TORCH_PYTHON=torch/bin/python"
    )
    require_engine("torch", python is not None, hint)
    return python or ""


@pytest.fixture
def tensorflow_python() -> str:
    python = python_with("tensorflow")
    hint = (
        "python3 -m venv tf && tf/bin/pip install tensorflow-cpu && "
        "export GPUWORKSHOP_TENSORFLOW_PYTHON=tf/bin/python"
    )
    require_engine("tensorflow", python is not None, hint)
    return python or ""


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
ours = [c for c, *_ in torch.cuda._queued_calls if "gpuworkshop" in c.__module__]
"""


@pytest.mark.torch
def test_pytorch_queues_the_cap_and_sets_it_on_each_device(torch_python):
    code = f"{FAKE_CUDA}\nassert len(ours) == 1\nvalue = [list(calls)]\n"
    # The other queued calls ask a real driver.
    code += "torch.cuda._queued_calls[:] = [(ours[0], [])]\n"
    code += "torch.cuda._is_compiled = lambda: True\n"
    code += "torch.cuda._lazy_init()\nvalue.append(calls)"
    expected = [[], [[0.25, 0], [0.25, 1]]]
    assert value_of(code, python=torch_python) == expected


@pytest.mark.torch
def test_pytorch_computes_as_ever_with_the_hook(torch_python):
    code = (
        "import torch; a = torch.arange(6.).reshape(2, 3); value = (a @ a.T).tolist()"
    )
    assert value_of(code, python=torch_python) == [[5.0, 14.0], [14.0, 50.0]]


@pytest.mark.torch
def test_an_error_in_the_hook_does_not_break_pytorchs_initialisation(torch_python):
    code = f"""{FAKE_CUDA}
def fail(*_):
    raise RuntimeError("not today")
torch._C._cuda_setMemoryFraction = fail
torch.cuda._is_compiled = lambda: True
torch.cuda._queued_calls[:] = [(ours[0], [])]
torch.cuda._lazy_init()
print(torch.cuda.is_initialized())
"""
    ended = start(code, python=torch_python)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr
    told = "gpuworkshop: PyTorch is not capped: RuntimeError('not today')"
    assert told in ended.stderr


@pytest.mark.torch
def test_a_child_of_a_process_with_pytorch_has_the_hook_too(torch_python):
    code = f"""
import subprocess, sys, torch
program = {FAKE_CUDA + "print(len(ours))"!r}
value = int(subprocess.check_output([sys.executable, "-c", program]))
"""
    assert value_of(code, python=torch_python) == 1


@pytest.mark.torch
def test_a_pytorch_error_for_want_of_memory_is_known(torch_python):
    code = """
import torch, gpuworkshop_out_of_memory as oom
value = [oom.is_out_of_memory(torch.cuda.OutOfMemoryError("x")), oom.held_bytes()]
"""
    assert value_of(code, python=torch_python) == [True, 0]


TF_QUIET = "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n"
OPTIONS = f"""{TF_QUIET}
import json, tensorflow as tf
from tensorflow.python.eager import context
def fraction():
    config = context.context().config
    return round(config.gpu_options.per_process_gpu_memory_fraction, 6)
"""


def printed(code: str, python: str, **environment: str) -> str:
    """Run a program of TensorFlow, which talks on stderr whatever it is told."""
    ended = start(code, python=python, **environment)
    assert ended.returncode == 0, ended.stderr
    assert "gpuworkshop" not in ended.stderr
    return ended.stdout.strip()


@pytest.mark.tensorflow
def test_tensorflow_is_capped_and_computes_as_ever(tensorflow_python):
    code = OPTIONS + "print(fraction(), float(tf.reduce_sum(tf.ones((3, 3)))))"
    assert printed(code, tensorflow_python) == "0.25 9.0"


@pytest.mark.tensorflow
def test_a_tensorflow_child_is_capped(tensorflow_python):
    code = OPTIONS + "print(fraction())"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    )
    assert printed(program, tensorflow_python) == "0.25"


@pytest.mark.tensorflow
def test_a_smaller_fraction_of_tensorflows_stays(tensorflow_python):
    code = f"""{OPTIONS}
gpu = tf.compat.v1.GPUOptions(per_process_gpu_memory_fraction=0.125)
config = context.Context(tf.compat.v1.ConfigProto(gpu_options=gpu)).config
print(config.gpu_options.per_process_gpu_memory_fraction)
"""
    assert printed(code, tensorflow_python) == "0.125"
    assert printed(code.replace("0.125", "0.5"), tensorflow_python) == "0.25"


@pytest.mark.tensorflow
def test_tensorflows_logical_devices_have_no_fraction(tensorflow_python):
    code = f"""{OPTIONS}
gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
it = context.context()
it.list_physical_devices = lambda kind=None: [gpu] if kind == "GPU" else []
it._visible_device_list = [gpu]
it._memory_growth_map = {{gpu: None}}
limited = tf.config.LogicalDeviceConfiguration(memory_limit=99)
it._virtual_device_map = {{gpu: [limited]}}
options = it._compute_gpu_options()
assert options.experimental.virtual_devices
print(options.per_process_gpu_memory_fraction)
"""
    ended = start(code, python=tensorflow_python)
    assert ended.stdout == "0.0\n", ended.stderr
    assert "logical devices have limits of their own" in ended.stderr


@pytest.mark.tensorflow
def test_a_tensorflow_error_for_want_of_gpu_memory_is_known(tensorflow_python):
    code = f"""{TF_QUIET}
import tensorflow as tf, gpuworkshop_out_of_memory as oom
def error(device):
    return tf.errors.ResourceExhaustedError(None, None, "OOM on device:" + device)
print(oom.is_out_of_memory(error("GPU:0")), oom.is_out_of_memory(error("CPU:0")))
print(oom.held_bytes())
"""
    assert printed(code, tensorflow_python) == "True False\n0"
