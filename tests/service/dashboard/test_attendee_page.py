"""The attendee's page in a real browser, fed by a test."""

import re
import time

import pytest
import pytest_asyncio
from playwright.async_api import expect

from jupyterhub_gpuworkshop.core.errors import PlotError
from jupyterhub_gpuworkshop.service.dashboard import plots
from tests.engines.chromium import chromium_beside

from .fed_site import comes_true, fed_site, look, signed_in, until
from .rooms import GIB, device, event, holder, kernel, lease, messages

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

DEVICES = [device(0, problem=None), device(1, problem=None)]
COLUMN = "Bokeh.documents[0].get_model_by_name('hour').data"
WIDE = {"width": 1280, "height": 800}
PLOT = "[data-plot][role=img] .bk-Figure"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fed():
    """Return a site and a browser in which ada is logged in, for all tests here."""
    async with fed_site() as (site, _), chromium_beside() as browser:
        yield site, await signed_in(browser, "ada")


@pytest_asyncio.fixture(loop_scope="module")
async def site(fed):
    made, context = fed
    made.forget()
    made.past = past()
    yield made
    for page in context.pages:
        await page.close()


@pytest.fixture
def browser(fed):
    return fed[1]


def past(minutes=30):
    """Return an hour by the minute, with a gap after ten of them."""
    now = time.time()
    at = [now - 60 * (minutes - 1 - x) for x in range(minutes)]
    memory = [20 * GIB] * minutes
    memory[10] = None
    busy = [0.5] * minutes
    busy[10], busy[20] = None, None
    columns = {
        "at": at,
        "memory_used_bytes": memory,
        "utilisation": busy,
        "temperature_celsius": [61] * minutes,
        "power_watts": [None] * minutes,
    }
    return {"devices": {"GPU-0": columns}}


def mine(leases=(), kernels=(), holders=(), notices=(), events=(), pin_seconds=3600):
    """Return an attendee's own."""
    return {
        "type": "mine",
        "leases": list(leases),
        "kernels": list(kernels),
        "holders": list(holders),
        "notices": list(notices),
        "events": list(events),
        "may": {"pin_seconds": pin_seconds},
    }


def tick(at, memory_gib=40):
    """Return a tick."""
    readings = [[memory_gib * GIB, 0.47, 61, 312.0], [10 * GIB, None, 50, None]]
    return {
        "type": "tick",
        "version": 1,
        "at": at,
        "looked_at": at,
        "needed": False,
        "devices": readings,
    }


def feed(own, devices=DEVICES):
    """Return what a new viewer gets."""
    started = messages(devices=devices, view="attendee")
    return [*started, own]


async def show(browser, site, own, devices=DEVICES, **how):
    """Open the page of ada, who has what is given; plots are out of sight at first."""
    site.first = feed(own, devices)
    watched = await look(browser, site, **{"width": 390, "height": 300, **how})
    await comes_true(
        watched.page,
        "document.querySelector('#share-list > *, #no-share:not([hidden])')",
    )
    return watched


async def shown_plot(page):
    """Wait until the plot of the page stands there, with its past."""
    await page.wait_for_selector(PLOT, timeout=60_000)
    await comes_true(page, f"{COLUMN}.at.length > 0")


