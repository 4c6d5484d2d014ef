"""The frameworks themselves, without a GPU: what a probe asks of them, they know."""

import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.tools.doctor.check import Status
from jupyterhub_gpuworkshop.tools.prove_caps import ProofOptions, probing, prove_caps
from jupyterhub_gpuworkshop.workshop import Workshop

_ON_THE_CPU = """
import json, runpy, sys
names = runpy.run_path(sys.argv[1])
{prepare}
framework = names[sys.argv[2]]()
probe = names["Probe"]()
probe._framework = framework
ask = lambda do, **request: probe.answer(dict(request, do=do))
answers = [
    framework.devices(),
    ask("compute"),
    ask("fill", block_bytes=2 ** 21, up_to_bytes=2 ** 23),
    ask("block", size_bytes=2 ** 45),
]
print(json.dumps(answers))
"""
_ANYWHERE = 'names["TensorFlow"]._on_gpu = staticmethod(lambda tensor: tensor)'


def on_the_cpu(python: str, adapter: str, prepare: str = "") -> list[Any]:
    """Have a framework do on the CPU what a probe has it do on a GPU."""
    code = _ON_THE_CPU.format(prepare=prepare)
    ended = subprocess.run(  # noqa: S603 - a Python, and a program of the tests
        [python, "-c", code, str(probing._PROGRAM), adapter],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout.splitlines()[-1]))


def check_on_the_cpu(answers: list[Any], refusal: str) -> None:
    devices, computed, filled, block = answers
    assert devices == 0
    assert computed["right"], computed
    assert filled == {"held_bytes": 2**23, "refused": ""}
    assert block["refused"].startswith(refusal), block


@pytest.mark.jax
def test_jax_computes_right_and_its_refusal_is_known(jax_python: str) -> None:
    answers = on_the_cpu(jax_python, "Jax")
    check_on_the_cpu(answers, "JaxRuntimeError: RESOURCE_EXHAUSTED")


@pytest.mark.tensorflow
def test_tensorflow_computes_right_and_its_refusal_is_known(
    tensorflow_python: str,
) -> None:
    answers = on_the_cpu(tensorflow_python, "TensorFlow", _ANYWHERE)
    check_on_the_cpu(answers, "ResourceExhaustedError: ")


@pytest.mark.tensorflow
def test_tensorflow_that_went_to_the_cpu_instead_is_found_out(
    tensorflow_python: str,
) -> None:
    _, computed, filled, _ = on_the_cpu(tensorflow_python, "TensorFlow")
    for answer in (computed, filled):
        assert "error" in answer, answer
        assert "device:CPU:0" in answer["error"] or "GPU:0" in answer["error"]


@pytest.mark.torch
def test_pytorch_sees_no_gpu(torch_python: str, tmp_path: Path) -> None:
    sees_none(tmp_path, torch_python, "torch")


@pytest.mark.tensorflow
def test_tensorflow_sees_no_gpu(tensorflow_python: str, tmp_path: Path) -> None:
    sees_none(tmp_path, tensorflow_python, "tensorflow")


@pytest.mark.jax
def test_jax_sees_no_gpu(jax_python: str, tmp_path: Path) -> None:
    sees_none(tmp_path, jax_python, "jax")


def sees_none(folder: Path, python: str, framework: str) -> None:
    create_devices(folder / "gpus", 1, 16 * GIB)
    where = {"source": "simulated", "simulated_dir": str(folder / "gpus")}
    options = ProofOptions(
        python=python,
        as_user=pwd.getpwuid(os.geteuid()).pw_name,
        frameworks=(framework,),
    )
    (check,) = prove_caps(Workshop.load({"gpus": where}), options)
    assert check.status is Status.WARN, check
    assert "sees no GPU" in check.finding
    assert f"Install the build of {framework}" in check.remedy
