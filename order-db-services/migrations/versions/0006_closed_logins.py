"""Let a login be closed: users_app may set that, and changes nothing else about a user."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add when a login was closed; nobody's is."""
    op.execute("ALTER TABLE users.users ADD COLUMN closed_at TIMESTAMPTZ")
    op.execute("GRANT UPDATE (closed_at) ON users.users TO users_app")


def downgrade() -> None:
    """Drop the column. What was closed stays so, by a hash that no password has: the code before this would open it."""
    op.execute("UPDATE users.users SET password_hash = '-' WHERE closed_at IS NOT NULL")
    op.execute("ALTER TABLE users.users DROP COLUMN closed_at")
