"""What a lease uses above its share; unknown is not above, and not below either."""

import pytest

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.over_share import TOLERANCE_BYTES, excess
from jupyterhub_gpuworkshop.core.units import GIB

LEASE = Lease(
    id="lease",
    user="ada",
    server="",
    share="1/4",
    granted_at=1.0,
    devices=(
        LeasedDevice(
            uuid="GPU-0", label="0", memory_bytes=4 * GIB, total_bytes=16 * GIB
        ),
    ),
)


@pytest.mark.parametrize(
    ("used_bytes", "expected"),
    [
        ({}, {}),
        ({"GPU-0": 4 * GIB + TOLERANCE_BYTES}, {}),
        ({"GPU-0": 5 * GIB}, {"GPU-0": GIB}),
        # On a device that is not of the lease all of it is above.
        ({"GPU-1": GIB}, {"GPU-1": GIB}),
        ({"GPU-0": None}, None),
        # One size that is unknown: what is above elsewhere proves nothing yet.
        ({"GPU-0": 5 * GIB, "GPU-1": None}, None),
    ],
)
def test_what_is_above_the_share_is_told_or_unknown(used_bytes, expected):
    assert excess(LEASE, used_bytes) == expected
