"""Archives that mean harm, or are broken: nothing lands outside, nothing is left."""

import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.tools.material.tree import Limits, Tree
from jupyterhub_gpuworkshop.tools.material.unpacking import is_archive, unpack

from .worlds import entry, files_in, tar_of, tar_with, zip_of

LIMITS = Limits(size=1_000_000, entries=100, fold_case=True)
GOOD = {"top/a.ipynb": b"{}", "top/sub/b.csv": b"1,2\n"}
SECRET = b"not yours"


def unpacked(where: Path, data: bytes, name: str, limits: Limits = LIMITS) -> Path:
    """Unpack an archive in `where/tree`, beside a file that is not its own."""
    (where / "secret").write_bytes(SECRET)
    path = where / "archive"
    path.write_bytes(data)
    root = where / "tree"
    root.mkdir(mode=0o700)
    tree = Tree(root=root, limits=limits, tell=lambda _: None)
    unpack(path, name, tree)
    return tree.finish(unwrap=True)


def nothing_outside(where: Path) -> None:
    """Assert that an archive has changed nothing but its own tree."""
    assert {x.name for x in where.iterdir()} == {"secret", "archive", "tree"}
    assert (where / "secret").read_bytes() == SECRET
    assert (where / "secret").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("x.tar", "w"),
        ("x.tar.gz", "w:gz"),
        ("x.tgz", "w:gz"),
        ("x.tar.bz2", "w:bz2"),
        ("x.tar.xz", "w:xz"),
    ],
)
def test_every_kind_of_tar_is_unpacked_and_its_one_folder_unwrapped(
    tmp_path: Path, name: str, mode: str
) -> None:
    base = unpacked(tmp_path, tar_of(GOOD, mode), name)
    assert files_in(base) == {"a.ipynb": b"{}", "sub/b.csv": b"1,2\n"}


def test_a_zip_is_unpacked_and_its_one_folder_unwrapped(tmp_path: Path) -> None:
    base = unpacked(tmp_path, zip_of(GOOD), "x.zip")
    assert files_in(base) == {"a.ipynb": b"{}", "sub/b.csv": b"1,2\n"}


