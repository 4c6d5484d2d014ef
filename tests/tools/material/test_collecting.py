"""Collecting work: real homes and real processes, hostile ones too."""

import fcntl
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.archives import since_of
from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.core.roster import Attendee, Roster
from jupyterhub_gpuworkshop.hub.homes import DOCKER, UNIX, Home, Homes, file_beside
from jupyterhub_gpuworkshop.hub.roster_file import change_roster
from jupyterhub_gpuworkshop.machine.archives import Shelf, archives_in, opened
from jupyterhub_gpuworkshop.tools.material import packing
from jupyterhub_gpuworkshop.tools.material.collecting import (
    Collected,
    Plan,
    collect,
    lines_about,
    whose,
)
from tests.conftest import require_engine

_MOUNT, _UMOUNT = shutil.which("mount"), shutil.which("umount")


class Room:
    """Homes of this test's own, and a folder for their archives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archives = folder / "archives"
        self.homes: dict[str, Home] = {}
        self.at_once = 2

    def home(self, name: str, *, since: float = 100.0, **files: bytes) -> Path:
        path = self.folder / f"home-of-{len(self.homes)}"
        path.mkdir()
        for file, content in files.items():
            (path / file).write_bytes(content)
        self.homes[name] = Home(
            kind=UNIX,
            path=str(path),
            uid=os.geteuid(),
            gid=os.getegid(),
            user_since=since,
        )
        return path

    def plan(self, largest: int = 10**8, script: str | None = None) -> Plan:
        plan = Plan(
            homes=self.homes,
            folder=self.archives,
            like=self.folder,
            largest_bytes=largest,
            at_once=self.at_once,
        )
        if script is None:
            return plan
        path = self.folder / "script.py"
        path.write_text(script)
        return replace(plan, script=path)

    def collect(self, **given: object) -> dict[str, Collected]:
        results = collect(self.plan(**given), Console(stderr=True, quiet=True))  # type: ignore[arg-type]
        return {one.name: one for one in results}

    def content(self, stem: str) -> dict[str, bytes]:
        """Return the files in an archive."""
        with opened(self.archives, stem) as found:
            assert found is not None, f"there is no {stem}"
            with tarfile.open(fileobj=found[0], mode="r:gz") as tar:
                files = [member for member in tar if member.isreg()]
                return {x.name: tar.extractfile(x).read() for x in files}  # type: ignore[union-attr]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_everybodys_work_is_in_an_archive_that_only_its_owner_reads(room: Room) -> None:
    room.home("ann", thesis=b"ann's")
    room.home("../bea", thesis=b"bea's")
    results = room.collect()
    assert [one.problem for one in results.values()] == ["", ""]
    assert room.content("ann") == {"ann/thesis": b"ann's"}
    assert room.content("%2E.%2Fbea") == {"%2E.%2Fbea/thesis": b"bea's"}
    assert room.archives.stat().st_mode & 0o777 == 0o700
    files = [file for file in room.archives.iterdir() if file.name != ".lock"]
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o600"] * 2
    assert sorted(file.parent for file in files) == [room.archives] * 2
    assert [x.stem for x in archives_in(room.archives)] == ["%2E.%2Fbea", "ann"]


def test_the_tools_of_every_system_take_a_marked_archive(room: Room) -> None:
    room.home("ann", thesis=b"ann's")
    room.collect()
    tar = shutil.which("tar")
    assert tar is not None
    line = [tar, "-xzf", str(room.archives / "ann.tar.gz"), "-C", str(room.folder)]
    subprocess.run(line, check=True)  # noqa: S603
    assert (room.folder / "ann/thesis").read_bytes() == b"ann's"
    data = (room.archives / "ann.tar.gz").read_bytes()
    assert since_of(data) == 100.0
    assert gzip.decompress(data)


def test_what_is_collected_again_takes_the_place_of_what_was(room: Room) -> None:
    home = room.home("ann", thesis=b"old")
    room.collect()
    (home / "thesis").write_bytes(b"new")
    (room.archives / ".incoming-left").write_bytes(b"by a run that was killed")
    room.collect()
    assert room.content("ann") == {"ann/thesis": b"new"}
    assert sorted(x.name for x in room.archives.iterdir()) == [".lock", "ann.tar.gz"]


def test_the_work_of_an_earlier_account_is_kept_under_another_name(room: Room) -> None:
    room.home("ann", since=1_700_000_000.0, thesis=b"of the first ann")
    room.collect()
    room.home("ann", since=1_800_000_000.0, thesis=b"of the second")
    room.collect()
    room.collect()
    assert [x.stem for x in archives_in(room.archives)] == [
        "ann",
        "ann~20231114-221320",
    ]
    assert room.content("ann") == {"ann/thesis": b"of the second"}
    assert room.content("ann~20231114-221320") == {"ann/thesis": b"of the first ann"}


def test_one_that_fails_costs_the_others_nothing(room: Room) -> None:
    room.home("ann", thesis=b"ann's")
    gone = room.home("bea")
    gone.rmdir()
    link = room.home("cem")
    link.rmdir()
    link.symlink_to("/etc")
    room.home("x" * 300, thesis=b"-")
    results = room.collect()
    assert results["ann"].problem == ""
    assert "no home at" in results["bea"].problem
    assert "is no folder" in results["cem"].problem
    assert "no file can be called" in results["x" * 300].problem
    assert [x.stem for x in archives_in(room.archives)] == ["ann"]
    text = "\n".join(lines_about(list(results.values()), ["dan"], room.archives))
    assert text.startswith("1 of 4 packed, ")
    assert "1 never had a server here: dan." in text
    assert "3 have no new archive:\n  bea: There is no home at" in text


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("", "no archive"),
        ("print('not an archive, but long enough for one')", "no plain head"),
        ("import sys; sys.exit('cannot\\x1b[2J')", "Packing failed: cannot?[2J"),
        ("raise ValueError('of its own')", "ValueError: of its own"),
        ("import sys\nwhile True: sys.stdout.write('x' * 10**6)", "no plain head"),
        (
            "import gzip, sys, os\nsys.stdout.buffer.write(gzip.compress(b'')[:3] + "
            "bytes(7))\nsys.stdout.buffer.flush()\n"
            "while True: sys.stdout.buffer.write(bytes(10**6))",
            "more than it may",
        ),
        (
            "import sys, time\nsys.stdout.close()\nsys.stderr.close()\n"
            "import os; os.close(1); os.close(2)\ntime.sleep(600)",
            "does not come to an end",
        ),
        ("import time; time.sleep(600)", "does not go on"),
    ],
)
def test_a_packer_that_is_somebody_elses_gets_nothing_past_its_bounds(
    room: Room, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    monkeypatch.setattr(packing, "_SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(packing, "_END_SECONDS", 0.2)
    monkeypatch.setattr(packing, "_EXTRA_BYTES", 5_000_000)
    room.home("ann", thesis=b"ann's")
    assert room.collect()["ann"].problem == ""
    result = room.collect(script=script, largest=1000)["ann"]
    assert problem in result.problem
    assert room.content("ann") == {"ann/thesis": b"ann's"}
    assert sorted(x.name for x in room.archives.iterdir()) == [".lock", "ann.tar.gz"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"files": "many", "left_out": 1, "first": []}',
        b'{"files": 1e999, "left_out": 1, "first": []}',
        b'{"files": 1, "left_out": 1, "first": [1]}',
    ],
)
def test_what_is_said_of_an_archive_is_read_with_care(said: bytes) -> None:
    assert packing.read_told(said) == packing.Told()


def test_names_of_files_move_no_cursor(room: Room) -> None:
    home = room.home("ann", kept=b"-")
    (home / "\x1b[2Jpipe").write_bytes(b"")
    (home / "big\u202eexe").write_bytes(bytes(2000))
    result = room.collect(largest=1000)["ann"]
    (line,) = [x for x in lines_about([result], [], room.archives) if "big" in x]
    assert line == "  ann: big?exe: too large (1 MiB)"


def test_a_folder_of_somebody_else_is_not_used(room: Room) -> None:
    require_engine("root", os.geteuid() == 0, "run as root")
    room.home("ann", thesis=b"ann's")
    room.archives.mkdir()
    os.chown(room.archives, 54321, 54321)
    with pytest.raises(HostError, match="belongs to the user 54321"):
        room.collect()
    os.chown(room.archives, 0, 0)
    room.archives.chmod(0o777)
    room.collect()
    assert room.archives.stat().st_mode & 0o777 == 0o750


def test_two_do_not_collect_at_once(room: Room) -> None:
    room.home("ann")
    room.collect()
    with (room.archives / ".lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HostError, match="Another"):
            room.collect()


def test_a_link_in_the_folder_is_neither_an_archive_nor_written_through(
    room: Room,
) -> None:
    room.home("ann", thesis=b"ann's")
    victim = room.folder / "victim"
    victim.write_bytes(b"precious")
    room.archives.mkdir()
    (room.archives / "ann.tar.gz").symlink_to(victim)
    (room.archives / "bea.tar.gz").symlink_to("/etc/shadow")
    with opened(room.archives, "bea") as found:
        assert found is None
    assert archives_in(room.archives) == []
    room.collect()
    assert room.content("ann") == {"ann/thesis": b"ann's"}
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "stem", ["", ".", "..", "../x", "a/b", ".lock", "a\0b", "é" * 200]
)
def test_a_name_that_is_none_opens_nothing(room: Room, stem: str) -> None:
    room.home("ann")
    room.collect()
    (room.folder / "x.tar.gz").write_bytes(b"outside")
    with opened(room.archives, stem) as found:
        assert found is None


@pytest.fixture
def small_disk(room: Room) -> Iterator[Path]:
    """Mount a disk of a megabyte where the archives go."""
    can = os.geteuid() == 0 and None not in (_MOUNT, _UMOUNT)
    require_engine("root", can, "run as root, with mount")
    room.archives.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(room.archives)]
    done = subprocess.run([str(_MOUNT), *options], check=False)  # noqa: S603
    require_engine("root", done.returncode == 0, "allow mounting")
    yield room.archives
    subprocess.run([str(_UMOUNT), str(room.archives)], check=True)  # noqa: S603


@pytest.mark.root
def test_on_a_full_disk_the_old_archive_stays(room: Room, small_disk: Path) -> None:
    home = room.home("ann", thesis=b"old")
    room.home("bea", thesis=b"small")
    room.collect()
    (home / "noise").write_bytes(os.urandom(3_000_000))
    room.at_once = 1
    results = room.collect()
    assert "No space left on device. The one before" in results["ann"].problem
    assert results["bea"].problem == ""
    assert room.content("ann") == {"ann/thesis": b"old"}
    assert sorted(x.name for x in small_disk.iterdir()) == [
        *(".lock", "ann.tar.gz", "bea.tar.gz"),
    ]


def test_killed_at_every_step_the_old_archive_is_there_or_the_new_one(
    room: Room,
) -> None:
    home = room.folder / "home"
    home.mkdir()
    (home / "thesis").write_bytes(b"new")
    old = room.folder / "old"
    with subprocess.Popen(
        [sys.executable, "-B", "-m", "tests.tools.material.packers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(step: int) -> int:
            process.stdin.write(f"{step}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return int(process.stdout.readline())  # type: ignore[union-attr]

        process.stdin.write(f"{json.dumps(str(room.folder))}\n")
        (home / "thesis").write_bytes(b"old")
        assert ask(0) == 0
        shutil.copytree(room.archives, old)
        (home / "thesis").write_bytes(b"new")
        for before in (old, None):
            for step in range(1, 100):
                shutil.rmtree(room.archives, ignore_errors=True)
                if before is not None:
                    shutil.copytree(before, room.archives)
                status = ask(step)
                found = [x.stem for x in archives_in(room.archives)]
                if before is not None or found:
                    assert room.content("ann")["ann/thesis"] in (b"old", b"new")
                if status == 0:
                    break
                assert status == -9
                assert ask(0) == 0
                assert room.content("ann") == {"ann/thesis": b"new"}
                names = sorted(x.name for x in room.archives.iterdir())
                assert names == [".lock", "ann.tar.gz"]
            assert step > 6, "nothing was killed in the middle"
        process.stdin.close()


def test_whoever_stops_it_leaves_nothing_running_and_nothing_behind(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = subprocess.Popen

    def remembered(*given: object, **more: object) -> object:
        started.append(start(*given, **more))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(packing.subprocess, "Popen", remembered)
    line = [sys.executable, "-c", "import time; time.sleep(600)"]
    limits = packing.Limits(largest_bytes=1, seconds=60)
    stop = threading.Event()
    stop.set()
    with (
        Shelf(room.archives, room.folder) as shelf,
        shelf.incoming("ann") as incoming,
        pytest.raises(packing.StoppedError),
    ):
        packing.pack_into(incoming, line, {}, limits, 0.0, stop)
    assert [process.returncode for process in started] == [-9]
    assert sorted(x.name for x in room.archives.iterdir()) == [".lock"]


def test_the_roster_says_whose_work_it_is() -> None:
    home = Home(kind=UNIX, path="/x", uid=1, gid=1)
    homes = {"ann": home, "bea": home, "boss": home}
    assert whose(homes, attendees=["ann", "cem"]) == ({"ann": home}, ["cem"])
    assert whose(homes, attendees=None) == (homes, [])
    assert whose(homes, attendees=None, names=["boss", "zoe"]) == (
        {"boss": home},
        ["zoe"],
    )


@pytest.fixture
def hub(room: Room, monkeypatch: pytest.MonkeyPatch) -> Room:
    """Return a room with a workshop file, a roster, and homes that the hub wrote."""
    monkeypatch.chdir(room.folder)
    (room.folder / "workshop.yaml").write_text("material:\n  archives: archives\n")
    room.home("ann", thesis=b"ann's")
    room.home("bea", thesis=b"bea's")
    room.home("boss", plan=b"boss's")
    attendees = [Attendee(name=x, code_hash="") for x in ("ann", "bea", "cem")]
    roster = room.folder / "roster.json"
    change_roster(roster, lambda _: Roster(attendees=tuple(attendees)), new=True)
    for name, home in room.homes.items():
        Homes(file_beside(roster)).record(name, home)
    return room


def test_the_command_collects_of_who_is_on_the_roster(hub: Room) -> None:
    done = CliRunner().invoke(main, ["material", "collect"])
    assert done.exit_code == 0, done.output
    assert "2 of 2 packed" in done.output
    assert "1 never had a server here: cem." in done.output
    assert [x.stem for x in archives_in(hub.archives)] == ["ann", "bea"]
    done = CliRunner().invoke(main, ["material", "collect", "--all"])
    assert "3 of 3 packed" in done.output
    done = CliRunner().invoke(main, ["material", "collect", "ann", "cem"])
    assert done.exit_code == 1
    assert "1 of 2 packed" in done.output
    assert "  cem: cem never had a server here" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ann", "--all"], "Give names, or --all."),
        (["--largest", "2"], "is not a size"),
        (["--workshop", "none.yaml"], "none.yaml"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(
    hub: Room, arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(main, ["material", "collect", *arguments])
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert "Traceback" not in done.output


def test_without_homes_or_a_roster_it_says_what_to_give(hub: Room) -> None:
    roster = hub.folder / "roster.json"
    roster.unlink()
    done = CliRunner().invoke(main, ["material", "collect"])
    assert done.exit_code == 1
    assert "Give --all for everybody who ever had a server (3)" in done.output
    file_beside(roster).unlink()
    done = CliRunner().invoke(main, ["material", "collect", "--all"])
    assert done.exit_code == 1
    assert "Nobody has had a server yet" in done.output


def test_without_root_the_organiser_is_told_to_use_sudo(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.home("ann")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(HostError, match="sudo gpuworkshop material collect"):
        room.collect()
    assert not room.archives.exists()


def test_a_container_that_is_gone_with_its_home_is_said_to_be(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = room.folder / "docker"
    docker.write_text("#!/bin/sh\nexit 0\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{room.folder}:{os.environ['PATH']}")
    room.homes["ann"] = Home(kind=DOCKER, path="/home/jovyan", image="lab")
    assert "collect before `gpuworkshop stop-all`" in room.collect()["ann"].problem
    monkeypatch.setenv("PATH", "/nowhere")
    assert "`docker` is not installed" in room.collect()["ann"].problem


def test_as_many_bytes_as_there_are_come_through(room: Room) -> None:
    noise = os.urandom(5_000_000)
    room.home("ann", noise=noise)
    result = room.collect()["ann"]
    assert room.content("ann")["ann/noise"] == noise
    assert result.told.files == 1
    assert result.size_bytes == (room.archives / "ann.tar.gz").stat().st_size
    with opened(room.archives, "ann") as found:
        assert found is not None
        assert isinstance(found[0], io.BufferedReader)
