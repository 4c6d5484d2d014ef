"""kill -9 at every step: either the old state or the new one, and no leftovers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .web import serving
from .worlds import leftovers, listed, put, seen, tar_of, zip_of

KILLED = -9
Seen = dict[str, dict[str, bytes]]


@contextmanager
def forks(keys: dict[str, Any]) -> Iterator[Callable[[str], int]]:
    """Return what runs a command in a child, and says how it ended."""
    with subprocess.Popen(
        [sys.executable, "-B", "-m", "tests.tools.material.forks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, answers = process.stdin, process.stdout

        def ask(line: str) -> int:
            to.write(f"{line}\n")
            to.flush()
            return int(answers.readline())

        to.write(f"{json.dumps(keys)}\n")
        yield ask


def material(where: Path, notebooks: dict[str, str], data: dict[str, str]) -> Any:
    return {
        "gpus": {"source": "simulated", "simulated_dir": str(where)},
        "material": {"folder": str(where / "m"), "notebooks": notebooks, "data": data},
    }


def old_or_new(now: Seen, old: Seen, new: Seen) -> None:
    """Assert that each part is as it was, or as it will be."""
    for label in {*old, *new}:
        assert now.get(label) in (old.get(label), new.get(label)), label
    assert not now.keys() - {*old, *new}


def versions(folder: Path) -> set[str]:
    return {
        x.resolve().name for k in ("notebooks", "data") for x in (folder / k).iterdir()
    }


def through_every_step(
    folder: Path,
    before: Path | None,
    old: Seen,
    new: Seen,
    ask: Callable[[str], int],
    command: str,
) -> int:
    """Kill at each step, look, and let the next run end it; return the steps."""
    step = 0
    while True:
        step += 1
        shutil.rmtree(folder, ignore_errors=True)
        if before is not None:
            shutil.copytree(before, folder, symlinks=True)
        status = ask(f"{command} {step}")
        if status == 0:
            assert seen(folder) == new
            return step - 1
        assert status == KILLED
        old_or_new(seen(folder), old, new)
        old_or_new(listed(folder), old, new)
        replaced = versions(folder) if (folder / "data").is_dir() else set()
        assert ask(f"{command} 0") == 0
        assert seen(folder) == listed(folder) == new
        # The version before the last swap stays, for who is reading it.
        assert leftovers(folder) <= replaced
        assert ask(f"{command} 0") == 0
        assert not leftovers(folder)


FIRST = {"a.ipynb": b"{}" * 100, "sub/b.csv": b"1,2\n"}
SECOND = {"a.ipynb": b"[]" * 200, "sub/c.csv": b"3,4\n"}


@pytest.fixture
def where(tmp_path: Path) -> Path:
    put(tmp_path / "here", FIRST)
    (tmp_path / "set.tar.gz").write_bytes(tar_of({"top/x": b"x" * 3000, "top/y": b"y"}))
    return tmp_path


def test_an_installation_killed_anywhere_leaves_each_part_whole_or_absent(
    where: Path,
) -> None:
    with serving() as site:
        site.content, site.etag = zip_of(FIRST), '"1"'
        keys = material(
            where,
            {"here": str(where / "here"), "web": f"{site.url}/web.zip"},
            {"set": str(where / "set.tar.gz")},
        )
        new = {
            "notebooks/here": FIRST,
            "notebooks/web": FIRST,
            "data/set": {"x": b"x" * 3000, "y": b"y"},
        }
        with forks(keys) as ask:
            steps = through_every_step(where / "m", None, {}, new, ask, "install")
    assert steps > 40


def test_an_update_killed_anywhere_leaves_each_part_as_it_was_or_will_be(
    where: Path,
) -> None:
    with serving() as site:
        site.content, site.etag = zip_of(FIRST), '"1"'
        source = {"here": str(where / "here"), "web": f"{site.url}/web.zip"}
        data = {"set": str(where / "set.tar.gz")}
        with forks(material(where, {**source, "gone": source["here"]}, data)) as ask:
            assert ask("install 0") == 0
        old = seen(where / "m")
        before = (where / "m").rename(where / "before")
        shutil.rmtree(where / "here")
        put(where / "here", SECOND)
        (where / "set.tar.gz").write_bytes(tar_of({"z": b"z" * 5000}))
        site.content, site.etag = zip_of(SECOND), '"2"'
        new = {
            "notebooks/here": SECOND,
            "notebooks/web": SECOND,
            "data/set": {"z": b"z" * 5000},
        }
        with forks(material(where, source, data)) as ask:
            steps = through_every_step(where / "m", before, old, new, ask, "update")
    assert steps > 40
