"""Running a script as an attendee: who it is, where, and what it may not do."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.machine.as_attendee import Attendee, run_as_attendee
from tests.conftest import require_engine

_TELL = """
import json, os, sys
def can(what, *arguments):
    try:
        what(*arguments)
    except OSError:
        return False
    return True
json.dump({
    "name": __name__, "uids": os.getresuid(), "gids": os.getresgid(),
    "groups": os.getgroups(), "here": sorted(os.listdir()), "args": sys.argv[1:],
    "root again": can(os.setuid, 0), "shadow": can(open, "/etc/shadow"),
    "handles": [x for x in range(3, 100) if can(os.fstat, x)],
    "whose process": os.stat("/proc/self/environ").st_uid,
    "memory": can(os.open, "/proc/self/mem", os.O_RDWR),
    "secret": os.environ.get("JUPYTERHUB_API_TOKEN"),
}, sys.stdout)
"""
_NOBODY = Attendee(uid=54321, gid=54322)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "tell.py"
    path.write_text(_TELL)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    (path / "thesis.ipynb").touch()
    return path


def _told(attendee: Attendee, home: Path, script: Path) -> dict[str, object]:
    with run_as_attendee(attendee, home, script, ["--an", "argument"]) as (line, given):
        done = subprocess.run(line, capture_output=True, check=True, **given)  # noqa: S603
    told: dict[str, object] = json.loads(done.stdout)
    return told


def _give(home: Path) -> None:
    """Make a home the attendee's, who can reach it."""
    for part in (home, *home.parents):
        if part.stat().st_mode & 0o001 == 0:
            part.chmod(part.stat().st_mode | 0o011)
    home.chmod(0o700)
    os.chown(home, _NOBODY.uid, _NOBODY.gid)


@pytest.mark.root
def test_it_runs_as_the_attendee_alone_and_stays_so(
    home: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine("root", os.geteuid() == 0, "run as root")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "the hub's")
    _give(home)
    told = _told(_NOBODY, home, script)
    assert told["uids"] == [_NOBODY.uid] * 3
    assert told["gids"] == [_NOBODY.gid] * 3
    assert told["groups"] == [_NOBODY.gid]
    assert told["here"] == ["thesis.ipynb"]
    assert told["args"] == ["--an", "argument"]
    assert told["name"] == "__main__"
    assert (told["root again"], told["shadow"]) == (False, False)
    assert told["secret"] is None
    assert told["handles"] == []
    # Root's: another process of the attendee could do as little with it.
    assert (told["whose process"], told["memory"]) == (0, False)


@pytest.mark.root
def test_an_account_that_is_somebody_elses_by_now_gives_no_groups(
    home: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine("root", os.geteuid() == 0, "run as root")
    _give(home)
    monkeypatch.setattr(os, "getgrouplist", lambda account, gid: [gid, 0])
    told = _told(replace(_NOBODY, account="root"), home, script)
    assert told["groups"] == [_NOBODY.gid]


def test_no_program_of_theirs_is_taken_for_a_part_of_python(
    home: Path, script: Path
) -> None:
    for name in ("colorsys.py", "sitecustomize.py", "usercustomize.py"):
        (home / name).write_text("print('theirs')")
    script.write_text("import colorsys; print(colorsys.__file__)")
    me = Attendee(uid=os.geteuid(), gid=os.getegid())
    with run_as_attendee(me, home, script) as (line, given):
        done = subprocess.run(line, capture_output=True, check=True, **given)  # noqa: S603
    assert b"theirs" not in done.stdout
    assert str(home).encode() not in done.stdout


def test_whoever_is_that_user_already_needs_no_root(home: Path, script: Path) -> None:
    me = Attendee(uid=os.geteuid(), gid=os.getegid())
    assert _told(me, home, script)["here"] == ["thesis.ipynb"]


def test_what_is_at_home_cannot_make_it_take_the_hosts_memory(
    home: Path, script: Path
) -> None:
    script.write_text("bytearray(1 << 30)")
    me = Attendee(uid=os.geteuid(), gid=os.getegid())
    with run_as_attendee(me, home, script) as (line, given):
        done = subprocess.run(line, capture_output=True, **given)  # noqa: S603
    assert done.returncode == 1
    assert done.stderr.endswith(b"MemoryError\n")


def test_a_home_that_is_a_link_or_gone_is_said_to_be(home: Path, script: Path) -> None:
    link = home.with_name("link")
    link.symlink_to("/")
    me = Attendee(uid=os.geteuid(), gid=os.getegid())
    with (
        pytest.raises(HostError, match="is no folder"),
        run_as_attendee(me, link, script),
    ):
        pass
    with (
        pytest.raises(HostError, match="no home at"),
        run_as_attendee(me, home / "gone", script),
    ):
        pass
    assert list(home.iterdir()) == [home / "thesis.ipynb"]


def test_who_is_not_root_is_told_to_use_sudo(
    home: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with (
        pytest.raises(HostError, match="sudo"),
        run_as_attendee(_NOBODY, home, script),
    ):
        pass
    assert list(home.iterdir()) == [home / "thesis.ipynb"]
