"""What the driver does wrong, and what becomes of the process then."""

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.machine.driver_parking import DriverParker
from jupyterhub_gpuworkshop.machine.parking import ParkState
from jupyterhub_gpuworkshop.machine.processes import read_process

from .cuda_double import (
    CHECKPOINT,
    CHECKPOINTED,
    CHECKPOINTING,
    GET_STATE,
    LOCK,
    LOCKED,
    NOT_READY,
    NOT_SUPPORTED,
    RESTORE,
    RUNNING,
    UNLOCK,
    CudaDriver,
)


@pytest.fixture
def process() -> Iterator[ProcessId]:
    """Return some process; whether it uses CUDA is the driver's to say."""
    child = subprocess.Popen(["sleep", "1000"])  # noqa: S607 - any process
    facts = read_process(child.pid, with_details=False)
    assert facts is not None
    yield ProcessId(pid=child.pid, started=facts.started)
    child.kill()
    child.wait()


@pytest.fixture
def user(cuda_driver: CudaDriver, process: ProcessId) -> ProcessId:
    """Return a process that uses CUDA."""
    cuda_driver.put(process.pid, RUNNING)
    return process


def refused(parker: DriverParker, process: ProcessId, move: str = "park") -> ParkError:
    with pytest.raises(ParkError) as caught:
        getattr(parker, move)(process, 0)
    return caught.value


@pytest.mark.gcc
def test_a_process_whose_gpu_works_on_is_let_go(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"fail {LOCK} {NOT_READY}", f"leave {LOCK} {LOCKED}")
    error = refused(DriverParker(), user)
    assert "did not come to rest" in str(error)
    assert not error.broken
    assert cuda_driver.calls == [LOCK, UNLOCK]
    assert cuda_driver.state(user.pid) == RUNNING


@pytest.mark.gcc
def test_memory_that_cannot_be_moved_is_told_from_an_old_driver(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"fail {CHECKPOINT} {NOT_SUPPORTED}")
    assert "managed, or shared" in str(refused(DriverParker(), user))


@pytest.mark.gcc
def test_a_driver_that_claims_to_have_parked_is_not_believed(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"done {CHECKPOINT}")
    error = refused(DriverParker(), user)
    assert "it says done, but the process is locked" in str(error)
    assert not error.broken
    assert cuda_driver.state(user.pid) == RUNNING


@pytest.mark.gcc
def test_what_was_parked_despite_an_error_is_brought_back(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"fail {CHECKPOINT} 999", f"leave {CHECKPOINT} {CHECKPOINTED}")
    assert not refused(DriverParker(), user).broken
    assert cuda_driver.calls == [LOCK, CHECKPOINT, RESTORE, UNLOCK]


@pytest.mark.gcc
def test_a_process_that_the_driver_kills_has_ended(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"end {LOCK}")
    error = refused(DriverParker(), user)
    assert str(error) == f"Process {user.pid} has ended."
    assert error.broken
    assert cuda_driver.calls == [LOCK]


@pytest.mark.gcc
def test_a_process_without_cuda_is_left_alone(
    cuda_driver: CudaDriver, process: ProcessId
) -> None:
    error = refused(DriverParker(), process)
    assert "does not use CUDA" in str(error)
    assert not error.broken
    with pytest.raises(ParkError, match="does not use CUDA"):
        DriverParker().state(process)
    assert LOCK not in cuda_driver.calls


@pytest.mark.gcc
def test_what_is_on_its_way_is_waited_for(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.put(user.pid, CHECKPOINTING)
    assert DriverParker().state(user) is ParkState.MOVING
    cuda_driver.say(f"settle {CHECKPOINTED}")
    DriverParker().unpark(user)
    assert cuda_driver.state(user.pid) == RUNNING


@pytest.mark.gcc
def test_a_restore_that_somebody_else_did_is_not_a_failure(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.put(user.pid, CHECKPOINTED)
    cuda_driver.say(f"fail {RESTORE} 401", f"leave {RESTORE} {LOCKED}")
    DriverParker().unpark(user)
    assert cuda_driver.state(user.pid) == RUNNING


@pytest.mark.gcc
def test_an_unlock_that_fails_can_be_tried_again(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.put(user.pid, CHECKPOINTED)
    cuda_driver.say(f"fail {UNLOCK} 999")
    assert not refused(DriverParker(), user, "unpark").broken
    cuda_driver.unsay("fail")
    DriverParker().unpark(user)
    assert cuda_driver.state(user.pid) == RUNNING


@pytest.mark.gcc
def test_cuda_is_initialised_for_a_driver_that_wants_it_only(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    DriverParker().park(user)
    assert cuda_driver.calls == [LOCK, CHECKPOINT]
    cuda_driver.say("init")
    DriverParker().unpark(user)
    assert cuda_driver.calls[2:] == ["cuInit", RESTORE, UNLOCK]


@pytest.mark.gcc
def test_a_child_that_hangs_is_killed_and_what_it_did_is_asked_for(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"hang {CHECKPOINT}")
    DriverParker(patience_seconds=3, lock_seconds=0.1).park(user, 0)
    assert cuda_driver.state(user.pid) == CHECKPOINTED


@pytest.mark.gcc
def test_a_child_that_breaks_leaves_no_process_locked(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"crash {CHECKPOINT}")
    error = refused(DriverParker(), user)
    assert "ended with -6" in str(error)
    assert f"Process {user.pid} is running now" in str(error)
    assert not error.broken
    assert cuda_driver.calls == [LOCK, CHECKPOINT, UNLOCK]


@pytest.mark.gcc
def test_a_driver_that_never_comes_back_says_nothing_of_the_process(
    cuda_driver: CudaDriver, user: ProcessId
) -> None:
    cuda_driver.say(f"hang {GET_STATE}")
    error = refused(DriverParker(patience_seconds=1, lock_seconds=0), user, "unpark")
    assert "Nor is it known what became of it" in str(error)
    assert not error.broken


@pytest.mark.gcc
def test_an_old_driver_parks_nothing(cuda_driver: CudaDriver) -> None:
    cuda_driver.say("version 12040")
    assert "driver 570 or later" in DriverParker().unavailable()
    assert "CUDA 12.4" in DriverParker().unavailable()


def test_without_cuda_core_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "pip install 'jupyterhub-gpuworkshop[park]'" in DriverParker().unavailable()


def test_other_machines_park_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in DriverParker().unavailable()


def test_another_users_process_is_not_touched(
    monkeypatch: pytest.MonkeyPatch, process: ProcessId
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    error = refused(DriverParker(), process)
    assert "only root can park it" in str(error)
    assert not error.broken


def test_whoever_parks_does_not_load_cuda() -> None:
    code = (
        "import sys; from jupyterhub_gpuworkshop.machine.parking import open_parker;"
        "open_parker('nvml').unavailable();"
        "sys.exit(any(m.startswith('cuda.') for m in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=False).returncode == 0  # noqa: S603 - our own


def test_a_child_that_cannot_be_started_has_done_nothing(
    monkeypatch: pytest.MonkeyPatch, process: ProcessId
) -> None:
    def no_memory(*_given: object, **_named: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    error = refused(DriverParker(), process)
    assert "temporarily unavailable" in str(error)
    assert not error.broken
