"""Give each service a role of its own, and everybody else nothing."""

from alembic import op

revision = "0001"
down_revision = None

ROLES = ("orders_app", "users_app", "payments_app")


def upgrade() -> None:
    """Create the roles, without passwords: migrate.py sets them."""
    op.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    _on_database("REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC")
    for role in ROLES:
        # Roles belong to the whole cluster: another of its databases may have made this one, even just now.
        op.execute(f"""
            DO $$ BEGIN
                CREATE ROLE {role} LOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END $$
        """)
        _on_database(f"GRANT CONNECT ON DATABASE %I TO {role}")


def downgrade() -> None:
    """Drop the roles and open the database again, as PostgreSQL makes it.

    CREATE on schema public stays revoked: that is PostgreSQL's own default since version 15.
    """
    for role in ROLES:
        # Not DROP OWNED: that would take the role's right to connect to the cluster's other databases too.
        _on_database(f"REVOKE CONNECT ON DATABASE %I FROM {role}")
        # A role that something still depends on (another database, a grant made by hand) is kept.
        op.execute(f"""
            DO $$ BEGIN
                DROP ROLE {role};
            EXCEPTION WHEN dependent_objects_still_exist THEN
                RAISE NOTICE 'role {role} is still in use and is kept';
            END $$
        """)
    _on_database("GRANT CONNECT, TEMPORARY ON DATABASE %I TO PUBLIC")


def _on_database(statement: str) -> None:
    op.execute(f"DO $$ BEGIN EXECUTE format('{statement}', current_database()); END $$")
