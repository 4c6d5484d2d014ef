"""What attendees get to see: cards, a room's poster, and a table for a mail merge.

Owns what they say; `templates/cards.html` and `room.html` own how they look. It takes
codes as they are and keeps none, and it writes no file: whoever does sees to it that
nobody else reads it.
"""

import csv
import io
import ipaddress
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jupyterhub_gpuworkshop.core.errors import RosterError

LONGEST_ADDRESS = 200
CARDS_A_SHEET = 10

_QUIET_MODULES = 4
"""The white border that ISO/IEC 18004 asks for around a QR code."""
_ADDRESS_SIZES = (
    (13.0, 22, 1),
    (11.0, 26, 1),
    (9.0, 32, 1),
    (9.0, 32, 3),
    (8.0, 36, 4),
    (6.5, 44, 5),
)
"""Points, letters a line and lines that leave room for the rest of a card."""
_NAME_POINTS = (10.0, 14.0)
_NAME_LINE_POINTS = 240.0
"""What a name's line holds: that many points of letters, at 1 em each 0.6 wide."""

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?")
_NETLOC = re.compile(r"(?:\[[^\]%]+\]|[^\[\]:]+)(?::[0-9]*)?")
"""urlsplit passes over what stands between a bracket and the port."""
_UNFIT = re.compile(r"[^A-Za-z0-9\-._~:/\[\]!$&'()*+,;=%]")
_OF_THE_HUB = re.compile(r"/hub(?:/(?:login|home|spawn|join))?$")
_PIECE = re.compile(r"http://[^/]*/?|[^/]+/?|/")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a cell begins with that spreadsheets take for a formula, in full width too."""

_JINJA = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Paper(str, Enum):
    """What the cards are printed on."""

    A4 = "a4"
    LETTER = "letter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What one attendee is told.

    Attributes:
        name: the hub's name of the user.
        code: as `core.roster.readable_code` writes it.
        full_name: as people call the attendee, or ``""``.
        email: where a mail merge sends it, or ``""``; it is not on the card.
    """

    name: str
    code: str
    full_name: str = ""
    email: str = ""


def cards_page(
    cards: Sequence[Card],
    *,
    address: str,
    title: str = "GPU workshop",
    paper: Paper = Paper.A4,
) -> str:
    """Write an HTML page of cards, ten a sheet, that needs no other file.

    The QR code holds the address alone: a photo of a card, or a phone's history of
    what it has scanned, then tells no code.

    Args:
        cards: in the order in which they are printed, row by row.
        address: of the hub, as attendees reach it.
        title: at the top of every card.
        paper: what the sheets are.

    Raises:
        RosterError: the address is unfit; see `check_address`.
    """
    address = check_address(address)
    sheets = [
        [_on_paper(card) for card in cards[at : at + CARDS_A_SHEET]]
        for at in range(0, len(cards), CARDS_A_SHEET)
    ]
    points, lines = _address_lines(address.removeprefix("https://"))
    drawing, modules = _qr_code(address)
    return _JINJA.get_template("cards.html").render(
        title=_one_line(title),
        paper=paper.value,
        count=len(cards),
        sheets=sheets,
        address_lines=lines,
        address_points=points,
        qr_code=drawing,
        qr_modules=modules,
    )


def room_page(code: str, *, address: str, title: str, paper: Paper) -> str:
    """Write an HTML page to hang in a room: one sheet, that needs no other file.

    The QR code holds the address of the page to join, and not the room's code.

    Args:
        code: of the room, as `core.roster.readable_code` writes it.
        address: of the hub, as attendees reach it.
        title: at the top.
        paper: what the sheet is.

    Raises:
        RosterError: the address is unfit; see `check_address`.
    """
    address = check_address(address)
    page = join_address(address)
    points, lines = _address_lines(page.removeprefix("https://"))
    drawing, _ = _qr_code(page)
    return _JINJA.get_template("room.html").render(
        title=_one_line(title),
        paper=paper.value,
        code=_one_line(code),
        address_lines=lines,
        address_points=2.6 * points,
        qr_code=drawing,
    )


def join_address(address: str) -> str:
    """Return the address of the hub's page to join an open room.

    Args:
        address: as `check_address` returns it.
    """
    return f"{address}/hub/join"


