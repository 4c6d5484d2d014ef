"""The line under an out-of-memory error, in real kernels and in the shell alone."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from tests.conftest import require_engine
from tests.simulated_kernel import ROOT

from .hooked_python import start, value_of

SIMCUDA = "from jupyterhub_gpuworkshop.notebook import simcuda\n"
LINE = (
    "GPU memory: your share is 1.0 GiB (1/4); this process holds 512.0 MiB, CUDA's own "
    "not counted; free more by shutting down kernels you no longer use: "
    "/services/gpuworkshop/ shows yours."
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    create_devices(tmp_path / "gpus", 1, 4 * GIB)
    return {
        "GPUWORKSHOP_SIMULATED_GPUS": str(tmp_path / "gpus"),
        "GPUWORKSHOP_SHARE": "1/4",
        "GPUWORKSHOP_MEMORY_LIMIT_BYTES": str(GIB),
        "GPUWORKSHOP_PAGE": "/services/gpuworkshop/",
    }


Run = Callable[[str], list[str]]


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Iterator[Run]:
    """Run cells in a kernel; returns the traceback of each."""
    require_engine(
        "lab",
        importlib.util.find_spec("ipykernel") is not None,
        "pip install '.[demo]'",
    )
    from jupyter_client.manager import KernelManager

    env = {**os.environ, **environment, "IPYTHONDIR": str(tmp_path)}
    manager = KernelManager(kernel_name="python3")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("w"))
        path = os.pathsep.join([str(FOLDER), str(ROOT)])
        manager.start_kernel(env={**env, "PYTHONPATH": path}, stdout=log, stderr=log)
        stack.callback(manager.cleanup_resources)
        stack.callback(manager.shutdown_kernel, now=True)
        client = manager.blocking_client()
        client.start_channels()
        stack.callback(client.stop_channels)
        client.wait_for_ready(timeout=60)

        def run_cell(code: str) -> list[str]:
            shown: list[str] = []

            def keep(message):
                if message["msg_type"] == "error":
                    shown.extend(message["content"]["traceback"])

            reply = client.execute_interactive(code, timeout=60, output_hook=keep)
            # What nbconvert keeps, and what the page shows.
            assert reply["content"].get("traceback", []) == shown
            return shown

        yield run_cell


def test_an_out_of_memory_error_in_a_notebook_ends_with_what_to_do(run: Run):
    assert run(f"{SIMCUDA}kept = simcuda.allocate('512MiB')") == []
    shown = run("simcuda.allocate('3GiB')")
    assert shown[-1] == LINE
    assert "Out of memory on GPU 0" in shown[-2]
    # Every time, through another error too, and under no other error.
    assert run("simcuda.allocate('3GiB')")[-1] == LINE
    wrapped = "try:\n    simcuda.allocate('3GiB')\nexcept MemoryError as error:\n"
    assert run(f"{wrapped}    raise ValueError('batch') from error")[-1] == LINE
    for code in ("1 / 0", "raise MemoryError()", "raise RuntimeError('x')", "1 +"):
        assert run(code)
        assert "GPU memory" not in "".join(run(code))


def test_it_stands_in_ipythons_own_shell_too(environment: dict[str, str]):
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
{SIMCUDA}
shell = InteractiveShell.instance(colors="nocolor")
shell.run_cell("from jupyterhub_gpuworkshop.notebook import simcuda")
shell.run_cell("kept = simcuda.allocate('512MiB')")
shell.run_cell("simcuda.allocate('3GiB')")
shell.run_cell("1 / 0")
"""
    ended = start(code, ROOT, **environment)
    assert ended.stdout.count("GPU memory") == 1, ended.stdout + ended.stderr
    assert ended.stdout.split("GPU memory")[1].startswith(LINE.split("GPU memory")[1])


