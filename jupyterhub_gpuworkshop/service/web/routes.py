"""What the service answers, and where: its routes.

Owns the table of them, and what of a request goes to the log.
"""

import logging
import os
from typing import TYPE_CHECKING, Any

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import Application, RequestHandler, StaticFileHandler

from jupyterhub_gpuworkshop.service.acts import Acts
from jupyterhub_gpuworkshop.service.credentials import hub_auth
from jupyterhub_gpuworkshop.service.link import LinkHandler

from .acts_api import (
    DrainHandler,
    EndHandler,
    ForgetHandler,
    KernelHandler,
    MemoryHandler,
    PinHandler,
)
from .api import EventsHandler, HealthHandler, SnapshotHandler
from .page import STATIC_FOLDER, PageHandler
from .page_acts import (
    DrainFormHandler,
    EndFormHandler,
    KeepHandler,
    LetGoHandler,
    UndrainFormHandler,
)
from .work import ArchiveHandler, WorkHandler

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.service.app import GpuService

_COOKIE_SECRET_BYTES = 32
_Routes = list[tuple[str, type[RequestHandler], dict[str, Any]]]


def web_application(service: "GpuService") -> Application:
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
        [(service.prefix + path, handler, x) for path, handler, x in _routes(service)],
        cookie_secret=os.urandom(_COOKIE_SECRET_BYTES),
        prefix=service.prefix,
        log_function=log_request,
    )


def _routes(service: "GpuService") -> _Routes:
    auth, monitor, history = hub_auth(service), service.monitor, service.history
    page = {
        "auth": auth,
        "monitor": monitor,
        "history": history,
        "rules": service.rules,
        "refresh_seconds": service.rules.workshop.monitor.interval,
    }
    why_not_act = service.only_one.why_not
    acting = {
        "auth": auth,
        "monitor": monitor,
        "acts": Acts(monitor, service.rules, history, why_not_act=why_not_act),
        "endings": service.endings,
    }
    working = {"auth": auth, "folder": service.rules.workshop.material.archives}
    asking = {**acting, "history": history, "rules": service.rules}
    return [
        ("", PageHandler, page),
        ("keep", KeepHandler, acting),
        ("let-go", LetGoHandler, acting),
        ("drain", DrainFormHandler, acting),
        ("undrain", UndrainFormHandler, acting),
        ("end", EndFormHandler, acting),
        ("work", WorkHandler, working),
        ("work/archive", ArchiveHandler, working),
        ("oauth_callback", HubOAuthCallbackHandler, {}),
        ("health", HealthHandler, {"monitor": monitor}),
        ("link", LinkHandler, {"hub": monitor, "secret": service.link_secret}),
        ("api/v1/snapshot", SnapshotHandler, {"auth": auth, "monitor": monitor}),
        ("api/v1/events", EventsHandler, {"auth": auth, "history": history}),
        ("api/v1/kernels/([^/]+)", KernelHandler, asking),
        ("api/v1/kernels/([^/]+)/pin", PinHandler, asking),
        ("api/v1/devices/([^/]+)/memory", MemoryHandler, asking),
        ("api/v1/devices/([^/]+)/drain", DrainHandler, asking),
        ("api/v1/holders/([^/]+)/end", EndHandler, asking),
        ("api/v1/forget", ForgetHandler, asking),
        ("static/(.*)", StaticFileHandler, {"path": str(STATIC_FOLDER)}),
    ]
