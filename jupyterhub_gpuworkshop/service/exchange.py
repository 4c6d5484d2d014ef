"""What the hub is told in reply to its reports.

Owns how a reply is put together: placement needs what the monitor knows, and beside it
stand what is announced and who is to be unlocked.
"""

from dataclasses import replace

from jupyterhub_gpuworkshop.core.wire import Reply, Report

from .announcement import Announcing
from .locked import LockedOut
from .monitor import Monitor


class Exchange:
    """Takes reports in, and replies.

    Args:
        monitor: for what placement needs.
        announcing: for what is announced.
        locked_out: for who is to be unlocked.
    """

    def __init__(
        self, monitor: Monitor, announcing: Announcing, locked_out: LockedOut
    ) -> None:
        self._monitor = monitor
        self._announcing = announcing
        self._locked_out = locked_out

    async def exchange(self, report: Report) -> Reply:
        """Take a report in; return what the hub should know."""
        reply = await self._monitor.exchange(report)
        await self._locked_out.hear(report)
        return replace(
            reply,
            announced=self._announcing.for_hub,
            unlocks=self._locked_out.orders,
        )
