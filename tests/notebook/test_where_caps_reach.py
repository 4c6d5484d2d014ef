"""From a lease to the real frameworks: in kernels, terminals and subprocesses.

The environment is the one that a server with the lease is given, hook and all.
"""

import importlib.util
import json
import os
import pty
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.caps import apply_lease, cap_bytes, cap_fraction
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.hub.memory_hook import with_memory_hook
from tests.conftest import require_engine

from .frameworks import CAP_OF, OUT_OF_MEMORY, python_with

FRAMEWORKS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in CAP_OF]
LEASE = Lease(
    id="l",
    user="ada",
    server="",
    share="1/5",
    granted_at=0.0,
    hook=True,
    devices=(
        LeasedDevice(
            uuid="GPU-8f6d1c1e",
            label="0",
            memory_bytes=16 * GIB,
            total_bytes=80 * GIB,
            context_bytes=704 * MIB,
        ),
    ),
)
CAPS = {name: cap_fraction(LEASE) for name in CAP_OF}
CAPS["onnxruntime"] = cap_bytes(LEASE)

Environment = Mapping[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return the environment of a server with the lease."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPUWORKSHOP_", "CUDA_", "PYTHON", "COV_", "XLA_"))
    }
    admin: dict[str, str] = {}
    applied = apply_lease(kept, LEASE, admin=admin).variables
    return with_memory_hook({**applied, "IPYTHONDIR": str(tmp_path)}, "")


# -- where attendees run programs


@contextmanager
def kernel(python: str, environment: Environment, folder: Path) -> Iterator[Any]:
    """Start a kernel of a Python as a server starts it; its client comes back."""
    require_engine(
        "lab",
        importlib.util.find_spec("jupyter_client") is not None,
        "pip install '.[demo]'",
    )
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    spec = folder / "kernels/attendee/kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Attendee"}))
    manager = KernelManager(
        kernel_name="attendee",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(spec.parent.parent)]),
    )
    with ExitStack() as stack:
        log = stack.enter_context((folder / "kernel.log").open("w"))
        manager.start_kernel(env=dict(environment), stdout=log, stderr=log)
        stack.callback(manager.cleanup_resources)
        stack.callback(manager.shutdown_kernel, now=True)
        client = manager.blocking_client()
        client.start_channels()
        stack.callback(client.stop_channels)
        client.wait_for_ready(timeout=120)
        yield client


def run_cell(client: Any, code: str) -> tuple[str, list[str]]:
    """Run a cell; return what it printed, and the lines of its error."""
    printed: list[str] = []
    error: list[str] = []

    def keep(message: Mapping[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
        elif message["msg_type"] == "error":
            error.extend(content["traceback"])

    client.execute_interactive(code, timeout=300, output_hook=keep)
    return "".join(printed), error


def in_a_kernel(python: str, code: str, environment: Environment, folder: Path) -> str:
    """Return what a program prints in a notebook's cell."""
    with kernel(python, environment, folder) as client:
        printed, error = run_cell(client, code)
    return printed + "\n".join(error)


def in_a_terminal(
    python: str, code: str, environment: Environment, folder: Path
) -> str:
    """Return what a program prints that is started by hand in a shell on a terminal."""
    program = folder / "program.py"
    program.write_text(code)
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["/bin/sh"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(environment),
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, f"{shlex.quote(python)} {program}; exit\n".encode())
    shown = b""
    try:
        while more := os.read(ours, 65536):
            shown += more
    except OSError:
        pass  # the shell has gone, and the terminal with it
    shell.wait()
    os.close(ours)
    return shown.decode(errors="replace")


def in_a_subprocess(
    python: str, code: str, environment: Environment, folder: Path
) -> str:
    """Return what a program prints that another Python starts."""
    parent = (
        "import subprocess, sys\n"
        f"child = [sys.executable, '-c', {code!r}]\n"
        "print(subprocess.run(child, capture_output=True, text=True))"
    )
    return in_a_kernel(python, parent, environment, folder)


PLACES = [in_a_kernel, in_a_terminal, in_a_subprocess]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_is_capped_wherever_it_is_run(
    framework: str,
    place: Callable[[str, str, Environment, Path], str],
    environment: Environment,
    tmp_path: Path,
):
    python = python_with(framework)
    shown = place(
        python, f"{CAP_OF[framework]}\nprint(f'<{{cap}}>')", environment, tmp_path
    )
    found = re.findall(r"<([0-9.]+)>", shown)
    assert [float(x) for x in found] == pytest.approx([CAPS[framework]]), shown


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_a_lease_no_framework_is_capped(
    framework: str, environment: Environment, tmp_path: Path
):
    # The test above must be able to fail.
    ours = ("GPUWORKSHOP_", "XLA_", "PYTHONPATH")
    bare = {k: v for k, v in environment.items() if not k.startswith(ours)}
    code = f"{CAP_OF[framework]}\nprint(f'<{{cap}}>')"
    shown = in_a_terminal(python_with(framework), code, bare, tmp_path)
    # TensorFlow says 0 for no limit; the others have nothing to say.
    assert re.findall(r"<([0-9.]+)>", shown) in ([], ["0.0"])
    assert "Error" in shown or framework == "tensorflow"


@pytest.mark.parametrize(
    "framework",
    [pytest.param(name, marks=getattr(pytest.mark, name)) for name in OUT_OF_MEMORY],
)
def test_a_full_gpu_in_a_notebook_ends_with_what_to_do(
    framework: str, environment: Environment, tmp_path: Path
):
    page = {"GPUWORKSHOP_PAGE": "/services/gpuworkshop/"}
    with kernel(python_with(framework), {**environment, **page}, tmp_path) as client:
        _, error = run_cell(client, OUT_OF_MEMORY[framework])
        assert error[-1] == (
            "GPU memory: your share is 16.0 GiB (1/5); free more by shutting down "
            "kernels you no longer use: /services/gpuworkshop/ shows yours."
        )
        _, error = run_cell(client, "1 / 0")
        assert "ZeroDivisionError" in error[-1]
