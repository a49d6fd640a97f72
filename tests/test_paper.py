"""Figures of arXiv 1908.07919v2, Table 12, section 7, Figs. 9 and 10, and of the CVPR paper's
Fig. 6, and how rows are found."""

from collections.abc import Mapping
from typing import Any

import pytest

from hrnet_search.arch import hrnet
from hrnet_search.blueprint import canonical
from hrnet_search.paper import TABLES
from hrnet_search.result import METRICS
from hrnet_search.space import DEFAULTS

TABLE_12 = [  # final, across, within, fusions, COCO AP, Cityscapes mIoU; percent as printed
    (True, False, False, 1, 70.8, 74.8),
    (True, True, False, 3, 71.9, 75.4),
    (True, True, True, 8, 73.4, 76.4),
]


def test_table_12_has_the_printed_figures_in_the_printed_order() -> None:
    rows = TABLES["table12"].rows
    for row, (final, across, within, _, ap, miou) in zip(rows, TABLE_12, strict=True):
        assert row.arguments == {"final": final, "across": across, "within": within}
        assert row.values["pose_ap"] * 100 == pytest.approx(ap, abs=1e-9)
        assert row.values["segmentation_miou"] * 100 == pytest.approx(miou, abs=1e-9)


# Section 7, text (pages 10 and 11): what is changed; COCO AP, Cityscapes mIoU; percent as printed.
OPERATORS = [
    ({"downsample": "bilinear"}, 72.6, 74.2),
    ({"fuse": "multiply"}, 54.7, 66.0),
    ({}, 73.4, 76.4),
]
RESOLUTIONS: list[tuple[dict[str, Any], float | None, float | None]] = [
    ({"num_branches": 1}, None, None),  # "much lower performance", no figure
    ({"num_branches": 4}, 72.5, 75.7),
    ({}, 73.4, 76.4),
]
# Fig. 9 (page 9): the map that is read; AP of W32 and W48; of the lowest "below 10" in the text.
FIGURE_9: list[tuple[dict[str, Any], float | None, float | None]] = [
    ({}, 74.4, 75.1),
    ({"output_branch": 1}, 68.9, 69.6),
    ({"output_branch": 2}, 55.0, 55.4),
    ({"output_branch": 3}, None, None),
]


@pytest.mark.parametrize(
    ("name", "printed"),
    [("fusion_operator", OPERATORS), ("resolution", RESOLUTIONS), ("figure9", FIGURE_9)],
)
def test_other_ablations_have_the_printed_figures(
    name: str, printed: list[tuple[dict[str, Any], float | None, float | None]]
) -> None:
    table = TABLES[name]
    for row, (changed, *figures) in zip(table.rows, printed, strict=True):
        assert table.row({**DEFAULTS, **changed}) is row
        for column, figure in zip(table.columns, figures, strict=True):
            value = row.values.get(column)
            assert (value is None) == (figure is None)
            assert value == (figure and pytest.approx(figure / 100, abs=1e-9))


# Fig. 10 (page 11): head; mIoU of W18, W48 on Cityscapes val, of W18, W48 on PASCAL-Context; of
# pose the text (pages 10 and 11) has AP with W32 from scratch.
FIGURE_10 = [
    ("v1", 78.5, 81.0, 47.2, 52.6, 73.4),
    ("v1h", 79.1, 81.0, 47.4, 52.9, None),
    ("v2", 79.5, 81.1, 49.5, 54.0, 73.6),
]


def test_figure_10_has_the_papers_figures() -> None:
    table = TABLES["figure10"]
    columns = [
        *(
            f"{data}_w{width}_miou"
            for data in ("cityscapes", "pascal_context")
            for width in (18, 48)
        ),
        "pose_ap",
    ]
    assert list(table.columns) == columns
    for row, (head, *figures) in zip(table.rows, FIGURE_10, strict=True):
        assert table.row({**DEFAULTS, "head": head, "rival": None}) is row
        found = [row.values.get(column) for column in columns]
        assert found == [figure and pytest.approx(figure / 100, abs=1e-9) for figure in figures]
    assert table.row({**DEFAULTS, "head": "ocr"}) is None


# Fig. 10b (page 11): head; box AP of W18 and W32, by the 1x and 2x schedules.
FIGURE_10B = [
    ("v1p", 32.0, 34.4, 37.2, 38.9),
    ("v1hp", 33.6, 36.3, 38.2, 40.1),
    ("v2p", 36.2, 38.0, 39.6, 40.9),
]


