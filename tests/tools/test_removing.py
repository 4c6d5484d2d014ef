"""Homes and accounts of this machine: which go, and how; with real accounts."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub.homes import DOCKER, UNIX, Home, Mount
from jupyterhub_gpuworkshop.tools.removing import disk, homes, processes
from jupyterhub_gpuworkshop.tools.removing.homes import (
    TLJH_GROUP,
    Fate,
    judge,
    tljh_account,
)

_PREFIX = "rmtest"
needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes accounts: run it as root"),
    pytest.mark.skipif(shutil.which("useradd") is None, reason="install passwd"),
]


def _run(*command: str, cwd: str | Path = "/") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - texts of this file
        command, check=False, capture_output=True, text=True, cwd=cwd, timeout=60
    )


def _sh(*command: str) -> None:
    done = _run(*command)
    assert done.returncode == 0, f"{command}: {done.stderr}"


class Machine:
    """Accounts that are gone when the test is."""

    def __init__(self) -> None:
        self.accounts: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.made_group = False
        if _run("getent", "group", TLJH_GROUP).returncode:
            _sh("groupadd", TLJH_GROUP)
            self.made_group = True

    def account(self, account: str, *options: str, group: bool = True) -> Home:
        """Make an account as TLJH does, and return its home as the hub has it."""
        _sh("useradd", "--create-home", *options, account)
        self.accounts.append(account)
        if group:
            _sh("gpasswd", "--add", account, TLJH_GROUP)
        return self.home(account)

    def tljh(self, name: str) -> Home:
        """Make the account of an attendee, with something in the home."""
        made = self.account(tljh_account(name))
        work = Path(made.path, "work")
        work.mkdir()
        work.joinpath("a.ipynb").write_text("{}")
        os.chown(work, made.uid, made.gid)
        return made

    @staticmethod
    def home(account: str) -> Home:
        """Return an account's home, as the hub writes it down."""
        found = pwd.getpwnam(account)
        return Home(
            kind=UNIX,
            path=found.pw_dir,
            uid=found.pw_uid,
            gid=found.pw_gid,
            account=account,
        )

    def runs(self, home: Home, script: str) -> "subprocess.Popen[bytes]":
        """Start a process as an account, and wait for its first byte."""
        process = subprocess.Popen(  # noqa: S603 - texts of this file
            ["/bin/sh", "-c", f"{script}; echo; while :; do sleep 600; done"],
            user=home.uid,
            group=home.gid,
            extra_groups=[],
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        return self._started(process)

    def runs_in_a_container(self, home: Home, root: Path) -> "subprocess.Popen[bytes]":
        """Start a process under another root folder, with the number of an account."""
        script = (
            "import os, sys, time\n"
            "os.chroot(sys.argv[1])\n"
            "os.setresuid(*[int(sys.argv[2])] * 3)\n"
            "print(flush=True)\n"
            "time.sleep(600)\n"
        )
        process = subprocess.Popen(  # noqa: S603 - texts of this file
            [sys.executable, "-c", script, str(root), str(home.uid)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return self._started(process)

    def _started(self, process: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.read(1)
        return process

    def close(self) -> None:
        """Take everything away again."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for account in self.accounts:
            with suppress(KeyError):
                home = Path(pwd.getpwnam(account).pw_dir)
                _sh("userdel", "--force", account)
                if _PREFIX in home.name:
                    shutil.rmtree(home, ignore_errors=True)
        if self.made_group:
            _sh("groupdel", TLJH_GROUP)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Return this machine, tidied up afterwards."""
    made = Machine()
    try:
        yield made
    finally:
        made.close()


def _remove(name: str, known: dict[str, Home], *, end: bool = False) -> None:
    disk.remove_home(name, known, judge(name, known), end_processes=end)


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True


class TestRemoving:
    """As root, with real accounts."""

    pytestmark = needs_root
    name = f"{_PREFIX}-ann"

    def test_a_home_and_its_account_go_and_the_neighbours_stay(
        self, machine: Machine
    ) -> None:
        mine, other = machine.tljh(self.name), machine.tljh(f"{self.name}a")
        known = {self.name: mine, f"{self.name}a": other}
        judged = judge(self.name, known)
        assert (judged.fate, judged.path) == (Fate.GOES, Path(mine.path))
        assert disk.size_of(Path(mine.path)).files >= 1
        _remove(self.name, known)
        assert not Path(mine.path).exists()
        assert not _exists(mine.account)
        assert Path(other.path, "work/a.ipynb").exists()
        assert _exists(other.account)
        assert judge(self.name, known).fate is Fate.NONE
        _remove(self.name, known)

    def test_links_lead_nowhere_and_depth_is_no_obstacle(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        mine = machine.tljh(self.name)
        treasure = tmp_path / "treasure"
        treasure.mkdir()
        (treasure / "kept").write_text("kept")
        home = Path(mine.path)
        (home / "link").symlink_to(treasure)
        (home / "work" / "root").symlink_to("/")
        os.link(treasure / "kept", home / "hard") if (
            treasure.stat().st_dev == home.stat().st_dev
        ) else None
        deep = "import os\nfor _ in range(3000):\n os.mkdir('d')\n os.chdir('d')"
        assert _run(sys.executable, "-c", deep, cwd=home).returncode == 0
        assert disk.size_of(home).files >= 1
        _remove(self.name, {self.name: mine})
        assert not home.exists()
        assert (treasure / "kept").read_text() == "kept"

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            ("uid", "has the user id"),
            ("path", "the home of"),
            ("owner", "belongs to user id 0"),
            ("link", "is no folder, but a link"),
            ("same uid", "has the same user id"),
            ("same home", "is the home of"),
            ("home inside", "is the home of"),
            ("admin", "is in the group sudo"),
            ("another attendee", "is the home of bob too"),
        ],
    )
    def test_what_is_not_as_tljh_made_it_is_in_doubt_and_stays(
        self, machine: Machine, spoil: str, why: str
    ) -> None:
        mine = machine.tljh(self.name)
        home, known = Path(mine.path), {self.name: mine}
        aside = home.with_name(f"{home.name}-aside")
        second = f"{_PREFIX}-second"
        try:
            if spoil == "uid":
                _sh("usermod", "--uid", str(mine.uid + 4321), mine.account)
            elif spoil == "path":
                _sh("usermod", "--home", "/root", mine.account)
            elif spoil == "owner":
                os.chown(home, 0, 0)
            elif spoil == "link":
                home.rename(aside)
                home.symlink_to(aside)
            elif spoil == "same uid":
                machine.account(second, "--non-unique", "--uid", str(mine.uid))
            elif spoil in ("same home", "home inside"):
                inside = home if spoil == "same home" else home / "inside"
                options = ("--no-create-home", "--home-dir", str(inside))
                _sh("useradd", *options, second)
                machine.accounts.append(second)
            elif spoil == "admin":
                _sh("gpasswd", "--add", mine.account, "sudo")
            else:
                known["bob"] = mine
            judged = judge(self.name, known)
            assert judged.fate is Fate.IN_DOUBT
            assert why in judged.why
            with pytest.raises(HostError):
                _remove(self.name, known)
            assert _exists(mine.account)
            kept = aside if spoil == "link" else home
            assert (kept / "work/a.ipynb").exists()
        finally:
            if spoil == "path":  # or tidying up would go by it
                _sh("usermod", "--home", str(home), mine.account)
            if home.is_symlink():
                home.unlink()
                aside.rename(home)

    @pytest.mark.parametrize("name", ["root", "daemon", "nobody"])
    def test_accounts_of_the_system_are_not_taken_for_an_attendees(
        self, machine: Machine, name: str
    ) -> None:
        known = {self.name: machine.home(name)}
        judged = judge(self.name, known)
        assert judged.fate is Fate.STAYS
        assert "userdel" not in judged.why
        with pytest.raises(HostError):
            _remove(self.name, known)
        assert _exists(name)

    def test_an_account_of_tljhs_group_that_is_anothers_name_stays(
        self, machine: Machine
    ) -> None:
        theirs = machine.tljh(f"{_PREFIX}-bob")
        known = {self.name: theirs}
        judged = judge(self.name, known)
        assert judged.fate is Fate.STAYS
        with pytest.raises(HostError):
            _remove(self.name, known)
        assert Path(theirs.path, "work").exists()

    def test_an_account_that_the_organiser_made_stays_and_is_named(
        self, machine: Machine
    ) -> None:
        mine = machine.account(tljh_account(self.name), group=False)
        judged = judge(self.name, {self.name: mine})
        assert judged.fate is Fate.STAYS
        assert f"sudo userdel --remove {mine.account}" in judged.why

    def test_a_folder_above_that_others_may_change_leaves_it_in_doubt(
        self, machine: Machine
    ) -> None:
        open_folder = Path("/srv") / f"{_PREFIX}-homes"
        open_folder.mkdir(mode=0o755)
        try:
            home = open_folder / tljh_account(self.name)
            mine = machine.account(home.name, "--home-dir", str(home))
            known = {self.name: mine}
            assert judge(self.name, known).fate is Fate.GOES
            open_folder.chmod(0o1777)
            judged = judge(self.name, known)
            assert judged.fate is Fate.IN_DOUBT
            assert f"others than root may change {open_folder}" in judged.why
        finally:
            shutil.rmtree(open_folder)

    def test_homes_behind_a_link_of_roots_go(self, machine: Machine) -> None:
        real, link = Path("/srv") / f"{_PREFIX}-real", Path("/srv") / f"{_PREFIX}-link"
        real.mkdir(mode=0o755)
        link.symlink_to(real)
        try:
            home = link / tljh_account(self.name)
            mine = machine.account(home.name, "--home-dir", str(home))
            _remove(self.name, {self.name: mine})
            assert list(real.iterdir()) == []
        finally:
            link.unlink()
            shutil.rmtree(real)

    def test_processes_are_named_and_ended_when_that_is_said(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = machine.tljh(self.name)
        known = {self.name: mine}
        process = machine.runs(mine, "trap '' TERM")
        others = machine.runs(machine.tljh(f"{_PREFIX}-bob"), "true")
        with pytest.raises(HostError, match=f"pid {process.pid}.*--end-processes"):
            _remove(self.name, known)
        assert Path(mine.path, "work/a.ipynb").exists()
        assert process.poll() is None
        monkeypatch.setattr(processes, "_TERM_SECONDS", 0.2)
        _remove(self.name, known, end=True)
        process.wait(10)
        assert others.poll() is None, "another's process is not touched"
        assert not _exists(mine.account)

    def test_nothing_is_left_that_cron_would_run_for_a_later_namesake(
        self, machine: Machine
    ) -> None:
        mine = machine.tljh(self.name)
        folder = Path("/var/spool/cron/crontabs")
        made = [x for x in (folder, folder.parent) if not x.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        mail = Path("/var/mail") / mine.account
        try:
            (folder / mine.account).write_text("* * * * * true\n")
            mail.write_text("")
            _remove(self.name, {self.name: mine})
            assert not (folder / mine.account).exists()
            assert not mail.exists()
        finally:
            (folder / mine.account).unlink(missing_ok=True)
            mail.unlink(missing_ok=True)
            for x in made:
                x.rmdir()

    @pytest.mark.parametrize("step", ["rm", "userdel"])
    def test_a_kill_on_the_way_is_begun_again(
        self, machine: Machine, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = machine.tljh(self.name)
        known = {self.name: mine}
        call: Callable[..., None] = disk._call

        def killed(*command: str) -> None:
            if command[0] != step:
                call(*command)
                return
            if step == "rm":  # half of it is gone
                shutil.rmtree(Path(mine.path, "work"))
            raise KeyboardInterrupt

        monkeypatch.setattr(disk, "_call", killed)
        with pytest.raises(KeyboardInterrupt):
            _remove(self.name, known)
        assert _exists(mine.account)
        monkeypatch.setattr(disk, "_call", call)
        _remove(self.name, known)
        assert not _exists(mine.account)
        assert not Path(mine.path).exists()

    def test_a_container_that_uses_the_same_number_goes_on(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        mine = machine.tljh(self.name)
        database = machine.runs_in_a_container(mine, tmp_path)
        work = machine.runs(mine, ":")
        with pytest.raises(HostError, match="still has processes") as refused:
            _remove(self.name, {self.name: mine})
        assert str(work.pid) in str(refused.value)
        assert str(database.pid) not in str(refused.value)
        _remove(self.name, {self.name: mine}, end=True)
        work.wait(30)
        assert not _exists(mine.account)
        assert database.poll() is None

    def test_what_has_changed_since_it_was_listed_is_not_removed(
        self, machine: Machine
    ) -> None:
        mine = machine.tljh(self.name)
        known = {self.name: mine}
        listed = judge(self.name, known)
        _sh("usermod", "--uid", str(mine.uid + 4321), mine.account)
        with pytest.raises(HostError, match="has the user id"):
            disk.remove_home(self.name, known, listed, end_processes=True)
        assert Path(mine.path, "work/a.ipynb").exists()

    def test_what_is_mounted_in_a_home_is_not_removed(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        mine = machine.tljh(self.name)
        inside = Path(mine.path, "with space")
        inside.mkdir()
        (tmp_path / "data").write_text("everybody's")
        if _run("mount", "--bind", str(tmp_path), str(inside)).returncode:
            pytest.skip("this machine may not mount")
        try:
            judged = judge(self.name, {self.name: mine})
            assert judged.fate is Fate.IN_DOUBT
            assert f"umount {inside}" in judged.why
        finally:
            _sh("umount", str(inside))
        assert (tmp_path / "data").exists()

    def test_an_account_that_userdel_could_not_remove_keeps_its_home(
        self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = machine.tljh(self.name)
        passwd = tmp_path / "passwd"
        passwd.write_text(f"{mine.account}a:x:1:1::/:\n")
        monkeypatch.setattr(homes, "_PASSWD", passwd)
        judged = judge(self.name, {self.name: mine})
        assert judged.fate is Fate.IN_DOUBT
        assert "of a directory service" in judged.why

    def test_the_state_folder_of_a_dynamic_user_goes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = Path("/srv") / f"{_PREFIX}-state"
        try:
            private = state / "private" / self.name
            private.mkdir(parents=True)
            os.chown(private, 61200, 61200)
            (private / "a.ipynb").write_text("{}")
            (state / self.name).symlink_to(f"private/{self.name}")
            monkeypatch.setattr(homes, "STATE_FOLDER", state)
            monkeypatch.setattr(disk, "STATE_FOLDER", state)
            home = Home(kind=UNIX, path=str(state / self.name), uid=61200, gid=61200)
            known = {self.name: home}
            _remove(self.name, known)
            assert not private.exists()
            assert not (state / self.name).is_symlink()
            assert judge(self.name, known).fate is Fate.NONE
            private.mkdir()
            assert judge(self.name, known).fate is Fate.IN_DOUBT, "it is root's"
        finally:
            shutil.rmtree(state)


def test_nobody_whose_home_the_hub_did_not_write_down_has_one_removed() -> None:
    assert judge("ann", {}).fate is Fate.NONE
    assert judge("ann", {"anna": Home(kind=UNIX, path="/home/x", uid=1, gid=1)}) == (
        judge("ann", {})
    )


def test_a_home_without_an_account_stays_and_is_named(tmp_path: Path) -> None:
    home = Home(kind=UNIX, path=str(tmp_path), uid=os.getuid(), gid=os.getgid())
    judged = judge("ann", {"ann": home})
    assert judged.fate is Fate.STAYS
    assert str(tmp_path) in judged.why
    gone = Home(kind=UNIX, path=str(tmp_path / "gone"), uid=1, gid=1)
    assert judge("ann", {"ann": gone}).fate is Fate.NONE


@pytest.mark.parametrize("path", ["/", "/home", "relative", "/home/../etc", "/root/.."])
def test_a_path_that_is_no_home_is_nothing_to_remove(path: str) -> None:
    for account in ("", "root", tljh_account("ann")):
        home = Home(kind=UNIX, path=path, uid=0, gid=0, account=account)
        assert judge("ann", {"ann": home}).fate is not Fate.GOES


def test_a_containers_volumes_stay_and_are_named() -> None:
    mounts = (
        Mount(kind="volume", source="jupyter-ann", target="/home/jovyan/work"),
        Mount(kind="bind", source="/data", target="/data"),
    )
    judged = judge("ann", {"ann": Home(kind=DOCKER, path="", mounts=mounts)})
    assert judged.fate is Fate.STAYS
    assert judged.volumes == ("jupyter-ann",)
    assert judged.why == "volume jupyter-ann and folder /data of Docker's host"


def test_long_names_are_shortened_as_tljh_does() -> None:
    assert tljh_account("ann") == "jupyter-ann"
    assert tljh_account("a" * 17) == "jupyter-" + "a" * 17
    assert tljh_account("a" * 24) == f"jupyter-{'a' * 18}-f8159"


def test_the_size_of_a_home_follows_no_link(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    (home / "link").symlink_to(tmp_path)
    size = disk.size_of(home)
    assert (size.files, size.is_all) == (2, True)
    assert 100_000 <= size.bytes < 200_000
    assert disk.size_of(tmp_path / "none") == disk.NOTHING
