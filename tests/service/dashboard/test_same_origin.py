"""What another page of the same origin gets of an organiser's: an attendee's server's.

Whoever visits it brings their cookies along, and JupyterHub's path is all that is
between it and the service. A real browser, for it decides what a script may read.
"""

import pytest
from tornado.web import RequestHandler, URLSpec

from tests.engines.chromium import chromium_beside
from tests.service.service_process import PREFIX
from tests.service.stub_hub import StubHub

from .fed_site import comes_true
from .live_site import LiveSite

LURE = "/user/eve/"
PATHS = (
    *("", "wall", "work", "work/archive", "metrics", "live?view=organiser"),
    *("api/v1/snapshot", "api/v1/events", "api/v1/usage", "api/v1/locked"),
    *("api/v1/announcement", "api/v1/kernels/none", "api/v1/devices/none/memory"),
    "plots/device.json",
)
READ = """async ([url, mode]) => {
  const answer = await fetch(url, {mode, redirect: "manual"});
  return [answer.status, await answer.text()];
}"""
XSRF = "JSON.parse(document.getElementById('page').textContent).xsrf"
OPENED = """() => {
  try {
    return opened.document.documentElement.innerHTML;
  } catch (error) {
    return "";
  }
}"""


class Lure(RequestHandler):
    """A page of eve's own server."""

    def get(self):
        policy = self.get_argument("policy", "")
        if policy:
            self.set_header("Cross-Origin-Opener-Policy", policy)
        self.finish(
            '<button onclick="opened = window.open(this.dataset.url)" '
            f'data-url="{PREFIX}">look</button>'
        )


@pytest.fixture
async def site(world):
    hub = StubHub()
    made = await LiveSite(world, hub).open()
    lure = URLSpec(LURE, Lure)
    made.server.request_callback.wildcard_router.rules.insert(0, lure)
    yield made
    await made.close()
    await hub.stop()


async def cookie_of(site):
    """Return an organiser's cookies, as a header has them."""
    headers, _ = await site.cookies("organiser-token")
    return headers["Cookie"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_script_of_another_page_gets_nothing_by_an_organisers_cookie(
    site, path
):
    cookie = await cookie_of(site)
    asked = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
    for mode in ("no-cors", "cors", "same-origin"):
        answer = await site.ask(path, {**asked, "Sec-Fetch-Mode": mode})
        assert answer.code in (302, 401, 403), (mode, answer.code)
        assert b"xsrf" not in answer.body
        assert b"ada" not in answer.body
    token = {"Authorization": "token organiser-token", "Sec-Fetch-Mode": "no-cors"}
    assert (await site.ask(path, token)).code not in (302, 401, 403)


@pytest.mark.parametrize("mode", ["no-cors", "cors", "same-origin", "navigate"])
async def test_another_page_has_nothing_done_by_an_organisers_cookie(site, mode):
    # JupyterHub 5.2 asks no XSRF token for whatever is sent in mode no-cors.
    sent = {"Cookie": await cookie_of(site), "Sec-Fetch-Mode": mode}
    for path, body in (
        ("api/v1/announcement", '{"text": "Pizza!", "seconds": null}'),
        (f"api/v1/kernels/{site.kernel_id}/reclaim", '{"action": "restart"}'),
        ("api/v1/attendees/ada/notice", '{"text": "Please leave."}'),
    ):
        answer = await site.client.fetch(
            f"http://{site.host}{PREFIX}{path}",
            method="POST",
            body=body,
            headers=sent,
            raise_error=False,
        )
        assert answer.code in (401, 403), (path, answer.code)
    assert site.world.kept.state.for_everybody is None
    assert not site.world.history.latest(10, None)


@pytest.mark.browser
async def test_a_page_of_an_attendees_own_server_reads_none_of_an_organisers(site):
    pairs = [each.split("=", 1) for each in (await cookie_of(site)).split("; ")]
    address = f"http://{site.host}"
    async with chromium_beside() as browser:
        context = await browser.new_context()
        await context.add_cookies(
            [
                {"name": name, "value": value, "domain": "127.0.0.1", "path": PREFIX}
                for name, value in pairs
            ]
        )
        # The organiser is logged in, and has the page.
        own = await context.new_page()
        await own.goto(f"{address}{PREFIX}")
        xsrf = await own.evaluate(XSRF)
        page = await context.new_page()
        for policy in ("", "same-origin", "noopener-allow-popups"):
            await page.goto(f"{address}{LURE}?policy={policy}")
            async with context.expect_page() as other:
                await page.click("button")
            opened = await other.value
            await opened.wait_for_load_state()
            assert xsrf in await opened.content()
            assert await page.evaluate(OPENED) in ("", "<head></head><body></body>")
            await opened.close()
        for mode in ("no-cors", "cors", "same-origin"):
            for path in ("", "wall", "api/v1/snapshot"):
                status, said = await page.evaluate(READ, [f"{PREFIX}{path}", mode])
                assert status in (0, 401, 403)
                assert xsrf not in said
                assert "ada" not in said
        await page.evaluate(
            f"""() => {{
              window.got = [];
              const socket = new WebSocket("ws://{site.host}{PREFIX}live?view=organiser");
              socket.onopen = () => socket.send("{{}}");
              socket.onmessage = (event) => got.push(event.data);
              socket.onclose = () => got.push("closed");
            }}"""
        )
        await comes_true(page, "got.includes('closed')")
        (bye, _) = await page.evaluate("got")
        assert "4401" in bye
