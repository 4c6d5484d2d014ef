"""Fixtures for tests that run a real hub."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .running_hub import RunningHub


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[Callable[..., RunningHub]]:
    """Return a factory of hubs that end with the test."""
    with contextlib.ExitStack() as stack:

        def make(**kwargs: Any) -> RunningHub:
            hub = RunningHub(tmp_path, **kwargs)
            stack.callback(hub.close)
            return hub

        yield make
