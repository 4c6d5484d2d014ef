"""The dashboard as people meet it: one real demo, Chromium, and those who log in."""

import importlib.util
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jupyterhub_gpuworkshop.tools.demo.habits import Character, make_habits
from tests.conftest import require_engine
from tests.engines.chromium import chromium, require_chromium

from .test_demo import Demo, call, is_ready

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = [pytest.mark.hub, pytest.mark.lab, pytest.mark.browser]

_LONGEST_MS = 60_000
_A_MOMENT_MS = 200
_SEED, _IDLE_SECONDS = 1, 300.0
"""Nothing is taken back by itself, and who loses a kernel stays away for a minute."""

# Before any script of a page: what its policy refused.
_WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Visitor:
    """Somebody who is logged in, and all that their browser was sent.

    Attributes:
        frames: what came over websockets.
        wrong: what pages said in the console, or threw.
    """

    def __init__(
        self, browser: "Browser", ready: dict[str, Any], name: str, archive: Path
    ) -> None:
        self.ready, self.name, self._archive = ready, name, archive
        self.frames: list[str] = []
        self.wrong: list[str] = []
        self.context = browser.new_context(
            record_har_path=archive, record_har_content="embed"
        )
        self.context.set_default_timeout(_LONGEST_MS)
        self.context.add_init_script(_WATCH)
        self.page = self.context.new_page()
        self.page.on("websocket", self._listen)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._hear)
        who = "organiser" if name == ready["organiser"]["name"] else "attendee"
        self.page.goto(f"{ready['hub_url']}hub/login?next=/hub/home")
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(ready[who]["password"])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/hub/home")

    def _listen(self, socket: Any) -> None:
        socket.on("framereceived", lambda frame: self.frames.append(str(frame)))

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(message.text)

    def go_to_the_service(self) -> None:
        """Find the page as people do: in the hub's own menu."""
        from playwright.sync_api import expect

        link = self.page.get_by_role("link", name="gpuworkshop", exact=True)
        while not link.is_visible():  # the hub's own script may not be there yet
            self.page.get_by_role("button", name="Services").click()
            self.page.wait_for_timeout(_A_MOMENT_MS)
        link.click()
        expect(self.page).to_have_url(self.ready["service_url"])

    def confirm(self, button: str, *saying: str) -> None:
        """Press the open dialog's button, once it says all that."""
        from playwright.sync_api import expect

        dialog = self.page.get_by_role("dialog")
        for words in saying:
            expect(dialog).to_contain_text(words)
        dialog.get_by_role("button", name=button, exact=True).click()
        expect(dialog).to_have_count(0)

    def assert_all_is_well(self) -> None:
        """Nothing was refused, thrown or complained about."""
        assert [*self.wrong, *self.page.evaluate("window.refused")] == []

    def leave(self) -> str:
        """Close the browser; return everything that it was sent but for scripts."""
        self.context.close()
        entries = json.loads(self._archive.read_text("utf-8"))["log"]["entries"]
        bodies = [
            entry["response"]["content"].get("text", "")
            for entry in entries
            if "javascript" not in entry["response"]["content"]["mimeType"]
        ]
        assert any('id="page"' in body for body in bodies)
        return "\n".join([*bodies, *self.frames])


