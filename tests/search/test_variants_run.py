"""A study of two variants through the command line: trained, resumed, replayed, exported."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from running import SMOKE, results, run, study_folder

from hrnet_search.cli import main
from hrnet_search.cost import cost
from hrnet_search.files import read_json
from hrnet_search.record import read_record
from hrnet_search.study import load_study

VARIANTS = "variants={v1: {}, large: {task: {head: v2}, data: {input_size: [48, 48]}}}"
SHORT = ["--set", "train.steps=4", "--set", "seeds=1", "--set", VARIANTS]
SIZES = {"v1": (32, 32), "large": (48, 48)}
HEADS = {"v1": "v1", "large": "v2"}
ARMS = [f"across={text}, {name}" for text in ("false", "true") for name in ("v1", "large")]
Capsys = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = run(SMOKE, folder, "--jobs", "1", "--quiet", *SHORT)
    assert done.returncode == 0, done.stderr
    return folder


def test_each_trial_is_trained_as_its_variant_says(finished: Path) -> None:
    lines = results(finished)
    assert [line["arm"] for line in lines] == ARMS
    for line in lines:
        variant = line["params"]["variant"]
        assert line["state"] == "complete"
        study = load_study(study_folder(finished) / "study.yaml")
        spec = study.network(line["params"])
        counted = cost(spec, head=HEADS[variant], num_outputs=17, input_size=SIZES[variant])  # type: ignore[arg-type]
        assert line["profile"]["macs"] == counted.macs
        assert line["key"] == f"{spec.key}-{variant}"
        assert "variants" not in line["environment"]


def test_each_trial_keeps_the_data_that_it_read(finished: Path) -> None:
    environment = read_json(study_folder(finished) / "environment.json")
    assert "data" not in environment
    assert "pretrained" not in environment
    parts = environment["variants"]
    assert list(parts) == list(SIZES)
    assert parts["v1"]["data"]["checksum"] != parts["large"]["data"]["checksum"]
    for line in results(finished):
        assert line["environment"]["data"] == parts[line["params"]["variant"]]["data"]


def test_a_finished_study_has_nothing_to_do(finished: Path, capsys: Capsys) -> None:
    given = ["run", str(SMOKE), "--out", str(finished), "--quiet", *SHORT]
    assert main([*given, "--dry-run"]) == 0
    assert "0 of 4 trials would be run" in capsys.readouterr().out
    assert main(given) == 0
    assert len(results(finished)) == 4
    assert main(["plan", str(SMOKE), "--out", str(finished), *SHORT]) == 0
    assert "all trainings are done" in capsys.readouterr().out


def test_another_set_of_variants_is_another_study(finished: Path, capsys: Capsys) -> None:
    given = ["run", str(SMOKE), "--out", str(finished), "--quiet", *SHORT]
    assert main([*given, "--set", "variants.large.train.lr=0.5"]) == 2
    assert "variants.large.train.lr: 0.5: was None" in capsys.readouterr().err


def test_a_trial_of_each_variant_is_the_same_once_more(finished: Path, capsys: Capsys) -> None:
    for trial in (2, 3):
        assert main(["replay", "smoke", "--out", str(finished), "--trial", str(trial)]) == 0
        assert "identical to the last digit" in capsys.readouterr().out


def test_a_trial_is_the_same_once_more_from_its_report(
    finished: Path, tmp_path: Path, capsys: Capsys
) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    assert main(["replay", "smoke", "--out", str(tmp_path), "--trial", "1"]) == 0
    assert "identical to the last digit" in capsys.readouterr().out
    for line in results(finished):
        record = read_record(tmp_path / "reports" / "smoke", line["trial"])
        assert record.result.params == line["params"]
        assert record.arch == line["arch"]
        assert record.study.input_size == SIZES[line["params"]["variant"]]
    table = pd.read_csv(tmp_path / "reports" / "smoke" / "results.csv")
    assert table["params.variant"].tolist() == ["v1", "large"] * 2


def test_what_is_exported_has_the_head_and_size_of_its_variant(finished: Path) -> None:
    for line in results(finished):
        trial, variant = line["trial"], line["params"]["variant"]
        assert main(["export", "smoke", "--out", str(finished), "--trial", str(trial)]) == 0
        folder = finished / "reports" / "smoke" / f"trial-{trial:05d}"
        assert json.loads((folder / "arch.json").read_text())["head"] == HEADS[variant]
        about = json.loads((folder / "preprocess.json").read_text())
        assert tuple(about["input_size"]) == SIZES[variant]
        height, width = SIZES[variant]
        text = " ".join((folder / "README.md").read_text().split())
        assert f"arm `{line['arm']}`" in text
        assert f"at {height}x{width} pixels" in text
