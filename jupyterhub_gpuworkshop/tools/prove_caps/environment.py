"""What a probe finds in its environment: a lease, or a lease whose caps are undone.

Owns both, out of the code that gives servers theirs (`hub.mixin`).
"""

from collections.abc import Mapping

from jupyterhub_gpuworkshop.core.caps import apply_lease, framework_variables
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.hub.memory_hook import with_memory_hook

_UNDONE: Mapping[str, str] = {
    # They make a framework take what it needs and not all of the device at once,
    # which would hit the others; none of them is a cap.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "CUDF_PANDAS_RMM_MODE": "cuda",
    # Unset, it means three quarters of the device: a cap for a large share.
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.99",
}


def leased_environment(
    plain: Mapping[str, str],
    admin: Mapping[str, str],
    lease: Lease,
    hook_folder: str | None = "",
) -> dict[str, str]:
    """Return the variables of a server with this lease.

    Args:
        plain: what it starts with.
        admin: what the admin adds to them (`Spawner.environment`).
        lease: the lease.
        hook_folder: where the import hook is; empty for the package's own, None
            where the admin has left it out.
    """
    applied = apply_lease({**plain, **admin}, lease, admin=admin)
    if hook_folder is None:
        return dict(applied.variables)
    return with_memory_hook(applied.variables, hook_folder)


def undone_environment(
    plain: Mapping[str, str], admin: Mapping[str, str], lease: Lease
) -> dict[str, str]:
    """Return the same for an attendee who has undone every setting that caps."""
    result = leased_environment(plain, admin, lease)
    caps = {*framework_variables(lease), "XLA_CLIENT_MEM_FRACTION"}
    caps |= {name for name in result if name.startswith("GPUWORKSHOP_MEMORY_")}
    for name in caps | {"PYTHONPATH"}:
        result.pop(name, None)
    theirs = {**plain, **admin}.get("PYTHONPATH")
    return {**result, **_UNDONE, **({"PYTHONPATH": theirs} if theirs else {})}
