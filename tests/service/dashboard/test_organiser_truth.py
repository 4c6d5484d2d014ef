"""The organiser's page says of now what is so, and of the rest that it is not known."""

import time

import pytest
from playwright.async_api import expect

from .fed_site import comes_true, look, until
from .organiser_room import (
    DEVICES,
    EVENTS,
    HOLDERS,
    KERNELS,
    LEASES,
    browser,
    fed,
    is_fed,
    names,
    site,
)
from .rooms import GIB, holder, lease, messages, whole

__all__ = ["browser", "fed", "site"]

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

# What is said of the connection, one after the other, in `told`.
LISTEN = """
window.told = [];
const said = document.getElementById("connection");
const listener = new MutationObserver(() => told.push(said.textContent));
listener.observe(said, {childList: true});
"""


async def test_a_lost_connection_says_so_and_heals(site, browser):
    page = (await look(browser, site)).page
    shown = page.locator("#connection")
    await expect(names(page)).to_have_count(3)
    await expect(shown).to_be_hidden()
    site.first = messages(devices=DEVICES, room=whole(LEASES[:1], KERNELS[:1]))
    await page.evaluate(LISTEN)
    site.hang_up()
    await expect(names(page)).to_have_count(1)
    await expect(shown).to_be_hidden()
    assert await page.evaluate("told") == ["Connection lost, trying again ...", ""]


async def test_a_line_that_is_dead_without_a_word_is_made_anew(site, browser):
    async def sooner(route):
        script = await (await route.fetch()).text()
        assert "SILENCE_SECONDS = 10;" in script
        body = script.replace("SILENCE_SECONDS = 10;", "SILENCE_SECONDS = 1;")
        await route.fulfill(content_type="text/javascript", body=body)

    await browser.route("**/live.js", sooner)
    site.beat.stop()
    try:
        page = (await look(browser, site)).page
        await expect(names(page)).to_have_count(3)
        (first,) = site.viewers
        site.first = messages(devices=DEVICES, room=whole(LEASES[:1], KERNELS[:1]))
        await expect(names(page)).to_have_count(1)
        await until(lambda: first not in site.viewers)
    finally:
        site.beat.start()
        await browser.unroute("**/live.js")


async def test_who_is_logged_out_is_led_to_the_login(site, browser):
    page = (await look(browser, site)).page
    await expect(names(page)).to_have_count(3)
    site.hang_up(4401)
    link = page.locator("#connection a")
    await expect(link).to_have_text("Log in again")
    assert await link.get_attribute("href") == page.url
    assert site.viewers == []


async def test_an_old_picture_says_since_when(site, browser):
    page = (await look(browser, site)).page
    await expect(page.locator("#as-of")).to_contain_text("As of")
    tick = {**site.first[2], "at": time.time() - 300, "devices": [[None] * 4] * 2}
    site.tell(tick)
    await expect(page.locator("#connection")).to_contain_text("could not be read since")
    await expect(page.locator("#devices > li").first).to_contain_text("unknown")
    site.tell(site.first[2])
    await expect(page.locator("#connection")).to_be_hidden()


async def test_what_was_old_before_the_line_was_lost_is_not_said_of_now(site, browser):
    page = (await look(browser, site)).page
    await is_fed(page)
    shown = page.locator("#connection")
    site.tell({**site.first[2], "at": time.time() - 300})
    await expect(shown).to_contain_text("could not be read since")
    site.first = [x for x in site.first if x["type"] != "tick"]
    await page.evaluate(LISTEN)
    site.hang_up()
    await comes_true(page, "told.length > 1")
    assert await page.evaluate("told") == ["Connection lost, trying again ...", ""]


async def test_gpus_that_were_never_read_were_not_read_in_1970(site, browser):
    page = (await look(browser, site)).page
    await is_fed(page)
    # The service has begun anew, and its driver does not answer.
    tick = {**site.first[2], "at": 0.0, "looked_at": 0.0, "devices": [[None] * 4] * 2}
    site.tell(tick)
    await expect(page.locator("#devices > li").first).to_contain_text("unknown")
    await expect(page.locator("#connection")).to_be_hidden()
    as_of = page.locator("#as-of")
    await expect(as_of).to_have_text("The GPUs have not been read yet.")
    site.tell(site.first[2])
    await expect(as_of).to_contain_text("As of")


