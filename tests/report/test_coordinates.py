"""Networks as lines across their knobs; expected places are worked out by hand."""

import json

import pytest
from test_search import NETWORKS, data_of, make_search

from hrnet_search.report import coordinates, write_report

VARY = {
    "width": {"choices": [8, 12, 24]},
    "num_modules": {"choices": [[1, 1, 1], [1, 2, 2]]},
    "within": {"choices": [True, False]},
}
KNOBS = [
    {"width": 8, "num_modules": [1, 1, 1], "within": True},
    {"width": 12, "num_modules": [1, 2, 2], "within": False},
    {"width": 24, "num_modules": [1, 1, 1], "within": False},
]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: "")


def of(folder, accuracies, **options):
    """Read the search, with one network for each accuracy, and the lines drawn."""
    networks = [(knobs, [value], None) for knobs, value in zip(KNOBS, accuracies, strict=False)]
    run, data = data_of(make_search(folder, networks, vary=VARY, **options))
    return run, coordinates.lines_data(run, data)


def test_axes_are_the_knobs_then_cost_and_accuracy(tmp_path):
    run, lines = of(tmp_path, [0.2, 0.3, 0.6])
    axes = coordinates.axes(run, lines)
    assert [axis.title for axis in axes] == ["width", "num_modules", "within", "GMACs", "AP"]
    assert list(lines["network"]) == ["0", "1", "2"]  # the front, by cost: 8, 12, 24 million
    width, modules, within, cost, accuracy = axes
    assert width.places == [0, 0.25, 1]  # to scale
    assert width.ticks == [(0, "8"), (0.25, "12"), (1, "24")]
    assert modules.places == [0, 1, 0]
    assert modules.ticks == [(0, "[1, 1, 1]"), (1, "[1, 2, 2]")]
    assert (within.places, within.ticks) == ([0, 1, 1], [(0, "true"), (1, "false")])
    assert cost.places == [0, 0.25, 1]
    assert accuracy.places == pytest.approx([0, 0.25, 1])
    assert accuracy.ticks[::2] == [(0, "20.0"), (0.5, "40.0"), (1, "60.0")]


def test_costs_far_apart_are_logarithmic(tmp_path):
    folder = tmp_path / "run"
    of(folder, [0.2, 0.3, 0.6])
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line, macs in zip(lines, (1e6, 1e7, 1e8), strict=True):
        line["profile"]["macs"] = macs
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run, data = data_of_folder(folder)
    axis = coordinates.axes(run, coordinates.lines_data(run, data))[-2]
    assert axis.places == pytest.approx([0, 0.5, 1])
    assert axis.ticks[2] == (0.5, "0.01")


def data_of_folder(folder):
    from hrnet_search.report import search
    from hrnet_search.report.frame import read_run

    run = read_run(folder)
    return run, search.networks_data(run)


def test_the_best_are_on_top_in_the_last_colour(tmp_path):
    run, lines = of(tmp_path, [0.2, 0.3, 0.6])
    *drawn, ticks = coordinates.figure(run, lines).data
    assert [trace.y[-2] for trace in drawn] == pytest.approx([0, 0.25, 1])
    assert (drawn[0].line.color, drawn[-1].line.color) == ("rgb(91, 127, 219)", "rgb(224, 138, 0)")
    assert drawn[-1].hovertext[0] == "network 2, AP 60.0; width: 24"
    assert ticks.mode == "text"


def test_only_networks_compared_are_drawn(tmp_path):
    run, data = data_of(make_search(tmp_path, NETWORKS))
    assert list(coordinates.lines_data(run, data)["network"]) == ["0", "1", "5", "2", "6"]


@pytest.mark.parametrize(
    ("accuracies", "drawn"),
    [([], False), ([None], False), ([0.3], False), ([0.3, float("nan")], False), ([0.3] * 2, True)],
    ids=["none", "failed", "one", "nan", "equal"],
)
def test_with_few_networks(tmp_path, accuracies, drawn):
    run, lines = of(tmp_path / "run", accuracies)
    assert (coordinates.figure(run, lines) is not None) is drawn
    page = write_report(tmp_path / "run", tmp_path / "out").read_text()
    assert ("All knobs at once" in page) is drawn


def test_names_are_escaped(tmp_path):
    hostile = ["<script>alert(1)</script>", "a <b>x</b> %{y}"]
    vary = {"<i>": {"arms": {name: {"width": 8 * n} for n, name in enumerate(hostile, 1)}}}
    networks = [({"<i>": name}, [0.1 * n], None) for n, name in enumerate(hostile, 1)]
    run, data = data_of(make_search(tmp_path, networks, vary=vary))
    figure = coordinates.figure(run, coordinates.lines_data(run, data))
    texts = [figure.layout.xaxis.ticktext[0], *figure.data[-1].text, *figure.data[0].hovertext]
    assert not any(tag in text for text in texts for tag in ("<i>", "<script", "<b>x"))
    assert figure.data[-1].text[0] == "&lt;script&gt;alert(1)&lt;\N{HORIZONTAL ELLIPSIS}"


def test_very_many_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinates, "MAX_LINES", 2)
    _, lines = of(tmp_path / "run", [0.2, 0.3, 0.6])
    assert len(lines) == 2
    page = write_report(tmp_path / "run", tmp_path / "out").read_text()
    assert "of the 3 networks compared, 2 of them: the front, then the best" in page


def test_an_axis_of_many_values_has_few_ticks(tmp_path):
    vary = {"width": {"low": 8, "high": 88}}
    networks = [({"width": 8}, [0.1], None), ({"width": 48}, [0.2], None)]
    run, data = data_of(make_search(tmp_path, networks, vary=vary))
    axis = coordinates.axes(run, coordinates.lines_data(run, data))[0]
    assert axis.places == [0, 0.5]
    assert axis.ticks == [(0, "8"), (0.25, "28"), (0.5, "48"), (0.75, "68"), (1, "88")]
