"""What hub and tools read of installed material."""

import os
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.machine.material import (
    INSTALLED,
    Installed,
    Part,
    read_installed,
    stamp,
)

INTRO = Part(
    kind="notebooks",
    name="intro",
    version="intro-0a1b2c3d",
    source="https://example.org/intro.zip",
    sha256="ab" * 32,
    files=3,
    bytes=1234,
)
IMAGES = Part(kind="data", name="images", version="images-11223344", revision="f00")


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    written = Installed(folder=tmp_path, parts=(INTRO, IMAGES))
    (tmp_path / INSTALLED).write_text(written.as_json())
    read = read_installed(tmp_path)
    assert read == written
    assert read.notebooks == (INTRO,)
    assert read.data == (IMAGES,)
    assert read.part("data", "images") == IMAGES
    assert read.part("data", "intro") is None
    assert INTRO.path(tmp_path) == tmp_path / ".versions/intro-0a1b2c3d"
    assert INTRO.link(tmp_path) == tmp_path / "notebooks/intro"


def test_nothing_is_installed_where_there_is_no_folder(tmp_path: Path) -> None:
    assert read_installed(tmp_path / "none").parts == ()
    assert stamp(tmp_path / "none") is None


def test_the_stamp_changes_with_the_list(tmp_path: Path) -> None:
    path = tmp_path / INSTALLED
    path.write_text(Installed(folder=tmp_path, parts=(INTRO,)).as_json())
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before
    new = tmp_path / "new"
    new.write_text(Installed(folder=tmp_path, parts=(IMAGES,)).as_json())
    os.replace(new, path)  # noqa: PTH105  as it is written
    assert stamp(tmp_path) != before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '{"format": 2, "parts": []}',
        '{"format": 1, "parts": [7]}',
        '{"format": 1, "parts": [{"kind": "data", "name": "x"}]}',
        '{"format": 1, "parts": [{"kind": "data", "name": "x", "version": "../x"}]}',
        '{"format": 1, "parts": [{"kind": "data", "name": "/", "version": "x"}]}',
        '{"format": 1, "parts": [{"kind": "etc", "name": "x", "version": "x"}]}',
    ],
)
def test_a_list_that_is_none_of_ours_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / INSTALLED).write_text(text)
    with pytest.raises(MaterialError, match="is no list of installed material"):
        read_installed(tmp_path)
