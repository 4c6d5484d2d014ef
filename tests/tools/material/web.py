"""A real HTTP server with one file, and every habit that a server may have."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class Site:
    """What the server has, and how it behaves.

    Attributes:
        content: of the file.
        etag, modified: how it tells versions apart.
        ranges: whether it knows ranges.
        break_after: the connection ends after so many bytes of each answer.
        location: it sends everybody on to there.
        status: it answers with that.
        headers: more of them.
        asked: what it was asked, with which headers.
    """

    content: bytes = b""
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    break_after: int | None = None
    location: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a site on a loopback address."""
    site = Site()

    class Handler(_Handler):
        of = site

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}
    )
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    of: Site

    def do_GET(self) -> None:
        site = self.of
        site.asked.append((self.path, dict(self.headers.items())))
        if site.location:
            self.send_response(302)
            self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if site.status != 200:
            self.send_response(site.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if site.etag and self.headers.get("If-None-Match") == site.etag:
            self.send_response(304)
            self.end_headers()
            return
        self._send(site)

    def _send(self, site: Site) -> None:
        body, start = site.content, self._start(site)
        self.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", span)
        for name, value in (("ETag", site.etag), ("Last-Modified", site.modified)):
            if value:
                self.send_header(name, value)
        for name, value in site.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        piece = body[start:]
        if site.break_after is not None:
            piece = piece[: site.break_after]
        self.wfile.write(piece)
        self.close_connection = True

    def _start(self, site: Site) -> int:
        asked = self.headers.get("Range", "")
        unchanged = self.headers.get("If-Range") in (site.etag, site.modified)
        if not (asked and site.ranges and unchanged):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
