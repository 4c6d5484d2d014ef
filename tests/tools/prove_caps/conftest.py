"""The Pythons in which caps are proven."""

import sys

import pytest

from tests.notebook.test_real_frameworks import tensorflow_python, torch_python

__all__ = ["python", "tensorflow_python", "torch_python"]


@pytest.fixture
def python() -> str:
    """Return the attendee's Python."""
    return sys.executable
