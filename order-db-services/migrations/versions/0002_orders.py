"""Give an order its owner, quantity, payment and idempotency key."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and indexes beside the rows that are there.

    No row is rewritten (the defaults are constants); building the indexes blocks writes meanwhile.
    """
    op.execute("""
        ALTER TABLE orders.orders
            ADD COLUMN user_id BIGINT,
            ADD COLUMN quantity INTEGER NOT NULL DEFAULT 1,
            ADD COLUMN idempotency_key VARCHAR(255),
            ADD COLUMN payment_id BIGINT,
            ADD COLUMN updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
            -- When the reconciler may take a PENDING order. Never, for an order from before there were
            -- payments: nobody has agreed to pay it, and its product may be anything.
            ADD COLUMN charge_after TIMESTAMPTZ NOT NULL DEFAULT 'infinity',
            ADD CONSTRAINT orders_quantity_check CHECK (quantity BETWEEN 1 AND 100),
            ADD CONSTRAINT orders_idempotency_key UNIQUE (user_id, idempotency_key)
    """)
    op.execute("ALTER TABLE orders.orders ALTER COLUMN charge_after SET DEFAULT now()")
    op.execute("CREATE INDEX orders_user_id_id_idx ON orders.orders (user_id, id DESC)")
    op.execute("CREATE INDEX orders_pending_idx ON orders.orders (charge_after) WHERE status = 'PENDING'")
    op.execute("GRANT USAGE ON SCHEMA orders TO orders_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON orders.orders TO orders_app")
    op.execute("GRANT USAGE ON SEQUENCE orders.orders_id_seq TO orders_app")


def downgrade() -> None:
    """Go back to the four columns of the init SQL. Every row stays; the added columns' data is lost."""
    op.execute("REVOKE ALL ON SEQUENCE orders.orders_id_seq FROM orders_app")
    op.execute("REVOKE ALL ON orders.orders FROM orders_app")
    op.execute("REVOKE ALL ON SCHEMA orders FROM orders_app")
    # Their indexes and constraints go with the columns, except for this one, which also names `status`.
    op.execute("DROP INDEX orders.orders_pending_idx")
    op.execute("""
        ALTER TABLE orders.orders
            DROP COLUMN user_id,
            DROP COLUMN quantity,
            DROP COLUMN idempotency_key,
            DROP COLUMN payment_id,
            DROP COLUMN updated_at,
            DROP COLUMN charge_after
    """)
