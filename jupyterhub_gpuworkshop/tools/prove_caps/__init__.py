"""`gpuworkshop doctor --prove-caps`: which caps really hold on this machine.

Owns what is tried with which Python, and as whom. Each framework is run as an
attendee's kernel would run it, in processes that are killed at the end; nothing is
left behind, and nothing begins on a device that somebody uses.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import ProofError
from jupyterhub_gpuworkshop.hub.look import look_once
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.workshop import Workshop

from .account import Account, account_of
from .plan import make_plan
from .probing import ProbeFailed
from .proving import Bench, prove
from .reading import read_devices

_ON_GPUS = ("torch", "tensorflow", "jax", "cupy", "cudf")
_SIMULATED = ("simcuda",)
_TLJH_PYTHON = Path("/opt/tljh/user/bin/python")
_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofOptions:
    """How caps are proven.

    Attributes:
        python: the Python that attendees' kernels run in; None for that of the
            kernel python3, of The Littlest JupyterHub's user environment or else of
            the Python that runs this.
        as_user: the Unix user to run as; None for the caller, or nobody for root.
        force: also on a device that is in use, within the memory that is free.
        environment: what the admin adds to servers' (`Spawner.environment`).
        hook_folder: where servers find the import hook; empty for the package's own,
            None where the admin has left it out.
        frameworks: which to try; None for all that belong to the source of GPUs.
        limit_seconds: for each answer of a framework; the first import of a large
            one from a slow disk takes minutes.
    """

    python: str | None = None
    as_user: str | None = None
    force: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    hook_folder: str | None = ""
    frameworks: tuple[str, ...] | None = None
    limit_seconds: float = 300.0


def prove_caps(workshop: Workshop, options: ProofOptions) -> Iterator[Check]:
    """Yield what each framework proves, as soon as it has."""
    try:
        account = account_of(options.as_user)
    except ProofError as error:
        finding = "No cap was proven: nobody was found to run a framework as."
        yield Check("caps.python", Status.FAIL, finding, str(error))
        return
    try:
        inventory = asyncio.run(look_once(workshop, limit_seconds=_LOOK_SECONDS))
        plan = make_plan(
            workshop, inventory, read_devices(workshop), force=options.force
        )
    except ProofError as error:
        yield Check("caps.gpu", Status.SKIP, f"No cap was proven. {error}")
        return
    simulated = workshop.gpus.source == "simulated"
    # As the admin of a hub with simulated GPUs sets it for all servers.
    where = {"GPUWORKSHOP_SIMULATED_GPUS": str(workshop.gpus.simulated_dir)}
    with tempfile.TemporaryDirectory(
        prefix="gpuworkshop-", ignore_cleanup_errors=True
    ) as folder:
        _give(folder, account)
        bench = Bench(
            workshop=workshop,
            plan=plan,
            account=account,
            python=_found(options.python) if options.python else _servers_python(),
            folder=folder,
            limit_seconds=options.limit_seconds,
            admin={**(where if simulated else {}), **options.environment},
            hook_folder=options.hook_folder,
            force=options.force,
        )
        try:
            bench = bench if options.python else bench.find_kernel()
        except ProbeFailed as error:
            yield Check(
                "caps.python",
                Status.FAIL,
                f"No cap was proven: the attendees' Python does not run. {error}",
                "Name the Python of the attendees' kernels with --python, and the Unix "
                "user of one of them with --as-user.",
            )
            return
        frameworks = options.frameworks or (_SIMULATED if simulated else _ON_GPUS)
        for framework in frameworks:
            yield prove(bench, framework)


def _found(python: str) -> str:
    """Return where a Python is that somebody named, for a probe in another folder."""
    # Not resolved: what is a link in an environment of its own is that environment.
    return os.path.abspath(shutil.which(python) or python)  # noqa: PTH100


def _servers_python() -> str:
    return str(_TLJH_PYTHON) if _TLJH_PYTHON.exists() else sys.executable


def _give(folder: str, account: Account) -> None:
    if account.switch:
        os.chown(folder, account.uid, account.gid)
