import psycopg2
import pytest


def test_a_stopped_or_paused_server_answers_nothing_and_comes_back_with_its_rows(own_postgres):
    database = own_postgres.database
    database.run("INSERT INTO orders.orders (product, status) VALUES ('{}', 'PENDING')")

    own_postgres.pause()
    psycopg2.extensions.set_wait_callback(None)  # servicekit's, if another test of this process made a Database
    with pytest.raises(psycopg2.OperationalError, match="timeout expired"):
        database.connect(connect_timeout=2)
    own_postgres.resume()
    database.connect().close()

    own_postgres.stop()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        database.connect()
    own_postgres.start()
    assert database.run("SELECT count(*) FROM orders.orders", role="orders_app") == [(1,)]


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_has_a_fresh_database(database, time):
    database.run("INSERT INTO orders.orders (product, status) VALUES (to_jsonb(%s::TEXT), '')", time)

    assert database.run("SELECT product, id FROM orders.orders") == [(time, 1)]
