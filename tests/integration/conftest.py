"""The fixtures of the hub's tests, for tests with the service beside it."""

from tests.hub.conftest import make_hub

__all__ = ["make_hub"]
