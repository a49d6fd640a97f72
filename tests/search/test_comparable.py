"""Trials that would be compared must have met the same data and arithmetic."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hrnet_search.errors import InputError
from hrnet_search.files import read_json, write_json
from hrnet_search.search import engine
from hrnet_search.search.engine import Ready, _check_comparable
from hrnet_search.search.ledger import Ledger
from hrnet_search.study import Study
from hrnet_search.tasks.cache import Prepared
from hrnet_search.training import choose_hardware

BEFORE = {
    "data": {"checksum": "aaaa", "folder": "/here"},
    "pretrained": "cccc",
    "device": "cpu",
    "precision": "float32",
    "memory_format": "channels_last",
    "host": "a",
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"data": {"checksum": "bbbb", "folder": "/here"}},
            "data.checksum: 'bbbb': the data has changed: was 'aaaa'",
        ),
        ({"pretrained": "dddd"}, "pretrained: 'dddd': the checkpoint has changed: was 'cccc'"),
        ({"device": "cuda"}, "device: 'cuda': was 'cpu'"),
        ({"precision": "bfloat16"}, "precision: 'bfloat16': was 'float32'"),
        ({"memory_format": "contiguous"}, "memory_format: 'contiguous': was 'channels_last'"),
    ],
)
def test_what_would_spoil_a_comparison_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        _check_comparable({"in trial 3": BEFORE}, {**BEFORE, **change})
    assert str(caught.value) == f"{text} in trial 3; use --fresh to start over"


@pytest.mark.parametrize("key", ["data.checksum", "pretrained"])
def test_trials_that_were_cut_off_are_compared_with_as_those_that_ended(
    tmp_path: Path, tiny_study: Study, tiny_pose: Prepared, key: str
) -> None:
    now = Ready(tiny_pose, choose_hardware(tiny_study.train), steps=4, pretrained="cccc")
    data = {"folder": "/here", "checksum": tiny_pose.checksum}
    before = {"data": data, "pretrained": "cccc", **vars(now.hardware)}
    changed = {"data": {**data, "checksum": "aaaa"}} if key != "pretrained" else {key: "aaaa"}
    with Ledger(tmp_path / "tiny", tiny_study) as ledger:
        assert ledger.next() is not None
        file, saved = ledger.folder / "environment.json", ledger.trial_folder(0) / "checkpoint.pt"

        def start(record: dict[str, Any]) -> None:
            write_json(file, record)
            engine._make_ready(ledger, now, 1, "", tmp_path / "s.yaml", Console(quiet=True))

        saved.touch()
        with pytest.raises(
            InputError, match="was 'aaaa' in the trials that were cut off; use"
        ) as e:
            start({**before, **changed})
        assert e.value.key == key
        assert read_json(file) == {**before, **changed}  # to be compared with the next time, too
        start(before)
        saved.unlink()
        start({**before, **changed})  # nothing was kept of it


def test_another_host_or_place_of_the_same_data_goes_on() -> None:
    moved = {**BEFORE, "host": "b", "data": {"checksum": "aaaa", "folder": "/there"}}
    _check_comparable({"in trial 3": BEFORE, "in trial 4": {}}, moved)
