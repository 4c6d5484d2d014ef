"""`gpuworkshop prestart`: a few at a time."""

import asyncio
import io

import pytest
from rich.console import Console

from jupyterhub_gpuworkshop.tools import everybody


def test_no_more_than_so_many_are_started_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = most = 0

    async def start(hub: object, name: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return "no room" if name == "a3" else ""

    monkeypatch.setattr(everybody, "_start", start)
    wanted = everybody.Everybody(
        names=[f"a{number}" for number in range(9)],
        api_url="http://127.0.0.1:9/hub/api",
        token="token",
        at_once=3,
    )
    outcomes = everybody.prestart(wanted, Console(file=io.StringIO()))
    assert most == 3
    assert [one.name for one in outcomes] == list(wanted.names)
    assert [one.name for one in outcomes if one.problem] == ["a3"]
