"""The frameworks themselves, on a real NVIDIA GPU that nobody uses."""

import importlib.util
import logging
import os
import pwd
import sys

import pytest

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.machine.source import open_source
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.prove_caps import ProofOptions, prove_caps
from jupyterhub_gpuworkshop.tools.prove_caps.reading import read_devices
from jupyterhub_gpuworkshop.workshop import Workshop
from tests.conftest import require_engine

pytestmark = pytest.mark.gpu

_LOG = logging.getLogger(__name__)
_WORKSHOP = Workshop.load({"gpus": {"attendees_per_gpu": 8}})


def look() -> Inventory:
    source = open_source("nvml")
    try:
        return source.inventory()
    except SourceError:
        return Inventory()
    finally:
        source.close()


@pytest.fixture
def free_bytes() -> int:
    """Return what is free on all devices before the proof."""
    require_engine("gpu", bool(look().devices), "run on a machine with an NVIDIA GPU")
    return sum(x.memory_free_bytes for x in read_devices(_WORKSHOP).samples)


def prove(framework: str) -> Check:
    options = ProofOptions(
        python=sys.executable,
        as_user=pwd.getpwuid(os.geteuid()).pw_name,
        frameworks=(framework,),
    )
    (check,) = prove_caps(_WORKSHOP, options)
    _LOG.info("%s", check)
    return check


@pytest.mark.parametrize(
    ("framework", "verdict"),
    [
        ("torch", "soft: holds until unset"),
        ("tensorflow", "soft: holds until unset"),
        ("jax", "soft: holds until unset"),
        ("cupy", "soft: holds until unset"),
        ("cudf", "does not hold"),
    ],
)
def test_a_framework_proves_what_the_reference_says_of_it(
    free_bytes: int, framework: str, verdict: str
) -> None:
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"install {framework} with CUDA")
    check = prove(framework)
    assert check.finding.startswith(f"{verdict}: {framework} "), check
    assert "Two attendees at once got" in check.finding, check
    assert check.status is not Status.FAIL, check
    left = sum(x.memory_free_bytes for x in read_devices(_WORKSHOP).samples)
    assert left >= free_bytes - 2**28
