-- Runs once, on an empty volume, in the database orders_user as the role orders_user:
-- by the postgres image's entrypoint in Compose, by local/postgres.py in local mode.
-- Never edit it to change an existing database: everything after this table is a migration (../migrations).

CREATE SCHEMA orders;

CREATE TABLE orders.orders (
    id SERIAL PRIMARY KEY,
    product JSONB NOT NULL,
    status VARCHAR(50) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
