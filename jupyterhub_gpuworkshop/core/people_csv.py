"""An organiser's list of people, as spreadsheets and people write CSV.

Owns how such a file is read, whichever program wrote it. Formulas stay as they stand:
who writes a file for a spreadsheet defuses them.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .errors import RosterError
from .people import Person, fold, given_name_mistake, refuse, shown
from .roster import MOST_ATTENDEES, group_mistake, share_from

MOST_BYTES = 2**20
"""Of a list: `MOST_ATTENDEES` people with a lot to say of each fit."""

LONGEST_CELL = 200
LONGEST_EMAIL = 254
LONGEST_GROUP = 64

_EXAMPLE = "Write a first line such as full name,email,group"
_SAVE_AS = "Save the list as CSV UTF-8."

_SEPARATORS = (",", ";", "\t")

_WORDS = {
    "name": "name username user login",
    "full_name": "fullname",
    "first_name": "firstname givenname forename",
    "last_name": "lastname surname familyname",
    "email": "email mail emailaddress",
    "group": "group team",
    "share": "share gpu",
}
_COLUMNS = {word: column for column, words in _WORDS.items() for word in words.split()}
_WHO = ("name", "full_name", "first_name", "last_name", "email")

# Those of Unicode's that end a line or turn the direction of what follows them are as
# bad on a card or in a terminal as those of ASCII.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_SEP_LINE = re.compile(r'"?sep=(.)[\s"]*', re.IGNORECASE)
_LIKE_A_DATE = re.compile(
    r"\d{1,4}[-./] ?(?:[^\W\d]{3,}\.?|\d{1,2}\.|\d{1,2}[-./] ?\d{1,4})"
    r"|[^\W\d]{3,}[-. ]\d{1,2}"
)
# Those that Unicode calls spaces, and two that have no width.
_SPACES = (
    " \t\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000\u200b\ufeff"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """The cells of a row, or why it has none."""

    line: int
    cells: tuple[str, ...] = ()
    mistake: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """Which cell of a row is what."""

    columns: dict[str, int]
    width: int

    def cell(self, row: _Row, column: str) -> str:
        """Return what a row has in a column, ``""`` if it ends before it."""
        at = self.columns.get(column, len(row.cells))
        return row.cells[at] if at < len(row.cells) else ""


def read_people(data: bytes) -> tuple[Person, ...]:
    """Read a list of people as spreadsheets and people write CSV.

    UTF-8, UTF-16 with its mark, and Windows-1252 if it is neither; comma, semicolon or
    tab; the columns in any order, those of unknown meaning left out.

    Raises:
        RosterError: the file is no such list, or rows of it have mistakes: a line of
            the message for each row, with the number of its line.
    """
    lines = _text(data).split("\n")
    nuls = [at for at, line in enumerate(lines, 1) if "\0" in line]
    refuse([(at, f"This is no text: it has a NUL byte. {_SAVE_AS}") for at in nuls])
    start, separators = _beginning(lines)
    heads = [(one, next(_rows(lines, start, one), None)) for one in separators]
    # The right separator shows most of the words that a header has.
    separator, head = max(heads, key=lambda pair: _knowledge(pair[1]))
    if head is None:
        raise RosterError(f"The list is empty. {_EXAMPLE} and a line for each person.")
    rows = _rows(lines, start, separator)
    header = _header(head)
    if header is None:
        header = _Header(columns={"full_name": 0}, width=1)
    else:
        next(rows)
    people = _people(rows, header)
    if not people:
        raise RosterError("Nobody is in the list. Write a line for each person.")
    return people


def _text(data: bytes) -> str:
    """Return what bytes say, with line feeds at the ends of lines."""
    if len(data) > MOST_BYTES:
        raise RosterError(
            f"The list is larger than {MOST_BYTES // 2**20} MiB. Leave out the columns "
            "that are not needed, or split it."
        )
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise RosterError(f"This is a spreadsheet's own format, no CSV. {_SAVE_AS}")
    try:
        text = _decoded(data)
    except UnicodeDecodeError:
        raise RosterError(
            f"This is no text, or of an encoding that is not known. {_SAVE_AS}"
        ) from None
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if data.startswith(b"\xef\xbb\xbf"):
            raise
        # Excel's plain "CSV", on Windows.
        return data.decode("cp1252")


def _beginning(lines: Sequence[str]) -> tuple[int, Sequence[str]]:
    """Return how many lines to skip, and which separators the list may have."""
    separators = (told,) if (told := _told_separator(lines[0])) else _SEPARATORS
    start = 1 if told else 0
    while start < len(lines) and not lines[start].strip(" ,;\t"):
        start += 1
    return start, separators


def _told_separator(line: str) -> str:
    """Return what Excel's own first line says, ``""`` for any other line."""
    match = _SEP_LINE.match(line)
    # Excel fills the line up to the number of columns when it saves such a file again.
    if match is None or line[match.end() :].strip(",;\t"):
        return ""
    if match[1] not in _SEPARATORS:
        raise RosterError(
            f"line 1: {shown(match[1])} separates no cells. Use a comma, a semicolon "
            "or tabs."
        )
    return match[1]


