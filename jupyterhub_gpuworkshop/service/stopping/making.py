"""What stops idle servers, put together for the service.

Owns what it is made of: the signals, the hub's API with the service's own token, and
who may act.
"""

from typing import TYPE_CHECKING

from jupyterhub_gpuworkshop.service.hub_api import HubApi

from .idle_servers import IdleServers
from .signals import ServerSignals
from .telling import ServerTeller

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.service.parts import Parts


def idle_servers(parts: "Parts") -> IdleServers:
    """Return the loop; without a token it never acts."""
    auth = parts.auth
    no_token = (
        ""
        if auth.api_token
        else "There is no JUPYTERHUB_API_TOKEN: idle servers are not stopped."
    )
    return IdleServers(
        parts.monitor,
        ServerSignals(parts.monitor, parts.servers, parts.link),
        HubApi(auth.api_url, auth.api_token),
        parts.rules,
        ServerTeller(parts.monitor.notices, parts.history),
        why_not_act=lambda: parts.only_one.why_not() or no_token,
    )