def test_files_get_modes_that_all_can_read_and_none_can_write(tmp_path: Path) -> None:
    data = tar_with(
        (entry("run.sh", mode=0o6777), b"#!/bin/sh\n"), (entry("a", mode=0o600), b"")
    )
    old = os.umask(0o077)
    try:
        base = unpacked(tmp_path, data, "x.tar.gz")
    finally:
        os.umask(old)
    assert stat.S_IMODE((base / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((base / "a").stat().st_mode) == 0o644


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    data = tar_with(
        (entry("top/sub/real"), b"here"),
        (entry("top/soft", tarfile.SYMTYPE, linkname="sub/real"), b""),
        (entry("top/sub/up", tarfile.SYMTYPE, linkname="../sub/real"), b""),
        (entry("top/hard", tarfile.LNKTYPE, linkname="top/sub/real"), b""),
    )
    base = unpacked(tmp_path, data, "x.tar.gz")
    for name in ("soft", "sub/up", "hard"):
        assert (base / name).read_bytes() == b"here"
    assert os.readlink(base / "soft") == "sub/real"  # noqa: PTH115


SOFT, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
HARMFUL = {
    "up": [(entry("../secret"), b"!")],
    "up within": [(entry("a/../../secret"), b"!")],
    "absolute": [(entry("/secret"), b"!")],
    "link out": [(entry("l", SOFT, linkname="../secret"), b"")],
    "absolute link": [(entry("l", SOFT, linkname="/etc/passwd"), b"")],
    "link to the top's own above": [
        (entry("top/a"), b""),
        (entry("top/l", SOFT, linkname=".."), b""),
    ],
    "links that lead out together": [
        (entry("a/b/c/file"), b""),
        (entry("l", SOFT, linkname="a/b/c"), b""),
        (entry("out", SOFT, linkname="l/../../../../secret"), b""),
    ],
    "links whose text stays inside": [
        (entry("x/y/file"), b""),
        (entry("x/y/s", SOFT, linkname="../.."), b""),
        (entry("out", SOFT, linkname="x/y/s/../secret"), b""),
    ],
    "a link that leads out and back": [
        (entry("file"), b""),
        (entry("l", SOFT, linkname="../tree/file"), b""),
    ],
    "written through a link": [
        (entry("l", SOFT, linkname=".."), b""),
        (entry("l/secret"), b"!"),
    ],
    "written over a link": [
        (entry("l", SOFT, linkname="../secret"), b""),
        (entry("l"), b"!"),
    ],
    "hard link out": [(entry("l", HARD, linkname="../secret"), b"")],
    "absolute hard link": [(entry("l", HARD, linkname="/etc/passwd"), b"")],
    "hard link to a link": [
        (entry("s", SOFT, linkname="../secret"), b""),
        (entry("l", HARD, linkname="s"), b""),
    ],
    "hard link to what comes later": [
        (entry("l", HARD, linkname="a"), b""),
        (entry("a"), b""),
    ],
    "device": [(entry("d", tarfile.CHRTYPE, devmajor=1, devminor=3), b"")],
    "block device": [(entry("d", tarfile.BLKTYPE, devmajor=8, devminor=0), b"")],
    "pipe": [(entry("p", tarfile.FIFOTYPE), b"")],
    "twice": [(entry("a"), b"1"), (entry("a"), b"2")],
    "case": [(entry("Intro.ipynb"), b"1"), (entry("intro.ipynb"), b"2")],
    "a file and a folder": [(entry("a"), b"1"), (entry("a/b"), b"2")],
    "bytes": [(entry("caf\udce9"), b"")],
    "control": [(entry("a\nb"), b"")],
    "backslash": [(entry("..\\secret"), b"")],
    "long": [(entry("x" * 256), b"")],
    "deep": [(entry("a/" * 600 + "b"), b"")],
    "nothing": [(entry("a", tarfile.DIRTYPE), b"")],
}


@pytest.mark.parametrize("what", HARMFUL)
def test_a_tar_that_means_harm_is_refused_and_changes_nothing(
    tmp_path: Path, what: str
) -> None:
    with pytest.raises(MaterialError) as error:
        unpacked(tmp_path, tar_with(*HARMFUL[what]), "x.tar.gz")
    assert "is no tar" not in str(error.value)
    nothing_outside(tmp_path)


def zip_with(name: str, data: bytes, mode: int = 0, system: int = 3) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = system
        info.external_attr = mode << 16
        archive.writestr(info, data)
        archive.writestr("fine", b"")
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "mode"),
    [
        ("../secret", b"!", 0o100644),
        ("/secret", b"!", 0o100644),
        ("a/../../secret", b"!", 0),
        ("l", b"../secret", 0o120777),
        ("l", b"/etc/passwd", 0o120777),
        ("l", b"\xff", 0o120777),
        ("d", b"", stat.S_IFCHR | 0o666),
        ("p", b"", stat.S_IFIFO | 0o666),
        ("..\\secret", b"!", 0),
        ("fine", b"twice", 0),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_means_harm_is_refused_and_changes_nothing(
    tmp_path: Path, name: str, data: bytes, mode: int
) -> None:
    with pytest.raises(MaterialError):
        unpacked(tmp_path, zip_with(name, data, mode), "x.zip")
    nothing_outside(tmp_path)


def test_setuid_of_a_zip_is_not_kept(tmp_path: Path) -> None:
    base = unpacked(tmp_path, zip_with("run", b"#!", 0o106755), "x.zip")
    assert stat.S_IMODE((base / "run").stat().st_mode) == 0o755


def test_a_zip_bomb_ends_where_the_limit_is(tmp_path: Path) -> None:
    bomb = zip_of({"zeros": bytes(5_000_000)})
    assert len(bomb) < 10_000
    with pytest.raises(MaterialError, match=r"larger than .* material\.largest"):
        unpacked(tmp_path, bomb, "x.zip")
    assert (tmp_path / "tree/zeros").stat().st_size <= LIMITS.size


def test_a_tar_bomb_ends_where_the_limit_is(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match=r"material\.largest"):
        unpacked(tmp_path, tar_of({"zeros": bytes(5_000_000)}), "x.tar.gz")
    assert (tmp_path / "tree/zeros").stat().st_size <= LIMITS.size


def test_hard_links_count_as_what_they_are_in_each_home(tmp_path: Path) -> None:
    links = [(entry(f"l{n}", HARD, linkname="a"), b"") for n in range(9)]
    with pytest.raises(MaterialError, match=r"material\.largest"):
        unpacked(tmp_path, tar_with((entry("a"), bytes(200_000)), *links), "x.tar.gz")


def test_an_archive_of_too_many_entries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="more than 100 files and folders"):
        unpacked(tmp_path, tar_of({str(n): b"" for n in range(101)}), "x.tar.gz")


def test_folders_that_no_entry_names_count_too(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="more than 100 files and folders"):
        unpacked(tmp_path, tar_of({"a/" * 101 + "b": b""}), "x.tar.gz")


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=8 * 1024**3)
    data = header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    with pytest.raises(MaterialError, match="header is too long"):
        unpacked(tmp_path, data, "x.tar")


