"""Debian's Chromium, without a window."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import require_engine

if TYPE_CHECKING:
    from playwright.async_api import Browser as AsyncBrowser
    from playwright.sync_api import Browser

_PROGRAM = Path("/usr/bin/chromium")
# Root has no sandbox, and a container offers none.
_HOW: dict[str, Any] = {"executable_path": str(_PROGRAM), "args": ["--no-sandbox"]}


def require_chromium() -> None:
    """Skip a test where there is none, or fail it where it is required."""
    require_engine("browser", _PROGRAM.exists(), "install Debian's package chromium")


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """Start it, for a test that waits for each of its answers."""
    require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**_HOW)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.asynccontextmanager
async def chromium_beside() -> AsyncIterator["AsyncBrowser"]:
    """Start it, for a test that does something else meanwhile."""
    require_chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**_HOW)
        try:
            yield browser
        finally:
            await browser.close()
