"""What is handed out: cards to print and a list to mail, with the codes in them.

Owns the files. Nothing else ever knows the codes, so they are written before the roster
is, and taken away again when that fails.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import RosterError

from .cards import Card, Paper, cards_page, merge_csv


@dataclass(frozen=True, slots=True, kw_only=True)
class Handout:
    """What to write, and where.

    Attributes:
        address: the hub's, as attendees type it.
        cards: the page to print.
        merge: a CSV for a mail merge; None for none.
        title: of each card.
        paper: what is printed on.
    """

    address: str
    cards: Path = Path("cards.html")
    merge: Path | None = None
    title: str = "GPU workshop"
    paper: Paper = Paper.A4

    def numbered(self, number: int, address: str) -> "Handout":
        """Return the same for one of several servers."""
        return Handout(
            address=address,
            cards=_numbered(self.cards, number),
            merge=None if self.merge is None else _numbered(self.merge, number),
            title=self.title,
            paper=self.paper,
        )

    def write(self, cards: Sequence[Card]) -> tuple[Path, ...]:
        """Write the files, readable by their owner alone; return which.

        A file of that name is never overwritten: the next number is taken.

        Raises:
            RosterError: they cannot be written; none of them is left.
        """
        page = cards_page(
            cards, address=self.address, title=self.title, paper=self.paper
        )
        texts = [(self.cards, page)]
        if self.merge is not None:
            texts.append((self.merge, merge_csv(cards, address=self.address)))
        return write_closed(texts, "--cards")


def write_closed(texts: Sequence[tuple[Path, str]], option: str) -> tuple[Path, ...]:
    """Write new files, readable by their owner alone; return which.

    A file of that name is never overwritten: the next number is taken.

    Args:
        texts: what to write, behind where.
        option: of the command, which names another place.

    Raises:
        RosterError: they cannot be written; none of them is left.
    """
    written: list[Path] = []
    try:
        for path, text in texts:
            made, handle = _new(path)
            written.append(made)
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        take_away(written)
        raise RosterError(
            f"{path}: cannot be written: {error.strerror}. Nothing was changed. "
            f"Make room, or name another place with {option}."
        ) from None
    return tuple(written)


def take_away(paths: Sequence[Path]) -> None:
    """Remove files whose codes are good for nothing."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _new(path: Path) -> tuple[Path, int]:
    number = 1
    candidate = path
    while True:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            return candidate, os.open(candidate, flags, 0o600)
        except FileExistsError:
            number += 1
            candidate = _numbered(path, number)
