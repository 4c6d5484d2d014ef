"""Cards to print, and the table for a mail merge."""

import csv
import io
import re

import pytest
import segno
from bs4 import BeautifulSoup, Tag

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.tools.roster.cards import (
    Card,
    Paper,
    cards_page,
    check_address,
    merge_csv,
)

_HUB = "https://hub.example.org"
_ADA = Card(
    name="ada", code="BCDF-2345", full_name="Ada Lovelace", email="ada@example.org"
)


def _cards(count: int) -> list[Card]:
    return [Card(name=f"attendee-{x:03}", code="BCDF-2345") for x in range(count)]


def _page(*cards: Card, address: str = _HUB, **how: object) -> BeautifulSoup:
    text = cards_page(cards, address=address, **how)  # type: ignore[arg-type]
    return BeautifulSoup(text, "html.parser")


def _text(page: BeautifulSoup | Tag, selector: str) -> str:
    found = page.select_one(selector)
    assert found is not None, selector
    return found.get_text()


def _path(text: str) -> str:
    found = BeautifulSoup(text, "html.parser").path
    assert found is not None
    return str(found["d"])


def _rows(*cards: Card) -> list[list[str]]:
    text = merge_csv(cards, address=_HUB)
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


@pytest.mark.parametrize(
    ("count", "on_sheets"),
    [(0, []), (1, [1]), (10, [10]), (11, [10, 1]), (100, [10] * 10)],
)
def test_ten_cards_stand_on_a_sheet(count: int, on_sheets: list[int]) -> None:
    page = _page(*_cards(count))
    sheets = page.select(".sheet")
    assert [len(sheet.select(".card")) for sheet in sheets] == on_sheets
    names = [name.get_text() for name in page.select(".name")]
    assert names == [card.name for card in _cards(count)], "in their order"


def test_a_card_says_where_who_with_which_code_and_how() -> None:
    page = _page(_ADA, title="Spring school")
    assert _text(page, ".title") == "Spring school"
    assert _text(page, ".address") == "hub.example.org"
    assert _text(page, ".full-name") == "Ada Lovelace"
    assert _text(page, ".name") == "ada"
    assert _text(page, ".code") == "BCDF-2345"
    assert len(page.select(".card li")) == 3
    assert "ada@example.org" not in str(page)


def test_a_card_without_a_full_name_has_no_empty_line() -> None:
    assert not _page(Card(name="ada", code="BCDF-2345")).select(".full-name")


def test_http_stays_on_the_card_for_browsers_try_https_first() -> None:
    page = _page(_ADA, address="http://192.168.1.2:8000")
    assert _text(page, ".address") == "http://192.168.1.2:8000"


def test_markup_stays_text_wherever_it_is_given() -> None:
    evil = "<script>alert(1)</script>\"'&amp;"
    card = Card(name=evil, code=evil, full_name=evil)
    page = _page(card, title=evil)
    assert not page.select("script")
    for selector in (".title", ".full-name", ".name", ".code"):
        assert _text(page, selector) == evil
    assert page.title is not None
    assert page.title.get_text() == f"Cards: {evil}"


def test_what_no_file_can_hold_becomes_a_space() -> None:
    card = Card(name="ada", code="BCDF-2345", full_name="A\ud800\x00\u2028B")
    page = cards_page([card], address=_HUB)
    assert ">A   B<" in page
    assert page.encode()
    assert merge_csv([card], address=_HUB).encode()


def test_the_qr_code_holds_the_address_and_nothing_else() -> None:
    page = cards_page([_ADA], address=f"{_HUB}/gpu/hub/login")
    alone = segno.make(f"{_HUB}/gpu", error="m", micro=False)
    assert alone.error in ("M", "Q", "H")
    assert _path(page) == _path(alone.svg_inline(border=4))
    other = Card(name="bob", code="WXYZ-6789")
    assert _path(cards_page([other], address=f"{_HUB}/gpu")) == _path(page)