class Workshop:
    """A demo with two robots, and whoever visits it."""

    def __init__(self, demo: Demo, browser: "Browser", folder: Path) -> None:
        self.demo, self._browser, self._folder = demo, browser, folder
        self.visitors: list[Visitor] = []
        self.ready = demo.wait_for(is_ready)
        pattern = self.ready["attendee"]["name_pattern"]
        habits = make_habits(2, _SEED, _IDLE_SECONDS)
        self._robots = {
            habit.character: (pattern.format(number), habit.notebook)
            for number, habit in enumerate(habits, start=1)
        }
        self.trains, self.notebook = self._robots[Character.TRAINING]
        self.forgets, self.forgotten = self._robots[Character.FORGETFUL]

    def visit(self, name: str) -> Visitor:
        """Log in."""
        archive = self._folder / f"{name}.har"
        self.visitors.append(Visitor(self._browser, self.ready, name, archive))
        return self.visitors[-1]

    def ask(self, path: str) -> Any:
        """Return what the service's API says."""
        return call(self.ready, f"{self.ready['service_url']}api/v1/{path}")

    def leases(self) -> list[dict[str, Any]]:
        """Return the leases that there are."""
        found: list[dict[str, Any]] = self.ask("snapshot")["leases"]
        return found

    def holds(self, name: str) -> bool:
        """Return whether a kernel of theirs holds memory."""
        return any(
            kernel["user"] == name and kernel["memory_bytes"]
            for kernel in self.ask("snapshot")["kernels"]
        )

    def service(self) -> psutil.Process:
        """Return the process of the GPU service."""
        return next(
            member
            for member in self.demo.family()
            if member.is_running()
            and member.cmdline()[1:] == ["-m", "jupyterhub_gpuworkshop", "service"]
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    require_chromium()
    names = ("aiohttp", "configurable_http_proxy", "ipykernel", "jupyterlab")
    present = all(importlib.util.find_spec(name) for name in names)
    require_engine("lab", present, 'pip install "jupyterhub-gpuworkshop[demo]"')
    folder = tmp_path_factory.mktemp("dashboard")
    for name in ("tmp", "home"):
        (folder / name).mkdir()
    arguments = ["--attendees", "2", "--gpus", "2", "--seed", str(_SEED)]
    arguments += ["--idle-timeout", f"{_IDLE_SECONDS:.0f}s", "--port", "0", "--json"]
    demo = Demo(folder, *arguments)
    from playwright.sync_api import expect

    expect.set_options(timeout=_LONGEST_MS)
    try:
        with chromium() as browser:
            yield Workshop(demo, browser, folder)
    finally:
        expect.set_options(timeout=None)
        demo.end()


@pytest.fixture(autouse=True)
def _nobody_stays(workshop: Workshop) -> Iterator[None]:
    yield
    for visitor in workshop.visitors:
        visitor.context.close()
    workshop.visitors.clear()


def _row(visitor: Visitor, words: str) -> "Locator":
    return visitor.page.locator("#people tr", has_text=words)


def test_an_organiser_watches_a_gpu_fill_and_takes_it_back(workshop: Workshop) -> None:
    from playwright.sync_api import expect

    organiser = workshop.visit("organiser")
    organiser.go_to_the_service()
    page = organiser.page
    cards = page.locator("#devices > li")
    expect(cards).to_have_count(2)
    assert workshop.forgotten != workshop.notebook

    # A robot comes in, and what it holds is in the bar and beside its name.
    kernel = _row(organiser, workshop.notebook)
    expect(kernel.locator(".memory")).to_contain_text("GiB")
    card = cards.filter(has_text=workshop.trains)
    bar = card.locator(".figures .memory dd")
    expect(bar).to_have_text(re.compile(r"^(?!0\.0)[0-9.]+ of 16\.0"))
    expect(card.locator(".track.memory .part").first).to_have_text(workshop.trains)

    kernel.get_by_role("button", name="Free").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{workshop.trains} runs {workshop.notebook}")
    dialog.get_by_label("Restart, variables lost").check()
    organiser.confirm("Free the memory", "The notebook stays open")
    taken = page.locator("#events li", has_text="Memory taken back").first
    expect(taken).to_contain_text(workshop.trains)
    expect(taken).to_contain_text(
        f"{workshop.notebook}: Organiser organiser restarted it."
    )
    expect(bar).to_have_text("0.0 of 16.0\u00a0GiB")
    said = card.locator(".legend li", has_text=workshop.trains)
    expect(said).to_contain_text("0\u00a0MiB")
    organiser.assert_all_is_well()
    organiser.leave()


def test_a_gpu_is_taken_out_of_service_and_back(workshop: Workshop) -> None:
    from playwright.sync_api import expect

    organiser = workshop.visit("organiser")
    organiser.go_to_the_service()
    page = organiser.page
    card = page.locator("#devices > li").last
    card.get_by_role("button", name="Take GPU 1 out of service").click()
    organiser.confirm("Take out of service", "It gets no new share")
    expect(card.locator(".flags")).to_have_text("out of service")
    said = page.locator("#events li", has_text="GPU taken out of service")
    expect(said.first).to_contain_text("organiser")
    (drained,) = [x for x in workshop.ask("snapshot")["devices"] if x["label"] == "1"]
    assert drained["drained"]
    card.get_by_role("button", name="Take GPU 1 back").click()
    organiser.confirm("Take back")
    expect(card.locator(".flags")).to_have_text("")
    organiser.assert_all_is_well()
    organiser.leave()


def test_what_is_announced_stands_on_the_hubs_pages(workshop: Workshop) -> None:
    from playwright.sync_api import expect

    organiser = workshop.visit("organiser")
    organiser.go_to_the_service()
    page = organiser.page
    page.get_by_role("button", name="Announce to all").click()
    page.get_by_label("What do you announce?").fill("Lunch & <b>coffee</b> at noon")
    organiser.confirm("Announce it")
    shown = page.locator("#announcement")
    expect(shown).to_contain_text("Lunch & <b>coffee</b> at noon")

    # The hub hears of it with its next report.
    home = organiser.context.new_page()

    def is_told() -> bool:
        home.goto(f"{workshop.ready['hub_url']}hub/home")
        return "Lunch & <b>coffee</b> at noon" in home.inner_text("body")

    workshop.demo.wait_until(is_told)
    page.get_by_role("button", name="Take down").click()
    organiser.confirm("Take down", "Lunch")
    expect(shown).to_be_hidden()
    workshop.demo.wait_until(lambda: not is_told())
    organiser.assert_all_is_well()
    organiser.leave()


def test_an_attendee_sees_and_frees_what_is_theirs_and_no_more(
    workshop: Workshop,
) -> None:
    from playwright.sync_api import expect

    workshop.demo.wait_until(lambda: workshop.holds(workshop.forgets))
    attendee = workshop.visit(workshop.forgets)
    attendee.go_to_the_service()
    page = attendee.page
    card = page.locator("#kernel-list > li")
    expect(card).to_have_count(1)
    expect(card).to_contain_text(workshop.forgotten)
    expect(card).to_contain_text("GiB of GPU memory")
    page.wait_for_selector("[data-plot] .bk-Figure")
    seen = [page.content()]

    card.get_by_role("button", name="Keep for 30").click()
    expect(card).to_contain_text("Kept until")
    card.get_by_role("button", name="Free this").click()
    page.get_by_role("dialog").get_by_label("Restart, variables lost").check()
    attendee.confirm("Free the memory")
    expect(page.locator("#event-list")).to_contain_text(
        f"{workshop.forgets} restarted it."
    )
    expect(page.locator("#share-list")).to_contain_text("0.0 of")
    seen.append(page.content())

    page.get_by_role("button", name="Stop my server").click()
    attendee.confirm("Stop it and give the share back", "Your files stay")
    expect(page.locator("#no-share")).to_be_visible()
    workshop.demo.wait_until(
        lambda: workshop.forgets not in [x["user"] for x in workshop.leases()]
    )
    seen.append(page.content())
    attendee.assert_all_is_well()

    everything = "\n".join([*seen, attendee.leave()])
    assert workshop.forgotten in everything
    for others in (workshop.trains, workshop.notebook):
        assert others not in everything


def test_a_service_that_is_killed_is_missed_and_comes_back(workshop: Workshop) -> None:
    from playwright.sync_api import expect

    organiser = workshop.visit("organiser")
    organiser.go_to_the_service()
    page = organiser.page
    expect(page.locator("#people tr.lease")).not_to_have_count(0)
    # The hub may be quick: what is said for a moment is said, too.
    page.evaluate(
        "window.told = [];"
        "new MutationObserver(() => told.push("
        "document.getElementById('connection').textContent"
        ")).observe(document.getElementById('connection'), {childList: true})"
    )
    service = workshop.service()
    os.kill(service.pid, signal.SIGKILL)
    workshop.demo.wait_until(
        lambda: page.evaluate("told.some((words) => words.includes('Connection lost'))")
    )
    expect(page.locator("#connection")).to_be_hidden(timeout=2 * _LONGEST_MS)
    expect(page.locator("#people tr.lease")).not_to_have_count(0)
    greetings = [frame for frame in organiser.frames if '"type":"hello"' in frame]
    assert len(greetings) >= 2
    assert workshop.service().pid != service.pid
    assert page.evaluate("window.refused") == []
    page.goto(f"{workshop.ready['hub_url']}hub/home")
    organiser.go_to_the_service()
    expect(page.locator("#as-of")).to_contain_text("As of")
    organiser.leave()
