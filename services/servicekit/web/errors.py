"""Error responses: `application/problem+json` (RFC 9457), and the table that maps exceptions to statuses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, current_app, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from servicekit.telemetry import logs, tracing

_MAX_FIELDS = 10  # the most fields that an answer names; the client can correct these and ask again
_MAX_NAME = 64  # characters; a field's name may be text from the client


class DependencyUnavailable(Exception):  # noqa: N818  # named after what happened
    """A dependency of this service did not answer in time."""

    def __init__(self, dependency: str) -> None:
        super().__init__(f"{dependency} is not available at the moment. Try again in a moment.")
        self.dependency = dependency


class InvalidRequest(Exception):  # noqa: N818
    """The request does not match the OpenAPI document.

    Args:
        location: The part of the request that is invalid: `body`, `query` or `header`.
        error: Pydantic's error.
    """

    def __init__(self, location: str, error: ValidationError) -> None:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        self.malformed = any(item["type"] == "json_invalid" for item in found)
        self.errors = [
            {
                "location": location,
                "field": ".".join(str(part) for part in item["loc"])[:_MAX_NAME] or location,
                "message": item["msg"],
            }
            for item in found[:_MAX_FIELDS]
        ]
        super().__init__("; ".join(f"{item['field']}: {item['message']}" for item in self.errors))


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457)."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field(description="A URI that names the kind of problem.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The response's status.", ge=400, le=599)
    detail: str = Field(description="What went wrong this time.")
    trace_id: str = Field(description="The request's trace id: quote it when asking for help.")


@dataclass(frozen=True)
class Problem:
    """A row of an error table.

    Attributes:
        status: The response's status.
        kind: The last part of the type URI, such as `parcel-not-found`.
        title: The kind of problem in words.
        headers: Further headers.
        challenge: The scheme of a 401's `WWW-Authenticate`, `Bearer` or `Basic`; the realm is the application.
    """

    status: int
    kind: str
    title: str
    headers: Mapping[str, str] = field(default_factory=dict)
    challenge: str = ""


ErrorTable = Mapping[type[Exception], Problem]

UNAUTHENTICATED = "unauthenticated"
"""The kind of problem for a request without a valid token."""

RETRY_AFTER = {"Retry-After": "1"}

TYPE = "servicekit.error_type"
"""The key in a request's environment for the type of an unexpected exception."""


APPLICATION = "application"
"""The key in an app's `extensions` for the application's name."""


def problem_type(kind: str) -> str:
    """Return the type URI of a kind of problem in the current app's application."""
    return f"urn:{_application()}:problem:{kind}"


def is_problem(body: object, kind: str) -> bool:
    """Whether another service's answer is a problem of this kind, in any application."""
    named = body.get("type") if isinstance(body, dict) else None
    return isinstance(named, str) and named.startswith("urn:") and named.endswith(f":problem:{kind}")


def _application() -> str:
    name: str = current_app.extensions[APPLICATION]
    return name


def problem_response(  # noqa: PLR0913  # the members of RFC 9457
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Response:
    """Make the response for an error.

    Args:
        status: HTTP status.
        kind: The last part of the type URI.
        title: The kind of problem in words.
        detail: What went wrong this time, without secrets.
        headers: Further headers.
        extensions: Further members of the body.

    Returns:
        A response with a problem+json body that carries the trace id.
    """
    ids = tracing.current_ids()
    body = {
        "type": problem_type(kind),
        "title": title,
        "status": status,
        "detail": detail,
        "trace_id": ids[0] if ids else "",
        **(extensions or {}),
    }
    response = Response(orjson.dumps(body), status, mimetype="application/problem+json")
    response.headers.update(headers or {})
    return response


def register(app: Flask, table: ErrorTable) -> None:
    """Make the app answer every error as problem+json.

    Args:
        app: The service's app.
        table: The service's own errors.
    """
    for kind, row in table.items():
        app.register_error_handler(kind, _handler_of(row))
    app.register_error_handler(DependencyUnavailable, _dependency_unavailable)
    app.register_error_handler(InvalidRequest, _invalid_request)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected_error)


def _handler_of(row: Problem) -> Callable[[Any], Response]:
    def handle(error: Exception) -> Response:
        return problem_response(
            row.status,
            row.kind,
            row.title,
            str(error),
            headers={**row.headers, "WWW-Authenticate": f'{row.challenge} realm="{_application()}"'}
            if row.challenge
            else row.headers,
        )

    return handle


def _dependency_unavailable(error: DependencyUnavailable) -> Response:
    # The client learns which dependency failed; the log also says why: refused, too slow, no free connection.
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else None
    logs.get_logger().warning("dependency.unavailable", dependency=error.dependency, cause=cause)
    return problem_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "dependency-unavailable",
        f"A part of the {_application()} is unavailable",
        str(error),
        headers=RETRY_AFTER,
    )


def _invalid_request(error: InvalidRequest) -> Response:
    status, kind, title = (
        (HTTPStatus.BAD_REQUEST, "malformed-json", "The body is not valid JSON")
        if error.malformed
        else (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request is not valid")
    )
    return problem_response(status, kind, title, str(error), extensions={"errors": error.errors})


def _http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return problem_response(
        status, status.name.lower().replace("_", "-"), status.phrase, status.description, headers=headers
    )


def _unexpected_error(error: Exception) -> Response:
    logs.get_logger().error("request.failed", exc_info=error)
    tracing.raised(error)
    request.environ[TYPE] = type(error).__qualname__  # for the request's span, which would otherwise say only 500
    return problem_response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal-error",
        "Internal error",
        f"Something went wrong in the {_application()}. The trace id finds the cause in its logs.",
    )
