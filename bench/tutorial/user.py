"""A part of the baseline, see auth.py. No order asks it; it is there because a tutorial has it."""

import os

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/healthz")
def healthz():
    return jsonify(status="ok")


@app.get("/users/<int:user_id>")
def read_user(user_id):
    return jsonify(id=user_id, username="admin")


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