async def test_a_plot_is_drawn_within_the_policy_and_grows_with_the_ticks(
    browser, site
):
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    page = watched.page
    await shown_plot(page)
    label = await page.locator("[data-plot]").get_attribute("aria-label")
    assert label.startswith("Plot of GPU 0:")

    columns = await page.evaluate(
        f"Object.fromEntries(Object.entries({COLUMN}).map(([name, column]) =>"
        " [name, column.map((x) => Number.isNaN(x) ? null : x)]))"
    )
    # A gap: the line breaks, and the area falls to 0 and rises again.
    assert [x for x in columns["memory"] if x is None] == [None] * 2
    gap = columns["memory"].index(None)
    assert columns["area"][gap - 1 : gap + 3] == [20, 0, 0, 20]
    assert columns["busy"].count(None) == 3
    assert "busy: unknown" in columns["busy_said"]
    assert columns["felt"][0].replace("\u00a0", " ") == "61 °C, unknown"

    # As it is painted: nothing in the gap, something beside it.
    painted = await page.evaluate("""async () => {
      const figure = document.querySelector("[data-plot] .bk-Figure");
      await new Promise((done) => setTimeout(done, 300));
      const find = (root) => [...root.querySelectorAll("*")].flatMap((x) =>
        [...(x.tagName === "CANVAS" ? [x] : []),
         ...(x.shadowRoot ? find(x.shadowRoot) : [])]);
      const canvas = find(figure.parentNode)[0];
      const all = canvas.getContext("2d").getImageData(
        0, 0, canvas.width, canvas.height).data;
      let count = 0;
      for (let i = 3; i < all.length; i += 4) count += all[i] > 0;
      return count / (canvas.width * canvas.height);
    }""")
    assert 0.03 < painted < 0.9

    box = await page.locator("[data-plot]").bounding_box()
    await page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60)
    tooltip = page.locator(".bk-Tooltip")
    await expect(tooltip).to_contain_text("20.0\u00a0GiB used")
    await expect(tooltip).to_contain_text("61\u00a0°C")
    await page.mouse.move(0, 0)

    last = await page.evaluate(
        f"{COLUMN}.at.at(-1) / 1000 + new Date().getTimezoneOffset() * 60"
    )
    site.tell(tick(last + 5, memory_gib=45))
    await comes_true(page, f"{COLUMN}.memory.at(-1) === 45")
    length = await page.evaluate(f"{COLUMN}.at.length")
    # One point in five seconds is enough.
    for seconds in (6, 7, 8, 10):
        site.tell(tick(last + seconds, memory_gib=40 + seconds))
    await comes_true(page, f"{COLUMN}.memory.at(-1) === 50")
    assert await page.evaluate(f"{COLUMN}.at.length") == length + 1
    assert await page.evaluate(
        "Bokeh.documents[0].get_model_by_name('memory').end"
    ) == pytest.approx(80)
    assert await watched.all_well() == []


async def test_a_time_without_readings_is_a_gap(browser, site):
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    await shown_plot(watched.page)
    now = time.time()
    # The service's clock has gone on when it says that it knows nothing.
    hello = {"type": "hello", "now": now + 10, "view": "attendee", "name": "ada"}
    nothing = {**tick(now), "devices": [[None] * 4] * 2}
    site.tell(hello, nothing)
    await expect(watched.page.locator("#device-list .figure")).to_contain_text(
        "unknown"
    )
    site.tell(tick(now + 16, memory_gib=44))
    await comes_true(watched.page, f"{COLUMN}.memory.at(-1) === 44")
    unknown = f"{COLUMN}.memory.filter(Number.isNaN).length"
    assert await watched.page.evaluate(unknown) == 4
    assert await watched.page.evaluate(f"{COLUMN}.area.slice(-3)") == [0, 0, 44]
    assert await watched.all_well() == []


async def test_a_plot_changes_its_colours_with_the_page(browser, site):
    watched = await show(browser, site, mine([lease("ada")]), scheme="light", **WIDE)
    page = watched.page
    await shown_plot(page)
    root = "Bokeh.documents[0].roots()[0].id"
    assert (await page.evaluate(root)).split("-")[1] == "light"
    await page.click("#theme")
    await comes_true(page, f"Bokeh.documents[0] && {root}.includes('-dark-')")
    await shown_plot(page)
    assert await page.evaluate("Bokeh.documents.length") == 1
    assert await page.locator(".bk-Figure").count() == 1
    assert await watched.all_well() == []


async def test_another_span_is_fetched_when_it_is_chosen(browser, site):
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    await shown_plot(watched.page)
    day = watched.page.get_by_role("button", name="1 day")
    await day.click()
    await until(lambda: site.pasts == ["hour", "day"])
    await expect(day).to_have_attribute("aria-pressed", "true")
    assert await watched.all_well() == []


async def test_while_little_is_known_plots_go_back_15_minutes(browser, site):
    hour = past()["devices"]["GPU-0"]
    site.past = {"devices": {"GPU-0": {x: y[-12:] for x, y in hour.items()}}}
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    await shown_plot(watched.page)
    assert site.pasts == ["hour", "minutes"]
    minutes = watched.page.get_by_role("button", name="15 min")
    await expect(minutes).to_have_attribute("aria-pressed", "true")
    # Who wants the hour has it.
    await watched.page.get_by_role("button", name="1 h").click()
    await until(lambda: site.pasts == ["hour", "minutes", "hour"])
    await expect(minutes).to_have_attribute("aria-pressed", "false")
    assert await watched.all_well() == []


