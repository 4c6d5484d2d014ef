"""What the roster's commands tell: list, check, unlock.

Owns their words. They change nothing of the roster.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import joining_name
from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts, file_beside
from jupyterhub_gpuworkshop.hub.roster_file import read_roster

_COLUMNS = ("name", "full_name", "email", "group", "share")


def entries(path: Path) -> list[dict[str, Any]]:
    """Return whom a roster has, organisers first.

    Raises:
        RosterError: there is no roster that can be read.
    """
    roster = read_roster(path)
    found: list[dict[str, Any]] = [
        {"name": one.name, "organiser": True, "joined": False}
        for one in roster.organisers
    ]
    for one in roster.attendees:
        told = {key: getattr(one, key) for key in _COLUMNS[:-1]}
        share = "" if one.share is None else str(one.share)
        found.append({**told, "share": share, "organiser": False, "joined": one.joined})
    return found


def room_in_words(path: Path) -> str:
    """Return how full the room is; empty where none is open.

    Raises:
        RosterError: there is no roster that can be read.
    """
    roster = read_roster(path)
    if roster.room is None:
        return ""
    full = ", so it is full" if roster.is_full else ""
    return f"The room is open: {roster.joined} of {roster.room.at_most} joined{full}."


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return them as a table of text."""
    rows = [tuple(key.replace("_", " ") for key in _COLUMNS)]
    for entry in found:
        texts = [str(entry.get(key, "")) for key in _COLUMNS]
        if entry["organiser"]:
            texts[1] = "(organiser)"
        elif entry["joined"]:
            texts[1] = "(joined)"
        rows.append(tuple(texts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) for text, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def checked(path: Path) -> str:
    """Return what is good about a roster.

    Raises:
        RosterError: the hub could not use it; with what to do.
    """
    roster = read_roster(path)
    told = (
        f"{path}: {len(roster.attendees)} attendees and {len(roster.organisers)} "
        "organisers; the hub can use it."
    )
    if room := room_in_words(path):
        told += f" {room}"
    found = path.stat()
    if found.st_uid != path.parent.stat().st_uid:
        told += (
            f" But its owner is not the folder's, who is likely to run the hub: "
            f"`chown --reference={path.parent} {path}` would mend that."
        )
    mode = found.st_mode & 0o777
    if mode & 0o077:
        told += (
            f" But others on this host may read it (mode {mode:o}): "
            f"run `chmod 600 {path}`."
        )
    return told


def unlocked(path: Path, names: Sequence[str] | None) -> str:
    """Let in who is locked out, everybody without names; return what was done.

    Raises:
        RosterError: it cannot be done here.
    """
    lock_outs = LockOuts(file_beside(path.absolute()))
    keys = [None] if names is None else [name.strip().lower() for name in names]
    count = sum(lock_outs.unlock(key) for key in keys)
    count += sum(lock_outs.unlock(joining_name(key)) for key in keys if key is not None)
    problem = lock_outs.problem
    lock_outs.close()
    if problem:
        raise RosterError(f"Nobody was unlocked. {problem}")
    if count == 0:
        return "None of them had to wait; wrong codes are forgotten all the same."
    return f"Let in again: {count} {'wait' if count == 1 else 'waits'} ended."
