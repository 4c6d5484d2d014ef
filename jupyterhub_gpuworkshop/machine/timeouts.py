"""A limit in time for what is awaited.

`asyncio.wait_for` before Python 3.12 loses a cancellation that comes together with the
answer. A loop that waits so goes on for ever when it was to end, and the hub, which
waits for every task that it has cancelled, with it.
"""

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["timeout"]