def test_figure_10b_has_the_papers_figures() -> None:
    table = TABLES["figure10_detection"]
    columns = [f"w{width}_{schedule}x_box_ap" for width in (18, 32) for schedule in (1, 2)]
    assert list(table.columns) == columns
    for row, (head, *figures) in zip(table.rows, FIGURE_10B, strict=True):
        assert table.row({**DEFAULTS, "head": head, "rival": None}) is row
        found = [row.values[column] for column in columns]
        assert found == pytest.approx([figure / 100 for figure in figures], abs=1e-9)
    assert table.row({**DEFAULTS, "head": "v2p_s2"}) is None


# Sun et al., CVPR 2019, Fig. 6: AP of HRNet-W32 and SimpleBaseline-ResNet-50 by input size.
CVPR_FIGURE_6 = {
    (128, 96): (65.5, 59.2),
    (192, 128): (70.9, 66.7),
    (256, 192): (74.4, 70.4),
    (320, 224): (74.4, 71.7),
    (352, 256): (74.6, 71.8),
    (384, 288): (75.8, 72.2),
}


def test_figure_6_of_the_cvpr_paper_has_its_figures() -> None:
    table = TABLES["cvpr_figure6"]
    assert len(table.rows) == 2 * len(CVPR_FIGURE_6)
    for size, figures in CVPR_FIGURE_6.items():
        for rival, figure in zip((None, "simple_baseline_resnet50"), figures, strict=True):
            row = table.row({"rival": rival, "input_size": list(size), "head": "v1"})
            assert row is not None
            assert row.values == {"pose_ap": pytest.approx(figure / 100, abs=1e-9)}
    assert table.row({"rival": None, "input_size": [64, 64]}) is None
    assert table.row({"rival": "hourglass_8", "input_size": [256, 192]}) is None


OF_NETWORKS = ["table12", "fusion_operator", "resolution", "figure9"]


@pytest.mark.parametrize("name", OF_NETWORKS)
def test_the_rows_of_a_table_make_different_networks_and_the_papers(name: str) -> None:
    specs = [canonical(hrnet(**row.arguments), "v1") for row in TABLES[name].rows]
    assert len({spec.key for spec in specs}) == len(specs)
    assert canonical(hrnet(), "v1") in specs


@pytest.mark.parametrize("given", [(2, 3, 4), [2, 3, 4], [2, 3, 4, 5], (2, 3, 4, 5, 6, 6, 6)])
def test_a_row_is_found_however_its_list_is_written(given: object) -> None:
    row = TABLES["resolution"].row({"num_branches": given})
    assert row is not None
    assert row.values == {"pose_ap": 0.734, "segmentation_miou": 0.764}


@pytest.mark.parametrize("given", [None, 2, 3, [2, 3], [2, 3, 3], [1, 2, 3, 4], [4, 4, 5]])
def test_other_lists_find_no_row(given: object) -> None:
    assert TABLES["resolution"].row({"num_branches": given}) is None


def test_rows_of_table_12_make_networks_with_its_fusion_counts() -> None:
    rows = TABLES["table12"].rows
    assert [hrnet(**row.arguments).num_fusions for row in rows] == [r[3] for r in TABLE_12]


@pytest.mark.parametrize("name", TABLES)
def test_columns_name_metrics(name: str) -> None:
    assert {key for key, _ in TABLES[name].columns.values()} <= METRICS.keys()


@pytest.mark.parametrize("name", OF_NETWORKS)
def test_rows_fill_all_columns_or_none(name: str) -> None:
    table = TABLES[name]
    assert all(row.values.keys() in (table.columns.keys(), set()) for row in table.rows)


@pytest.mark.parametrize("name", [*OF_NETWORKS, "cvpr_figure6"])
def test_columns_say_what_the_paper_started_from(name: str) -> None:
    start = "from ImageNet weights" if name.endswith(("figure9", "figure6")) else "from scratch"
    assert all(trained.endswith(start) for _, trained in TABLES[name].columns.values())


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        ({"final": True, "across": False, "within": False}, "(a) final"),
        ({"final": True, "across": True, "within": False}, "(b) final + across"),
        (
            {"final": True, "across": True, "within": True, "width": 8},
            "(c) final + across + within",
        ),
        ({"final": False, "across": True, "within": True}, None),
        ({"final": True, "across": False, "within": True}, None),
        ({"final": True, "across": True}, None),
        ({}, None),
    ],
)
def test_a_row_is_found_by_all_of_its_arguments(
    arguments: Mapping[str, Any], label: str | None
) -> None:
    row = TABLES["table12"].row(arguments)
    assert (row and row.label) == label
