"""OpenTelemetry's environment variables: what this kit honours, and what happens to a value that cannot be one.

The SDK reads most of them itself. Some of them, with a value that it does not know, end the process; its warnings about
others say neither which variable it was nor what counts instead. The specification wants a warning and the default
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). So they are all looked at first,
and one that will not do is taken out.
"""

import math
import os
import re
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from urllib.parse import urlsplit

EXPORTERS = ("compact", "otlp", "console", "none")
"""What this kit knows of `OTEL_TRACES_EXPORTER`, beside installed entry points."""

_SAMPLERS = ("always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
             "parentbased_traceidratio")  # fmt: skip
_PAIR = re.compile(r"\s*[^=,;\s]+\s*=[^,]*")


@dataclass(frozen=True)
class Problem:
    """A variable that was ignored.

    Attributes:
        variable: Its name. Its value is not told: it may be a secret.
        reason: What a value has to be.
    """

    variable: str
    reason: str


@dataclass(frozen=True)
class Variable:
    """An environment variable.

    Attributes:
        name: Its name.
        says: What it is for.
        default: What counts without it, as the specification says, or as `why` explains.
        fits: Raises ValueError, with what a value has to be, for one that will not do.
        why: Why the default is another one than the specification's.
        ours: The default that is set here, because the SDK's own is another one.
    """

    name: str
    says: str
    default: str
    fits: Callable[[str], None]
    why: str = ""
    ours: str | None = None


def _anything(_value: str) -> None:
    pass


def _one_of(*known: str, group: str = "") -> Callable[[str], None]:
    def fits(value: str) -> None:
        if value.strip().lower() not in known and not (group and entry_points(group=group, name=value.strip())):
            raise ValueError(f"not one of {', '.join(known)}" + (", nor installed" if group else ""))

    return fits


def _list_of(*known: str, group: str) -> Callable[[str], None]:
    one = _one_of(*known, group=group)

    def fits(value: str) -> None:
        for item in value.split(","):
            one(item)

    return fits


def _whole(least: int) -> Callable[[str], None]:
    def fits(value: str) -> None:
        if not (value.strip().isascii() and value.strip().isdecimal() and least <= int(value) < 2**31):
            raise ValueError(f"not a whole number from {least}")

    return fits


def _url(value: str) -> None:
    url = urlsplit(value)
    try:
        valid = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in value):
        raise ValueError("not a URL with http or https and a host")


def _pairs(value: str) -> None:
    if not all(_PAIR.fullmatch(item) for item in value.split(",") if item.strip()):
        raise ValueError("not key=value pairs, separated by commas")


def _readable(value: str) -> None:
    try:
        with open(value, "rb"):  # noqa: PTH123
            pass
    except OSError as error:
        raise ValueError("not a file that can be read") from error


def _share(value: str) -> None:
    try:
        valid = 0 <= float(value) <= 1
    except ValueError:
        valid = False
    if not valid or math.isnan(float(value)):
        raise ValueError("not a number from 0 to 1")


