"""Fronts of several costs, worked out by hand from runs made up here."""

import json

import pytest
from test_report import make_run
from test_search import make_search

from hrnet_search.report import pareto, search
from hrnet_search.report.frame import read_run

# Cheap in one cost is dear in the other: AP, multiply-adds, parameters, seconds.
FIGURES = {
    "final": (0.3, 1e9, 3e6, 0.004),
    "+across": (0.4, 2e9, 2e6, 0.050),
    "+within": (0.2, 3e9, 1e6, 0.003),
}


def with_costs(folder, figures):
    """The run with other costs in its records, by arm; None for a cost that was not measured."""
    file = folder / "results.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        _, *costs = figures[record["arm"]]
        named = zip(("macs", "params", "latency"), costs, strict=True)
        record["profile"] = {name: cost for name, cost in named if cost is not None}
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_run(folder)


def grid(tmp_path, figures=FIGURES):
    values = {arm: [figure[0]] for arm, figure in figures.items()}
    return with_costs(make_run(tmp_path / "run", values=values), figures)


def fronts(figure):
    """Cost -> corners of its front."""
    changes = figure.layout.meta["costs"]
    return {
        name: list(zip(change["traces"]["x"][0], change["traces"]["y"][0], strict=True))
        for name, change in changes.items()
    }


def test_each_cost_has_its_front(tmp_path):
    run = grid(tmp_path)
    assert [cost.label for cost in pareto.costs(run)] == ["GMACs", "Params", "Latency"]
    figure = pareto.grid_figure(run, {})
    assert fronts(figure) == {
        "GMACs": [(1, 30), (2, 40)],
        "Params": [(1, 20), (2, 40)],
        "Latency": [(3, 20), (4, 30), (50, 40)],
    }
    # Line, then a trace of seeds and one of the mean for each arm.
    faint = pareto.FAINT
    by_cost = {
        name: change["traces"]["opacity"][1:]
        for name, change in figure.layout.meta["costs"].items()
    }
    assert by_cost == {
        "GMACs": [1, 1, 1, 1, faint, faint],
        "Params": [faint, faint, 1, 1, 1, 1],
        "Latency": [1] * 6,
    }


def test_the_first_cost_is_the_studys_own_and_drawn_at_once(tmp_path):
    values = {arm: [figure[0]] for arm, figure in FIGURES.items()}
    folder = make_run(tmp_path / "run", values=values, objectives=["metrics.ap", "profile.latency"])
    figure = pareto.grid_figure(with_costs(folder, FIGURES), {})
    assert next(iter(figure.layout.meta["costs"])) == "Latency"
    assert figure.layout.xaxis.title.text == "Latency (ms, batch 1, 1 thread)"
    assert list(figure.data[0].x) == [3, 4, 50]


def test_costs_far_apart_have_a_logarithmic_axis(tmp_path):
    changes = pareto.grid_figure(grid(tmp_path), {}).layout.meta["costs"]
    types = {name: change["layout"]["xaxis.type"] for name, change in changes.items()}
    assert types == {"GMACs": "linear", "Params": "linear", "Latency": "log"}


def test_costs_have_no_prefixes_on_their_axis(tmp_path):
    assert pareto.grid_figure(grid(tmp_path), {}).layout.xaxis.exponentformat == "none"


def test_an_arm_without_a_cost_has_no_place_on_its_axis(tmp_path):
    figures = FIGURES | {"+across": (0.4, 2e9, None, None)}
    figure = pareto.grid_figure(grid(tmp_path, figures), {})
    assert fronts(figure)["Params"] == [(1, 20), (3, 30)]
    traces = figure.layout.meta["costs"]["Params"]["traces"]
    assert traces["x"][3:5] == [[None], [None]]
    assert traces["y"][3:5] == [[40], [40]]


def test_points_know_the_drawings_of_their_networks(tmp_path):
    figure = pareto.grid_figure(grid(tmp_path), {"final": 2, "+within": 0})
    assert [trace.customdata for trace in figure.data[1:]] == [
        *[(2,), (2,), (None,), (None,), (0,), (0,)]
    ]


