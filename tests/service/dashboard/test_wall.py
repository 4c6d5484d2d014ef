"""The wall in a real browser: big, and without names."""

import pytest
from playwright.async_api import expect

from .fed_site import comes_true, look
from .organiser_room import (
    DEVICES,
    browser,
    fed,
    site,
)
from .rooms import GIB, device, messages

__all__ = ["browser", "fed", "site"]

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


def wall(*, name=""):
    return {
        "type": "wall",
        "devices": {"GPU-0": [{"bytes": 40 * GIB, "over": True, "user": name}]},
        "leases": 12,
        "waiting": 3,
        "freed_bytes_today": 131 * GIB,
        "events": [{"at": 1.0, "kind": "kernel_reclaimed", "bytes": 3 * GIB}],
    }


@pytest.mark.parametrize(
    ("count", "path", "size"),
    [
        *((x, "wall", (1920, 1080)) for x in (1, 8, 16, 64)),
        *((x, "wall?names=yes", (1920, 1080)) for x in (2, 8, 16, 32)),
        *((x, "wall?names=yes", (1366, 768)) for x in (4, 16)),
    ],
)
async def test_the_wall_fills_a_projector_and_never_scrolls(
    site, browser, count, path, size
):
    devices = [device(x) for x in range(count)]
    shown = wall()
    of_eight = [{"bytes": 4 * GIB, "over": False, "user": f"ada-{x}"} for x in range(8)]
    shown["devices"].update({x["uuid"]: of_eight for x in devices[1:]})
    site.first = [*messages(devices=devices, view="wall"), shown]
    width, height = size
    watched = await look(browser, site, path=path, width=width, height=height)
    page = watched.page
    await expect(page.locator("#devices > li")).to_have_count(count)
    await expect(page.locator("#events")).to_contain_text("Memory taken back (3.0 GiB)")
    assert await page.evaluate(
        "[document.documentElement.scrollWidth <= innerWidth,"
        "document.documentElement.scrollHeight <= innerHeight]"
    ) == [True, True]
    await expect(page.locator("#total-waiting")).to_have_text("3")
    assert await watched.all_well() == []


async def test_what_is_announced_is_read_from_afar_and_leaves_room(site, browser):
    devices = [device(x) for x in range(8)]
    shown = {**wall(), "announcement": "Lunch is at 12:30.\n" * 26}
    site.first = [*messages(devices=devices, view="wall"), shown]
    watched = await look(browser, site, path="wall", width=1920, height=1080)
    page = watched.page
    text = page.locator("#announcement .text")
    await expect(text).to_contain_text("Lunch is at 12:30.")
    lines = "node => node.offsetHeight / parseFloat(getComputedStyle(node).lineHeight)"
    assert 2.9 < await text.evaluate(lines) < 3.1
    whole = "document.documentElement.scrollHeight <= innerHeight"
    assert await page.evaluate(whole)
    site.tell(wall())
    await expect(page.locator("#announcement")).to_be_hidden()
    assert await watched.all_well() == []


async def test_the_wall_says_no_names_until_the_organiser_asks(site, browser):
    site.first = [*messages(devices=DEVICES, view="wall"), wall()]
    page = (await look(browser, site, path="wall")).page
    part = page.locator("#devices .part.over")
    await expect(part).to_have_text("")
    site.first = [*messages(devices=DEVICES, view="wall"), wall(name="ada")]
    await page.get_by_role("link", name="Show names").click()
    await comes_true(page, "location.search === '?names=yes'")
    await expect(part).to_have_text("ada")
    legend = page.locator("#devices .legend").first.locator("li")
    await expect(legend).to_have_text(["ada40.0\u00a0GiB"])
    await expect(page.get_by_role("link", name="Hide names")).to_be_visible()


async def test_the_wall_counts_no_gpu_that_tells_no_load(site, browser):
    site.first = [*messages(devices=DEVICES, view="wall"), wall()]
    page = (await look(browser, site, path="wall")).page
    busy = page.locator("#total-busy")
    await expect(busy).to_have_text("47\u00a0%")
    reading = [20 * GIB, None, None, None]
    site.tell({**site.first[2], "devices": [reading, [20 * GIB, 0.5, None, None]]})
    await expect(busy).to_have_text("50\u00a0%")
    site.tell({**site.first[2], "devices": [reading, reading]})
    await expect(busy).to_have_text("unknown")


async def test_on_the_wall_a_reading_stays_with_its_device_too(site, browser):
    site.first = [*messages(devices=DEVICES, view="wall"), wall()]
    page = (await look(browser, site, path="wall")).page
    used = page.locator("#devices > li .used")
    await expect(used.first).to_have_text("40.0 of 80.0\u00a0GiB")
    site.tell({**site.first[1], "version": 2, "devices": DEVICES[::-1]})
    await expect(used).to_have_text(["unknown", "unknown"])
    site.tell({**site.first[2], "version": 2})
    await expect(used.first).to_have_text("40.0 of 80.0\u00a0GiB")
