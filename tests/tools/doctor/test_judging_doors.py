"""What the doctor says of opening hours."""

import pytest

from jupyterhub_gpuworkshop.tools.doctor.check import Status
from jupyterhub_gpuworkshop.tools.doctor.workshop import judge_doors
from jupyterhub_gpuworkshop.workshop import Workshop

_HOUR = 3600.0
_DAY = 24 * _HOUR
_DOORS = {"timezone": "UTC", "hours": ["1970-01-02 09:00 to 17:00"], "work_until": "2d"}


@pytest.mark.parametrize(
    ("now", "status", "said"),
    [
        (0.0, Status.OK, "The doors open on Friday 2 January at 09:00 (UTC)."),
        (_DAY + 10 * _HOUR, Status.OK, "close on Friday 2 January at 17:00 (UTC)."),
        (_DAY + 20 * _HOUR, Status.WARN, "find their work, and get no server"),
        (9 * _DAY, Status.WARN, "no attendee can log in"),
    ],
)
def test_hours_that_are_past_are_told(now, status, said):
    check = judge_doors(Workshop.load({"doors": _DOORS}), now)
    assert check.status is status
    assert said in check.finding
    assert bool(check.remedy) == (status is Status.WARN)


def test_without_hours_the_doors_are_open():
    assert judge_doors(Workshop(), 0.0).status is Status.OK
