"""The secret that cookies are signed with: kept, closed, never guessed at."""

import os
import stat

import pytest

from jupyterhub_gpuworkshop.service.credentials import (
    COOKIE_FILE,
    cookie_secret,
)


def test_cookies_of_before_a_restart_are_good_after_it(tmp_path):
    first = cookie_secret(tmp_path)
    assert len(first) == 32
    assert cookie_secret(tmp_path) == first
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_each_state_folder_has_a_secret_of_its_own(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert cookie_secret(tmp_path / "one") != cookie_secret(tmp_path / "two")


def test_a_service_that_starts_at_the_same_time_agrees(tmp_path, monkeypatch):
    link, other = os.link, []

    def after_another(source, target):
        if not other:
            other.append(b"")
            other[0] = cookie_secret(tmp_path)
        link(source, target)

    monkeypatch.setattr(os, "link", after_another)
    assert cookie_secret(tmp_path) == other[0]
    assert [file.name for file in tmp_path.iterdir()] == [COOKIE_FILE]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o640),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"short"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
    ],
)
def test_a_file_that_proves_nothing_is_not_believed(tmp_path, spoil, caplog):
    path = tmp_path / COOKIE_FILE
    kept = cookie_secret(tmp_path)
    spoil(path)
    first, second = cookie_secret(tmp_path), cookie_secret(tmp_path)
    assert len(first) == len(second) == 32
    assert len({kept, first, second}) == 3
    assert "people log in" in caplog.text


def test_without_a_folder_it_starts_all_the_same(tmp_path, caplog):
    assert len(cookie_secret(tmp_path / "gone")) == 32
    assert "cannot be used" in caplog.text
