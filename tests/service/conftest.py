"""What the service's tests share."""

import pytest

from jupyterhub_gpuworkshop.machine.process_reader import ProcessReader
from jupyterhub_gpuworkshop.service import host
from tests.machine.conftest import driver as driver
from tests.machine.conftest import nvml_library as nvml_library

from .world import World


@pytest.fixture
async def world(tmp_path):
    """Return a simulated machine with one attendee, and the service watching it."""
    made = await World(tmp_path).open()
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def _files_of_processes_are_closed(monkeypatch):
    """Close what each service of a test keeps open: some files for each process.

    One service lives as long as its process; a hundred of them would add up until
    Python happens to collect them.
    """
    made = []

    class Noted(ProcessReader):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(host, "ProcessReader", Noted)
    yield
    for reader in made:
        reader.close()
