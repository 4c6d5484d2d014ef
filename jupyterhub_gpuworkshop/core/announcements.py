"""What an organiser announces to everybody.

Owns what may be announced, and until when it stands. That it is shown is the hub's.
"""

import unicodedata
from dataclasses import dataclass

LONGEST_TEXT = 500
MOST_LINES = 10
"""More would push the page that it stands on out of sight."""

_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS_TEXT_ROUND = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One that was made.

    Attributes:
        text: of one or more lines, as `tidy_text` has it; no HTML.
        at: when it was made, in wall-clock seconds since the epoch.
        until: when it ends by itself; None for not before it is taken down.
        by: who made it.
    """

    text: str
    at: float
    until: float | None
    by: str

    def stands_at(self, now: float) -> bool:
        """Whether it is to be shown at this moment."""
        return self.until is None or now < self.until


def tidy_text(text: str) -> str:
    """Return a text as it is announced: without blanks at its ends."""
    lines = text.replace("\r\n", "\n").replace("\t", " ").split("\n")
    return "\n".join(line.strip() for line in lines).strip()


def text_mistake(text: str) -> str:
    """Return why a tidy text cannot be announced, in a sentence; empty if it can."""
    if not text:
        return "There is nothing to announce: the text is empty."
    if len(text) > LONGEST_TEXT:
        return (
            f"The text has {len(text)} characters: an announcement has {LONGEST_TEXT} "
            "at most."
        )
    if text.count("\n") >= MOST_LINES:
        return f"The text has too many lines: {MOST_LINES} are the most."
    return unshowable(text.replace("\n", ""))


def unshowable(line: str) -> str:
    """Return why a line cannot be shown, in a sentence; empty if it can."""
    for character in line:
        if (
            unicodedata.category(character) in _NO_TEXT
            or character in _TURNS_TEXT_ROUND
        ):
            return (
                f"The text has a character that cannot be shown (U+{ord(character):04X}"
                "): leave it out."
            )
    return ""