async def test_after_a_lost_connection_the_past_is_fetched_anew(browser, site):
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    await shown_plot(watched.page)
    site.hang_up()
    await expect(watched.page.locator("#connection")).to_contain_text("lost")
    await until(lambda: len(site.viewers) == 1)
    await expect(watched.page.locator("#connection")).to_be_empty()
    assert site.pasts == ["hour"]
    site.tell(tick(time.time() + 60))
    await until(lambda: site.pasts == ["hour", "hour"])
    assert await watched.all_well() == []


async def test_without_a_past_the_plot_begins_now(browser, site):
    site.past = None
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    await watched.page.wait_for_selector(PLOT, timeout=60_000)
    site.tell(tick(time.time() + 1))
    await comes_true(watched.page, f"{COLUMN}.memory.at(-1) === 40")
    # The browser itself says in its console that something was answered with 500.
    assert {x for x in await watched.all_well() if "500" not in x} == set()


async def test_a_page_without_plots_says_so_and_goes_on(browser, site, monkeypatch):
    async def fail(self, theme, slot):
        raise PlotError("The disk hangs.")

    monkeypatch.setattr(plots.Plots, "document", fail)
    watched = await show(browser, site, mine([lease("ada")]), **WIDE)
    slot = watched.page.locator("[data-plot]")
    await expect(slot).to_have_text(
        "There is no plot just now. The page goes on without."
    )
    assert await slot.get_attribute("role") is None
    site.tell(tick(time.time(), memory_gib=33))
    await expect(watched.page.locator("#device-list .figure")).to_contain_text(
        "33.0 of 80.0"
    )


async def test_no_more_plots_live_than_there_are_slots(browser, site):
    devices = [device(x) for x in range(plots.SLOTS + 4)]
    parts = [
        {**lease("ada", x)["devices"][0], "uuid": x_device["uuid"]}
        for x, x_device in enumerate(devices)
    ]
    own = mine([lease("ada", devices=parts)])
    watched = await show(browser, site, own, devices, width=1400, height=9000)
    await comes_true(
        watched.page, f"window.Bokeh && Bokeh.documents.length === {plots.SLOTS}"
    )
    ids = "Bokeh.documents.map((x) => x.roots()[0].id)"
    assert len(set(await watched.page.evaluate(ids))) == plots.SLOTS
    assert await watched.all_well() == []


async def test_one_reads_how_much_of_the_share_is_used_and_what_it_is_worth(
    browser, site
):
    watched = await show(browser, site, mine([lease("ada", used_gib=8)]))
    share = watched.page.locator("#share-list article")
    await expect(share).to_contain_text("8.0 of 16.0\u00a0GiB in use")
    assert await share.locator(".warnings li").count() == 0
    await share.locator("summary").click()
    await expect(share.locator("summary")).to_contain_text("Soft limit")
    row = share.locator("tbody tr")
    assert (await row.inner_text()).replace("\t", "\n").split("\n") == [
        "PyTorch",
        "16.0\u00a0GiB",
        "soft",
        "PyTorch's own setting",
    ]

    over = lease("ada", used_gib=18, parked_bytes=GIB, memory_limit="hard")
    site.tell(mine([over]))
    await expect(share.locator(".over_share")).to_contain_text("2.0\u00a0GiB more than")
    await expect(share.locator(".paused")).to_contain_text("variables kept")
    await expect(share.locator("summary")).to_contain_text("Hard limit")
    # What was opened stays open.
    assert await share.locator("details").get_attribute("open") is not None
    assert await share.locator(".part.over").is_visible()
    assert await watched.all_well() == []


