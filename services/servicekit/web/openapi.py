"""Validation and the OpenAPI document, both from the Pydantic models of the views, by SpecTree."""

import copy
import functools
import json
from datetime import datetime
from typing import Annotated, Any, TypeVar

from flask import Blueprint, Request, jsonify
from flask import Response as FlaskResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError
from spectree import Response, SecurityScheme, SpecTree
from spectree.models import SecureType, SecuritySchemeData
from spectree.plugins.base import Context
from spectree.plugins.flask_plugin import FlaskPlugin
from spectree.plugins.werkzeug_utils import flask_response_unpack
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from servicekit.web.errors import InvalidRequest, ProblemDetails


def _digits(text: object) -> object:
    if isinstance(text, str) and not (text.isascii() and text.isdigit()):
        raise ValueError("Input should be a valid integer")
    return text


MAX_ID = 2**31 - 1
"""The largest id: the maximum of PostgreSQL's SERIAL."""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text without control characters: PostgreSQL cannot store NUL, and names have no line breaks."""

DIGITS = BeforeValidator(_digits)
"""Validates an integer in a query string: rejects `1.0`, `+1` and `1_0`, which Python's `int` accepts.

Put it last in an `Annotated`; otherwise the bounds before it are missing from the OpenAPI document.
"""

BEARER: dict[str, list[str]] = {"bearer": []}
"""`security=BEARER` documents that a view needs a token; `Authenticator.required` is what checks it."""

_ALWAYS_POSSIBLE = (400, 408, 413, 414, 417, 429, 431, 500, 502, 503, 504)  # includes the gateway's own answers


class Body(BaseModel):
    """The base of request bodies: no unknown fields, no conversion between JSON types (`true` is not an integer)."""

    # NaN and Infinity are not JSON (RFC 8259), though Pydantic accepts them.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Query(BaseModel):
    """The base of query strings: no unknown parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Headers(BaseModel):
    """The base of header models; undeclared headers are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    PlainSerializer(_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in an answer, always with a fraction; Pydantic and `isoformat` omit it if it is 0."""


class Answer(BaseModel):
    """The base of response bodies."""

    model_config = ConfigDict(frozen=True)


_M = TypeVar("_M", bound=BaseModel)


class _StrictFlaskPlugin(FlaskPlugin):
    """SpecTree's plugin, but a body that is not JSON is an error instead of an empty object.

    It is also faster. SpecTree's own plugin converts an answer to a dictionary before it makes JSON of it, and copies
    all headers to read one.
    """

    def request_validation(  # noqa: PLR0913, PLR0917  # the signature is SpecTree's
        self,
        request: Request,
        query: type[BaseModel] | None,
        json: type[BaseModel] | None,
        form: type[BaseModel] | None,
        headers: type[BaseModel] | None,
        cookies: type[BaseModel] | None,
    ) -> None:
        assert form is None and cookies is None, "neither forms nor cookies are taken here"  # noqa: S101, PT018
        context = Context(
            query=_validated("query", query, _single_values(request)) if query else None,
            json=_validated_json(json, request) if json else None,
            form=None,
            headers=_validated("header", headers, _declared_headers(headers, request)) if headers else None,
            cookies=None,
        )
        request.context = context  # type: ignore[attr-defined]  # where SpecTree looks for it

    def validate_response(self, resp: Any, resp_model: Response | None, *args: Any) -> tuple[FlaskResponse, Any]:
        answer, status, headers = flask_response_unpack(resp)
        if resp_model is None or not isinstance(answer, BaseModel) or type(answer) is not resp_model.find_model(status):
            checked: tuple[FlaskResponse, Any] = super().validate_response(resp, resp_model, *args)
            return checked
        body = answer.__pydantic_serializer__.to_json(answer)  # a model was validated when it was created
        return FlaskResponse(body, status, headers, content_type="application/json"), None


def _declared_headers(model: type[BaseModel], request: Request) -> dict[str, str | list[str]]:
    # Each declared header has one value. WSGI joins repeated headers with a comma, as a proxy may. The value then
    # becomes a list, which no model accepts.
    given = request.environ
    return {
        name: given[variable].split(",") if "," in given[variable] else given[variable]
        for name, variable in _header_variables(model).items()
        if variable in given
    }


