"""The organiser's page in a real browser: who holds what, and what is done."""

import datetime
import time

import pytest
from playwright.async_api import expect

from .fed_site import look, until
from .organiser_room import (
    DEVICES,
    HOLDERS,
    KERNELS,
    LEASES,
    browser,
    fed,
    names,
    row,
    site,
)
from .rooms import crowd, device, event, holder, kernel, lease, messages, whole

__all__ = ["browser", "fed", "site"]

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

MARKUP = "<img src=x onerror=window.owned=1>.ipynb"


async def confirm(page, button, *, saying=()):
    """Press the dialog's button, which says all that."""
    dialog = page.get_by_role("dialog")
    for words in saying:
        await expect(dialog).to_contain_text(words)
    await dialog.get_by_role("button", name=button, exact=True).click()
    await expect(dialog).to_have_count(0)


async def test_who_holds_what_stands_on_the_card_of_the_device(site, browser):
    watched = await look(browser, site)
    card = watched.page.locator("#devices > li").first
    await expect(card).to_contain_text("40.0 of 80.0 GiB")
    await expect(card).to_contain_text("64.0 of 80.0 GiB, 4 shares")
    legend = card.locator(".legend li")
    await expect(legend).to_have_text(
        [
            "ada19.5 GiB3.5 GiB above the share",
            "bob2.0 GiB",
            "not explained18.5 GiB",
        ]
    )
    # Above a share it is hatched, beside what is within it.
    widths = await card.locator(".memory .part").evaluate_all(
        "parts => parts.map(part => [part.className, part.style.width])"
    )
    assert widths == [
        ["part", "20%"],
        ["part over", "4.38%"],
        ["part", "2.5%"],
        ["part", "23.13%"],
    ]
    assert await watched.all_well() == []


async def test_what_needs_the_organiser_comes_first_with_what_to_do(site, browser):
    room = whole(
        LEASES,
        KERNELS,
        [*HOLDERS, holder("", 99, kind="foreign", used_gib=1, command="Xorg")],
        waiting=[{"user": "dan", "server": "", "share": "1/5", "at": time.time()}],
        locked=[{"name": "eve", "address": "10.0.0.1", "until": time.time() + 60}],
        problems=["The server of bob does not answer."],
    )
    site.first = messages(devices=[device(0, lost=True), device(1)], room=room)
    page = (await look(browser, site)).page
    lines = page.locator("#needs li")
    await expect(lines.locator(".label")).to_have_text(
        [
            "Lost",
            "Locked out",
            "Waits",
            "Over share",
            "Short",
            "Outside",
            "Not known",
        ]
    )
    await lines.get_by_role("button", name="Unlock").click()
    await confirm(page, "Unlock", saying=["eve", "10.0.0.1"])
    await until(lambda: site.asked)
    assert site.asked == [("POST", "attendees/eve/unlock", {})]
    site.tell(whole(version=2, base=1, leases=[{**LEASES[0], "over_bytes": 0}]))
    await expect(lines).to_have_count(6)
    site.tell(whole(version=3))
    await expect(lines).to_have_count(1)
    more = page.locator("#needs-more")
    await expect(more).to_be_hidden()
    await expect(more).to_have_text("Show more (0 left)")
    site.tell({**site.first[1], "devices": DEVICES})
    await expect(page.locator("#needs-none")).to_contain_text("Nothing needs you")


async def test_the_table_is_sorted_by_its_head_and_says_how(site, browser):
    page = (await look(browser, site)).page
    await expect(names(page)).to_have_text(["ada", "bob", "cem"])
    head = page.locator("#people-head")
    await head.get_by_role("button", name="Memory").click()
    await expect(names(page)).to_have_text(["ada", "cem", "bob"])
    th = head.locator("th.memory")
    await expect(th).to_have_attribute("aria-sort", "descending")
    await head.get_by_role("button", name="Memory").press("Enter")
    await expect(th).to_have_attribute("aria-sort", "ascending")
    await expect(names(page)).to_have_text(["bob", "cem", "ada"])
    await head.get_by_role("button", name="Idle for").click()
    await expect(names(page)).to_have_text(["bob", "cem", "ada"])
    assert await head.locator("[aria-sort]").count() == 1


async def test_the_table_is_filtered_by_text_and_by_state(site, browser):
    page = (await look(browser, site)).page
    search = page.locator("#people-text")
    await search.fill("PAUSED.ipynb")
    await expect(names(page)).to_have_text(["cem"])
    await expect(page.locator("#people tr.kernel")).to_have_count(1)
    await search.fill("gpu 1")
    await expect(names(page)).to_have_text(["cem"])
    await expect(page.locator("#people tr.kernel")).to_have_count(2)
    await search.fill("no such thing")
    await expect(page.locator("#people-none")).to_contain_text("Nothing is like that")
    await search.fill("")
    states = page.locator("#people-states")
    for state, found in (
        ("Busy", ["ada"]),
        ("Idle", ["bob", "cem"]),
        ("Over share", ["ada"]),
        ("Short", ["cem"]),
        ("Paused", ["cem"]),
        ("Kept", ["cem"]),
    ):
        chip = states.get_by_role("button", name=state)
        await chip.click()
        await expect(chip).to_have_attribute("aria-pressed", "true")
        await expect(chip.locator(".count")).to_have_text(str(len(found)))
        await expect(names(page)).to_have_text(found)


