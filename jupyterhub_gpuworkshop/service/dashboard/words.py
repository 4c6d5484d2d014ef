"""The words of the pages, in English.

Owns nothing but their reading: every word that stands on a page of ours is in
`words_en.json`, by page and name. Templates read them here, and a page's script reads
those of its page out of the page. What happened and why, the service says itself.
"""

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "words_en.json"
_WORDS: dict[str, dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))


def words_of(*parts: str) -> dict[str, Any]:
    """Return the words of some parts, as `PART.NAME`."""
    return {
        f"{part}.{name}": text for part in parts for name, text in _WORDS[part].items()
    }


_ALL = words_of(*_WORDS)


def say(name: str, /, **values: object) -> str:
    """Return a text with its values in place.

    Args:
        name: `PART.NAME`; a text may have a form for one and one for all other numbers.
        values: what stands in its braces; `count` chooses the form.

    Raises:
        KeyError: there is no such text, or no such value.
    """
    text = _ALL[name]
    if isinstance(text, dict):
        text = text["one" if values["count"] == 1 else "other"]
    return str(text.format(**values))


def say_or(name: str, otherwise: str) -> str:
    """Return a text without values, or something else where there is none."""
    return str(_ALL.get(name, otherwise))
