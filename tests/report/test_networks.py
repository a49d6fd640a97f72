"""The drawings of a report, on the page and in a browser."""

import base64
import json
import re

import pytest
from test_report import HOSTILE, PLOTLY, make_run, text_of
from test_search import make_search

from hrnet_search.report import networks, search, write_report
from hrnet_search.report.frame import read_run


@pytest.fixture(autouse=True)
def small_pages(request, monkeypatch):
    if request.node.get_closest_marker("browser") is None:
        monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: PLOTLY)


def ids(page):
    """Places of the figures below the heading of the networks."""
    return [int(place) for place in re.findall(r'<figure id="network-(\d+)"', page)]


def test_every_arm_is_drawn_once_with_what_was_measured(tmp_path):
    page = write_report(make_run(tmp_path / "run"), tmp_path / "out").read_text()
    assert ids(page) == [0, 1, 2]
    # Three, and the best of them again below the plot; what they are made of once.
    assert page.count('<svg class="net"') == 4
    parts = re.findall(r'<g id="(net-\w+)"', page)
    assert len(parts) == len(set(parts))
    assert set(re.findall(r'<use href="#(net-\w+)"', page)) == set(parts)
    assert "+within AP 36.5 ± 0.5 (3), GMACs 0.022, Params 0.1 M, Latency 4 ms" in text_of(page)
    assert "<details>\n<summary>3 networks" not in page


def test_many_arms_are_folded(tmp_path):
    arms = {f"arm {n}": {"num_blocks": n} for n in range(1, 10)}
    page = write_report(make_run(tmp_path / "run", arms, {}), tmp_path / "out").read_text()
    assert ids(page) == list(range(9))
    assert "<details>\n<summary>9 networks</summary>" in page


def test_the_winner_is_drawn(tmp_path):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    (out / "winner").mkdir(parents=True)
    source = {"source": {"trial": 4, "started": "2026-01-02T03:04:05+00:00"}}
    (out / "winner" / "arch.json").write_text(json.dumps(source))
    page = write_report(run, out).read_text()
    winner = page.partition("<h2>The winner</h2>")[2].partition("</section>")[0]
    assert winner.count('<svg class="net"') == 1
    assert "<title>+across</title>" in winner


def test_what_the_winner_finds_is_on_the_page(tmp_path):
    run, out = make_run(tmp_path / "run"), tmp_path / "out"
    (out / "winner" / "predictions").mkdir(parents=True)
    for number in range(2):
        (out / "winner" / "predictions" / f"{number}.jpg").write_bytes(b"picture %d" % number)
    assert "<img" not in write_report(run, out).read_text()  # whose network is it?
    source = {"source": {"trial": 4, "started": "2026-01-02T03:04:05+00:00"}}
    (out / "winner" / "arch.json").write_text(json.dumps(source))
    page = write_report(run, out).read_text()
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"', page)
    assert list(map(base64.b64decode, found)) == [b"picture 0", b"picture 1"]
    assert "What it finds in 2 validation pictures" in text_of(page)


