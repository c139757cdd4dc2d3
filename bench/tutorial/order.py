"""A part of the baseline, see auth.py."""

import json
import os
from pathlib import Path

import psycopg2
import requests
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


@app.post("/orders/")
def place_order():
    headers = {"Authorization": request.headers.get("Authorization", "")}
    answer = requests.get(os.environ["AUTH_URL"] + "/auth/validate", headers=headers, timeout=5)
    if answer.status_code != 200:
        return jsonify(error="Unauthorized"), 401
    user_id = answer.json()["user_id"]

    body = request.get_json()
    answer = requests.get(os.environ["PRODUCT_URL"] + f"/products/{body['product_id']}", timeout=5)
    if answer.status_code != 200:
        return jsonify(error="Product not found"), 404
    product = answer.json()

    quantity = body.get("quantity", 1)
    order_id, created_at = query(
        "INSERT INTO orders.orders (user_id, product, quantity, status) VALUES (%s, %s, %s, 'PENDING')"
        " RETURNING id, created_at",
        (user_id, json.dumps(product), quantity),
    )

    charge = {
        "order_id": order_id,
        "user_id": user_id,
        "amount_minor": product["unit_price_minor"] * quantity,
        "currency": product["currency"],
    }
    payment = requests.post(os.environ["PAYMENT_URL"] + "/internal/charges", json=charge, timeout=5).json()
    (status,) = query(
        "UPDATE orders.orders SET status = %s, payment_id = %s WHERE id = %s RETURNING status",
        (payment["outcome"], payment["id"], order_id),
    )
    order = {"id": order_id, "status": status, "product": product, "quantity": quantity, "created_at": str(created_at)}
    return jsonify(order), 201 if status == "PAID" else 402


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
