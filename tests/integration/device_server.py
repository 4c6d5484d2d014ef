"""The stub server, which also tells which devices its unit lets it open.

Run as a script, with no import beyond the standard library and the stub.
"""

import errno
import json
import os
import pathlib
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "hub"))

import stub_server


def outcome(path):
    """Return ``opens``, or the name of the error that an open ends in."""
    # As the driver's libraries do: MIG's capabilities are for reading.
    how = os.O_RDONLY if "nvidia-caps/" in path else os.O_RDWR
    try:
        os.close(os.open(path, how))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "opens"


def terminal_and_memory():
    """Return whether a terminal and shared memory are to be had, as kernels need."""
    for end in os.openpty():
        os.close(end)
    mine = pathlib.Path(f"/dev/shm/{os.getpid()}")  # noqa: S108  the point of it
    mine.write_text("shared")
    mine.unlink()
    return "work"


class _Handler(stub_server._Handler):
    def do_GET(self):
        url = urlsplit(self.path)
        if not url.path.endswith("/devices"):
            super().do_GET()
            return
        answer = {path: outcome(path) for path in parse_qs(url.query).get("path", [])}
        answer["terminal and memory"] = terminal_and_memory()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if os.environ.get("LEAVES_A_PROCESS"):
        subprocess.Popen(
            [sys.executable, "-S", "-c", "import signal; signal.pause()"],
            start_new_session=True,
        )
    where = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    stub_server._Server((where.hostname, where.port), _Handler).serve_forever()
