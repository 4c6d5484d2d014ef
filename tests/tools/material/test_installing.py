"""Installing and updating: what is fetched again, what stays, and what is said."""

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.machine.material import read_installed, stamp
from jupyterhub_gpuworkshop.tools.material import installing, places
from jupyterhub_gpuworkshop.tools.material.installing import Became, Outcome
from jupyterhub_gpuworkshop.tools.material.store import Store
from jupyterhub_gpuworkshop.workshop import Workshop
from tests.conftest import require_engine

from .web import Site
from .worlds import leftovers, listed, put, run, seen, tar_of, workshop, zip_of

INTRO = {"start.ipynb": b"{}", "img/one.png": b"\x89PNG"}
OTHER = {"start.ipynb": b"{1}", "new.ipynb": b"{2}"}


def became(outcomes: list[Outcome]) -> list[tuple[str, Became]]:
    return [(one.label, one.became) for one in outcomes]


def only(outcomes: list[Outcome]) -> Outcome:
    (one,) = outcomes
    return one


def test_what_is_installed_is_everybodys_to_read_and_nobodys_to_write(
    tmp_path: Path,
) -> None:
    source = put(tmp_path / "intro", INTRO)
    (source / "start.ipynb").chmod(0o600)
    old = os.umask(0o077)
    try:
        run(workshop(tmp_path, notebooks={"intro": str(source)}))
    finally:
        os.umask(old)
    folder = tmp_path / "m"
    assert seen(folder) == listed(folder) == {"notebooks/intro": INTRO}
    assert os.readlink(folder / "notebooks/intro").startswith("../.versions/intro-")  # noqa: PTH115
    assert stat.S_IMODE((folder / ".incoming").stat().st_mode) == 0o700
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() or path.name == ".incoming":
            continue
        is_record = path.parent.name == ".versions" and path.suffix == ".json"
        is_record |= path.name == ".lock"  # whoever can open it could hold it
        mode = stat.S_IMODE(path.stat().st_mode)
        expected = 0o755 if path.is_dir() else 0o600 if is_record else 0o644
        assert mode == expected, path


def test_what_is_there_and_unchanged_is_left_as_it_is(
    tmp_path: Path, site: Site
) -> None:
    site.content, site.etag = zip_of(INTRO), '"1"'
    source = put(tmp_path / "intro", INTRO)
    what = workshop(
        tmp_path,
        notebooks={"here": str(source), "web": f"{site.url}/x.zip"},
    )
    run(what)
    before, asked = stamp(tmp_path / "m"), len(site.asked)
    assert {one.became for one in run(what)} == {Became.UNCHANGED}
    assert len(site.asked) == asked
    assert {one.became for one in run(what, again=True)} == {Became.UNCHANGED}
    assert len(site.asked) == asked + 1
    assert stamp(tmp_path / "m") == before
    assert not leftovers(tmp_path / "m")


def test_an_update_brings_what_has_changed_and_that_alone(
    tmp_path: Path, site: Site
) -> None:
    site.content, site.etag = zip_of(INTRO), '"1"'
    source = put(tmp_path / "here", INTRO)
    what = workshop(
        tmp_path, notebooks={"here": str(source), "web": f"{site.url}/x.zip"}
    )
    run(what)
    before = stamp(tmp_path / "m")
    site.content, site.etag = zip_of(OTHER), '"2"'
    assert became(run(what, again=True)) == [
        ("notebooks/here", Became.UNCHANGED),
        ("notebooks/web", Became.INSTALLED),
    ]
    assert seen(tmp_path / "m") == {"notebooks/here": INTRO, "notebooks/web": OTHER}
    assert stamp(tmp_path / "m") != before


def test_a_server_that_tells_no_versions_is_compared_by_what_it_sends(
    tmp_path: Path, site: Site
) -> None:
    site.content = zip_of(INTRO)
    what = workshop(tmp_path, data={"web": f"{site.url}/x.zip"})
    run(what)
    version = read_installed(tmp_path / "m").data[0].version
    assert only(run(what, again=True)).became is Became.UNCHANGED
    site.content = zip_of(OTHER)
    assert only(run(what, again=True)).became is Became.INSTALLED
    assert read_installed(tmp_path / "m").data[0].version != version


