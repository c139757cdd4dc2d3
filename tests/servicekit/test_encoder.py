"""What the compact exporter sends is, parsed, what OpenTelemetry's own encoder makes of the same spans."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from servicekit.telemetry import encoder

texts = st.text(max_size=200)
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)  # not a number equals nothing, not even itself; see below
scalars = st.one_of(
    texts,
    st.booleans(),
    integers,
    floats,
    st.sampled_from([0, 1, 0.0, -0.0, 1.0, False, True, "", "0"]),  # equal, some of them, but not the same
)
values = st.one_of(
    scalars,
    st.binary(max_size=20),
    st.none(),
    *(st.lists(items, max_size=4).map(tuple) for items in (texts, st.booleans(), integers, floats)),
    st.dictionaries(texts, scalars, max_size=3),
    st.lists(st.dictionaries(texts, scalars, max_size=2), max_size=2).map(tuple),
)
names = st.sampled_from(["a", "b", "db.system.name"]) | texts.filter(bool)


@st.composite
def attributes(draw):
    bounded = BoundedAttributes(attributes=draw(st.dictionaries(names, values, max_size=5)))
    bounded.dropped = draw(st.sampled_from([0, 0, 3]))
    return bounded


@st.composite
def listed(draw, items):
    bounded = BoundedList.from_seq(None, draw(st.lists(items, max_size=2)))
    bounded.dropped = draw(st.sampled_from([0, 0, 2]))
    return bounded


contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 255]).map(TraceFlags),
    st.sampled_from([None, TraceState([("vendor", "a"), ("other", "b")])]),
)
times = st.integers(0, 2**64 - 1)
statuses = st.sampled_from(StatusCode).map(Status) | texts.map(lambda text: Status(StatusCode.ERROR, text))
RESOURCES = [Resource({}), Resource({"service.name": "a"}), Resource({"service.name": "b"}, "https://example.org/1.0")]
SCOPES = [
    None,
    InstrumentationScope("servicekit"),
    InstrumentationScope("flask", "1.0", "https://example.org/1.0", {"a": 1}),
]
ALWAYS = {
    "name": texts,
    "context": contexts,
    "parent": st.none() | contexts,
    "resource": st.sampled_from(RESOURCES),
    "kind": st.sampled_from(SpanKind),
    "start_time": times,
    "end_time": times,
    "instrumentation_scope": st.sampled_from(SCOPES),
}
plain = st.builds(
    ReadableSpan,
    **ALWAYS,
    attributes=st.none() | st.dictionaries(names, values, max_size=5),
    status=st.sampled_from(StatusCode).map(Status),
)
rich = st.builds(
    ReadableSpan,
    **ALWAYS,
    attributes=st.none() | attributes(),
    events=listed(st.builds(Event, texts, attributes(), times)),
    links=listed(st.builds(Link, contexts, st.none() | attributes())),
    status=statuses,
)


def encoded(*made):
    return ExportTraceServiceRequest.FromString(encoder.encode(made))


def span_with(**given_attributes):
    context = SpanContext(1, 1, is_remote=False)
    return ReadableSpan("work", context, attributes=given_attributes, resource=Resource({}), start_time=1, end_time=2)


def bits(message):
    """The message as bytes, which tell -0.0 from 0.0, as `==` does not."""
    return message.SerializeToString(deterministic=True)


@given(st.lists(plain | rich, max_size=5))
def test_what_is_sent_is_what_the_official_encoder_makes(made):
    assert bits(encoded(*made)) == bits(encode_spans(made))


@example([span_with(v=value) for value in (0, 0.0, -0.0, False, 1, 1.0, True, "1", (1,), (True,), (1.0,))])
@given(st.lists(st.builds(span_with, v=values), min_size=2, max_size=8))
def test_what_was_encoded_before_is_not_taken_for_what_only_equals_it(made):
    assert bits(encoded(*made)) == bits(encode_spans(made))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**63 - 1, -(2**63), "x" * 70_000])
def test_values_at_the_edge_are_sent_as_they_are(value):
    made = [span_with(v=value), span_with(v=value)]
    assert bits(encoded(*made)) == bits(encode_spans(made))


@pytest.mark.parametrize("value", ["half of \ud83d", 2**63, object()])
def test_a_value_that_cannot_be_encoded_costs_that_attribute_and_no_more(value):
    made = [span_with(v=value, kept=1), span_with(v="well")]
    got = encoded(*made)
    first, second = got.resource_spans[0].scope_spans[0].spans
    assert [attribute.key for attribute in first.attributes] == ["kept"]
    assert [attribute.key for attribute in second.attributes] == ["v"]
    assert bits(got) == bits(encode_spans(made))


def test_what_is_remembered_is_bounded():
    encoder._attribute.cache_clear()
    for number in range(3000):
        encoder.encode([span_with(order=number, statement=f"{number}" * 1000)])
    remembered = encoder._attribute.cache_info()
    assert remembered.currsize == remembered.maxsize == 2048
    encoder._attribute.cache_clear()
    encoder.encode([span_with(statement="x" * 1025, ratio=0.5, many=("a", "b"))])
    assert encoder._attribute.cache_info().currsize == 0
