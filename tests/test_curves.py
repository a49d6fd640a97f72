"""Learning curves for other tools."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_cli import refused, said
from tiny import TINY_POSE_STUDY

from hrnet_search.curves import Curve, read_curves, run_name, write_tensorboard
from hrnet_search.errors import InputError
from hrnet_search.study import Study, dump_study


def add_trial(run: Path, trial: int, history: str, *, state: str | None = None, **job: Any) -> Path:
    folder = run / "trials" / f"{trial:05d}"
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(
        json.dumps({"trial": trial, "arm": "final=true", "seed": 0, **job})
    )
    (folder / "history.jsonl").write_text(history)
    if state is not None:
        (folder / "result.json").write_text(json.dumps({"state": state}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A study with a trial that is complete and one that runs, its last line half written."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(dump_study(Study.model_validate(TINY_POSE_STUDY)))
    done = '{"step": 2, "loss": 1.5}\n{"step": 4, "loss": 1.25, "ap": 0.5}\n'
    add_trial(folder, 0, done, state="complete", arm='widths=[4, 8], x="y"')
    add_trial(folder, 10, '{"step": 2, "loss": 3.0}\n{"step": 4, "lo', seed=1)
    add_trial(folder, 11, "", seed=2)  # has not reported anything
    return folder


def test_the_csv_has_a_line_per_number(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Path
) -> None:
    status, out, _ = said(capsys, "curves", "tiny", "--out", tmp_path)
    file = tmp_path / "reports" / "tiny" / "curves.csv"
    assert (status, out) == (0, f"Curves: {file}\n")
    assert file.read_text().splitlines() == [
        "trial,arm,seed,state,step,name,value",
        '0,"widths=[4, 8], x=""y""",0,complete,2,loss,1.5',
        '0,"widths=[4, 8], x=""y""",0,complete,4,loss,1.25',
        '0,"widths=[4, 8], x=""y""",0,complete,4,ap,0.5',
        "10,final=true,1,unfinished,2,loss,3.0",
    ]


def test_another_place(capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Path) -> None:
    file = tmp_path / "here" / "c.csv"
    status, _, _ = said(capsys, "curves", "tiny", "--out", tmp_path, "--to", file)
    assert status == 0
    assert len(file.read_text().splitlines()) == 5
    assert not (tmp_path / "reports").exists()
    line = refused(capsys, "curves", "tiny", "--out", tmp_path, "--to", tmp_path)
    assert "--to: " in line
    assert "cannot be written" in line


def test_a_loss_that_is_no_number_is_kept_as_such(tmp_path: Path) -> None:
    add_trial(tmp_path, 0, '{"step": 2, "loss": NaN}\n', state="failed")
    (curve,) = read_curves(tmp_path)
    assert curve.state == "failed"
    ((step, name, value),) = curve.points
    assert (step, name) == (2, "loss")
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("history.jsonl", "{}\n", "history.jsonl: is damaged at line 1"),
        ("history.jsonl", '{"step": 1}\n[]\n', "history.jsonl: is damaged at line 2"),
        ("history.jsonl", "{\n", "history.jsonl: is damaged ("),
        ("history.jsonl", '{"step": 1, "loss": "x"}\n', "00000: holds a damaged file"),
        ("trial.json", "{", "trial.json: is not JSON"),
        ("trial.json", "[]", "00000: holds a damaged file"),
        ("result.json", "{}", "00000: holds a damaged file"),
    ],
)
def test_damaged_files_get_one_line_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    run: Path,
    file: str,
    content: str,
    part: str,
) -> None:
    (run / "trials" / "00000" / file).write_text(content)
    assert part in refused(capsys, "curves", "tiny", "--out", tmp_path)
    assert not (tmp_path / "reports").exists()


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    add_trial(tmp_path, 0, "")
    with pytest.raises(InputError, match="no trial has reported anything yet"):
        read_curves(tmp_path)


def test_a_runs_name_is_a_folders_name() -> None:
    curve = Curve(trial=3, arm="a/b=[1, 2]", seed=4, state="complete", points=())
    assert run_name(curve) == "00003 a_b=_1,_2_ seed 4"


def test_without_tensorboard_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = refused(capsys, "curves", "tiny", "--out", tmp_path, "--format", "tensorboard")
    assert "pip install tensorboard" in line
    assert not (tmp_path / "reports").exists()


def test_tensorboard_reads_what_is_written_once(tmp_path: Path, run: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):  # the second time takes the place of the first
        write_tensorboard(read_curves(run), tmp_path / "logs", anew=True)
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["00000 widths=_4,_8_,_x=_y_ seed 0", "00010 final=true seed 1"]
    events = reading.EventAccumulator(str(tmp_path / "logs" / names[0]))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(2, 1.5), (4, 1.25)]
    assert [(e.step, e.value) for e in events.Scalars("ap")] == [(4, 0.5)]


def test_a_folder_of_the_users_is_not_cleared(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrnet_search.curves.require_tensorboard", lambda: None)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        write_tensorboard(read_curves(run), tmp_path / "logs", anew=False)
    assert (tmp_path / "logs" / "mine").read_text() == "kept"
