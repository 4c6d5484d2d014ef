"""The roster on disk: whole or not at all, and followed by a hub that runs."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from argon2.exceptions import VerifyMismatchError

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.hub import codes, own_files
from jupyterhub_gpuworkshop.hub.codes import (
    hash_code,
    hash_password,
    is_code,
    is_password,
    new_code,
)
from jupyterhub_gpuworkshop.hub.roster_file import (
    LiveRoster,
    change_roster,
    read_roster,
)

_WHOLE = Roster(
    attendees=(
        Attendee(
            name="zoe",
            code_hash="$argon2id$x",
            full_name='Zoë "Z"\u2028O\'Hara, =1+1',
            email="zoe@example.org",
            group="team a",
            share=Share.parse("8GiB"),
        ),
        Attendee(name="bob", code_hash="$argon2id$y"),
    ),
    organisers=(Organiser(name="olga", password_hash="$argon2id$z"),),
)


def _made(path: Path) -> Path:
    change_roster(path, lambda _: _WHOLE, new=True)
    return path


def test_a_roster_comes_back_as_it_was_an_attendee_a_line(tmp_path: Path) -> None:
    path = _made(tmp_path / "roster.json")
    assert read_roster(path) == _WHOLE
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = [one for one in path.read_text().split("\n") if '"zoe"' in one]
    assert json.loads(line.strip(","))["share"] == "8GiB"


def test_a_roster_that_is_there_is_never_begun_anew(tmp_path: Path) -> None:
    path = _made(tmp_path / "roster.json")
    with pytest.raises(RosterError, match="is there already"):
        change_roster(path, lambda _: Roster(), new=True)
    assert read_roster(path) == _WHOLE


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no roster"),
        (b"[]", "is no roster"),
        (b"\xff\xfe", "is no roster"),
        (b"[" * 100_000, "is no roster"),
        (b'{"version": 3}', "newer version"),
        (b'{"version": 1, "attendees": [7]}', "damaged"),
        (b'{"version": 1, "attendees": 7}', "damaged"),
        (b'{"version": 1, "attendees": [{"name": ["a"]}]}', "damaged"),
        (b'{"version": 1, "organisers": [{"name": "olga"}]}', "damaged"),
        (b'{"version": 1, "attendees": [{"name": "root"}]}', "account of the system"),
        (b'{"version": 1, "attendees": [{"name": "a", "share": "x"}]}', "share"),
    ],
)
def test_what_is_no_roster_is_named_and_leaves_the_last_good_one(
    tmp_path: Path, content: bytes, told: str
) -> None:
    path = _made(tmp_path / "roster.json")
    live = LiveRoster(path)
    assert live.current() == _WHOLE
    path.write_bytes(content)
    with pytest.raises(RosterError, match=told):
        read_roster(path)
    assert live.current() == _WHOLE
    assert told in live.problem
    path.unlink()
    assert live.current() == _WHOLE
    assert "no roster yet" in live.problem
    change_roster(path, lambda _: Roster(), new=True)
    assert live.current() == Roster()
    assert live.problem == ""


def test_a_full_disk_leaves_the_old_roster_and_nothing_beside_it(
    tmp_path: Path,
) -> None:
    path = _made(tmp_path / "roster.json")
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from jupyterhub_gpuworkshop.core.errors import RosterError\n"
        "from jupyterhub_gpuworkshop.core.roster import Attendee\n"
        "from jupyterhub_gpuworkshop.hub.roster_file import change_roster\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "more = [Attendee(name='cy', code_hash='')]\n"
        "try:\n"
        "    change_roster(Path(sys.argv[1]), lambda roster: roster.plus(more))\n"
        "except RosterError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert "What was there is as it was" in done.stdout
    assert read_roster(path) == _WHOLE
    assert {one.name for one in tmp_path.iterdir()} == {
        "roster.json",
        ".roster.json.lock",
    }


def test_a_folder_that_cannot_be_synced_does_not_undo_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _made(tmp_path / "roster.json")

    def refuse(folder: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(own_files, "sync_folder", refuse)
    assert change_roster(path, lambda roster: roster.without(["bob"])).names() == (
        "zoe",
    )
    assert read_roster(path).names() == ("zoe",)


def test_a_link_is_followed_and_what_is_no_file_is_not_waited_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    path = _made(tmp_path / "real" / "roster.json")
    link = tmp_path / "roster.json"
    link.symlink_to(path)
    change_roster(link, lambda roster: roster.without(["bob"]))
    assert link.is_symlink()
    assert read_roster(path).names() == ("zoe",)
    assert not (tmp_path / ".roster.json.lock").exists()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RosterError, match="is no file"):
        read_roster(tmp_path / "fifo")


def test_changes_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    change_roster(path, lambda _: Roster(), new=True)

    def add(number: int) -> None:
        one = Attendee(name=f"a{number}", code_hash="")
        change_roster(path, lambda roster: roster.plus([one]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_roster(path).names()) == sorted(f"a{n}" for n in range(12))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_changes_stays_the_hubs_user_to_read(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    path = _made(tmp_path / "roster.json")
    assert path.stat().st_uid == 65534
    change_roster(path, lambda roster: roster.without(["bob"]))
    assert path.stat().st_uid == 65534
    assert path.stat().st_mode & 0o777 == 0o600


def test_codes_match_in_any_case_and_nobodys_code_never_does() -> None:
    code = new_code()
    kept = hash_code(code)
    assert kept.startswith("$argon2id$")
    assert code not in kept
    assert is_code(kept, f" {code[:4].lower()}-{code[4:]} ")
    for typed in ("", new_code(), "\ud800", code + "x" * 300, "x" * 10_000, "\x00"):
        assert not is_code(kept, typed)
    assert not is_code(None, code)
    assert not is_code("no hash", code)


def test_nobodys_code_costs_a_hash_as_anybodys_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified: list[str] = []

    class Counting:
        def verify(self, kept: str, given: bytes) -> None:
            verified.append(kept)
            raise VerifyMismatchError

    monkeypatch.setattr(codes, "_HASHER", Counting())
    for kept in (None, "$argon2id$known"):
        assert not is_code(kept, "BBBB-CCCC")
        assert not is_password(kept, "x" * 300)
    assert len(verified) == 4


def test_a_password_is_taken_as_it_is() -> None:
    kept = hash_password("Correct horse-battery")
    assert is_password(kept, "Correct horse-battery")
    assert not is_password(kept, "correct horse-battery")
    assert not is_password(None, "Correct horse-battery")
