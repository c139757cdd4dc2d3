"""A part of the baseline, see auth.py."""

import os
from pathlib import Path

import psycopg2
from flask import Flask, jsonify, request

app = Flask(__name__)


def query(statement, values):
    connection = psycopg2.connect(
        host=os.environ["DATABASE_HOST"],
        port=os.environ["DATABASE_PORT"],
        dbname=os.environ["DATABASE_NAME"],
        user=os.environ["DATABASE_USER"],
        password=Path(os.environ["DATABASE_PASSWORD_FILE"]).read_text().strip(),
    )
    cursor = connection.cursor()
    cursor.execute(statement, values)
    row = cursor.fetchone()
    connection.commit()
    cursor.close()
    connection.close()
    return row


@app.get("/healthz")
def healthz():
    return jsonify(status="ok")


@app.post("/internal/charges")
def charge():
    body = request.get_json()
    key = f"order-{body['order_id']}"
    row = query("SELECT id, outcome FROM payments.payments WHERE idempotency_key = %s", (key,))
    if row is None:
        outcome = "PAID" if body["amount_minor"] <= 100000 else "DECLINED"
        row = query(
            "INSERT INTO payments.payments (idempotency_key, order_id, user_id, amount_minor, currency, outcome)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id, outcome",
            (key, body["order_id"], body["user_id"], body["amount_minor"], body["currency"], outcome),
        )
    return jsonify(id=row[0], outcome=row[1]), 201


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
