"""The import hook against the frameworks themselves, each where it is.

`make test-frameworks` gives each an environment of its own.
"""

import pytest

from .frameworks import FAKE_CUDA, TF_QUIET, python_with
from .hooked_python import start, value_of


@pytest.fixture
def torch_python() -> str:
    return python_with("torch")


@pytest.fixture
def tensorflow_python() -> str:
    return python_with("tensorflow")


@pytest.fixture
def jax_python() -> str:
    return python_with("jax")


@pytest.fixture
def onnxruntime_python() -> str:
    return python_with("onnxruntime")


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


JAX_OPTIONS = """
from jaxlib import xla_client
value = xla_client.generate_pjrt_gpu_plugin_options()
"""


@pytest.mark.jax
def test_jax_computes_as_ever_with_the_hook(jax_python):
    code = "import jax.numpy as jnp; value = float(jnp.arange(4.0).sum())"
    assert value_of(code, python=jax_python, JAX_PLATFORMS="cpu") == 6.0


@pytest.mark.jax
def test_jax_refuses_both_names_of_its_fraction(jax_python):
    # Which is why a server is given only one of them.
    both = {"XLA_CLIENT_MEM_FRACTION": "0.1", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
    ended = start(JAX_OPTIONS, python=jax_python, **both)
    assert "ValueError: XLA_CLIENT_MEM_FRACTION is specified together" in ended.stderr


@pytest.mark.jax
def test_a_jax_error_for_want_of_gpu_memory_is_known(jax_python):
    code = """
import jax, gpuworkshop_out_of_memory as oom
error = jax.errors.JaxRuntimeError
value = [oom.is_out_of_memory(error(x)) for x in ("RESOURCE_EXHAUSTED: x", "OTHER: x")]
"""
    assert value_of(code, python=jax_python) == [True, False]


@pytest.mark.onnxruntime
def test_onnx_runtime_hands_the_cap_on_and_computes_as_ever(onnxruntime_python):
    # A model of one node, y = x + x, as protobuf writes it.
    code = """
import numpy, onnxruntime
from onnxruntime.capi import onnxruntime_inference_collection as collection
def field(number, payload):
    return bytes([number << 3 | 2, len(payload)]) + payload
def tensor(name):
    dims = field(2, field(1, bytes([8, 3])))
    return field(1, name) + field(2, field(1, bytes([8, 1]) + dims))
node = field(1, b"x") + field(1, b"x") + field(2, b"y") + field(4, b"Add")
graph = field(1, node) + field(2, b"g")
graph += field(11, tensor(b"x")) + field(12, tensor(b"y"))
model = bytes([8, 8]) + field(7, graph) + field(8, bytes([16, 17]))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
(y,) = session.run(None, {"x": numpy.array([1, 2, 3], numpy.float32)})
gpu = "CUDAExecutionProvider"
given = collection.check_and_normalize_provider_args([gpu], None, [gpu])
value = [y.tolist(), given, session.get_providers()]
"""
    assert value_of(code, python=onnxruntime_python) == [
        [2.0, 4.0, 6.0],
        [["CUDAExecutionProvider"], [{"gpu_mem_limit": "4000"}]],
        ["CPUExecutionProvider"],
    ]
