"""A part of the baseline, see auth.py."""

import json
import os
from pathlib import Path

from flask import Flask, jsonify

app = Flask(__name__)
CATALOGUE = Path("services/product/src/product_service/catalogue.json")
PRODUCTS = {product["id"]: product for product in json.loads(CATALOGUE.read_text())}


@app.get("/healthz")
def healthz():
    return jsonify(status="ok")


@app.get("/products/")
def list_products():
    return jsonify(list(PRODUCTS.values()))


@app.get("/products/<int:product_id>")
def read_product(product_id):
    if product_id not in PRODUCTS:
        return jsonify(error="Product not found"), 404
    return jsonify(PRODUCTS[product_id])


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
