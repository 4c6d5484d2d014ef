"""How the service proves itself, and how it asks the hub who somebody is.

Owns where secrets come from: the environment, as the hub sets it for what it starts,
else the file that hub and service share.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jupyterhub.services.auth import HubOAuth

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError

if TYPE_CHECKING:
    from .app import GpuService


def hub_auth(service: "GpuService") -> HubOAuth:
    """Return the way to ask the hub; the callback handler finds the same one."""
    if HubOAuth.initialized():
        return HubOAuth.instance()
    given = {"base_url": service.prefix}
    settings = service.rules.workshop.service
    if not os.environ.get("JUPYTERHUB_CLIENT_ID"):
        given["oauth_client_id"] = f"service-{settings.name}"
    if not os.environ.get("JUPYTERHUB_API_TOKEN"):
        token = read_secret(settings.secret_file, "JUPYTERHUB_API_TOKEN")
        if token:
            given["api_token"] = token
        else:
            service.log.warning(
                "There is no JUPYTERHUB_API_TOKEN: nobody can log in to this "
                "service. The hub sets it for a service that it starts; else set "
                "it, or service.secret_file in the workshop file."
            )
    return HubOAuth.instance(parent=service, **given)


def read_secret(path: Path | None, name: str) -> str:
    """Read one ``NAME=value`` line of the file that hub and service share.

    Raises:
        WorkshopFileError: the file cannot be read.
    """
    if path is None:
        return ""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise WorkshopFileError(
            f"service.secret_file cannot be read: {error}. The hub makes it when it "
            "starts; this service must be allowed to read it."
        ) from None
    found = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
    return found[0].strip() if found else ""