def test_names_stay_text_in_drawings(tmp_path):
    values = {arm: [0.1, 0.2] for arm in HOSTILE}
    page = write_report(make_run(tmp_path / "run", HOSTILE, values), tmp_path / "out").read_text()
    assert "<script>alert(1)" not in page
    titles = re.findall(r"<title>(.*?)</title>", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in titles


def test_of_a_search_the_fronts_and_the_best_are_drawn(tmp_path):
    count = networks.MAX_DRAWN + 20
    vary = {"width": {"low": 8, "high": 8 + count}}
    listed = [({"width": 8 + n}, [n / 1000], 10 if n == 3 else None) for n in range(count)]
    listed[5] = ({"width": 13}, [0.0], None)  # the dearest are the best but for this one
    folder = make_search(
        tmp_path / "run", listed, vary=vary, search={"networks": count, "scheduler": "asha"}
    )
    file = folder / "results.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:  # all cost the same but for the worst, which has the fewest parameters
        record["profile"] = {"macs": 1e6, "params": 1e3 if record["proposal"] == 5 else 1e4}
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    run = read_run(folder)
    shown = networks.of_search(run, search.networks_data(run), None)
    assert len(shown.shown) == networks.MAX_DRAWN
    names = [one.name for one in shown.shown]
    best = [str(n) for n in range(count - 1, count - networks.MAX_DRAWN, -1)]
    assert names == [best[0], "5", *best[1:]]
    assert shown.shown[shown.best].name == best[0]
    assert shown.shown[1].title == "network 5"
    assert shown.shown[1].about == "width=13"
    page = write_report(folder, tmp_path / "out").read_text()
    assert f"{networks.MAX_DRAWN} of the {count - 1} compared" in text_of(page)


def test_the_best_is_drawn_of_a_front_longer_than_the_page(tmp_path):
    count = networks.MAX_DRAWN + 5  # all on the front: each costs more, and is better
    vary = {"width": {"low": 8, "high": 8 + count}}
    listed = [({"width": 8 + n}, [(n + 1) / 1000], None) for n in range(count)]
    run = read_run(make_search(tmp_path, listed, vary=vary, search={"networks": count}))
    data = search.networks_data(run)
    assert data["front"].sum() == count
    shown = networks.of_search(run, data, None)
    assert shown.shown[shown.best].name == str(count - 1)
    assert [one.name for one in shown.shown[1:3]] == ["0", "1"]


def test_a_search_that_has_found_nothing_has_no_drawings(tmp_path):
    page = write_report(make_search(tmp_path / "run", []), tmp_path / "out").read_text()
    assert ids(page) == []
    assert "Networks drawn" not in page


def rows(page):
    return page.locator("main table").first.locator("tbody th").all_text_contents()


@pytest.mark.browser
def test_in_a_browser(tmp_path, chromium):
    """One page of a search: its drawings, the cost axis, tables, light and dark, and its width."""
    from playwright.sync_api import expect

    listed = [(8, [0.3, 0.3], None), (16, [0.5, 0.5], None), (24, [0.4, 0.4], None)]
    folder = make_search(tmp_path / "run", listed, seeds=2)
    file = folder / "results.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:  # on the front by parameters, but not by multiply-adds
        record["profile"]["params"] = 1e9 / record["params"]["width"]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(folder, tmp_path / "out")
    page = chromium.new_page(viewport={"width": 360, "height": 900}, color_scheme="dark")
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "out" / "index.html").as_uri())
    for name in ("pareto", "best", "metric", "loss"):
        page.locator(f"#{name} .main-svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 360

    panel = page.locator("#pareto-network")
    expect(panel.locator("b")).to_have_text("network 1")  # the best
    drawn = panel.locator("svg.net")
    assert drawn.locator("use").first.bounding_box()["width"] > 5
    assert panel.bounding_box()["width"] <= 360 - 2 * 20
    expect(drawn.locator("text").first).to_have_css("fill", "rgb(228, 231, 236)")
    page.emulate_media(color_scheme="light")
    expect(drawn.locator("text").first).to_have_css("fill", "rgb(29, 33, 41)")

    page.locator("#pareto").scroll_into_view_if_needed()
    point = page.locator("#pareto .scatterlayer .trace").last.locator(".point").first
    point.hover(force=True)
    expect(panel.locator("b")).to_have_text("network 2")
    expect(page.locator("#pareto-pick")).to_have_value("2")
    page.locator("#pareto-pick").focus()
    page.keyboard.press("ArrowUp")
    expect(panel.locator("b")).to_have_text("network 0")

    axis = page.locator("#pareto .xtitle")
    expect(axis).to_have_text("GMACs (1e9 conv + linear)")
    front = "document.getElementById('pareto').data[0].y"
    assert page.evaluate(front) == [30, 50]
    page.locator("#pareto-cost").select_option("Params")
    expect(axis).to_have_text("Params (M)")
    assert page.evaluate(front) == [40, 50]

    assert rows(page) == ["0", "1"]
    header = page.locator("main table").first.locator("thead th").nth(1)
    for state, order in (("ascending", "01"), ("descending", "10"), ("none", "01")):
        header.locator("button").click()
        expect(header).to_have_attribute("aria-sort", state)
        assert rows(page) == list(order)
    params = page.locator("main table").first.locator("thead th").nth(3)
    params.locator("button").click()
    assert rows(page) == ["1", "0"]  # 62.5 before 125, as no order of letters has them
    values = {"\u22121.5\n[\u22122.0, +1.0]": -1.5, "73.4 ± 0.2 (3)": 73.4, "1.2e+03": 1200}
    for text, value in values.items():
        assert page.evaluate("text => cellValue(text, true)", text) == value
    for sign in (1, -1):  # what is missing comes last in both directions
        assert page.evaluate("sign => compare(cellValue('n/a', true), 1, sign)", sign) == 1

    assert problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    page.close()
