"""Take the pictures of the dashboard: docs/images/dashboard/*.png.

It runs the real demo twice, once with robots and once without, logs in as its organiser
and as an attendee, and photographs their pages in Chromium::

    python docs/screenshots.py            # ten minutes; or: make screenshots
    python docs/screenshots.py --out DIR  # somewhere else, to compare

Robots do the same each time; times of day and what a moment brings are this run's.
"""

import argparse
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PICTURES = Path(__file__).parent / "images" / "dashboard"
ROBOTS = 9
PLACES_PER_GPU = 2
"""Four GPUs of two places: one robot too many, so that one waits."""
RECLAIMS = 3
SHORTEST_SECONDS = 240.0
"""So long the robots work before the pictures: plots need something to show."""
LONGEST_SECONDS = 600.0
WIDE, PHONE, PROJECTOR = (1440, 1340), (390, 1340), (1920, 1080)
PATIENCE_MS = 60_000


class Demo:
    """A demo as a child process, and what it tells."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "jupyterhub_gpuworkshop", "demo", "--json"]
        command += ["--port", "0", "--seed", "1", *arguments]
        self.process = subprocess.Popen(  # noqa: S603  # our own command
            command, stdout=subprocess.PIPE, text=True
        )
        self.events: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.wait_until(lambda: bool(self.events))
        self.ready = self.events[0]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.events.append(json.loads(line))

    def wait_until(self, holds: Any) -> None:
        """Wait until something holds, or give up."""
        until = time.monotonic() + LONGEST_SECONDS
        while not holds():
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit("The demo ended, or took too long: run it to see why.")
            time.sleep(0.5)

    def wait_for_the_moment(self) -> None:
        """Wait until all that a picture should show has happened."""
        earliest = time.monotonic() + SHORTEST_SECONDS

        def has_happened() -> bool:
            kinds = [event["event"] for event in self.events]
            return (
                kinds.count("kernel_reclaimed") >= RECLAIMS
                and "lease_refused" in kinds
                and time.monotonic() > earliest
            )

        self.wait_until(has_happened)

    def ask(self, path: str) -> Any:
        """Return what the service's API says."""
        request = urllib.request.Request(  # noqa: S310  # the demo's own address
            f"{self.ready['service_url']}api/v1/{path}",
            headers={"Authorization": f"token {self.ready['api_token']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)

    def end(self) -> None:
        """End it, and everything that it started."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self._reading.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    """Run a demo."""
    running = Demo(*arguments)
    try:
        yield running
    finally:
        running.end()


def log_in(browser: Browser, ready: Mapping[str, Any], name: str) -> Page:
    """Return the page of somebody who is logged in."""
    context = browser.new_context(reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    who = "organiser" if name == ready["organiser"]["name"] else "attendee"
    page.goto(f"{ready['hub_url']}hub/login?next=/hub/home")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(ready[who]["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/hub/home")
    return page


def photograph(
    page: Page,
    url: str,
    picture: Path,
    *,
    shows: str,
    size: tuple[int, int] = WIDE,
    scheme: str = "light",
) -> None:
    """Take one picture.

    Args:
        page: of somebody who is logged in.
        url: what it shows.
        picture: the file.
        shows: a selector of what must be there.
        size: of the window; a page that is longer is cut there.
        scheme: "light" or "dark".
    """
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(url)
    page.locator("#as-of", has_text="As of").wait_for()
    page.locator(shows).first.wait_for()
    if page.locator("[data-plot]").count():
        # Longer than the demo has run would be an empty plot.
        page.get_by_role("button", name="15 min").first.click()
        page.locator("[data-plot] .bk-Figure").first.wait_for()
    page.wait_for_timeout(3000)  # until each plot has its past
    page.evaluate("window.scrollTo(0, 0)")
    end = page.evaluate("document.querySelector('main').getBoundingClientRect().bottom")
    used = min(height, int(end) + 16)
    image = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": used})
    save(image, picture)


def save(image: bytes, picture: Path) -> None:
    """Write a picture with few colours: it is in everybody's clone for good."""
    with Image.open(io.BytesIO(image)) as opened:
        few = opened.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


def whom_to_show(running: Demo) -> str:
    """Return an attendee who holds memory, best one to whom something happened."""
    met = {
        event["attendee"]
        for event in running.events
        if event["event"] == "kernel_reclaimed"
    }
    held: dict[str, int] = {}
    for kernel in running.ask("snapshot")["kernels"]:
        held[kernel["user"]] = held.get(kernel["user"], 0) + kernel["memory_bytes"]
    return max(held, key=lambda name: (held[name] > 0, name in met, held[name]))


def take_full(browser: Browser, out: Path) -> None:
    """Take the pictures of a room at work."""
    with demo(
        *("--attendees", str(ROBOTS), "--attendees-per-gpu", str(PLACES_PER_GPU)),
        *("--idle-timeout", "45s"),
    ) as running:
        running.wait_for_the_moment()
        url = running.ready["service_url"]
        page = log_in(browser, running.ready, running.ready["organiser"]["name"])
        people = "#people tr.kernel"
        photograph(page, url, out / "organiser.png", shows=people)
        photograph(page, url, out / "organiser-dark.png", shows=people, scheme="dark")
        photograph(page, url, out / "organiser-phone.png", shows=people, size=PHONE)
        wall = out / "wall.png"
        photograph(page, f"{url}wall", wall, shows="#devices > li", size=PROJECTOR)
        page.context.close()
        page = log_in(browser, running.ready, whom_to_show(running))
        own = "#kernel-list > li"
        photograph(page, url, out / "attendee.png", shows=own)
        photograph(page, url, out / "attendee-dark.png", shows=own, scheme="dark")
        photograph(page, url, out / "attendee-phone.png", shows=own, size=PHONE)
        page.context.close()


def take_empty(browser: Browser, out: Path) -> None:
    """Take the pictures of a room before anybody came."""
    with demo("--attendees", "0") as running:
        url = running.ready["service_url"]
        page = log_in(browser, running.ready, running.ready["organiser"]["name"])
        photograph(page, url, out / "organiser-empty.png", shows="#people-none")
        page.context.close()
        name = running.ready["attendee"]["name_pattern"].format(1)
        page = log_in(browser, running.ready, name)
        photograph(page, url, out / "attendee-empty.png", shows="#no-share")
        page.context.close()


def main() -> None:
    """Run the demos and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=PICTURES)
    parser.add_argument(
        "--chromium", default=shutil.which("chromium"), help="Its executable."
    )
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chosen.chromium, args=["--no-sandbox"]
        )
        take_empty(browser, chosen.out)
        take_full(browser, chosen.out)
        browser.close()


if __name__ == "__main__":
    main()
