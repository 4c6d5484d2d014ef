"""What the service's tests share."""

import pytest

from tests.machine.conftest import driver as driver
from tests.machine.conftest import nvml_library as nvml_library

from .world import World


@pytest.fixture
async def world(tmp_path):
    """Return a simulated machine with one attendee, and the service watching it."""
    made = await World(tmp_path).open()
    yield made
    await made.close()