@pytest.mark.parametrize(
    ("state", "used_gib"), [("idle", 4.0), ("busy", 4.0), ("unknown", 0)]
)
async def test_a_kept_kernel_says_until_when_and_by_whom(
    site, browser, state, used_gib
):
    how = {"state": state, "used_gib": used_gib, "pinned": True, "pinned_by": "olga"}
    noon = datetime.datetime(2026, 11, 27, 12, 0).astimezone().timestamp()
    kernels = [
        kernel("ada", 1, **how, pinned_until=noon, parked_bytes=0),
        kernel("ada", 2, **how, pinned_until=None),
        kernel("ada", 3, state=state),
    ]
    site.first = messages(devices=DEVICES, room=whole(LEASES, kernels))
    page = (await look(browser, site)).page
    cells = page.locator("#people tr.kernel .state")
    await expect(cells).to_have_text(
        [
            f"{state}kept until 12:00, by olga",
            f"{state}kept without end, by olga",
            state,
        ]
    )
    await page.get_by_role("button", name="Kept").click()
    await expect(cells).to_have_count(2)
    site.tell(whole(version=2, base=1, kernels=[{**kernels[0], "pinned": False}]))
    await expect(cells).to_have_count(1)


async def test_a_name_in_a_bar_is_there_whole_or_not_at_all(site, browser):
    wide, narrow = "ada", "attendee-with-a-long-name"
    room = whole(
        [lease(wide), lease(narrow)],
        holders=[holder(wide, 1, used_gib=15), holder(narrow, 2, used_gib=6)],
    )
    site.first = messages(devices=DEVICES, room=room)
    page = (await look(browser, site)).page
    parts = page.locator("#devices > li").first.locator(".memory.track .part")
    await expect(parts.nth(1)).to_have_text(narrow)
    shown = """parts => parts.slice(0, 2).map(part => {
      const range = document.createRange();
      range.selectNodeContents(part);
      const [name, box] = [range.getBoundingClientRect(), part.getBoundingClientRect()];
      return name.top < box.bottom && name.bottom > box.top;
    })"""
    assert await parts.evaluate_all(shown) == [True, False]
    await expect(page.locator("#devices .legend").first).to_contain_text(narrow)


async def test_an_action_names_whom_it_meets_asks_first_and_says_what_came(
    site, browser
):
    page = (await look(browser, site)).page
    free = row(page, "b.ipynb").get_by_role("button", name="Free")
    await free.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("bob runs b.ipynb, which holds 2.0 GiB")
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(free).to_be_focused()
    assert site.asked == []
    await free.click()
    await dialog.get_by_label("Restart, variables lost").check()
    await expect(dialog).to_contain_text("The notebook stays open")
    site.answers["POST", "kernels/kernel-bob-0/reclaim"] = (202, "It is on its way.")
    await confirm(page, "Free the memory")
    await expect(page.locator("#said")).to_have_text("It is on its way.")
    await expect(free).to_be_focused()
    path = "kernels/kernel-bob-0/reclaim?user=bob&server="
    assert site.asked == [("POST", path, {"action": "restart"})]


async def test_a_refusal_is_told_in_its_own_words(site, browser):
    page = (await look(browser, site)).page
    site.answers["POST", "leases/lease-ada/stop"] = (409, "The hub does not answer.")
    await row(page, "ada").first.get_by_role("button", name="Stop server").click()
    await confirm(
        page,
        "Stop the server",
        saying=["server of ada", "1 notebook loses its variables", "1/5"],
    )
    said = page.locator("#said")
    await expect(said).to_have_text("That was not done. The hub does not answer.")
    await expect(said).to_have_attribute("role", "status")


