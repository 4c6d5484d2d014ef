"""Places of a TLJH that is a folder."""

from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces


@pytest.fixture
def places(tmp_path: Path) -> TljhPlaces:
    """Return the places of an installation of this test's own."""
    made = TljhPlaces(
        prefix=tmp_path / "tljh", commands=tmp_path / "bin", units=tmp_path / "units"
    )
    for folder in (made.config_file.parent, made.commands, made.units):
        folder.mkdir(parents=True)
    return made
