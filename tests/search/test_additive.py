"""The additive model; amounts and errors are known by hand, or worked out the long way."""

import itertools
import math

import numpy as np
import pytest

from hrnet_search.search.additive import fit

WIDTHS, FINALS, EDGES = [8, 16, 24], [False, True], ["all", "neighbours"]
GRID = [
    {"width": w, "final": f, "edges": e} for w, f, e in itertools.product(WIDTHS, FINALS, EDGES)
]


def total(params):
    return 0.2 + {8: 0.0, 16: 0.1, 24: 0.15}[params["width"]] + 0.05 * params["final"]


def test_sums_are_predicted_exactly():
    left_out = [GRID[0], GRID[7]]
    others = [params for params in GRID if params not in left_out]
    model = fit(others, [total(params) for params in others])
    for params in left_out:
        assert model.predict(params) == pytest.approx(total(params), abs=1e-12)
    assert model.error == pytest.approx(0, abs=1e-12)
    assert model.is_useful


def test_what_no_network_shows_is_not_predicted():
    model = fit(GRID, [total(params) for params in GRID])
    assert model.predict({**GRID[0], "width": 32}) is None
    # Two knobs that always changed together: only their sum is known.
    tied = [p for p in GRID if p["final"] == (p["edges"] == "all")]
    model = fit(tied, [total(params) for params in tied])
    assert model.predict(tied[0]) == pytest.approx(total(tied[0]))
    assert model.predict({**tied[0], "final": not tied[0]["final"]}) is None
    assert model.variances() is None


def test_variances_are_those_of_the_amounts():
    found = fit(GRID, [total(params) for params in GRID]).variances()
    assert found["width"] == pytest.approx(np.var([0.0, 0.1, 0.15]))
    assert found["final"] == pytest.approx(0.05**2 / 4)
    assert found["edges"] == pytest.approx(0, abs=1e-12)


def test_the_error_is_that_of_leaving_each_out():
    rng = np.random.default_rng(3)
    values = [total(params) + rng.normal(0, 0.02) for params in GRID]
    errors = []
    for n, params in enumerate(GRID):
        rest = [place for place in range(len(GRID)) if place != n]
        model = fit([GRID[place] for place in rest], [values[place] for place in rest])
        errors.append(values[n] - model.predict(params))
    model = fit(GRID, values)
    assert model.error == pytest.approx(math.sqrt(np.mean(np.square(errors))))
    assert model.spread == pytest.approx(np.std(values, ddof=1))


def test_a_network_that_is_alone_in_something_has_no_error():
    networks = [{"width": w} for w in WIDTHS]
    model = fit(networks, [0.1, 0.2, 0.3])
    assert model.error is None
    assert not model.is_useful


def test_an_exclusive_or_is_not_useful():
    params = [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)] * 2
    model = fit(params, [float(p["a"] != p["b"]) for p in params])
    assert model.error > model.spread
    assert not model.is_useful


def test_one_is_not_true():
    model = fit([{"a": v} for v in (1, True, 1, True)], [0.0, 1.0, 0.0, 1.0])
    assert model.predict({"a": True}) == pytest.approx(1)