@functools.cache
def _header_variables(model: type[BaseModel]) -> dict[str, str]:
    names = [field.alias or name for name, field in model.model_fields.items()]
    return {name: f"HTTP_{name.upper().replace('-', '_')}" for name in names}


def _single_values(request: Request) -> dict[str, str | list[str]]:
    # A repeated parameter stays a list, which no model accepts: it is unclear which value was meant.
    return {
        name: values[0] if len(values) == 1 else values for name, values in request.args.to_dict(flat=False).items()
    }


def _validated(location: str, model: type[_M], values: dict[str, Any]) -> _M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(location, error) from None


def _validated_json(model: type[_M], request: Request) -> _M:
    if not request.is_json or request.content_encoding not in {None, "", "identity"}:
        raise UnsupportedMediaType
    body = request.get_data(cache=False)
    if request.content_length is None and len(body) == request.max_content_length:
        raise RequestEntityTooLarge  # Werkzeug truncates a chunked body at the limit without an error
    try:
        validated = model.model_validate_json(body)
        json.loads(body, object_pairs_hook=_distinct)
    except ValidationError as error:
        raise InvalidRequest("body", error) from None
    return validated


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject an object with a repeated member: parsers disagree on which one counts (RFC 8259)."""
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            # With the error type for a body that is not JSON.
            problem = PydanticCustomError("json_invalid", "Invalid JSON: the same name twice in an object")
            raise ValidationError.from_exception_data("", [{"type": problem, "loc": (name,), "input": None}])
        found[name] = value
    return found


def create_api(title: str, description: str) -> SpecTree:
    """Create the object whose `validate` decorates an app's views.

    Args:
        title: The API's name in the document.
        description: What it is for.
    """
    return SpecTree(
        backend=_StrictFlaskPlugin,
        title=title,
        description=description,
        version="1.0.0",
        mode="strict",
        before=lambda *_: None,
        after=_response_checked,
        validation_error_model=ProblemDetails,
        naming_strategy=lambda model: model.__name__,
        nested_naming_strategy=lambda _parent, name: name,
        security_schemes=[
            SecurityScheme(
                name="bearer",
                data=SecuritySchemeData(type=SecureType.HTTP, scheme="bearer", bearer_format="JWT"),
            )
        ],
    )


def _response_checked(_request: Any, _response: Any, error: Exception | None, *_: Any) -> None:
    if error is not None:  # an answer that does not match the document is our bug, so it becomes a 500
        raise error


def answers(success: dict[int, type[BaseModel] | None], *problems: int) -> Response:
    """Declare a view's responses.

    Args:
        success: The body model for each status; None for an empty body.
        problems: Error statuses of this view, in addition to those that any request can get.
    """
    models: dict[str, Any] = {f"HTTP_{status}": model for status, model in success.items()}
    for status in sorted({*problems, *_ALWAYS_POSSIBLE}):
        models[f"HTTP_{status}"] = ProblemDetails
    return Response(**models)


def document_blueprint(api: SpecTree, prefix: str) -> Blueprint:
    """Serve the OpenAPI document at `/<prefix>/openapi.json`, without the internal routes.

    Args:
        api: The app's SpecTree.
        prefix: The service's public prefix, such as `parcels`.
    """
    blueprint = Blueprint("openapi", __name__)
    published: dict[str, Any] = {}  # created at the first request, when all routes are registered

    @blueprint.get(f"/{prefix}/openapi.json")
    def openapi_document() -> FlaskResponse:
        if not published:
            published.update(_published(api.spec))
        return jsonify(published)

    return blueprint


def _published(spec: dict[str, Any]) -> dict[str, Any]:
    """Remove internal routes, and set the content type of errors to problem+json."""
    spec = copy.deepcopy(spec)
    spec["paths"] = {path: item for path, item in spec["paths"].items() if not path.startswith("/internal/")}
    for item in spec["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if status >= "400" and "content" in response:
                    response["content"] = {"application/problem+json": response["content"]["application/json"]}
    return spec
