"""Servers as units of systemd: each may open the devices of its lease, no others.

Owns what is particular to SystemdSpawner: names and properties of units, and believing
systemd only where it answers. The only importer of systemdspawner.
"""

import asyncio
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jupyterhub.utils import maybe_future
from systemdspawner import SystemdSpawner
from traitlets.config import Configurable

from jupyterhub_gpuworkshop.core.errors import HostError, ShareRefused, SourceError
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.hub.homes import UNIX, Home, home_of_account
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.refusal import refusal
from jupyterhub_gpuworkshop.hub.runtime import GpuRuntime
from jupyterhub_gpuworkshop.machine.device_rules import (
    device_rules,
    opens_gpus,
    uvm_is_loaded,
)

from .systemd_properties import RuledProperties, rule_devices
from .systemd_units import (
    SystemdEngine,
    Unit,
    call,
    look_at,
    name_of,
    unit_of,
    why_not,
)

if TYPE_CHECKING:
    from systemdspawner import SystemdSpawner as _Base
else:
    _Base = (
        Configurable  # one base with the mixin, or Python puts it behind the spawner
    )

_ASK_AGAIN_SECONDS = (0.2, 1.0)
_LOWEST_PERSONS_UID = 1000
_STATE_KEY = "gpuworkshop_unix_user"

_TELL = "Your server cannot start: "
_ORGANISER = " Tell the organiser, who finds more in the hub's log."
_LOAD_UVM = ("nvidia-modprobe", "-c=0", "-u")


class _EndedAtOnceError(HostError):
    """A unit ended while it was being started; its text is for organisers."""

    jupyterhub_message = f"{_TELL}it ended at once.{_ORGANISER}"


class _RuledUnit(_Base):
    """Starts the unit under the device rules of the lease, once there is one.

    It stands between `GpuSpawnerMixin`, whose `start` claims, and the spawner.
    """

    if TYPE_CHECKING:
        lease: Lease | None
        isolate_devices: bool
        unit_extra_properties: dict[str, Any]

    _starts_unit = False
    _has_unit = False
    """Whether `unit_name` is this server's: on record with the hub, or started here."""

    async def start(self) -> Any:
        """Start the unit with the admin's properties and the lease's device rules.

        Raises:
            Exception: `refusal`, where the rules cannot be made.
        """
        lease = self.lease
        if lease is None:
            self._has_unit = True
            return await maybe_future(super().start())
        self.unit_name = name_of(lease.engine_id)
        await self._load_uvm(lease)
        try:
            ruled = self._ruled(lease)
        except SourceError as error:
            self.log.error("%s cannot start: %s", self._log_name, error)
            raise refusal(
                f"{_TELL}its GPU cannot be told from the others.{_ORGANISER}", self
            ) from error
        for sentence in ruled.overruled:
            self.log.warning("%s: %s", self._log_name, sentence)
        with self._properties(ruled):
            self._starts_unit = self._has_unit = True
            try:
                started = await maybe_future(super().start())
            finally:
                self._starts_unit = False
        self.log.info(
            "%s may open these devices beside the usual: %s",
            unit_of(self.unit_name),
            ", ".join(ruled.properties["DeviceAllow"]),
        )
        return started

    def _ruled(self, lease: Lease) -> RuledProperties:
        inventory = GpuRuntime.of(self.user.settings).allocator.inventory
        return rule_devices(
            self.unit_extra_properties,
            device_rules(lease.uuids, inventory),
            private_devices=self.isolate_devices,
            opens_gpus=opens_gpus,
        )

    @contextmanager
    def _properties(self, ruled: RuledProperties) -> Iterator[None]:
        """Lend the spawner these properties: it writes into those that it has."""
        admin = (self.unit_extra_properties, self.isolate_devices)
        self.unit_extra_properties = ruled.properties
        self.isolate_devices = ruled.private_devices
        try:
            yield
        finally:
            self.unit_extra_properties, self.isolate_devices = admin

    async def _load_uvm(self, lease: Lease) -> None:
        """Have nvidia-uvm loaded, which the attendee's process could not do.

        After a boot CUDA loads it when first used, by a setuid program that units
        may not run (NoNewPrivileges); and systemd opens it to units by its number,
        which it has only then. PID 1 runs this, for the hub's own unit may be shut
        off from the machine's devices, as TLJH's is.
        """
        inventory = GpuRuntime.of(self.user.settings).allocator.inventory
        if not lease.devices or inventory.source != "nvml" or uvm_is_loaded():
            return
        try:
            await call("systemd-run", "--quiet", "--collect", "--wait", *_LOAD_UVM)
        except HostError as error:
            self.log.warning(
                "nvidia-uvm is not loaded, and CUDA needs it: %s. Run `%s` as root "
                "when the machine starts, or install nvidia-modprobe.",
                error,
                " ".join(_LOAD_UVM),
            )


