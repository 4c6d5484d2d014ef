"""Leases, and the devices that each (user, server) had last.

Revision ID: 0001
Revises: nothing, it is the first
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables from nothing to this shape."""
    op.create_table(
        "gpuworkshop_leases",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column("server_name", sa.Text, nullable=False),
        sa.Column("share", sa.Text, nullable=False),
        sa.Column("exclusive", sa.Boolean, nullable=False),
        sa.Column("devices", sa.Text, nullable=False),
        sa.Column("granted_at", sa.Double, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "gpuworkshop_one_active_lease",
        "gpuworkshop_leases",
        ["user_name", "server_name"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "gpuworkshop_previous",
        sa.Column("user_name", sa.Text, primary_key=True),
        sa.Column("server_name", sa.Text, primary_key=True),
        sa.Column("devices", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Bring the tables back to nothing."""
    op.drop_table("gpuworkshop_previous")
    op.drop_table("gpuworkshop_leases")
