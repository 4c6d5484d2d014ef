"""The end of an installation, removal, and installing packages, without systemd."""

import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.service.kept import STATE_FILE
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces, host_workshop
from jupyterhub_gpuworkshop.workshop import Workshop
from tljh_plugin import commands, packages, removal
from tljh_plugin.installation import finish, is_our_link
from tljh_plugin.stack import Driver


def test_the_command_is_linked_once_and_a_foreign_file_stays(
    places: TljhPlaces, caplog: pytest.LogCaptureFixture
) -> None:
    finish(places)
    finish(places)
    assert is_our_link(places)
    link = places.commands / "gpuworkshop"
    link.unlink()
    link.symlink_to("/somewhere/else")  # and it leads nowhere
    with caplog.at_level(logging.WARNING, "tljh"):
        finish(places)
    assert "not ours, so it is left alone" in caplog.text
    assert link.readlink() == Path("/somewhere/else")


def test_a_mistake_is_told_and_does_not_fail_the_installation(
    places: TljhPlaces, caplog: pytest.LogCaptureFixture
) -> None:
    places.config_file.write_text("gpuworkshop: {idle: {after: soon}}")
    finish(places)
    assert "gpuworkshop.idle.after" in caplog.text


def _python(places: TljhPlaces, script: str) -> None:
    python = places.user_environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def test_each_stack_is_a_run_of_pip_and_a_failure_stops_no_other(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "asked"
    _python(places, f'echo "$@" >>{log}\ncase "$*" in *jax*) echo boom; exit 1; esac')
    monkeypatch.setattr(packages, "ask_driver", lambda: Driver(cuda=(13, 2)))
    said: list[str] = []
    workshop = Workshop.load({"packages": ["jax", "pandas", "cupy"]})
    assert not packages.install_packages(workshop, places, said.append)
    asked = [line.rpartition("--quiet ")[2] for line in log.read_text().splitlines()]
    assert asked == ["pandas", "jax[cuda13]", "cupy-cuda13x[ctk]"]
    assert "--upgrade" not in log.read_text()
    assert "jax could not be installed:\nboom" in "\n".join(said)


def test_nvdashboard_is_installed_where_it_is_wanted_and_what_it_shows_is_told(
    places: TljhPlaces,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = tmp_path / "asked"
    _python(places, f'echo "$@" >>{log}')
    monkeypatch.setattr(packages, "ask_driver", Driver)
    monkeypatch.setattr(commands, "require_root", lambda _: None)
    places.config_file.write_text("gpuworkshop: {dashboard: {nvdashboard: false}}")
    finish(places)
    said: list[str] = []
    assert commands.packages(said.append, places) == 0
    assert "none are named" in said.pop()
    assert not log.exists()
    places.config_file.write_text("gpuworkshop: {dashboard: {nvdashboard: true}}")
    with caplog.at_level(logging.INFO, "tljh"):
        finish(places)
    assert packages.WHAT_NVDASHBOARD_SHOWS in caplog.messages
    assert commands.packages(said.append, places) == 0
    assert said[0] == packages.WHAT_NVDASHBOARD_SHOWS
    asked = [line.rpartition("--quiet ")[2] for line in log.read_text().splitlines()]
    assert asked == ["jupyterlab-nvdashboard"] * 2


def test_what_pip_breaks_without_failing_is_told(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    _python(places, "echo 'ERROR: torch 2 requires x, which is not installed.'")
    said: list[str] = []
    workshop = Workshop.load({"packages": ["pandas"]})
    assert packages.install_packages(workshop, places, said.append)
    assert said[-1] == "packages: ERROR: torch 2 requires x, which is not installed."


def test_modules_in_the_current_folder_are_not_run(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('theirs')")
    (tmp_path / "jupyterhub_gpuworkshop").mkdir()
    package = tmp_path / "jupyterhub_gpuworkshop" / "__init__.py"
    package.write_text("raise SystemExit('theirs')")
    monkeypatch.chdir(tmp_path)
    assert "failed" not in packages.ask_driver().problem
    _python(places, "pwd; exit 1")
    said: list[str] = []
    packages.install_packages(
        Workshop.load({"packages": ["pandas"]}), places, said.append
    )
    assert "could not be installed:\n/\n" in said[-1]
    monkeypatch.setattr(
        removal.sys, "executable", str(places.user_environment / "bin/python")
    )
    with pytest.raises(HostError, match=r"could not uninstall .*: /\n"):
        removal._uninstall(said.append)


def test_without_an_environment_for_attendees_nothing_is_run(
    places: TljhPlaces,
) -> None:
    said: list[str] = []
    workshop = Workshop.load({"packages": ["pandas"]})
    assert not packages.install_packages(workshop, places, said.append)
    assert "there is no Python at" in said[0]
    assert packages.install_packages(Workshop(), places, said.append)


def test_the_driver_is_asked_in_a_child_and_its_silence_is_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("x", 30)

    assert packages.ask_driver().cuda is None or packages.ask_driver().major
    monkeypatch.setattr(packages.subprocess, "run", hang)
    assert packages.ask_driver().problem == (
        "The GPU driver did not answer within 30 s."
    )


def test_removal_where_there_is_no_tljh_says_so(places: TljhPlaces) -> None:
    with pytest.raises(HostError, match="There is no TLJH at"):
        removal.remove(lambda _: None, places)


def test_check_finds_tljhs_workshop_from_tljhs_hub_alone(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(places.prefix))
    assert host_workshop() is None
    monkeypatch.setattr("sys.prefix", str(places.hub_environment))
    assert host_workshop() == f"{places.config_file}#gpuworkshop"


@pytest.mark.parametrize("is_sane", [True, False])
def test_removal_brings_back_what_is_paused_or_stops_before_nobody_can(
    places: TljhPlaces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_sane: bool,
) -> None:
    monkeypatch.setattr(removal, "STATE_FOLDER", tmp_path / "state")
    said: list[str] = []

    def bring_back(*, leave_paused: bool = False) -> None:
        removal._bring_back_what_is_paused(
            places, said.append, leave_paused=leave_paused
        )

    bring_back()
    assert said == [], "nothing was ever paused"
    create_devices(tmp_path / "gpus", 1, GIB)
    places.config_file.write_text(
        "gpuworkshop:\n"
        f"  gpus: {{source: simulated, simulated_dir: {tmp_path / 'gpus'}}}\n"
    )
    (tmp_path / "state").mkdir()
    state = tmp_path / "state" / STATE_FILE
    state.write_text('{"version": 1, "state": {}}' if is_sane else "{}}")
    if is_sane:
        bring_back()
        assert said == ["Nothing is paused."]
        return
    with pytest.raises(HostError, match=r"remove --leave-paused"):
        bring_back()
    bring_back(leave_paused=True)
    assert "They are left so." in said[-1]


def test_removal_does_so_before_it_takes_anything_else_away(
    places: TljhPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.hub_environment.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(removal, "require_root", lambda _: None)
    finish(places)

    def refuse(*_: Any, **__: Any) -> None:
        raise HostError("paused")

    monkeypatch.setattr(removal, "_bring_back_what_is_paused", refuse)
    with pytest.raises(HostError, match="paused"):
        removal.remove(lambda _: None, places)
    assert is_our_link(places)
