"""How the service proves itself, and how it asks the hub who somebody is.

Owns where secrets come from: the environment, as the hub sets it for what it starts,
else the file that hub and service share; and the secret of its own that cookies are
signed with.
"""

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from jupyterhub.services.auth import HubOAuth

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError

if TYPE_CHECKING:
    from .app import GpuService

_LOG = logging.getLogger(__name__)
COOKIE_FILE = "gpuworkshop-cookie-secret"
_COOKIE_SECRET_BYTES = 32


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


def cookie_secret(folder: Path) -> bytes:
    """Return what cookies are signed with: the same after a restart.

    Pages that are open then stay logged in, and come back by themselves. Where the
    folder takes no file it is a new one, and people log in again.

    Args:
        folder: the state folder.
    """
    path = folder / COOKIE_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read_cookie_secret(path)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_COOKIE_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename it replaces nothing: two that start at once agree.
            with contextlib.suppress(FileExistsError):
                os.link(beside, path)
        finally:
            beside.unlink()
        return _read_cookie_secret(path)
    except OSError as error:
        _LOG.warning(
            "%s cannot be used: %s. When this service is started anew, people log in "
            "to its pages again.",
            path,
            error.strerror or error,
        )
        return secrets.token_bytes(_COOKIE_SECRET_BYTES)


def _read_cookie_secret(path: Path) -> bytes:
    """Read the secret.

    Raises:
        OSError: it cannot be read, or others could have.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise OSError(
                "others than this service can read or change it: remove it, and it is "
                "made anew"
            )
        found = file.read()
    if len(found) != _COOKIE_SECRET_BYTES:
        raise OSError("it holds no secret: remove it, and it is made anew")
    return found
