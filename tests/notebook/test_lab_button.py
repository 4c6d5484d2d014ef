"""The way from JupyterLab to the page: one of ours behind all of theirs, or none."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER, with_jupyter_settings
from tests.conftest import require_engine

from .hooked_python import python_or_skip

BAR = "@jupyterlab/application-extension:top-bar"
MENUS = "@jupyterlab/mainmenu-extension:plugin"
PAGE = "/base/services/gpuworkshop/"
SCRIPT = FOLDER / "gpuworkshop_jupyter" / "lab_button.py"

_ASK = """
import json, os
from jupyter_server.serverapp import ServerApp
from jupyterlab_server.settings_utils import _get_overrides
app = ServerApp()
app.load_config_file()
app.load_config_file()
overrides, _ = _get_overrides(os.environ["JUPYTERLAB_DIR"] + "/settings")
print(json.dumps([overrides, os.environ["JUPYTER_CONFIG_PATH"]]))
"""
"""What JupyterLab asks for, in a server that has read its configuration: twice, as the
hub's own server application does."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the script defines."""
    monkeypatch.delenv("GPUWORKSHOP_PAGE", raising=False)
    return runpy.run_path(str(SCRIPT))


Asked = tuple[dict[str, Any], list[Path]]


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Asked]:
    """Return what asks a server's Jupyter for its settings, and where they are from."""
    require_engine(
        "lab",
        all(find_spec(name) for name in ("jupyter_server", "jupyterlab")),
        "pip install 'jupyterhub-gpuworkshop[demo]'",
    )

    def ask(**more: str) -> Asked:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "JUPYTERLAB_DIR": str(tmp_path / "lab"),
            "GPUWORKSHOP_PAGE": PAGE,
            **more,
        }
        done = subprocess.run(  # noqa: S603  this Python, and a program of the test
            [sys.executable, "-c", _ASK],
            env=with_jupyter_settings(environment, ""),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        overrides, path = json.loads(done.stdout)
        return overrides, [Path(folder) for folder in path.split(":")]

    return ask


def _organisers(tmp_path: Path, text: str) -> None:
    settings = tmp_path / "lab" / "settings"
    settings.mkdir(parents=True)
    (settings / "overrides.json").write_text(text)


def _urls(overrides: dict[str, Any]) -> list[str]:
    """Return the addresses behind the buttons and the entries that are ours."""
    items = list(overrides.get(BAR, {}).get("toolbar", []))
    for menu in overrides.get(MENUS, {}).get("menus", []):
        items += menu["items"]
    return [x["args"]["url"] for x in items if x.get("command") == "help:open"]


@pytest.mark.lab
def test_what_organiser_and_attendee_set_stays_before_the_page(
    tmp_path: Path, ask: Callable[..., Asked]
) -> None:
    theirs = {"name": "clock", "command": "clock:show"}
    forum = {"command": "forum:open"}
    tracker = {"kernelShutdown": True}
    menus = [{"id": "jp-mainmenu-file", "items": [forum]}, {"id": "more", "items": []}]
    organisers = {
        "@jupyterlab/notebook-extension:tracker": tracker,
        MENUS: {"menus": menus},
    }
    _organisers(tmp_path, json.dumps(organisers))
    attendees = tmp_path / ".jupyter" / "labconfig"
    attendees.mkdir(parents=True)
    (attendees / "default_setting_overrides.json").write_text(
        json.dumps({BAR: {"toolbar": [theirs]}})
    )
    overrides, (ours, *_) = ask()
    assert overrides["@jupyterlab/notebook-extension:tracker"] == tracker
    file, more = overrides[MENUS]["menus"]
    assert more == menus[1]
    assert file["items"][0] == forum
    assert overrides[BAR]["toolbar"][0] == theirs
    assert _urls(overrides) == [PAGE, PAGE], "one button, one entry"
    assert ours.parent == tmp_path / ".local/share/jupyter/runtime"
    assert not ours.exists(), "it goes with the server"


@pytest.mark.lab
def test_a_home_that_takes_no_file_is_none_in_the_way(
    tmp_path: Path, ask: Callable[..., Asked]
) -> None:
    (tmp_path / "file").write_text("")
    overrides, (ours, *_) = ask(JUPYTER_RUNTIME_DIR=str(tmp_path / "file/runtime"))
    assert ours.parent == tmp_path
    assert _urls(overrides) == [PAGE, PAGE]


@pytest.mark.lab
@pytest.mark.parametrize("why", ["without a page", "with broken overrides"])
def test_a_server_starts_as_ever(
    tmp_path: Path, ask: Callable[..., Asked], why: str
) -> None:
    if why == "with broken overrides":
        _organisers(tmp_path, "{not json")
    page = "" if why == "without a page" else PAGE
    overrides, (first, *_) = ask(GPUWORKSHOP_PAGE=page)
    assert _urls(overrides) == []
    assert first == SCRIPT.parent


def test_a_page_is_offered_once_however_often_it_is_asked_for(
    script: dict[str, Any],
) -> None:
    once = script["with_page"]({}, PAGE)
    assert _urls(once) == [PAGE, PAGE]
    assert script["with_page"](once, PAGE) is once


def test_a_disk_without_room_leaves_the_server_as_it_was(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> Path:
        raise OSError(28, "No space left on device")

    its_own = script["offer_page"].__globals__
    monkeypatch.setitem(its_own, "_overrides", dict)
    monkeypatch.setitem(its_own, "_private_folder", full)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/etc/theirs")
    script["offer_page"](PAGE)
    assert os.environ["JUPYTER_CONFIG_PATH"] == "/etc/theirs"


def test_the_oldest_python_without_jupyterlab_says_nothing() -> None:
    done = subprocess.run(  # noqa: S603  a Python, and a script of ours
        [python_or_skip("3.8"), "-I", str(SCRIPT)],
        env={"PATH": os.environ["PATH"], "GPUWORKSHOP_PAGE": PAGE},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout + done.stderr == ""
