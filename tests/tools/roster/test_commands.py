"""`gpuworkshop roster`, as an organiser types it."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner, Result

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.hub import roster_file
from jupyterhub_gpuworkshop.hub.codes import is_code, is_password
from jupyterhub_gpuworkshop.hub.roster_file import read_roster

_ADDRESS = ("--address", "https://gpu.example.org")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the organiser works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _roster(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["roster", *arguments], input=stdin)


def _codes(merge: Path) -> dict[str, str]:
    with merge.open(encoding="utf-8-sig", newline="") as file:
        return {row["name"]: row["code"] for row in csv.DictReader(file)}


def _good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def test_a_hundred_unnamed_attendees_get_codes_that_only_the_cards_know(
    folder: Path,
) -> None:
    said = _good(_roster("make", "--count", "100", "--merge", "mail.csv", *_ADDRESS))
    assert "100 attendees" in said
    assert "delete it" in said
    roster = read_roster(folder / "roster.json")
    assert roster.names()[::99] == ("attendee-001", "attendee-100")
    codes = _codes(folder / "mail.csv")
    assert len(set(codes.values())) == 100
    for name in ("attendee-001", "attendee-100"):
        attendee = roster.attendee(name)
        assert attendee is not None
        assert is_code(attendee.code_hash, codes[name])
        assert codes[name] in (folder / "cards.html").read_text()
    kept = (folder / "roster.json").read_text() + said
    assert not any(code in kept for code in codes.values())
    assert not any(code.replace("-", "") in kept for code in codes.values())
    for file in ("roster.json", "cards.html", "mail.csv"):
        assert (folder / file).stat().st_mode & 0o777 == 0o600


def test_a_list_from_excel_becomes_names_groups_and_shares(folder: Path) -> None:
    people = (
        "Full Name;E-Mail;Group;Share\r\n"
        '"O\'Hara, Zoë";zoe@example.org;team a;1/4\r\n'
        "=HYPERLINK(1);;;\r\n"
        "Zoë O'Hara;;;\r\n"
    )
    (folder / "people.csv").write_bytes(people.encode("utf-8-sig"))
    _good(_roster("make", "--csv", "people.csv", "--merge", "mail.csv", *_ADDRESS))
    listed = json.loads(_good(_roster("list", "--json")))
    assert [one["group"] for one in listed] == ["team a", "", ""]
    assert listed[0]["share"] == "1/4"
    assert len({one["name"] for one in listed}) == 3
    assert "\n'=HYPERLINK" not in (folder / "mail.csv").read_text("utf-8-sig")
    assert ",'=HYPERLINK" in (folder / "mail.csv").read_text("utf-8-sig")
    table = _good(_roster("list"))
    assert "zoe@example.org" in table


def test_bad_rows_are_named_by_file_and_line_and_nothing_is_made(folder: Path) -> None:
    (folder / "people.csv").write_text("name,share\nada,1/4\nroot,1/4\nbob,half\n")
    refused = _roster("make", "--csv", "people.csv", *_ADDRESS)
    assert refused.exit_code == 1
    assert "people.csv" in refused.output
    assert re.search(r"\b3\b.*root", refused.output)
    assert re.search(r"\b4\b", refused.output)
    assert {one.name for one in folder.iterdir()} == {"people.csv"}


def test_added_and_reset_attendees_get_cards_of_their_own(folder: Path) -> None:
    _good(_roster("make", "--count", "3", "--merge", "mail.csv", *_ADDRESS))
    before = read_roster(folder / "roster.json")
    _good(_roster("add", "--count", "2", "--merge", "mail.csv", *_ADDRESS))
    assert list(_codes(folder / "mail-2.csv")) == ["attendee-04", "attendee-05"]
    _good(_roster("reset", "attendee-02", *_ADDRESS))
    page = BeautifulSoup((folder / "cards-3.html").read_text(), "html.parser")
    assert "attendee-02" in page.get_text()
    assert "attendee-01" not in page.get_text()
    after = read_roster(folder / "roster.json")
    changed = [
        one.name
        for one in before.attendees
        if after.attendee(one.name) not in before.attendees
    ]
    assert changed == ["attendee-02"]
    told = _good(_roster("remove", "attendee-03"))
    assert "attendee-03 cannot log in any more" in told
    assert "until they are deleted on its admin page" in told
    assert "attendee-03" not in read_roster(folder / "roster.json").names()
    unknown = _roster("reset", "eve", *_ADDRESS)
    assert unknown.exit_code == 1
    assert "no attendee eve" in unknown.output
    assert not (folder / "cards-4.html").exists()


def test_a_second_make_keeps_the_roster_and_leaves_no_cards(folder: Path) -> None:
    _good(_roster("make", "--count", "1", *_ADDRESS))
    before = (folder / "roster.json").read_bytes()
    refused = _roster("make", "--count", "1", *_ADDRESS)
    assert refused.exit_code == 1
    assert "is there already" in refused.output
    assert (folder / "roster.json").read_bytes() == before
    assert not (folder / "cards-2.html").exists()


def test_cards_that_cannot_be_written_leave_the_roster_as_it_was(folder: Path) -> None:
    _good(_roster("make", "--count", "1", *_ADDRESS))
    before = (folder / "roster.json").read_bytes()
    refused = _roster("add", "--count", "1", "--cards", "no/such/cards.html", *_ADDRESS)
    assert refused.exit_code == 1
    assert "Nothing was changed" in refused.output
    merge = ("--merge", "no/such/mail.csv")
    assert _roster("add", "--count", "1", *merge, *_ADDRESS).exit_code == 1
    assert (folder / "roster.json").read_bytes() == before
    assert not (folder / "cards-2.html").exists()


def test_several_servers_get_a_roster_and_cards_each(folder: Path) -> None:
    _good(_roster("make", "--count", "5", "--merge", "mail.csv", *_ADDRESS))
    servers = "https://a.example.org,https://b.example.org"
    _good(_roster("split", "--servers", servers, "--merge", "mail.csv"))
    names = [read_roster(folder / f"roster-{number}.json").names() for number in (1, 2)]
    assert names == [
        ("attendee-01", "attendee-03", "attendee-05"),
        ("attendee-02", "attendee-04"),
    ]
    first = read_roster(folder / "roster-1.json").attendee("attendee-01")
    assert first is not None
    assert is_code(first.code_hash, _codes(folder / "mail-1.csv")["attendee-01"])
    assert not is_code(first.code_hash, _codes(folder / "mail.csv")["attendee-01"])
    assert "b.example.org" in (folder / "cards-2.html").read_text()
    again = _roster("split", "--servers", servers)
    assert again.exit_code == 1
    assert not (folder / "cards-1-2.html").exists()


def test_cards_of_a_roster_that_could_not_be_written_are_taken_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> None:
        assert (folder / "cards.html").exists()
        raise RosterError("No space left on device.")

    monkeypatch.setattr(roster_file, "_write", fail)
    refused = _roster("make", "--count", "1", "--merge", "mail.csv", *_ADDRESS)
    assert refused.exit_code == 1
    assert [one.name for one in folder.iterdir()] == [".roster.json.lock"]


def test_a_split_that_fails_half_way_leaves_nothing(folder: Path) -> None:
    _good(_roster("make", "--count", "2", *_ADDRESS))
    (folder / "roster-2.json").write_text("in the way")
    servers = "https://a.example.org,https://b.example.org"
    assert _roster("split", "--servers", servers).exit_code == 1
    assert not (folder / "roster-1.json").exists()
    assert not (folder / "cards-1.html").exists()
    assert (folder / "roster-2.json").read_text() == "in the way"


def test_an_organiser_is_asked_for_a_password(folder: Path) -> None:
    _good(_roster("make", "--count", "1", *_ADDRESS))
    short = _roster("organiser", "olga", stdin="short\nshort\n")
    assert short.exit_code == 1
    assert "10 characters" in short.output
    said = _good(_roster("organiser", "olga", stdin="a long password\n" * 2))
    assert "a long password" not in said
    olga = read_roster(folder / "roster.json").organiser("olga")
    assert olga is not None
    assert is_password(olga.password_hash, "a long password")
    taken = _roster("organiser", "attendee-01", stdin="a long password\n" * 2)
    assert taken.exit_code == 1


def test_check_says_what_is_wrong_and_how_to_mend_it(folder: Path) -> None:
    missing = _roster("check")
    assert missing.exit_code == 1
    assert "gpuworkshop roster make" in missing.output
    (folder / "workshop.yaml").write_text("roster: {file: lists/here.json}\n")
    (folder / "lists").mkdir()
    at = ("--workshop", "workshop.yaml")
    _good(_roster("make", "--count", "1", *at, *_ADDRESS))
    assert (folder / "lists" / "here.json").exists()
    assert "the hub can use it" in _good(_roster("check", *at))
    os.chmod(folder / "lists" / "here.json", 0o644)  # noqa: PTH101
    assert "chmod 600" in _good(_roster("check", *at))
