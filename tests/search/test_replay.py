"""One trial once more: identical to its record, or told how it differs."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import SMOKE, run

from hrnet_search.cli import main
from hrnet_search.files import read_json_lines
from hrnet_search.record import read_record
from hrnet_search.search import provenance
from hrnet_search.search import replay as replay_module
from hrnet_search.search.replay import departures
from hrnet_search.study import load_study

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = ["train.steps=4", "train.evaluations=2", "seeds=1", "data.num_train=16", "data.num_val=4"]
RIVAL = 'rivals=["simple_baseline_resnet50"]'
Capsys = pytest.CaptureFixture[str]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, as Ray's workers have trained it, and its report."""
    folder = tmp_path_factory.mktemp("finished")
    given = [part for value in [*FEW, RIVAL] for part in ("--set", value)]
    done = run(SMOKE, folder, "--jobs", "1", "--quiet", *given)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return shutil.copytree(finished, tmp_path / "out")


def said(capsys: Capsys, out: Path, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and error of `replay`."""
    status = main(["replay", *map(str, arguments), "--out", str(out)])
    return status, *capsys.readouterr()


def change(out: Path, trial: int, how: Change) -> None:
    """Tamper with a record of the run."""
    file = out / "runs" / "smoke" / "results.jsonl"
    lines = read_json_lines(file)
    for line in lines:
        if line["trial"] == trial:
            how(line)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, and the hash of what is in it."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def refused(capsys: Capsys, out: Path, *arguments: object) -> str:
    """The one line that bad input is refused with."""
    status, text, err = said(capsys, out, *arguments)
    assert (status, text, err.count("\n")) == (2, "", 1)
    return err


def replayed(capsys: Capsys, out: Path, trial: int) -> tuple[int, list[str]]:
    """Exit status, and the lines that are printed."""
    status, text, _ = said(capsys, out, "smoke", "--trial", trial)
    return status, text.splitlines()


@pytest.mark.parametrize("trial", [0, 1, 2])  # the last is the rival
def test_a_trial_of_ray_is_identical_without_ray_and_nothing_is_written(
    out: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, trial: int
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # any import of it fails
    before = contents(out)
    status, lines = replayed(capsys, out, trial)
    assert status == 0, lines
    assert lines[0].startswith(f"smoke, trial {trial}: ")
    assert lines[1].split() == ["metric", "recorded", "replayed", "difference"]
    record = read_json_lines(out / "runs" / "smoke" / "results.jsonl")[trial]
    assert [line.split()[0] for line in lines[2:-2]] == list(record["metrics"])
    # Four steps, of which each is a point with a loss, and two evaluations.
    numbers = 4 + 2 * len(record["metrics"])
    assert lines[-2:] == [
        f"history: all {numbers} numbers are the same",
        "identical to the last digit",
    ]
    assert contents(out) == before


def test_a_record_of_another_seed_is_not_reproduced(out: Path, capsys: Capsys) -> None:
    change(out, 0, lambda line: line.update(seed=7))
    status, lines = replayed(capsys, out, 0)
    assert status == 1
    assert " differ, first loss at step 1 (" in lines[-2]
    assert lines[-1].startswith("differs in ")
    assert "the history; " in lines[-1]


def test_the_last_digit_of_a_loss_counts(out: Path, capsys: Capsys) -> None:
    def tamper(line: dict[str, Any]) -> None:
        line["history"][2]["loss"] *= 1 + 2**-52

    change(out, 1, tamper)
    status, lines = replayed(capsys, out, 1)
    assert status == 1
    assert lines[-2].startswith("history: 1 of 12 numbers differ, first loss at step 3 (")
    assert lines[-1] == (
        "differs in the history; CPU, versions, precision and threads are the record's, so the "
        "record or the code is not"
    )


def test_a_metric_that_was_changed_is_shown(out: Path, capsys: Capsys) -> None:
    change(out, 0, lambda line: line["metrics"].update(ap=0.75))
    status, lines = replayed(capsys, out, 0)
    assert status == 1
    measured = read_json_lines(out / "runs" / "smoke" / "results.jsonl")[0]["history"][-1]["ap"]
    assert lines[2].split() == ["ap", "0.75", repr(measured), f"{measured - 0.75:.3g}"]
    assert lines[-1].startswith("differs in ap; ")


def test_a_report_alone_is_enough(out: Path, capsys: Capsys) -> None:
    shutil.rmtree(out / "runs")
    for trial in (1, 2):
        status, lines = replayed(capsys, out, trial)
        assert status == 0
        assert lines[-2:] == [
            "A report does not keep histories: final metrics alone are compared.",
            "identical to the last digit",
        ]
    file = out / "reports" / "smoke" / "results.csv"
    head, first, *rest = file.read_text().splitlines()
    cells = first.split(",")
    cells[head.split(",").index("metrics.ar")] = "0.123"
    file.write_text("\n".join([head, ",".join(cells), *rest]) + "\n")
    status, lines = replayed(capsys, out, 0)
    assert status == 1
    assert lines[-1].startswith("differs in ar; ")


def test_a_report_says_what_a_replay_needs_and_no_folder(finished: Path) -> None:
    report = finished / "reports" / "smoke"
    text = (report / "study.yaml").read_text() + (report / "environment.json").read_text()
    environment = json.loads((report / "environment.json").read_text())
    assert {"versions", "cpu", "python", "precision", "memory_format"} <= environment.keys()
    assert environment["data"].keys() == {"checksum"}
    assert str(finished) not in text
    assert load_study(report / "study.yaml") == load_study(finished / "runs/smoke/study.yaml")
    own, other = (read_record(finished / name / "smoke", 1) for name in ("runs", "reports"))
    assert (own.arch, own.result.params, own.result.metrics, own.result.seed) == (
        other.arch, other.result.params, other.result.metrics, other.result.seed
    )  # fmt: skip


def test_a_trial_that_was_ended_early_is_compared_up_to_there(out: Path, capsys: Capsys) -> None:
    def prune(line: dict[str, Any]) -> None:
        line.update(state="pruned", metrics={}, history=line["history"][:2])

    change(out, 1, prune)
    status, lines = replayed(capsys, out, 1)
    assert status == 0
    count = 2 + (12 - 4) // 2  # losses, and the figures of one evaluation
    assert lines[1:] == [
        "It was ended early, and is compared up to step 2.",
        f"history: all {count} numbers are the same",
        "identical to the last digit",
    ]


def test_what_cannot_be_replayed_is_refused_in_a_line(out: Path, capsys: Capsys) -> None:
    def line(*more: object, trial: int = 0, study: str = "smoke") -> str:
        return refused(capsys, out, study, "--trial", trial, *more)

    assert "--trial: 9: is no trial that has ended; there are 0 to 2" in line(trial=9)
    assert "did you mean 'smoke'?" in line(study="smoek")
    assert "train.steps: would make another training of it; only " in line("--set", "train.steps=2")
    change(out, 0, lambda record: record.update(state="failed", error={"cause": "diverged"}))
    assert "failed (training diverged), so there is nothing to compare with" in line()
    change(out, 1, lambda record: record.update(key="0" * 8))
    assert "of trial 1 is of another network than its params build" in line(trial=1)
    change(out, 2, lambda record: record["environment"]["data"].update(checksum="abc"))
    assert "the data is not what the trial was trained on (abc)" in line(trial=2)
    change(out, 2, lambda record: record["environment"].update(processes=2))
    assert "was trained by 2 processes; a replay has one" in line(trial=2)
    change(out, 2, lambda record: record["environment"].pop("precision"))
    assert "does not say what it was trained with: precision" in line(trial=2)


def test_a_damaged_report_is_told(out: Path, capsys: Capsys) -> None:
    shutil.rmtree(out / "runs")
    environment = out / "reports" / "smoke" / "environment.json"
    environment.unlink()
    text = refused(capsys, out, "smoke", "--trial", 0)
    assert "does not say what it was trained with: device" in text
    environment.write_text("{")
    assert "environment.json: is not JSON" in refused(capsys, out, "smoke", "--trial", 0)
    environment.write_text("{}")
    file = out / "reports" / "smoke" / "results.csv"
    file.write_text(file.read_text().replace("across=false", "across=perhaps"))
    text = refused(capsys, out, "smoke", "--trial", 0)
    assert "results.csv: is damaged in row 1" in text


def test_another_machine_is_told_beforehand(out: Path, capsys: Capsys) -> None:
    def elsewhere(line: dict[str, Any]) -> None:
        line["environment"].update(cpu="Z80")
        line["environment"]["versions"].update(torch="0.1", ray="0.1")

    record = read_record(out / "runs" / "smoke", 0)
    assert departures(record) == []
    change(out, 0, elsewhere)
    here = provenance.environment(jobs=1, command="")
    cpu, torch = here["cpu"], here["versions"]["torch"]
    assert departures(read_record(out / "runs" / "smoke", 0)) == [
        f"cpu Z80, here {cpu}",
        f"torch 0.1, here {torch}",
    ]
    change(out, 0, lambda line: line["history"][0].update(loss=1.0))
    status, text, err = said(capsys, out, "smoke", "--trial", 0)
    assert status == 1
    assert err.startswith("hrnet-search: warning: figures may differ, for the record has cpu Z80")
    assert text.splitlines()[-1].startswith("differs in the history; likely because of cpu Z80")


def test_a_training_that_fails_here_is_told(
    out: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no\nmemory")

    monkeypatch.setattr(replay_module, "train_network", fail)
    status, text, err = said(capsys, out, "smoke", "--trial", 0)
    assert (status, text) == (1, "")
    assert err == "hrnet-search: the training failed here: RuntimeError: no memory\n"
