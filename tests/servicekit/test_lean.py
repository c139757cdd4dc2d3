"""The lean tracer makes what OpenTelemetry's SDK makes of the same work, down to the bytes that are sent."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from servicekit.telemetry.exporting import leaves

from servicekit.telemetry import lean

RESOURCE = Resource({"service.name": "sample", "n": -1, "is": True, "ratio": 0.5, "list": ["a", "b"]})
ENCODER = lean.Encoder(RESOURCE, ("servicekit", "1.0.0"), lambda _: True)  # one: it remembers what it has encoded

texts = st.text(st.characters(codec=None), max_size=200)  # any: lone surrogates among them
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False).map(lambda number: number + 0.0)  # -0.0 is 0.0 to both
values = st.one_of(
    texts,
    st.booleans(),
    integers,
    st.sampled_from([0, 1, 0.0, 1.0, False, True]),  # equal, but not the same
    floats,
    *(st.lists(items, max_size=4) for items in (texts, st.booleans(), integers, floats)),
)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 255]).map(TraceFlags),
    st.sampled_from([None, TraceState([("vendor", "canary")])]),
)
times = st.integers(0, 2**63)


def forget(_span):
    pass


@st.composite
def spans(draw):
    span = lean.Span(
        draw(texts),
        draw(contexts),
        draw(st.none() | contexts),
        draw(st.sampled_from(SpanKind)),
        draw(st.dictionaries(texts, values, max_size=5)),
        [trace.Link(linked) for linked in draw(st.lists(contexts, max_size=2))],
        forget,
    )
    span.set_status(draw(st.sampled_from(StatusCode)))
    span.started_ns = draw(times)
    span.end(draw(times) or 1)
    return span


def _text(text):
    """What protobuf takes: it refuses a lone surrogate, and with it all spans of the batch."""
    return text.encode("utf-8", "replace").decode()


def _value(value):
    if isinstance(value, list):
        return [_value(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def _stateless(of):
    return of and SpanContext(of.trace_id, of.span_id, of.is_remote, of.trace_flags)


def as_the_sdk_sends(*made):
    """The message that OpenTelemetry's encoder makes of the same spans, as `servicekit.telemetry.sdk` cuts them."""
    return encode_spans([
        ReadableSpan(
            _text(span.name),
            _stateless(span.span_context),
            _stateless(span.parent),
            RESOURCE,
            {_text(name): _value(value) for name, value in span.attributes.items()},
            links=span.links,
            kind=span.kind,
            status=Status(span.status),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=InstrumentationScope("servicekit", "1.0.0"),
        )
        for span in made
    ])  # fmt: skip


def sent(message):
    (of_resource,) = message.resource_spans
    (of_scope,) = of_resource.scope_spans
    return of_scope.spans


@given(st.lists(spans(), min_size=1, max_size=4))
def test_what_is_sent_is_what_the_sdk_would_send(made):
    got = ExportTraceServiceRequest.FromString(ENCODER.encode(made))
    for span, original in zip(sent(got), made, strict=True):
        assert span.flags & 0xFF == original.span_context.trace_flags  # which the SDK leaves out
        span.flags &= ~0xFF
        span.status.SetInParent()  # as good as left out
        for link, linked in zip(span.links, original.links, strict=True):
            assert link.flags & 0xFF == linked.context.trace_flags
            link.flags &= ~0xFF
    assert got == as_the_sdk_sends(*made)


def test_equal_values_of_different_kinds_are_not_mixed_up():
    encoder = lean.Encoder(RESOURCE, ("servicekit", ""), lambda _: True)
    for given_value in (1, 1.0, True, [1], [1.0], [True], (1,), "1"):
        span = lean.Span(
            "work", SpanContext(1, 1, is_remote=False), None, SpanKind.INTERNAL, {"v": given_value}, (), forget
        )
        (attribute,) = sent(ExportTraceServiceRequest.FromString(encoder.encode([span])))[0].attributes
        value = attribute.value
        while value.WhichOneof("value") == "array_value":
            (value,) = value.array_value.values
        (plain,) = given_value if isinstance(given_value, list | tuple) else (given_value,)
        assert type(getattr(value, value.WhichOneof("value"))) is type(plain)


def test_attributes_that_nobody_declared_are_not_sent():
    encoder = lean.Encoder(RESOURCE, ("servicekit", ""), leaves)
    attributes = {"user.email": "canary", "shop.order.id": 7, "enduser.id": ["canary"], "http.route": "/"}
    span = lean.Span("work", SpanContext(1, 1, is_remote=False), None, SpanKind.INTERNAL, attributes, (), forget)
    body = encoder.encode([span])
    assert b"canary" not in body
    (got,) = sent(ExportTraceServiceRequest.FromString(body))
    assert [attribute.key for attribute in got.attributes] == ["shop.order.id", "http.route"]


