"""`gpuworkshop roster open-room`, as an organiser types it, and the poster."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner, Result

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import Attendee, Room, Roster
from jupyterhub_gpuworkshop.hub import roster_file
from jupyterhub_gpuworkshop.hub.codes import hash_code, is_code
from jupyterhub_gpuworkshop.hub.roster_file import change_roster, read_roster
from jupyterhub_gpuworkshop.tools.roster.cards import Paper, room_page

_ADDRESS = ("--address", "https://gpu.example.org")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the organiser works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _roster(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["roster", *arguments])


def _good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def _room_code(said: str) -> str:
    (code,) = re.findall(r"^Room code: (\S+)$", said, re.MULTILINE)
    return str(code)


def _joined(path: Path, *names: str) -> None:
    people = [Attendee(name=name, code_hash="x", joined=True) for name in names]
    change_roster(path, lambda before: before.plus(people))


def test_the_code_is_on_the_poster_and_kept_nowhere_else(folder: Path) -> None:
    said = _good(_roster("open-room", "--at-most", "40", *_ADDRESS))
    code = _room_code(said)
    assert "https://gpu.example.org/hub/join" in said
    room = read_roster(folder / "roster.json").room
    assert room is not None
    assert room.at_most == 40
    assert is_code(room.code_hash, code.lower())
    kept = (folder / "roster.json").read_text()
    assert code not in kept
    assert code.replace("-", "") not in kept
    poster = folder / "room.html"
    assert poster.stat().st_mode & 0o777 == 0o600
    page = BeautifulSoup(poster.read_text(), "html.parser")
    assert page.select_one(".code").get_text() == code
    assert page.select_one(".address").get_text() == "gpu.example.org/hub/join"
    assert page.select_one(".qr svg") is not None
    assert len(page.select("ol li")) == 3


def test_a_room_is_opened_beside_who_is_on_the_roster(folder: Path) -> None:
    _good(_roster("make", "--count", "2", *_ADDRESS))
    before = read_roster(folder / "roster.json").attendees
    _good(_roster("open-room", "--at-most", "5", *_ADDRESS))
    after = read_roster(folder / "roster.json")
    assert after.attendees == before
    _good(_roster("remove", "attendee-01"))
    _good(_roster("reset", "attendee-02", *_ADDRESS))
    assert read_roster(folder / "roster.json").room == after.room


def test_opened_again_the_code_before_ends_and_its_poster_stays(folder: Path) -> None:
    first = _room_code(_good(_roster("open-room", "--at-most", "2", *_ADDRESS)))
    _joined(folder / "roster.json", "ada", "bob")
    too_few = _roster("open-room", "--at-most", "1", *_ADDRESS)
    assert too_few.exit_code != 0
    assert "2 have joined already" in too_few.output
    said = _good(_roster("open-room", "--at-most", "3", *_ADDRESS))
    assert "2 of 3 joined" in said
    assert "The code before is good for nothing now" in said
    room = read_roster(folder / "roster.json").room
    assert room is not None
    assert not is_code(room.code_hash, first)
    assert (folder / "room-2.html").exists()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_room_that_cannot_be_opened_leaves_no_poster(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    path = folder / "roster.json"
    if is_there:
        change_roster(path, lambda _: Roster(), new=True)
    before = path.read_bytes() if is_there else b""

    def full(path: Path, data: bytes) -> None:
        raise RosterError("No space left on device.")

    monkeypatch.setattr(roster_file, "_write", full)
    assert _roster("open-room", "--at-most", "2", *_ADDRESS).exit_code != 0
    assert not (folder / "room.html").exists()
    assert (path.read_bytes() if path.exists() else b"") == before


def test_a_poster_that_cannot_be_written_opens_no_room(folder: Path) -> None:
    elsewhere = ("--poster", "no/such/folder/room.html")
    result = _roster("open-room", "--at-most", "2", *elsewhere, *_ADDRESS)
    assert result.exit_code != 0
    assert "name another place with --poster" in result.output
    assert not (folder / "roster.json").exists()


def test_an_address_that_nobody_can_open_opens_no_room(folder: Path) -> None:
    result = _roster("open-room", "--at-most", "2", "--address", "https://a b")
    assert result.exit_code != 0
    assert os.listdir(folder) == []  # noqa: PTH208 - the lock file would be there too


def test_closed_nobody_joins_and_who_has_joined_stays(folder: Path) -> None:
    _good(_roster("open-room", "--at-most", "2", *_ADDRESS))
    _joined(folder / "roster.json", "ada")
    assert "1 joined and stay" in _good(_roster("close-room"))
    after = read_roster(folder / "roster.json")
    assert after.room is None
    assert after.names() == ("ada",)
    again = _roster("close-room")
    assert again.exit_code != 0
    assert "no room is open" in again.output


def test_list_and_check_tell_of_the_room_and_who_has_joined(folder: Path) -> None:
    _good(_roster("make", "--count", "1", *_ADDRESS))
    assert "room" not in _good(_roster("list")) + _good(_roster("check"))
    _good(_roster("open-room", "--at-most", "1", *_ADDRESS))
    _joined(folder / "roster.json", "ada")
    told = "The room is open: 1 of 1 joined, so it is full."
    assert told in _good(_roster("check"))
    listed = _good(_roster("list"))
    assert told in listed
    assert re.search(r"^ada +\(joined\)$", listed, re.MULTILINE)
    found = json.loads(_good(_roster("list", "--json")))
    assert {one["name"]: one["joined"] for one in found} == {
        "attendee-01": False,
        "ada": True,
    }


def test_the_servers_of_a_split_have_no_room_until_one_is_opened(
    folder: Path,
) -> None:
    _good(_roster("open-room", "--at-most", "9", *_ADDRESS))
    _joined(folder / "roster.json", "ada", "bob")
    _good(_roster("split", "--servers", "https://a.example,https://b.example"))
    for number, name in ((1, "ada"), (2, "bob")):
        part = read_roster(folder / f"roster-{number}.json")
        assert part.room is None
        assert part.names() == (name,)
        assert part.joined == 1


def test_unlocking_somebody_ends_the_wait_for_joining_too(folder: Path) -> None:
    from jupyterhub_gpuworkshop.core.roster import joining_name
    from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts, file_beside

    change_roster(folder / "roster.json", lambda _: Roster(), new=True)
    lock_outs = LockOuts(file_beside(folder / "roster.json"))
    for _ in range(5):
        lock_outs.failed(joining_name("ada"), "192.0.2.1")
    assert lock_outs.wait_seconds(joining_name("ada"), "192.0.2.1") > 0
    assert "1 wait ended" in _good(_roster("unlock", "ada"))
    assert lock_outs.wait_seconds(joining_name("ada"), "192.0.2.1") == 0
    lock_outs.close()


def test_an_older_hub_refuses_a_roster_whose_room_it_would_drop(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roster.json"
    ada = Attendee(name="ada", code_hash="x")
    change_roster(path, lambda _: Roster(attendees=(ada,)), new=True)
    assert json.loads(path.read_bytes())["version"] == 1
    room = Room(code_hash=hash_code("BBBB-CCCC"), at_most=3)
    after = change_roster(
        path, lambda before: Roster(attendees=before.attendees, room=room)
    )
    assert json.loads(path.read_bytes())["version"] == 2
    assert read_roster(path) == after
    _joined(path, "bob")
    change_roster(path, lambda before: Roster(attendees=before.attendees))
    kept = json.loads(path.read_bytes())
    assert kept["version"] == 2, "who has joined would be forgotten as one"
    assert "room" not in kept
    assert read_roster(path).joined == 1


@pytest.mark.parametrize(
    "room",
    [
        {},
        7,
        None,
        {"code_hash": 7, "at_most": 3},
        {"code_hash": "x", "at_most": True},
        {"code_hash": "x", "at_most": "3"},
        {"code_hash": "x", "at_most": 0},
        {"code_hash": "x", "at_most": 10**9},
    ],
)
def test_a_damaged_room_is_no_roster(tmp_path: Path, room: Any) -> None:
    path = tmp_path / "roster.json"
    path.write_text(json.dumps({"version": 2, "room": room}))
    with pytest.raises(RosterError, match=r"damaged|number of people"):
        read_roster(path)
    path.write_text(
        json.dumps(
            {"version": 2, "attendees": [{"name": "a", "code_hash": "x", "joined": 1}]}
        )
    )
    with pytest.raises(RosterError, match="damaged"):
        read_roster(path)


def test_a_poster_takes_what_an_organiser_types_as_text() -> None:
    page = room_page(
        "BBBB-CCCC",
        address="https://gpu.example.org/hub/join",
        title="<script>x</script>\u2028& more",
        paper=Paper.LETTER,
    )
    assert "<script>" not in page
    assert "size: letter portrait" in page
    assert "gpu.example.org/hub/join<" in page
    shown = BeautifulSoup(page, "html.parser").h1
    assert shown is not None
    assert shown.get_text() == "<script>x</script> & more"
