"""Sending what is large a piece at a time.

Owns how much of an answer waits for who does not read: one piece. Whole, it would be
copied for each connection, and anybody can open many and read none.
"""

import asyncio

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from jupyterhub_gpuworkshop.machine.timeouts import timeout

_PIECE_BYTES = 64 * 1024
_STALL_SECONDS = 60.0


async def finish_in_pieces(handler: RequestHandler, body: bytes) -> None:
    """Send an answer, and go on only as it is read.

    Args:
        handler: who answers; its other headers are set.
        body: all of it, kept by others.
    """
    handler.set_header("Content-Length", str(len(body)))
    whole = memoryview(body)
    try:
        for begin in range(0, len(whole), _PIECE_BYTES):
            handler.write(bytes(whole[begin : begin + _PIECE_BYTES]))
            async with timeout(_STALL_SECONDS):
                await handler.flush()
        await handler.finish()
    except StreamClosedError:
        return
    except asyncio.TimeoutError:
        handler.request.connection.stream.close()  # type: ignore[union-attr]
