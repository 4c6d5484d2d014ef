"""Under which engine a lease's server runs, and what the engine calls it.

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
    """Add the two columns; the servers of before were processes of the hub."""
    for name in ("engine", "engine_id"):
        op.add_column(
            "gpuworkshop_leases",
            sa.Column(name, sa.Text, nullable=False, server_default=""),
        )


def downgrade() -> None:
    """Take the two columns away."""
    for name in ("engine_id", "engine"):
        op.drop_column("gpuworkshop_leases", name)
