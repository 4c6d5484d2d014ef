"""What all tests share: real engines, and saying what to install for one."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from .engines.docker_engine import DockerEngine, EngineTroubleError
from .engines.systemd_machine import SystemdMachine
from .hub.postgres_server import PostgresServer

_ENGINES = ("docker", "systemd")

# A run in a shell's background ignores SIGINT, and so would every server that it
# starts: stopping one would wait until something harder is sent.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The same code meets the same examples. HYPOTHESIS_PROFILE=default looks where nobody
# has looked yet: a failure that it finds becomes an @example.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Have workers begin with what needs an engine: these files take the longest."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: not any(map(item.get_closest_marker, _ENGINES)),
        )


def require_engine(name: str, present: bool, hint: str) -> None:
    """Skip a test whose engine is absent, or fail it where the engine is required.

    Args:
        name: the engine, as its marker and GPUWORKSHOP_REQUIRE (comma separated)
            name it.
        present: whether it is there.
        hint: what to install.
    """
    if present:
        return
    required = {x.strip() for x in os.environ.get("GPUWORKSHOP_REQUIRE", "").split(",")}
    message = f"needs {name}: {hint}"
    if name in required:
        pytest.fail(f"{message} (GPUWORKSHOP_REQUIRE names it)", pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a PostgreSQL server of this run's own."""
    require_engine(
        "postgres", PostgresServer.is_installed(), PostgresServer.INSTALL_HINT
    )
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """Return a Docker engine of this run's own."""
    hint = DockerEngine.INSTALL_HINT
    require_engine("docker", DockerEngine.is_installed(), hint)
    try:
        engine = DockerEngine()
    except EngineTroubleError as error:
        require_engine("docker", False, str(error))
        raise
    try:
        yield engine
    finally:
        engine.remove()


@pytest.fixture
def systemd_machine(request: pytest.FixtureRequest) -> Iterator[SystemdMachine]:
    """Return a machine whose PID 1 is systemd, of this test's own."""
    present = SystemdMachine.is_installed()
    require_engine("systemd", present, SystemdMachine.INSTALL_HINT)
    engine = request.getfixturevalue("docker_engine")
    try:
        machine = SystemdMachine(engine)
    except EngineTroubleError as error:
        require_engine("systemd", False, str(error))
        raise
    try:
        yield machine
    finally:
        machine.close()
