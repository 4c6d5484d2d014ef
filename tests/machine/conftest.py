"""The doubles of the driver's libraries, for tests in this process and in children."""

import ctypes
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from jupyterhub_gpuworkshop.machine.nvml import NvmlSource
from tests.conftest import require_engine

from . import cuda_double, nvml_double
from .nvml_double.words import Clock


def _built(tmp_path_factory: pytest.TempPathFactory, *flags: str) -> Path:
    require_engine("gcc", shutil.which("gcc") is not None, "apt install gcc libc6-dev")
    return nvml_double.build(tmp_path_factory.mktemp("nvml"), *flags)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory)


@pytest.fixture(scope="session")
def old_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory, "-DOLD_DRIVER")


@pytest.fixture
def driver(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[nvml_double.Scenario]:
    """Return the scenario of a driver that this process, or a child, talks to."""
    yield from _played(nvml_library, tmp_path, monkeypatch)


@pytest.fixture
def old_driver(
    old_nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[nvml_double.Scenario]:
    """Return the same of a driver from before the newer functions."""
    yield from _played(old_nvml_library, tmp_path, monkeypatch)


def _played(
    library: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[nvml_double.Scenario]:
    # A copy for each test: loaded on its own, it remembers nothing of the one before.
    own = folder / "driver" / library.name
    own.parent.mkdir()
    shutil.copy(library, own)
    scenario = nvml_double.Scenario(folder, own)
    for name, value in scenario.environment.items():
        if name != "LD_LIBRARY_PATH":
            monkeypatch.setenv(name, value)
    # LD_LIBRARY_PATH is read at exec, too late for this process.
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(own)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield scenario


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(driver: nvml_double.Scenario, clock: Clock) -> NvmlSource:
    """Return the source under test, over the double."""
    return NvmlSource(clock=clock)


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_engine("gcc", shutil.which("gcc") is not None, "apt install gcc libc6-dev")
    return cuda_double.build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def cuda_driver(
    cuda_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> cuda_double.CudaDriver:
    """Return the CUDA driver that children meet, which the real cuda-core calls."""
    present = (
        importlib.util.find_spec("cuda") is not None
        and importlib.util.find_spec("cuda.core") is not None
    )
    require_engine("cuda-core", present, "pip install cuda-core cuda-bindings")
    driver = cuda_double.CudaDriver(tmp_path / "cuda", cuda_library)
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    return driver