def test_the_qr_code_has_a_quiet_zone_of_four_modules() -> None:
    (symbol,) = _page(_ADA).select("symbol")
    modules = segno.make(_HUB, error="m", micro=False).symbol_size(border=4)[0]
    assert symbol["viewbox"] == f"0 0 {modules} {modules}"
    assert _path(str(symbol)).startswith("M4 4")


def test_the_qr_code_is_drawn_once_and_a_hundred_cards_are_a_small_file() -> None:
    text = cards_page(_cards(100), address=_HUB)
    page = BeautifulSoup(text, "html.parser")
    assert len(page.select("path")) == 1
    assert len(page.select('.card use[href="#qr"]')) == 100
    assert len(text) < 100_000


def test_the_page_needs_nothing_else_and_runs_nothing() -> None:
    page = _page(_ADA)
    policy = page.select_one('meta[http-equiv="Content-Security-Policy"]')
    assert policy is not None
    assert policy["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    assert page.select('meta[name="robots"][content="noindex"]')
    assert not page.select("script, link, img, iframe, a, form, [src], [onload]")
    assert "url(" not in str(page)
    assert "@import" not in str(page)


@pytest.mark.parametrize(
    ("paper", "height_mm"), [(Paper.A4, 297.0), (Paper.LETTER, 279.4)]
)
def test_five_rows_fit_between_the_margins(paper: Paper, height_mm: float) -> None:
    style = _text(_page(_ADA, paper=paper), "style")
    margin = re.search(rf"size: {paper.value} portrait; margin: (\d+)mm", style)
    row = re.search(r"grid-auto-rows: ([\d.]+)mm", style)
    assert margin is not None
    assert row is not None
    left = height_mm - 2 * float(margin[1]) - 5 * float(row[1])
    assert 1 < left < 3


def test_the_bar_counts_and_asks_to_delete_the_file() -> None:
    bar = " ".join(_text(_page(*_cards(11)), ".bar").split())
    assert "11 cards on 2 sheets of A4" in bar
    assert "100 %" in bar
    assert "delete it" in bar
    one = " ".join(_text(_page(_ADA, paper=Paper.LETTER), ".bar").split())
    assert "1 card on 1 sheet of Letter" in one


@pytest.mark.parametrize("length", [1, 16, 17, 24])
def test_the_longest_name_fits_its_line(length: int) -> None:
    (name,) = _page(Card(name="w" * length, code="BCDF-2345")).select(".name")
    points = re.search(r"font-size: ([\d.]+)pt", str(name["style"]))
    assert points is not None
    assert 10 <= float(points[1]) <= 14
    assert float(points[1]) * length <= 241


def _address_on_card(address: str) -> tuple[float, list[str]]:
    page = _page(_ADA, address=address)
    (shown,) = page.select(".address")
    points = re.search(r"\.address {[^}]*font-size: ([\d.]+)pt", str(page))
    assert points is not None
    return float(points[1]), list(shown.stripped_strings)


def test_a_long_address_is_smaller_and_its_lines_end_behind_a_slash() -> None:
    assert _address_on_card(_HUB) == (13.0, ["hub.example.org"])
    address = "https://gpu-workshop.cs.university.example/spring/2025"
    assert _address_on_card(address) == (
        8.0,
        ["gpu-workshop.cs.university.example/", "spring/2025"],
    )


@pytest.mark.parametrize("end", ["a" * 180, "-/" * 88 + "b", "ab/cdefgh/" * 17 + "i"])
def test_the_longest_address_is_whole_and_leaves_room_for_the_rest(end: str) -> None:
    address = f"{_HUB}/{end}"[:200].rstrip("/")
    points, lines = _address_on_card(address)
    assert f"https://{''.join(lines)}" == address
    assert len(lines) <= 5
    assert max(map(len, lines)) * points <= 290, "points of the line, at 1 em each"


def test_the_table_has_a_line_for_each_card_in_the_way_of_excel() -> None:
    text = merge_csv([_ADA], address=f"{_HUB}/")
    assert text == (
        "\ufeffname,full_name,email,code,address\r\n"
        f"ada,Ada Lovelace,ada@example.org,BCDF-2345,{_HUB}\r\n"
    )


def test_commas_quotes_and_accents_come_back_as_they_were() -> None:
    name = 'Łukasiewicz, "Zoë"; 山田'
    assert _rows(Card(name="zoe", code="C", full_name=name))[1][1] == name


@pytest.mark.parametrize(
    "evil",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "  =1",
        " \t=1",
        "\n=1",
        "\u00a0=1",
        "\u200b=1",
        "\ufeff@x",
        "\uff1d1",
        "\x00=1",
        " \ty",
    ],
)
def test_a_cell_that_might_be_a_formula_becomes_text(evil: str) -> None:
    rows = _rows(Card(name=evil, code=evil, full_name=evil, email=evil))
    assert len(rows) == 2
    assert all(cell.startswith("'") for cell in rows[1][:4])
    assert rows[1][4] == _HUB


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\v", "\x85", "\u2028", "\u2029"])
def test_no_cell_breaks_a_line(end: str) -> None:
    card = Card(name="ada", code="BCDF-2345", full_name=f"Ada{end}=1", email=f"a{end}")
    text = merge_csv([card], address=_HUB)
    assert len(text.splitlines()) == 2
    assert text.count("\r\n") == text.count("\n") == text.count("\r") == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (_HUB, _HUB),
        (f"{_HUB}/", _HUB),
        (f"{_HUB}//", _HUB),
        (f"{_HUB}/hub", _HUB),
        (f"{_HUB}/hub/", _HUB),
        (f"{_HUB}/hub/login", _HUB),
        (f"{_HUB}/gpu/hub/home/", f"{_HUB}/gpu"),
        (f"{_HUB}/github", f"{_HUB}/github"),
        (f"{_HUB}/hub/user-redirect/lab", f"{_HUB}/hub/user-redirect/lab"),
        ("HTTPS://Hub.Example.ORG/Gpu", "https://hub.example.org/Gpu"),
        ("http://192.168.1.2:8000/", "http://192.168.1.2:8000"),
        ("http://[2001:db8::1]:8000/hub", "http://[2001:db8::1]:8000"),
        ("https://hub.example.org:/", _HUB),
        ("http://localhost", "http://localhost"),
        ("https://h/" + "a" * 190, "https://h/" + "a" * 190),
    ],
)
def test_an_address_loses_what_nobody_needs_to_type(given: str, kept: str) -> None:
    assert check_address(given) == kept
    assert check_address(kept) == kept


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "hub.example.org",
        "ftp://hub.example.org",
        "javascript:alert(1)",
        "https://",
        "https:///hub",
        "https://:8000",
        "https:hub.example.org",
        "https://ada:hunter2@hub.example.org",
        "https://@hub.example.org",
        f"{_HUB}?next=/",
        f"{_HUB}/#top",
        f"{_HUB}?",
        f"{_HUB}/#",
        f"{_HUB}\n",
        f" {_HUB}",
        f"{_HUB}/a b",
        f"{_HUB}/\x00",
        f"{_HUB}\t/",
        f"{_HUB}/\u202egro",
        "https://münchen.example",
        f"{_HUB}\\a",
        f'{_HUB}/"<b>',
        "https://hub.example.org:0",
        "https://hub:99999",
        "https://hub:x",
        "https://[::1",
        "https://[x]",
        "https://[::1]x",
        "https://[v1.x:y]",
        "https://a..b",
        "https://-a",
        "https://h*",
        "https://%41",
        "https://h/" + "a" * 191,
    ],
)
def test_an_address_that_is_not_for_a_card_is_refused(bad: str) -> None:
    with pytest.raises(RosterError, match="address") as refused:
        check_address(bad)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(RosterError):
        cards_page([], address=bad)
    with pytest.raises(RosterError):
        merge_csv([], address=bad)
