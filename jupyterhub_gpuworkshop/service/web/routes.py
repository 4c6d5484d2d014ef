"""What the service answers, and where: its routes.

Owns the table of them, and what of a request goes to the log.
"""

import logging
from typing import TYPE_CHECKING, Any

from tornado.web import Application, RequestHandler

from jupyterhub_gpuworkshop.service.dashboard.live import LiveHandler
from jupyterhub_gpuworkshop.service.dashboard.look import (
    STATIC_FOLDER,
    VersionedFileHandler,
)
from jupyterhub_gpuworkshop.service.dashboard.pages import (
    NoPageHandler,
    PageHandler,
    WallHandler,
)
from jupyterhub_gpuworkshop.service.dashboard.plots import (
    BokehHandler,
    BokehScript,
    DevicePlotHandler,
    Plots,
)
from jupyterhub_gpuworkshop.service.link import LinkHandler

from .acts_api import (
    DrainHandler,
    EndHandler,
    ForgetHandler,
    KernelHandler,
    MemoryHandler,
    PinHandler,
)
from .announcement_api import AnnouncementHandler
from .api import EventsHandler, HealthHandler, SnapshotHandler
from .asked_api import NoticeHandler, ReclaimHandler, StopHandler
from .auth import CallbackHandler
from .locked_api import LockedHandler, UnlockHandler
from .metrics import MetricsHandler, Scrapes
from .usage_api import UsageAnswers, UsageHandler
from .work import ArchiveHandler, WorkHandler

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.service.app import GpuService
    from jupyterhub_gpuworkshop.service.parts import Parts

_Routes = list[tuple[str, type[RequestHandler], dict[str, Any]]]


def web_application(service: "GpuService", parts: "Parts") -> Application:
    """Return everything that is served below the service's prefix."""
    if not service.link_secret:
        service.log.warning(
            "There is no secret for the link: the hub cannot report. Set "
            "GPUWORKSHOP_LINK_SECRET, or service.secret_file in the workshop file."
        )

    def log_request(handler: RequestHandler) -> None:
        """Log what went wrong; what went well is asked for every few seconds."""
        status, request = handler.get_status(), handler.request
        level = logging.WARNING if status >= 500 else logging.DEBUG
        # The path alone: a query may hold a code or a token.
        service.log.log(level, "%s %s %s", status, request.method, request.path)

    return Application(
        [
            (service.prefix + path, handler, x)
            for path, handler, x in _routes(service, parts)
        ],
        cookie_secret=parts.cookie_secret,
        prefix=service.prefix,
        default_handler_class=NoPageHandler,
        default_handler_args={"auth": parts.auth},
        log_function=log_request,
    )


def _routes(service: "GpuService", parts: "Parts") -> _Routes:
    auth, monitor, history = parts.auth, parts.monitor, parts.history
    working = {"auth": auth, "folder": parts.rules.workshop.material.archives}
    announcing = {"auth": auth, "announcing": parts.announcing}
    unlocking = {"auth": auth, "locked_out": parts.locked_out}
    asking = {
        "auth": auth,
        "monitor": monitor,
        "history": history,
        "rules": parts.rules,
        "acts": parts.acts,
        "endings": parts.endings,
    }
    asked = {
        "auth": auth,
        "acts": parts.acts,
        "asked": parts.asked,
        "stops": parts.stopping.asked,
    }
    answers = UsageAnswers(parts.usage, monitor)
    measuring = {"auth": auth, "monitor": monitor, "history": history}
    scraping = {**measuring, "rules": parts.rules, "scrapes": Scrapes()}
    return [
        ("", PageHandler, {"auth": auth}),
        ("wall", WallHandler, {"auth": auth}),
        ("work", WorkHandler, working),
        ("work/archive", ArchiveHandler, working),
        ("oauth_callback", CallbackHandler, {}),
        ("live", LiveHandler, {"auth": auth, "feed": parts.feed}),
        ("health", HealthHandler, {"monitor": monitor}),
        ("metrics", MetricsHandler, scraping),
        ("link", LinkHandler, {"hub": parts.exchange, "secret": service.link_secret}),
        ("api/v1/snapshot", SnapshotHandler, {"auth": auth, "monitor": monitor}),
        ("api/v1/events", EventsHandler, {"auth": auth, "history": history}),
        ("api/v1/usage", UsageHandler, {"auth": auth, "answers": answers}),
        ("api/v1/kernels/([^/]+)", KernelHandler, asking),
        ("api/v1/kernels/([^/]+)/pin", PinHandler, asking),
        ("api/v1/kernels/([^/]+)/reclaim", ReclaimHandler, asked),
        ("api/v1/leases/([^/]+)/stop", StopHandler, asked),
        ("api/v1/attendees/([^/]+)/notice", NoticeHandler, asked),
        ("api/v1/devices/([^/]+)/memory", MemoryHandler, asking),
        ("api/v1/devices/([^/]+)/drain", DrainHandler, asking),
        ("api/v1/holders/([^/]+)/end", EndHandler, asking),
        ("api/v1/forget", ForgetHandler, asking),
        ("api/v1/announcement", AnnouncementHandler, announcing),
        ("api/v1/locked", LockedHandler, unlocking),
        ("api/v1/attendees/([^/]+)/unlock", UnlockHandler, unlocking),
        ("plots/device.json", DevicePlotHandler, {"auth": auth, "plots": Plots()}),
        (r"plots/bokeh-([^/]+)\.min\.js", BokehHandler, {"script": BokehScript()}),
        ("static/[0-9a-f]+/(.*)", VersionedFileHandler, {"path": str(STATIC_FOLDER)}),
    ]
