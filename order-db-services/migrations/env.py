"""How Alembic runs a migration here: in the transaction that migrate.py began."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run order-db-services/migrate.py instead: it waits for the server and keeps others out.")

# The version table is public.alembic_version: where people look for it, in no schema that a downgrade drops.
context.configure(connection=connection, version_table_schema="public")
with context.begin_transaction():
    context.run_migrations()
