"""What may be announced to everybody."""

import pytest

from jupyterhub_gpuworkshop.core.announcements import (
    LONGEST_TEXT,
    MOST_LINES,
    Announcement,
    text_mistake,
    tidy_text,
)


@pytest.mark.parametrize(
    "text",
    [
        "Doors open at 10.",
        "Lunch\nin the garden",
        "<b>a</b> & b",
        "Ünïcödé 🎉 👩\u200d🔬",
        "مرحبا",
        "x" * LONGEST_TEXT,
        "\n".join("abcdefghijklmnopqrstuvwxyz"[:MOST_LINES]),
    ],
)
def test_what_people_write_is_announced_as_it_is(text):
    assert tidy_text(text) == text
    assert text_mistake(text) == ""


def test_blanks_around_it_and_the_line_ends_of_windows_go():
    assert tidy_text(" \r\n Lunch \r\n\tnow \n\n") == "Lunch\nnow"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (tidy_text(" \n\t"), "empty"),
        ("x" * (LONGEST_TEXT + 1), "501 characters"),
        ("\n".join(["x"] * (MOST_LINES + 1)), "too many lines"),
        ("bell \x07", "U+0007"),
        ("\x1b[31mred", "U+001B"),
        ("nothing\x00", "U+0000"),
        ("one\rline", "U+000D"),
        ("half a \ud83d", "U+D83D"),
        ("backwards \u202etxt", "U+202E"),
        ("two\u2028lines", "U+2028"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_a_sentence(text, why):
    assert why in text_mistake(text)


def test_it_stands_until_its_time_is_over():
    made = Announcement(text="Lunch", at=100.0, until=160.0, by="olga")
    assert [made.stands_at(now) for now in (100.0, 159.9, 160.0)] == [True, True, False]
    forever = Announcement(text="Lunch", at=100.0, until=None, by="olga")
    assert forever.stands_at(1e12)
