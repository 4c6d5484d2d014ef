"""The Pythons in which caps are proven."""

import sys

import pytest

from tests.notebook.test_real_frameworks import (
    jax_python,
    tensorflow_python,
    torch_python,
)

__all__ = ["jax_python", "python", "tensorflow_python", "torch_python"]


@pytest.fixture
def python() -> str:
    """Return the attendee's Python."""
    return sys.executable
