"""Notebooks come into a home: no edit is ever lost, whatever the home, whenever."""

import concurrent.futures
import errno
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import jupyterhub_gpuworkshop

from .test_simcuda import python38_or_skip

SCRIPT = Path(jupyterhub_gpuworkshop.__file__).parent / "notebook" / "bring_material.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("bring_material", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bring_material = _load()


class Host:
    """Installed material, and one home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "material"
        self.home = folder / "home"
        self.home.mkdir()
        (self.folder / ".versions").mkdir(parents=True)
        self._number = 0
        self._parts: dict[tuple[str, str], str] = {}

    def install(self, files: dict[str, str], name: str = "intro", kind="notebooks"):
        """Install a version of a part; a text that begins with -> is a link."""
        self._number += 1
        version = f"{name}-{self._number}"
        root = self.folder / ".versions" / version
        root.mkdir()
        for rel, text in files.items():
            path = root / rel
            path.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("->"):
                path.symlink_to(text[2:])
            else:
                path.write_text(text)
        self._parts[kind, name] = version
        parts = [
            {"kind": kind, "name": name, "version": version}
            for (kind, name), version in self._parts.items()
        ]
        listed = self.folder / "installed.json"
        listed.with_suffix(".new").write_text(json.dumps({"format": 1, "parts": parts}))
        listed.with_suffix(".new").replace(listed)

    def bring(self, python: str = sys.executable) -> dict[str, Any]:
        """Run the script as it is run: a process of its own, its text on stdin."""
        with SCRIPT.open() as text:
            done = subprocess.run(  # noqa: S603 - a Python
                [python, "-I", "-S", "-B", "-", "--from", self.folder],
                cwd=self.home,
                stdin=text,
                capture_output=True,
                timeout=60,
            )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.count(b"\n") == 1
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def bring_here(self) -> dict[str, Any]:
        """Run it in this process: quicker."""
        before = Path.cwd()
        os.chdir(self.home)
        try:
            bringing = bring_material.Bringing(str(self.folder))
            bringing.run()
        finally:
            os.chdir(before)
        result: dict[str, Any] = bringing.result()
        return result

    def files(self) -> dict[str, str]:
        """Return what is in the home, as `install` takes it, but for the memory."""
        return {
            str(path.relative_to(self.home)): f"->{path.readlink()}"
            if path.is_symlink()
            else path.read_text()
            for path in sorted(self.home.rglob("*"))
            if (path.is_file() or path.is_symlink()) and ".local" not in path.parts
        }

    def memory(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.home / bring_material.STATE).read_text()
        )
        return found


def counts(result: dict[str, Any]) -> dict[str, int]:
    return {key: n for key, n in result.items() if key != "paths" and n}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("which", ["this Python", "Python 3.8"])
def test_notebooks_come_and_come_again_when_there_are_new_ones(host: Host, which: str):
    python = sys.executable if which == "this Python" else python38_or_skip()
    host.install({"start.ipynb": "1", "deep/er/more.ipynb": "2", "a b é.txt": ""})
    assert counts(host.bring(python)) == {"brought": 3}
    assert host.files() == {
        "intro/a b é.txt": "",
        "intro/deep/er/more.ipynb": "2",
        "intro/start.ipynb": "1",
    }
    assert counts(host.bring(python)) == {}
    host.install({"start.ipynb": "1", "deep/er/more.ipynb": "2b", "new.ipynb": "3"})
    assert counts(host.bring(python)) == {"brought": 1, "updated": 1}
    assert host.files() == {
        # What is no longer in the material stays: it may be somebody's work by now.
        "intro/a b é.txt": "",
        "intro/deep/er/more.ipynb": "2b",
        "intro/new.ipynb": "3",
        "intro/start.ipynb": "1",
    }
    host.install({"x.ipynb": "x"}, name="second-day")
    assert counts(host.bring(python)) == {"brought": 1}
    assert host.files()["second-day/x.ipynb"] == "x"


def test_an_edit_stays_and_the_new_version_comes_beside_it(host: Host):
    notebook = host.home / "intro/start.ipynb"
    host.install({"start.ipynb": "1"})
    host.bring()
    notebook.write_text("mine")
    assert counts(host.bring()) == {}
    host.install({"start.ipynb": "2"})
    result = host.bring()
    assert counts(result) == {"beside": 1, "kept": 1}
    assert result["paths"]["beside"] == ["intro/start-updated.ipynb"]
    host.install({"start.ipynb": "3"})
    assert counts(host.bring()) == {"beside": 1, "kept": 1}
    expected = {"intro/start.ipynb": "mine", "intro/start-updated.ipynb": "3"}
    assert host.files() == expected
    # They work on in the new one: it is theirs as well.
    (host.home / "intro/start-updated.ipynb").write_text("mine too")
    host.install({"start.ipynb": "4"})
    host.bring()
    assert host.files() == {
        "intro/start.ipynb": "mine",
        "intro/start-updated.ipynb": "mine too",
        "intro/start-updated-2.ipynb": "4",
    }


def test_what_they_deleted_stays_deleted_until_it_changes(host: Host):
    host.install({"start.ipynb": "1", "more.ipynb": "1"})
    host.bring()
    shutil.rmtree(host.home / "intro")
    host.install({"start.ipynb": "1", "more.ipynb": "2"})
    assert counts(host.bring()) == {"brought": 1, "kept": 1}
    assert host.files() == {"intro/more.ipynb": "2"}


def test_a_file_of_theirs_that_was_there_first_stays(host: Host):
    (host.home / "intro").mkdir()
    (host.home / "intro/start.ipynb").write_text("mine")
    (host.home / "intro/same.ipynb").write_text("same")
    host.install({"start.ipynb": "1", "same.ipynb": "same"})
    assert counts(host.bring()) == {"beside": 1, "kept": 1}
    assert host.files() == {
        "intro/same.ipynb": "same",
        "intro/start.ipynb": "mine",
        "intro/start-updated.ipynb": "1",
    }


def test_a_new_version_never_takes_the_name_of_another_file_of_the_material(host: Host):
    host.install({"a.ipynb": "1", "a-updated.ipynb": "the material's"})
    host.bring()
    (host.home / "intro/a.ipynb").write_text("mine")
    host.install({"a.ipynb": "2", "a-updated.ipynb": "the material's"})
    host.bring()
    assert host.files() == {
        "intro/a.ipynb": "mine",
        "intro/a-updated.ipynb": "the material's",
        "intro/a-updated-2.ipynb": "2",
    }


def test_a_replaced_file_keeps_its_mode_and_a_program_can_be_run(host: Host):
    host.install({"run.sh": "1", "start.ipynb": "1"})
    (host.folder / ".versions/intro-1/run.sh").chmod(0o755)
    host.bring()
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in host.home.glob("intro/*")}
    assert modes == {"run.sh": 0o755, "start.ipynb": 0o644}
    (host.home / "intro/start.ipynb").chmod(0o600)
    host.install({"run.sh": "1", "start.ipynb": "2"})
    host.bring()
    assert stat.S_IMODE((host.home / "intro/start.ipynb").stat().st_mode) == 0o600


def test_links_come_as_links_if_they_stay_in_the_part(host: Host):
    links = {
        "deep/in.ipynb": "->../start.ipynb",
        "out.ipynb": "->../../../etc/passwd",
        "deep/out": "->../../other/x",
        "absolute": "->/etc/passwd",
    }
    host.install({"start.ipynb": "1", **links})
    assert counts(host.bring()) == {"brought": 2}
    assert host.files() == {
        "intro/deep/in.ipynb": "->../start.ipynb",
        "intro/start.ipynb": "1",
    }
    host.install({"start.ipynb": "1", "deep/in.ipynb": "now a file"})
    host.bring()
    assert host.files()["intro/deep/in.ipynb"] == "now a file"


def test_data_sets_are_linked_where_nothing_else_has_the_name(host: Host):
    host.install({"big.bin": "1"}, name="images", kind="data")
    assert counts(host.bring()) == {}
    data = host.home / "data"
    assert data.readlink() == host.folder / "data"
    data.unlink()
    host.bring()
    assert not data.is_symlink()
    theirs = Host(host.home)
    theirs.install({"big.bin": "1"}, name="images", kind="data")
    (theirs.home / "data").write_text("mine")
    theirs.bring()
    assert theirs.files() == {"data": "mine"}


def test_a_link_to_data_follows_the_folder_when_that_is_moved(host: Host):
    host.install({"big.bin": "1"}, name="images", kind="data")
    host.bring()
    host.folder = host.folder.rename(host.folder.with_name("moved"))
    host.bring()
    assert (host.home / "data").readlink() == host.folder / "data"


def test_where_there_is_no_material_it_says_when_there_will_be(host: Host):
    result = host.bring()
    [(path, why)] = result["paths"]["failed"]
    assert path == str(host.folder / "installed.json")
    assert "has it from its next start on" in why
    assert host.files() == {}


def _as_link(home: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    (home / "intro").symlink_to(elsewhere)


def _as_deep_link(home: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    (home / "intro").mkdir()
    (home / "intro/deep").symlink_to(elsewhere)


def _as_file(home: Path, elsewhere: Path) -> None:
    (home / "intro").write_text("mine")


def _as_fifo(home: Path, elsewhere: Path) -> None:
    os.mkfifo(home / "intro")


@pytest.mark.parametrize("block", [_as_link, _as_deep_link, _as_file, _as_fifo])
def test_what_is_in_the_way_of_a_folder_is_told_and_left(
    host: Host, tmp_path: Path, block: Callable[[Path, Path], None]
):
    block(host.home, tmp_path / "elsewhere")
    before = {p: os.lstat(p) for p in host.home.rglob("*")}
    host.install({"deep/start.ipynb": "1"})
    host.install({"x.ipynb": "1"}, name="other")
    result = host.bring()
    assert counts(result) == {"brought": 1, "failed": 1}
    assert "is there and is no folder" in result["paths"]["failed"][0][1]
    assert not (tmp_path / "elsewhere" / "start.ipynb").exists()
    assert {p: os.lstat(p).st_ino for p in before} == {
        p: seen.st_ino for p, seen in before.items()
    }
    # It is tried again once it is out of the way.
    for name in ("intro/deep", "intro"):
        path = host.home / name
        if path.is_symlink() or path.is_fifo() or path.is_file():
            path.unlink()
    assert counts(host.bring()) == {"brought": 1}


def test_what_is_in_the_way_of_a_file_gets_it_beside(host: Host):
    (host.home / "intro/c.ipynb").mkdir(parents=True)
    os.mkfifo(host.home / "intro/a.ipynb")
    (host.home / "intro/b.ipynb").symlink_to("/etc/passwd")
    (host.home / "intro/a-updated.ipynb").symlink_to("/dev/zero")
    host.install({"a.ipynb": "1", "b.ipynb": "2", "c.ipynb": "3"})
    assert counts(host.bring()) == {"beside": 3, "kept": 3}
    intro = host.home / "intro"
    assert (intro / "a-updated-2.ipynb").read_text() == "1"
    assert (intro / "b-updated.ipynb").read_text() == "2"
    assert (intro / "c-updated.ipynb").read_text() == "3"
    assert (intro / "b.ipynb").readlink() == Path("/etc/passwd")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"\xff{"),
        lambda path: path.write_text('{"known": 1}'),
        lambda path: path.write_text("[" * 100_000),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
        lambda path: path.unlink(),
    ],
)
def test_a_memory_that_is_lost_costs_nobody_their_work(
    host: Host, spoil: Callable[[Path], object]
):
    host.install({"start.ipynb": "1", "more.ipynb": "1"})
    host.bring()
    (host.home / "intro/start.ipynb").write_text("mine")
    spoil(host.home / bring_material.STATE)
    host.install({"start.ipynb": "2", "more.ipynb": "2"})
    host.bring()
    files = host.files()
    assert files["intro/start.ipynb"] == "mine"
    assert files["intro/start-updated.ipynb"] == "2"
    # It is not known any more that this one is the material's.
    assert files["intro/more-updated.ipynb"] == "2"


def test_a_file_that_is_open_elsewhere_is_not_taken_from_under_them(host: Host):
    host.install({"start.ipynb": "1"})
    host.bring()
    with (host.home / "intro/start.ipynb").open("r+") as editor:
        host.install({"start.ipynb": "2"})
        assert counts(host.bring()) == {"beside": 1, "kept": 1}
        editor.write("mine")
    assert host.files() == {
        "intro/start.ipynb": "mine",
        "intro/start-updated.ipynb": "2",
    }


def test_one_who_saves_at_the_moment_of_the_swap_keeps_it(host: Host, monkeypatch):
    host.install({"start.ipynb": "1"})
    host.bring_here()
    host.install({"start.ipynb": "2"})
    real = bring_material.rename

    def rename(folder: int, old: str, new: str, how: int) -> None:
        monkeypatch.setattr(bring_material, "rename", real)
        (host.home / "intro/start.ipynb").write_text("mine")
        real(folder, old, new, how)

    monkeypatch.setattr(bring_material, "rename", rename)
    assert counts(host.bring_here()) == {"beside": 1, "kept": 1}
    assert host.files() == {
        "intro/start.ipynb": "mine",
        "intro/start-updated.ipynb": "2",
    }


def test_two_runs_at_once_in_one_home_bring_it_once(host: Host):
    host.install({f"{number}.ipynb": str(number) for number in range(50)})
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        results = [x.result() for x in [threads.submit(host.bring) for _ in range(4)]]
    assert sorted(x["brought"] for x in results) == [0, 0, 0, 50]
    assert not any(x["failed"] or x["beside"] for x in results)
    assert len(host.files()) == 50


def test_what_changes_while_it_is_copied_does_not_come(host: Host, tmp_path: Path):
    source = tmp_path / "half.ipynb"
    source.write_text("half of i")
    item = bring_material.Item("half.ipynb", str(source), "announced:9")
    folder = os.open(host.home, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError, match="changed while it was copied"):
        bring_material.write(folder, "half.ipynb", item, None)
    os.close(folder)
    assert list(host.home.iterdir()) == []


def test_a_file_system_that_cannot_swap_gets_it_too(host: Host, monkeypatch):
    def rename(folder: int, old: str, new: str, how: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(bring_material, "rename", rename)
    host.install({"start.ipynb": "1", "more.ipynb": "1"})
    assert counts(host.bring_here()) == {"brought": 2}
    (host.home / "intro/more.ipynb").write_text("mine")
    host.install({"start.ipynb": "2", "more.ipynb": "2"})
    assert counts(host.bring_here()) == {"beside": 1, "kept": 1, "updated": 1}
    assert host.files() == {
        "intro/more.ipynb": "mine",
        "intro/more-updated.ipynb": "2",
        "intro/start.ipynb": "2",
    }


class _Home(RuleBasedStateMachine):
    """What an attendee and an organiser may do, in any order."""

    names = st.sampled_from(["a.ipynb", "a-updated.ipynb", "d/b.ipynb"])
    contents = st.sampled_from(["1", "2", "3", ""])

    @initialize(files=st.dictionaries(names, contents))
    def begin(self, files: dict[str, str]) -> None:
        self.host = Host(make_folder())
        self.edits: dict[str, str] = {}
        self.edit_number = 0
        self.change(files)

    @rule(files=st.dictionaries(names, contents))
    def change(self, files: dict[str, str]) -> None:
        self.host.install(files)

    @rule(name=st.sampled_from(["a.ipynb", "a-updated.ipynb", "a-updated-2.ipynb"]))
    def edit(self, name: str) -> None:
        self.edit_number += 1
        path = self.host.home / "intro" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"edit {self.edit_number}")
        self.edits[f"intro/{name}"] = path.read_text()

    @rule(which=st.integers(0, 9))
    def delete(self, which: int) -> None:
        files = sorted(self.host.files())
        if files:
            name = files[which % len(files)]
            (self.host.home / name).unlink()
            self.edits.pop(name, None)

    @rule()
    def forget(self) -> None:
        (self.host.home / bring_material.STATE).unlink(missing_ok=True)

    @rule()
    def bring(self) -> None:
        assert not self.host.bring_here()["failed"]

    @rule(step=st.integers(0, 60))
    def bring_and_be_killed(self, step: int) -> None:
        bring_until_killed(self.host, step)

    @invariant()
    def no_edit_is_lost_or_altered(self) -> None:
        if hasattr(self, "host"):
            files = self.host.files()
            assert {name: files.get(name) for name in self.edits} == self.edits


_folders: list[Path] = []


def make_folder() -> Path:
    folder = _folders[0] / str(len(list(_folders[0].iterdir())))
    folder.mkdir()
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[None]:
    _folders.append(tmp_path)
    yield
    _folders.pop()


_Home.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None
)


@pytest.mark.usefixtures("folders")
class TestAnyOrder(_Home.TestCase):  # type: ignore[misc,name-defined]
    """An edit is never lost or altered."""


_STEPS = (
    *("open", "close", "mkdir", "rename", "unlink", "symlink", "write", "fsync"),
    *("readlink", "stat", "fchmod"),
)


def bring_until_killed(host: Host, step: int) -> bool:
    """Run it in a process that is killed before a call; return whether it was."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real(*args, **kwargs)

            return call

        try:
            for name in _STEPS:
                setattr(os, name, counted(getattr(os, name)))
            bring_material.rename = counted(bring_material.rename)
            host.bring_here()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _prepared(folder: Path) -> Host:
    host = Host(folder)
    host.install({"a.ipynb": "1", "b.ipynb": "1", "c.ipynb": "1", "l": "->a.ipynb"})
    host.bring_here()
    (host.home / "intro/b.ipynb").write_text("mine")
    (host.home / "intro/c.ipynb").unlink()
    host.install(
        {"a.ipynb": "2", "b.ipynb": "2", "c.ipynb": "2", "l": "->b.ipynb", "n": "2"}
    )
    return host


