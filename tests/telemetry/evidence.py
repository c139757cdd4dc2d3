"""What a shop has told about all that happened in it."""

from dataclasses import dataclass

from tests.telemetry.journeys import Walk, walk
from tests.telemetry.marks import Marks


@dataclass
class Evidence:
    """The walk, and what could be found of it.

    Attributes:
        dead_exemplars: Metrics with an exemplar that leads to no trace.
        texts: All that was kept anywhere, as text: where -> text.
    """

    mode: str
    walk: Walk
    marks: Marks
    spans: list
    lines: list
    metrics: list
    series: list
    dead_exemplars: set
    texts: dict

    def trace(self, name):
        """The spans of one of the walk's traces."""
        return [span for span in self.spans if span.trace_id == self.walk.traces[name]]


def gather(shop):
    """Walk all journeys in a shop and collect what it says of them."""
    marks = Marks()
    done = walk(shop, marks)
    shop.wait_until_seen()
    spans, traces = shop.spans(done.since)
    done.traces["reconciled order"] = next(
        span.trace_id
        for span in spans
        if span.name == "reconcile order"
        and span.attributes["shop.order.id"] == done.left_pending
        and span.attributes["shop.order.status"] == "PAID"
    )
    lines = shop.lines('{service_namespace="shop"}', done.since - 3600)
    metrics, expositions = shop.metrics()
    series = shop.series()
    known = {span.trace_id for span in spans}
    dead = {
        f"{metric.service} {metric.name}"
        for metric in metrics
        for trace_id in metric.exemplars
        if trace_id not in known and not shop.trace(trace_id)
    }
    texts = {f"traces {number}": text for number, text in enumerate(traces)}
    texts |= {f"metrics {number}": text for number, text in enumerate(expositions)}
    texts["log lines"] = "\n".join(f"{line.labels} {line.metadata} {line.text}" for line in lines)
    texts["series"] = "\n".join(map(str, series))
    texts |= shop.files()
    return Evidence(shop.mode, done, marks, spans, lines, metrics, series, dead, texts)
