"""Material on its way from the host into homes, by real hubs and real processes."""

import asyncio
import json
import logging
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub import material
from jupyterhub_gpuworkshop.hub.homes import Home, Homes, read_homes
from jupyterhub_gpuworkshop.hub.material import (
    MaterialBringer,
    first_url,
    in_words,
    run_on_host,
)
from jupyterhub_gpuworkshop.machine.material import INSTALLED, Installed, Part
from tests.conftest import require_engine

from .running_hub import HERE, wait_for


def install(folder: Path, number: int, files: dict[str, str], *, data=False) -> None:
    """Install a version of the notebooks `intro`, as the command does."""
    root = folder / ".versions" / f"intro-{number}"
    for rel, text in files.items():
        path = root / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    parts = [Part(kind="notebooks", name="intro", version=root.name)]
    if data:
        parts.append(Part(kind="data", name="images", version="images-1"))
    installed = Installed(folder=folder, parts=tuple(parts))
    (folder / "new").write_text(installed.as_json())
    (folder / "new").replace(folder / INSTALLED)


def result(**changes: object) -> bytes:
    paths = {"beside": [], "failed": []}
    said = {"brought": 0, "updated": 0, "beside": 0, "failed": 0, "paths": paths}
    return json.dumps({**said, **changes}).encode()


@pytest.mark.parametrize(
    ("said", "done", "failed"),
    [
        (result(), "", ""),
        (result(brought=3), "3 brought", ""),
        (
            result(updated=1, beside=1, paths={"beside": ["a-updated"], "failed": []}),
            "1 replaced by new versions, 1 beside what they have edited, "
            "new: 'a-updated'",
            "",
        ),
        (
            result(failed=1, paths={"beside": [], "failed": [["a", "No space"]]}),
            "",
            "1 could not be brought: 'a' ('No space')",
        ),
    ],
)
def test_the_log_says_what_was_done(said: bytes, done: str, failed: str):
    assert in_words(said) == (done, failed)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[" * 60_000,
        b"\xff\n2026 ERROR forged",
        b"[]",
        b"null",
        result(brought="x"),
        result(brought=float("inf")),
        result(paths=None),
        result(paths={"beside": 3, "failed": []}),
        result(paths={"beside": [], "failed": [["only a path"]]}),
    ],
)
def test_what_an_attendees_process_may_say_forges_no_line(said: bytes):
    done, failed = in_words(said)
    assert done == ""
    assert failed.startswith("bringing it ended without a result: ")
    assert "\n" not in failed
    assert len(failed) < 1500


def test_a_name_of_a_file_forges_no_line():
    paths = {"beside": ["a\nb" * 500] * 9, "failed": [["c\nd" * 500, "e\u2028f"]]}
    said = result(beside=9, failed=1, paths=paths)
    for text in in_words(said):
        assert text.isprintable()
        assert len(text) < 3000


@pytest.mark.parametrize(
    ("home", "root", "default_url", "expected"),
    [
        ("", "", "", "/lab/tree/intro/a%20b.ipynb"),
        ("/home/ann", "", "/lab", "/lab/tree/intro/a%20b.ipynb"),
        ("/home/ann", "/home/ann", "/lab/", "/lab/tree/intro/a%20b.ipynb"),
        ("", "", "/tree", "/notebooks/intro/a%20b.ipynb"),
        ("/home/ann", "/", "", "/lab/tree/home/ann/intro/a%20b.ipynb"),
        ("/home/ann", "~", "", "/lab/tree/intro/a%20b.ipynb"),
        ("", "~/intro", "", "/lab/tree/a%20b.ipynb"),
        # What is not below the server's root cannot be opened by it.
        ("", "/srv", "", ""),
        ("/home/ann", "/srv", "", ""),
        ("", "~/work", "", ""),
        # What the organiser wants to be seen stays.
        ("", "", "/lab/tree/mine.ipynb", ""),
        ("", "", "/voila", ""),
    ],
)
def test_what_is_opened_first(home: str, root: str, default_url: str, expected: str):
    said = first_url("intro/a b.ipynb", home=home, root=root, default_url=default_url)
    assert said == expected


