"""A storm of spawns on a real hub, with the plugin and without.

Each turn is a hub of its own, warmed up with one server. The bare hub runs JupyterHub's
SimpleLocalProcessSpawner; `spawner` puts gpu-simple in its place and nothing else;
`everything` is what `configure(c, workshop)` makes of it, the GPU service included.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jupyterhub

from tests.hub.running_hub import HERE, ROOT, RunningHub, free_port, wait_for

from . import machine
from .report import Row

_AIM = 1.03
_AFTER_SECONDS = 3.0
"""What the hub does for a server that is up, it does with its next report to
the service, two seconds later at most: it makes the server's token then."""

SIDES = ("bare", "spawner", "everything")

_CONFIG = """
import sys
sys.path.insert(0, {root!r})
from tests.hub.null_proxy import NullProxy

c = get_config()
c.JupyterHub.proxy_class = NullProxy
c.JupyterHub.bind_url = "http://127.0.0.1:{public_port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.db_url = "sqlite:///{folder}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.ConfigurableHTTPProxy.auth_token = "not used"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.allow_all = True
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{
    "name": "test",
    "services": ["test"],
    "scopes": ["admin:users", "admin:servers", "read:hub"],
}}]
c.Spawner.cmd = {command!r}
c.Spawner.environment = {environment!r}
c.Spawner.http_timeout = 300
c.Spawner.start_timeout = 300
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
{plugin}
"""

_PLUGIN = {
    "bare": 'c.JupyterHub.spawner_class = "simple"',
    "spawner": """
c.JupyterHub.spawner_class = "gpu-simple"
c.GpuRuntime.workshop = {workshop!r}
""",
    "everything": """
c.JupyterHub.spawner_class = "gpu-simple"
from jupyterhub_gpuworkshop.hub.setup import configure
configure(c, {workshop!r})
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one storm took.

    Attributes:
        wall_seconds: from the first request until the last server was up.
        cpu_seconds: user and system time of the hub's process, and three seconds on.
    """

    wall_seconds: float
    cpu_seconds: float


class StormHub(RunningHub):
    """A hub for one turn.

    Args:
        folder: its own.
        side: one of `SIDES`.
        command: of the servers.
        environment: of the servers, beside JupyterHub's own.
        spawns: how many there will be.
        more: further lines of configuration.
    """

    def __init__(
        self,
        folder: Path,
        side: str,
        command: Sequence[str],
        environment: dict[str, str],
        spawns: int,
        more: str = "",
    ) -> None:
        super().__init__(
            folder,
            gpus=4,
            workshop={"gpus": {"attendees_per_gpu": spawns // 4 + 2}},
            service=True,
        )
        (folder / "jupyterhub_config.py").write_text(
            _CONFIG.format(
                root=str(ROOT),
                folder=folder,
                port=self.port,
                public_port=free_port(),
                token=self.token,
                command=list(command),
                environment=environment,
                plugin=_PLUGIN[side].format(workshop=str(self.workshop_file)) + more,
            )
        )

    def started(self) -> int:
        """Count the servers that came up; reading its log costs the hub nothing."""
        return self.log.count(" seconds to start\n")

    def storm(self, spawns: int) -> Cost:
        """Warm up, wait for a quiet machine, and start so many servers at once."""
        names = [f"attendee{number:03d}" for number in range(spawns)]
        self.add_users("early", *names)
        self.spawn("early")
        self.stop_server("early")
        wait_for(lambda: self.started() == 1, why="the log has another form")
        machine.wait_until_quiet()
        assert self.process is not None
        begun = machine.cpu_seconds(self.process.pid)
        with ThreadPoolExecutor(spawns) as pool:
            wall = machine.Stopwatch()
            answers = [
                pool.submit(self.api, "POST", f"users/{name}/server") for name in names
            ]
            wait_for(
                lambda: self.started() == spawns + 1,
                seconds=300,
                why=f"{self.started() - 1} of {spawns} servers came up",
            )
            wall_seconds = wall.seconds
            wall.sleep_until(wall_seconds + _AFTER_SECONDS)
            cpu_seconds = machine.cpu_seconds(self.process.pid) - begun
        refused = [a.result() for a in answers if a.result().status_code >= 300]
        if refused:
            raise AssertionError(refused[0].text)
        return Cost(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds)

    def close(self) -> None:
        """End the hub and its servers, and wait until they are gone."""
        super().close()
        wait_for(lambda: not self.servers_alive(), why="a server does not end")


def lab_command() -> list[str]:
    """Return the command of a real JupyterLab server of this installation."""
    script = Path(sys.executable).with_name("jupyterhub-singleuser")
    return [str(script), *(["--allow-root"] if os.geteuid() == 0 else [])]


def stub_command() -> list[str]:
    """Return the command of a server that answers and does nothing else."""
    return [sys.executable, "-S", "-E", str(HERE / "stub_server.py")]


def turn(
    folder: Path, side: str, command: Sequence[str], spawns: int, more: str = ""
) -> Cost:
    """Run one storm on a hub of its own, in a folder of its own."""
    environment = {"STUB_HUB_VERSION": jupyterhub.__version__}
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{side}-") as own:
        hub = StormHub(Path(own), side, command, environment, spawns, more)
        try:
            hub.start()
            return hub.storm(spawns)
        finally:
            hub.close()


def run(
    folder: Path, *, turns: int = 6, servers: int = 20, stubs: int = 100
) -> Iterator[Row]:
    """Compare.

    Args:
        folder: where the hubs live.
        turns: storms on each side, of each kind of server; six are the fewest for an
            interval of 95 %.
        servers: JupyterLab servers in a storm; 0 leaves them out.
        stubs: servers in a storm that do nothing but answer, so that the hub's own
            work is not drowned by theirs; 0 leaves them out.
    """
    if stubs:
        yield from _compare(folder, turns, "stub", stub_command(), stubs)
    if servers:
        yield from _compare(folder, turns, "JupyterLab", lab_command(), servers)


def _compare(
    folder: Path, turns: int, kind: str, command: list[str], spawns: int
) -> Iterator[Row]:
    costs: dict[str, list[Cost]] = {side: [] for side in SIDES}
    for number in range(turns):
        # Each round begins with another side, so that drift favours none.
        shift = number % len(SIDES)
        for side in SIDES[shift:] + SIDES[:shift]:
            cost = turn(folder, side, command, spawns)
            costs[side].append(cost)
            print(
                f"  storm {number + 1} of {turns}, {spawns} {kind}, {side}: "
                f"{cost.wall_seconds:.2f} s, hub CPU {cost.cpu_seconds:.3f} s; "
                f"{machine.load()}",
                file=sys.stderr,
                flush=True,
            )
    bare = costs["bare"]
    for side in SIDES[1:]:
        what = f"{spawns} {kind} servers, {side} / bare"
        wall = tuple(x.wall_seconds for x in costs[side])
        cpu = tuple(x.cpu_seconds for x in costs[side])
        bare_cpu = tuple(x.cpu_seconds for x in bare)
        yield Row(
            what=f"{what}: wall time until all are up",
            ours=wall,
            bare=tuple(x.wall_seconds for x in bare),
            aim=_AIM,
        )
        yield Row(what=f"{what}: the hub's CPU", ours=cpu, bare=bare_cpu)
        yield Row(
            what=f"{what}: CPU added to the hub for each spawn",
            ours=cpu,
            bare=bare_cpu,
            added_per=spawns,
        )
