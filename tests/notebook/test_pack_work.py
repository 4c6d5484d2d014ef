"""Packing an attendee's work: what comes along, and what they cannot make it read.

The home is its attendee's, who may have put anything into it, and may change it while
it is packed.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.machine.as_attendee import Attendee, run_as_attendee
from jupyterhub_gpuworkshop.notebook import pack_work
from tests.conftest import require_engine

from .hooked_python import VERSIONS, python_or_skip

_SCRIPT = Path(pack_work.__file__)
_LARGEST = 10_000_000
_SECRET = "another's"


class Packed:
    """An archive that was made, and what was told of it."""

    def __init__(self, archive: bytes, told: dict) -> None:
        self.told = told
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            self.members = {member.name: member for member in tar.getmembers()}
            self.content = {
                name: tar.extractfile(member).read()
                for name, member in self.members.items()
                if member.isreg()
            }
            assert len(tar.getmembers()) == len(self.members), "a name came twice"

    @property
    def names(self) -> set:
        """What is in it, but for the top and what was left out."""
        kept = set(self.members) - {"ann", f"ann/{pack_work.LEFT_OUT}"}
        return {name.removeprefix("ann/") for name in kept}

    @property
    def left_out(self) -> dict:
        """What it says is not in it, and why."""
        text = self.content.get(f"ann/{pack_work.LEFT_OUT}", b"").decode()
        return dict(line.rsplit(": ", 1) for line in text.splitlines()[2:])


def pack(home: Path, largest: int = _LARGEST) -> Packed:
    """Pack a home in this process."""
    out, handle = io.BytesIO(), os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        told = pack_work.pack(handle, out, "ann", largest)
    finally:
        os.close(handle)
    return Packed(out.getvalue(), told)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def others(tmp_path: Path) -> Path:
    path = tmp_path / "others"
    path.mkdir()
    (path / "thesis.ipynb").write_text(_SECRET)
    return path


def test_work_is_packed_and_caches_are_not(home: Path) -> None:
    for path in (
        *("intro/start.ipynb", "intro/.git/HEAD", "model.py", "deep/.cache/kept"),
        *(".cache/pip", ".local/share/x", ".ssh/id_rsa", "intro/__pycache__/x.pyc"),
        *("intro/.ipynb_checkpoints/start.ipynb", ".venv/pyvenv.cfg", ".venv/bin/x"),
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(path)
    (home / "model.py").chmod(0o4711)
    (home / "intro").chmod(0o2700)
    packed = pack(home)
    assert {n for n in packed.names if packed.members[f"ann/{n}"].isreg()} == {
        *("intro/start.ipynb", "intro/.git/HEAD", "model.py", "deep/.cache/kept"),
    }
    assert packed.content["ann/intro/start.ipynb"] == b"intro/start.ipynb"
    assert {(m.uid, m.gid, m.uname, m.gname) for m in packed.members.values()} == {
        (0, 0, "", "")
    }
    assert {name: oct(packed.members[f"ann/{name}"].mode) for name in packed.names} == {
        **dict.fromkeys(packed.names, "0o644"),
        **dict.fromkeys(("intro", "intro/.git", "deep", "deep/.cache"), "0o755"),
        "model.py": "0o755",
    }
    assert packed.left_out == {".venv": "an environment of installed packages"}
    assert packed.told == {
        "files": 4,
        "bytes": sum(map(len, packed.content.values()))
        - len(packed.content["ann/LEFT-OUT.txt"]),
        "left_out": 1,
        "first": [(".venv", "an environment of installed packages")],
    }


def test_links_that_lead_outside_are_named_and_never_followed(
    home: Path, others: Path
) -> None:
    (home / "a/b").mkdir(parents=True)
    (home / "a/b/own.txt").write_text("own")
    links = {
        "shadow": "/etc/shadow",
        "others": str(others),
        "thesis": "../others/thesis.ipynb",
        "a/b/far": "../../../others/thesis.ipynb",
        # As text it stays inside; by way of the other link it does not.
        "a/b/through": "up/../others/thesis.ipynb",
        "absolute": str(home / "a"),
        "empty-ish": ".\\..\\x",
    }
    kept = {
        "a/b/up": "../..",
        "own": "a/b/own.txt",
        "a/b/own2": "own.txt",
        "gone": "no",
    }
    for path, target in {**links, **kept, "data": "/var/lib/data"}.items():
        (home / path).symlink_to(target)
    packed = pack(home)
    assert set(packed.left_out) == set(links)
    assert {
        name.removeprefix("ann/"): member.linkname
        for name, member in packed.members.items()
        if member.issym()
    } == kept
    assert _SECRET.encode() not in packed.content.values()


def test_a_folder_that_becomes_a_link_is_not_entered(
    home: Path, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "folder").mkdir()
    (home / "own.ipynb").write_text("own, and no shorter than " + _SECRET)
    look, looked = os.stat, []

    def look_then_swap(name, **given):
        found = look(name, **given)
        looked.append(name)
        # The first look is for sizes only.
        if name == "folder" and looked.count(name) == 2:
            (home / "folder").rename(home / "was")
            (home / "folder").symlink_to(others)
        return found

    monkeypatch.setattr(pack_work.os, "stat", look_then_swap)
    packed = pack(home)
    monkeypatch.undo()
    assert (home / "folder").is_symlink()
    assert _SECRET.encode() not in packed.content.values()
    assert "folder/thesis.ipynb" not in packed.names


def test_a_folder_moved_away_while_it_is_packed_leads_nowhere_else(
    home: Path, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "folder").mkdir()
    own = f"own, and no shorter than {_SECRET}"
    (home / "folder/thesis.ipynb").write_text(own)
    enter = os.open

    def swap_then_open(name, flags, **given):
        if name == "thesis.ipynb" and not (home / "was").exists():
            (home / "folder").rename(home / "was")
            (home / "folder").symlink_to(others)
        return enter(name, flags, **given)

    monkeypatch.setattr(pack_work.os, "open", swap_then_open)
    handle = enter(home, os.O_RDONLY | os.O_DIRECTORY)
    out = io.BytesIO()
    pack_work.pack(handle, out, "ann", _LARGEST)
    os.close(handle)
    monkeypatch.undo()
    assert Packed(out.getvalue(), {}).content["ann/folder/thesis.ipynb"].decode() == own


@pytest.mark.parametrize("becomes", ["link", "pipe", "nothing"])
def test_a_file_that_becomes_something_else_is_left_out(
    home: Path, others: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    (home / "file").write_text("own, and no shorter than " + _SECRET)
    enter = os.open

    def swap_then_open(name, flags, **given):
        if name == "file":
            (home / "file").unlink()
            if becomes == "link":
                (home / "file").symlink_to(others / "thesis.ipynb")
            elif becomes == "pipe":
                os.mkfifo(home / "file")
        return enter(name, flags, **given)

    handle, out = enter(home, os.O_RDONLY | os.O_DIRECTORY), io.BytesIO()
    monkeypatch.setattr(pack_work.os, "open", swap_then_open)
    told = pack_work.pack(handle, out, "ann", _LARGEST)
    monkeypatch.undo()
    os.close(handle)
    packed = Packed(out.getvalue(), told)
    assert packed.names == set()
    assert set(packed.left_out) == {"file"}


def test_pipes_and_sockets_hold_nothing_up(home: Path) -> None:
    os.mkfifo(home / "pipe")
    (home / "kept").write_text("kept")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(home)  # the path of a socket is short
        listener.bind("socket")
        os.chdir(here)
        packed = pack(home)
    assert packed.names == {"kept"}
    assert set(packed.left_out) == {"pipe", "socket"}


@pytest.mark.parametrize("change", ["grows", "shrinks"])
def test_a_file_that_changes_has_the_size_it_began_with(
    home: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    (home / "log").write_bytes(b"x" * 100_000)
    (home / "zz").write_text("after it")
    read = os.read

    def change_and_read(handle, size):
        if change == "shrinks":
            os.truncate(home / "log", 50_000)
        else:
            with (home / "log").open("ab") as file:
                file.write(b"y" * 100_000)
        return read(handle, size)

    monkeypatch.setattr(pack_work.os, "read", change_and_read)
    packed = pack(home)
    monkeypatch.undo()
    assert len(packed.content["ann/log"]) == 100_000
    assert packed.content["ann/zz"] == b"after it"
    assert "it changed" in packed.left_out["log"]


def test_a_sparse_file_of_ten_gigabytes_is_left_out_and_the_rest_is_not(
    home: Path,
) -> None:
    with (home / "huge.bin").open("wb") as file:
        file.truncate(10 * 1024**3)
    (home / "kept").write_text("kept")
    packed = pack(home)
    assert packed.names == {"kept"}
    assert packed.left_out == {"huge.bin": "too large (10,240 MiB)"}


def test_where_not_all_fits_as_many_files_as_possible_are_kept(home: Path) -> None:
    (home / "checkpoints").mkdir()
    for number in range(3):
        (home / f"checkpoints/{number}").write_bytes(bytes(4000))
    for number in range(5):
        (home / f"{number}.ipynb").write_bytes(bytes(400))
    packed = pack(home, largest=7000)
    assert packed.told["files"] == 6
    assert {f"{number}.ipynb" for number in range(5)} <= packed.names
    assert len(packed.left_out) == 2


def test_odd_names_are_kept_apart_and_can_be_unpacked_anywhere(home: Path) -> None:
    names = {
        b"a\nb": "a%0Ab",
        b"a%0Ab": "a%0Ab",
        b"caf\xe9": "caf%E9",
        "café".encode(): "café",
        b"..\\..\\evil.bat": "..%5C..%5Cevil.bat",
        b"...": "...",
        b"\x1b[2J": "%1B[2J",
        "👩‍🚀.ipynb".encode(): "👩‍🚀.ipynb",
        b"100%": "100%",
        b"-rf *": "-rf *",
    }
    for name in names:
        (home / os.fsdecode(name)).write_bytes(name)
    packed = pack(home)
    assert packed.content["ann/a%0Ab"] == b"a%0Ab"
    assert packed.content["ann/a%0Ab%"] == b"a\nb"
    del names[b"a\nb"]
    assert packed.names == {"a%0Ab%", *names.values()}
    for name, shown in names.items():
        assert packed.content[f"ann/{shown}"] == name


def test_a_tree_without_end_is_packed_to_a_depth(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd()
    os.chdir(home)
    for _ in range(300):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    Path("deep").touch()
    os.chdir(here)
    packed = pack(home)
    assert 10 < len(packed.names) < 60
    assert packed.told["left_out"] == 1
    monkeypatch.setattr(pack_work, "_MOST_ENTRIES", 30)
    for number in range(100):
        (home / f"{number}").touch()
    packed = pack(home)
    assert len(packed.names) <= 31
    assert "too many files" in packed.left_out["."]


def test_a_file_called_like_the_list_stays_theirs(home: Path) -> None:
    (home / pack_work.LEFT_OUT).write_text("mine")
    os.mkfifo(home / "pipe")
    packed = pack(home)
    assert packed.content["ann/LEFT-OUT.txt"] == b"mine"
    assert b"pipe: a pipe" in packed.content["ann/LEFT-OUT-2.txt"]


def test_a_thousand_left_out_are_counted_and_not_all_told(home: Path) -> None:
    for number in range(1100):
        (home / f"{number:04}").symlink_to("/etc/shadow")
    packed = pack(home)
    assert packed.told["left_out"] == 1100
    assert len(packed.told["first"]) == 5
    assert packed.content["ann/LEFT-OUT.txt"].endswith(b"... and 100 more\n")


@pytest.mark.root
def test_as_an_attendee_it_reads_nothing_that_is_closed_to_them(
    home: Path, others: Path
) -> None:
    require_engine("root", os.geteuid() == 0, "run as root")
    for part in home.parents:
        if part.stat().st_mode & 0o001 == 0:
            part.chmod(part.stat().st_mode | 0o011)
    (others / "thesis.ipynb").chmod(0o600)
    os.link(others / "thesis.ipynb", home / "hard-link.ipynb")
    (home / "kept").write_text("kept")
    (home / "closed").mkdir(mode=0o700)
    os.chown(home, 54321, 54321)
    attendee = Attendee(uid=54321, gid=54321)
    options = ["--top=ann", f"--largest={_LARGEST}", "--seconds=60"]
    with run_as_attendee(attendee, home, _SCRIPT, options) as (line, given):
        done = subprocess.run(line, capture_output=True, check=True, **given)  # noqa: S603
    packed = Packed(done.stdout, json.loads(done.stderr))
    assert packed.names == {"kept"}
    assert packed.left_out == {
        "hard-link.ipynb": "it may not be read",
        "closed": "it may not be read",
    }


def _start(home: Path, seconds: int) -> subprocess.Popen:
    """Start it with more to say than a pipe holds."""
    (home / "noise").write_bytes(os.urandom(1_000_000))
    options = ["--top=ann", f"--largest={_LARGEST}", f"--seconds={seconds}"]
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", str(_SCRIPT), *options],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_it_ends_by_itself_where_nobody_reads(home: Path) -> None:
    with _start(home, seconds=1) as process:
        assert process.wait(60) == -signal.SIGALRM


def test_it_ends_quietly_where_the_reader_went_away(home: Path) -> None:
    with _start(home, seconds=60) as process:
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_that_containers_have_packs_the_same(
    home: Path, version: str
) -> None:
    (home / "folder").mkdir()
    (home / "folder/a\nb").write_text("odd")
    (home / "link").symlink_to("folder")
    (home / "out").symlink_to("/etc/shadow")
    os.mkfifo(home / "pipe")
    options = ["--top=ann", f"--largest={_LARGEST}", "--seconds=60"]
    with _SCRIPT.open("rb") as script:
        done = subprocess.run(  # noqa: S603
            [python_or_skip(version), "-I", "-S", "-X", "utf8", "-", *options],
            cwd=home,
            stdin=script,
            capture_output=True,
            check=True,
        )
    packed = Packed(done.stdout, json.loads(done.stderr))
    assert packed.names == {"folder", "folder/a%0Ab", "link"}
    assert set(packed.left_out) == {"out", "pipe"}
    assert done.stdout[:4] == b"\x1f\x8b\x08\x00", "no head that can be marked"
