"""Nothing secret or personal is in any signal: the tests, for whichever mode has a fixture `evidence`."""


def test_no_marked_secret_is_in_any_trace_log_metric_or_file(evidence):
    found = {where: hits for where, text in evidence.texts.items() if (hits := evidence.marks.found_in(text))}
    assert not found, found


def test_an_error_s_answer_repeats_nothing_but_the_names_of_fields(evidence):
    repeated = {(asked, place) for asked, text in evidence.walk.answers for place, _ in evidence.marks.found_in(text)}
    assert {place for _, place in repeated} <= {"field name", "query name"}, repeated


def test_the_search_sees_what_the_walk_left(evidence):
    """Trace ids of the walk's are in each place that is searched: it was not the wrong place, or empty."""
    known = set(evidence.walk.traces.values())
    kinds = {
        where.partition("/")[0].partition(" ")[0]
        for where, text in evidence.texts.items()
        if any(trace_id in text for trace_id in known)
    }
    assert kinds >= {"traces", "log", "logs", "metrics"}
    assert len(evidence.marks.places) > 100
