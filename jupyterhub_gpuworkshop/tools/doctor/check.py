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

    @property
    def area(self) -> str:
        """What it is about: the part of the name before the first dot."""
        return self.check.partition(".")[0]


def ok(check: str, finding: str) -> Check:
    """Return that it is as it should be."""
    return Check(check, Status.OK, finding)


def warn(check: str, finding: str, remedy: str = "") -> Check:
    """Return that somebody will notice."""
    return Check(check, Status.WARN, finding, remedy)


def fail(check: str, finding: str, remedy: str) -> Check:
    """Return that a workshop does not work so; a failure always has a remedy."""
    return Check(check, Status.FAIL, finding, remedy)


def skip(check: str, finding: str, remedy: str = "") -> Check:
    """Return why it was not looked at."""
    return Check(check, Status.SKIP, finding, remedy)


def needs_root(check: str, why: str) -> Check:
    """Return that only root may look, and how to."""
    return skip(check, f"Needs root: {why}", "$ sudo gpuworkshop doctor")
