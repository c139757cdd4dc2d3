"""${message}."""

from alembic import op

revision = "${up_revision}"
down_revision = "${down_revision}"


def upgrade() -> None:
    """Say what it adds."""
    op.execute("")


def downgrade() -> None:
    """Take it away again, and say which data is lost."""
    op.execute("")
