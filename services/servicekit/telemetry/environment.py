"""OpenTelemetry's environment variables: which ones this kit supports, and what happens to invalid values.

The SDK reads most of them itself, but an unknown value in some of them ends the process. Its warnings about others do
not name the variable or the value that is used instead, and they quote the invalid value. The specification asks for a
warning and the default (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). So this
module checks all variables before the SDK reads them. It removes invalid ones and rewrites the others in the form that
the SDK knows: without surrounding spaces, and in lower case where case does not matter.
"""

import os
import re
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from urllib.parse import unquote, urlsplit

EXPORTERS = ("compact", "otlp", "console", "none")
"""Values of `OTEL_TRACES_EXPORTER` that this kit knows, in addition to installed entry points."""

_OTLP_IN_PYTHON = "otlp_proto_http"  # replaced by `otlp`: spans sent by this entry point would not be timed or counted

SAMPLERS = ("always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
            "parentbased_traceidratio")  # fmt: skip
"""Values of `OTEL_TRACES_SAMPLER` that the SDK knows, in addition to installed entry points."""

DAY_MS = 86_400_000
"""The value that replaces 0 where the specification says that 0 means "no limit"."""

_OF_DISTRO = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
"""Values that `opentelemetry-distro` sets if the user has not set the variable."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_TEXT = re.compile(r"[ !#-+\--:<-\[\]-~]*")  # what the exporter accepts; the rest must be percent-encoded
_ATTRIBUTE = re.compile(r"[^=,;\s]+")


@dataclass(frozen=True)
class Ignored:
    """A variable that was ignored.

    Attributes:
        variable: Its name. The value is left out, because it may be a secret.
        reason: Why its value is invalid.
    """

    variable: str
    reason: str


@dataclass(frozen=True)
class Variable:
    """An environment variable.

    Attributes:
        name: Its name.
        says: What it is for.
        default: The default: that of the specification, or another one that `why` explains.
        read: Takes a value and returns it in the form that the SDK expects, or an empty string to leave the variable
            unset. Raises ValueError for an invalid value; the message says what is wrong.
        why: Why the default or the valid values differ from the specification.
        ours: The default that is set here, because the SDK has a different one.
    """

    name: str
    says: str
    default: str
    read: Callable[[str], str]
    why: str = ""
    ours: str | None = None


def _anything(value: str) -> str:
    return value


def _one_of(*known: str, group: str = "") -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.lower() in known:
            return value.lower()
        for found in entry_points(group=group, name=value) if group else ():
            try:
                found.load()
            except Exception as error:  # an import of foreign code may raise anything
                raise ValueError("it is installed, but cannot be imported") from error
            return value
        raise ValueError(f"not one of {', '.join(known)}" + (", nor installed" if group else ""))

    return read


def _list_of(*known: str, group: str = "") -> Callable[[str], str]:
    one = _one_of(*known, group=group)

    def read(value: str) -> str:
        return ",".join(dict.fromkeys(one(item) for item in _items(value)))

    return read


def _exporters(value: str) -> str:
    names = ["otlp" if item.lower() == _OTLP_IN_PYTHON else item for item in _items(value)]
    return _list_of(*EXPORTERS, group="opentelemetry_traces_exporter")(",".join(names))


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _whole(least: int, *, counts_as: Mapping[int, int] | None = None) -> Callable[[str], str]:
    def read(value: str) -> str:
        plain = value.isascii() and value.isdecimal() and len(value) <= len(str(2**31))
        if not plain or not least <= int(value) < 2**31:
            raise ValueError(f"not a whole number from {least}")
        return str((counts_as or {}).get(int(value), int(value)))

    return read


_milliseconds = _whole(0, counts_as={0: DAY_MS})


def _url(value: str) -> str:
    try:
        url = urlsplit(value)
        valid = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid or not value.isprintable() or " " in value:
        raise ValueError("not a URL with http or https and a host")
    return value


def _pairs(value: str, fits: Callable[[str, str], bool]) -> str:
    for item in _items(value):
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not fits(name, text):
            raise ValueError("not key=value pairs, separated by commas, percent-encoded where need be")
    return ",".join(_items(value))


def _decoded(text: str) -> str | None:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return None


def _headers(value: str) -> str:
    def fits(name: str, text: str) -> bool:
        sent = _decoded(text) if _HEADER_TEXT.fullmatch(text) else None
        return bool(_HEADER_NAME.fullmatch(_decoded(name) or "")) and sent is not None and _is_latin(sent)

    return _pairs(value, fits)


def _is_latin(text: str) -> bool:
    """Whether a text can be a header's value: no line breaks, and only characters of Latin-1."""
    return text.isprintable() and all(ord(character) < 0x100 for character in text)  # noqa: PLR2004


