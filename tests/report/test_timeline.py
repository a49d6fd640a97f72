"""When trials ran; expected rows and shares are worked out by hand."""

import itertools
import json

import pytest
from test_report import make_run, text_of
from test_search import make_search

from hrnet_search.report import timeline, write_report
from hrnet_search.report.frame import read_run

DAY = "2026-01-02T"
# Start and end of nine trials in minutes and seconds after three o'clock.
TIMES = [
    ("00:00", "00:40"),
    ("00:00", "00:20"),
    ("00:20", "00:50"),  # the second row is free at that moment
    ("00:41", "01:00"),
    ("00:51", "01:40"),
    ("11:40", "12:00"),  # after ten minutes
    ("11:40", "11:50"),
    ("11:50", "12:00"),
    ("11:50", "12:30"),
]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: "")


def with_times(run, times, **changes):
    """The run with other starts and ends: one for each of its lines."""
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for line, (start, end) in zip(lines, times, strict=True):
        line |= {"started": f"{DAY}03:{start}+00:00", "ended": f"{DAY}03:{end}+00:00"} | changes
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_trials_are_put_into_the_first_row_that_is_free(tmp_path):
    found = timeline.timeline(read_run(with_times(make_run(tmp_path), TIMES)))
    rows = dict(zip(found.bars["trial"], found.bars["row"], strict=True))
    # By start and then end, so of two that start at once the shorter one is first.
    assert rows == {1: 0, 0: 1, 2: 0, 3: 1, 4: 0, 6: 0, 5: 1, 7: 0, 8: 2}
    assert found.pauses == [(100.0, 600.0)]
    assert found.length == 150  # 12:30 without ten minutes
    ran = 40 + 20 + 30 + 19 + 49 + 20 + 10 + 10 + 40
    assert found.busy == pytest.approx(ran / (3 * 150))
    assert timeline.words(found) == (
        "3 rows, busy 53 % of 2.5 min. Nothing ran once for over a minute, 10.0 min in all: "
        "cut out."
    )


def test_no_two_bars_of_a_row_overlap():
    spans = [(0, float(n % 7 + n // 3), float(n % 7 + n // 3 + n % 11 + 1)) for n in range(200)]
    spans.sort()
    rows = timeline.packed(spans)
    for row in set(rows):
        own = [span for span, found in zip(spans, rows, strict=True) if found == row]
        assert all(a[2] <= b[1] for a, b in itertools.pairwise(own))
    # As many rows as ever ran at once.
    most = max(sum(a <= start < b for _, a, b in spans) for _, start, _ in spans)
    assert len(set(rows)) == most


def test_machines_have_rows_of_their_own_and_no_names(tmp_path):
    run = with_times(make_run(tmp_path / "run"), TIMES)
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line["environment"] = {"host": f"secret-{line['trial'] % 2}"}
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = read_run(run)
    found = timeline.timeline(read)
    assert found.rows == [(0, 0), (0, 1), (1, 0), (1, 1)]
    machines = dict(zip(found.bars["trial"], found.bars["machine"], strict=True))
    assert machines == {trial: (trial + 1) % 2 for trial in range(9)}  # trial 1 is the first
    figure = timeline.figure(read, found)
    assert list(figure.layout.yaxis.ticktext) == ["1.1", "1.2", "2.1", "2.2"]
    page = write_report(run, tmp_path / "out").read_text()
    assert "secret" not in page
    assert "on each of the 2 machines" in text_of(page)


def test_the_figure_tells_how_trials_ended(tmp_path):
    run = read_run(make_search(tmp_path / "run"))
    found = timeline.timeline(run)
    figure = timeline.figure(run, found)
    assert [trace.name for trace in figure.data] == ["complete", "ended early", "failed"]
    assert [len(trace.x) for trace in figure.data] == [5, 1, 1]
    assert (
        figure.data[1]
        .hovertext[0]
        .startswith("<b>network 3</b>, seed 0<br>trial 3: ended early at step 10<br>ran 56.0 min")
    )


def test_the_page(tmp_path):
    text = text_of(
        write_report(with_times(make_run(tmp_path / "run"), TIMES), tmp_path / "out").read_text()
    )
    assert "3 rows, busy 53 % of 2.5 min." in text
    assert "the last attempt alone" not in text
    run = with_times(make_run(tmp_path / "again"), TIMES, attempt=2)
    assert "the last attempt alone" in text_of(write_report(run, tmp_path / "b").read_text())


@pytest.mark.parametrize("started", ["", "yesterday", None])
def test_times_that_cannot_be_read_are_told(tmp_path, started):
    run = make_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    lines[4]["started"] = started
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = timeline.timeline(read_run(run))
    assert found.undated == 1
    assert timeline.words(found).endswith("1 trial without readable times left out.")


@pytest.mark.parametrize("values", [{}, {"final": [None]}, {"final": [float("nan")]}])
def test_without_trials_there_is_no_timeline(tmp_path, values):
    text = text_of(
        write_report(make_run(tmp_path / "run", values=values), tmp_path / "out").read_text()
    )
    assert ("When trials ran" in text) is bool(values)


def test_of_very_many_the_last_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "MAX_BARS", 2)
    read = read_run(with_times(make_run(tmp_path / "run"), TIMES))
    found = timeline.timeline(read)
    assert list(timeline.drawn(found)["trial"]) == [7, 8]
    assert sum(len(trace.x) for trace in timeline.figure(read, found).data) == 2
    text = text_of(write_report(tmp_path / "run", tmp_path / "out").read_text())
    assert "The last 2 of 9 trials." in text
