"""Where things are put: spans, what a trace waited for, points, parts."""

import itertools

import pytest

from observability.console import chart, servicemap, show
from observability.console.waterfall import choose, draw
from observability.story.backends import Line
from observability.story.critical import compare, critical_path
from observability.story.spans import parse
from observability.story.window import Window
from tests.console.conftest import span, trace

WINDOW = Window(1000, 1600)


def _path(*spans):
    """For each span's name the milliseconds of the path that are its own."""
    found = parse(trace(*spans))
    names = {id(one): one.name for one in found.spans}
    return {
        names[key]: round(sum(end - begin for begin, end in parts) / 1e3) for key, parts in critical_path(found).items()
    }


def test_the_path_goes_through_the_child_that_ended_last():
    spans = [span(1, 0, "a", "root", 0, 100), span(2, 1, "a", "fast", 10, 20), span(3, 1, "a", "slow", 10, 60)]
    assert _path(*spans) == {"root": 40, "slow": 60}


def test_children_one_after_the_other_are_both_on_the_path():
    spans = [span(1, 0, "a", "root", 0, 100), span(2, 1, "a", "first", 10, 20), span(3, 1, "a", "second", 40, 50)]
    assert _path(*spans) == {"root": 30, "first": 20, "second": 50}


def test_who_outlives_its_parent_is_not_waited_for():
    assert _path(span(1, 0, "a", "root", 0, 50), span(2, 1, "a", "late", 10, 100)) == {"root": 50}


def test_what_a_call_waited_for_until_it_gave_up_is_on_the_path_as_far_as_it_was_waited_for():
    call = span(1, 0, "a", "call", 0, 50, span__kind="client")
    assert _path(call, span(2, 1, "b", "served", 10, 100)) == {"call": 10, "served": 40}


def test_a_parent_that_counts_in_milliseconds_waits_for_who_ends_a_fraction_of_one_later():
    assert _path(span(1, 0, "a", "root", 0, 50), span(2, 1, "b", "served", -0.4, 51)) == {"served": 50}


def test_the_path_is_as_long_as_the_first_span():
    spans = [span(number, number - 1, "a", f"s{number}", number, 200 - 2 * number) for number in range(1, 60)]
    assert sum(_path(*spans).values()) == 198


def test_spans_in_a_circle_end_the_walk():
    assert draw(parse(trace(span(1, 2, "a", "x", 0, 10), span(2, 1, "a", "y", 1, 5)))).rows


def _line(span_id, when):
    return Line(time=when, service="a", level="info", event="e", trace_id="", span_id=span_id, fields={})


def test_a_chosen_span_without_log_lines_has_those_of_the_nearest_span_above():
    found = parse(trace(span(1, 0, "a", "root", 0, 9), span(2, 1, "a", "x", 1, 5), span(3, 2, "a", "y", 2, 2)))
    lines = [_line(f"{1:016x}", 10), _line("", 20)]
    chosen = choose([(found, lines)], f"{3:016x}", "")
    assert (chosen.span.name, chosen.above.name, chosen.lines, chosen.line) == ("y", "root", lines[:1], 0)
    chosen = choose([(found, lines)], f"{1:016x}", "10")
    assert (chosen.span.name, chosen.above, chosen.line) == ("root", None, 10)
    assert choose([(found, lines)], "", "20").lines == lines[1:]
    assert choose([(found, lines)], "", "") is None


def test_choosing_in_a_circle_of_spans_ends():
    found = parse(trace(span(1, 2, "a", "x", 0, 10), span(2, 1, "a", "y", 1, 5), span(3, 3, "a", "z", 1, 5)))
    for number in (1, 2, 3):
        assert choose([(found, [])], f"{number:016x}", "").lines == []


def test_a_trace_without_spans_is_drawn_as_nothing():
    assert not draw(parse(trace())).rows


def test_a_comparison_puts_what_changed_most_first():
    left = parse(trace(span(1, 0, "a", "root", 0, 20), span(2, 1, "a", "db", 5, 10)))
    right = parse(trace(span(1, 0, "a", "root", 0, 95), span(2, 1, "a", "db", 5, 80)))
    rows = compare(left, right)
    assert [(row.name, row.times) for row in rows] == [("db", (10_000, 80_000)), ("root", (10_000, 15_000))]


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.93, 1), (1, 1), (1.01, 1.5), (7, 8), (1234, 1500), (1e-4, 1e-4)])
def test_an_axis_ends_at_a_round_number(value, top):
    assert chart.nice(value) == pytest.approx(top)


def test_parts_of_a_whole_are_piled_up_and_a_line_over_them_is_not():
    over = chart.Series("whole", [(1000, 3)], alone=True)
    drawn = chart.draw(
        [chart.Series("a", [(1000, 1)]), chart.Series("b", [(1000, 2)]), over], "short", WINDOW, stacked=True
    )
    assert drawn.top == 3
    heights = {one.name: float(one.path.split()[1].split("h")[0]) for one in drawn.series}
    assert heights == {"whole": 0, "b": pytest.approx(33.33), "a": 0}


