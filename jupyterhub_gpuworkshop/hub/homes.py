"""Where each attendee's home is: kept by the hub, read by commands after the event.

Owns one small JSON file beside the roster. It says of everybody who ever had a server
through our spawners how their home is reached; servers need not run, nor the hub. What
is done in a home is others' to say.
"""

import json
import logging
import pwd
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import HostError

from .own_files import alone_with, replace_closed

_LOG = logging.getLogger(__name__)
_VERSION = 1

UNIX = "unix"
DOCKER = "docker"


def file_beside(roster: Path) -> Path:
    """Return the file of homes that belongs to a roster, for hub and commands alike."""
    return roster.with_name(f"{roster.stem}.homes.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """What outlives a container: a volume, or a folder of the engine's host.

    Attributes:
        kind: `volume` or `bind`.
        source: the volume's name, or the folder's path on the engine's host.
        target: where the container has it.
    """

    kind: str
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """How one attendee's home is reached.

    Attributes:
        kind: `UNIX`, a folder of this machine; or `DOCKER`, one in a container.
        user_since: when the hub made the user, seconds since 1970; 0.0 where that is
            not known. It tells one from a later one of the same name.
        path: of the home; in a container as the container sees it, and empty where
            it is the home folder of the container's user.
        uid: `UNIX` only: whose it is, and as whom to enter it.
        gid: and the group of that user.
        account: their Unix account; empty where they have none of their own, as with
            gpu-simple and systemd's dynamic users.
        image: `DOCKER` only: what the last container was made of.
        user: as whom it ran, as the engine has it; empty for the image's own.
        mounts: what to mount, to see the home again once the container is gone.
    """

    kind: str
    path: str
    user_since: float = 0.0
    uid: int = -1
    gid: int = -1
    account: str = ""
    image: str = ""
    user: str = ""
    mounts: tuple[Mount, ...] = ()


def read_homes(path: Path) -> dict[str, Home]:
    """Return the homes by the hub's user names; none where no file is.

    Raises:
        HostError: the file cannot be read; with what to do.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError(
            f"{path}: cannot be read: {error.strerror}. Run the command as the hub's "
            "user, on most hosts with sudo in front of it."
        ) from None
    except (ValueError, RecursionError):
        raise HostError(_damaged(path)) from None
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(version, int) and version > _VERSION:
        raise HostError(
            f"{path}: was written by a newer version of this package. Upgrade it here."
        )
    try:
        return {str(name): _home(kept) for name, kept in found["homes"].items()}
    except (TypeError, KeyError, AttributeError, ValueError):
        raise HostError(_damaged(path)) from None


def forget(path: Path, names: Collection[str]) -> int:
    """Take people out of the file; those who are not in it are fine.

    Returns:
        How many were in it.

    Raises:
        HostError: it cannot be read or written.
    """
    if not path.exists():
        return 0
    with _alone(path):
        before = read_homes(path)
        after = {name: home for name, home in before.items() if name not in names}
        if len(after) < len(before):
            _write(path, after)
    return len(before) - len(after)


class Homes:
    """The hub's side of the file: it writes down where servers' homes are.

    Its methods are quick, block, and may be called from any thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.Lock()
        self._problem = ""

    def record(self, name: str, home: Home) -> None:
        """Write down where somebody's home is; a trouble with the file is logged.

        A command may have changed the file, so that it is read each time.
        """
        with self._turn:
            try:
                if read_homes(self.path).get(name) == home:
                    return
                with _alone(self.path):
                    _write(self.path, read_homes(self.path) | {name: home})
            except HostError as error:
                if str(error) != self._problem:
                    _LOG.error(
                        "Work of %s is not found by `gpuworkshop material collect`: %s",
                        name,
                        error,
                    )
                self._problem = str(error)
            else:
                self._problem = ""


def _home(kept: Mapping[str, Any]) -> Home:
    known = {field.name for field in fields(Home)}
    values = {key: value for key, value in kept.items() if key in known}
    values["mounts"] = tuple(Mount(**mount) for mount in kept.get("mounts", ()))
    home = Home(**values)
    texts = (home.path, home.account, home.image, home.user)
    is_number = isinstance(home.user_since, (int, float))
    is_text = all(isinstance(x, str) for x in texts)
    if home.kind not in (UNIX, DOCKER) or not (is_text and is_number):
        raise TypeError(kept)
    if home.kind == UNIX and not (home.uid >= 0 and home.gid >= 0):
        raise ValueError(kept)
    return home


def home_of_account(account: str) -> Home:
    """Return the home of a Unix user of this machine.

    Raises:
        HostError: there is no such user.
    """
    try:
        user = pwd.getpwnam(account)
    except KeyError:
        raise HostError(f"There is no Unix user {account!r}.") from None
    return Home(
        kind=UNIX,
        path=user.pw_dir,
        uid=user.pw_uid,
        gid=user.pw_gid,
        account=user.pw_name,
    )


def _short(home: Home) -> dict[str, Any]:
    """Return a home for the file; what says nothing of it is left out."""
    unsaid = {field.name: field.default for field in fields(Home)}
    return {key: x for key, x in asdict(home).items() if x != unsaid[key]}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other changes of this file out; say what cannot be written, and why."""
    with ExitStack() as held:
        try:
            held.enter_context(alone_with(path))
        except OSError as error:
            raise HostError(_unwritable(path, error)) from None
        yield


def _write(path: Path, homes: Mapping[str, Home]) -> None:
    """Put the whole of it in place, or leave what was there."""
    kept = {name: _short(homes[name]) for name in sorted(homes)}
    lines = ",".join(
        f"\n  {json.dumps(name)}: {json.dumps(home)}" for name, home in kept.items()
    )
    data = f'{{"version": {_VERSION}, "homes": {{{lines}\n}}}}\n'.encode()
    try:
        replace_closed(path, data)
    except OSError as error:
        raise HostError(_unwritable(path, error)) from None


def _damaged(path: Path) -> str:
    return (
        f"{path}: is damaged. Move it away: the hub writes down anew who has a server "
        "from then on."
    )


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"{path}: cannot be written: {error.strerror}. What was there is as it was. "
        "Make room, or run the command as who owns the folder."
    )
