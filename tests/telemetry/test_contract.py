"""The contract against local mode, and against the tests that it names."""

import re

import pytest
import yaml

from observability.contract import FILE, Contract, check_edges, check_lines, check_metrics, check_series, check_spans
from tests.fixtures.stack import PROJECT
from tests.telemetry.contract_tests import *  # noqa: F403
from tests.telemetry.contract_tests import CONTRACT


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("settle order", lambda contract, seen: check_spans(contract, seen.spans, seen.mode)),
        ("INSERT payments", lambda contract, seen: check_edges(contract, seen.spans)),
        ("shop.order.id", lambda contract, seen: check_spans(contract, seen.spans, seen.mode)),
        ("/products/{product_id}", lambda contract, seen: check_spans(contract, seen.spans, seen.mode)),
        ("orders_total", lambda contract, seen: check_metrics(contract, seen.metrics, seen.mode)),
        ("db_client_connection_state", lambda contract, seen: check_metrics(contract, seen.metrics, seen.mode)),
        ("logins_total", lambda contract, seen: check_series(contract, seen.series, seen.mode)),
        ("order.created", lambda contract, seen: check_lines(contract, seen.lines, seen.mode)),
        ("amount_minor", lambda contract, seen: check_lines(contract, seen.lines, seen.mode)),
        ("duration_s", lambda contract, seen: check_lines(contract, seen.lines, seen.mode)),
    ],
)
def test_with_another_name_in_the_contract_the_same_system_breaks_it_both_ways(evidence, name, check):
    renamed = FILE.read_text().replace(name, f"{name}_x")
    difference = check(Contract(yaml.safe_load(renamed)), evidence)
    assert any(f"{name}_x" in one for one in difference.missing), difference
    assert any(re.search(rf"{re.escape(name)}(?!_x)", one) for one in difference.undeclared), difference


def _tested_elsewhere():
    for (service, name), entry in {**CONTRACT.events, **CONTRACT.metrics}.items():
        if entry.tested_by:
            yield f"{service} {name}", name, entry.tested_by
    rules = [(key, span.attributes) for key, span in CONTRACT.spans.items()]
    rules += [(key, event.fields) for key, event in CONTRACT.events.items()]
    rules.append((("every line",), CONTRACT.line))
    for key, named in rules:
        for name, rule in named.items():
            if rule.tested_by:
                yield f"{' '.join(key)}: {name}", name, rule.tested_by


@pytest.mark.parametrize(("name", "test"), sorted({(name, test) for _, name, test in _tested_elsewhere()}))
def test_what_no_request_can_provoke_is_tested_where_the_contract_says(name, test):
    file, _, function = test.partition("::")
    text = (PROJECT / file).read_text()
    assert re.search(rf"^def {function or '-'}\(", text, re.MULTILINE), f"there is no {test}"
    assert name in text, f"{file} does not mention {name}"