def test_a_part_that_is_named_no_more_is_removed_and_that_is_said(
    tmp_path: Path,
) -> None:
    source = str(put(tmp_path / "intro", INTRO))
    run(workshop(tmp_path, notebooks={"a": source}, data={"b": source}))
    outcomes = run(workshop(tmp_path, notebooks={"a": source}))
    assert became(outcomes)[0] == ("data/b", Became.REMOVED)
    assert seen(tmp_path / "m") == listed(tmp_path / "m") == {"notebooks/a": INTRO}
    assert not leftovers(tmp_path / "m")


def test_the_same_file_under_another_address_is_installed_from_there(
    tmp_path: Path,
) -> None:
    first, second = put(tmp_path / "1", INTRO), put(tmp_path / "2", OTHER)
    run(workshop(tmp_path, notebooks={"a": str(first)}))
    run(workshop(tmp_path, notebooks={"a": str(second)}))
    assert seen(tmp_path / "m") == {"notebooks/a": OTHER}


def test_a_single_file_is_a_part_too(tmp_path: Path, site: Site) -> None:
    site.content = b"1,2\n"
    (tmp_path / "one.ipynb").write_bytes(b"{}")
    run(
        workshop(
            tmp_path,
            notebooks={"one": str(tmp_path / "one.ipynb")},
            data={"csv": f"{site.url}/it/my%20set.csv?download=1"},
        )
    )
    assert seen(tmp_path / "m") == {
        "notebooks/one": {"one.ipynb": b"{}"},
        "data/csv": {"my set.csv": b"1,2\n"},
    }


def test_memory_is_no_place_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_CLEARED", ())
    shm = Path("/dev/shm/m")  # noqa: S108
    assert "on tmpfs, which is memory" in places.why_not_lasting(shm)


def test_a_part_that_fails_stops_no_other_and_stays_as_it_was(
    tmp_path: Path, site: Site
) -> None:
    site.content, site.etag = zip_of(INTRO), '"1"'
    here = put(tmp_path / "here", INTRO)
    what = workshop(tmp_path, notebooks={"web": f"{site.url}/x.zip", "here": str(here)})
    run(what)
    site.status = 404
    put(here, OTHER)
    outcomes = run(what, again=True)
    assert became(outcomes) == [
        ("notebooks/web", Became.FAILED),
        ("notebooks/here", Became.INSTALLED),
    ]
    assert "there is no such file" in outcomes[0].says
    assert seen(tmp_path / "m")["notebooks/web"] == INTRO


@pytest.mark.parametrize("remote", [True, False])
def test_a_file_with_another_digest_is_not_installed(
    tmp_path: Path, site: Site, remote: bool
) -> None:
    good, bad = zip_of(INTRO), zip_of(OTHER)
    (tmp_path / "x.zip").write_bytes(bad)
    site.content = bad
    source = f"{site.url}/x.zip" if remote else str(tmp_path / "x.zip")
    given = {"from": source, "sha256": sha256(good).hexdigest()}
    what = workshop(tmp_path, data={"x": given})
    outcome = only(run(what))
    assert outcome.became is Became.FAILED
    assert f"it has {sha256(bad).hexdigest()}" in outcome.says
    assert seen(tmp_path / "m") == {}
    assert not leftovers(tmp_path / "m")
    (tmp_path / "x.zip").write_bytes(good)
    site.content = good
    assert only(run(what)).became is Became.INSTALLED
    assert seen(tmp_path / "m") == {"data/x": INTRO}


def test_no_password_is_written_where_others_read_it(
    tmp_path: Path, site: Site
) -> None:
    site.content = zip_of(INTRO)
    address = site.url.replace("://", "://zoe:letmein@") + "/x.zip?sig=hush"
    file = tmp_path / "workshop.yaml"
    file.write_text(
        json.dumps(
            {
                "gpus": {"source": "simulated", "simulated_dir": str(tmp_path)},
                "material": {"folder": "m", "notebooks": {"x": address}},
            }
        )
    )
    told = ""
    for command in (["install"], ["update"], ["list"], ["list", "--json"]):
        result = CliRunner().invoke(
            main, ["material", *command, "--workshop", str(file)]
        )
        assert result.exit_code == 0, result.output
        told += result.output
    for path in (tmp_path / "m").rglob("*"):
        if path.is_file():
            told += path.read_text(errors="replace")
    assert "/x.zip" in told
    assert not any(secret in told for secret in ("zoe", "letmein", "hush"))