def test_what_adds_nothing_to_a_pile_has_no_line_on_top_of_it():
    series = [chart.Series("PAID", [(1000, 1), (1005, 0)]), chart.Series("UNAVAILABLE", [(1000, 0), (1005, 0)])]
    drawn = {one.name: one.path for one in chart.draw(series, "short", WINDOW, stacked=True).series}
    assert drawn["PAID"]
    assert not drawn["UNAVAILABLE"]


def test_a_bar_ends_where_the_chart_ends():
    drawn = chart.draw([chart.Series("a", [(1001, 1), (1300, 1), (1602, 1)])], "short", WINDOW, bars=True)
    assert len(drawn.bars) == 3
    assert all(x >= 0 and x + width <= chart.WIDTH for x, _, width, _, _ in drawn.bars)


def test_a_hole_in_the_data_is_a_hole_in_the_line():
    drawn = chart.draw([chart.Series("a", [(1000, 1), (1005, 1), (1500, 1), (1505, 1)])], "short", WINDOW)
    assert drawn.series[0].path.count("M") == 2


def test_what_is_no_number_is_no_point():
    assert chart.points_of([[1, "NaN"], [2, "+Inf"], [3, "4"]]) == [(3, 4)]


def test_no_two_series_have_the_same_colour_while_there_are_enough():
    drawn = chart.draw([chart.Series(f"series {number}", [(1000, 1)]) for number in range(10)], "short", WINDOW)
    assert len({one.colour for one in drawn.series}) == 10


@pytest.mark.parametrize(
    "args", [{}, {"range": "<b>"}, {"from": "1", "to": "x"}, {"from": "1795926000000", "to": "1795925000000"}]
)
def test_a_time_that_is_none_is_the_default(args):
    assert Window.read(args, 10_000) == Window(10_000 - 900, 10_000, "15m")


def test_a_time_in_the_address_is_shown():
    assert Window.read({"from": "1795925000000", "to": "1795926000000"}, 0) == Window(1795925000, 1795926000)


@pytest.mark.parametrize(
    ("length", "form"),
    [(20, "second"), (100, "second"), (900, "minute"), (10_800, "minute"), (86_400, "day"), (604_800, "day")],
)
def test_times_on_an_axis_are_equally_far_apart_and_written_as_exactly_as_that_needs(length, form):
    shown = Window(1795925003.25, 1795925003.25 + length)
    times = [at for _, at in shown.ticks]
    steps = {later - earlier for earlier, later in itertools.pairwise(times)}
    assert len(steps) == 1
    assert 2 <= len(times) <= 6
    assert all(0 <= x <= 100 for x, _ in shown.ticks)
    assert shown.form == form
    assert form == "second" or all(at % 60 == 0 for at in times)


@pytest.mark.parametrize("end", ["1795925000001", "999999999999999"])
def test_an_odd_time_has_an_axis_too(end):
    assert 1 <= len(Window.read({"from": "1795925000000", "to": end}, 0).ticks) <= 6


def test_a_time_in_the_address_may_be_that_of_a_field():
    told = {"from": "2026-11-29T03:30", "to": "2026-11-29T04:30:30"}
    assert Window.read(told, 0) == Window(1795923000, 1795926630)
    assert Window.read(told | {"to": "2026-02-31T04:30"}, 10_000).name == "15m"


def test_a_chosen_time_knows_the_range_before():
    chosen = {"from": "1795925000000", "to": "1795926000000", "back": "3h"}
    assert Window.read(chosen, 0).params() == chosen
    assert "back" not in Window.read(chosen | {"back": "<b>"}, 0).params()


def test_each_caller_stands_left_of_whom_it_calls_though_they_call_in_a_circle():
    places = servicemap._laid_out({("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 1})
    assert places["a"][0] < places["b"][0] < places["c"][0]
    assert len(set(servicemap._laid_out({("a", "b"): 1, ("b", "a"): 1}).values())) == 2


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (90_000, "s", "1.04 d"),
        (0.005, "percentunit", "0.5 %"),
        (2_500_000, "bytes", "2.5 MB"),
        (1.5, "suffix:orders/s", "1.5 orders/s"),
        (float("nan"), "s", "–"),  # noqa: RUF001
    ],
)
def test_a_number_is_written_with_its_unit(value, unit, text):
    assert show.quantity(value, unit) == text


def test_markup_in_a_page_of_ours_stays_text():
    assert "<script>" not in show.markdown("# A\n<script>alert(1)</script>\n[x](javascript:alert(1))")
    assert "javascript:" not in show.markdown("[x](javascript:alert(1))").replace("[x](javascript:alert(1))", "")
