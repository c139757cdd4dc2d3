"""The system keeps its contract: the tests, for whichever mode has a fixture `evidence`."""

import pytest

from observability.contract import check_edges, check_lines, check_metrics, check_series, check_spans, check_trace, load

CONTRACT = load()


def test_spans_are_those_of_the_contract(evidence):
    difference = check_spans(CONTRACT, evidence.spans, evidence.mode)
    assert not difference, difference


def test_spans_hang_together_as_in_the_contract(evidence):
    difference = check_edges(CONTRACT, evidence.spans)
    assert not difference, difference


@pytest.mark.parametrize("name", sorted(CONTRACT.file.traces))
def test_a_trace_is_complete(evidence, name):
    faults = check_trace(CONTRACT, name, evidence.trace(name))
    assert not faults, faults


def test_a_reconciled_order_is_linked_to_the_trace_that_placed_it(evidence):
    (span,) = [span for span in evidence.trace("reconciled order") if span.parent_id is None]
    assert span.links == (evidence.walk.traces["left pending"],)


def test_log_lines_are_those_of_the_contract(evidence):
    difference = check_lines(CONTRACT, evidence.lines, evidence.mode)
    assert not difference, difference


def test_metrics_are_those_of_the_contract(evidence):
    difference = check_metrics(CONTRACT, evidence.metrics, evidence.mode)
    assert not difference, difference


def test_prometheus_has_them_with_the_target_s_labels_and_no_others(evidence):
    difference = check_series(CONTRACT, evidence.series, evidence.mode)
    assert not difference, difference


def test_every_exemplar_leads_to_a_trace(evidence):
    assert not evidence.dead_exemplars
    assert sum(len(metric.exemplars) for metric in evidence.metrics) > 100