def test_the_command_fails_where_a_part_does_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "workshop.yaml"
    file.write_text(
        f"gpus: {{source: simulated, simulated_dir: {tmp_path}}}\n"
        "material: {folder: m, notebooks: {x: not/there.zip}}\n"
    )
    arguments = ["material", "install", "--workshop", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "1 of 1 failed:" in result.output
    assert f"{tmp_path}/not/there.zip cannot be read" in result.output


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"from": "SRC", "sha256": "0" * 64}, "a folder has none"),
        ({"from": "SRC/start.ipynb", "revision": "v1"}, "no repository at"),
        ({"from": "https://h/x.git", "sha256": "0" * 64}, "Write revision"),
        ("ext::sh -c id", "cannot be read"),
        ("s3://bucket/x.zip", "nothing is fetched with s3"),
        ("file:///etc/passwd", "write the path alone"),
        ("http://[::1/x", "is no address that can be read"),
    ],
)
def test_a_source_that_cannot_be_is_told(tmp_path: Path, given: Any, says: str) -> None:
    put(tmp_path / "src", INTRO)
    if isinstance(given, dict):
        given["from"] = given["from"].replace("SRC", str(tmp_path / "src"))
    outcome = only(run(workshop(tmp_path, data={"x": given})))
    assert outcome.became is Became.FAILED
    assert says in outcome.says


def test_a_folder_with_a_link_out_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "src", INTRO)
    (source / "hosts").symlink_to("/etc/hosts")
    outcome = only(run(workshop(tmp_path, notebooks={"x": str(source)})))
    assert "hosts is a link to /etc/hosts, outside of the part" in outcome.says
    assert seen(tmp_path / "m") == {}


def test_what_others_put_there_is_never_removed(tmp_path: Path) -> None:
    theirs = put(tmp_path / "m/notebooks/x", OTHER)
    source = put(tmp_path / "src", INTRO)
    outcome = only(run(workshop(tmp_path, notebooks={"x": str(source)})))
    assert "was not installed by this command. Move it away" in outcome.says
    assert (theirs / "new.ipynb").read_bytes() == b"{2}"


def test_two_runs_do_not_meet_and_the_second_says_who_is_at_it(tmp_path: Path) -> None:
    source = put(tmp_path / "src", INTRO)
    what = workshop(tmp_path, notebooks={"x": str(source)})
    run(what)
    with (
        Store(tmp_path / "m").locked(),
        pytest.raises(MaterialError, match=rf"process {os.getpid()} of .* since \d\d:"),
    ):
        run(what)
    assert only(run(what)).became is Became.UNCHANGED


def test_a_reader_never_finds_a_part_missing_while_it_is_swapped(
    tmp_path: Path,
) -> None:
    source = put(tmp_path / "src", {"a": b"0", "b": b"0"})
    what = workshop(tmp_path, notebooks={"x": str(source)})
    run(what)
    link = tmp_path / "m/notebooks/x"
    missing: list[str] = []
    looks: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            before, found = link.readlink(), ""
            try:
                names = sorted(os.listdir(link))  # noqa: PTH208  one look
                sizes = [(link / name).stat().st_size for name in names]
                if names != ["a", "b"] or 0 in sizes:
                    found = f"{names} {sizes}"
            except OSError as error:
                found = str(error)
            # Who was still in the old folder may have seen it go.
            if found and link.readlink() == before:
                missing.append(found)
            looks.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 40):
            put(source, {"a": b"x" * number, "b": b"y"})
            assert only(run(what, again=True)).became is Became.INSTALLED
    finally:
        over.set()
        reader.join()
    assert missing == []
    assert len(looks) > 40


def test_the_version_before_stays_for_who_reads_it_until_the_next_run(
    tmp_path: Path,
) -> None:
    source = put(tmp_path / "src", INTRO)
    what = workshop(tmp_path, notebooks={"x": str(source)})
    run(what)
    before = read_installed(tmp_path / "m").notebooks[0].path(tmp_path / "m")
    put(source, OTHER)
    run(what)
    assert (before / "start.ipynb").read_bytes() == b"{}"
    run(what)
    assert not before.exists()


