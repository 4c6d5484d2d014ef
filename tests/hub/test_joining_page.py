"""Joining an open event in a real browser: a phone, and a finger that may tap twice."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jupyterhub_gpuworkshop.core.roster import Room, Roster
from jupyterhub_gpuworkshop.hub.codes import hash_code
from jupyterhub_gpuworkshop.hub.roster_file import change_roster, read_roster
from tests.engines.chromium import chromium, require_chromium

from .running_hub import RunningHub

if TYPE_CHECKING:
    from playwright.sync_api import Page

_ROOM_CODE = "RMCD-2345"
_PHONE = {"width": 390, "height": 844}
_STAY = "join.addEventListener('submit', event => event.preventDefault())"


def _fill(page: "Page") -> None:
    page.get_by_label("Room code").fill("rmcd 2345")
    page.get_by_label("A name of your choice").fill("Zoë")


@pytest.mark.hub
@pytest.mark.browser
def test_who_joins_on_a_phone_sends_it_once_sees_the_code_and_is_signed_in(
    make_hub: Callable[..., RunningHub], tmp_path: Path
) -> None:
    require_chromium()
    opened = Roster(room=Room(code_hash=hash_code(_ROOM_CODE), at_most=3))
    change_roster(tmp_path / "roster.json", lambda _: opened, new=True)
    early = 'c.JupyterHub.authenticator_class = "gpuworkshop-roster"\n'
    hub = make_hub(early=early).start()
    with chromium() as browser:
        page = browser.new_page(viewport=_PHONE)
        page.goto(f"http://127.0.0.1:{hub.port}/hub/login")
        page.get_by_role("link", name="Join with the room code").click()
        page.wait_for_url("**/hub/join")
        # Sent twice, the second answer would be that the name is taken.
        page.evaluate(_STAY)
        _fill(page)
        page.locator("#join_submit").click()
        assert page.locator("#join_submit").is_disabled()
        page.reload()
        _fill(page)
        page.locator("#join_submit").click()
        page.wait_for_selector("#own_code")
        assert page.locator("#own_name").inner_text() == "zoe"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= _PHONE["width"], "the page is wider than a phone"
        code = page.locator("#own_code").inner_text()
        page.get_by_role("button", name="I have it: sign in").click()
        page.wait_for_url(lambda url: "/hub/login" not in url)
        assert code not in page.url
        names = {cookie["name"] for cookie in page.context.cookies()}
        assert "jupyterhub-hub-login" in names
    assert read_roster(tmp_path / "roster.json").names() == ("zoe",)
