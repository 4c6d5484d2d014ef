"""The doctor on The Littlest JupyterHub: it reads, and leaves everything as it is."""

from pathlib import Path
from typing import Any

import pytest
from systemdspawner import SystemdSpawner
from traitlets.config import Config

from jupyterhub_gpuworkshop.hub.setup import ONLY_READ
from jupyterhub_gpuworkshop.tools.doctor import workshop as judging
from jupyterhub_gpuworkshop.tools.doctor.check import Status
from jupyterhub_gpuworkshop.tools.doctor.reading.hub_facts import HubFacts
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces
from tests.tljh_plugin.conftest import places as places
from tljh_plugin import hub_config, service_unit


def _everything_below(folder: Path) -> dict[Path, bytes]:
    return {x: x.read_bytes() if x.is_file() else b"" for x in folder.rglob("*")}


def test_who_only_reads_the_configuration_leaves_unit_secrets_and_settings_alone(
    places: TljhPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_systemctl(*arguments: str, **_: Any) -> str:
        pytest.fail(f"systemctl {arguments} was called")

    monkeypatch.setattr(service_unit, "systemctl", no_systemctl)
    monkeypatch.setenv(ONLY_READ, "1")
    places.config_file.write_text("gpuworkshop: {kernels: {stop_on_close: true}}")
    before = _everything_below(tmp_path)
    c: Any = Config()
    c.JupyterHub.spawner_class = SystemdSpawner
    hub_config.apply(c, places)
    assert _everything_below(tmp_path) == before
    assert "service_url" in c.GpuRuntime
    assert not c.JupyterHub.get("template_vars")


def test_a_mistake_that_the_hub_goes_on_without_is_told_all_the_same(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.config_file.write_text("gpuworkshop: {attendees: 12, idel: {after: 3 h}}")
    monkeypatch.setattr(judging, "host_workshop", lambda: places.workshop)
    hub = HubFacts(file="/opt/tljh/x.py", workshop={"attendees": 12})
    given = judging.find_workshop(None, hub)
    assert given.workshop.attendees == 12
    check = judging.judge_file(given)
    assert check.status is Status.FAIL
    assert "idel" in check.finding
    assert "sudoedit" in check.remedy
    places.config_file.write_text("gpuworkshop: {attendees: 12}")
    assert judging.judge_file(judging.find_workshop(None, hub)).status is Status.OK


def test_a_workshop_that_cannot_be_read_any_more_ends_no_check(
    places: TljhPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "host_workshop", lambda: places.workshop)
    hub = HubFacts(file="/opt/tljh/x.py", workshop=str(tmp_path / "gone.yaml"))
    given = judging.find_workshop(None, hub)
    assert "gone.yaml" in judging.judge_file(given).finding