async def test_each_action_is_a_call_of_the_api(site, browser):
    page = (await look(browser, site)).page
    await row(page, "ada").first.get_by_role("button", name="Tell").click()
    await page.get_by_label("What do you tell them?").fill("Please free some.")
    await confirm(page, "Tell them", saying=["ada"])
    await row(page, "b.ipynb").get_by_role("button", name="Keep").click()
    await page.get_by_label("For how long?").select_option("2 h")
    await confirm(page, "Keep it")
    await row(page, "notebook-1").get_by_role("button", name="Let go").click()
    await confirm(page, "Let go")
    await row(page, "x.py").get_by_role("button", name="End").click()
    await confirm(page, "End the process", saying=["14", "python x.py", "1.0 GiB"])
    card = page.locator("#devices > li").first
    await card.get_by_role("button", name="Take GPU 0 out of service").click()
    await confirm(page, "Take out of service", saying=["4 shares stay"])
    await page.get_by_role("button", name="Announce to all").click()
    await page.get_by_label("What do you announce?").fill("Lunch")
    await page.get_by_label("For how long?").select_option("until taken down")
    await confirm(page, "Announce it")
    await until(lambda: len(site.asked) == 6)
    assert site.asked == [
        ("POST", "attendees/ada/notice", {"text": "Please free some."}),
        ("POST", "kernels/kernel-bob-0/pin?user=bob&server=", {"seconds": 7200}),
        ("DELETE", "kernels/kernel-cem-1/pin?user=cem&server=", None),
        ("POST", "holders/14-5/end", {}),
        ("POST", "devices/GPU-0/drain", None),
        ("POST", "announcement", {"text": "Lunch", "seconds": None}),
    ]
    told = {"text": "Lunch", "at": 1.0, "until": None, "by": "olga"}
    site.tell(whole(version=2, base=1, announcement=told))
    await page.get_by_role("button", name="Take down").click()
    await confirm(page, "Take down", saying=["Lunch"])
    await until(lambda: len(site.asked) == 7)
    assert site.asked[-1] == ("DELETE", "announcement", None)
    site.tell(whole(version=3, base=2, announcement=None))
    await expect(page.locator("#announcement")).to_be_hidden()


async def test_why_a_server_stays_is_told_while_somebody_waits(site, browser):
    stays = {**lease("ada"), "server_verdict": "A browser is open on it."}
    waits = [{"user": "dan", "server": "", "share": "1/5", "at": time.time()}]
    site.first = messages(room=whole([stays], [kernel("ada")]))
    watched = await look(browser, site)
    told = watched.page.locator("tr.lease .next")
    await expect(told).to_have_text("")
    site.tell(whole(version=2, base=1, waiting=waits))
    await expect(told).to_have_text("Its server: A browser is open on it.")
    site.tell(whole(version=3, base=2, waiting=[]))
    await expect(told).to_have_text("")


async def test_names_with_markup_are_names(site, browser):
    odd = kernel("ada", notebook=MARKUP, used_gib=1)
    holds = {**lease("ada"), "user": MARKUP, "share": MARKUP}
    site.first = messages(
        devices=[device(0, name=MARKUP)],
        room=whole(
            [{**holds, "server_verdict": MARKUP}],
            [{**odd, "user": MARKUP, "verdict": MARKUP}],
            [{**holder("ada", 5, kind="terminal", command=MARKUP), "user": MARKUP}],
            [event(1, MARKUP, reason=MARKUP, user=MARKUP)],
            problems=[MARKUP],
            announcement={"text": MARKUP, "until": None, "by": MARKUP},
        ),
    )
    watched = await look(browser, site)
    page = watched.page
    await expect(page.locator("#events li")).to_contain_text(MARKUP)
    await row(page, MARKUP).nth(1).get_by_role("button", name="Free").click()
    await expect(page.get_by_role("dialog")).to_contain_text(MARKUP)
    assert await page.locator("main img").count() == 0
    assert await page.evaluate("window.owned") is None
    assert await watched.all_well() == []


async def test_each_server_that_waits_has_its_line(site, browser):
    one = {"user": "dan", "server": "", "share": "1/5", "at": time.time()}
    waiting = [one, {**one, "server": "second"}]
    site.first = messages(devices=DEVICES, room={**whole(LEASES), "waiting": waiting})
    page = (await look(browser, site)).page
    needs = page.locator("#needs li")
    await expect(needs.filter(has_text="dan/second")).to_have_count(1)
    await expect(needs.filter(has_text="dan")).to_have_count(2)


async def test_a_dialog_stays_while_its_text_is_marked(site, browser):
    page = (await look(browser, site)).page
    await page.get_by_role("button", name="Announce").first.click()
    dialog = page.get_by_role("dialog")
    field = dialog.locator("textarea")
    await field.fill("Lunch at one.")
    box = await field.bounding_box()
    await page.mouse.move(box["x"] + 20, box["y"] + 10)
    await page.mouse.down()
    await page.mouse.move(2, 2, steps=4)
    await page.mouse.up()
    is_open = "document.querySelector('dialog').open"
    assert await page.evaluate(is_open)
    # Its own edge is no outside.
    edge = await dialog.bounding_box()
    await page.mouse.click(edge["x"] + 3, edge["y"] + 3)
    assert await page.evaluate(is_open)
    await expect(field).to_have_value("Lunch at one.")
    await page.mouse.click(2, 2)
    await expect(dialog).to_have_count(0)


