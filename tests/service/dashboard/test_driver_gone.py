"""The GPUs cannot be read for a while: the pages of a real service stay true."""

import pytest
from playwright.async_api import expect

from tests.engines.chromium import chromium_beside

from .test_attendee_with_service import logged_in, workshop

__all__ = ["workshop"]

pytestmark = pytest.mark.browser

UNKNOWN = "unknown"


@pytest.fixture(autouse=True)
def patience():
    """Wait for long: a service starts, and a kernel."""
    expect.set_options(timeout=60_000)
    yield
    expect.set_options(timeout=None)


async def sooner_old(page):
    """Have a page say after three seconds, and not after thirty, that it is old."""

    async def answer(route):
        script = await (await route.fetch()).text()
        assert "OLD_AFTER_SECONDS = 30;" in script
        sooner = script.replace("OLD_AFTER_SECONDS = 30;", "OLD_AFTER_SECONDS = 3;")
        await route.fulfill(content_type="text/javascript", body=sooner)

    await page.route("**/live.js", answer)
    await page.reload()


async def test_no_old_number_is_shown_as_one_of_now(workshop, tmp_path):
    devices, away = tmp_path / "gpus" / "devices.json", tmp_path / "gpus" / "away"
    async with chromium_beside() as browser:
        attendee = await logged_in(browser, workshop.address)
        organiser = await logged_in(browser, workshop.address, "organiser-token")
        await sooner_old(attendee.page)
        workshop.kernel.run('held.append(simcuda.allocate("2GiB"))')
        mine, everybodys = attendee.page.locator("main"), organiser.page.locator("main")
        own = {
            "#device-list .figure": "2.0 of 16.0\u00a0GiB used by all",
            "#share-list .figure": "2.0 of 3.0\u00a0GiB in use",
            "#kernel-list .memory": "2.0\u00a0GiB of GPU memory",
        }
        all_of_it = {
            "#devices .figures .memory dd": "2.0 of 16.0\u00a0GiB",
            "#devices .figures .heat dd": "\u00a0°C",
            "#devices .legend .size": "2.0\u00a0GiB",
            "#people tr.lease .memory .number": "2.0 of 3.0\u00a0GiB",
            "#people tr.kernel .memory": "2.0\u00a0GiB",
        }

        async def told():
            for page, places in ((mine, own), (everybodys, all_of_it)):
                for place, words in places.items():
                    await expect(page.locator(place)).to_contain_text(words)

        await told()
        devices.rename(away)
        for page, places in ((mine, own), (everybodys, all_of_it)):
            for place in places:
                # "How much GPU memory it holds is not known just now"
                await expect(page.locator(place)).to_contain_text(
                    "not known" if place == "#kernel-list .memory" else UNKNOWN
                )
        await expect(everybodys.locator("#needs")).to_contain_text("devices.json")
        since = attendee.page.locator("#connection")
        await expect(since).to_contain_text("could not be read since")
        # No button offers what cannot be told.
        await expect(mine.get_by_role("button", name="Free this")).to_be_hidden()
        away.rename(devices)
        await told()
        await expect(since).to_be_hidden()
        assert await attendee.all_well() == await organiser.all_well() == []
