"""A workshop that is one section of a larger file, as in TLJH's config.yaml."""

import logging
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.workshop import Workshop

_CONFIG = """\
users:
  admin: [organiser]
gpuworkshop:
  attendees: 20
  idle:
    after: 3 h
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration that holds more than the workshop."""
    path = tmp_path / "config.yaml"
    path.write_text(_CONFIG)
    return path


def test_the_section_is_read_and_the_rest_is_not(config: Path) -> None:
    workshop = Workshop.load(f"{config}#gpuworkshop")
    assert workshop.attendees == 20
    assert workshop.idle.after == 3 * 3600


@pytest.mark.parametrize("text", ["", "users: {}\n", "gpuworkshop:\n"])
def test_a_file_without_the_section_is_a_workshop_of_defaults(
    config: Path, text: str
) -> None:
    config.write_text(text)
    assert Workshop.load(f"{config}#gpuworkshop") == Workshop()


def test_a_mistake_is_named_with_the_section_as_tljh_config_would_set_it(
    config: Path,
) -> None:
    config.write_text("gpuworkshop:\n  idle:\n    after: 3\n")
    with pytest.raises(WorkshopFileError, match=r"yaml: gpuworkshop\.idle\.after: 3 "):
        Workshop.load(f"{config}#gpuworkshop")
    config.write_text("gpuworkshop: [1]\n")
    with pytest.raises(WorkshopFileError, match=r"gpuworkshop: \[1\] is no workshop"):
        Workshop.load(f"{config}#gpuworkshop")
    config.write_text("- a\n")
    with pytest.raises(WorkshopFileError, match="has no section gpuworkshop"):
        Workshop.load(f"{config}#gpuworkshop")


def test_a_file_with_such_a_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "monday#1.yaml"
    path.write_text("attendees: 7\n")
    assert Workshop.load(path).attendees == 7


def test_paths_in_it_start_at_the_folder_of_the_file(config: Path) -> None:
    config.write_text("gpuworkshop:\n  service:\n    state_dir: history\n")
    workshop = Workshop.load(f"{config}#gpuworkshop")
    assert workshop.service.state_dir == config.parent / "history"


def test_the_service_heeds_a_change_of_the_section_without_a_restart(
    config: Path,
) -> None:
    rules = Rules(f"{config}#gpuworkshop", logging.getLogger("test"))
    assert rules.idle().after_seconds == 3 * 3600
    config.write_text(_CONFIG.replace("3 h", "4 hours and more"))
    rules.refresh()
    assert "gpuworkshop.idle.after" in rules.problem
    config.write_text(_CONFIG.replace("3 h", "30 min"))
    rules.refresh()
    assert rules.problem == ""
    assert rules.idle().after_seconds == 1800


def test_who_may_not_read_the_file_is_told_of_root(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, **_: bool) -> bytes:
        raise PermissionError(13, "Permission denied")

    # As below a folder that this user may not enter.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(WorkshopFileError, match="as root, with sudo"):
        Workshop.load(f"{config}#gpuworkshop")


@pytest.mark.parametrize("name", ["--index-url=http://x", "", "-r file", " torch"])
def test_a_package_is_no_option_of_pip(name: str) -> None:
    with pytest.raises(WorkshopFileError, match=r"packages\[0\]: .* names no package"):
        Workshop.load({"packages": [name]})


def test_packages_are_taken_as_pip_takes_them() -> None:
    names = ["torch", "jax==0.10.2", "scikit-learn", "x @ https://example.org/x.whl"]
    assert Workshop.load({"packages": names}).packages == tuple(names)


@pytest.mark.parametrize("text", ["", "gpuworkshop: {roster: {file: roster.json}}"])
def test_the_roster_lies_beside_the_file_of_the_section(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    source = f"{tmp_path}/config.yaml#gpuworkshop"
    assert Workshop.load(source).roster_file(source) == tmp_path / "roster.json"
    named = {"roster": {"file": "/srv/monday.json"}}
    assert Workshop.load(named).roster_file(named) == Path("/srv/monday.json")
