"""What the plugin sets in the hub's configuration, and that nothing of it raises."""

import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.spawner import LocalProcessSpawner
from systemdspawner import SystemdSpawner
from traitlets.config import Config

from jupyterhub_gpuworkshop.core.errors import HostError, ShareRefused
from jupyterhub_gpuworkshop.hub.spawners.local import GpuLocalMixin
from jupyterhub_gpuworkshop.hub.spawners.systemd import GpuSystemdMixin
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces
from jupyterhub_gpuworkshop.workshop import Workshop
from tljh_plugin import hub_config, service_unit
from tljh_plugin.culling import outlast_idle_rules
from tljh_plugin.notices import announce
from tljh_plugin.settings import read_settings

_ADMIN = SimpleNamespace(admin=True)
_ATTENDEE = SimpleNamespace(admin=False)


class UserCreatingSpawner(SystemdSpawner):
    """Stands where TLJH's own does."""


def _tljh_config() -> Any:
    """Return a configuration as TLJH has made it when it asks its plugins."""
    c = Config()
    c.JupyterHub.spawner_class = UserCreatingSpawner
    c.JupyterHub.base_url = "/gpu"
    c.JupyterHub.hub_port = 15001
    c.JupyterHub.services = [
        {"name": "cull-idle", "admin": True, "command": ["x", "--timeout=600"]}
    ]
    return c


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return what systemd is asked, which answers that the unit is enabled."""
    asked: list[tuple[str, ...]] = []

    def answer(*arguments: str, check: bool = True) -> str:
        asked.append(arguments)
        return "enabled"

    monkeypatch.setattr(service_unit, "systemctl", answer)
    return asked


def _applied(places: TljhPlaces, text: str = "") -> Any:
    places.config_file.write_text(text)
    c = _tljh_config()
    hub_config.apply(c, places)
    return c


def _announced(c: Any, user: Any) -> str:
    variables = c.JupyterHub.get("template_vars", {})
    return variables["announcement"](user) if variables else ""


@pytest.mark.usefixtures("systemctl")
def test_the_hub_keeps_the_homes_where_commands_look_for_them(
    places: TljhPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # TLJH's hub runs in a folder of its own
    for text in ("", "gpuworkshop: {attendees: 8}", "gpuworkshop: {attendees: soon}"):
        given = _applied(places, text).GpuRuntime.workshop
        roster = Workshop.load(given).roster_file(given)
        assert roster == Workshop().roster_file(places.workshop)
    given = _applied(places, "gpuworkshop: {roster: {file: my.json}}").GpuRuntime
    mine = Workshop.load(given.workshop).roster_file(given.workshop)
    assert mine == places.config_file.parent / "my.json"


@pytest.mark.usefixtures("systemctl")
def test_tljhs_own_spawner_gets_the_mixin_leftmost(places: TljhPlaces) -> None:
    spawner = _applied(places).JupyterHub.spawner_class
    assert issubclass(spawner, UserCreatingSpawner)
    assert spawner.__mro__[1] is GpuSystemdMixin


def test_another_spawner_gets_the_mixin_of_its_kind() -> None:
    from tljh_plugin.spawner import with_shares

    c = Config()
    c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
    made = with_shares(c)
    assert issubclass(made, LocalProcessSpawner)
    assert issubclass(made, GpuLocalMixin)
    c.JupyterHub.spawner_class = made
    assert with_shares(c) is made


@pytest.mark.usefixtures("systemctl")
def test_the_service_is_external_with_secrets_that_are_roots_alone(
    places: TljhPlaces,
) -> None:
    c = _applied(places)
    (_, service) = c.JupyterHub.services
    assert service["display"]
    assert "command" not in service
    for file in (places.secret_file, places.environment_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert service["api_token"] in places.secret_file.read_text()
    told = places.environment_file.read_text()
    assert "JUPYTERHUB_API_URL=http://127.0.0.1:15001/gpu/hub/api\n" in told
    assert "JUPYTERHUB_SERVICE_PREFIX=/gpu/services/gpuworkshop/\n" in told
    assert service["api_token"] not in told


def test_the_unit_is_restarted_where_something_changed_and_only_there(
    places: TljhPlaces, systemctl: list[tuple[str, ...]]
) -> None:
    _applied(places)
    assert ("daemon-reload",) in systemctl
    assert ("enable", "--quiet", "gpuworkshop.service") in systemctl
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")
    systemctl.clear()
    _applied(places, "gpuworkshop: {idle: {after: 3 h}}")
    assert systemctl[-1] == ("start", "--no-block", "gpuworkshop.service")
    assert ("daemon-reload",) not in systemctl
    _applied(places, "gpuworkshop: {service: {name: gpus}}")
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")
    places.secret_file.unlink()
    _applied(places, "gpuworkshop: {service: {name: gpus}}")
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")
    _applied(places, "gpuworkshop: {service: {name: gpus}, monitor: {interval: 2s}}")
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")
    _applied(places, "gpuworkshop: {material: {archives: /srv/work}}")
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")
    _applied(places, "gpuworkshop: {material: {archives: /srv/others}}")
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")
    _applied(places, "gpuworkshop: {history: {keep_days: 3}}")
    assert systemctl[-1] == ("restart", "--no-block", "gpuworkshop.service")


def test_a_mistake_does_not_restart_a_service_that_could_not_start_again(
    places: TljhPlaces, systemctl: list[tuple[str, ...]]
) -> None:
    _applied(places, "gpuworkshop: {monitor: {interval: 2s}}")
    before = places.environment_file.read_text()
    _applied(places, "gpuworkshop: {monitor: {interval: 2}}")
    assert systemctl[-1] == ("start", "--no-block", "gpuworkshop.service")
    assert places.environment_file.read_text() == before


def test_who_disabled_the_unit_is_believed(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def answer(*arguments: str, check: bool = True) -> str:
        asked.append(arguments)
        return "disabled"

    _applied(places)
    monkeypatch.setattr(service_unit, "systemctl", answer)
    _applied(places, "gpuworkshop: {service: {name: gpus}}")
    assert not [each for each in asked if each[0] in ("enable", "start", "restart")]


@pytest.mark.usefixtures("systemctl")
def test_a_unit_of_the_organisers_own_is_left_alone_and_told(
    places: TljhPlaces,
) -> None:
    own = places.units / "gpuworkshop.service"
    own.write_text("[Service]\nExecStart=/bin/true\n")
    c = _applied(places)
    assert own.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert "is not a file that gpuworkshop wrote" in _announced(c, _ADMIN)
    assert "share" not in c[c.JupyterHub.spawner_class.__name__], "shares go on"


def test_without_systemd_the_hub_comes_up_and_says_so(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: str, check: bool = True) -> str:
        raise HostError("systemd does not run on this machine")

    monkeypatch.setattr(service_unit, "systemctl", refuse)
    assert "systemd does not run" in _announced(_applied(places), _ADMIN)


@pytest.mark.parametrize(
    "text",
    [
        "gpuworkshop: {idle: {after: soon}}",
        "gpuworkshop: [1, 2]",
        "gpuworkshop: {gpuz: {}}",
        "gpuworkshop: {a: 1, a: 2}",
        "[1, 2",
        "gpuworkshop: {gpus: {source: 2026-99-99}}",
    ],
)
@pytest.mark.usefixtures("systemctl")
def test_any_mistake_refuses_shares_and_is_told_to_organisers_alone(
    places: TljhPlaces, text: str
) -> None:
    c = _applied(places, text)
    assert str(places.config_file) in _announced(c, _ADMIN)
    assert "sudo tljh-config" in _announced(c, _ADMIN)
    assert _announced(c, _ATTENDEE) == _announced(c, None) == ""
    # The very class: what an organiser sets for all spawners does not undo it.
    share = c[c.JupyterHub.spawner_class.__name__].share
    with pytest.raises(ShareRefused, match="settings have a mistake"):
        share(SimpleNamespace(user=_ATTENDEE))
    assert share(SimpleNamespace(user=_ADMIN)) == "cpu"


@pytest.mark.usefixtures("systemctl")
def test_a_mistake_leaves_service_and_ledger_where_they_were(
    places: TljhPlaces,
) -> None:
    c = _applied(
        places,
        "gpuworkshop:\n  idle: {after: soon}\n  service: {port: 10999}\n"
        "  ledger_url: sqlite:////srv/leases.sqlite\n",
    )
    assert c.GpuRuntime.service_url == "http://127.0.0.1:10999"
    assert c.GpuRuntime.workshop["ledger_url"] == "sqlite:////srv/leases.sqlite"


@pytest.mark.usefixtures("systemctl")
def test_a_folder_is_not_made_roots_alone_for_being_named_as_the_secret_file(
    places: TljhPlaces, tmp_path: Path
) -> None:
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o755)
    c = _applied(places, f"gpuworkshop: {{service: {{secret_file: {folder}}}}}")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert f"{folder} is not a file. Name one" in _announced(c, _ADMIN)


def test_an_unforeseen_failure_is_told_too(
    places: TljhPlaces,
    systemctl: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub_config, "configure", fail)
    c = _applied(places)
    assert "No space left on device" in _announced(c, _ADMIN)
    with pytest.raises(ShareRefused):
        c[c.JupyterHub.spawner_class.__name__].share(SimpleNamespace(user=_ATTENDEE))


@pytest.mark.usefixtures("systemctl")
def test_managed_true_is_overruled_with_a_word(places: TljhPlaces) -> None:
    c = _applied(places, "gpuworkshop: {service: {managed: true}}")
    assert "command" not in c.JupyterHub.services[-1]
    assert "service.managed: true is not heeded" in _announced(c, _ADMIN)
    assert "share" not in c[c.JupyterHub.spawner_class.__name__]


@pytest.mark.parametrize(
    ("text", "timeout"),
    [
        ("", "--timeout=9000"),
        ("gpuworkshop: {idle: {after: 3 h}}", "--timeout=12600"),
        ("services: {cull: {every: 30}}", "--timeout=9000"),
        ("services: {cull: {timeout: 600}}", "--timeout=600"),
        ("users: {}\nservices:\n", "--timeout=9000"),
    ],
)
@pytest.mark.usefixtures("systemctl")
def test_the_culler_waits_longer_than_our_rules_unless_the_organiser_says(
    places: TljhPlaces, text: str, timeout: str
) -> None:
    c = _applied(places, text)
    assert c.JupyterHub.services[0]["command"] == ["x", timeout]
    assert places.config_file.read_text() == text


def test_other_services_and_longer_timeouts_stay() -> None:
    c = Config()
    services = [
        {"name": "mine", "command": ["x", "--timeout=600"]},
        {"name": "cull-idle", "command": ["x", "--timeout=99999", "--max-age=0"]},
    ]
    c.JupyterHub.services = list(services)
    outlast_idle_rules(c, 7200)
    assert c.JupyterHub.services == services


def test_an_announcement_that_is_there_stays_for_everyone() -> None:
    c = Config()
    c.JupyterHub.template_vars = {"announcement": "Lunch at noon", "other": 1}
    announce(c, ["a < b"])
    assert _announced(c, _ATTENDEE) == "Lunch at noon"
    assert _announced(c, _ADMIN).endswith("a &lt; b<hr>Lunch at noon")
    assert c.JupyterHub.template_vars["other"] == 1


def test_no_config_yaml_is_a_workshop_of_defaults(places: TljhPlaces) -> None:
    settings = read_settings(places)
    assert settings.mistake == ""
    assert settings.workshop.service.port == 10110


def test_the_hooks_are_found_without_loading_tljh_or_the_hub() -> None:
    script = (
        "import sys, pluggy; pm = pluggy.PluginManager('tljh'); "
        "pm.load_setuptools_entrypoints('tljh'); "
        "hooks = [h.name for h in pm.get_hookcallers(pm.get_plugin('gpuworkshop'))]; "
        "print(sorted(hooks), 'tljh' in sys.modules, 'jupyterhub' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", script], text=True)  # noqa: S603
    assert said.strip() == (
        "['tljh_custom_jupyterhub_config', 'tljh_post_install'] False False"
    )
