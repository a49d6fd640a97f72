"""PNG files beside a report."""

import importlib.util

import pytest
from PIL import Image
from test_report import HOSTILE, make_run
from test_search import make_search

from hrnet_search.errors import InputError
from hrnet_search.report import pictures, write_pictures


@pytest.fixture
def drawn(monkeypatch):
    """Figures by name of file, without a browser."""
    found = []

    def draw(figure):
        found.append(figure)
        return b"a picture"

    monkeypatch.setattr(pictures, "_png", draw)
    return found


def test_a_grid_has_its_table_and_its_front(tmp_path, drawn):
    files = write_pictures(make_run(tmp_path / "run"), tmp_path / "out")
    assert [file.name for file in files] == ["table.png", "pareto.png"]
    assert all(file.read_bytes() == b"a picture" for file in files)
    table, front = (figure.data for figure in drawn)
    assert list(table[0].cells["values"][0]) == ["final", "+across", "+within"]
    assert {"final", "+across", "+within"} <= {trace.name for trace in front}


def test_a_search_has_the_networks_of_its_front(tmp_path, drawn):
    listed = [({"width": 8 + n}, [n / 10], None) for n in range(3)]
    vary = {"width": {"low": 8, "high": 12}}
    run = make_search(tmp_path / "run", listed, vary=vary, search={"networks": 3})
    write_pictures(run, tmp_path / "out")
    assert list(drawn[0].data[0].cells["values"][0]) == ["0", "1", "2"]


def test_of_nothing_measured_there_is_no_front(tmp_path, drawn):
    run = make_run(tmp_path / "run", values={})
    assert [file.name for file in write_pictures(run, tmp_path / "out")] == ["table.png"]


def test_names_are_text(tmp_path, drawn):
    write_pictures(make_run(tmp_path / "run", HOSTILE, {}), tmp_path / "out")
    assert "<script>" not in drawn[0].to_json().replace("\\u003c", "<")


def test_without_kaleido_one_line_says_what_to_install(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "kaleido" else found(name)
    )
    with pytest.raises(InputError) as caught:
        write_pictures(make_run(tmp_path / "run"), tmp_path / "out")
    assert str(caught.value) == "--png: needs kaleido: pip install 'hrnet-search[png]'"
    assert not (tmp_path / "out").exists()


def test_without_a_browser_one_line_says_so(tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    from kaleido.errors import ChromeNotFoundError

    def lacking(figure, *_, **__):
        try:
            raise ChromeNotFoundError
        except ChromeNotFoundError:
            raise RuntimeError("as plotly words it")  # noqa: B904

    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lacking)
    with pytest.raises(InputError, match="needs Chrome or Chromium"):
        write_pictures(make_run(tmp_path / "run"), tmp_path / "out")


@pytest.mark.browser
def test_pictures_in_a_browser(tmp_path, chromium):
    table, front = write_pictures(make_run(tmp_path / "run"), tmp_path / "out")
    with Image.open(front) as picture:
        assert picture.size == (2000, 1120)
    with Image.open(table) as picture:
        last = picture.convert("L").crop((0, picture.height - 60, picture.width, picture.height))
        assert last.getextrema()[0] < 100  # the last row's text is there, not cut off
