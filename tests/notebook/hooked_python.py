"""Pythons that start with the import hook, as those of a server with a lease do."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


@cache
def find_python(version: str) -> str | None:
    """Return a Python of this version that works, from pyenv or the PATH."""
    known = Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python")
    on_path = shutil.which(f"python{version}")
    for python in [*map(str, sorted(known)), *([on_path] if on_path else [])]:
        # pyenv puts names on the PATH that may only say that they are none.
        tried = subprocess.run([python, "-c", ""], capture_output=True)  # noqa: S603 - a Python
        if tried.returncode == 0:
            return python
    return None


def python_or_skip(version: str) -> str:
    """Return a Python of this version, or skip the test."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version}: install it, on the PATH or by pyenv")
    return python


def start(
    code: str,
    *folders: Path,
    python: str = sys.executable,
    options: tuple[str, ...] = (),
    hook: Path = FOLDER,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Args:
        code: the program.
        folders: what stands on PYTHONPATH behind the hook.
        python: which Python.
        options: of Python.
        hook: the folder of the hook.
        environment: more variables.
    """
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("GPUWORKSHOP_", "CUDA_", "PYTHON", "COV_"))
    }
    return subprocess.run(  # noqa: S603 - a Python, and a program of the tests
        [python, *options, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, [hook, *folders])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GPUWORKSHOP_DEBUG": "1",
            "GPUWORKSHOP_MEMORY_FRACTION": "0.25",
            "GPUWORKSHOP_MEMORY_CAP_BYTES": "4000",
            "GPUWORKSHOP_MEMORY_LIMIT_BYTES": str(2**34),
            "GPUWORKSHOP_SHARE": "1/5",
            **environment,
        },
    )


def value_of(code: str, *folders: Path, **options: Any) -> Any:
    """Run a program that says nothing, and return its `value`."""
    program = f"{code}\nimport json\nprint(json.dumps(value))\n"
    ended = start(program, *folders, **options)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