@pytest.mark.parametrize(
    "name", ["x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.tar", "x.zip"]
)
def test_what_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    big = {"a": os.urandom(50_000), "b": os.urandom(50_000)}
    kind = name.removeprefix("x.tar").removeprefix(".")
    whole = zip_of(big) if name == "x.zip" else tar_of(big, f"w:{kind}")
    with pytest.raises(MaterialError):
        unpacked(tmp_path, whole[:70_000], name)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_a_page_that_says_there_is_nothing_is_no_archive(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(MaterialError, match="is no tar or zip file"):
        unpacked(tmp_path, b"<html>Please log in</html>" * 100, name)


def test_what_a_name_says_goes_before_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zip_of(GOOD))
    assert is_archive(tmp_path / "x", "x.zip")
    assert is_archive(tmp_path / "x", "main")
    assert not is_archive(tmp_path / "x", "images.npz")
    (tmp_path / "x").write_bytes(b"1,2\n")
    assert not is_archive(tmp_path / "x", "main")
    with pytest.raises(MaterialError, match=r"Pack it as \.zip"):
        is_archive(tmp_path / "x", "x.7z")


def test_a_repositorys_insides_are_left_out(tmp_path: Path) -> None:
    files = {".git/config": b"url = https://u:p@h", "a/.git/x": b"", "a/b": b"1"}
    assert files_in(unpacked(tmp_path, tar_of(files), "x.tar.gz")) == {"b": b"1"}


NAMES = st.one_of(
    st.sampled_from(["a", "b", "..", ".", "", "a/..", "../..", "/", "l", "secret"]),
    st.text(max_size=8),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.tuples(
        PATHS,
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, SOFT, HARD]),
        PATHS,
    ),
    max_size=6,
)


@given(ENTRIES)
def test_whatever_names_and_links_say_nothing_lands_or_leads_outside(
    entries: list[tuple[str, bytes, str]],
) -> None:
    made = [
        (entry(name.replace("\0", ""), kind, linkname=target.replace("\0", "")), b"!")
        for name, kind, target in entries
    ]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        try:
            base = unpacked(where, tar_with(*made, mode="w"), "x.tar")
        except MaterialError:
            base = where / "tree"
        else:
            inside = os.path.realpath(base)
            for path in base.rglob("*"):
                end = os.path.realpath(path)
                assert os.path.commonpath([inside, end]) == inside
        nothing_outside(where)
