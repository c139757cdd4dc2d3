"""Let an order say in which trace it was placed."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a column beside the rows that are there, which keep NULL: nobody traced them."""
    op.execute("ALTER TABLE orders.orders ADD COLUMN traceparent VARCHAR(55)")


def downgrade() -> None:
    """Drop the column. Every order stays; where its trace is, is lost."""
    op.execute("ALTER TABLE orders.orders DROP COLUMN traceparent")
