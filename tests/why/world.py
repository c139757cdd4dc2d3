"""A made-up shop whose telemetry can be asked for: traces, metrics and log lines of some minutes, with faults in them.

It has nothing of this shop but the shape of its traces, so that who reasons about it cannot know it by its names.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field

from observability.why import signals
from observability.why.gather import Backends, gather

AT = 1_800_000_000.0
SPAN = 1020  # seconds of traffic: what is looked at by default


@dataclass(frozen=True)
class Op:
    """A kind of span, and what it does."""

    service: str
    name: str
    kind: str
    ms: float
    children: tuple = ()
    peer: str = ""
    database: bool = False
    tags: tuple = ()


@dataclass(kw_only=True)
class Fault:
    """Something wrong with an operation since some time."""

    service: str
    name: str
    kind: str = ""
    since: float = 100
    until: float = 0
    extra_ms: float = 0
    error: str = ""
    unanswered: bool = False
    unusable: bool = (
        False  # the first thing that it asks for is answered well, it fails on that, and who called gets over it
    )
    where: object = lambda _: True  # which requests, by their attributes
    share: float = 1.0
    before: float = 0.5  # how much of the time goes by before what is below begins

    def hits(self, op, about, start, rng):
        active = AT - self.since <= start <= AT - self.until
        named = op.service == self.service and op.name == self.name and self.kind in {"", op.kind}
        return active and named and self.where(about) and rng.random() < self.share


def shop(name=lambda text: text):
    """The journeys, with how many of ten requests go there; `name` gives other names to all."""
    n = name

    def call(caller, callee, what, ms, *below, **more):
        served = Op(n(callee), n(what), "server", ms, below, tags=more.get("tags", ()))
        return Op(n(caller), n(what), "client", 1, (served,), peer=n(callee))

    def sql(service, what, ms):
        return Op(n(service), n(what), "client", ms, database=True)

    keys = ("product", "currency", "customer")
    pay = call("shop-b", "shop-c", "POST /charge", 3, sql("shop-c", "SELECT pay", 1),
               Op(n("shop-c"), n("decide"), "internal", 1), sql("shop-c", "INSERT pay", 4))  # fmt: skip
    settle = Op(n("shop-b"), n("settle"), "internal", 1, (pay, sql("shop-b", "UPDATE order", 4)))
    view = call("shop-b", "shop-a", "GET /thing/{id}", 2, tags=("product",))
    order = Op(n("shop-b"), n("POST /order"), "server", 2, (view, sql("shop-b", "INSERT order", 4), settle), tags=keys)
    read = Op(n("shop-b"), n("GET /order"), "server", 2, (sql("shop-b", "SELECT order", 2),), tags=("customer",))
    browse = Op(n("shop-a"), n("GET /thing/{id}"), "server", 2, tags=("product",))
    check = call("shop-d", "shop-e", "POST /check", 3, sql("shop-e", "SELECT user", 2),
                 Op(n("shop-e"), n("hash"), "internal", 40))  # fmt: skip
    login = Op(n("shop-d"), n("POST /login"), "server", 2, (check,))
    return [(weight, Op(n("gate"), op.name, "server", 1, (op,))) for weight, op in
            ((4, order), (3, browse), (2, read), (1, login))]  # fmt: skip


@dataclass
class World:
    """The telemetry of a shop.

    Args:
        seed: Of chance.
        faults: What is wrong.
        rate: Requests a second.
        journeys: What is asked for.
        noise: How much times vary: the sigma of their logarithm.
    """

    seed: int = 1
    faults: list = field(default_factory=list)
    rate: float = 3.0
    journeys: list = field(default_factory=shop)
    noise: float = 0.45
    replicas: int = 1
    versions: dict = field(default_factory=dict)  # by service: (seconds ago, version)
    seconds: int = SPAN
    skew: dict = field(default_factory=dict)  # by service: microseconds, for the last 100 s
    slower: float = 1.0  # all of it, for the last 100 s
    ports: dict = field(default_factory=dict)  # by the name of a call: where it goes in the last 100 s
    many: dict = field(default_factory=dict)  # by operation: how many spans of it there are in the last 100 s
    quiet: set = field(default_factory=set)  # services that send no spans any more

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        self.metrics = {}
        self.lines = []
        self.alerting, self.rules_of = [], {}
        self.down = {}
        self.traces = []
        starts = sorted(AT - self.rng.random() * self.seconds for _ in range(int(self.rate * self.seconds)))
        weights = [weight for weight, _ in self.journeys]
        for start in starts:
            self._trace(self.rng.choices(self.journeys, weights)[0][1], start)
        self.names = {one["serviceName"] for trace in self.traces for one in trace["processes"].values()}
        self.spans_of = defaultdict(list)  # by service, and by service and operation: traces, and their spans of it
        for trace in self.traces:
            found = defaultdict(list)
            for span in trace["spans"]:
                service = trace["processes"][span["processID"]]["serviceName"]
                found[service, None].append(span)
                found[service, span["operationName"]].append(span)
            for key, spans in found.items():
                self.spans_of[key].append((trace, spans))

    def _trace(self, op, start):  # noqa: C901
        rng, spans, processes = self.rng, [], {}
        trace_id = f"{rng.getrandbits(128):032x}"
        about = {
            "product": rng.randint(1, 20),
            "currency": rng.choice(("EUR", "USD", "GBP")),
            "customer": rng.randint(1, 50),
            "order.id": rng.getrandbits(31),
        }
        late = start >= AT - 100

        def walk(op, at, parent):  # noqa: C901
            about["replica"] = rng.randint(1, self.replicas)
            factor = self.slower if late else 1
            own = op.ms * 1e-3 * factor * rng.lognormvariate(0, self.noise)
            error, unanswered, unusable, early = "", False, "", own / 2
            for fault in self.faults:
                if fault.hits(op, about, at, rng):
                    longer = fault.extra_ms * 1e-3 * rng.uniform(0.9, 1.1)
                    own, early = own + longer, early + longer * fault.before
                    if fault.unusable:
                        unusable = fault.error
                        continue
                    error, unanswered = fault.error or error, fault.unanswered or unanswered
            span_id, end, begin = f"{rng.getrandbits(64):016x}", at + early, at
            if not error and not unanswered:
                children = op.children[:1] if unusable else op.children
                for child in (each for each in children for _ in range(self.many.get(each.name, 1) if late else 1)):
                    end, below = walk(child, end, span_id)
                    if below:
                        error = "503" if op.kind != "internal" else "unavailable"
                        break
            end, error = end + own - early, error or unusable
            tags = {"span.kind": op.kind, **({"error": True, "error.type": error} if error else {})}
            tags |= {key: about[key] for key in op.tags}
            if op.tags:
                tags["order.id"] = about["order.id"]
            if op.kind == "server":
                tags["http.response.status_code"] = int(error) if error.isdigit() else 503 if error else 200
            if op.peer:
                tags["peer.service"] = op.peer
                tags |= {"server.address": "10.0.0.1", "server.port": self.ports.get(op.name, 80) if late else 80}
            if op.kind == "server" and error.startswith("4"):  # it refuses, which is no failure
                tags = {key: said for key, said in tags.items() if key not in {"error", "error.type"}}
            if op.database:
                tags["db.system.name"] = "postgresql"
            process = f"{op.service}-{about['replica']}"
            ago, version = self.versions.get(op.service, (0, "1.0.0"))
            resource = {
                "service.instance.id": process,
                "service.version": version if begin >= AT - ago else "1.0.0",
            }
            process += resource["service.version"]
            processes[process] = {
                "serviceName": op.service,
                "tags": [{"key": key, "value": value} for key, value in resource.items()],
            }
            if not (op.service in self.quiet and late):
                shift = self.skew.get(op.service, 0) if late else 0
                spans.append(
                    {
                        "traceID": trace_id,
                        "spanID": span_id,
                        "operationName": op.name,
                        "references": [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": parent}]
                        if parent
                        else [],
                        "startTime": int(begin * 1e6) + shift,
                        "duration": int((end - begin) * 1e6),
                        "tags": [{"key": key, "value": value} for key, value in tags.items()],
                        "processID": process,
                        "logs": [],
                    }
                )
            return end, "" if unusable else error

        walk(op, start, "")
        self.traces.append({"traceID": trace_id, "spans": spans, "processes": processes, "start": start})

    # --- the APIs

    def services(self):
        return sorted(self.names)

    def search(self, fields):
        start, end = int(fields["start"]) / 1e6, int(fields["end"]) / 1e6
        found, limit = [], int(fields["limit"])
        least = int(fields.get("minDuration", "0us")[:-2])
        for trace, spans in reversed(self.spans_of.get((fields["service"], fields.get("operation")), ())):
            if start <= trace["start"] <= end and any(
                span["duration"] >= least
                and ("tags" not in fields or any(tag["key"] == "error" for tag in span["tags"]))
                for span in spans
            ):
                found.append(trace)
                if len(found) == limit:
                    break
        return found

    def over(self, query, window, step):
        series = self.metrics.get(query, [])
        if query == signals.UP:
            series = [
                ({"job": job}, lambda ago, job=job: float(ago > self.down.get(job, -1))) for job in self.services()
            ]
        times = range(int(window.start), int(window.end) + 1, step)
        return [
            {"metric": labels, "values": [[time, str(value(AT - time))] for time in times]} for labels, value in series
        ]

    def alerts(self):
        return self.alerting

    def now(self, _query, at):
        """Answer the one question that is asked so: how much was asked for before."""
        return [{"value": [at, str(sum(at - 900 < trace["start"] < at for trace in self.traces))]}]

    def rules(self):
        return self.rules_of

    def count(self, query, end):
        seconds = int(re.search(r"\[(\d+)s\]", query)[1])
        bad = "warning|error" in query
        counts = defaultdict(int)
        for ago, service, level, event, about in self.lines:
            if end - seconds < AT - ago <= end and (level in {"warning", "error"}) == bad:
                counts[service, level, event, about] += 1
        return [
            {
                "metric": {"service_name": service, "level": level, "event": event, "dependency": about},
                "value": [end, str(count)],
            }
            for (service, level, event, about), count in counts.items()
        ]

    def gather(self, since=None):
        return gather(Backends(_As(self, "jaeger"), _As(self, "loki"), _As(self, "prometheus")), AT, since)


class _As:
    """The world as one of its backends."""

    def __init__(self, world, name):
        self._world, self.root = world, f"http://{name}"

    def __getattr__(self, name):
        return getattr(self._world, name)
