"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Say what it adds."""
    op.execute("")


def downgrade() -> None:
    """Take it away again, and say which data is lost."""
    op.execute("")
