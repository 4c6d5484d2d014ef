"""Every page, as axe-core sees it: what keeps people from using it is not there."""

import time

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.engines.chromium import chromium_beside
from tests.service.test_work_page import Site as WorkSite

from .fed_site import fed_site, look, signed_in
from .organiser_room import without_plots
from .rooms import GIB, device, event, holder, kernel, lease, messages, whole
from .test_attendee_page import PLOT, mine
from .test_wall import wall

AXE = Axe()

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

DEVICES = [
    device(0),
    device(1, drained=True),
    device(2, lost=True),
    device(3, problem="Its memory cannot be read."),
]
LEASES = [
    lease("ada", used_gib=19.5),
    lease("bob", used_gib=2.0, memory_limit="none", memory_limits=[]),
    lease("cem", 1, used_gib=6.0, short_bytes=GIB, memory_limit="hard"),
    lease("dot", 1, used_gib=0, state="quarantined", server="second"),
]
KERNELS = [
    kernel("ada", used_gib=19.5, state="busy"),
    kernel("bob", used_gib=2.0, idle_seconds=1500, acts_at=time.time() + 60),
    kernel("cem", 1, used_gib=6.0, idle_seconds=300, pinned=True, pinned_until=None),
    kernel("cem", 2, used_gib=0, parked_bytes=3 * GIB),
    kernel("cem", 3, used_gib=0, state="unknown", notebook=""),
]
HOLDERS = [
    holder("ada", 11, used_gib=19.5, kernel_id="kernel-ada-0"),
    holder("bob", 12, used_gib=2.0, kernel_id="kernel-bob-0"),
    holder("cem", 14, number=1, used_gib=1.0, kind="terminal"),
    holder("", 15, number=1, used_gib=2.0, kind="foreign"),
]
EVENTS = [
    event(3, "kernel_reclaimed", user="bob", reason="It was idle for 24 min."),
    event(2, "lease_refused", user="dan", reason="No GPU has so much left."),
    event(1, "device_drained", user="", reason="olga asked for it."),
]
NEEDS = {
    "problems": ["The processes of GPU 1 are not known."],
    "waiting": [{"user": "dan", "server": "", "share": "1/5", "at": 1.0}],
    "locked": [{"name": "eve", "address": "10.0.0.1", "until": time.time() + 60}],
    "announcement": {"text": "Lunch at noon.", "until": None, "by": "olga"},
}
NOTICE = {
    "id": "n",
    "kind": "kernel_idle",
    "user": "ada",
    "server": "",
    "kernel_id": "kernel-ada-1",
    "text": "notebook-1.ipynb: its memory is taken back soon.",
    "given_at": 1.0,
    "acts_at": time.time() + 60,
    "seen_at": None,
}
OWN = mine(
    [lease("ada", used_gib=19.5, parked_bytes=GIB, short_bytes=GIB)],
    [
        kernel("ada", 1, idle_seconds=900, acts_at=time.time() + 60),
        kernel("ada", 2, state="busy", pinned=True, pinned_until=time.time() + 600),
        kernel("ada", 3, used_gib=0, parked_bytes=GIB),
    ],
    [holder("ada", 4711, kind="terminal")],
    [NOTICE],
    [event(7, "kernel_reclaimed", details={"notebook": "a/b.ipynb"})],
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fed():
    """Return a site, and contexts of a browser by who is logged in there."""
    async with fed_site() as (site, hub), chromium_beside() as browser:
        contexts = {
            name: await signed_in(browser, name)
            for name in ("organiser", "ada", "stranger")
        }
        await contexts["organiser"].route("**/plot.js", without_plots)
        yield site, contexts, hub


@pytest_asyncio.fixture(loop_scope="module")
async def site(fed):
    made, contexts, _ = fed
    made.forget()
    yield made
    for context in contexts.values():
        for page in context.pages:
            await page.close()


@pytest.fixture
def contexts(fed):
    return fed[1]


async def in_the_way(page):
    """Return what axe-core finds wrong, light and dark, however little it minds."""
    if await page.evaluate("typeof axe") == "undefined":
        await page.evaluate(AXE.axe_script)
    first = await page.evaluate("document.documentElement.dataset.theme")
    found = []
    for theme in ("light", "dark"):
        await page.evaluate(
            "theme => {document.documentElement.dataset.theme = theme}", theme
        )
        results = await page.evaluate("axe.run({resultTypes: ['violations']})")
        found += [
            f"{theme}: {rule['impact']} {rule['id']}: {node['target']} "
            f"{node['failureSummary']}"
            for rule in results["violations"]
            for node in rule["nodes"]
        ]
    await page.evaluate(
        "theme => {document.documentElement.dataset.theme = theme}", first
    )
    return found


@pytest.mark.parametrize("width", [1440, 390])
async def test_the_organisers_page_keeps_nobody_out(site, contexts, width):
    room = whole(LEASES, KERNELS, HOLDERS, EVENTS, **NEEDS)
    site.first = messages(devices=DEVICES, room=room)
    page = (await look(contexts["organiser"], site, width=width)).page
    await expect(page.locator("#people tr.kernel")).to_have_count(len(KERNELS))
    assert await in_the_way(page) == []


async def test_small_cards_of_many_devices_keep_nobody_out(site, contexts):
    devices = [device(number) for number in range(12)]
    site.first = messages(devices=devices, room=whole(LEASES, KERNELS, HOLDERS))
    page = (await look(contexts["organiser"], site)).page
    await page.locator("#devices summary").first.click()
    assert await in_the_way(page) == []


async def test_dialogs_and_what_is_told_after_them_keep_nobody_out(site, contexts):
    site.first = messages(devices=DEVICES, room=whole(LEASES, KERNELS, HOLDERS))
    page = (await look(contexts["organiser"], site)).page
    dialog = page.get_by_role("dialog")
    for opens in ("Announce to all", "Free ...: notebook-0.ipynb"):
        await page.get_by_role("button", name=opens).first.click()
        await expect(dialog).to_be_visible()
        assert (opens, await in_the_way(page)) == (opens, [])
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
    site.answers["POST", "leases/lease-ada/stop"] = (409, "The hub does not answer.")
    await page.get_by_role("button", name="Stop server ...: ada").click()
    await dialog.get_by_role("button", name="Stop").click()
    await expect(page.locator("#said")).to_contain_text("does not answer")
    assert await in_the_way(page) == []


async def test_an_empty_room_keeps_nobody_out(site, contexts):
    site.first = messages(room=whole())
    page = (await look(contexts["organiser"], site)).page
    await expect(page.locator("#people-none")).to_be_visible()
    assert await in_the_way(page) == []


async def test_an_old_picture_can_still_be_read(site, contexts):
    room = whole(LEASES, KERNELS, HOLDERS, EVENTS, **NEEDS)
    site.first = messages(devices=DEVICES, room=room)
    page = (await look(contexts["organiser"], site)).page
    await expect(page.locator("#people tr.kernel")).to_have_count(len(KERNELS))
    site.hang_up(4401)
    await expect(page.locator("#connection a")).to_be_visible()
    assert await in_the_way(page) == []


@pytest.mark.parametrize("width", [1440, 390])
async def test_an_attendees_page_keeps_nobody_out(site, contexts, width):
    site.first = [*messages(devices=DEVICES, view="attendee"), OWN]
    page = (await look(contexts["ada"], site, width=width)).page
    await expect(page.locator("#kernel-list > li")).to_have_count(3)
    if width > 1000:
        await page.wait_for_selector(PLOT, timeout=60_000)
    await page.locator("#share-list summary").click()
    assert await in_the_way(page) == []
    await page.locator("#kernel-list .free").first.click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    assert await in_the_way(page) == []


async def test_an_attendee_who_has_nothing_is_not_kept_out(site, contexts):
    for devices in (DEVICES, []):
        site.first = [*messages(devices=devices, view="attendee"), mine()]
        page = (await look(contexts["ada"], site)).page
        await expect(page.locator("#no-share")).to_be_visible()
        assert await in_the_way(page) == []


@pytest.mark.parametrize("name", ["", "ada"])
async def test_a_wall_keeps_nobody_out(site, contexts, name):
    site.first = [*messages(devices=DEVICES, view="wall"), wall(name=name)]
    path = "wall?names=yes" if name else "wall"
    how = {"path": path, "width": 1920, "height": 1080}
    page = (await look(contexts["organiser"], site, **how)).page
    await expect(page.locator("#devices > li")).to_have_count(len(DEVICES))
    assert await in_the_way(page) == []


async def test_who_is_refused_can_read_why(site, contexts):
    for name, path in (("stranger", ""), ("ada", "wall")):
        page = (await look(contexts[name], site, path=path)).page
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await in_the_way(page) == []


async def test_the_page_of_the_work_keeps_nobody_out(fed, contexts, tmp_path):
    own = WorkSite(fed[2], tmp_path / "archives")
    own.address = f"http://127.0.0.1:{own.port}"
    try:
        for is_packed in (False, True):
            if is_packed:
                own.put("ada", b"thesis")
            for name in ("ada", "organiser"):
                page = (await look(contexts[name], own, path="work")).page
                assert await in_the_way(page) == []
                await page.close()
    finally:
        await own.close()
