"""JupyterLab's setting: merged with what stands there, and taken back."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces
from tljh_plugin.lab import overrides_file, set_stop_on_close

_TRACKER = "@jupyterlab/notebook-extension:tracker"


def _write(places: TljhPlaces, text: str) -> Path:
    path = overrides_file(places)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "before",
    [
        "{}",
        '{"a": {"b": 1}}',
        f'{{"{_TRACKER}": {{"codeCellConfig": {{}}}}}}',
        f'{{"{_TRACKER}": {{"kernelShutdown": false}}}}',
        f'{{"{_TRACKER}": {{"kernelShutdown": true}}}}',
    ],
)
def test_what_stands_there_stays_and_comes_back(
    places: TljhPlaces, before: str
) -> None:
    path = _write(places, before)
    places.state.mkdir(parents=True)
    for _ in range(2):  # a second start of the hub
        set_stop_on_close(True, places)
        now = json.loads(path.read_text())
        assert now[_TRACKER]["kernelShutdown"] is True
    for _ in range(2):
        set_stop_on_close(False, places)
    assert json.loads(path.read_text()) == json.loads(before)


def test_where_there_was_no_file_there_is_none_afterwards(places: TljhPlaces) -> None:
    set_stop_on_close(True, places)
    assert overrides_file(places).exists()
    set_stop_on_close(False, places)
    assert not overrides_file(places).exists()


def test_what_was_changed_in_between_is_the_organisers(places: TljhPlaces) -> None:
    set_stop_on_close(True, places)
    path = _write(places, f'{{"{_TRACKER}": {{"kernelShutdown": false}}}}')
    set_stop_on_close(False, places)
    assert json.loads(path.read_text()) == {_TRACKER: {"kernelShutdown": False}}


@pytest.mark.parametrize("text", ["// mine\n{}", "[]", f'{{"{_TRACKER}": 1}}'])
def test_a_file_that_is_not_plain_json_is_left_alone(
    places: TljhPlaces, text: str
) -> None:
    path = _write(places, text)
    with pytest.raises(HostError, match="left as it is"):
        set_stop_on_close(True, places)
    assert path.read_text() == text


def test_jupyterlab_itself_takes_it_for_its_default(
    places: TljhPlaces, tmp_path: Path
) -> None:
    from jupyterlab_server.settings_utils import _get_overrides, get_settings

    schemas = Path(sys.prefix, "share/jupyter/lab/schemas")
    shutil.copytree(
        schemas / "@jupyterlab/notebook-extension",
        tmp_path / "schemas/@jupyterlab/notebook-extension",
    )
    set_stop_on_close(True, places)
    overrides, errors = _get_overrides(str(overrides_file(places).parent))
    assert not errors
    found, _ = get_settings(
        str(overrides_file(places).parent),
        str(tmp_path / "schemas"),
        str(tmp_path / "user"),
        schema_name=_TRACKER,
        overrides=overrides,
    )
    assert found["schema"]["properties"]["kernelShutdown"]["default"] is True