ERRORS = [
    ("torch", "OutOfMemoryError", "RuntimeError", "CUDA out of memory.", True),
    ("torch.cuda", "OutOfMemoryError", "RuntimeError", "CUDA out of memory.", True),
    ("builtins", "RuntimeError", "Exception", "CUDA out of memory. Tried", True),
    ("builtins", "RuntimeError", "Exception", "shapes differ", False),
    ("cupy.cuda.memory", "OutOfMemoryError", "MemoryError", "Out of memory", True),
    (
        "tensorflow.python.framework.errors_impl",
        "ResourceExhaustedError",
        "Exception",
        "OOM when allocating tensor on /device:GPU:0 by allocator GPU_0_bfc",
        True,
    ),
    (
        "tensorflow.python.framework.errors_impl",
        "ResourceExhaustedError",
        "Exception",
        "OOM when allocating tensor on /device:CPU:0 by allocator cpu",
        False,
    ),
    ("jaxlib._jax", "XlaRuntimeError", "RuntimeError", "RESOURCE_EXHAUSTED: x", True),
    ("jaxlib._jax", "XlaRuntimeError", "RuntimeError", "INTERNAL: x", False),
    ("jax.errors", "JaxRuntimeError", "RuntimeError", "RESOURCE_EXHAUSTED: x", True),
    ("theirs", "OutOfMemoryError", "Exception", "out of memory", False),
    ("builtins", "MemoryError", "Exception", "", False),
]


@pytest.mark.parametrize(("module", "name", "base", "text", "expected"), ERRORS)
def test_which_errors_mean_that_a_gpu_is_full(module, name, base, text, expected):
    code = f"""
import builtins, gpuworkshop_out_of_memory as oom
kind = getattr(builtins, {name!r}, None) if {module!r} == "builtins" else None
kind = kind or type({name!r}, ({base},), {{"__module__": {module!r}}})
class Theirs(kind): pass
value = [oom.is_out_of_memory(x({text!r})) for x in (kind, Theirs)]
value += [oom.is_out_of_memory(None), oom.explained(kind({text!r}), "text")]
"""
    assert value_of(code) == [expected, expected, False, "text"]


def test_the_line_says_no_more_than_is_known():
    code = "import gpuworkshop_out_of_memory as oom; value = oom.line()"
    rest = "free more by shutting down kernels you no longer use"
    unknown = {"GPUWORKSHOP_SHARE": "", "GPUWORKSHOP_MEMORY_LIMIT_BYTES": ""}
    assert value_of(code, **unknown) == f"GPU memory: {rest}."
    limit = str(512 * MIB)
    for share, said in (("1/8", "512.0 MiB (1/8)"), ("512MiB", "512.0 MiB")):
        given = {"GPUWORKSHOP_SHARE": share, "GPUWORKSHOP_MEMORY_LIMIT_BYTES": limit}
        expected = f"GPU memory: your share is {said}; {rest}."
        assert value_of(code, **given) == expected


COUNTS = """
import sys, types
def space(**given): return types.SimpleNamespace(**given)
def fail(): raise OSError("the driver is lost")
gib = 2**30
cuda = space(is_initialized=lambda: True, device_count=lambda: 2,
             memory_reserved=lambda d: [3, 1][d] * gib)
info = space(get_memory_info=lambda n: {"GPU:0": {"current": 2 * gib}}[n])
config = space(list_logical_devices=lambda kind: [space(name="/device:GPU:0")],
               experimental=info)
pool = space(total_bytes=lambda: gib // 2)
sys.modules["torch"] = space(cuda=cuda)
sys.modules["tensorflow"] = space(config=config)
sys.modules["cupy"] = space(get_default_memory_pool=lambda: pool)
import gpuworkshop_out_of_memory as oom
value = [oom.held_bytes() / gib]
cuda.is_initialized = fail
value.append(oom.held_bytes() / gib)
"""


def test_what_a_process_holds_is_the_sum_of_what_its_frameworks_count():
    assert value_of(COUNTS) == [6.5, 2.5]


def test_an_explanation_that_fails_leaves_the_error_as_it_is(tmp_path: Path):
    folder = tmp_path / "hook"
    shutil.copytree(FOLDER, folder)
    (folder / "gpuworkshop_out_of_memory.py").write_text("explained = None\n")
    code = """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance(colors="nocolor").run_cell("1 / 0")
"""
    ended = start(code, hook=folder)
    assert "ZeroDivisionError: division by zero" in ended.stdout
    assert "gpuworkshop: an error is shown as it is: TypeError" in ended.stderr
