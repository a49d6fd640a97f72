"""Metrics have one name each, and a result survives its file."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrnet_search.arch import hrnet
from hrnet_search.errors import InputError
from hrnet_search.files import write_json
from hrnet_search.result import METRICS, Result, metric

MACS_W32 = 7_645_003_776  # official code, 256x192
PARAMS_W32 = 28_536_113


def result(**changes: object) -> Result:
    fields: dict[str, object] = {
        "study": "s",
        "trial": 3,
        "state": "complete",
        "arm": "across=true",
        "params": {"across": True},
        "seed": 1,
        "key": hrnet().key,
        "arch": hrnet().to_dict(),
        "profile": {"macs": MACS_W32, "latency": 0.25},
        "metrics": {"ap": 0.734},
        "history": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0, "ap": 0.1}],
        "seconds": 12.5,
        "attempt": 1,
        "started": "2024-01-01T00:00:00+00:00",
        "environment": {"threads": 1, "versions": {"torch": "2.8"}},
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]


def test_keys_labels_and_titles_are_unique_and_dotted() -> None:
    assert all(key == entry.key for key, entry in METRICS.items())
    assert len({entry.label for entry in METRICS.values()}) == len(METRICS)
    assert len({entry.title for entry in METRICS.values()}) == len(METRICS)
    assert {key.split(".")[0] for key in METRICS} == {"metrics", "profile"}


def test_accuracies_are_maximised_and_costs_minimised() -> None:
    for key, entry in METRICS.items():
        falls = key.startswith("profile.") or key == "metrics.nme"  # an error is no accuracy
        assert entry.direction == ("minimize" if falls else "maximize")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("metrics.ap", 0.734, "73.4"),  # as Table 12 prints it
        ("metrics.miou", 1.0, "100.0"),
        ("metrics.ap", 0.0, "0.0"),
        ("metrics.ar", None, "n/a"),
        ("metrics.ar", float("nan"), "n/a"),
        ("profile.params", PARAMS_W32, "28.5"),  # Table 1
        ("profile.macs", MACS_W32, "7.65"),
        ("profile.paper_gflops", MACS_W32 / 2**30, "7.12"),
        ("profile.memory", 3 * 2**20, "3"),
        ("profile.latency", 0.0125, "12.5"),
    ],
)
def test_show_scales_and_rounds(key: str, value: float | None, text: str) -> None:
    assert METRICS[key].show(value) == text


def test_title_names_the_unit() -> None:
    assert METRICS["profile.params"].title == "Params (M)"
    assert METRICS["metrics.ap"].title == "AP"


def test_metric_by_key() -> None:
    assert metric("metrics.ap").label == "AP"
    with pytest.raises(InputError, match=r"'profile.mac': unknown metric; .*'profile.macs'"):
        metric("profile.mac")


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    for number, written in enumerate(
        [result(), result(state="failed", metrics={}, error={"type": "Diverged", "message": "x"})]
    ):
        path = tmp_path / f"{number}.json"
        write_json(path, written.to_dict())
        assert Result.read(path) == written


@given(
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False)),
    st.dictionaries(st.text(max_size=5), st.booleans() | st.integers() | st.text(max_size=5)),
)
def test_from_dict_is_the_inverse_of_to_dict(
    metrics: dict[str, float], params: dict[str, object]
) -> None:
    written = result(metrics=metrics, params=params)
    assert Result.from_dict(written.to_dict()) == written


def test_value_looks_a_dotted_key_up() -> None:
    assert result().value("metrics.ap") == 0.734
    assert result().value("profile.macs") == MACS_W32
    assert result().value("metrics.miou") is None


def test_a_result_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result().seed = 2  # type: ignore[misc]


def test_only_the_worst_value_says_that_nothing_was_learnt() -> None:
    for metrics, key, nothing in (
        ({"ap": 0.0}, "metrics.ap", True),
        ({"ap": 1e-9}, "metrics.ap", False),
        ({"nme": 0.0}, "metrics.nme", False),  # an error: 0 is the best
        ({}, "metrics.ap", False),
    ):
        assert result(metrics=metrics).learnt_nothing(key) is nothing
