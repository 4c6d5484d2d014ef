"""The keys of `doors`, `material` and `roster`: what they are read as, and mistakes."""

from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.workshop import Workshop

HOUR = 3600.0


def load(**sections):
    return Workshop.load(sections)


def hours_of(*lines, timezone="Europe/Berlin"):
    doors = load(doors={"timezone": timezone, "hours": list(lines)}).doors
    return [(h.opens_at, h.closes_at) for h in doors.doors().hours]


def test_hours_are_instants_of_their_own_time_zone():
    (winter,) = hours_of("2026-11-30 09:00 to 17:00")
    assert winter == (1796025600.0, 1796025600.0 + 8 * HOUR)
    (at_utc,) = hours_of("2026-11-30 09:00 to 17:00", timezone="UTC")
    assert at_utc[0] - winter[0] == HOUR


def test_one_opening_needs_no_list():
    doors = load(doors={"timezone": "UTC", "hours": "1970-01-01 00:00 to 01:00"}).doors
    assert doors.doors().hours[0].closes_at == HOUR


def test_a_night_and_the_end_of_summer_time_have_their_real_length():
    (night,) = hours_of("2026-10-24 20:00 to 2026-10-25 08:00")
    assert night[1] - night[0] == 13 * HOUR


def test_days_are_said_as_people_say_them():
    doors = load(
        doors={"timezone": "America/New_York", "hours": "2026-12-01 09:05 to 12:00"}
    ).doors
    said = doors.in_words(doors.doors().hours[0].opens_at)
    assert said == "Tuesday 1 December at 09:05 (America/New_York)"


def test_of_what_comes_later_on_the_same_day_the_time_is_enough():
    doors = load(doors={"timezone": "Asia/Tokyo", "hours": "2026-12-01 09:00 to 23:50"})
    (hours,) = doors.doors.doors().hours
    said = doors.doors.then_in_words
    assert said(hours.closes_at + 300, after=hours.closes_at) == "at 23:55"
    next_day = said(hours.closes_at + 900, after=hours.closes_at)
    assert next_day == "on Wednesday 2 December at 00:05 (Asia/Tokyo)"


def test_openings_may_be_written_in_any_order():
    days = ["2026-11-30 09:00 to 17:00", "2026-11-27 14:00 to 18:00"]
    doors = load(doors={"timezone": "UTC", "hours": days}).doors
    assert doors.hours == ("2026-11-27 14:00 to 18:00", "2026-11-30 09:00 to 17:00")
    first, second = doors.doors().hours
    assert first.closes_at < second.opens_at
    with pytest.raises(WorkshopFileError, match="overlap"):
        load(doors={"timezone": "UTC", "hours": [*days, days[1]]})


@pytest.mark.parametrize(
    ("doors", "told"),
    [
        ({"hours": ["2026-11-30 09:00 to 17:00"]}, "no doors.timezone says whose"),
        ({"timezone": "Berlin"}, "'Berlin' is no time zone of the tz database"),
        ({"timezone": "../../etc/passwd"}, "is no time zone of the tz database"),
        ({"timezone": "UTC", "hours": ["9 to 5"]}, "'9 to 5' says no opening hours"),
        ({"timezone": "UTC", "hours": ["2026-02-30 09:00 to 17:00"]}, "the calendar"),
        ({"timezone": "UTC", "hours": ["2026-11-30 09:00 to 24:00"]}, "the calendar"),
        (
            {"timezone": "UTC", "hours": ["2026-11-30 20:00 to 02:00"]},
            "closes before it opens. Write the second day too",
        ),
        (
            {"timezone": "Europe/Berlin", "hours": ["2026-03-29 02:30 to 09:00"]},
            "2026-03-29 02:30 is no time in Europe/Berlin",
        ),
        (
            {
                "timezone": "UTC",
                "hours": ["2026-11-30 09:00 to 12:00", "2026-11-30 11:00 to 13:00"],
            },
            "'2026-11-30 09:00 to 12:00' and '2026-11-30 11:00 to 13:00' overlap",
        ),
        ({"timezone": "UTC", "grace": "2 d"}, "too long"),
        ({"timezone": "UTC", "hours": [900]}, "is not text"),
    ],
)
def test_mistakes_in_hours_say_what_to_write(doors, told):
    with pytest.raises(WorkshopFileError, match="doors") as raised:
        load(doors=doors)
    assert told in str(raised.value)


def test_material_is_found_from_the_workshop_file_on(tmp_path: Path):
    path = tmp_path / "workshop.yaml"
    path.write_text(
        "material:\n"
        "  notebooks:\n"
        "    intro: notebooks/intro\n"
        "    far: https://example.org/far.tar.gz\n"
        "    git: git@example.org:group/repo.git\n"
        "    pinned: {from: /srv/repo.git, revision: v1.2}\n"
        "  data: {}\n"
    )
    material = Workshop.load(path).material
    assert {name: part.source for name, part in material.notebooks.items()} == {
        "intro": str(tmp_path / "notebooks/intro"),
        "far": "https://example.org/far.tar.gz",
        "git": "git@example.org:group/repo.git",
        "pinned": "/srv/repo.git",
    }
    assert material.notebooks["pinned"].revision == "v1.2"


@pytest.mark.parametrize(
    ("material", "told"),
    [
        ({"notebooks": {"../x": "a"}}, "cannot be the name of a folder"),
        ({"data": {".hidden": "a"}}, "cannot be the name of a folder"),
        ({"data": {"x": {"sha256": "a" * 64}}}, "this key is missing"),
        ({"data": {"x": {"from": "a", "sha256": "abc"}}}, "what `sha256sum FILE` pr"),
        ({"data": {"x": {"from": "a", "revision": "--upload-pack=x"}}}, "no branch"),
        ({"data": {"x": {"from": "a", "revision": "-x"}}}, "no branch"),
        ({"data": {"x": ""}}, "x.from"),
        ({"open_first": "/etc/passwd"}, "not a path below an attendee's home"),
        ({"open_first": "a/../../b"}, "not a path below an attendee's home"),
        ({"notebooks": ["a"]}, "Write one line `name: value` for each"),
    ],
)
def test_mistakes_in_material_say_what_to_write(material, told):
    with pytest.raises(WorkshopFileError, match="material") as raised:
        load(material=material)
    assert told in str(raised.value)


def test_what_is_given_as_keys_is_written_as_it_is_read():
    workshop = load(
        doors={"timezone": "UTC", "hours": ["2026-11-30 09:00 to 17:00"]},
        material={"data": {"x": {"from": "https://example.org/x", "revision": "v1"}}},
        roster={"seats": 40},
    )
    assert Workshop.load(workshop.model_dump(mode="json")) == workshop
