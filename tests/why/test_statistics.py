"""The three tests of significance, beside SciPy's."""

import random

import pytest
from scipy import stats

from observability.why.statistics import adjusted, fisher, mann_whitney

RNG = random.Random(7)


@pytest.mark.parametrize("hits", [0, 1, 3, 9, 20])
@pytest.mark.parametrize(("of", "other_hits", "other_of"), [(20, 0, 100), (20, 5, 40), (25, 100, 1000), (20, 40, 40)])
def test_fisher_is_as_scipy_has_it(hits, of, other_hits, other_of):
    table = [[hits, of - hits], [other_hits, other_of - other_hits]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert fisher(hits, of, other_hits, other_of) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shift", [0, 0.5, 3])
@pytest.mark.parametrize("places", [0, 1, 8], ids=lambda places: f"{places} digits")
@pytest.mark.parametrize("sizes", [(9, 12), (30, 100)])
def test_mann_and_whitneys_is_as_scipy_has_it_with_ties_and_without(shift, places, sizes):
    first = [round(RNG.gauss(shift, 1), places) for _ in range(sizes[0])]
    second = [round(RNG.gauss(0, 1), places) for _ in range(sizes[1])]
    expected = stats.mannwhitneyu(first, second, alternative="greater", method="asymptotic").pvalue
    assert mann_whitney(first, second) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_correction_for_many_tries_is_as_scipy_has_it():
    chances = [RNG.random() ** 4 for _ in range(50)]
    assert adjusted(chances) == pytest.approx(list(stats.false_discovery_control(chances)))


def test_without_any_values_nothing_is_sure():
    assert mann_whitney([], [1.0]) == mann_whitney([1.0], []) == mann_whitney([1.0, 1.0], [1.0, 1.0]) == 1
    assert fisher(0, 0, 0, 0) == 1
    assert adjusted([]) == []