def test_a_link_to_nothing_is_left_out():
    links = [trace.Link(trace.INVALID_SPAN_CONTEXT)]
    span = lean.Span("work", SpanContext(1, 1, is_remote=False), None, SpanKind.INTERNAL, {}, links, forget)
    (got,) = sent(ExportTraceServiceRequest.FromString(ENCODER.encode([span])))
    assert not got.links


@pytest.fixture
def ended():
    """What was handed on as ended."""
    return []


@pytest.fixture
def tracer(ended):
    return lean.Tracer(1.0, ended.append)


def of_parent(flags="01", **headers):
    """A context as it comes with a request."""
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-{flags}", **headers}
    return TraceContextTextMapPropagator().extract(headers, context=context.Context())


class Dice:
    """Stands in for the module `random`."""

    def __init__(self, *numbers):
        self._numbers = list(numbers)

    def getrandbits(self, _bits):
        return self._numbers.pop(0)


@given(st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 2**128 - 1))
def test_of_new_traces_those_are_kept_that_the_sdk_would_keep(share, trace_id):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean, "random", Dice(trace_id, 7))
        span = lean.Tracer(share, forget).start_span("work", context.Context())
    decided = ParentBased(TraceIdRatioBased(share)).should_sample(context.Context(), trace_id, "work")
    assert span.is_recording() == decided.decision.is_sampled()
    got = span.get_span_context()
    assert (got.trace_id, got.span_id, got.is_remote) == (trace_id, 7, False)
    assert got.trace_flags.sampled == decided.decision.is_sampled()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_of_others_traces_the_decision_is_kept_as_the_sdk_keeps_it(share, remote, flags):
    tracer = lean.Tracer(share, forget)
    within = of_parent(flags)
    if not remote:
        within = trace.set_span_in_context(tracer.start_span("outer", within), within)
    parent = trace.get_current_span(within).get_span_context()
    span = tracer.start_span("work", within)
    decided = ParentBased(TraceIdRatioBased(share)).should_sample(within, parent.trace_id, "work")
    assert span.is_recording() == decided.decision.is_sampled()
    got = span.get_span_context()
    assert (got.trace_id, got.trace_flags, got.is_remote) == (parent.trace_id, int(flags, 16), False)
    assert got.span_id not in {0, parent.span_id}
    if span.is_recording():
        assert span.parent == parent


def test_a_tracestate_is_handed_on(tracer):
    for flags in ("00", "01"):
        span = tracer.start_span("work", of_parent(flags, tracestate="a=1,b=2"))
        assert span.get_span_context().trace_state == {"a": "1", "b": "2"}


def test_a_share_of_many(ended):
    random.seed(7)
    tracer = lean.Tracer(0.25, ended.append)
    for _ in range(4000):
        tracer.start_span("work", context.Context()).end()
    assert 850 < len(ended) < 1150
    assert len({span.span_context.trace_id for span in ended}) == len(ended)


def test_what_has_ended_takes_nothing_and_is_handed_on_once(tracer, ended):
    span = tracer.start_span("work", attributes={"a": 1}, start_time=5)
    span.set_status(StatusCode.ERROR)
    span.end(9)
    span.end(11)
    span.set_attribute("b", 1)
    span.set_attributes({"c": 1})
    span.update_name("other")
    span.set_status(StatusCode.OK)
    assert ended == [span]
    assert not span.is_recording()
    assert (span.name, span.attributes, span.status) == ("work", {"a": 1}, StatusCode.ERROR)
    assert (span.started_ns, span.ended_ns) == (5, 9)


def test_it_keeps_no_events_no_messages_and_nobodys_dictionary(tracer):
    attributes = {"a": 1}
    span = tracer.start_span("work", attributes=attributes)
    span.set_attribute("b", 2)
    assert attributes == {"a": 1}
    span.add_event("canary", {"canary": 1})
    span.record_exception(ValueError("canary"))
    span.set_status(Status(StatusCode.ERROR, "canary"))
    span.end()
    body = ENCODER.encode([span])
    assert b"canary" not in body
    assert sent(ExportTraceServiceRequest.FromString(body))[0].status.code == StatusCode.ERROR.value


def test_a_current_span_is_the_parent_of_what_begins_inside_and_ends_with_the_block(tracer, ended):
    with tracer.start_as_current_span("outer", kind=SpanKind.SERVER) as outer:
        assert trace.get_current_span() is outer
        with pytest.raises(ZeroDivisionError), tracer.start_as_current_span("inner", attributes={"a": 1}):
            raise ZeroDivisionError
        with tracer.start_as_current_span("left open", end_on_exit=False) as open_one:
            pass
    assert not trace.get_current_span().is_recording()
    assert [span.name for span in ended] == ["inner", "outer"]
    inner = ended[0]
    assert (inner.parent, inner.attributes) == (outer.get_span_context(), {"a": 1})
    assert (inner.status, outer.status) == (StatusCode.ERROR, StatusCode.UNSET)
    assert open_one.is_recording()


def test_a_span_is_a_block_of_its_own(tracer, ended):
    with tracer.start_span("work") as span:
        assert not trace.get_current_span().is_recording()  # as in the SDK
    assert ended == [span]
