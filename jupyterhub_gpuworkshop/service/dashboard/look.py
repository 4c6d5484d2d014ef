"""How all pages look: their frame, their headers, and where their files are.

Owns the jinja environment, the Content-Security-Policy, and the URLs of what is in the
folder `static`, which hold a version: a browser keeps those files for good.
"""

import datetime
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tornado.web import StaticFileHandler

from jupyterhub_gpuworkshop.core.archives import file_size
from jupyterhub_gpuworkshop.service.web.auth import GuardedHandler, OpenHandler

from .words import say, words_of

STATIC_FOLDER = Path(__file__).parent / "static"
_TEMPLATE_FOLDER = Path(__file__).parent / "templates"
_VERSION_DIGITS = 12
_FOR_GOOD = "public, max-age=31536000, immutable"

# Styles: Bokeh writes its own into the page. Images: Bokeh's tools are data.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

# Not %B: that depends on the locale that the service happens to run in.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def _version() -> str:
    """Return what changes when a file does: they import each other by bare names."""
    found = hashlib.sha256()
    for file in sorted(STATIC_FOLDER.iterdir()):
        if file.is_file():
            found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:_VERSION_DIGITS]


VERSION = _version()


def _day_and_time(at: float) -> str:
    local = datetime.datetime.fromtimestamp(at, tz=datetime.timezone.utc).astimezone()
    return f"{local.day} {_MONTHS[local.month - 1]} {local:%Y at %H:%M %Z}"


_JINJA = Environment(
    loader=FileSystemLoader(_TEMPLATE_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_JINJA.globals.update(say=say)
_JINJA.filters.update(file_size=file_size, day_and_time=_day_and_time)


class VersionedFileHandler(OpenHandler, StaticFileHandler):
    """``GET static/VERSION/FILE``: style sheets and scripts, nobody's secret."""

    def set_extra_headers(self, path: str) -> None:
        """Let a browser keep it, where it is of the version that the page asked for."""
        is_current = f"/static/{VERSION}/" in self.request.path
        self.set_header("Cache-Control", _FOR_GOOD if is_current else "no-cache")


class LookHandler(GuardedHandler):
    """A guarded handler that writes pages which look alike."""

    def set_default_headers(self) -> None:
        """Allow a page what this service serves, and nothing written into the page."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", _POLICY)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong on a page that looks like the others."""
        self.write_page(
            "refused.html", heading=say("common.refused"), error=self._reason
        )

    def write_page(self, template: str, words: str = "", **values: Any) -> None:
        """Write one of the pages in the folder of templates.

        Args:
            template: its file.
            words: which part of the words its script needs; empty for no script.
            values: what else it shows.
        """
        auth = self.hub_auth
        hub = f"{auth.hub_host}{auth.hub_prefix}"
        prefix = self.settings["prefix"]
        viewer = getattr(self, "viewer", None)
        self.finish(
            _JINJA.get_template(template).render(
                prefix=prefix,
                static=f"{prefix}static/{VERSION}/",
                hub=hub,
                # Another host's would be an image of elsewhere.
                logo="" if auth.hub_host else f"{hub}logo",
                viewer=viewer,
                words=words_of("common", "events", "plot", words) if words else {},
                page={
                    "prefix": prefix,
                    "hub": hub,
                    "user": viewer.user if viewer else "",
                    "is_organiser": bool(viewer and viewer.is_organiser),
                    # For the header of every action: other origins cannot read it.
                    "xsrf": self.xsrf_token.decode() if words else "",
                },
                **values,
            )
        )