def test_material_is_never_kept_where_a_reboot_clears_it(tmp_path: Path) -> None:
    for folder in ("/tmp/m", "/var/tmp/m", "/run/m", "/dev/shm/m"):  # noqa: S108
        what = Workshop.load({"material": {"folder": folder, "notebooks": {}}})
        with pytest.raises(MaterialError, match="Name a place that stays"):
            run(what)
        assert not Path(folder).exists()


def test_a_folder_that_stays_has_nothing_to_be_said_of_it() -> None:
    assert places.why_not_lasting(Path("/var/lib/gpuworkshop-material")) == ""


def test_a_folder_that_everybody_may_write_in_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m").chmod(0o1777)
    with pytest.raises(MaterialError, match="attendees could change the material"):
        run(workshop(tmp_path, notebooks={"x": str(put(tmp_path / "src", INTRO))}))


def test_a_disk_that_fills_up_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "src", INTRO)
    what = workshop(tmp_path, notebooks={"x": str(source)})
    run(what)
    put(source, OTHER)
    write, written = os.write, []

    def full(handle: int, data: Any) -> int:
        written.append(len(data))
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)
    outcome = only(run(what))
    monkeypatch.undo()
    assert outcome.became is Became.FAILED
    assert "is full. Make room there" in outcome.says
    assert seen(tmp_path / "m") == listed(tmp_path / "m") == {"notebooks/x": INTRO}
    assert not leftovers(tmp_path / "m")
    assert only(run(what)).became is Became.INSTALLED


def test_what_does_not_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "src", {"big": bytes(5000)})
    monkeypatch.setattr(installing, "free_bytes", lambda _: 1000)
    outcome = only(run(workshop(tmp_path, data={"x": str(source)})))
    assert "It needs 5 KiB, and 1 KiB are free" in outcome.says


@pytest.mark.root
def test_a_really_full_disk_leaves_what_was_there(tmp_path: Path, site: Site) -> None:
    require_engine("root", os.geteuid() == 0, "run the tests as root")
    (tmp_path / "m").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs"]
    subprocess.run([*mount, str(tmp_path / "m")], check=True)  # noqa: S603
    try:
        site.content, site.etag = tar_of(INTRO), '"1"'
        what = workshop(tmp_path, data={"x": f"{site.url}/x.tar.gz"})
        assert only(run(what)).became is Became.INSTALLED
        # Small on the way, larger than the disk when unpacked.
        site.content, site.etag = tar_of({"zeros": bytes(8_000_000)}), '"2"'
        outcome = only(run(what, again=True))
        assert "is full. Make room there" in outcome.says
        assert seen(tmp_path / "m") == listed(tmp_path / "m") == {"data/x": INTRO}
        assert not leftovers(tmp_path / "m")
        # Full while it is fetched: how large it is was not told.
        site.content, site.etag = tar_of({"r": os.urandom(4_000_000)}), '"3"'
        outcome = only(run(what, again=True))
        assert outcome.became is Became.FAILED
        assert seen(tmp_path / "m") == {"data/x": INTRO}
        site.content, site.etag = tar_of(OTHER), '"4"'
        assert only(run(what, again=True)).became is Became.INSTALLED
        assert seen(tmp_path / "m") == {"data/x": OTHER}
    finally:
        subprocess.run(["umount", str(tmp_path / "m")], check=True)  # noqa: S603, S607


@pytest.mark.root
def test_who_may_not_write_there_is_told_to_use_sudo() -> None:
    require_engine("root", os.geteuid() == 0, "run the tests as root")
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        where.chmod(0o755)
        (where / "workshop.yaml").write_text(
            f"gpus: {{source: simulated, simulated_dir: {where}}}\n"
            "material: {folder: m}\n"
        )
        script = (
            # All that it imports, as long as it may read that.
            "import os; from jupyterhub_gpuworkshop.cli import main; "
            "from jupyterhub_gpuworkshop.tools.material import report; "
            f"os.chdir({place!r}); "
            "report.Workshop.load('workshop.yaml'); "
            "os.setgroups([]); os.setuid(65534); "
            "main(['material', 'install'])"
        )
        done = subprocess.run(  # noqa: S603  our own script
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "sudo gpuworkshop material install" in done.stderr
    assert "Traceback" not in done.stderr
