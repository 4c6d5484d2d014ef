"""Finds a hub's configuration, and has a child read it."""

import importlib.util
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from .commands import run_module
from .hub_facts import HUB_FACTS, HubFacts

_SECONDS = 60.0
_DEMO = "Written by `gpuworkshop demo`"
_HELPFUL_BYTES = 300


def read_hub(given: Path | None) -> HubFacts:
    """Read the configuration that was given, or the one that is found.

    Args:
        given: the file; None to look where they usually are.
    """
    file = given or next(_usual_places(), None)
    if file is None:
        return HubFacts()
    why = _why_not(file, is_given=given is not None)
    if why is not None:
        return why
    done = run_module(
        "jupyterhub_gpuworkshop.tools.doctor.reading.hub_child",
        str(file.absolute()),
        seconds=_SECONDS,
    )
    if done.problem:
        said = f"it did not load within {_SECONDS:.0f} s" if done.hung else done.problem
        return HubFacts(file=str(file), problem=said)
    try:
        facts = HUB_FACTS.validate_json(done.out)
    except ValidationError:
        said = done.err.strip()[-_HELPFUL_BYTES:] or "it ended without a word"
        return HubFacts(file=str(file), problem=said)
    if facts.problem and "PermissionError" in facts.problem and os.geteuid() != 0:
        return HubFacts(file=str(file), problem=facts.problem, needs_root=True)
    return facts


def _usual_places() -> Iterator[Path]:
    for place in (
        Path("jupyterhub_config.py"),
        Path("/etc/jupyterhub/jupyterhub_config.py"),
        Path("/srv/jupyterhub/jupyterhub_config.py"),
    ):
        try:
            if place.is_file():
                yield place
        except OSError:
            continue
    spec = importlib.util.find_spec("tljh")
    if spec is not None and spec.origin:
        yield Path(spec.origin).with_name("jupyterhub_config.py")


def _why_not(file: Path, *, is_given: bool) -> HubFacts | None:
    """Return why a file is not to be run, or None where it may be."""
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return HubFacts(file=str(file), problem="there is no such file")
    except OSError as error:
        return HubFacts(
            file=str(file),
            problem=f"it cannot be read: {error.strerror}",
            needs_root=isinstance(error, PermissionError) and os.geteuid() != 0,
        )
    if _DEMO in text[:_HELPFUL_BYTES]:
        return HubFacts(file=str(file), problem="it is a demo's, which ends with it")
    # Loading it runs it: what was only found must not be somebody else's.
    if not is_given and not all(map(_is_ours, _way_to(file))):
        return HubFacts(
            file=str(file),
            problem="it or a folder on its way belongs to somebody else, or others "
            "may write it, and to read it is to run it; if you trust it: "
            f"--hub-config {file}",
        )
    return None


def _way_to(file: Path) -> set[Path]:
    """Return all that decides what is read: folders, links, and where they lead."""
    # Not resolve() alone: whoever can write a link's folder can set another link.
    ends = file.absolute(), file.resolve()
    return {part for end in ends for part in (end, *end.parents)}


def _is_ours(part: Path) -> bool:
    """Tell whether nobody but root and this user can put something else there."""
    try:
        seen = part.lstat()
    except OSError:
        return False
    if seen.st_uid not in (0, os.geteuid()):
        return False
    if stat.S_ISLNK(seen.st_mode):
        return True
    # In a sticky folder, such as /tmp, others may add, and replace nothing.
    if stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX:
        return True
    others = stat.S_IWOTH
    if seen.st_gid not in (0, os.getegid()):  # often a group of one's own
        others |= stat.S_IWGRP
    return not seen.st_mode & others
