"""Reading orders, on the wire."""

import pytest


@pytest.fixture
def three_orders(orders, signer):
    """Two orders of user 7 and one of user 8, in this order."""
    return [
        orders.post("/orders/", {"product_id": 1, "quantity": n}, signer.token(user)).json()
        for n, user in ((1, 7), (2, 8), (3, 7))
    ]


def test_a_user_sees_only_the_own_orders_newest_first(orders, token, three_orders):
    page = orders.get("/orders/", token).json()
    assert page == {"items": [three_orders[2], three_orders[0]], "next_cursor": None}


def test_an_admin_sees_all(orders, signer, three_orders):
    page = orders.get("/orders/", signer.token(1, "admin")).json()
    assert page["items"] == three_orders[::-1]


def test_pages_follow_one_another_without_gap_or_overlap(orders, token, signer, three_orders):
    first = orders.get("/orders/?limit=1", token).json()
    orders.post("/orders/", {"product_id": 1}, token)  # what comes in between disturbs nothing
    second = orders.get(f"/orders/?limit=1&cursor={first['next_cursor']}", token).json()
    assert [*first["items"], *second["items"]] == [three_orders[2], three_orders[0]]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=0", "cursor=x", "limit=1&limit=2", "x=1"])
def test_a_bad_query_is_422_and_names_the_parameter(orders, token, query):
    answer = orders.get(f"/orders/?{query}", token)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


def test_somebody_elses_order_is_404_as_one_that_does_not_exist(orders, signer, three_orders):
    theirs = orders.get(f"/orders/{three_orders[1]['id']}", signer.token(7))
    nobodys = orders.get("/orders/999999", signer.token(7))
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json()["type"] == nobodys.json()["type"]
    assert orders.get(f"/orders/{three_orders[1]['id']}", signer.token(1, "admin")).status_code == 200


@pytest.mark.parametrize("order_id", ["0", "-1", "x", "2147483648", "99999999999999999999", "1.0", "%00"])
def test_what_is_no_id_is_404(orders, token, order_id):
    assert orders.get(f"/orders/{order_id}", token).status_code == 404


def test_rows_written_by_hand_break_no_list(orders, signer, database, reconcile):
    for product in ("{}", "[]", '"text"', '{"id": null}'):
        database.run("INSERT INTO orders.orders (product, status) VALUES (%s, 'PENDING')", product)
    database.run("INSERT INTO orders.orders (product, status, created_at) VALUES ('{}', 'odd', NULL)")
    page = orders.get("/orders/", signer.token(1, "admin")).json()
    assert [item["status"] for item in page["items"]] == ["odd", *["PENDING"] * 4]
    reconcile()
    assert orders.metric("orders_pending") == 0


def test_without_the_database_the_answer_is_503_and_comes_quickly(own_postgres, settings, serve, token):
    from order_service.app import create_app  # noqa: PLC0415

    here = own_postgres.database
    orders = serve(
        create_app(
            settings.model_copy(
                update={
                    "database_port": here.port,
                    "database_name": here.name,
                    "database_password_file": here.password_file("orders_app"),
                }
            )
        )
    )
    assert orders.post("/orders/", {"product_id": 1}, token).status_code == 201
    own_postgres.stop()
    answer = orders.post("/orders/", {"product_id": 1}, token)
    assert answer.status_code == 503
    assert answer.elapsed.total_seconds() < 3
    assert orders.get("/readyz").status_code == 503
    assert orders.get("/healthz").status_code == 200
    own_postgres.start()
    assert orders.post("/orders/", {"product_id": 1}, token).status_code == 201
    assert orders.get("/readyz").status_code == 200