async def test_a_gpu_that_tells_no_load_is_in_no_mean(site, browser):
    page = (await look(browser, site)).page
    await is_fed(page)
    reading = [20 * GIB, None, None, None]
    site.tell({**site.first[2], "devices": [reading, [20 * GIB, 0.5, None, None]]})
    await expect(page.locator("#room-total")).to_contain_text("50\u00a0%")
    site.tell({**site.first[2], "devices": [reading, reading]})
    await expect(page.locator("#room-total")).to_contain_text("unknown")


async def test_a_reading_stays_with_its_device_when_the_list_changes(site, browser):
    page = (await look(browser, site)).page
    memory = page.locator("#devices > li .memory dd")
    await expect(memory.first).to_have_text("40.0 of 80.0\u00a0GiB")
    site.tell({**site.first[1], "version": 2, "devices": DEVICES[::-1]})
    await expect(page.locator("#devices > li h3").first).to_contain_text("1")
    await expect(memory).to_have_text(["unknown", "unknown"])
    legend = page.locator("#devices > li").first.locator(".legend li").first
    await expect(legend).to_have_text("cemunknown")
    # What it reads is the same as before: what it means is not.
    site.tell({**site.first[2], "version": 2})
    await expect(legend).to_have_text("cem7.0\u00a0GiB")


async def test_a_tick_and_a_list_in_one_frame_are_both_drawn(site, browser):
    watched = await look(browser, site)
    page = watched.page
    await is_fed(page)
    await page.evaluate(
        "window.frames_left = []; window.heard = [];"
        "window.requestAnimationFrame = (draw) => frames_left.push(draw);"
        "const parse = JSON.parse;"
        "JSON.parse = (text) => {"
        "const said = parse(text); heard.push(said?.type); return said}"
    )
    changed = {**site.first[1], "version": 2, "devices": DEVICES[::-1]}
    site.tell(site.first[2], changed)
    await comes_true(page, "heard.includes('devices')")
    await page.evaluate("frames_left.splice(0).forEach((draw) => draw())")
    await expect(page.locator("#devices > li h3").first).to_contain_text("1")
    assert await watched.all_well() == []


async def test_what_is_not_told_of_a_process_is_unknown_on_the_card(site, browser):
    page = (await look(browser, site)).page
    await is_fed(page)
    silent = {**HOLDERS[1], "memory_bytes": None}
    # Of cem's device the driver lists no processes at all.
    cems = {**LEASES[2]["devices"][0], "memory_used_bytes": None, "over_bytes": None}
    leases = [*LEASES[:2], {**LEASES[2], "devices": [cems]}]
    site.tell(whole(leases, KERNELS, [HOLDERS[0], silent], EVENTS, version=2))
    legend = page.locator("#devices .legend li")
    await expect(legend.filter(has_text="bob")).to_have_text("bobunknown")
    await expect(legend.filter(has_text="cem")).to_have_text("cemunknown")


async def test_a_card_says_above_the_share_where_the_service_does(site, browser):
    # A little above it is tolerated, and another share's room helps nobody.
    (part,) = LEASES[0]["devices"]
    tolerated = {**LEASES[0], "devices": [{**part, "over_bytes": 0}]}
    above = lease("bob", used_gib=17.0)
    second = lease("bob", used_gib=1.0, id="lease-bob-second", server="second")
    holders = [HOLDERS[0], holder("bob", 12, used_gib=18.0)]
    site.first = messages(
        devices=DEVICES, room=whole([tolerated, above, second], holders=holders)
    )
    page = (await look(browser, site)).page
    legend = page.locator("#devices > li").first.locator(".legend li")
    await expect(legend.filter(has_text="ada")).to_have_text("ada19.5\u00a0GiB")
    await expect(legend.filter(has_text="bob")).to_have_text(
        "bob18.0\u00a0GiB1.0\u00a0GiB above the share"
    )


async def test_a_hidden_tab_listens_to_nothing(site, browser):
    page = (await look(browser, site)).page
    await until(lambda: len(site.viewers) == 1)
    hide = (
        "hidden => {Object.defineProperty(document, 'hidden',"
        "{value: hidden, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))}"
    )
    await page.evaluate(hide, True)
    await until(lambda: site.viewers == [])
    await page.evaluate(hide, False)
    await until(lambda: len(site.viewers) == 1)
    await expect(page.locator("#connection")).to_be_hidden()
