"""Whatever is done to a DurableLedger, in any order: it equals the value."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.core.leases import (
    Lease,
    LeasedDevice,
    LeaseState,
    Ledger,
)
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger

from .postgres_server import PostgresServer

_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8
)
_AMOUNTS = st.integers(0, 2**50)
_DEVICES = st.builds(
    LeasedDevice,
    uuid=st.sampled_from(["GPU-a", "GPU-b", "GPU-c", "MIG-d"]),
    label=_NAMES,
    memory_bytes=_AMOUNTS,
    total_bytes=_AMOUNTS,
    context_bytes=_AMOUNTS,
)


class LedgerMachine(RuleBasedStateMachine):
    """One ledger on disk beside the value that it must equal."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.value = Ledger()
        self.granted = 0
        self.ledger = DurableLedger(self.url)
        self.ledger.remove(list(self.ledger.load().leases))

    @rule(
        user=st.one_of(st.sampled_from(["ann", "bob"]), _NAMES),
        server=st.sampled_from(["", "second"]),
        devices=st.lists(_DEVICES, max_size=3).map(tuple),
        granted_at=st.floats(0, 1e12),
        exclusive=st.booleans(),
        reason=_NAMES,
    )
    def add(
        self,
        user: str,
        server: str,
        devices: tuple[LeasedDevice, ...],
        granted_at: float,
        exclusive: bool,
        reason: str,
    ) -> None:
        """Grant; a second active lease of one server is refused by both."""
        self.granted += 1
        lease = Lease(
            id=f"lease-{self.granted}",
            user=user,
            server=server,
            share="1/5",
            exclusive=exclusive,
            devices=devices,
            granted_at=granted_at,
            boot_id="boot",
            reason=reason,
        )
        if self.value.of(user, server) is None:
            self.ledger.add(lease)
            self.value = self.value.with_lease(lease)
            return
        with pytest.raises(LedgerError, match="already"):
            self.ledger.add(lease)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Release some, and one that is not there."""
        ids = data.draw(st.sets(st.sampled_from([*self.value.leases, "none"])))
        self.ledger.remove(ids)
        self.value = self.value.without(ids)

    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        """Quarantine one; one that is not there is refused."""
        lease_id = data.draw(st.sampled_from([*self.value.leases, "none"]))
        if lease_id != "none":
            self.ledger.quarantine(lease_id)
            self.value = self.value.quarantine(lease_id)
            return
        with pytest.raises(LedgerError, match="no lease none"):
            self.ledger.quarantine(lease_id)

    @rule()
    def reopen(self) -> None:
        """Start the hub again."""
        self.ledger.close()
        self.ledger = DurableLedger(self.url)

    @invariant()
    def equals_the_value(self) -> None:
        """Read it all."""
        assert self.ledger.load() == self.value

    @invariant()
    def has_one_active_lease_of_each_server(self) -> None:
        """Count them."""
        active = [
            x.key
            for x in self.ledger.load().leases.values()
            if x.state is LeaseState.ACTIVE
        ]
        assert len(active) == len(set(active))

    def teardown(self) -> None:
        """Close it."""
        self.ledger.close()


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_a_file_equals_the_value() -> None:
    folder = Path(tempfile.mkdtemp())

    class OverSqlite(LedgerMachine):
        def __init__(self) -> None:
            shutil.rmtree(folder)
            folder.mkdir()
            self.url = f"sqlite:///{folder}/ledger.sqlite"
            super().__init__()

    run_state_machine_as_test(OverSqlite, settings=_settings(40))
    shutil.rmtree(folder)


@pytest.mark.postgres
def test_a_postgresql_database_equals_the_value(postgres: PostgresServer) -> None:
    class OverPostgres(LedgerMachine):
        def __init__(self) -> None:
            self.url = postgres.new_database()
            super().__init__()

    run_state_machine_as_test(OverPostgres, settings=_settings(8))
