"""Trials that would be compared must have met the same data and arithmetic."""

from typing import Any

import pytest

from hrnet_search.errors import InputError
from hrnet_search.result import Result
from hrnet_search.search.engine import _check_comparable

BEFORE = {
    "data": {"checksum": "aaaa", "folder": "/here"},
    "device": "cpu",
    "precision": "float32",
    "memory_format": "channels_last",
    "host": "a",
}


def result(environment: dict[str, Any]) -> Result:
    return Result(
        study="s", trial=3, state="complete", arm="a", params={}, seed=0, key="k", arch={},
        profile={}, metrics={}, history=[], seconds=1.0, attempt=1, started="",
        environment=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"data": {"checksum": "bbbb", "folder": "/here"}}, "data.checksum"),
        ({"device": "cuda"}, "device"),
        ({"precision": "bfloat16"}, "precision"),
        ({"memory_format": "contiguous"}, "memory_format"),
    ],
)
def test_what_would_spoil_a_comparison_is_refused(change: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match="in trial 3; use --fresh") as caught:
        _check_comparable([result(BEFORE)], {**BEFORE, **change})
    assert caught.value.key == key


def test_another_host_or_place_of_the_same_data_goes_on() -> None:
    moved = {**BEFORE, "host": "b", "data": {"checksum": "aaaa", "folder": "/there"}}
    _check_comparable([result(BEFORE), result({})], moved)
