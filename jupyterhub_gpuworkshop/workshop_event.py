"""The sections of the workshop file about the event: who comes, when, and with what.

Owns the keys of `roster`, `doors` and `material`, their defaults and limits, and the
words that the reference prints for them.
"""

import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jupyterhub_gpuworkshop.core.doors import Doors, Hours
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.workshop_errors import shown
from jupyterhub_gpuworkshop.workshop_reading import (
    DURATION_WORDS,
    PATH_WORDS,
    SIZE_WORDS,
    Duration,
    FilePath,
    Size,
    Whole,
    lasting,
)
from jupyterhub_gpuworkshop.workshop_sections import ON_HUB, SOON, Section

ROSTER_NAME = "roster.json"

_ON_INSTALL = "Takes effect with `gpuworkshop material install`, or `material update`."
_HOURS = re.compile(
    r"(\d{4}-\d\d-\d\d) (\d\d:\d\d) to (?:(\d{4}-\d\d-\d\d) )?(\d\d:\d\d)", re.ASCII
)
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:", re.IGNORECASE | re.ASCII)
_EXAMPLE = "2026-11-30 09:00 to 17:00"


class RosterSettings(Section):
    """Who attends, where the hub's authenticator is `gpuworkshop-roster`."""

    file: FilePath | None = Field(
        default=None,
        description="The roster, which `gpuworkshop roster make` writes. "
        f"{PATH_WORDS} Default: {ROSTER_NAME} beside the workshop file. {ON_HUB}",
    )
    seats: Annotated[Whole, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="How many attendees get in; the first that come. Organisers need "
        "no seat. An attendee has one from the first login, or `gpuworkshop prestart`, "
        "until the account is deleted on the hub's admin page, or the attendee taken "
        "off the roster. 1 to 100000. Default: "
        f"everyone on the roster. {ON_HUB}",
    )


def _moment(day: str, clock: str, zone: ZoneInfo) -> float:
    """Return a time of a zone's clocks as seconds since 1970."""
    local = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=zone)
    back = datetime.fromtimestamp(local.timestamp(), zone)
    if back.replace(tzinfo=None) != local.replace(tzinfo=None):
        raise ValueError(
            f"{day} {clock} is no time in {zone.key}: its clocks are put forward over "
            "it. Write another."
        )
    return local.timestamp()


def _span(text: str, zone: ZoneInfo) -> Hours:
    found = _HOURS.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(
            f"{shown(text)} says no opening hours. Write for example {_EXAMPLE}, or "
            "2026-11-30 20:00 to 2026-12-01 02:00."
        )
    day, begin, last_day, end = found.groups()
    try:
        hours = Hours(
            opens_at=_moment(day, begin, zone),
            closes_at=_moment(last_day or day, end, zone),
        )
    except ValueError as error:
        if "no time in" in str(error):
            raise
        raise ValueError(
            f"{shown(text)} names no day or time of the calendar. Write for example "
            f"{_EXAMPLE}."
        ) from None
    if hours.closes_at <= hours.opens_at:
        raise ValueError(
            f"{shown(text)} closes before it opens. Write the second day too where it "
            "goes past midnight: 2026-11-30 20:00 to 2026-12-01 02:00."
        )
    return hours