async def test_of_the_whole_gpu_one_sees_the_sums(browser, site):
    watched = await show(browser, site, mine([lease("ada", used_gib=8)]))
    site.tell(tick(time.time(), memory_gib=40))
    card = watched.page.locator("#device-list article")
    await expect(card).to_have_count(1)
    await expect(card.locator(".figure")).to_have_text(
        "40.0 of 80.0\u00a0GiB used by all"
    )
    await expect(card.locator(".split")).to_have_text(
        "yours 8.0\u00a0GiB, others 32.0\u00a0GiB, free 40.0\u00a0GiB"
    )
    await expect(card.locator(".busy")).to_have_text("47\u00a0%")
    await expect(card.locator(".anyones")).to_have_count(0)
    # Nobody's list was read, which is not the same as nothing.
    (part,) = (of := lease("ada"))["devices"]
    part["memory_used_bytes"] = of["memory_used_bytes"] = None
    site.tell(mine([of]))
    await expect(card.locator(".split")).to_have_text(
        "yours unknown, others unknown, free 40.0\u00a0GiB"
    )
    await expect(card.locator(".anyones")).to_be_visible()


async def test_what_is_announced_stands_on_top_until_it_is_over(browser, site):
    watched = await show(browser, site, mine([lease("ada")]))
    shown = watched.page.locator("#announcement")
    await expect(shown).to_be_hidden()
    told = {
        "text": "<b>Lunch</b> at 12:30",
        "at": time.time(),
        "until": None,
        "by": "o",
    }
    site.tell({**mine([lease("ada")]), "announcement": told})
    await expect(shown).to_be_visible()
    await expect(shown.locator(".text")).to_have_text("<b>Lunch</b> at 12:30")
    await expect(shown.locator(".note")).to_contain_text("Announced by o at ")
    site.tell(mine([lease("ada")]))
    await expect(shown).to_be_hidden()
    assert await watched.all_well() == []


async def test_what_happened_long_ago_has_its_day_and_what_is_new_the_time(
    browser, site
):
    now = time.time()
    days = [event(1, at=now - 60), event(2, at=now - 3 * 86400)]
    watched = await show(browser, site, mine([lease("ada")], events=days))
    new, old = await watched.page.locator("#event-list time").all_inner_texts()
    assert re.fullmatch(r"\d\d:\d\d:\d\d", new)
    assert re.fullmatch(r"[A-Z][a-z]{2} \d{1,2}", old)


async def test_a_kernel_is_kept_and_let_go(browser, site):
    one = kernel("ada", 1, idle_seconds=300)
    watched = await show(browser, site, mine([lease("ada")], [one]))
    page, card = watched.page, watched.page.locator("#kernel-list > li")
    await expect(card).to_contain_text("idle for 5\u00a0min")
    await page.get_by_role("button", name="Keep for 30").click()
    await expect(page.locator("#said")).to_have_text("It is done.")
    pinned = {"pinned": True, "pinned_until": time.time() + 1800, "pinned_by": "ada"}
    site.tell(mine([lease("ada")], [{**one, **pinned}]))
    await expect(card).to_contain_text("Kept until")
    await page.get_by_role("button", name="Let go").click()
    await until(lambda: len(site.asked) == 2)
    path = "kernels/kernel-ada-1/pin?user=ada&server="
    assert site.asked == [
        ("POST", path, {"seconds": 1800}),
        ("DELETE", path, None),
    ]
    assert await watched.all_well() == []


@pytest.mark.parametrize(
    ("pin_seconds", "said"), [(600, "Keep for 10\u00a0min"), (0, "")]
)
async def test_nobody_is_offered_to_keep_for_longer_than_they_may(
    browser, site, pin_seconds, said
):
    own = mine([lease("ada")], [kernel("ada", 1)], pin_seconds=pin_seconds)
    watched = await show(browser, site, own)
    keep = watched.page.locator("#kernel-list .keep")
    assert await keep.is_visible() is bool(said)
    if said:
        assert await keep.inner_text() == said


