"""One trial in this process: what it leaves behind, and how it goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hrnet_search.baselines import network
from hrnet_search.files import read_json, read_json_lines, write_json
from hrnet_search.model import init_weights
from hrnet_search.result import Result
from hrnet_search.search import trial as trial_module
from hrnet_search.search.job import Job
from hrnet_search.search.parallel import has_result
from hrnet_search.search.trial import assist_trial, run_trial
from hrnet_search.study import Study, dump_study, load_study
from hrnet_search.tasks.cache import Prepared
from hrnet_search.training import Diverged
from hrnet_search.weights import save_weights

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, tiny_study: Study, tiny_pose: Prepared) -> Make:
    """Makes the folder of a trial, as the driver leaves it to a worker."""

    def made(name: str = "run", **train: Any) -> Path:
        study = tiny_study.model_copy(
            update={"train": tiny_study.train.model_validate({**SHORT, **train})}
        )
        run = tmp_path / name
        folder = run / "trials" / "00000"
        folder.mkdir(parents=True)
        params = study.arms()[0]
        spec = study.network(params)
        job = Job(
            study="tiny", trial=0, arm=study.arm(params), params=params, seed=0, key=spec.key,
            arch=spec.to_dict(), attempt=1,
        )  # fmt: skip
        (run / "study.yaml").write_text(dump_study(study))
        data = {"folder": str(tiny_pose.folder), "checksum": tiny_pose.checksum}
        hardware = {"device": "cpu", "precision": "float32", "memory_format": "channels_last"}
        write_json(run / "environment.json", {"data": data, "pretrained": None, **hardware})
        write_json(run / "profiles" / f"{spec.key}.json", {"macs": 1})
        write_json(folder / "trial.json", vars(job))
        return folder

    return made


SHORT = {"steps": 4, "batch_size": 8, "lr": 2e-3, "evaluations": 2, "checkpoint_minutes": 0}


class Killed(BaseException):
    """What ends a worker in a test."""


def die_at(step: int) -> Callable[[dict[str, float]], None]:
    def report(entry: dict[str, float]) -> None:
        if entry["step"] == step:
            raise Killed

    return report


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def test_a_trial_leaves_its_result_history_weights_and_predictions(make: Make) -> None:
    folder = make()
    reported: list[dict[str, float]] = []
    run_trial(folder, reported.append)
    result = Result.read(folder / "result.json")
    assert (result.state, result.error) == ("complete", None)
    assert 0 < result.seconds < 120
    assert [entry["step"] for entry in reported] == [1, 2, 3, 4]
    assert result.history == reported == read_json_lines(folder / "history.jsonl")
    assert reported[-1].items() >= result.metrics.items()
    assert "resumed_from" not in result.environment
    assert {"weights.safetensors", "predictions.json"} <= {f.name for f in folder.iterdir()}
    assert not (folder / "checkpoint.pt").exists()


def test_a_trial_goes_on_from_its_checkpoint_as_if_nothing_had_been(make: Make) -> None:
    whole, cut = make("whole"), make("cut")
    run_trial(whole, lambda entry: None)
    with pytest.raises(Killed):
        run_trial(cut, die_at(3))
    assert not (cut / "result.json").exists()
    # Step 3 was reported but not saved; a line cut short lies behind it.
    lines = (cut / "history.jsonl").read_text()
    assert [json.loads(line)["step"] for line in lines.splitlines()] == [1, 2, 3]
    (cut / "history.jsonl").write_text(lines + '{"step": 4, "lo')
    reported: list[dict[str, float]] = []
    run_trial(cut, reported.append)
    one, other = (Result.read(folder / "result.json") for folder in (whole, cut))
    assert [entry["step"] for entry in reported] == [1, 2, 3, 4]  # what was before once more
    assert (one.metrics, one.history) == (other.metrics, other.history)
    assert read_json_lines(cut / "history.jsonl") == one.history
    assert other.environment["resumed_from"] == 2
    assert all(torch.equal(value, weights(cut)[name]) for name, value in weights(whole).items())


def test_a_failure_is_a_result_and_leaves_the_checkpoint(make: Make) -> None:
    folder = make(lr=1e30, optimizer="sgd")
    run_trial(folder, lambda entry: None)
    result = Result.read(folder / "result.json")
    assert result.state == "failed"
    assert result.error is not None
    assert result.error["type"] == "Diverged"
    assert "clipping (train.clip_norm) may help" in result.error["message"]
    assert (folder / "checkpoint.pt").exists()  # to go on from, if it is run again


def test_a_trial_beyond_its_limit_fails(make: Make) -> None:
    folder = make()
    file = folder.parents[1] / "study.yaml"
    file.write_text(dump_study(load_study(file, ["search.trial_limit=0.001s"])))
    run_trial(folder, lambda entry: None)
    result = Result.read(folder / "result.json")
    assert (result.state, result.metrics) == ("failed", {})
    assert result.error is not None
    assert result.error["cause"] == "timeout"


def test_a_superseded_attempt_leaves_no_result(make: Make) -> None:
    folder = make()

    def supersede(entry: dict[str, float]) -> None:
        write_json(folder / "trial.json", {**read_json(folder / "trial.json"), "attempt": 2})

    run_trial(folder, supersede)
    assert not (folder / "result.json").exists()
    assert len(read_json_lines(folder / "history.jsonl")) == 1  # it stopped where it noticed


def test_networks_start_from_the_pretrained_body(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(pretrained=str(tmp_path / "body.safetensors"))
    arch = read_json(folder / "trial.json")["arch"]
    source = network(arch, head="v1", num_outputs=17)
    init_weights(source, seed=77)
    save_weights(source, tmp_path / "body.safetensors")
    begun: list[dict[str, torch.Tensor]] = []

    def look(model: torch.nn.Module, *_: object, **__: object) -> dict[str, float]:
        begun.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"ap": 0.0}

    monkeypatch.setattr(trial_module, "train", look)
    run_trial(folder, lambda entry: None)
    own = network(arch, head="v1", num_outputs=17)
    init_weights(own, seed=0)
    for name, value in begun[0].items():
        expected = source if name.startswith("body.") else own
        assert torch.equal(value, expected.state_dict()[name]), name


def test_a_failure_of_the_first_process_ends_the_others_and_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make()

    def fail(*_: object, **__: object) -> dict[str, float]:
        raise Diverged("the loss is nan at step 1")

    monkeypatch.setattr(trial_module, "train", fail)
    assert not has_result(folder)
    with pytest.raises(Diverged):
        run_trial(folder, lambda entry: None, part=(0, 2))
    assert has_result(folder)
    assert (Result.read(folder / "result.json").error or {})["type"] == "Diverged"
    write_json(folder / "trial.json", {**read_json(folder / "trial.json"), "attempt": 2})
    assert not has_result(folder)  # of this attempt


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer"


def test_the_end_of_another_process_is_no_result(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> dict[str, float]:
        raise RuntimeError(GLOO)

    monkeypatch.setattr(trial_module, "train", fail)
    folder = make()
    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        run_trial(folder, lambda entry: None, part=(0, 2))
    assert not has_result(folder)
    run_trial(folder, lambda entry: None)  # alone, it has no others to lose
    assert Result.read(folder / "result.json").state == "failed"


@pytest.mark.parametrize("key", ["data", "pretrained"])
def test_a_checkpoint_of_other_data_or_another_start_is_left_aside(make: Make, key: str) -> None:
    folder = make()
    with pytest.raises(Killed):
        run_trial(folder, die_at(3))
    file = folder.parents[1] / "environment.json"
    environment = read_json(file)
    changed = {**environment["data"], "checksum": "bbbb"} if key == "data" else "cccc"
    write_json(file, {**environment, key: changed})
    assert trial_module._checkpoint(folder).step == 0
    write_json(file, environment)
    assert trial_module._checkpoint(folder).step == 2


@pytest.mark.parametrize("seed", [0, 3])
def test_networks_start_from_the_weights_of_their_seed(
    make: Make, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    folder = make()
    write_json(folder / "trial.json", {**read_json(folder / "trial.json"), "seed": seed})
    begun: list[dict[str, torch.Tensor]] = []

    def look(model: torch.nn.Module, *_: object, **given: object) -> dict[str, float]:
        begun.append({name: value.clone() for name, value in model.state_dict().items()})
        assert given["seed"] == seed
        return {"ap": 0.0}

    monkeypatch.setattr(trial_module, "train", look)
    run_trial(folder, lambda entry: None)
    own = network(read_json(folder / "trial.json")["arch"], head="v1", num_outputs=17)
    init_weights(own, seed=seed)
    assert begun[0].keys() == own.state_dict().keys()
    for name, value in own.state_dict().items():
        assert torch.equal(begun[0][name], value), name


def test_a_trial_without_the_metric_that_decides_has_failed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make()
    monkeypatch.setattr(trial_module, "train", lambda *_, **__: {"ar": 0.5})
    run_trial(folder, lambda entry: None)
    result = Result.read(folder / "result.json")
    assert result.state == "failed"
    rule = "the validation data has nothing that it can be measured on"
    assert result.error["message"] == f"metrics.ap is missing: {rule}"


def test_other_processes_than_the_first_write_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make()
    parts: list[object] = []
    monkeypatch.setattr(trial_module, "train", lambda *_, part, **__: parts.append(part) or {})
    assist_trial(folder, lambda entry: None, part=(1, 2))
    assert parts == [(1, 2)]
    assert {file.name for file in folder.iterdir()} == {"trial.json"}


def test_the_classes_of_a_segmentation_are_in_its_result(tmp_path: Path) -> None:
    assert trial_module.classes_of(tmp_path, "segmentation") == {}
    found = {"class_names": ["sky", "road"], "iou": [0.25, 0.5], "accuracy": [1, 1]}
    write_json(tmp_path / "classes.json", found)
    assert trial_module.classes_of(tmp_path, "segmentation") == {"sky": 0.25, "road": 0.5}
