"""What stops servers, put together for the service.

Owns what it is made of: the signals, the hub's API with the service's own token, and
who may act.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyterhub_gpuworkshop.service.hub_api import HubApi

from .asked import AskedStops
from .ends import ServerEnds
from .idle_servers import IdleServers
from .signals import ServerSignals
from .telling import ServerTeller

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.service.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """What stops servers.

    Attributes:
        idle: the loop that stops idle ones for their shares.
        asked: stops those of which somebody asks it.
        ends: those that are being stopped.
        hub: asks the hub to.
    """

    idle: IdleServers
    asked: AskedStops
    ends: ServerEnds
    hub: HubApi

    async def close(self) -> None:
        """Let go of what is under way."""
        await self.ends.close()
        self.hub.close()


def stopping(parts: "Parts") -> Stopping:
    """Return what stops servers; without a token it never does."""
    monitor, auth = parts.monitor, parts.auth
    hub = HubApi(auth.api_url, auth.api_token)
    signals = ServerSignals(monitor, parts.servers, parts.link)
    ends = ServerEnds(monitor, hub)
    teller = ServerTeller(monitor.notices, parts.history)

    def may_not(what: str) -> Callable[[], str]:
        no_token = "" if auth.api_token else f"There is no JUPYTERHUB_API_TOKEN: {what}"
        return lambda: parts.only_one.why_not() or no_token

    return Stopping(
        idle=IdleServers(
            monitor,
            signals,
            ends,
            parts.rules,
            teller,
            why_not_act=may_not("idle servers are not stopped."),
        ),
        asked=AskedStops(
            monitor,
            signals,
            ends,
            teller,
            why_not_act=may_not("this service cannot have a server stopped."),
        ),
        ends=ends,
        hub=hub,
    )
