"""From a list of people to logging in from a card, in a real browser."""

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.engines.chromium import chromium, require_chromium
from tests.hub.running_hub import wait_for

from .people import HOSTILE, as_spreadsheet, full_names
from .workshop_day import Day

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NOTEBOOK = json.dumps(
    {
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# LESSON"}
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
)

pytestmark = [pytest.mark.hub, pytest.mark.lab, pytest.mark.browser]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    require_chromium()
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """Return a page of a browser that knows nobody yet."""
    context = browser.new_context()
    try:
        yield context.new_page()
    finally:
        context.close()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Return a workshop for a hundred people, whose hub runs."""
    folder = tmp_path_factory.mktemp("day")
    material = {
        "folder": "material",
        "notebooks": {"intro": "lessons"},
        "data": {"tables": "tables"},
        "open_first": "intro/start.ipynb",
        "archives": "archives",
    }
    day = Day(folder, {"material": material})
    (folder / "lessons").mkdir()
    (folder / "lessons/start.ipynb").write_text(_NOTEBOOK.replace("LESSON", "Lesson 1"))
    (folder / "tables").mkdir()
    (folder / "tables/one.csv").write_text("1,2\n")
    (folder / "people.csv").write_bytes(as_spreadsheet())
    day.organise("material", "install")
    make = ("roster", "make", "--csv", "people.csv", "--address", day.address)
    day.organise(*make, "--merge", "mail.csv")
    try:
        day.start()
        yield day
    finally:
        day.hub.close()


def test_a_hundred_cards_come_of_a_list_that_people_wrote(
    day: Day, page: "Page"
) -> None:
    titles: list[str] = []
    page.on("console", lambda message: titles.append(message.text))
    page.goto((day.folder / "cards.html").as_uri())
    assert page.locator(".card").count() == len(full_names()) == 100
    assert page.locator(".sheet").count() == 10
    # What they wrote is shown as they wrote it, and none of it has run.
    shown = {text.strip() for text in page.locator(".full-name").all_inner_texts()}
    assert {HOSTILE[0], HOSTILE[4], HOSTILE[5]} <= shown
    assert page.title() == "Cards: GPU workshop"
    names = page.locator(".name").all_inner_texts()
    assert len(set(names)) == 100
    assert {"ohara-zoe", "anna-smith", "anna-smith-2", "anna-smith-3"} <= set(names)
    assert len(set(page.locator(".code").all_inner_texts())) == 100


def test_no_spreadsheet_runs_what_somebody_is_called(day: Day) -> None:
    with (day.folder / "mail.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 101
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]


def test_an_attendee_comes_from_the_card_to_the_first_notebook(
    day: Day, page: "Page"
) -> None:
    code = day.cards()["ohara-zoe"]
    day.log_in(page, "Ohara-Zoe ", code.lower().replace("-", " "))
    page.wait_for_url("**/user/ohara-zoe/lab/tree/intro/start.ipynb**", timeout=60_000)
    page.get_by_role("heading", name="Lesson 1").wait_for(timeout=60_000)
    home = day.folder / "home/ohara-zoe"
    assert (home / "data/tables/one.csv").read_text() == "1,2\n"
    # Who came by a card may not do what an organiser does.
    assert page.goto(f"{day.address}/hub/admin").status == 403


def test_one_click_leads_from_jupyterlab_to_the_attendees_page(
    day: Day, page: "Page"
) -> None:
    day.log_in(page, "ohara-zoe", day.cards()["ohara-zoe"])
    page.wait_for_url("**/user/ohara-zoe/lab/tree/intro/**", timeout=60_000)
    # Without a notebook, and so without JupyterLab's question for a kernel.
    page.goto(f"{day.address}/user/ohara-zoe/lab/workspaces/none")
    with page.context.expect_page(timeout=60_000) as opened:
        page.get_by_role("button", name="GPU", exact=True).click(timeout=60_000)
    opened.value.wait_for_url("**/services/gpuworkshop/", timeout=60_000)
    assert "ohara-zoe" in opened.value.content()
    # And from the keyboard, by the file menu.
    page.get_by_role("menuitem", name="File", exact=True).click()
    with page.context.expect_page(timeout=60_000) as again:
        page.get_by_role("menuitem", name="My GPU and kernels").click()
    again.value.wait_for_url("**/services/gpuworkshop/", timeout=60_000)


def test_who_is_locked_out_is_let_in_again_by_the_organiser(
    day: Day, page: "Page", browser: "Browser"
) -> None:
    codes = day.cards()
    for _ in range(12):
        day.log_in(page, "anna-smith", codes["anna-smith-2"])
        told = page.get_by_role("alert").last.inner_text()
        if "Too many wrong codes" in told:
            break
        assert "Name or code is wrong" in told
    assert "Too many wrong codes" in told
    day.log_in(page, "anna-smith", codes["anna-smith"])
    assert "Too many wrong codes" in page.get_by_role("alert").last.inner_text()
    # Her neighbour, behind the same address, notices nothing.
    other = browser.new_context()
    neighbour = other.new_page()
    day.log_in(neighbour, "anna-smith-3", codes["anna-smith-3"])
    neighbour.wait_for_url("**/anna-smith-3**", timeout=60_000)
    other.close()
    day.organise("roster", "unlock", "anna-smith")
    day.log_in(page, "anna-smith", codes["anna-smith"])
    page.wait_for_url("**/anna-smith**", timeout=60_000)


def test_a_new_card_is_good_at_once_and_the_old_one_no_more(
    day: Day, page: "Page"
) -> None:
    old = day.cards()["person-no-30"]
    day.organise(
        *("roster", "reset", "person-no-30", "--address", day.address),
        *("--cards", "again.html"),
    )
    new = day.cards("again.html")["person-no-30"]
    day.log_in(page, "person-no-30", old)
    assert "Name or code is wrong" in page.get_by_role("alert").last.inner_text()
    day.log_in(page, "person-no-30", new)
    page.wait_for_url("**/person-no-30**", timeout=60_000)


def test_every_card_of_a_hundred_is_good(day: Day) -> None:
    cards = {
        name: code
        for name, code in day.cards().items()
        if name not in ("anna-smith", "person-no-30")  # the tests above changed them
    }
    with ThreadPoolExecutor(10) as pool:
        answers = dict(
            zip(
                cards,
                pool.map(day.knock, *zip(*cards.items(), strict=True)),
                strict=True,
            )
        )
    assert {name for name, status in answers.items() if status != 302} == set()
    groups = {group for name in cards for group in day.hub.user(name)["groups"]}
    assert groups == {"team-0", "team-1", "team-2", "team-3", "gpu-share:1/8"}


def test_the_work_is_there_when_the_doors_are_closed(
    day: Day, page: "Page", browser: "Browser"
) -> None:
    codes = day.cards()
    for name in ("p5", "p11"):
        day.organise("prestart", "--api-url", day.api_url, name)
        (day.folder / f"home/{name}/mine.txt").write_text(f"work of {name}")
    lesson = day.folder / "home/p5/intro/start.ipynb"
    lesson.write_text(lesson.read_text().replace("Lesson 1", "My notes"))
    # Somebody mends the lesson meanwhile: what an attendee wrote stays.
    source = day.folder / "lessons/start.ipynb"
    source.write_text(_NOTEBOOK.replace("LESSON", "Lesson 1, mended"))
    day.organise("material", "update")
    beside = lesson.with_name("start-updated.ipynb")
    wait_for(beside.exists, why=day.hub.log[-3000:])
    assert "My notes" in lesson.read_text()
    untouched = day.folder / "home/p11/intro/start.ipynb"
    wait_for(lambda: "mended" in untouched.read_text())

    day.organise("material", "collect")
    day.close_doors()
    wait_for(lambda: day.hub.server("p5") is None, why=day.hub.log[-3000:])
    day.log_in(page, "p5", codes["p5"])
    page.get_by_role("heading", name="Your work").wait_for(timeout=60_000)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    with tarfile.open(download.value.path()) as archive:
        names = archive.getnames()
        notes = archive.extractfile("p5/intro/start.ipynb")
        assert notes is not None
        assert "My notes" in notes.read().decode()
    assert "p5/mine.txt" in names
    assert not [name for name in names if name.partition("/")[0] != "p5"]
    # Whatever the address says, it is one's own.
    others = page.request.get(
        f"{day.address}/services/gpuworkshop/work/archive?name=p11"
    )
    with tarfile.open(fileobj=io.BytesIO(others.body())) as archive:
        assert archive.getnames()[0] == "p5"
    page.goto(f"{day.address}/hub/spawn")
    assert "The doors are closed." in page.locator("body").inner_text()
    assert day.hub.server("p5") is None
