"""The durable ledger's migrations: which shapes its tables have had.

Owns running alembic from inside the hub, without an ini file and without touching
the hub's logging. What the tables are for is `hub.ledger`'s to know.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

VERSION_TABLE = "gpuworkshop_alembic_version"
"""Not alembic's default: JupyterHub's own version table may be in the database."""


def configuration() -> Config:
    """Return alembic's configuration for these migrations."""
    config = Config()
    # The option is interpolated: a folder's name may have a percent sign.
    folder = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", folder)
    return config


def unknown_revisions(connection: Connection) -> tuple[str, ...]:
    """Return the revisions of this database that this code has never heard of."""
    return tuple(sorted(set(_current(connection)) - _known()))


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest shape, inside the transaction that is open.

    Args:
        connection: in a transaction that the caller commits, so that a hub killed
            in the middle leaves the old shape whole.
    """
    if set(_current(connection)) == set(_scripts().get_heads()):
        return
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(configuration())


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _current(connection: Connection) -> tuple[str, ...]:
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    )
    return context.get_current_heads()