async def test_memory_is_freed_by_pausing_where_that_can_be(browser, site):
    watched = await show(browser, site, mine([lease("ada")], [kernel("ada", 1)]))
    page = watched.page
    free = page.get_by_role("button", name="Free this: notebook-1.ipynb")
    await free.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Free the GPU memory of notebook-1.ipynb?")
    await expect(dialog.get_by_label("Pause, variables kept")).to_be_checked()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(free).to_be_focused()
    assert site.asked == []

    await free.click()
    await dialog.get_by_role("button", name="Free the memory").click()
    await expect(page.locator("#said")).to_have_text("It is done.")
    path = "kernels/kernel-ada-1/reclaim?user=ada&server="
    assert site.asked == [("POST", path, {"action": "park"})]
    assert await watched.all_well() == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"why_not_pause": "The driver is too old."}, "The driver is too old."),
        ({"state": "busy"}, "Only while it is idle."),
    ],
)
async def test_where_it_cannot_be_paused_one_reads_why_and_what_is_lost(
    browser, site, how, said
):
    watched = await show(browser, site, mine([lease("ada")], [kernel("ada", 1, **how)]))
    page = watched.page
    await page.locator("#kernel-list .free").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text(said)
    await expect(dialog.get_by_label("Pause, variables kept")).to_be_disabled()
    await dialog.get_by_label("Shut down, variables lost").check()
    site.answers["POST", "kernels/kernel-ada-1/reclaim"] = (409, "It is being moved.")
    await dialog.get_by_role("button", name="Free the memory").click()
    await expect(page.locator("#said.bad")).to_have_text(
        "That was not done. It is being moved."
    )
    assert [x[2] for x in site.asked] == [{"action": "stop_kernel"}]


async def test_a_server_is_stopped_after_asking_and_its_share_given_back(browser, site):
    watched = await show(browser, site, mine([lease("ada")]))
    page = watched.page
    await page.get_by_role("button", name="Stop my server").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Your files stay.")
    await dialog.get_by_role("button", name="Cancel").click()
    assert site.asked == []
    await page.get_by_role("button", name="Stop my server").click()
    await dialog.get_by_role("button", name="Stop it").click()
    await until(lambda: site.asked == [("POST", "leases/lease-ada/stop", {})])
    site.tell(mine())
    await expect(page.locator("#no-share")).to_be_visible()
    assert await watched.all_well() == []


async def test_a_paused_kernel_is_said_to_be_so_and_needs_no_freeing(browser, site):
    one = kernel("ada", 1, used_gib=0, parked_bytes=2 * GIB, verdict="Paused.")
    watched = await show(browser, site, mine([lease("ada")], [one]))
    card = watched.page.locator("#kernel-list > li")
    assert await card.locator(".badge").inner_text() == "paused"
    await expect(card).to_contain_text("2.0\u00a0GiB paused, in host memory")
    assert not await card.locator(".free").is_visible()


@pytest.mark.parametrize(
    "how",
    [
        {"state": "busy"},
        {"used_gib": 0, "verdict": "Idle, and it holds no GPU memory."},
        {"used_gib": 0, "parked_bytes": GIB},
    ],
)
async def test_a_kept_kernel_says_so_whatever_it_does(browser, site, how):
    one = kernel("ada", 1, **how, pinned=True, pinned_by="olga")
    watched = await show(browser, site, mine([lease("ada")], [one]))
    card = watched.page.locator("#kernel-list > li")
    await expect(card.locator(".kept")).to_have_text("Kept without end, by olga")
    await expect(card.get_by_role("button", name="Let go")).to_be_visible()


async def test_where_there_is_nothing_to_free_one_reads_why(browser, site):
    idle = "Idle, and it holds no GPU memory."
    kernels = [
        kernel("ada", 1, used_gib=0, state="busy"),
        kernel("ada", 2, used_gib=0, verdict=idle),
        kernel("ada", 3, used_gib=0, verdict=idle, pinned=True),
        kernel("ada", 4, memory_bytes=None),
        kernel("ada", 5, used_gib=0, parked_bytes=GIB),
        kernel("ada", 6),
    ]
    watched = await show(browser, site, mine([lease("ada")], kernels))
    cards = watched.page.locator("#kernel-list > li")
    said = [await cards.nth(x).locator(".nothing").is_visible() for x in range(6)]
    assert said == [True, False, True, False, False, False]
    freed = [await cards.nth(x).locator(".free").is_visible() for x in range(6)]
    assert freed == [False] * 5 + [True]


