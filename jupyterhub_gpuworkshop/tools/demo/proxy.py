"""The pip-installable proxy, with room for a whole class.

Owns nothing of the proxy but how many requests it serves at once: tornado's ten are
soon taken by the spawn pages of a class that starts together.
"""

from configurable_http_proxy.cli import main
from tornado.httpclient import AsyncHTTPClient

_REQUESTS_AT_ONCE = 500
_MOST_BODY_BYTES = 512 * 1024 * 1024


def serve() -> None:
    """Run the proxy until it is told to end."""
    AsyncHTTPClient.configure(
        None, max_clients=_REQUESTS_AT_ONCE, max_body_size=_MOST_BODY_BYTES
    )
    main(prog_name="configurable-http-proxy")


if __name__ == "__main__":
    serve()
