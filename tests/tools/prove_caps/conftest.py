"""The Pythons in which caps are proven."""

import sys

import pytest


@pytest.fixture
def python() -> str:
    """Return the attendee's Python."""
    return sys.executable