async def test_what_follows_and_what_happened_are_told(browser, site):
    now = time.time()
    one = kernel("ada", 1, idle_seconds=900, acts_at=now + 60)
    notice = {
        "id": "n",
        "kind": "kernel_idle",
        "user": "ada",
        "server": "",
        "kernel_id": "kernel-ada-1",
        "text": "notebook-1.ipynb: its memory is taken back soon.",
        "given_at": now,
        "acts_at": now + 60,
        "seen_at": None,
    }
    happened = event(
        7,
        "kernel_reclaimed",
        reason="Idle for 20 min.",
        details={"notebook": "a/b.ipynb"},
    )
    process = holder("ada", 4711, kind="terminal", command="python train.py")
    hidden = holder("ada", 4712, kind="kernel", command="ipykernel")
    own = mine([lease("ada")], [one], [process, hidden], [notice], [happened])
    watched = await show(browser, site, own)
    page = watched.page
    await expect(page.locator("#kernel-list .acts")).to_contain_text("taken back")
    await expect(page.locator("#needed")).not_to_be_visible()
    site.tell({**tick(now), "needed": True})
    await expect(page.locator("#needed")).to_be_visible()
    said = page.locator("#notice-list li")
    await expect(said).to_contain_text("taken back soon")
    await expect(said.locator("time")).to_have_text(
        time.strftime("%H:%M:%S", time.localtime(now))
    )
    await expect(page.locator("#process-list li")).to_have_count(1)
    await expect(page.locator("#process-list")).to_contain_text("4711, in a terminal")
    await expect(page.locator("#event-list")).to_contain_text("b.ipynb: Idle for 20")
    assert await watched.all_well() == []


@pytest.mark.parametrize(
    ("own", "devices", "said"),
    [
        (mine(), DEVICES, "You have no share of a GPU"),
        (mine(), [], "Tell the organiser"),
        (
            mine([lease("ada", devices=[], memory_limits=[], share="cpu")]),
            DEVICES,
            "runs without a GPU",
        ),
        (mine([lease("ada")]), DEVICES, "You run no notebook"),
        (mine([lease("ada", 7)]), DEVICES, "not seen just now"),
        (
            mine([lease("ada")]),
            [device(0, lost=True)],
            "the driver does not reach it any more",
        ),
    ],
)
async def test_where_there_is_nothing_one_reads_what_to_do(
    browser, site, own, devices, said
):
    watched = await show(browser, site, own, devices)
    await expect(watched.page.locator("main")).to_contain_text(said)
    assert await watched.all_well() == []


async def test_names_with_markup_stay_names(browser, site):
    evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    own = mine(
        [lease("ada", server=evil, share=evil, server_verdict=evil)],
        [kernel("ada", 1, notebook=f"{evil}.ipynb", verdict=evil, server=evil)],
        [holder("ada", 1, kind="terminal", command=evil)],
        events=[event(1, evil, reason=evil, details={"notebook": evil})],
    )
    devices = [device(0, label=evil, name=evil)]
    watched = await show(browser, site, own, devices, **WIDE)
    await shown_plot(watched.page)
    await watched.page.locator("#kernel-list .free").click()
    await expect(watched.page.get_by_role("dialog")).to_be_visible()
    assert await watched.page.evaluate("window.hit") is None
    assert await watched.page.locator("main img, main script").count() == 0
    assert await watched.all_well() == []


async def test_who_has_a_button_in_focus_keeps_it_while_numbers_change(browser, site):
    kernels = [kernel("ada", 1), kernel("ada", 2)]
    watched = await show(browser, site, mine([lease("ada")], kernels))
    button = watched.page.locator("#kernel-list .free").nth(1)
    await button.focus()
    changed = {**kernels[1], "memory_bytes": 5 * GIB}
    site.tell(mine([lease("ada")], [changed, kernel("ada", 3)]))
    await expect(watched.page.locator("#kernel-list > li")).to_have_count(2)
    await expect(
        watched.page.get_by_role("button", name="Free this: notebook-2.ipynb")
    ).to_be_focused()


@pytest.mark.parametrize("width", [320, 390, 1440])
async def test_nothing_is_wider_than_the_screen(browser, site, width):
    name = "a-very-long-name-without-any-space-in-it-" * 4
    own = mine(
        [lease("ada", used_gib=20)],
        [kernel("ada", 1, notebook=f"{name}.ipynb", pinned=True, pinned_by=name)],
        [holder("ada", 1, kind="terminal", command=name)],
        events=[event(1, reason=name)],
    )
    watched = await show(browser, site, own, width=width)
    await watched.page.locator("#share-list summary").click()
    wide = await watched.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
