"""The GPU service: one process beside the hub, the only one that samples GPUs.

Owns how the process starts, listens and ends. It binds before any GPU is looked at,
for a hub would exit over a service that does not answer; it serves without GPUs; and
it ends promptly, also where the driver hangs (facts/jupyterhub.md 32, 33).
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tornado.httpserver import HTTPServer
from traitlets import Bool, Float, Integer, Unicode, default, validate
from traitlets.config import Application, catch_config_error

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError

from .credentials import read_secret
from .parts import Parts
from .process import allow_many_connections, exit_whatever_happens
from .rules import Rules
from .web.routes import web_application

_MAX_BODY_BYTES = 64 * 1024
_LOOK_AT_PARENT_SECONDS = 0.5
_IDLE_CONNECTION_SECONDS = 60.0


class GpuService(Application):
    """Samples the GPUs, attributes their use, takes idle memory back, shows it all."""

    name = "gpuworkshop-service"
    description = "The GPU service of a workshop, beside its JupyterHub."

    config_file = Unicode(
        "",
        help="""
        A configuration file with more traits; empty for none, which is the default.

            gpuworkshop service --GpuService.config_file=/srv/gpuworkshop/service.py
        """,
    ).tag(config=True)

    workshop = Unicode(
        help="""
        The workshop file: its path, or its content as one JSON object. The default
        is the environment variable GPUWORKSHOP_WORKSHOP, which the hub sets; without
        it every key has its default. Given as a path, `idle` is read again when the
        file changes.

            c.GpuService.workshop = "/srv/jupyterhub/workshop.yaml"
        """,
    ).tag(config=True)

    ip = Unicode(
        help="""
        The address to listen at. The default is the host of JUPYTERHUB_SERVICE_URL,
        else 127.0.0.1: the hub's proxy is all that needs to reach it.

            c.GpuService.ip = "127.0.0.1"
        """,
    ).tag(config=True)

    port = Integer(
        help="""
        The port to listen at, 1 to 65535. The default is the port of
        JUPYTERHUB_SERVICE_URL, else `service.port` of the workshop file (10110).

            c.GpuService.port = 10110
        """,
    ).tag(config=True)

    prefix = Unicode(
        help="""
        The path below which everything is served, as the hub's proxy hands it on. The
        default is JUPYTERHUB_SERVICE_PREFIX, else /services/NAME/ with `service.name`
        of the workshop file.

            c.GpuService.prefix = "/services/gpuworkshop/"
        """,
    ).tag(config=True)

    state_dir = Unicode(
        help="""
        The folder for the history. The default is `service.state_dir` of the workshop
        file, else the folder in which the service is started: the hub's, where the
        hub starts it.

            c.GpuService.state_dir = "/var/lib/gpuworkshop"
        """,
    ).tag(config=True)

    link_secret = Unicode(
        help="""
        What the hub proves itself with on the link. The default is the environment
        variable GPUWORKSHOP_LINK_SECRET, which the hub sets, else the line
        GPUWORKSHOP_LINK_SECRET=... of `service.secret_file`. Without any the link is
        closed, and nothing is known of leases.

            c.GpuService.link_secret = open("/srv/gpuworkshop/secret").read().strip()
        """,
    ).tag(config=True)

    report_seconds = Float(
        5.0,
        help="""
        How often the hub is expected to report, in seconds, above 0. The default, 5,
        leaves room above the hub's own 2 (`GpuRuntime.report_seconds`). After three
        times as long a silence is told.

            c.GpuService.report_seconds = 5
        """,
    ).tag(config=True)

    exit_with_parent = Bool(
        help="""
        Whether to end as soon as the process that started this one is gone: after a
        kill of the hub the old service would keep its port. The default is
        `service.managed` of the workshop file where JUPYTERHUB_SERVICE_NAME is set,
        as the hub does for what it starts; else False.

            c.GpuService.exit_with_parent = False
        """,
    ).tag(config=True)

    aliases = {  # noqa: RUF012  # traitlets' own way to declare them
        "config": "GpuService.config_file",
        "workshop": "GpuService.workshop",
        "ip": "GpuService.ip",
        "port": "GpuService.port",
        "state-dir": "GpuService.state_dir",
        "log-level": "Application.log_level",
    }

    @default("log_level")
    def _default_log_level(self) -> int:
        return logging.INFO

    @default("log_format")
    def _default_log_format(self) -> str:
        # The hub's own: a managed service writes into the hub's log.
        return "[%(levelname)1.1s %(asctime)s.%(msecs).03d %(name)s] %(message)s"

    @default("workshop")
    def _default_workshop(self) -> str:
        return os.environ.get("GPUWORKSHOP_WORKSHOP", "")

    @default("ip")
    def _default_ip(self) -> str:
        return urlparse(os.environ.get("JUPYTERHUB_SERVICE_URL", "")).hostname or (
            "127.0.0.1"
        )

    @default("port")
    def _default_port(self) -> int:
        url = urlparse(os.environ.get("JUPYTERHUB_SERVICE_URL", ""))
        return url.port or self.rules.workshop.service.port

    @default("prefix")
    def _default_prefix(self) -> str:
        return os.environ.get("JUPYTERHUB_SERVICE_PREFIX") or (
            f"/services/{self.rules.workshop.service.name}/"
        )

    @validate("prefix")
    def _slashes_around_it(self, proposal: Any) -> str:
        stripped = str(proposal["value"]).strip("/")
        return f"/{stripped}/" if stripped else "/"

    @default("state_dir")
    def _default_state_dir(self) -> str:
        return str(self.rules.workshop.service.state_dir or Path.cwd())

    @default("link_secret")
    def _default_link_secret(self) -> str:
        name = "GPUWORKSHOP_LINK_SECRET"
        file = self.rules.workshop.service.secret_file
        return os.environ.get(name) or read_secret(file, name)

    @default("exit_with_parent")
    def _default_exit_with_parent(self) -> bool:
        return (
            "JUPYTERHUB_SERVICE_NAME" in os.environ
            and self.rules.workshop.service.managed
        )

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        """Read command line, configuration file and workshop."""
        # The hub says who it is: it may be gone before this process can look, which
        # is a second after it was started.
        self.parent_pid = int(os.environ.get("GPUWORKSHOP_HUB_PID") or os.getppid())
        self.parse_command_line(argv)
        if self.config_file:
            self.load_config_file(self.config_file)
        package_log = logging.getLogger("jupyterhub_gpuworkshop")
        package_log.setLevel(self.log.level)
        package_log.handlers = list(self.log.handlers)
        package_log.propagate = False
        self.rules = Rules(self.workshop, self.log)

    def start(self) -> None:
        """Serve until a signal, or the end of the parent."""
        asyncio.run(self._serve())

    @classmethod
    def launch_instance(cls, argv: list[str] | None = None, **kwargs: Any) -> None:
        """Start the service; a mistake of the organiser's ends it with one sentence."""
        try:
            super().launch_instance(argv=argv, **kwargs)
        except (GpuWorkshopError, OSError) as error:
            sys.stderr.write(f"gpuworkshop service: {error}\n")
            sys.exit(1)

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._stop.set)
        parts = Parts(self)
        # Before the hub asks: it is told which GPUs are drained, and uses all others.
        await parts.kept.open()
        allow_many_connections()
        server = HTTPServer(
            web_application(self, parts),
            max_body_size=_MAX_BODY_BYTES,
            xheaders=True,
            idle_connection_timeout=_IDLE_CONNECTION_SECONDS,
        )
        server.listen(self.port, self.ip)
        self.log.info(
            "The GPU service listens at http://%s:%s%s", self.ip, self.port, self.prefix
        )
        tasks = [asyncio.ensure_future(x) for x in (parts.run(), self._watch_parent())]
        await self._stop.wait()
        self.log.info("The GPU service ends")
        exit_whatever_happens()
        server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.close()

    async def _watch_parent(self) -> None:
        while self.exit_with_parent:
            if os.getppid() != self.parent_pid:
                self.log.warning("The hub that started this service is gone")
                self._stop.set()
                return
            await asyncio.sleep(_LOOK_AT_PARENT_SECONDS)