async def test_a_key_that_is_held_down_confirms_nothing(site, browser):
    page = (await look(browser, site)).page
    await row(page, "b.ipynb").get_by_role("button", name="Free").focus()
    for _ in range(5):
        await page.keyboard.down("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(1)
    await page.keyboard.up("Enter")
    assert site.asked == []


async def test_events_are_filtered_by_kind_and_new_ones_come_first(site, browser):
    page = (await look(browser, site)).page
    events = page.locator("#events li strong")
    everything = ["Memory taken back", "Share refused", "GPU taken out of service"]
    await expect(events).to_have_text(everything)
    first = page.locator("#events li").first
    await expect(first).to_contain_text("a/b.ipynb: It was idle for 24 min.")
    chips = page.locator("#events-kinds")
    await chips.get_by_role("button", name="Shares").click()
    await expect(events).to_have_text(["Share refused"])
    await chips.get_by_role("button", name="All").click()
    site.tell(whole(version=2, base=1, events=[event(4, "lease_granted")]))
    await expect(events).to_have_text(["Share granted", *everything])


async def test_what_the_limits_are_worth_is_said_and_when_memory_is_short(
    site, browser
):
    why = "The driver is too old for it."
    soft = [{**x, "no_hard_limit": why} for x in LEASES[:2]]
    by_driver = [{**LEASES[2]["memory_limits"][0], "enforced_by": "the driver"}]
    hard = {**LEASES[2], "memory_limit": "hard", "memory_limits": by_driver}
    site.first = messages(devices=DEVICES, room=whole([*soft, hard]))
    page = (await look(browser, site)).page
    limits = page.locator("#people td.limit")
    await expect(limits).to_have_text(
        ["soft, by settings", "no GPU", "hard, by the driver"]
    )
    await expect(page.locator("#people-soft li")).to_have_text(
        [f"No hard limit for 2 shares: {why}"]
    )
    await expect(page.locator("#needed")).to_be_hidden()
    site.tell({**site.first[2], "needed": True})
    await expect(page.locator("#needed")).to_contain_text("Shares or memory are short")


async def test_an_empty_room_says_what_to_do(site, browser):
    site.first = messages(room=whole())
    site.first[1]["why_none"] = "The driver is not loaded: run nvidia-smi."
    page = (await look(browser, site)).page
    await expect(page.locator("#devices-none")).to_contain_text("run nvidia-smi")
    await expect(page.locator("#people-none")).to_contain_text("when a server starts")
    await expect(page.locator("#events-none")).to_contain_text("Nothing yet")
    await expect(page.locator("#people")).to_be_hidden()


async def test_rows_and_focus_stay_while_a_room_of_500_changes(site, browser):
    leases, kernels, holders = crowd(500, devices=64)
    site.first = messages(
        devices=[device(x) for x in range(64)], room=whole(leases, kernels, holders)
    )
    watched = await look(browser, site)
    page = watched.page
    await expect(names(page)).to_have_count(100)
    await expect(page.locator("#people-count")).to_contain_text("notebooks: 1500")
    button = page.locator("#people tr.kernel button").nth(40)
    await button.focus()
    await page.evaluate(
        "window.body = document.querySelector('#people tbody:nth-of-type(3)');"
        "window.held = document.activeElement; window.drawn = 0;"
        "new MutationObserver((all) => drawn += all.length).observe("
        "document.getElementById('people'),"
        "{childList: true, subtree: true, attributes: true, characterData: true})"
    )
    busier = {**kernels[0], "state": "starting"}
    site.tell(whole(version=2, base=1, kernels=[busier]))
    await expect(page.locator("#people tr.kernel .state").first).to_have_text(
        "starting"
    )
    # One cell is another one, and what only time changes is no hundred of them.
    assert await page.evaluate("drawn") < 500
    assert await page.evaluate("document.activeElement === held")
    assert await page.evaluate(
        "body === document.querySelector('#people tbody:nth-of-type(3)')"
    )
    await page.locator("#people-head").get_by_role("button", name="Attendee").click()
    await expect(names(page).first).to_have_text("attendee-499")
    await page.get_by_role("button", name="Show more (400 left)").click()
    await expect(names(page)).to_have_count(200)
    assert await watched.all_well() == []


async def test_the_page_fits_a_phone_and_each_cell_names_itself(site, browser):
    page = (await look(browser, site, width=390, height=844)).page
    await expect(names(page)).to_have_count(3)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    cell = row(page, "b.ipynb").locator("td.idle")
    assert await cell.get_attribute("data-label") == "Idle for"
    await expect(page.locator("#people-head")).to_be_hidden()
    await page.get_by_label("Sort by").select_option("Memory")
    await expect(names(page)).to_have_text(["ada", "cem", "bob"])
