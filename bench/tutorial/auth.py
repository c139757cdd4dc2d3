"""A baseline, not an example to follow: the shop's order path as tutorials write it.

Flask's development server for each service, a new connection for each query and for each call, a token that
auth-service checks for every order, and no telemetry. `make bench` measures the shop beside it, behind the same gateway
and with the same tables.
"""

import os
import time

import jwt
from flask import Flask, jsonify, request

app = Flask(__name__)
SECRET = "a secret that everybody who reads the tutorial knows"  # noqa: S105


@app.get("/healthz")
def healthz():
    return jsonify(status="ok")


@app.post("/auth/login")
def login():
    body = request.get_json()
    if (body["username"], body["password"]) != ("admin", "password"):
        return jsonify(error="Wrong username or password"), 401
    token = jwt.encode({"sub": "1", "exp": int(time.time()) + 3600}, SECRET, algorithm="HS256")
    return jsonify(token=token)


@app.get("/auth/validate")
def validate():
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    except jwt.PyJWTError:
        return jsonify(error="Invalid token"), 401
    return jsonify(user_id=int(claims["sub"]))


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
