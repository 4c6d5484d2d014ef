"""What several tests of material need."""

from collections.abc import Iterator

import pytest

from .web import Site, serving


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a real HTTP server with one file."""
    with serving() as made:
        yield made