@pytest.fixture
def here(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(
        kind="unix", path=str(tmp_path / "home"), uid=os.geteuid(), gid=os.getegid()
    )


class StandIn:
    """What `MaterialBringer` sees of a spawner."""

    _log_name = "ann"
    lease = SimpleNamespace(id="lease-1")
    user = SimpleNamespace(name="ann", orm_user=SimpleNamespace(created=None))

    def __init__(self, home: Home | None, script: Path | None = None) -> None:
        self.home = home
        self.script = script

    async def find_home(self):
        if self.home is None:
            raise HostError("There is no Unix user 'ann'.")
        return self.home

    async def run_in_home(self, home, script, arguments):
        return await run_on_host(home, self.script or script, arguments)


@pytest.fixture
def bringer(tmp_path: Path) -> MaterialBringer:
    (tmp_path / "material").mkdir()
    homes = Homes(tmp_path / "roster.homes.json")
    log = logging.getLogger("material")
    log.setLevel(logging.INFO)
    return MaterialBringer(tmp_path / "material", None, homes, log)


async def test_a_start_brings_the_material_and_writes_down_the_home(
    bringer: MaterialBringer, here: Home, tmp_path: Path, caplog
):
    caplog.set_level(logging.INFO)
    await bringer.at_start(StandIn(here))
    assert read_homes(tmp_path / "roster.homes.json") == {"ann": here}
    assert "Material for ann" not in caplog.text
    install(bringer.folder, 1, {"a.ipynb": "1"}, data=True)
    await bringer.at_start(StandIn(here))
    assert (Path(here.path) / "intro/a.ipynb").read_text() == "1"
    assert (Path(here.path) / "data").readlink() == bringer.folder / "data"
    assert "Material for ann: 1 brought" in caplog.text


async def test_servers_that_run_get_an_update_once(
    bringer: MaterialBringer, here: Home
):
    started = []

    class Counted(StandIn):
        async def run_in_home(self, home, script, arguments):
            started.append(home)
            return await super().run_in_home(home, script, arguments)

    ann = Counted(here)
    await bringer.watch([ann])
    install(bringer.folder, 1, {"a.ipynb": "1"})
    for number in (1, 2):
        await bringer.watch([ann])
        await bringer.watch([ann])
        for task in list(bringer._tasks):
            await task
        assert (Path(here.path) / "intro/a.ipynb").read_text() == str(number)
        assert len(started) == number
        install(bringer.folder, number + 1, {"a.ipynb": str(number + 1)})


async def test_no_home_and_no_script_and_a_broken_list_keep_no_server_from_starting(
    bringer: MaterialBringer, here: Home, tmp_path: Path, caplog
):
    install(bringer.folder, 1, {"a.ipynb": "1"})
    await bringer.at_start(StandIn(None))
    assert "ann gets no material: There is no Unix user" in caplog.text
    fails = tmp_path / "fails.py"
    fails.write_text("raise SystemExit('no such thing')")
    await bringer.at_start(StandIn(here, fails))
    assert "it ended with 1: b'no such thing" in caplog.text
    await bringer.at_start(StandIn(here, tmp_path / "missing.py"))
    assert "missing.py" in caplog.text
    (bringer.folder / INSTALLED).write_text("{")
    await bringer.at_start(StandIn(here))
    assert "is no list of installed material" in caplog.text


async def test_a_spawner_that_reaches_no_homes_is_told_of_once(
    bringer: MaterialBringer, caplog
):
    class Elsewhere(StandIn):
        async def find_home(self):
            return None

    await bringer.at_start(Elsewhere(None))
    assert not caplog.text
    install(bringer.folder, 1, {"a.ipynb": "1"})
    for _ in range(2):
        await bringer.at_start(Elsewhere(None))
    assert caplog.text.count("Elsewhere reaches no homes") == 1


async def test_a_start_does_not_wait_for_ever_and_the_script_is_ended(
    bringer: MaterialBringer, here: Home, tmp_path: Path, caplog, monkeypatch
):
    install(bringer.folder, 1, {"a.ipynb": "1"})
    monkeypatch.setattr(material, "START_SECONDS", 0.01)
    monkeypatch.setattr(material, "MOST_SECONDS", 1.0)
    hangs = tmp_path / "hangs.py"
    hangs.write_text(
        "import os, time\n"
        "open('pid', 'w').write(str(os.getpid()))\n"
        "os.rename('pid', 'pid.txt')\n"
        "time.sleep(600)\n"
    )
    await bringer.at_start(StandIn(here, hangs))
    assert "The server starts, and it goes on being brought" in caplog.text
    for task in list(bringer._tasks):
        await task
    assert "bringing the material was ended after" in caplog.text
    pid = (Path(here.path) / "pid.txt").read_text()
    assert not psutil.pid_exists(int(pid))


async def test_whoever_stops_the_script_again_and_again_holds_up_nobody_else(
    bringer: MaterialBringer, here: Home, tmp_path: Path, monkeypatch
):
    install(bringer.folder, 1, {"a.ipynb": "1"})
    hangs = tmp_path / "hangs.py"
    hangs.write_text("import signal; signal.pause()")
    monkeypatch.setattr(material, "START_SECONDS", 0.01)
    for _ in range(12):
        await bringer.at_start(StandIn(here, hangs))
    bob = StandIn(here)
    bob.user = SimpleNamespace(name="bob", orm_user=SimpleNamespace(created=None))
    monkeypatch.setattr(material, "START_SECONDS", 20.0)
    await bringer.at_start(bob)
    brought = (Path(here.path) / "intro/a.ipynb").exists()
    for task in list(bringer._tasks):
        task.cancel()
    await asyncio.gather(*bringer._tasks, return_exceptions=True)
    assert brought


async def test_a_script_that_talks_without_end_is_ended(
    bringer: MaterialBringer, here: Home, tmp_path: Path, caplog
):
    install(bringer.folder, 1, {"a.ipynb": "1"})
    talks = tmp_path / "talks.py"
    talks.write_text("while True: print('x' * 1000)")
    await bringer.at_start(StandIn(here, talks))
    assert "ann gets no material: the script says more than it can" in caplog.text


@pytest.mark.hub
def test_an_update_reaches_a_server_that_runs_and_an_edit_stays(make_hub, tmp_path):
    folder = tmp_path / "material"
    folder.mkdir()
    install(folder, 1, {"start.ipynb": "1", "more.ipynb": "1"}, data=True)
    workshop = {"material": {"folder": str(folder), "open_first": "intro/start.ipynb"}}
    hub = make_hub(workshop=workshop).start()
    hub.add_users("ann", "zoe")
    hub.spawn("ann")
    intro = tmp_path / "home/ann/intro"
    # It is there as soon as the server counts as ready.
    assert (intro / "start.ipynb").read_text() == "1"
    environment = hub.environment_of("ann")
    assert environment["JUPYTERHUB_DEFAULT_URL"] == "/lab/tree/intro/start.ipynb"
    assert environment["GPUWORKSHOP_DATA"] == f"{folder}/data"
    (intro / "start.ipynb").write_text("mine")
    install(folder, 2, {"start.ipynb": "2", "more.ipynb": "2"})
    wait_for((intro / "start-updated.ipynb").exists, why="no update came")
    wait_for(lambda: (intro / "more.ipynb").read_text() == "2")
    assert (intro / "start.ipynb").read_text() == "mine"
    homes = read_homes(tmp_path / "roster.homes.json")
    assert list(homes) == ["ann"]
    assert homes["ann"].path == str(tmp_path / "home/ann")
    # A hub that was away during an update brings it when it is back.
    hub.kill()
    install(folder, 3, {"start.ipynb": "2", "more.ipynb": "3"})
    hub.start()
    wait_for(lambda: (intro / "more.ipynb").read_text() == "3", why=hub.log[-3000:])
    hub.spawn("zoe")
    assert (tmp_path / "home/zoe/intro/more.ipynb").read_text() == "3"
    assert hub.environment_of("zoe").get("GPUWORKSHOP_DATA") is None


@pytest.mark.hub
def test_an_organisers_own_first_page_stays(make_hub):
    workshop = {"material": {"open_first": "intro/start.ipynb"}}
    early = 'c.Spawner.default_url = "/lab/tree/mine.ipynb"'
    hub = make_hub(workshop=workshop, early=early).start()
    hub.add_users("ann")
    hub.spawn("ann")
    said = hub.environment_of("ann")["JUPYTERHUB_DEFAULT_URL"]
    assert said == "/lab/tree/mine.ipynb"


_AS_UNIX_USERS = """
c.JupyterHub.spawner_class = "gpu-local"
c.LocalProcessSpawner.notebook_dir = "/"
c.Spawner.cmd = [{python!r}, "-S", "-E", {stub!r}]
"""


def _run(program: str, *arguments: str) -> None:
    path = shutil.which(program)
    assert path is not None
    subprocess.run([path, *arguments], check=True, capture_output=True)  # noqa: S603 - fixed programs


@pytest.fixture
def unix_users():
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    require_engine(
        "root",
        os.geteuid() == 0 and None not in (shutil.which("useradd"), python),
        "run as root on a machine with useradd and a python3 of its own",
    )
    # Of this test's own: others may run beside it.
    names = [f"gpuws-{name}-{os.getpid()}" for name in ("ann", "zoe")]
    for name in names:
        _run("useradd", "--create-home", name)
        Path(f"/home/{name}").chmod(0o700)
    yield names
    for name in names:
        _run("userdel", "--force", "--remove", name)


@pytest.fixture
def open_folder():
    with tempfile.TemporaryDirectory(prefix="gpuworkshop-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def unix_hub(make_hub, unix_users, open_folder):
    """A hub that starts servers as Unix users, with material that it may bring."""
    stub = shutil.copy(HERE / "stub_server.py", open_folder)
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    folder = open_folder / "material"
    folder.mkdir()
    install(folder, 1, {"start.ipynb": "1", "deep/x.ipynb": "1"})
    hub = make_hub(
        workshop={
            "material": {"folder": str(folder), "open_first": "intro/start.ipynb"}
        },
        early=_AS_UNIX_USERS.format(python=python, stub=stub),
    ).start()
    hub.add_users(*unix_users)
    yield hub
    for name in unix_users:
        if hub.server(name):
            hub.stop_server(name)


@pytest.mark.hub
@pytest.mark.root
def test_a_hostile_home_reaches_nothing_that_its_owner_does_not(
    unix_hub, unix_users, open_folder
):
    hub, folder = unix_hub, open_folder / "material"
    ann, zoe = unix_users
    # As the attendee would: links to where only root, or another, may write.
    theirs = pwd.getpwnam(ann)
    home = Path(theirs.pw_dir)
    (home / "intro").mkdir()
    os.chown(home / "intro", theirs.pw_uid, theirs.pw_gid)
    victim = Path(f"/home/{zoe}")
    (home / "intro/deep").symlink_to(victim)
    (home / "intro/start.ipynb").symlink_to("/etc/gpuworkshop-test")
    hub.spawn(ann)
    assert not (victim / "x.ipynb").exists()
    assert not Path("/etc/gpuworkshop-test").exists()
    brought = home / "intro/start-updated.ipynb"
    assert brought.read_text() == "1"
    for path in (brought, home / ".local/share/gpuworkshop/material.json"):
        assert path.stat().st_uid == theirs.pw_uid
        assert path.stat().st_gid == theirs.pw_gid
    assert "'intro/deep/x.ipynb'" in hub.log
    # Nor by where the memory is kept: a link to the other's home.
    shutil.rmtree(home / ".local")
    (home / ".local").symlink_to(victim)
    (home / "intro/deep").unlink()
    install(folder, 2, {"start.ipynb": "2", "deep/x.ipynb": "1"})
    wait_for(lambda: "('Permission denied')" in hub.log, why=hub.log[-3000:])
    assert not list(victim.glob(".local*"))
    assert not list(victim.glob("[!.]*"))
    # A home that is a link itself is not entered.
    hub.stop_server(ann)
    home.rename(open_folder / "moved")
    home.symlink_to(victim)
    hub.spawn(ann)
    assert "is no folder, and is not entered" in hub.log
    assert not (victim / "intro").exists()
    home.unlink()
    (open_folder / "moved").rename(home)
    hub.stop_server(ann)


@pytest.mark.hub
@pytest.mark.root
def test_what_is_brought_is_the_attendees_and_is_what_they_see_first(
    unix_hub, unix_users
):
    hub, zoe = unix_hub, unix_users[1]
    hub.spawn(zoe)
    theirs = pwd.getpwnam(zoe)
    brought = Path(theirs.pw_dir) / "intro/start.ipynb"
    assert brought.read_text() == "1"
    facts = brought.stat()
    assert (facts.st_uid, facts.st_gid) == (theirs.pw_uid, theirs.pw_gid)
    assert stat.S_IMODE(facts.st_mode) == 0o644
    first = f"/lab/tree/home/{zoe}/intro/start.ipynb"
    server = psutil.Process(hub.server(zoe)["state"]["pid"])
    assert server.environ()["JUPYTERHUB_DEFAULT_URL"] == first
    assert read_homes(hub.folder / "roster.homes.json")[zoe].account == zoe