_AFTER = {
    "intro/a.ipynb": "2",
    "intro/b-updated.ipynb": "2",
    "intro/b.ipynb": "mine",
    "intro/c.ipynb": "2",
    "intro/l": "->b.ipynb",
    "intro/n": "2",
}


def test_a_run_that_is_killed_at_any_step_leaves_whole_files_and_is_made_good(
    tmp_path: Path,
):
    step, was_killed = 0, True
    while was_killed:
        (tmp_path / str(step)).mkdir()
        host = _prepared(tmp_path / str(step))
        was_killed = bring_until_killed(host, step)
        seen = {k: x for k, x in host.files().items() if "gpuworkshop-" not in k}
        old = {"intro/a.ipynb": "1", "intro/l": "->a.ipynb"}
        assert all(x in (old.get(k), _AFTER[k]) for k, x in seen.items()), step
        assert seen["intro/b.ipynb"] == "mine"
        host.bring_here()
        assert host.files() == _AFTER, step
        assert counts(host.bring_here()) == {}
        step += 1
    assert step > 50


def test_a_home_that_is_full_keeps_whole_files_and_gets_the_rest_later(
    tmp_path: Path, monkeypatch
):
    for step in range(1000):
        (tmp_path / str(step)).mkdir()
        host = _prepared(tmp_path / str(step))
        left = [step]
        real = os.write

        def write(handle: int, data: bytes, left=left, real=real) -> int:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
            return int(real(handle, data[:1]))

        monkeypatch.setattr(os, "write", write)
        result = host.bring_here()
        monkeypatch.undo()
        if not result["failed"]:
            break
        assert result["paths"]["failed"][0][1] == "Disk quota exceeded"
        assert not [name for name in host.files() if "gpuworkshop-" in name]
        seen = host.files()
        assert all(seen[k] in ("1", "->a.ipynb", _AFTER[k]) for k in seen)
        host.bring_here()
        assert host.files() == _AFTER
    assert step == 4


@pytest.mark.root
def test_a_home_on_a_disk_that_is_really_full(tmp_path: Path, request):
    if os.geteuid() != 0:
        pytest.skip("run as root: it mounts a file system")
    host = Host(tmp_path)
    mount, umount = shutil.which("mount"), shutil.which("umount")
    assert mount
    assert umount
    mounted = subprocess.run(  # noqa: S603 - a fixed program
        [mount, "-t", "tmpfs", "-o", "size=256k", "none", host.home],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs for us")
    request.addfinalizer(
        lambda: subprocess.run([umount, host.home], check=True)  # noqa: S603 - a fixed program
    )
    host.install({"a.ipynb": "1" * 100_000, "b.ipynb": "1" * 90_000, "c": "1"})
    host.bring()
    host.install({"a.ipynb": "2" * 100_000, "b.ipynb": "2" * 90_000, "c": "2"})
    result = host.bring()
    assert result["paths"]["failed"][0] == ["intro/a.ipynb", "No space left on device"]
    assert {x[0] for x in host.files().values()} == {"1"}
    (host.home / "intro/b.ipynb").unlink()
    result = host.bring()
    assert counts(result)["updated"] >= 1
    assert host.files()["intro/a.ipynb"] == "2" * 100_000
