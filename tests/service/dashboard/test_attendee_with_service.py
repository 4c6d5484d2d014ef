"""The attendee's page of a real service: a cookie, a simulated GPU, a real kernel."""

import asyncio
import contextlib
import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import expect

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import REPORT, Report
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from tests.engines.chromium import chromium_beside
from tests.service.attendee_server import AttendeeServer
from tests.service.service_process import PREFIX, ServiceProcess
from tests.service.stub_hub import StubHub

from .fed_site import WATCH, Watched, comes_true, until

pytestmark = pytest.mark.browser

HOUR = "Bokeh.documents[0].get_model_by_name('hour').data"


class Workshop:
    """A service, ada's server with one kernel, and a hub that reports both."""

    def __init__(self, folder):
        self.hub = StubHub()
        simulation = folder / "gpus"
        (self.device,) = create_devices(simulation, 1, 16 * GIB)
        self.attendee = AttendeeServer(simulation, devices=self.device.uuid).start()
        kernel_id = self.attendee.start_kernel()
        self.kernel = self.attendee.kernels[kernel_id]
        self.attendee.sessions.append(
            {"path": "thesis.ipynb", "kernel": {"id": kernel_id}}
        )
        settings = {
            "gpus": {"source": "simulated", "simulated_dir": str(simulation)},
            "monitor": {"interval": "0.5s"},
        }
        self.service = ServiceProcess(
            folder,
            settings,
            hub_port=self.hub.port,
            JUPYTERHUB_API_TOKEN="service-token",
        )
        self.address = f"http://127.0.0.1:{self.service.port}"

    def report(self):
        """Return what the hub says now: a server that was stopped has no share."""
        part = LeasedDevice(
            uuid=self.device.uuid,
            label="0",
            memory_bytes=3 * GIB,
            total_bytes=16 * GIB,
        )
        lease = Lease(
            id="lease-of-ada",
            user="ada",
            server="",
            share="1/5",
            granted_at=1.0,
            devices=(part,),
        )
        server = replace(self.attendee.info, lease_id=lease.id)
        there = not self.hub.stopped
        return Report(
            hub_id="hub",
            sent_at=time.time(),
            leases=(lease,) if there else (),
            servers=(server,) if there else (),
        )

    async def go_on_reporting(self):
        """Report, again and again."""
        while True:
            answer = await self.service.report(REPORT.dump_json(self.report()))
            assert answer.code == 200, answer.body
            await asyncio.sleep(0.2)

    async def close(self):
        """End everything."""
        self.service.end()
        await self.attendee.stop()
        await self.hub.stop()


@pytest.fixture
async def workshop(tmp_path):
    made = Workshop(tmp_path)
    made.service.start()
    reporting = None
    try:
        await made.service.is_up()
        reporting = asyncio.create_task(made.go_on_reporting())
        yield made
    finally:
        if reporting is not None:
            reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporting
        await made.close()


async def logged_in(browser, address, token="ada-token"):  # noqa: S107 - a double
    """Return somebody's page, after the way over the hub's login."""
    context = await browser.new_context()
    await context.add_init_script(WATCH)
    await context.route(
        "**/hub/logo",
        lambda route: route.fulfill(content_type="image/svg+xml", body="<svg/>"),
    )
    page = await context.new_page()
    await page.goto(f"{address}{PREFIX}")
    asked = parse_qs(urlsplit(page.url).query)
    # As the hub sends a browser back, which has logged in.
    back = f"{address}{PREFIX}oauth_callback?code={token}&state={asked['state'][0]}"
    watched = Watched(page)
    await page.goto(back)
    return watched


async def test_an_attendee_watches_a_kernel_fill_the_gpu_and_takes_it_back(workshop):
    async with chromium_beside() as browser:
        watched = await logged_in(browser, workshop.address)
        page = watched.page
        card = page.locator("#kernel-list > li")
        await expect(card).to_contain_text("thesis.ipynb", timeout=60_000)

        workshop.kernel.run('held.append(simcuda.allocate("2GiB"))')
        await expect(card).to_contain_text("2.0\u00a0GiB of GPU memory", timeout=60_000)
        share = page.locator("#share-list")
        await expect(share).to_contain_text("2.0 of 3.0\u00a0GiB in use")
        await page.wait_for_selector("[data-plot] .bk-Figure", timeout=60_000)
        await comes_true(page, f"{HOUR}.memory.at(-1) > 1.9")

        await card.get_by_role("button", name="Keep for 30").click()
        await expect(card).to_contain_text("Kept until", timeout=60_000)
        await card.get_by_role("button", name="Free this").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Restart, variables lost").check()
        await dialog.get_by_role("button", name="Free the memory").click()
        events = page.locator("#event-list")
        await expect(events).to_contain_text("ada restarted it.", timeout=60_000)
        await expect(share).to_contain_text(
            "0.0 of 3.0\u00a0GiB in use", timeout=60_000
        )

        await page.get_by_role("button", name="Stop my server").click()
        await dialog.get_by_role("button", name="Stop it").click()
        await until(lambda: workshop.hub.stopped == ["/hub/api/users/ada/server"])
        await expect(page.locator("#no-share")).to_be_visible(timeout=60_000)
        assert await watched.all_well() == []
