"""Who is connected to a server, by what Linux says of its sockets.

Owns reading /proc/PID/net/tcp. An open JupyterLab keeps a websocket for events, even
where no notebook is open in it and nobody looks, so a browser is an established
connection. The converse does not hold: a proxy may keep a connection for a while after
its browser has gone, and a script may open one.
"""

import os
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

_ESTABLISHED, _LISTENS = "01", "0A"

_Address = IPv4Address | IPv6Address
_Endpoint = tuple[_Address, int]


class _Socket(NamedTuple):
    """One line of /proc/PID/net/tcp."""

    state: str
    local: _Endpoint
    remote: _Endpoint
    inode: int


class _Network(NamedTuple):
    """The sockets of one network."""

    listening: frozenset[int]
    established: tuple[_Socket, ...]


class Connections:
    """One look at who is connected to servers; each network is read once.

    Look anew for the next question: it goes out of date at once. It reads files, so
    look in a thread.

    Args:
        proc: where Linux says it.

    Raises:
        OSError: nothing can be read.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._networks: dict[int, _Network] = {}
        self._here = _network_of(proc / "self")
        mine = _inodes(proc / "self")
        here = self._read(proc / "self", self._here)
        self._ours = {s.local for s in here.established if s.inode in mine}

    def count(self, pid: int, port: int) -> int | None:
        """Count the connections that others than this process have to a server.

        In a network of its own, as containers have, the server may listen on another
        port than the one it is called at: there whatever comes from outside counts.

        Args:
            pid: a process of the server; its network is looked at.
            port: where the server is called.

        Returns:
            None where it cannot be told: the process has ended, in the network that
            we share with it nobody listens on that port, or in its own on none.
        """
        try:
            name = _network_of(self._proc / str(pid))
            network = self._read(self._proc / str(pid), name)
        except (OSError, ValueError, IndexError):
            return None
        apart = name != self._here
        if not (network.listening if apart else port in network.listening):
            return None
        return sum(
            s.local[1] in network.listening
            and s.remote not in self._ours
            and (s.local[1] == port or (apart and not s.remote[0].is_loopback))
            for s in network.established
        )

    def _read(self, process: Path, name: int) -> _Network:
        """Read the network of a process, which has this number."""
        if name not in self._networks:
            sockets = list(_read_sockets(process))
            self._networks[name] = _Network(
                listening=frozenset(s.local[1] for s in sockets if s.state == _LISTENS),
                established=tuple(s for s in sockets if s.state == _ESTABLISHED),
            )
        return self._networks[name]


def _network_of(process: Path) -> int:
    """Return what tells one network from another: each has files of its own in /proc.

    The link ns/net says it too, but of another user's process only with CAP_SYS_PTRACE.
    """
    return (process / "net/tcp").stat().st_ino


def _inodes(process: Path) -> set[int]:
    """Return the inodes of a process's sockets."""
    found = set()
    with os.scandir(process / "fd") as entries:
        for entry in entries:
            try:
                target = str(Path(entry.path).readlink())
            except OSError:
                continue  # closed meanwhile
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def _read_sockets(process: Path) -> Iterator[_Socket]:
    for name in ("tcp", "tcp6"):
        path = process / "net" / name
        if name == "tcp6" and not path.exists():
            continue  # a Linux without IPv6
        for line in path.read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] not in (_ESTABLISHED, _LISTENS):
                continue
            yield _Socket(
                state=fields[3],
                local=_endpoint(fields[1]),
                remote=_endpoint(fields[2]),
                inode=int(fields[9]),
            )


def _endpoint(text: str) -> _Endpoint:
    """Read an address as Linux writes it: 32 bits at a time, in the host's order."""
    address, _, port = text.partition(":")
    words = [address[i : i + 8] for i in range(0, len(address), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return _as_address(packed), int(port, 16)


def _as_address(packed: bytes) -> _Address:
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address
