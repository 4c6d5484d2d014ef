"""What a lease's server runs under, what that calls it, and whether it has the hook.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the servers of before were processes of the hub.

    Whether those have the import hook is not known, so that nothing is promised of it.
    """
    for name in ("engine", "engine_id"):
        op.add_column(
            "gpuworkshop_leases",
            sa.Column(name, sa.Text, nullable=False, server_default=""),
        )
    op.add_column(
        "gpuworkshop_leases",
        sa.Column("hook", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    """Take the columns away."""
    for name in ("hook", "engine_id", "engine"):
        op.drop_column("gpuworkshop_leases", name)