def _otlp(suffix: str, says: str, default: str, fits: Callable[[str], None]) -> tuple[Variable, ...]:
    return (
        Variable(f"OTEL_EXPORTER_OTLP_{suffix}", says, default, fits),
        Variable(f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", "The same, for traces; it wins.", "", fits),
    )


def _limit(name: str, says: str, default: str) -> Variable:
    return Variable(name, says, default, _whole(0))


VARIABLES: tuple[Variable, ...] = (
    Variable("OTEL_SDK_DISABLED", "`true`: no spans.", "`false`", _one_of("true", "false")),
    Variable("OTEL_SERVICE_NAME", "`service.name`, and the name in log lines.", "the service's own", _anything),
    Variable("OTEL_RESOURCE_ATTRIBUTES", "Further attributes of the resource.", "none", _pairs),
    Variable(
        "OTEL_PROPAGATORS",
        "Which headers carry the context.",
        "`tracecontext,baggage`",
        _list_of("tracecontext", "baggage", "none", group="opentelemetry_propagator"),
    ),
    Variable(
        "OTEL_TRACES_SAMPLER",
        "Which traces are recorded.",
        "`parentbased_always_on`",
        _one_of(*_SAMPLERS, group="opentelemetry_traces_sampler"),
    ),
    Variable("OTEL_TRACES_SAMPLER_ARG", "The share, for samplers with `traceidratio`.", "`1`", _share),
    Variable(
        "OTEL_TRACES_EXPORTER",
        "`compact`, `otlp`, `console`, `none`, or what is installed; several with commas.",
        "`compact` with an endpoint, `none` without",
        _list_of(*EXPORTERS, group="opentelemetry_traces_exporter"),
        why="`compact` sends what `otlp` sends, and takes a sixth of its time to encode. A service that nobody gave an"
        " endpoint does not look for one on localhost.",
    ),
    Variable(
        "OTEL_METRICS_EXPORTER",
        "`prometheus`: `/metrics`. `none`: nothing is measured.",
        "`prometheus`",
        _one_of("prometheus", "none"),
        why="Metrics are scraped here: exemplars and `up` come free.",
    ),
    *_otlp("ENDPOINT", "Root of an OTLP/HTTP receiver; `/v1/traces` is added.", "`http://localhost:4318`", _url)[:1],
    Variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "The whole URL for traces; it wins.", "", _url),
    *_otlp("HEADERS", "Headers of each export, such as an API key.", "none", _pairs),
    *_otlp("TIMEOUT", "Milliseconds that an export may take, retries included.", "`10000`", _whole(1)),
    *_otlp("COMPRESSION", "`none`, `gzip` or `deflate`.", "`none`", _one_of("none", "gzip", "deflate")),
    *_otlp("CERTIFICATE", "File with the certificates to trust.", "the system's", _readable),
    *_otlp("PROTOCOL", "`http/protobuf` is the only one here.", "`http/protobuf`", _one_of("http/protobuf")),
    Variable(
        "OTEL_BSP_SCHEDULE_DELAY",
        "Milliseconds between two exports.",
        "`200`",
        _whole(1),
        why="The specification says 5000. Somebody who has just sent a request wants to see its trace.",
        ours="200",
    ),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "Spans that may wait; more are dropped and counted.", "`2048`", _whole(1)),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "Spans in an export; not above the queue's size.", "`512`", _whole(1)),
    Variable("OTEL_BSP_EXPORT_TIMEOUT", "Not used by Python's SDK: see the exporter's.", "`30000`", _whole(0)),
    _limit("OTEL_ATTRIBUTE_COUNT_LIMIT", "Attributes of anything.", "`128`"),
    _limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "Characters of an attribute's value.", "no limit"),
    _limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "Attributes of a span.", "`128`"),
    _limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "Characters of a span's attribute's value.", "no limit"),
    _limit("OTEL_SPAN_EVENT_COUNT_LIMIT", "Events of a span.", "`128`"),
    _limit("OTEL_SPAN_LINK_COUNT_LIMIT", "Links of a span.", "`128`"),
    _limit("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "Attributes of an event.", "`128`"),
    _limit("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "Attributes of a link.", "`128`"),
    Variable(
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "Which names instrumentations use.",
        "`http,database`",
        _anything,
        why="The stable ones, which the contract has.",
        ours="http,database",
    ),
)
"""All that is honoured, in the order of the documentation."""


def prepare(environ: MutableMapping[str, str], variables: Collection[Variable] = VARIABLES) -> list[Problem]:
    """Take out what the SDK could not use, and set the defaults that are ours.

    Args:
        environ: The environment, usually `os.environ`: the SDK reads it there.
        variables: Which ones to look at.

    Returns:
        What was taken out.
    """
    problems = []
    for variable in variables:
        value = environ.get(variable.name)
        if value is not None and not value.strip():  # the specification: an empty value is none
            del environ[variable.name]
        elif value is not None:
            try:
                variable.fits(value)
            except ValueError as error:
                problems.append(Problem(variable.name, str(error)))
                del environ[variable.name]
        if variable.ours is not None:
            environ.setdefault(variable.name, variable.ours)
    queue, batch = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
    if int(environ.get(batch, 512)) > (most := int(environ.get(queue, 2048))):
        if batch in environ:
            problems.append(Problem(batch, "above the queue's size"))
        environ[batch] = str(min(most, 512))
    return problems


def measures(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `OTEL_METRICS_EXPORTER` wants anything measured. A value that is not known does."""
    return environ.get("OTEL_METRICS_EXPORTER", "").strip().lower() != "none"
