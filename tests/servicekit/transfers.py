"""An app of somebody's own with no limits of its own, instrumented: for test_transfers.py."""

import os

from flask import Flask, Response, request, send_file

from servicekit.service import Service

app = Flask(__name__)
Service("transfers").instrument(app)


@app.post("/data")
def data():
    return {"got": len(request.get_data())}


@app.post("/stream")
def stream():
    return {"got": sum(len(piece) for piece in iter(lambda: request.stream.read(10_000), b""))}


@app.post("/files")
def files():
    return {"got": len(request.files["file"].read())}


@app.post("/unread")
def unread():
    return {"got": 0}


@app.get("/large/<int:size>")
def large(size):
    return Response(b"x" * size)


@app.get("/pieces/<int:count>/<int:size>")
def pieces(count, size):
    return Response(b"x" * size for _ in range(count))


@app.get("/file")
def file():
    return send_file(os.environ["SENT_FILE"], mimetype="text/plain")
