"""What archives are called, and whose they say to be."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.archives import (
    HEAD_BYTES,
    earlier_stem,
    file_size,
    is_same_account,
    marked,
    since_of,
    stem_of,
)

_SINCE = 1795732450.25


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_no_two_users_share_a_file_and_no_name_leads_anywhere(
    one: str, other: str
) -> None:
    try:
        stems = stem_of(one), stem_of(other)
    except (ValueError, UnicodeEncodeError):
        return
    assert (stems[0] == stems[1]) == (one == other)
    for stem in stems:
        assert stem.isascii()
        assert stem.isprintable()
        assert not stem.startswith(".")
        assert not set(stem) & set("/\\~ \"';:\0")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("attendee-01", "attendee-01"),
        ("ann.b", "ann.b"),
        ("..", "%2E."),
        ("../root", "%2E.%2Froot"),
        (".incoming-x", "%2Eincoming-x"),
        ("a~20261126-000000", "a%7E20261126-000000"),
        ('x"\r\nSet-Cookie: y', "x%22%0D%0ASet-Cookie%3A%20y"),
        ("%2E.", "%252E."),
        ("zoé", "zo%C3%A9"),
    ],
)
def test_odd_names_are_spelled_out(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@pytest.mark.parametrize("name", ["", "x" * 181, "é" * 100])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no file"):
        stem_of(name)


def test_an_earlier_accounts_archive_is_nobodys_own() -> None:
    assert earlier_stem("ann", _SINCE) == "ann~20261126-223410"


def test_a_marked_file_is_a_gzip_file_still_and_says_whose_it_is() -> None:
    plain = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as file:
        file.write(b"work" * 1000)
    data = marked(plain.getvalue(), _SINCE)
    assert gzip.decompress(data) == b"work" * 1000
    since = since_of(data[:HEAD_BYTES])
    assert is_same_account(since, _SINCE)
    assert not is_same_account(since, _SINCE + 0.1)
    # Where the hub's database has rounded it in between.
    assert is_same_account(since, round(_SINCE))
    assert not is_same_account(since, round(_SINCE) + 2)
    assert since_of(plain.getvalue()) is None
    assert since_of(marked(plain.getvalue(), 0.0)) is None


def test_accounts_of_which_nothing_is_known_are_never_the_same() -> None:
    assert not is_same_account(None, None)
    assert not is_same_account(0.0, 0.0)
    assert not is_same_account(_SINCE, None)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x1f\x8b\x08\x00",
        b"not a gzip file at all",
        # With a comment or a name of its own: whoever sent it would mark it.
        b"\x1f\x8b\x08\x10" + bytes(6) + b"gpuworkshop: account of 1.000000\0",
        b"\x1f\x8b\x08\x08" + bytes(6) + b"name\0",
    ],
)
def test_what_is_no_plain_head_cannot_be_marked(head: bytes) -> None:
    with pytest.raises(ValueError, match="no plain head"):
        marked(head, _SINCE)


def test_small_files_have_a_size_too() -> None:
    assert [file_size(x) for x in (0, 1, 1024, 2000, 3 * 1024**2)] == [
        *("0 KiB", "1 KiB", "1 KiB", "2 KiB", "3 MiB"),
    ]
