"""What Prometheus is asked for exists, and nothing of the faults themselves is known."""

import ast
import re
from pathlib import Path

import pytest

from observability import contract, why
from observability.why import signals
from scenarios import describing, flags

QUERIES = [
    *(signal.query for signal in signals.SIGNALS),
    signals.UP,
    signals.GATEWAY_UP,
    signals.STARTED,
]
OTHERS = re.compile("up|scrape_.+|otelcol_.+")  # Prometheus' own, and the Collector's
WORDS = {
    *("sum", "max", "min", "by", "rate", "or", "le", "m", "job", "instance", "histogram_quantile", "ignoring", "used"),
    *("error_type", "generation", "outcome", "db_client_connection_state"),
    *("http_route", "http_request_method", "http_response_status_code"),
}


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_asked_for_is_in_the_contract(query):
    known = {name for _, name in contract.load().metrics}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "count", "sum")}
    asked = set(re.findall(r"[a-z_]\w*", re.sub(r'"[^"]*"', "", query))) - WORDS
    assert asked
    assert {name for name in asked if name not in known and not OTHERS.fullmatch(name)} == set()


def test_nothing_is_known_of_how_faults_are_made():
    text = "".join(path.read_text() for path in Path(why.__file__).parent.glob("*.py")).casefold()
    for word in ("scenario", "simulated_faults", "openfeature", "payment_latency", "payment_outage", "payment-service"):
        assert word not in text


KNOWN = {"nginx", "order-db", "embedded-backend", "prometheus", "loki"}
"""What its Prometheus jobs are called: the gateway, the database and the telemetry's own parts. docs/why.md says so."""


def _constants(path):
    """All texts of a module but its docstrings."""
    tree = ast.parse(path.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said]  # fmt: skip


def test_no_service_operation_attribute_fault_or_value_of_the_shop_is_known():
    texts = [text.casefold() for path in Path(why.__file__).parent.glob("*.py") for text in _constants(path)]
    scenarios = [describing.read(name) for name in describing.names()]
    truths = [one.truth for one in scenarios]
    names = {one.name for one in scenarios} | {flag.name for flag in flags.read(flags.DEFAULT)}
    names |= {f"{service}-service" for service in ("auth", "user", "product", "order", "payment")}
    names |= {truth.service for truth in truths} | {truth.operation for truth in truths if truth.operation}
    attributes = [truth.attribute.partition("=")[::2] for truth in truths if truth.attribute]
    own = [(key, value) for key, value in attributes if key.startswith("shop.")]
    assert own
    names |= {key for key, _ in own} | {value for _, value in own if not value.isdigit()}
    assert len(names) > 50
    known = {name for name in names - KNOWN if name and any(_word(name.casefold(), text) for text in texts)}
    assert known == set()
    assert not any(re.search(r"\bshop\.\w", text) for text in texts)


def _word(name, text):
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None
