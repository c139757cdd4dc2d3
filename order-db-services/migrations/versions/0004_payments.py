"""Give payment-service its schema."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create schema and table `payments`, for payments_app only."""
    op.execute("CREATE SCHEMA payments")
    op.execute("""
        CREATE TABLE payments.payments (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            idempotency_key VARCHAR(64) NOT NULL UNIQUE,
            order_id BIGINT NOT NULL,
            user_id BIGINT,
            amount_minor BIGINT NOT NULL CHECK (amount_minor >= 0),
            currency CHAR(3) NOT NULL,
            outcome VARCHAR(16) NOT NULL CHECK (outcome IN ('PAID', 'DECLINED')),
            decline_reason VARCHAR(64),
            created_at TIMESTAMPTZ NOT NULL DEFAULT now()
        )
    """)
    op.execute("GRANT USAGE ON SCHEMA payments TO payments_app")
    op.execute("GRANT SELECT, INSERT ON payments.payments TO payments_app")


def downgrade() -> None:
    """Drop the table with every payment in it, and the schema if nobody put anything else there."""
    op.execute("DROP TABLE payments.payments")
    op.execute("DROP SCHEMA payments")