class GpuSystemdMixin(GpuSpawnerMixin, _RuledUnit):
    """What spawners of systemd's units add to the mixin.

    ::

        class MySpawner(GpuSystemdMixin, SomeSystemdSpawner): ...
    """

    engine: ClassVar[str] = "systemd"

    _unix_user = ""
    _uid: int | None = None
    _stays_the_attendees = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        template = str(self.username_template)
        self._stays_the_attendees = (
            "{USERNAME}" in template or "{USERID}" in template
        ) and not self.dynamic_users
        self.unit_name = self._own_unit_name()

    async def start(self) -> Any:
        """Claim a lease, then start a unit that has its devices.

        Raises:
            Exception: `refusal`, which the attendee reads on the hub's page.
        """
        name = self._own_unit_name()
        reason = why_not(name)
        try:
            if not reason and not (await look_at(name)).is_ours:
                reason = "a unit of that name is installed on this machine"
        except HostError as error:
            self.log.error("%s cannot start: %s", self._log_name, error)
            raise refusal(
                f"{_TELL}systemd does not answer the hub.{_ORGANISER}", self
            ) from error
        if reason:
            self.log.error(
                "%s cannot start: its unit would be %r, and %s. The names of units "
                "come from SystemdSpawner.unit_name_template, user and server.",
                self._log_name,
                unit_of(name),
                reason,
            )
            raise refusal(
                f"{_TELL}the name of your {'server' if self.name else 'account'} does "
                f"not fit a unit of systemd's: {reason}.{_ORGANISER}",
                self,
            )
        self._unix_user, self._uid, self._has_unit = "", None, False
        started = await super().start()
        # TLJH chooses the Unix user when it starts a server.
        self._unix_user = self._expand_user_vars(self.username_template)
        return started

    async def stop(self, now: bool = False) -> None:
        """Stop the unit, if it is one that the hub has made."""
        if (await self._look()).is_ours:
            await super().stop(now=now)

    async def poll(self) -> int | None:
        """Return None while the unit's server runs.

        After a start that was refused the hub asks, to stop what runs: a unit of that
        name would be somebody else's.

        A hub that is killed in mid-spawn has stored no state, and does not know the
        server's port: it would wait for it for all of `http_timeout`. The server
        counts as gone, and the reconciler ends the unit.

        Raises:
            HostError: systemd does not answer, asked three times: it is unknown.
        """
        if not self._has_unit:
            return 1
        unit = await self._look()
        if self._starts_unit and unit.is_over:
            # SystemdSpawner asks again, once a second, until `start_timeout`.
            raise _EndedAtOnceError(
                f"{unit_of(self.unit_name)} ended as soon as it was started. See "
                f"journalctl --unit {unit_of(self.unit_name)}, and the hub's log for "
                "what systemd-run says."
            )
        return None if unit.is_up else 1

    async def _look(self) -> Unit:
        for seconds in _ASK_AGAIN_SECONDS:
            try:
                return await look_at(self.unit_name)
            except HostError as error:
                self.log.warning("%s: %s", self._log_name, error)
                await asyncio.sleep(seconds)
        return await look_at(self.unit_name)

    def engine_id_ahead(self) -> str:
        """Return the unit that this server will be.

        Raises:
            ShareRefused: somebody else's server has that unit, or an earlier server of
                this name has processes that will not end: one cgroup could not tell
                them from the new server's, nor their memory from its share.
        """
        unit = unit_of(self._own_unit_name())
        ledger = GpuRuntime.of(self.user.settings).allocator.ledger
        key = (self.user.name, self.name)
        for lease in ledger.leases.values():
            if (lease.engine, lease.engine_id) == (self.engine, unit):
                if lease.key == key:
                    raise ShareRefused(
                        f"{_TELL}your last one has processes that have not ended. Try "
                        f"again in a minute.{_ORGANISER}"
                    )
                self.log.error(
                    "%s cannot start: its unit %s is that of %s, and SystemdSpawner "
                    "would end that server. Mend SystemdSpawner.unit_name_template "
                    "({USERNAME} tells attendees apart), or rename one of them.",
                    self._log_name,
                    unit,
                    lease.owner,
                )
                raise ShareRefused(
                    f"{_TELL}another one runs under its name.{_ORGANISER}"
                )
        return unit

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up unit and Unix user with the lease."""
        super().load_state(state)
        if self.lease is not None and self.lease.engine == self.engine:
            self.unit_name = name_of(self.lease.engine_id)
        on_record = self.orm_spawner is not None and self.orm_spawner.server is not None
        self._has_unit = on_record and "unit_name" in state
        self._unix_user = str(state.get(_STATE_KEY, ""))
        self._uid = None

    def get_state(self) -> dict[str, Any]:
        """Return the spawner's state, with the Unix user that the server runs as."""
        state: dict[str, Any] = super().get_state()
        if self._unix_user:
            state[_STATE_KEY] = self._unix_user
        return state

    def attendee_uid(self) -> int | None:
        """Return the Unix user of this attendee's server, where it is theirs alone.

        Not an account that several attendees share, nor one of the system's. It is
        looked up once a start.
        """
        if not self._unix_user or not self._stays_the_attendees:
            return None
        if self._uid is None:
            try:
                self._uid = pwd.getpwnam(self._unix_user).pw_uid
            except KeyError:
                return None
        return self._uid if self._uid >= _LOWEST_PERSONS_UID else None

    def home_folder(self) -> str:
        """Return the Unix user's home; systemd's own where that makes the user."""
        if self.dynamic_users:
            return f"/var/lib/{self.user.name}"
        try:
            return pwd.getpwnam(self._account()).pw_dir
        except KeyError:
            return ""

    async def find_home(self) -> Home | None:
        """Return the home of the Unix user that the server runs as.

        Raises:
            HostError: there is no such user.
        """
        if self.dynamic_users:
            return dynamic_home(self._expand_user_vars("{USERNAME}"))
        return home_of_account(self._account())

    def _account(self) -> str:
        """Return the Unix user; TLJH chooses it while it starts a server."""
        return self._unix_user or str(self._expand_user_vars(self.username_template))

    def _own_unit_name(self) -> str:
        """Return the unit's name, in which SystemdSpawner forgets the server's."""
        name = str(self._expand_user_vars(self.unit_name_template))
        return f"{name}--{self.name}" if self.name else name

    def _expand_user_vars(self, string: Any) -> Any:
        """Fill in user name and id; a list's lines one by one.

        SystemdSpawner 1.0.2 takes lists of properties and stumbles over them here.
        """
        if isinstance(string, (list, tuple)):
            return [self._expand_user_vars(line) for line in string]
        return super()._expand_user_vars(string)


def dynamic_home(name: str) -> Home:
    """Return the home of a user whom systemd makes up for each start.

    Raises:
        HostError: systemd has made none.
    """
    # /var/lib/NAME is a link to it; only root can pass through "private".
    folder = Path("/var/lib/private") / name
    try:
        owner = folder.stat()
    except OSError as error:
        raise HostError(f"{folder} cannot be found: {error.strerror}.") from None
    return Home(kind=UNIX, path=str(folder), uid=owner.st_uid, gid=owner.st_gid)


class GpuSystemdSpawner(GpuSystemdMixin, SystemdSpawner):
    """SystemdSpawner with GPU shares: each server a unit, each attendee a Unix user."""


def make_engine(app: Any) -> SystemdEngine:
    """Return what answers the reconciler about units."""
    return SystemdEngine()