def merge_csv(cards: Sequence[Card], *, address: str) -> str:
    r"""Write a table for a mail merge, with a line for each card.

    It begins with a byte order mark, for Excel takes accents for something else
    without; its lines end with ``\r\n``: write it in UTF-8, and as it is.

    Raises:
        RosterError: the address is unfit; see `check_address`.
    """
    address = check_address(address)
    text = io.StringIO(newline="")
    text.write("\ufeff")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(("name", "full_name", "email", "code", "address"))
    for card in cards:
        cells = (card.name, card.full_name, card.email, card.code, address)
        writer.writerow(map(_cell, cells))
    return text.getvalue()


def check_address(address: str) -> str:
    """Return the hub's address as people type it, without what they need not type.

    Args:
        address: of any of the hub's first pages: with or without ``/hub/login``, say.

    Raises:
        RosterError: people could not open it, or it holds what is not for a card. The
            message does not repeat it, for there may be a password in it.
    """
    if len(address) > LONGEST_ADDRESS:
        raise RosterError(
            f"The hub's address is {len(address)} characters long. Nobody types more "
            f"than {LONGEST_ADDRESS}: give the hub a shorter one."
        )
    if "@" in address:
        raise RosterError(
            "The hub's address has an @, so a name or a password may be in it, and it "
            "would be on every card. Leave out what is before the host."
        )
    if "?" in address or "#" in address:
        raise RosterError(
            "The hub's address has a ? or a #. Leave it out, with all behind it."
        )
    if unfit := _UNFIT.search(address):
        raise RosterError(
            f"The hub's address has {unfit.group()!a} in it, which no address "
            "can. Write other letters than a to z as browsers show them when they "
            "copy an address: xn--... in a host, %.. behind it."
        )
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname or "", parts.port
        fit = bool(_NETLOC.fullmatch(parts.netloc)) and _is_host(host) and port != 0
    except ValueError:
        fit = False
    if not fit or parts.scheme not in ("http", "https"):
        raise RosterError(
            "The hub's address cannot be opened as it stands. Write it as "
            "https://hub.example.org, with :8443 or /path behind it where it has them."
        )
    path = _OF_THE_HUB.sub("", parts.path.rstrip("/")).rstrip("/")
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{bracketed}{f':{port}' if port else ''}{path}"


def _is_host(host: str) -> bool:
    if ":" in host:
        return ipaddress.ip_address(host).version == 6
    return bool(_HOST.fullmatch(host)) and ".." not in host


def _qr_code(address: str) -> tuple[Markup, int]:
    """Return the drawing, as an SVG element, and how many modules it is wide."""
    code = segno.make(address, error="m", micro=False)
    drawing = code.svg_inline(
        border=_QUIET_MODULES, omitsize=True, svgclass=None, lineclass=None
    )
    return Markup(drawing), len(code.matrix) + 2 * _QUIET_MODULES  # noqa: S704  segno writes no text into it


def _address_lines(shown: str) -> tuple[float, list[str]]:
    """Return points and lines of an address, in the largest size that fits.

    A line ends behind a ``/`` where it can: a dash at its end would leave open whether
    it is to be typed.
    """
    pieces = _PIECE.findall(shown)
    for points, width, most_lines in _ADDRESS_SIZES:
        lines = [""]
        for piece in pieces:
            if lines[-1] and len(lines[-1] + piece) > width:
                lines.append("")
            lines[-1] += piece
        if len(lines) <= most_lines and max(map(len, lines)) <= width:
            return points, lines
    points, width, _ = _ADDRESS_SIZES[-1]
    return points, [shown[at : at + width] for at in range(0, len(shown), width)]


def _on_paper(card: Card) -> dict[str, str | float]:
    """Return what the template needs of a card."""
    smallest, largest = _NAME_POINTS
    points = max(smallest, _NAME_LINE_POINTS / max(1, len(card.name)))
    return {
        "name": _one_line(card.name),
        "code": _one_line(card.code),
        "full_name": _one_line(card.full_name),
        "name_points": round(min(points, largest), 1),
    }


def _one_line(text: str) -> str:
    """Return a text without line breaks, and without what no file in UTF-8 holds."""
    return "".join(
        " " if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter
        for letter in text
    )


def _cell(text: str) -> str:
    """Return a cell that a spreadsheet takes for text, whatever somebody wrote."""
    first = next((x for x in text if x.isprintable() and x != " "), "")
    guarded = first in _FORMULA or text.lstrip(" ").startswith(("\t", "\r"))
    return f"'{_one_line(text)}" if guarded else _one_line(text)
