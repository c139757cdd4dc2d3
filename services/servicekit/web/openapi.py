"""Validation and the OpenAPI document from one source: the Pydantic models on the views, through SpecTree."""

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
"""The largest id: what PostgreSQL's SERIAL holds."""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text without control characters: PostgreSQL stores no NUL, and nobody's name has a line break."""

DIGITS = BeforeValidator(_digits)
"""For an integer in a query string: it is written as one, not as `1.0`, `+1` or `1_0`, which Python takes too.

It stands last in an `Annotated`, or the bounds before it are missing from the document.
"""

BEARER: dict[str, list[str]] = {"bearer": []}
"""`security=BEARER` says in the document that a view wants a token; `Authenticator.required` is what asks for it."""

_ALWAYS_POSSIBLE = (400, 408, 413, 414, 417, 429, 431, 500, 502, 503, 504)  # the gateway's own answers among them


class Body(BaseModel):
    """The base of request bodies: no unknown fields, and a JSON type is that type (`true` is no integer)."""

    # NaN and Infinity are no JSON (RFC 8259), though Pydantic reads them.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Query(BaseModel):
    """The base of query strings: no unknown parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Headers(BaseModel):
    """The base of header models: only the declared headers are looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    PlainSerializer(_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in an answer, always of one length: Pydantic, as `isoformat`, leaves the fraction out when it is 0."""


class Answer(BaseModel):
    """The base of response bodies."""

    model_config = ConfigDict(frozen=True)


_M = TypeVar("_M", bound=BaseModel)


class _StrictFlaskPlugin(FlaskPlugin):
    """SpecTree's plugin, but a body that is no JSON is an error instead of an empty object.

    And quicker: SpecTree's own turns an answer into JSON by way of a dictionary, and copies all headers to read one.
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
        body = answer.__pydantic_serializer__.to_json(answer)  # a model is valid since it was made
        return FlaskResponse(body, status, headers, content_type="application/json"), None


def _declared_headers(model: type[BaseModel], request: Request) -> dict[str, str | list[str]]:
    # Those declared here have one value each. WSGI joins a header that is given twice with a comma, as a proxy may: it
    # becomes a list, which no model takes.
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
    # A parameter given twice stays a list, which no model takes: guessing which one was meant helps nobody.
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
        raise RequestEntityTooLarge  # Werkzeug cuts a chunked body at the limit, and half a body is no request
    try:
        validated = model.model_validate_json(body)
        json.loads(body, object_pairs_hook=_distinct)
    except ValidationError as error:
        raise InvalidRequest("body", error) from None
    return validated


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that names a member twice: Pydantic takes the last, somebody else the first (RFC 8259)."""
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            # With the type that says that the body is no JSON.
            problem = PydanticCustomError("json_invalid", "Invalid JSON: the same name twice in an object")
            raise ValidationError.from_exception_data("", [{"type": problem, "loc": (name,), "input": None}])
        found[name] = value
    return found


def create_api(title: str, description: str) -> SpecTree:
    """Make the object whose `validate` decorates an app's views.

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
    if error is not None:  # a view that breaks its own document is our bug: a 500, not a surprise to clients
        raise error


def answers(success: dict[int, type[BaseModel] | None], *problems: int) -> Response:
    """Declare a view's responses.

    Args:
        success: Status to body model, None for an empty body.
        problems: Error statuses of this view beside those that any request can get.
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
    published: dict[str, Any] = {}  # made once, when it is first asked for: the routes are all there then

    @blueprint.get(f"/{prefix}/openapi.json")
    def openapi_document() -> FlaskResponse:
        if not published:
            published.update(_published(api.spec))
        return jsonify(published)

    return blueprint


def _published(spec: dict[str, Any]) -> dict[str, Any]:
    """Leave out internal routes, and say that errors are problem+json."""
    spec = copy.deepcopy(spec)
    spec["paths"] = {path: item for path, item in spec["paths"].items() if not path.startswith("/internal/")}
    for item in spec["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if status >= "400" and "content" in response:
                    response["content"] = {"application/problem+json": response["content"]["application/json"]}
    return spec