class DoorsSettings(Section):
    """When attendees may work."""

    timezone: str | None = Field(
        default=None,
        description="The time zone of `doors.hours`, as the tz database names it: "
        f"Europe/Berlin, say. Required with `doors.hours`. Default: none. {SOON}",
    )
    hours: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    ] = Field(
        default=(),
        validate_default=True,
        description="When the doors are open: a list of lines such as "
        f"`{_EXAMPLE}`, or `2026-11-30 20:00 to 2026-12-01 02:00`, in any "
        "order. Outside them attendees get no server; before the first of them they "
        "cannot log in, where the authenticator is `gpuworkshop-roster`. Organisers "
        f"come and go as they like. Default: always open. {SOON}",
    )
    grace: Annotated[Duration, AfterValidator(lasting(0, 86400))] = Field(
        default=15 * 60.0,
        description="How long attendees' servers go on after the doors have closed, "
        "then they are stopped; a banner on the hub's pages says so, from as long "
        f"before the closing. {DURATION_WORDS} 0s to 1 d. Default: 15 min. {SOON}",
    )
    work_until: Annotated[Duration, AfterValidator(lasting(0))] = Field(
        default=7 * 86400.0,
        description="How long after the last closing attendees may still log in to "
        f"download their work, without a server. {DURATION_WORDS} 0s to 366 d. "
        f"Default: 7 d. {SOON}",
    )

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(
                    f"{shown(value)} is no time zone of the tz database. Write for "
                    "example Europe/Berlin, America/New_York or UTC."
                ) from None
        return value

    @field_validator("hours")
    @classmethod
    def _can_be_read(
        cls, value: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        if not value or "timezone" not in info.data:  # a mistake that is told already
            return value
        if info.data["timezone"] is None:
            raise ValueError(
                "hours were given, but no doors.timezone says whose clocks they are. "
                "Write for example timezone: Europe/Berlin beside them."
            )
        zone = ZoneInfo(info.data["timezone"])
        spans = {text: _span(text, zone) for text in value}
        # `tljh-config add-item` can do no better than to put a rehearsal last.
        ordered = sorted(value, key=lambda text: spans[text].opens_at)
        for before, after in pairwise(ordered):
            if spans[after].opens_at < spans[before].closes_at:
                raise ValueError(
                    f"{shown(before)} and {shown(after)} overlap. Write one line for "
                    "each opening."
                )
        return tuple(ordered)

    def doors(self) -> Doors:
        """Return the doors, with their hours as instants."""
        zone = ZoneInfo(self.timezone or "UTC")
        return Doors(
            hours=tuple(_span(text, zone) for text in self.hours),
            grace_seconds=self.grace,
            work_seconds=self.work_until,
        )

    def in_words(self, instant: float) -> str:
        """Return an instant as attendees read it: Monday 30 November at 09:00."""
        moment = self._local(instant)
        # Not %A and %B: these depend on the locale that the hub happens to run in.
        day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
        return f"{day} {moment.day} {month} at {moment:%H:%M} ({self.timezone})"

    def then_in_words(self, instant: float, *, after: float) -> str:
        """Return an instant that is told after another: of the same day its time."""
        moment = self._local(instant)
        if moment.date() == self._local(after).date():
            return f"at {moment:%H:%M}"
        return f"on {self.in_words(instant)}"

    def _local(self, instant: float) -> datetime:
        return datetime.fromtimestamp(instant, ZoneInfo(self.timezone or "UTC"))


_DAYS = (
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
)
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


class MaterialSource(Section):
    """Where one part of the material comes from."""

    model_config = ConfigDict(populate_by_name=True)

    source: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(
        alias="from"
    )
    sha256: str | None = None
    revision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_where_from(cls, value: object) -> object:
        """Read a text as all that there is to say."""
        return {"from": value} if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _beside_the_file(cls, value: str, info: ValidationInfo) -> str:
        """Make a path absolute; what has a scheme, or git's user@host:, is none."""
        folder = (info.context or {}).get("folder")
        if folder is None or _REMOTE.match(value):
            return value
        return str(folder / value)

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
            raise ValueError(
                f"{shown(value)} is no SHA-256 digest: 64 digits and letters a to f. "
                "Write what `sha256sum FILE` prints."
            )
        return value.lower() if value is not None else None

    @field_validator("revision")
    @classmethod
    def _is_no_option(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w][\w./+-]*", value, re.ASCII):
            raise ValueError(
                f"{shown(value)} is no branch, tag or commit. Write for example v1.2."
            )
        return value


def _part_name(name: str) -> str:
    """Check the name of a part: it becomes a folder's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name, re.ASCII):
        raise ValueError(
            f"{shown(name)} cannot be the name of a folder here. Write letters, "
            "digits, - and _."
        )
    return name


_Parts = dict[Annotated[str, AfterValidator(_part_name)], MaterialSource]
_PART_WORDS = (
    "One line `name: where from` each: a folder, a tar or zip file, the URL of one, or "
    "of a git repository. Or a section with `from`, and `sha256` of the file or "
    "`revision` (branch, tag or commit) of the repository. Paths must be absolute, or "
    "start at the folder of the workshop file."
)


class Material(Section):
    """What attendees work with."""

    folder: FilePath = Field(
        default=Path("/var/lib/gpuworkshop-material"),
        description="Where material is kept on the hub's host, readable by everyone. "
        f"{PATH_WORDS} Default: /var/lib/gpuworkshop-material. {ON_HUB}",
    )
    notebooks: _Parts = Field(
        default={},
        description="What each attendee gets a copy of, in a folder of that name in "
        f"their home. {_PART_WORDS} Default: none. {_ON_INSTALL}",
    )
    data: _Parts = Field(
        default={},
        description="What stays in one place, readable by all and writable by none: "
        "in the folder that servers find in GPUWORKSHOP_DATA, as `data` in their home "
        f"where nothing else has that name. {_PART_WORDS} Default: none. "
        f"{_ON_INSTALL}",
    )
    largest: Size = Field(
        default=50 * GIB,
        description="How large one part may be, fetched or unpacked. "
        f"{SIZE_WORDS} Default: 50GiB. {_ON_INSTALL}",
    )
    open_first: str | None = Field(
        default=None,
        description="What attendees see first after login, a path in their home: "
        "intro/start.ipynb, say. Default: JupyterLab as it is. Takes effect when the "
        "hub restarts, for servers that start from then on.",
    )
    archives: FilePath = Field(
        default=Path("/var/lib/gpuworkshop-work"),
        description="Where `gpuworkshop material collect` puts an archive of each "
        "attendee's work, and the GPU service finds what an attendee downloads. "
        f"{PATH_WORDS} Default: /var/lib/gpuworkshop-work. {ON_HUB}",
    )

    @field_validator("open_first")
    @classmethod
    def _is_below_home(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = value.split("/")
        if value.startswith("/") or ".." in parts or not value.isprintable():
            raise ValueError(
                f"{shown(value)} is not a path below an attendee's home. Write for "
                "example intro/start.ipynb."
            )
        return value
