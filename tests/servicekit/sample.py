"""A small service made of servicekit alone: what the tests of servicekit send requests to."""

import sys
import threading
import time
from pathlib import Path
from typing import Annotated

from flask import Blueprint, abort, g
from pydantic import Field
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from servicekit.config import ServiceSettings, Settings, load
from servicekit.identity.auth import principal
from servicekit.telemetry.environment import measures
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.setup import Telemetry
from servicekit.web.app import make_app
from servicekit.web.openapi import MAX_ID, Answer, Body, Headers, Text, answers, create_api, document_blueprint
from servicekit.web.paging import PageQuery


class Note(Body):
    title: Annotated[Text, Field(min_length=1, max_length=20)]
    count: int = Field(1, ge=1, le=MAX_ID)
    ratio: float = 0.5
    flag: bool = False
    labels: dict[str, str] = Field(default_factory=dict)


class NoteHeaders(Headers):
    key: str | None = Field(None, alias="Idempotency-Key", min_length=1, max_length=8, pattern=r"^[\x21-\x7e]+$")


class NoteAnswer(Answer):
    title: str


class PageAnswer(Answer):
    limit: int
    before_id: int


class Marks(Settings):
    marks_dir: Path = Path()


def sample_app(  # noqa: C901
    *,
    peer=None,
    auth=None,
    database=None,
    error_table=None,
    metrics=None,
    settings=None,
    telemetry=None,
    extra=(),
    **options,
):
    """The app; `peer` is a ServiceClient, `auth` an Authenticator, `database` a Database, `extra` blueprints."""
    api = create_api("sample", "For tests.")
    routes = Blueprint("sample", __name__)

    @routes.post("/notes/")
    @api.validate(resp=answers({201: NoteAnswer}, 415, 422))
    def add_note(json: Note, headers: NoteHeaders):
        return NoteAnswer(title=headers.key or json.title), 201

    @routes.get("/notes/")
    @api.validate(resp=answers({200: PageAnswer}, 422))
    def list_notes(query: PageQuery):
        return PageAnswer(limit=query.limit, before_id=query.before_id)

    @routes.get(f"/notes/<int(min=1, max={MAX_ID}):note_id>")
    def read_note(note_id):
        return {"id": note_id}

    @routes.get("/failures/<kind>")
    def fail(kind):
        raise {**ERRORS, "unexpected": RuntimeError(MESSAGE)}[kind]

    @routes.get("/aborts/<int:status>")
    def stop_with(status):
        abort(status)

    if peer is not None:

        @routes.get("/calls/<int:thing_id>")
        def call(thing_id):
            return {"status": peer.get("/things/{thing_id}", thing_id=thing_id).status}

    if auth is not None:

        @routes.get("/whoami")
        @auth.required
        def whoami():
            return {"user_id": principal().user_id, "role": principal().role, "expires_at": g.token_expires_at}

    if database is not None:
        options.setdefault("ready_checks", [database.ping])

        @routes.get("/rows/<seconds>")
        def rows(seconds):
            database.fetch_one("SELECT pg_sleep", "SELECT pg_sleep(%(seconds)s)", {"seconds": float(seconds)})
            return {"pid": database.fetch_one("SELECT pid", "SELECT pg_backend_pid() AS pid")["pid"]}

    settings = settings or ServiceSettings()
    metrics = metrics or Metrics(enabled=measures())
    return make_app(
        "sample",
        settings,
        metrics,
        telemetry or Telemetry("sample", metrics.registry),
        blueprints=[routes, document_blueprint(api, "notes"), *extra],
        error_table=error_table or {},
        **options,
    )


MESSAGE = "canary-message"
"""What nobody may be told; it stands in no line that a stack trace would quote."""

ERRORS = {}
"""Name to exception: what `/failures/<name>` raises."""


def _die():
    raise RuntimeError("canary-message")


def create_app():
    """For gunicorn: a request for /slow says that it has begun, and ends when it is told to."""
    marks = Marks().marks_dir
    routes = Blueprint("slow", __name__)

    @routes.get("/slow")
    def slow():
        (marks / "begun").touch()
        deadline = time.monotonic() + 10
        while not (marks / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"finished": True}

    @routes.get("/large")
    def large():
        return {"text": "a" * 4_000_000}

    @routes.get("/thread")
    def thread():
        return {"thread": threading.get_ident()}

    @routes.get("/prints")
    def prints():
        print("to stdout")
        sys.stderr.write("to stderr\n")
        thread = threading.Thread(target=_die, name="doomed")
        thread.start()
        thread.join()
        return {}

    settings = load(ServiceSettings)
    metrics = Metrics(enabled=measures())
    telemetry = Telemetry("sample", metrics.registry)
    return sample_app(
        extra=[routes], settings=settings, metrics=metrics, telemetry=telemetry, tasks=[_Goodbye(telemetry.tracer)]
    )


def create_app_behind(middleware):
    """For gunicorn: what it is given is middleware around an app, or around two."""
    if middleware == "proxy":
        return ProxyFix(create_app())
    if middleware == "dispatcher":
        return DispatcherMiddleware(create_app(), {"/second": create_app()})
    app = create_app()

    def around(environ, start_response):
        return app(environ, start_response)

    return around


def create_app_of_others():
    """For gunicorn: an application that knows nothing of servicekit."""
    return lambda _environ, start_response: [start_response("204 No Content", []) and b""]


class _Goodbye:
    """A background task whose last round, at the very end, makes a span."""

    def __init__(self, tracer):
        self._tracer = tracer

    def start(self):
        pass

    def stop(self):
        with self._tracer.root("goodbye", {}):
            pass
