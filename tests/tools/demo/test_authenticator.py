"""Who may log in to the demo's hub."""

from typing import Any

import pytest

from jupyterhub_gpuworkshop.tools.demo.authenticator import DemoAuthenticator


@pytest.fixture
def authenticator() -> DemoAuthenticator:
    return DemoAuthenticator(organiser_password="o-pass", attendee_password="a-pass")


@pytest.mark.parametrize(
    ("name", "password", "expected"),
    [
        ("organiser", "o-pass", {"name": "organiser", "admin": True}),
        ("organiser", "a-pass", None),
        ("attendee01", "a-pass", {"name": "attendee01", "admin": False}),
        ("attendee01", "  a-pass ", {"name": "attendee01", "admin": False}),
        ("attendee123", "a-pass", {"name": "attendee123", "admin": False}),
        ("attendee01", "o-pass", None),
        ("attendee01", "", None),
        ("attendee01", "pässword", None),
        ("attendee", "a-pass", None),
        ("attendee01x", "a-pass", None),
        ("attendee01\n", "a-pass", None),
        ("root", "o-pass", None),
    ],
)
async def test_a_name_with_its_password_comes_in(
    authenticator: DemoAuthenticator,
    name: str,
    password: str,
    expected: dict[str, Any] | None,
) -> None:
    data = {"username": name, "password": password}

    assert await authenticator.authenticate(None, data) == expected


@pytest.mark.parametrize("name", ["organiser", "attendee01"])
async def test_without_passwords_nobody_comes_in(name: str) -> None:
    data = {"username": name, "password": ""}

    assert await DemoAuthenticator().authenticate(None, data) is None


def test_every_trait_has_help() -> None:
    own = DemoAuthenticator.class_own_traits(config=True)

    assert set(own) == {"organiser_password", "attendee_password"}
    assert all(trait.help for trait in own.values())
