"""The order of multiply-adds against that of latencies; expected numbers are counted by hand."""

import json

import pytest
from scipy import stats
from test_report import make_run, text_of
from test_search import make_search

from hrnet_search.report import speed, write_report
from hrnet_search.report.frame import read_run

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: "")


def with_profiles(run, profiles):
    """The run with other profiles: one for each of its lines."""
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    lines = [line | {"profile": own} for line, own in zip(lines, profiles, strict=True)]
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def profile(macs, milliseconds):
    return {"params": 1.0, "macs": macs, "latency": milliseconds / 1e3}


def search_of(folder, costs):
    networks = [(4 * n, [0.1], None) for n in range(1, len(costs) + 1)]
    return with_profiles(make_search(folder, networks), [profile(*each) for each in costs])


COSTS = [(1e6, 4.0), (2e6, 3.9), (3e6, 2.0), (4e6, 6.0), (4e6, 5.0)]


def test_pairs_are_counted(tmp_path):
    found = speed.orders(read_run(search_of(tmp_path, COSTS)))
    # Opposite: 0-1 (by 1.03 times), 0-2 (2.0), 1-2 (1.95). Equal: 3-4. The other six agree.
    assert (found.agree, found.equal, found.oppose, found.beyond) == (6, 1, 3, 2)
    assert found.pairs[["fewer", "more"]].values.tolist() == [["0", "2"], ["1", "2"]]
    assert found.pairs["ratio"].tolist() == pytest.approx([2.0, 1.95])
    expected = stats.kendalltau(*zip(*COSTS, strict=True)).statistic
    assert found.tau == pytest.approx(expected)
    words = speed.words(found)
    assert words.startswith("Of 10 pairs of networks 6 stand in the same order")
    assert f"tau-b: {expected:.2f} (n = 5 networks)." in words


@pytest.mark.parametrize(("latency", "beyond"), [(2.499, 0), (2.5, 1)])
def test_what_noise_may_have_done_is_not_listed(tmp_path, latency, beyond):
    run = read_run(search_of(tmp_path, [(1e6, latency), (2e6, 2.0)]))
    found = speed.orders(run)
    assert (found.oppose, found.beyond, len(speed.table(run, found).rows)) == (1, beyond, beyond)


def test_the_page_of_a_search(tmp_path):
    text = text_of(write_report(search_of(tmp_path / "run", COSTS), tmp_path / "out").read_text())
    assert "3 in opposite ones, 2 of them by at least 1.25 times in latency." in text
    assert "0 2 0.001 0.003 4 2 2.00" in text


def test_many_disagreements_are_folded(tmp_path):
    costs = [(1e6 * n, 30.0 / n) for n in range(1, 11)]  # all 45 pairs, 2 of them within 1.25
    page = write_report(search_of(tmp_path / "run", costs), tmp_path / "out").read_text()
    run = read_run(tmp_path / "run")
    found = speed.orders(run)
    # n / m is below 1.25 for 6/5, 7/6, 8/7, 9/8, 10/9 and 10/9's like: counted in whole numbers.
    close = sum(4 * n < 5 * m for n in range(1, 11) for m in range(1, n))
    assert (found.oppose, found.beyond, found.tau) == (45, 45 - close, pytest.approx(-1))
    assert "\u22121.00 (n = 10" in speed.words(found)
    assert len(speed.table(run, found).rows) == speed.MAX_PAIRS
    assert f"<summary>The 10 largest disagreements of {45 - close}</summary>" in page


def test_the_page_of_a_grid(tmp_path):
    profiles = [profile(macs, 1.0 + 8e6 / macs) for macs in (1e6, 2e6, 4e6) for _ in range(3)]
    run = with_profiles(make_run(tmp_path / "run"), profiles)  # three seeds each
    text = text_of(write_report(run, tmp_path / "out").read_text())
    assert "Of 3 pairs of networks 0 stand in the same order" in text
    assert "final +within 0.001 0.004 9 3 3.00" in text


@pytest.mark.parametrize("costs", [[], [(1e6, 1.0)], [(1e6, float("nan")), (2e6, 1.0)]])
def test_nothing_is_said_of_fewer_than_two_networks(tmp_path, costs):
    page = write_report(search_of(tmp_path / "run", costs), tmp_path / "out").read_text()
    assert "Multiply-adds against latency" not in page


def test_where_no_latency_was_measured(tmp_path):
    run = with_profiles(make_run(tmp_path / "run"), [{"macs": 1e6}] * 9)
    page = write_report(run, tmp_path / "out").read_text()
    assert "Multiply-adds against latency" not in page


def test_equal_networks_have_no_tau(tmp_path):
    found = speed.orders(read_run(search_of(tmp_path, [(1e6, 1.0)] * 3)))
    assert (found.equal, found.tau) == (3, None)
    assert "tau-b: there is none (n = 3 networks)." in speed.words(found)


def test_of_very_many_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "MAX_NETWORKS", 3)
    found = speed.orders(read_run(search_of(tmp_path, COSTS)))
    assert (found.networks, found.of, found.agree + found.equal + found.oppose) == (3, 5, 3)
    assert "The 3 are drawn at random from 5." in speed.words(found)
