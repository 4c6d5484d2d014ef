"""What all tests share: real engines, and saying what to install for one."""

import os
from collections.abc import Iterator

import pytest

from .hub.postgres_server import PostgresServer


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
