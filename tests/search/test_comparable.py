"""Trials that would be compared must have met the same data and arithmetic."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny import TINY_POSE_STUDY

from hrnet_search.errors import InputError
from hrnet_search.files import read_json, write_json
from hrnet_search.search import engine
from hrnet_search.search.engine import Materials, Ready, _check_comparable
from hrnet_search.search.job import lost
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
    materials = {"": Materials(tiny_pose, "cccc")}
    now = Ready(choose_hardware(tiny_study.train), steps=4, materials=materials)
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


@pytest.mark.parametrize("changed", ["a", "b"])
def test_the_data_of_each_variant_is_compared_with_what_was_trained_under_it(
    tmp_path: Path, tiny_pose: Prepared, changed: str
) -> None:
    variants = {"a": {}, "b": {"task": {"head": "v2"}}}
    study = Study.model_validate({**TINY_POSE_STUDY, "variants": variants})
    other = Prepared(tiny_pose.folder, "ffff")
    with Ledger(tmp_path / "tiny", study) as ledger:
        hardware = choose_hardware(study.train)

        def start(**data: Prepared) -> None:
            found = {name: Materials(data.get(name, tiny_pose), None) for name in variants}
            now = Ready(hardware, steps=4, materials=found)
            engine._make_ready(ledger, now, 1, "", tmp_path / "s.yaml", Console(quiet=True))

        start()
        for _ in range(2):  # of a network one under each variant
            job = ledger.next()
            assert job is not None
            part = read_json(ledger.folder / "environment.json")["variants"]
            own = {"data": part[job.params["variant"]]["data"]} | vars(hardware)
            failed = lost(job, ledger.trial_folder(job.trial))
            error = {"cause": "error"}  # which is not tried again
            result = dataclasses.replace(failed, environment=own, error=error)
            write_json(ledger.trial_folder(job.trial) / "result.json", result.to_dict())
            ledger.finish(job.trial)
        assert {result.params["variant"] for result in ledger.results()} == {"a", "b"}
        start()
        with pytest.raises(InputError, match="the data has changed: was") as caught:
            start(**{changed: other})
        assert caught.value.key == f"variants.{changed}.data.checksum"


def test_another_host_or_place_of_the_same_data_goes_on() -> None:
    moved = {**BEFORE, "host": "b", "data": {"checksum": "aaaa", "folder": "/there"}}
    _check_comparable({"in trial 3": BEFORE, "in trial 4": {}}, moved)


@pytest.mark.parametrize(
    ("key", "named"),
    [("device", "device"), ("precision", "precision"), ("pretrained", "variants.a.pretrained")],
)
def test_what_is_one_for_all_variants_is_not_told_under_the_name_of_one(
    key: str, named: str
) -> None:
    with pytest.raises(InputError, match="--fresh") as caught:
        _check_comparable({"in trial 0": {key: "old"}}, {key: "new"}, "a")
    assert caught.value.key == named
