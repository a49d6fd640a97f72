"""Figures of arXiv 1908.07919v2, Table 12 (page 10), and how rows are found."""

from collections.abc import Mapping
from typing import Any

import pytest

from hrnet_search.arch import hrnet
from hrnet_search.paper import TABLES
from hrnet_search.result import METRICS

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


def test_rows_of_table_12_make_networks_with_its_fusion_counts() -> None:
    rows = TABLES["table12"].rows
    assert [hrnet(**row.arguments).num_fusions for row in rows] == [r[3] for r in TABLE_12]


@pytest.mark.parametrize("name", TABLES)
def test_columns_name_metrics_and_every_row_fills_them(name: str) -> None:
    table = TABLES[name]
    assert {key for key, _ in table.columns.values()} <= METRICS.keys()
    assert all(row.values.keys() == table.columns.keys() for row in table.rows)


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
