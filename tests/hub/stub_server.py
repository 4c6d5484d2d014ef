"""A server that answers and does nothing else: the hub sees it start and stop.

Run as a script, with no import beyond the standard library: it is up in a moment.
"""

import http.server
import json
import os
import pathlib
import signal
import sys
import time
from urllib.parse import urlsplit


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = self.path.split("?")[0]
        body = json.dumps([] if wanted.endswith(("kernels", "sessions")) else {})
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", os.environ["STUB_HUB_VERSION"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
        log = os.environ.get("STUB_HEADER_LOG")
        if log:
            path = pathlib.Path(log, os.environ["JUPYTERHUB_USER"])
            with path.open("a") as file:
                file.write(json.dumps([self.path, dict(self.headers)]) + "\n")

    def log_message(self, *args):
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    if os.environ.get("STUB_IGNORES_SIGNALS"):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    else:
        patience = float(os.environ.get("STUB_ENDS_AFTER", 0))
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(patience), sys.exit(0)))
    if os.environ.get("STUB_NEVER_ANSWERS"):
        signal.pause()
    url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    try:
        _Server((url.hostname, url.port), _Handler).serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