def test_published_networks_have_a_ring_and_a_name(tmp_path):
    arms = {"ours": {"width": 8}, "theirs": {"width": 32}}
    space = {"base": {}, "vary": {"network": {"arms": arms}}}
    values = {"ours": [0.2], "theirs": [0.4]}
    run = read_run(make_run(tmp_path, arms, values, space=space, seeds=1))
    assert pareto.published(run.arms) == {"theirs": "w32"}
    ring = pareto.grid_figure(run, {}).data[-1]
    assert (ring.name, ring.text, ring.y) == ("published", ("W32",), (40,))


def test_without_published_networks_there_is_no_ring(tmp_path):
    figure = pareto.grid_figure(read_run(make_run(tmp_path)), {})
    assert "published" not in [trace.name for trace in figure.data]


def test_fronts_of_a_search(tmp_path):
    networks = [(8, [0.3], None), (16, [0.5], None), (24, [0.4], None), (32, [0.9], 10)]
    folder = make_search(tmp_path / "run", networks)
    figures = {
        "width=8, within=true": (0.3, 1e9, 3e6, None),
        "width=16, within=true": (0.5, 2e9, 2e6, None),
        "width=24, within=true": (0.4, 3e9, 1e6, None),
        "width=32, within=true": (0.9, 1e9, 1e6, None),  # ended early
    }
    run = with_costs(folder, figures)
    data = search.networks_data(run)
    figure = pareto.search_figure(run, data, {"width=24, within=true": 7})
    assert fronts(figure) == {"GMACs": [(1, 30), (2, 50)], "Params": [(1, 40), (2, 50)]}
    points = figure.data[1]
    assert list(points.y) == [40, 50, 30]
    assert points.customdata == (7, None, None)
    assert [text.partition("<br>")[0] for text in points.hovertext] == [
        f"<b>network {n}</b>, mean of 1 seed" for n in (2, 1, 0)
    ]
    traces = figure.layout.meta["costs"]["Params"]["traces"]
    assert traces["marker.opacity"][1] == [1, 1, pareto.FAINT]
    assert traces["x"][1] == [1, 2, 3]


def test_deviations_are_drawn_of_the_front_alone(tmp_path):
    networks = [(8, [0.3, 0.5], None), (16, [0.2, 0.2], None)]
    run = read_run(make_search(tmp_path / "run", networks, seeds=2))
    bars = pareto.search_figure(run, search.networks_data(run), {}).data[1]
    assert list(bars.x) == [None, pytest.approx(0.008)]
    assert bars.error_y.array[1] == pytest.approx(100 * 0.2 / 2**0.5)


def test_deviations_are_there_for_the_front_of_every_cost(tmp_path):
    """The page takes lengths of bars from the first cost: also of what is in front by another."""
    folder = make_search(tmp_path / "run", [(8, [0.3, 0.5], None), (16, [0.2, 0.4], None)], seeds=2)
    run = with_costs(
        folder,
        {"width=8, within=true": (0, 1e9, 3e6, None), "width=16, within=true": (0, 2e9, 1e6, None)},
    )
    figure = pareto.search_figure(run, search.networks_data(run), {})
    costs = figure.layout.meta["costs"]
    drawn = {name: [x is not None for x in costs[name]["traces"]["x"][1]] for name in costs}
    assert sorted(map(sum, drawn.values())) == [1, 2]
    assert list(figure.data[1].error_y.array) == [pytest.approx(100 * 0.2 / 2**0.5)] * 2


def test_nothing_measured_is_no_figure(tmp_path):
    assert pareto.grid_figure(read_run(make_run(tmp_path / "grid", values={})), {}) is None
    run = read_run(make_search(tmp_path / "search", [(8, [None], None)]))
    assert pareto.search_figure(run, search.networks_data(run), {}) is None