def _attributes(value: str) -> str:
    return _pairs(value, lambda name, text: bool(_ATTRIBUTE.fullmatch(name)) and _decoded(text) is not None)


def _file(value: str) -> str:
    try:
        with open(value, "rb"):  # noqa: PTH123
            pass
    except (OSError, ValueError) as error:
        raise ValueError("not a file that can be read") from error
    return value


def _certificates(value: str) -> str:
    try:
        ssl.create_default_context(cafile=_file(value))
    except ssl.SSLError as error:
        raise ValueError("not a file of certificates in PEM") from error
    return value


def _share(value: str) -> str:
    try:
        valid = 0 <= float(value) <= 1
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("not a number from 0 to 1")
    return value


def _expressions(value: str) -> str:
    try:
        re.compile("|".join(_items(value)))  # without empty expressions, which would match everything
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError("not regular expressions, separated by commas") from error
    return ",".join(_items(value))


def _context(value: str) -> str:
    # Not loaded: that would import OpenTelemetry's API, which then loads the default.
    if value != "contextvars_context" and not entry_points(group="opentelemetry_context", name=value):
        raise ValueError("not contextvars_context, nor installed")
    return value


def _made_here(value: str) -> str:
    if value not in {"sdk_tracer_provider", "default_tracer_provider"}:
        raise ValueError("not sdk_tracer_provider")
    return ""  # if it stayed set, the API would create a provider that exports nothing


