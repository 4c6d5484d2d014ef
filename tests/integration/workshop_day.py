"""A day of a workshop: a hub behind a real proxy, real JupyterLab, a real browser."""

import contextlib
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml
from bs4 import BeautifulSoup

from tests.hub.running_hub import RunningHub, free_port, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

_EARLY = """
c.JupyterHub.authenticator_class = "gpuworkshop-roster"
import pathlib, time
from jupyterhub_gpuworkshop.hub.doors import DoorKeeper
_ahead = pathlib.Path({ahead!r})
DoorKeeper.clock = staticmethod(lambda: time.time() + float(_ahead.read_text() or 0))
"""
_LATE = """
import os
c.JupyterHub.proxy_class = "configurable-http-proxy"
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.command = [
    {python!r}, "-m", "jupyterhub_gpuworkshop.tools.demo.proxy",
]
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = {args!r}
"""


class Day:
    """One workshop: its folder, its hub, and what the organiser types.

    Args:
        folder: for everything.
        workshop: keys of the workshop file.
    """

    def __init__(self, folder: Path, workshop: dict[str, Any]) -> None:
        self.folder = folder
        self.ahead = folder / "ahead"
        """Seconds that the hub's doors believe it is later."""
        self.ahead.write_text("0")
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        args = ["--LabApp.news_url=None", "--LanguageServerManager.autodetect=False"]
        args.append(
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        )
        if os.geteuid() == 0:
            args.append("--allow-root")
        self.hub = RunningHub(
            folder,
            workshop=workshop,
            service=True,
            early=_EARLY.format(ahead=str(self.ahead)),
            late=_LATE.format(
                public=self.port,
                proxy_api=free_port(),
                python=sys.executable,
                args=args,
            ),
        )

    @property
    def api_url(self) -> str:
        """Return where commands find the hub."""
        return f"http://127.0.0.1:{self.hub.port}/hub/api"

    def start(self) -> None:
        """Start the hub, and wait until the proxy leads to it."""
        self.hub.start()

        def leads_there() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"{self.address}/hub/login", timeout=60).ok
            return False

        wait_for(leads_there, why=self.hub.log[-3000:])

    def organise(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `gpuworkshop` in the workshop's folder, as the organiser."""
        done = subprocess.run(  # noqa: S603  our own command
            [sys.executable, "-m", "jupyterhub_gpuworkshop", *command],
            cwd=self.folder,
            env={**os.environ, "JUPYTERHUB_API_TOKEN": self.hub.token, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def cards(self, page: str = "cards.html") -> dict[str, str]:
        """Return the codes by name, as they stand on the printed cards."""
        text = (self.folder / page).read_text("utf-8")
        found = BeautifulSoup(text, "html.parser").select(".card")
        return {
            card.select_one(".name").get_text(): card.select_one(".code").get_text()
            for card in found
        }

    def close_doors(self) -> None:
        """Let the doors close in a moment, and let that moment pass."""
        soon = datetime.now(timezone.utc) + timedelta(minutes=2)
        content = yaml.safe_load(self.hub.workshop_file.read_text())
        content["doors"] = {
            "timezone": "UTC",
            "hours": [f"2020-01-01 09:00 to {soon:%Y-%m-%d %H:%M}"],
            "grace": "0s",
        }
        beside = self.hub.workshop_file.with_suffix(".new")
        beside.write_text(yaml.safe_dump(content))
        beside.replace(self.hub.workshop_file)
        self.ahead.write_text("180")

    def knock(self, name: str, code: str) -> int:
        """Log in without a browser; return the answer's status, 302 for a welcome."""
        with requests.Session() as session:
            session.headers["Sec-Fetch-Mode"] = "navigate"
            form = session.get(f"{self.address}/hub/login", timeout=60).text
            token = BeautifulSoup(form, "html.parser").find("input", {"name": "_xsrf"})
            typed = {"username": name, "password": code, "_xsrf": token["value"]}
            return session.post(
                f"{self.address}/hub/login",
                data=typed,
                allow_redirects=False,
                timeout=60,
            ).status_code

    def log_in(self, page: "Page", name: str, code: str) -> None:
        """Type name and code at the hub's address and press the button."""
        page.goto(self.address)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Code").fill(code)
        page.get_by_role("button", name="Sign in").click()
