"""What a check of the doctor says: a value, made by judges and read by the report."""

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a check came out.

    Attributes:
        OK: as it should be.
        WARN: a workshop can go on with it, but somebody will notice.
        FAIL: a workshop does not work with it.
        SKIP: it was not, or could not be, looked at: the finding says why.
    """

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        check: what was looked at: an area and a name, such as ``gpus.compute-mode``.
            The same words every time, so that programs can compare two reports.
        status: how it came out.
        finding: what was found, in a sentence: what happened, and where.
        remedy: what to do about it, a command where there is one; commands stand on
            lines of their own after ``$ ``. Empty where there is nothing to do.
    """

    check: str
    status: Status
    finding: str
    remedy: str = ""