def _otlp(suffix: str, says: str, default: str, read: Callable[[str], str], why: str = "") -> tuple[Variable, Variable]:
    return (
        Variable(f"OTEL_EXPORTER_OTLP_{suffix}", says, default, read, why),
        Variable(f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", "The same, for traces; it wins.", "none", read),
    )


def _limit(name: str, says: str, default: str) -> Variable:
    return Variable(name, says, default, _whole(0))


VARIABLES: tuple[Variable, ...] = (
    Variable("OTEL_SDK_DISABLED", "`true`: no spans.", "`false`", _one_of("true", "false")),
    Variable(
        "OTEL_SERVICE_NAME",
        "`service.name`; it wins over that of `OTEL_RESOURCE_ATTRIBUTES`. Also `service` of log lines.",
        "the service's own",
        _anything,
        why="`unknown_service` would tell nobody anything.",
    ),
    Variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        "Further attributes of the resource. A `service.name` among them names log lines, too.",
        "none",
        _attributes,
    ),
    Variable(
        "OTEL_PROPAGATORS",
        "Which headers carry the context: `tracecontext`, `baggage`, `none`, or what is installed, such as `b3`.",
        "`tracecontext,baggage`",
        _list_of("tracecontext", "baggage", "none", group="opentelemetry_propagator"),
    ),
    Variable(
        "OTEL_TRACES_SAMPLER",
        f"Which traces are recorded: {', '.join(f'`{name}`' for name in SAMPLERS)}, or what is installed.",
        "`parentbased_always_on`",
        _one_of(*SAMPLERS, group="opentelemetry_traces_sampler"),
    ),
    Variable(
        "OTEL_TRACES_SAMPLER_ARG",
        "The share from 0 to 1, for samplers with `traceidratio`; what an installed one takes.",
        "`1`",
        _anything,
    ),
    Variable(
        "OTEL_TRACES_EXPORTER",
        "`compact`, `otlp` (or `otlp_proto_http`, Python's name for it), `console`, `none`, or what is installed;"
        " several with commas.",
        "`compact` with an endpoint, `none` without",
        _exporters,
        why="`compact` sends what `otlp` sends, and takes a third of its time to encode. A service that nobody gave an"
        " endpoint does not look for one on localhost.",
    ),
    Variable(
        "OTEL_METRICS_EXPORTER",
        "`prometheus`: `/metrics`. `none`: nothing is measured.",
        "`prometheus`",
        _list_of("prometheus", "none"),
        why="Metrics are scraped here: exemplars and `up` come free.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Root of an OTLP/HTTP receiver, with a path if it has one; `/v1/traces` is added.",
        "`http://localhost:4318`",
        _url,
    ),
    Variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "The whole URL for traces; it wins.", "none", _url),
    *_otlp("HEADERS", "Headers of each export, such as an API key.", "none", _headers),
    *_otlp(
        "TIMEOUT",
        "Milliseconds that an export may take, retries included; `0` is a day.",
        "`10000`",
        _milliseconds,
        why="Python's exporter by itself would take them for seconds.",
    ),
    *_otlp("COMPRESSION", "`none`, `gzip` or `deflate`.", "`none`", _one_of("none", "gzip", "deflate")),
    *_otlp("CERTIFICATE", "File with the certificates to trust.", "the system's", _certificates),
    *_otlp("CLIENT_CERTIFICATE", "File with the certificate to show.", "none", _certificates),
    *_otlp("CLIENT_KEY", "File with its private key.", "none", _file),
    *_otlp(
        "PROTOCOL",
        "`http/protobuf`.",
        "`http/protobuf`",
        _one_of("http/protobuf"),
        why="`grpc` and `http/json` are not there: the specification asks for one of the three.",
    ),
    Variable(
        "OTEL_BSP_SCHEDULE_DELAY",
        "Milliseconds between two exports; `0` is one.",
        "`200`",
        _whole(0, counts_as={0: 1}),
        why="The specification says 5000. Somebody who has just sent a request wants to see its trace.",
        ours="200",
    ),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "Spans that may wait; more are dropped and counted.", "`2048`", _whole(1)),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "Spans in an export; not above the queue's size.", "`512`", _whole(1)),
    Variable(
        "OTEL_BSP_EXPORT_TIMEOUT",
        "Milliseconds that an export may take, if `OTEL_EXPORTER_OTLP_TIMEOUT` is not less; `0` is a day.",
        "`30000`",
        _milliseconds,
    ),
    _limit("OTEL_ATTRIBUTE_COUNT_LIMIT", "Attributes of a span, an event, a link.", "`128`"),
    _limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "Characters of an attribute's value.", "no limit"),
    _limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "Attributes of a span.", "`128`"),
    _limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "Characters of the value of a span's attribute.", "no limit"),
    _limit("OTEL_SPAN_EVENT_COUNT_LIMIT", "Events of a span.", "`128`"),
    _limit("OTEL_SPAN_LINK_COUNT_LIMIT", "Links of a span.", "`128`"),
    _limit("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "Attributes of an event.", "`128`"),
    _limit("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "Attributes of a link.", "`128`"),
    Variable(
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "Which names instrumentations use: the stable ones of `http`, `database`, `messaging`, `rpc`, `code`, `k8s`, or"
        " both with `/dup` after it; `gen_ai_latest_experimental`.",
        "`http,database`",
        _list_of(
            *(
                f"{area}{both}"
                for area in ("http", "database", "messaging", "rpc", "code", "k8s")
                for both in ("", "/dup")
            ),
            "gen_ai_latest_experimental",
        ),
        why="The stable names, which the contract has.",
        ours="http,database",
    ),
    Variable(
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
        "Regular expressions, separated by commas, of request headers that the server span has as attributes.",
        "none",
        _expressions,
        why="Python's own. They leave the process only if the application's list names each"
        " (`http.request.header.x_tenant`); headers with a key or a token never do.",
    ),
    Variable(
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE",
        "The same, for the headers of the answer.",
        "none",
        _expressions,
        why="Python's own; as above.",
    ),
    Variable(
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS",
        "Those of them of which only `[REDACTED]` is recorded.",
        "none",
        _expressions,
        why="Python's own.",
    ),
    Variable(
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
        "What else describes the resource: `process`, `host`, `os`, or what is installed; `*` is all.",
        "none",
        _list_of("otel", "service_instance", "process", "host", "os", "*", group="opentelemetry_resource_detector"),
        why="Python's own.",
    ),
    Variable(
        "OTEL_PYTHON_TRACER_PROVIDER",
        "`sdk_tracer_provider`, which is what servicekit makes and sets up.",
        "`sdk_tracer_provider`",
        _made_here,
        why="Python's own. The API would make a provider without an exporter.",
    ),
    Variable(
        "OTEL_PYTHON_CONTEXT",
        "What keeps the current span: `contextvars_context`, or what is installed.",
        "`contextvars_context`",
        _context,
        why="Python's own.",
    ),
    Variable(
        "OTEL_PYTHON_FLASK_EXCLUDED_URLS",
        "Regular expressions, separated by commas, of URLs that get no span, nor does what is done for them; probes"
        " never do.",
        "none",
        _expressions,
        why="Python's own, not the specification's.",
    ),
    Variable(
        "OTEL_PYTHON_EXCLUDED_URLS",
        "The same, for all of Python's instrumentations, where they have none of their own.",
        "none",
        _expressions,
        why="Python's own, not the specification's.",
    ),
)
"""All supported variables, in the order of the documentation."""

CHECKED: tuple[Variable, ...] = (
    *(
        Variable(
            f"OTEL_PYTHON_{kind.upper()}_PROVIDER", "", "", _one_of(*known, group=f"opentelemetry_{kind}_provider")
        )
        for kind, known in (
            ("meter", ("default_meter_provider", "sdk_meter_provider")),
            ("logger", ("sdk_logger_provider",)),
        )
    ),
    *(
        Variable(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{kind}", "", "", _expressions)
        for kind in ("REQUEST", "RESPONSE")
    ),
)
"""Variables that only other instrumentation reads. An invalid value would end the process, or fail each request."""

_AT_IMPORT = ("OTEL_PYTHON_CONTEXT", "OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER",
              "OTEL_PYTHON_LOGGER_PROVIDER")  # fmt: skip
_found_at_import: list[Ignored] = []


def prepare_import() -> None:
    """Remove invalid values that OpenTelemetry's API reads on import, or when a library asks it for a tracer."""
    _found_at_import.extend(_read(os.environ, [each for each in (*VARIABLES, *CHECKED) if each.name in _AT_IMPORT]))


def prepare(environ: MutableMapping[str, str]) -> list[Ignored]:
    """Remove values that the SDK could not use, and set our own defaults.

    Args:
        environ: The environment; the SDK reads `os.environ`.

    Returns:
        The variables that were removed.
    """
    has_own_endpoint = bool(environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip())
    _take_out_defaults(environ)
    ignored = list(_read(environ, (*VARIABLES, *CHECKED)))
    _send_nowhere_else(environ, f"OTEL_EXPORTER_OTLP_{'TRACES_' if has_own_endpoint else ''}ENDPOINT", ignored)
    ignored.extend(_sampler_argument(environ))
    if environ is os.environ:
        ignored = [*_found_at_import, *ignored]
        _found_at_import.clear()
    for variable in VARIABLES:
        if variable.ours is not None:
            environ.setdefault(variable.name, variable.ours)
    queue, batch = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    if int(environ.get(batch, 512)) > (most := int(environ.get(queue, 2048))):
        if batch in environ:
            ignored.append(Ignored(batch, f"above {queue}"))
        environ[batch] = str(min(most, 512))
    return ignored


def _read(environ: MutableMapping[str, str], variables: Iterable[Variable]) -> Iterable[Ignored]:
    for variable in variables:
        value = environ.pop(variable.name, "").strip()
        try:
            value.encode()  # the operating system may have bytes that are no text
            if value and (read := variable.read(value)):  # by the specification, an empty value counts as unset
                environ[variable.name] = read
        except ValueError as error:
            reason = "not text" if isinstance(error, UnicodeError) else str(error)
            yield Ignored(variable.name, reason)


def _take_out_defaults(environ: MutableMapping[str, str]) -> None:
    """Remove values that `opentelemetry-distro` set, without a warning: the user did not set them."""
    if "opentelemetry.distro" in sys.modules:
        for name, value in _OF_DISTRO.items():
            if environ.get(name) == value:
                del environ[name]


def _send_nowhere_else(environ: MutableMapping[str, str], endpoint: str, ignored: Iterable[Ignored]) -> None:
    """If the endpoint is invalid, do not send to another one: the headers may contain a key for this endpoint."""
    others = "OTEL_EXPORTER_OTLP_ENDPOINT" in environ or "OTEL_TRACES_EXPORTER" in environ
    if others and any(each.variable == endpoint for each in ignored):
        names = _items(environ.get("OTEL_TRACES_EXPORTER", ""))
        kept = [name for name in names if name != "compact" and not name.startswith("otlp")]
        environ["OTEL_TRACES_EXPORTER"] = ",".join(kept) or "none"


def _sampler_argument(environ: MutableMapping[str, str]) -> Iterable[Ignored]:
    name, sampler = "OTEL_TRACES_SAMPLER_ARG", environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    if name in environ and sampler in SAMPLERS:
        try:
            if not sampler.endswith("traceidratio"):
                raise ValueError(f"{sampler} takes none")
            _share(environ[name])
        except ValueError as error:
            yield Ignored(name, str(error))
            del environ[name]


def measures(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `OTEL_METRICS_EXPORTER` asks for metrics. An unknown value counts as yes."""
    return {item.lower() for item in _items(environ.get("OTEL_METRICS_EXPORTER", ""))} != {"none"}


def service_name(environ: Mapping[str, str]) -> str | None:
    """Return the `service.name` that the environment sets, or None. Works before and after `prepare`.

    Args:
        environ: The environment.
    """
    named = environ.get("OTEL_SERVICE_NAME", "").strip()
    if named and _is_text(named):
        return named
    listed = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    try:
        pairs = [item.partition("=") for item in _items(_attributes(listed))] if _is_text(listed) else []
    except ValueError:
        pairs = []
    names = [unquote(text.strip()) for name, _, text in pairs if name.strip() == "service.name"]
    return names[-1] or None if names else None  # the last one counts, as in the SDK


def _is_text(value: str) -> bool:
    try:
        value.encode()  # the operating system may have bytes that are no text
    except UnicodeError:
        return False
    return True


def first(environ: Mapping[str, str], setting: str) -> str | None:
    """Return the setting for traces: `OTEL_EXPORTER_OTLP_TRACES_...`, else the variable for all signals.

    Args:
        environ: The environment, after `prepare`.
        setting: The last part of the variables' names, such as `TIMEOUT`.
    """
    names = (f"OTEL_EXPORTER_OTLP_TRACES_{setting}", f"OTEL_EXPORTER_OTLP_{setting}")
    return next((environ[name] for name in names if name in environ), None)
