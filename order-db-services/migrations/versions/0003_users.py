"""Give user-service its schema."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create schema and table `users`, for users_app only."""
    op.execute("CREATE SCHEMA users")
    op.execute("""
        CREATE TABLE users.users (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            username VARCHAR(32) NOT NULL,
            password_hash VARCHAR(255) NOT NULL,
            role VARCHAR(16) NOT NULL DEFAULT 'customer' CHECK (role IN ('customer', 'admin')),
            created_at TIMESTAMPTZ NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE UNIQUE INDEX users_username_key ON users.users (lower(username))")
    op.execute("GRANT USAGE ON SCHEMA users TO users_app")
    op.execute("GRANT SELECT, INSERT ON users.users TO users_app")


def downgrade() -> None:
    """Drop the table with every user in it, and the schema if nobody put anything else there."""
    op.execute("DROP TABLE users.users")
    op.execute("DROP SCHEMA users")
