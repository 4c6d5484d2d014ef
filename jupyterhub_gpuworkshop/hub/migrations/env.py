"""What alembic runs: the migrations, on the connection that the ledger hands over.

Deliberately without `fileConfig`: the hub's logging is the hub's.
"""

from alembic import context

from jupyterhub_gpuworkshop.hub.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    # SQLite can do it too, once the driver leaves BEGIN to us, as the ledger's does.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
