"""What stops idle servers, put together for the service.

Owns what it is made of: the signals, the hub's API with the service's own token, and
who may act.
"""

from typing import TYPE_CHECKING

from jupyterhub_gpuworkshop.service.credentials import hub_auth
from jupyterhub_gpuworkshop.service.hub_api import HubApi

from .idle_servers import IdleServers
from .signals import ServerSignals
from .telling import ServerTeller

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.service.app import GpuService


def idle_servers(service: "GpuService") -> IdleServers:
    """Return the loop; without a token it never acts."""
    auth = hub_auth(service)
    no_token = (
        ""
        if auth.api_token
        else "There is no JUPYTERHUB_API_TOKEN: idle servers are not stopped."
    )
    return IdleServers(
        service.monitor,
        ServerSignals(service.monitor, service.servers, service.link),
        HubApi(auth.api_url, auth.api_token),
        service.rules,
        ServerTeller(service.monitor.notices, service.history),
        why_not_act=lambda: service.only_one.why_not() or no_token,
    )
