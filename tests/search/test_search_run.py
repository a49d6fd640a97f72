"""Whole searches through the command line: rungs, budgets, limits, and trials that all fail."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image
from running import results, run, stored, study_folder
from searching import SMALL

from hrnet_search.files import read_json

ONE = ["--jobs", "1"]  # in a fixed order, so that rungs say the same each time
NETWORKS = 8
DIVERGING = ["--set", "train.lr=1e30", "--set", "train.optimizer=sgd"]
TIMES = ("started", "ended", "seconds")


def write_streets(root: Path) -> None:
    """CamVid's layout: squares whose colour says their class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for number in range(count):
            labels = rng.integers(0, 4, (4, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            colours = np.stack([labels * 60, 240 - labels * 60, labels % 2 * 200], -1)
            Image.fromarray(labels).save(root / f"{split}annot" / f"{number}.png")
            Image.fromarray(colours.astype(np.uint8)).save(root / split / f"{number}.png")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose mIoU differs from network to network after a few steps."""
    folder = tmp_path_factory.mktemp("study")
    write_streets(folder / "streets")
    data = {"kind": "segmentation_folder", "root": str(folder / "streets"), "crop_size": [32, 32]}
    search = {"sampler": "tpe", "networks": NETWORKS, "scheduler": "asha"}
    raw = {
        "name": "searched",
        "task": {"kind": "segmentation", "augmentation": {"scale": [1, 1]}},
        "data": {**data, "label_set": "camvid"},
        "space": SMALL,
        # All costs in one bin: one in two goes on from each rung.
        "search": {**search, "reduction": 2, "cost_bin": 1e6},
        "objectives": ["metrics.miou", "profile.macs"],
        "train": {"steps": 12, "batch_size": 4, "lr": 1e-2, "evaluations": 6},
        "seeds": 1,
    }
    file = folder / "searched.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture(scope="module")
def searched(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    done = run(study, folder, *ONE)
    assert done.returncode == 0, done.stderr
    return folder


def figures(folder: Path) -> list[dict[str, Any]]:
    """Results without what a clock says, and without what says where they come from."""
    found = []
    for line in results(folder):
        kept = {k: v for k, v in line.items() if k not in (*TIMES, "environment", "attempt")}
        kept["profile"] = {k: v for k, v in line["profile"].items() if k != "latency"}
        found.append(kept)
    return found


def test_rungs_end_trainings_early_and_optuna_has_them_as_pruned(searched: Path) -> None:
    states = Counter(line["state"] for line in results(searched))
    assert set(states) == {"complete", "pruned"}
    assert states.total() == NETWORKS
    kinds = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    trials = stored(searched, "searched")
    assert [trial.state for trial in trials] == [kinds[r["state"]] for r in results(searched)]
    networks = {t.number: t for t in stored(searched, "searched/networks")}
    for line in results(searched):
        proposal = networks[line["proposal"]]
        assert proposal.state == kinds[line["state"]]
        last = line["history"][-1]
        if line["state"] == "complete":
            assert proposal.values == [line["metrics"]["miou"], line["profile"]["macs"]]
            assert last["step"] == 12
        else:
            assert line["metrics"] == {}
            assert 2 <= last["step"] < 12
            assert "miou" in last
    assert not (study_folder(searched) / "ray").exists()


def test_a_search_is_the_same_in_another_folder(
    study: Path, searched: Path, tmp_path: Path
) -> None:
    done = run(study, tmp_path, *ONE)
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == figures(searched)
    mine, other = (stored(each, "searched/networks") for each in (tmp_path, searched))
    assert [(t.params, t.values, t.state) for t in mine] == [
        (t.params, t.values, t.state) for t in other
    ]


def test_a_budget_pauses_a_search_that_a_larger_one_continues(
    study: Path, searched: Path, tmp_path: Path
) -> None:
    """More networks than any machine trains in that time."""
    seconds = read_json(study_folder(searched) / "status.json")["seconds"] / 2
    many = ["--set", "search.networks=60", "--set", f"search.budget={seconds:.1f}s"]
    done = run(study, tmp_path, *ONE, *many)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^searched: the budget .* is used up with (\d+) trials to go", done.stderr,
                      re.MULTILINE)  # fmt: skip
    assert found, done.stderr
    assert int(found[1]) == 60 - len(results(tmp_path))
    status = read_json(study_folder(tmp_path) / "status.json")
    assert (status["state"], status["counts"]["running"]) == ("paused", 0)
    done = run(study, tmp_path, *ONE, "--set", "search.budget=1d")
    assert done.returncode == 0, done.stderr
    # On a machine that is free by now more may have been trained than in the undisturbed run.
    assert figures(tmp_path)[:NETWORKS] == figures(searched)
    assert {trial.state for trial in stored(tmp_path, "searched")} == {
        TrialState.COMPLETE, TrialState.PRUNED,
    }  # fmt: skip


def test_a_search_stops_when_its_first_trials_all_fail(study: Path, tmp_path: Path) -> None:
    done = run(study, tmp_path, *ONE, *DIVERGING, "--set", "search.failure_budget=2")
    assert done.returncode == 1, done.stderr
    assert "searched: the first 2 trials have all failed" in done.stderr
    assert done.stderr.count("Traceback") == 1  # of the first of them
    lines = results(tmp_path)
    assert [(r["state"], r["error"]["cause"]) for r in lines] == [("failed", "diverged")] * 2
    assert [t.state for t in stored(tmp_path, "searched")][:2] == [TrialState.FAIL] * 2
    status = read_json(study_folder(tmp_path) / "status.json")
    assert (status["state"], status["counts"]["waiting"]) == ("stopped", NETWORKS - 2)
