"""Sizes and durations: what people write is read, and told back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError, UnitError
from jupyterhub_gpuworkshop.core.units import (
    GIB,
    MIB,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("16GiB", 16 * GIB),
        ("512 MiB", 512 * MIB),
        (" 1.5gib ", GIB + GIB // 2),
        ("16G", 16 * GIB),
        ("8GB", 8 * 1000**3),
        ("0B", 0),
        ("1TiB", 1024 * GIB),
        ("9007199254740993B", 2**53 + 1),  # a float would lose the last byte
    ],
)
def test_a_size_is_read_in_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "8", "GiB", "8 GiBs", "-8GiB", "8,5GiB", "1e3MiB", "9" * 400 + "GiB"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnitError, match=r"is not a size\. Write for example 8GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20 min", 1200),
        ("20m", 1200),
        ("2h", 7200),
        ("1 h 30 min", 5400),
        ("0.5s", 0.5),
        ("1 Day", 86400),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "20", "min", "20 min later", "-1s", "2:30", "9" * 400 + "s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UnitError, match=r"is not a duration\. Write for example 90s"):
        parse_duration(text)


def test_a_mistake_in_a_unit_is_one_of_ours_and_a_value_error() -> None:
    assert issubclass(UnitError, GpuWorkshopError)
    assert issubclass(UnitError, ValueError)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 MiB"),
        (512 * MIB, "512 MiB"),
        (16 * GIB, "16 GiB"),
        (3_435_973_837, "3.2 GiB"),
    ],
)
def test_a_size_is_told_for_people(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (45, "45 s"),
        (1200, "20 min"),
        (7200, "2 h"),
        (9000, "2 h 30 min"),
        (119, "119 s"),
    ],
)
def test_a_duration_is_told_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 10**18 - 1))
def test_a_size_in_bytes_reads_back_exactly(size_bytes: int) -> None:
    assert parse_size(f"{size_bytes}B") == size_bytes


@given(st.integers(0, 2**50))
def test_a_size_told_for_people_reads_back_nearly(size_bytes: int) -> None:
    assert abs(parse_size(format_size(size_bytes)) - size_bytes) <= 0.05 * GIB + 1


@given(st.integers(0, 500 * 3600))
def test_a_duration_told_for_people_reads_back_to_the_minute(seconds: int) -> None:
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 30


@given(st.text())
def test_any_text_is_read_or_refused_with_our_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            result: object = parse(text)
        except UnitError as error:
            result = str(error)
        assert isinstance(result, (int, float)) or repr(text) in str(result)
