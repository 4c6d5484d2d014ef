"""Counting who is connected to a server, with real sockets and with written ones."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.machine.connections import Connections
from tests.conftest import require_engine

PROGRAM = """
import socket, sys
held = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
sys.stdin.read()
"""
HERE, CONTAINER = "net:[1]", "net:[2]"
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
LO, OUTSIDE, PROXY = "0100007F", "0A0011AC", "010011AC"


@contextmanager
def a_browser(port: int) -> Iterator[None]:
    """Be connected from a process of its own."""
    child = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    yield
    child.stdin.close()
    child.wait()
    child.stdout.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param(
            "::",
            marks=pytest.mark.skipif(
                not socket.has_dualstack_ipv6(), reason="this Linux has no IPv6"
            ),
        ),
    ],
)
def test_a_browser_counts_while_it_is_connected_and_this_process_never_does(host):
    both = ":" in host
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=both) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost", port)):
            assert Connections().count(os.getpid(), port) == 0
            with a_browser(port):
                assert Connections().count(os.getpid(), port) == 1
        assert Connections().count(os.getpid(), port) == 0


@pytest.mark.root
def test_a_server_is_counted_by_who_may_not_trace_it():
    require_engine("root", os.geteuid() == 0, "run as root")
    without = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = (
            "from jupyterhub_gpuworkshop.machine.connections import Connections; "
            f"print(Connections().count({os.getpid()}, {port}))"
        )
        with a_browser(port):
            said = subprocess.run(  # noqa: S603  this very Python
                ["setpriv", *without, sys.executable, "-c", script],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
            )
    assert said.stdout == "1\n"


def test_where_nobody_listens_and_of_a_process_that_has_ended_nothing_is_known():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert Connections().count(2**22 + 1, port) is None
    assert Connections().count(os.getpid(), port) is None


def process(folder: Path, network: str, *sockets: str) -> None:
    """Write what Linux would say of a process: `LOCAL REMOTE STATE INODE` each."""
    (folder / "net").mkdir(parents=True)
    (folder / "fd").mkdir()
    # The processes of one network have the same file.
    file = folder.parent / f"{network} tcp"
    lines = []
    for number, text in enumerate(sockets):
        local, remote, state, inode = text.split()
        rest = f"00000000:00000000 00:00000000 00000000 0 0 {inode} 1 0 100 0 0 10 0"
        lines.append(f"   {number}: {local} {remote} {state} {rest}\n")
    file.write_text(HEADER + "".join(lines))
    (folder / "net/tcp").hardlink_to(file)


def test_into_a_container_whatever_comes_from_outside_counts(tmp_path):
    listens = "00000000:22B8 00000000:0000 0A 10"  # port 8888
    kernel = f"{LO}:9C40 00000000:0000 0A 11"
    inside = f"{LO}:9C40 {LO}:B000 01 12"
    outgoing = f"{OUTSIDE}:B001 {PROXY}:1F90 01 13"
    process(tmp_path / "self", HERE)
    process(tmp_path / "7", CONTAINER, listens, kernel, inside, outgoing)
    # Called at 32768, which Docker hands on to 8888 in the container.
    assert Connections(tmp_path).count(7, 32768) == 0
    browser = f"{OUTSIDE}:22B8 {PROXY}:C000 01 14"
    closing = f"{OUTSIDE}:22B8 {PROXY}:C001 08 15"
    process(tmp_path / "8", "net:[3]", listens, kernel, inside, browser, closing)
    assert Connections(tmp_path).count(8, 32768) == 1
    assert Connections(tmp_path).count(8, 8888) == 1
    # A proxy in the container itself.
    near = f"{LO}:22B8 {LO}:C002 01 16"
    process(tmp_path / "9", "net:[4]", listens, near)
    assert Connections(tmp_path).count(9, 8888) == 1
    # No server is there: it is not this process's network that it listens in.
    process(tmp_path / "10", "net:[5]", outgoing)
    assert Connections(tmp_path).count(10, 8888) is None


def test_in_a_network_that_is_shared_only_the_servers_own_port_counts(tmp_path):
    listens = "00000000:22B8 00000000:0000 0A 10"
    another = "00000000:22B9 00000000:0000 0A 11"
    to_another = f"{OUTSIDE}:22B9 {PROXY}:C000 01 12"
    ours = [
        f"{OUTSIDE}:22B8 {OUTSIDE}:C001 01 13",
        f"{OUTSIDE}:C001 {OUTSIDE}:22B8 01 14",
    ]
    sockets = [listens, another, to_another, *ours]
    process(tmp_path / "self", HERE, *sockets)
    (tmp_path / "self/fd/5").symlink_to("socket:[14]")
    process(tmp_path / "7", HERE, *sockets)
    looked = Connections(tmp_path)
    assert (looked.count(7, 8888), looked.count(7, 8889)) == (0, 1)
    assert looked.count(7, 9999) is None


def test_what_cannot_be_read_is_unknown(tmp_path):
    process(tmp_path / "self", HERE)
    process(tmp_path / "7", CONTAINER, "nonsense 0:0 01 1")
    assert Connections(tmp_path).count(7, 8888) is None
