"""Shares: how organisers write them, and what they come to on a device."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import ShareError
from jupyterhub_gpuworkshop.core.shares import Share, ShareKind
from jupyterhub_gpuworkshop.core.units import GIB, MIB

DEVICE = Device(uuid="GPU-0", label="0", name="A GPU", memory_bytes=16 * GIB)


def shares() -> st.SearchStrategy[Share]:
    """Every share that can be written."""
    fractions = st.integers(1, 1000).flatmap(
        lambda whole: st.integers(1, whole).map(
            lambda part: Share(kind=ShareKind.FRACTION, fraction=Fraction(part, whole))
        )
    )
    memory = st.integers(1, 2**50).map(
        lambda size: Share(kind=ShareKind.MEMORY, memory_bytes=size)
    )
    whole = st.integers(1, 1024).map(
        lambda count: Share(kind=ShareKind.WHOLE, devices=count)
    )
    return st.one_of(fractions, memory, whole, st.just(Share(kind=ShareKind.CPU)))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("1/5", Share(kind=ShareKind.FRACTION, fraction=Fraction(1, 5))),
        (" 2 / 4 ", Share(kind=ShareKind.FRACTION, fraction=Fraction(1, 2))),
        ("1/1", Share(kind=ShareKind.FRACTION, fraction=Fraction(1))),
        ("8GiB", Share(kind=ShareKind.MEMORY, memory_bytes=8 * GIB)),
        ("512 MiB", Share(kind=ShareKind.MEMORY, memory_bytes=512 * MIB)),
        ("1 gpu", Share(kind=ShareKind.WHOLE, devices=1)),
        ("2 GPUs", Share(kind=ShareKind.WHOLE, devices=2)),
        ("2 whole devices", Share(kind=ShareKind.WHOLE, devices=2)),
        ("cpu", Share(kind=ShareKind.CPU)),
        ("None", Share(kind=ShareKind.CPU)),
    ],
)
def test_a_share_is_read_as_organisers_write_it(text: str, share: Share) -> None:
    assert Share.parse(text) == share


@pytest.mark.parametrize(
    "text",
    [
        *("", "half", "5", "0/5", "6/5", "1/0", "1/1001", "-1/5", "0.2", "1/5 gpu"),
        *("0 gpus", "1025 gpus", "0GiB", "9999999TiB"),
        *("9" * 5000 + "/5", "9" * 5000 + " gpus"),
    ],
)
def test_what_is_no_share_is_refused_with_the_value_and_an_example(text: str) -> None:
    with pytest.raises(ShareError) as caught:
        Share.parse(text)
    assert repr(text) in str(caught.value)
    assert "rite " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size_bytes", "devices", "alone"),
    [
        ("1/5", 3 * GIB, 1, False),
        ("8GiB", 8 * GIB, 1, False),
        ("2 gpus", 15 * GIB, 2, True),
        ("cpu", 0, 0, False),
    ],
)
def test_a_share_comes_to_memory_on_a_device(
    text: str, size_bytes: int, devices: int, alone: bool
) -> None:
    share = Share.parse(text)
    assert share.bytes_on(DEVICE, keep_free_bytes=GIB) == size_bytes
    assert share.device_count == devices
    assert share.is_exclusive is alone


@given(shares())
def test_any_share_reads_back_from_its_text(share: Share) -> None:
    assert Share.parse(str(share)) == share


@given(st.one_of(st.text(), st.from_regex(r"\d+\s?/\s?\d+|\d+ ?gpus?|\d+[KMG]iB")))
def test_any_text_that_is_a_share_reads_back(text: str) -> None:
    try:
        share = Share.parse(text)
    except ShareError:
        return
    assert Share.parse(str(share)) == share


@given(st.integers(1, 1000), st.integers(0, 200 * GIB), st.integers(0, 4 * GIB))
def test_equal_parts_together_never_exceed_the_device(
    parts: int, memory_bytes: int, keep_free_bytes: int
) -> None:
    device = Device(uuid="d", label="0", name="d", memory_bytes=memory_bytes)
    each = Share.nth(parts).bytes_on(device, keep_free_bytes)
    assert parts * each <= device.shareable_bytes(keep_free_bytes)
