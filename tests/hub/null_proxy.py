"""A proxy that routes nothing: these tests talk to hub and servers directly."""

from jupyterhub.proxy import Proxy


class NullProxy(Proxy):
    """Satisfies the hub without a second process."""

    should_start = False

    async def add_route(self, routespec, target, data):
        self._routes = {
            **getattr(self, "_routes", {}),
            routespec: {"routespec": routespec, "target": target, "data": data},
        }

    async def delete_route(self, routespec):
        getattr(self, "_routes", {}).pop(routespec, None)

    async def get_all_routes(self):
        return getattr(self, "_routes", {})
