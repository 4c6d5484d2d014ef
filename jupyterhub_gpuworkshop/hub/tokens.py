"""One token for each server, good for that server and nothing else, anywhere.

Owns the tokens with which the service calls attendees' servers. A server runs as its
attendee, who reads every header that it gets (design, rule 7).
"""

import logging
from typing import Any

from jupyterhub import orm

from jupyterhub_gpuworkshop.core.leases import Lease

_NOTE = "Server at {url}, read by the GPU service (gpuworkshop)"
"""JupyterHub takes the use of a token for its owner's activity unless the note begins
``Server at `` (handlers/base.py)."""
_MARK = "%read by the GPU service (gpuworkshop)"


class ServerTokens:
    """Hands out and revokes them; they are kept in memory only."""

    def __init__(
        self, db: Any, log: "logging.Logger | logging.LoggerAdapter[Any]"
    ) -> None:
        self._db = db
        self._log = log
        self._by_lease: dict[str, str] = {}

    def revoke_earlier(self) -> None:
        """Make those of an earlier life of the hub void: nobody can use them.

        Only a hub that serves may do this: ``jupyterhub --show-config`` loads all
        that a hub loads, beside one that runs.
        """
        db = self._db
        for token in db.query(orm.APIToken).filter(orm.APIToken.note.like(_MARK)):
            db.delete(token)
        db.commit()

    def of(self, lease: Lease, spawner: Any) -> str:
        """Return the token of a lease's server, made at the first call.

        It is empty where the attendee may not access the server: then the service
        cannot call it, and holds none of its kernels for idle.
        """
        token = self._by_lease.get(lease.id)
        if token is None:
            self._by_lease[lease.id] = token = self._new(lease, spawner)
        return token

    def _new(self, lease: Lease, spawner: Any) -> str:
        user = spawner.user
        try:
            token = user.new_api_token(
                note=_NOTE.format(url=spawner.server.base_url),
                scopes=[f"access:servers!server={user.name}/{spawner.name}"],
            )
        except ValueError as error:
            self._log.warning(
                "The GPU service cannot call the server of %s, and nothing of it is "
                "reclaimed: %s. The role `user` gives the scope if it has `self`.",
                lease.owner,
                error,
            )
            return ""
        return str(token)

    def revoke(self, lease_id: str) -> None:
        """Make a lease's token void; one that never was does no harm."""
        token = self._by_lease.get(lease_id)
        found = orm.APIToken.find(self._db, token) if token else None
        if found is not None:
            self._db.delete(found)
            self._db.commit()
        self._by_lease.pop(lease_id, None)