def _rows(lines: Sequence[str], start: int, separator: str) -> Iterator[_Row]:
    """Parse lines of CSV, and leave out blank rows."""
    reader = csv.reader(
        (f"{line}\n" for line in lines[start:]),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    while True:
        line = start + reader.line_num + 1
        try:
            cells = tuple(_tidy(cell) for cell in next(reader))
        except StopIteration:
            return
        except csv.Error as error:
            yield _Row(line=line, mistake=_csv_mistake(str(error)))
            continue
        if any(cells):
            yield _Row(line=line, cells=cells)


def _csv_mistake(error: str) -> str:
    if "limit" in error:
        return f"A cell is longer than {LONGEST_CELL} characters. Shorten it."
    if "end of data" in error:
        return 'A " opens a cell that no other " closes. Close it, or leave it out.'
    return (
        'A " closes a cell, and more follows before the next cell. Write a " within '
        "a quoted cell twice."
    )


def _tidy(cell: str) -> str:
    return cell.replace("\n", " ").replace("\xa0", " ").strip(_SPACES)


def _known_columns(row: _Row) -> list[tuple[str, int]]:
    words = (re.sub(r"[\s_\-]", "", cell).casefold() for cell in row.cells)
    return [(_COLUMNS[word], at) for at, word in enumerate(words) if word in _COLUMNS]


def _knowledge(row: _Row | None) -> tuple[int, int]:
    return (len(_known_columns(row)), len(row.cells)) if row else (-1, 0)


def _header(row: _Row) -> _Header | None:
    """Read the first row; None if it is one of a list of full names already."""
    if row.mistake:
        raise RosterError(f"line {row.line}: {row.mistake}")
    known = _known_columns(row)
    if not known:
        if len(row.cells) == 1:
            return None
        raise RosterError(
            f"line {row.line}: This line does not say what the columns are. {_EXAMPLE}."
        )
    columns = dict(known)
    if len(columns) < len(known):
        seen = [column for column, _ in known]
        twice = next(column for column in seen if seen.count(column) > 1)
        cells = [row.cells[at] for column, at in known if column == twice]
        raise RosterError(
            f"line {row.line}: {' and '.join(map(shown, cells))} are columns for the "
            f"same: {_WORDS[twice].replace(' ', ', ')}. Keep one, and rename the rest."
        )
    if not columns.keys() & set(_WHO):
        raise RosterError(
            f"line {row.line}: No column says who the people are. {_EXAMPLE}."
        )
    return _Header(columns=columns, width=len(row.cells))


def _people(rows: Iterable[_Row], header: _Header) -> tuple[Person, ...]:
    people: list[Person] = []
    mistakes: list[tuple[int, str]] = []
    names: dict[str, int] = {}
    for count, row in enumerate(rows, 1):
        if count > MOST_ATTENDEES:
            too_many = f"A roster takes {MOST_ATTENDEES} people. Split the list."
            mistakes.append((row.line, too_many))
            break
        found = [row.mistake] if row.mistake else _row_mistakes(row, header)
        if not found:
            person, found = _person(row, header, names)
            people.append(person)
        if found:
            mistakes.append((row.line, " ".join(found)))
    refuse(mistakes)
    return tuple(people)


def _row_mistakes(row: _Row, header: _Header) -> list[str]:
    """Say what is wrong with cells whatever they mean."""
    mistakes = []
    if any(row.cells[header.width :]):
        mistakes.append(
            f"There are {len(row.cells)} cells, and {header.width} in the first line. "
            'Put a cell with a comma or the like in it in quotes: "Lovelace, Ada".'
        )
    if control := _CONTROL.search("".join(row.cells)):
        mistakes.append(
            f"A cell has a control character in it, U+{ord(control[0]):04X}. Remove it."
        )
    # What nobody reads may be long: registration forms have answers in them.
    for column in header.columns:
        longest = LONGEST_EMAIL if column == "email" else LONGEST_CELL
        if len(cell := header.cell(row, column)) > longest:
            mistakes.append(
                f"{shown(cell)} is longer than {longest} characters. Shorten it."
            )
    return mistakes


def _person(
    row: _Row, header: _Header, names: dict[str, int]
) -> tuple[Person, list[str]]:
    """Return whom a row tells of, and what is wrong with it.

    Args:
        row: without `_row_mistakes`.
        header: what its cells are.
        names: the line of each username that the rows before it give; this row's is
            added.
    """
    parts = (header.cell(row, column) for column in ("first_name", "last_name"))
    person = Person(
        line=row.line,
        name=header.cell(row, "name"),
        full_name=header.cell(row, "full_name") or " ".join(filter(None, parts)),
        email=header.cell(row, "email"),
        group=header.cell(row, "group"),
    )
    mistakes: list[str | None] = []
    if not (person.name or person.full_name or person.email):
        mistakes.append("Nobody is named. Write a full name, an e-mail or a username.")
    if len(person.full_name) > LONGEST_CELL:
        mistakes.append(
            f"{shown(person.full_name)} is longer than {LONGEST_CELL} characters. "
            "Shorten it."
        )
    if person.name:
        mistakes.append(given_name_mistake(person.name, names))
        person = replace(person, name=fold(person.name))
        names.setdefault(person.name, row.line)
    mistakes += [_email_mistake(person.email), _group_mistake(person.group)]
    share = header.cell(row, "share")
    try:
        person = replace(person, share=share_from(share))
    except RosterError as error:
        mistakes.append(str(error))
        if _LIKE_A_DATE.fullmatch(share):
            mistakes.append("A spreadsheet makes a date of 1/5 unless told it is text.")
    return person, [mistake for mistake in mistakes if mistake is not None]


def _email_mistake(email: str) -> str | None:
    local_part, _, domain = email.partition("@")
    fit = local_part and domain and "@" not in domain
    if not email or (fit and not re.search(r"\s", email) and email.isprintable()):
        return None
    return (
        f"{shown(email)} is no e-mail address. Write one such as ada@example.org, "
        "without spaces, or none."
    )


def _group_mistake(group: str) -> str | None:
    if group.isprintable() and len(group) <= LONGEST_GROUP:
        return group_mistake(group)
    return (
        f"{shown(group)} is unfit as a group. Write letters, digits and spaces: "
        f"{LONGEST_GROUP} characters at most."
    )
