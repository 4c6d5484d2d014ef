"""A room as an organiser sees it, and a browser in which one is logged in."""

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.engines.chromium import chromium_beside

from .fed_site import fed_site, signed_in
from .rooms import (
    GIB,
    device,
    event,
    holder,
    kernel,
    lease,
    messages,
    whole,
)

# Plots have tests of their own, and each is drawn by a process that takes a while.
NO_PLOTS = """
export const plots = Object.assign(() => {}, {
  tick() {},
  picker: () => document.createElement("span"),
});
"""

DEVICES = [device(0), device(1)]
LEASES = [
    lease("ada", used_gib=19.5),
    lease("bob", used_gib=2.0, memory_limit="none", memory_limits=[]),
    lease("cem", 1, used_gib=6.0, short_bytes=GIB),
]
KERNELS = [
    kernel("ada", used_gib=19.5, state="busy"),
    kernel("bob", used_gib=2.0, idle_seconds=1500, notebook="b.ipynb"),
    kernel("cem", 1, used_gib=6.0, idle_seconds=300, pinned=True, pinned_until=None),
    kernel("cem", 2, used_gib=0, parked_bytes=3 * GIB, notebook="paused.ipynb"),
]
HOLDERS = [
    holder("ada", 11, used_gib=19.5, kernel_id="kernel-ada-0"),
    holder("bob", 12, used_gib=2.0, kernel_id="kernel-bob-0"),
    holder("cem", 13, number=1, used_gib=6.0, kernel_id="kernel-cem-1"),
    holder("cem", 14, number=1, used_gib=1.0, kind="terminal", command="python x.py"),
]
EVENTS = [
    event(
        3,
        "kernel_reclaimed",
        user="bob",
        reason="It was idle for 24 min.",
        details={"notebook": "a/b.ipynb"},
    ),
    event(2, "lease_refused", user="dan", reason="No GPU has so much left."),
    event(1, "device_drained", user="", reason="olga asked for it."),
]


async def without_plots(route):
    await route.fulfill(content_type="text/javascript", body=NO_PLOTS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fed():
    """Return a site and a browser in which an organiser is logged in."""
    async with fed_site() as (site, _), chromium_beside() as browser:
        context = await signed_in(browser, "organiser")
        await context.route("**/plot.js", without_plots)
        yield site, context


@pytest_asyncio.fixture(loop_scope="module")
async def site(fed):
    made, context = fed
    made.forget()
    made.first = messages(devices=DEVICES, room=whole(LEASES, KERNELS, HOLDERS, EVENTS))
    yield made
    for page in context.pages:
        await page.close()


@pytest.fixture
def browser(fed):
    return fed[1]


async def is_fed(page):
    """Wait until the page has got what a new viewer gets."""
    await expect(page.locator("#as-of")).to_contain_text("As of")


def names(page):
    """Return the first cells of the table's groups, as they stand."""
    return page.locator("#people tr.lease th")


def row(page, text):
    return page.locator("#people tr", has_text=text)
