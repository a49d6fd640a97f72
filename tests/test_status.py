"""What is said of a study from outside: while it runs, when it was killed, before it says much."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from test_cli import refused, said
from tiny import TINY_POSE_STUDY

from hrnet_search.result import METRICS, Result
from hrnet_search.status import _ended, describe, duration, is_held, listing, look, read_status
from hrnet_search.study import Study, dump_study

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=timezone.utc)
COMMAND = "hrnet-search run studies/tiny.yaml"
SEARCH = {**TINY_POSE_STUDY, "search": {"sampler": "tpe", "networks": 5, "budget": "2h"}}
STATUS: dict[str, Any] = {
    "study": "tiny",
    "state": "running",
    "reason": "",
    "host": "box",
    "pid": 7,
    "updated": (NOW - timedelta(seconds=2)).isoformat(),
    "started": "2026-01-01T11:00:00+00:00",
    "seconds": 3900.0,
    "jobs": 2,
    "steps": 400,
    "total": 10,
    "counts": {"complete": 3, "pruned": 2, "failed": 1, "running": 2, "waiting": 2},
    "proposals": {"new": 4, "duplicate": 3, "infeasible": 1},
    "running": [
        {"trial": 7, "arm": "final=true", "seed": 1, "attempt": 2, "step": 120, "value": 0.312},
        {"trial": 8, "arm": "final=false", "seed": 0, "attempt": 1, "step": 0, "value": None},
    ],
    "best": {"trial": 2, "arm": "final=true", "seed": 0, "value": 0.5687},
    "front": {"size": 3, "hypervolume": 0.53126},
    "left": 2400.0,
}


def begun(
    runs: Path, study: dict[str, Any] = SEARCH, *, status: object = None, name: str = "tiny"
) -> Path:
    """Folder of a study that was begun, with its status if there is one."""
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(dump_study(Study.model_validate(study)))
    (folder / "environment.json").write_text(json.dumps({"command": COMMAND}))
    (folder / "lock").write_text("process 7 on box")
    if status is not None:
        (folder / "status.json").write_text(json.dumps(status))
    return folder


@contextmanager
def driver(folder: Path) -> Iterator[None]:
    """Holds the study as a driver does."""
    with open(folder / "lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def result(trial: int, state: str, ap: float | None = None) -> Result:
    error = {"type": "E", "message": "m", "traceback": ""} if state == "failed" else None
    return Result(
        study="tiny",
        trial=trial,
        state=state,  # type: ignore[arg-type]
        arm="final=true",
        params={"final": True},
        seed=trial,
        key="k",
        arch={},
        profile={},
        metrics={} if ap is None else {"ap": ap},
        history=[],
        seconds=1.0,
        attempt=1,
        started="2026-01-01T11:00:00+00:00",
        error=error,
    )


def write_results(folder: Path, *results: Result) -> None:
    lines = [json.dumps(found.to_dict()) + "\n" for found in results]
    (folder / "results.jsonl").write_text("".join(lines))


def test_a_running_search_is_told_in_full(tmp_path: Path) -> None:
    folder = begun(tmp_path, status=STATUS)
    with driver(folder):
        text = describe(folder, now=NOW)
    assert text.splitlines() == [
        "tiny: running (process 7 on box), as of 2 s ago",
        "trials: 6 of 10 ended (3 complete, 2 pruned, 1 failed); 2 running, 2 waiting",
        "proposals: 4 new, 3 duplicate, 1 infeasible",
        "best: AP 56.9, trial 2 (final=true, seed 0)",
        "front: 3 networks, hypervolume 0.5313",
        "running: trial 7 (final=true, seed 1), attempt 2: step 120/400, AP 31.2",
        "running: trial 8 (final=false, seed 0): step 0/400",
        "time: 1 h 05 min used, 40 min left (budget 2h)",
    ]


def test_what_is_not_known_yet_is_left_out(tmp_path: Path) -> None:
    counts = {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "waiting": 4}
    early = {"counts": counts, "proposals": {}, "running": [], "best": None, "left": None}
    front = {"size": 0, "hypervolume": None}
    folder = begun(tmp_path, TINY_POSE_STUDY, status={**STATUS, **early, "front": front})
    with driver(folder):
        text = describe(folder, now=NOW)
    assert text.splitlines() == [
        "tiny: running (process 7 on box), as of 2 s ago",
        "trials: 0 of 10 ended (0 complete, 0 pruned, 0 failed); 0 running, 4 waiting",
        "time: 1 h 05 min used",
    ]


def test_a_driver_that_is_gone_is_missed_and_the_command_given(tmp_path: Path) -> None:
    folder = begun(tmp_path, status=STATUS)
    lines = describe(folder, now=NOW).splitlines()
    assert lines[0] == (
        "tiny: its driver is gone: it was killed, or the machine went down; "
        "the same command continues it; last heard of 2 s ago"
    )
    assert lines[1] == f"to go on:  {COMMAND}"
    assert lines[2].endswith("; 2 cut off, 2 waiting")
    assert [line for line in lines if line.startswith("cut off: trial 7 ")]
    assert look(folder).state == "gone"


@pytest.mark.parametrize(
    ("state", "reason", "first"),
    [
        ("interrupted", "", "tiny: interrupted; last heard of 2 s ago"),
        ("paused", "budget of 2h used", "tiny: paused (budget of 2h used); last heard of 2 s ago"),
        ("stopped", "5 trials failed", "tiny: stopped (5 trials failed); last heard of 2 s ago"),
    ],
)
def test_a_study_at_rest_says_why_and_how_it_goes_on(
    tmp_path: Path, state: str, reason: str, first: str
) -> None:
    status = {**STATUS, "state": state, "reason": reason, "running": []}
    lines = describe(begun(tmp_path, status=status), now=NOW).splitlines()
    assert lines[:2] == [first, f"to go on:  {COMMAND}"]


def test_a_finished_study_has_nothing_left_to_do(tmp_path: Path) -> None:
    counts = {"complete": 7, "pruned": 2, "failed": 1, "running": 0, "waiting": 0}
    end = {"state": "finished", "counts": counts, "running": [], "left": 0.0}
    lines = describe(begun(tmp_path, status={**STATUS, **end}), now=NOW).splitlines()
    assert lines[:2] == [
        "tiny: finished; last heard of 2 s ago",
        "trials: 10 of 10 ended (7 complete, 2 pruned, 1 failed)",
    ]
    assert lines[-1] == "time: 1 h 05 min used (budget 2h)"


def test_a_driver_that_has_said_nothing_since_it_started(tmp_path: Path) -> None:
    folder = begun(tmp_path, status={**STATUS, "state": "interrupted"})
    with driver(folder):
        first = describe(folder, now=NOW).splitlines()[0]
    assert first == (
        "tiny: process 7 on box has it, and has not said more; before that: interrupted, 2 s ago"
    )


@pytest.mark.parametrize(
    ("study", "total"),
    [(TINY_POSE_STUDY, 4), (SEARCH, 10)],  # 2 networks, or 5, times 2 seeds
)
def test_before_any_status_the_results_are_told(
    tmp_path: Path, study: dict[str, Any], total: int
) -> None:
    folder = begun(tmp_path, study)
    ended = [result(0, "complete", 0.25), result(1, "complete", 0.5), result(2, "failed")]
    write_results(folder, *ended)
    assert describe(folder, now=NOW).splitlines() == [
        "tiny: not running; there is no status.json yet, so this is from results.jsonl",
        f"trials: 3 of {total} ended (2 complete, 0 pruned, 1 failed)",
        "best: AP 50.0, trial 1 (final=true, seed 1)",
    ]
    with driver(folder):
        assert describe(folder, now=NOW).startswith("tiny: process 7 on box has it; there is no")


def test_a_network_that_was_stopped_early_is_not_the_best(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    write_results(folder, result(0, "pruned", 0.9), result(1, "complete", 0.1))
    assert look(folder).best == {"trial": 1, "arm": "final=true", "seed": 1, "value": 0.1}


@pytest.mark.parametrize(("key", "trial"), [("metrics.ap", 0), ("metrics.nme", 1)])
def test_the_best_is_the_greatest_accuracy_or_the_least_error(
    tmp_path: Path, key: str, trial: int
) -> None:
    values = ({"ap": 0.3, "nme": 0.3}, {"ap": 0.2, "nme": 0.2})
    ended = [replace(result(number, "complete"), metrics=v) for number, v in enumerate(values)]
    write_results(tmp_path, *ended)
    _, best = _ended(tmp_path / "results.jsonl", METRICS[key])
    assert best is not None
    assert best["trial"] == trial


def test_all_trials_ended_without_a_status_is_finished(tmp_path: Path) -> None:
    folder = begun(tmp_path, TINY_POSE_STUDY)
    write_results(folder, *(result(number, "complete", 0.1) for number in range(4)))
    assert look(folder).state == "finished"


def test_a_study_that_is_being_prepared_has_no_file_yet(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "lock").write_text("process 7 on box")
    with driver(folder):
        text = describe(folder, now=NOW)
    assert text == "new: process 7 on box is preparing it; nothing has been trained yet"
    assert describe(folder, now=NOW) == "new: no study was run here (there is no study.yaml)"


def test_looking_at_a_lock_leaves_it_as_it_is(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    assert not is_held(folder / "lock")
    with driver(folder):  # taken at once: nothing was kept
        assert is_held(folder / "lock")
        assert is_held(folder / "lock")
    assert not is_held(folder / "lock")
    assert (folder / "lock").read_text() == "process 7 on box"
    assert not is_held(folder / "none")
    assert not (folder / "none").exists()


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_held(lock)
        process.send_signal(signal.SIGKILL)
    assert not is_held(lock)


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda status: status.pop(key)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (drop("counts"), "counts: "),
    "state": (lambda s: s.update(state="asleep"), "state: "),
    "text": (lambda s: s["counts"].update(failed="1"), "counts.failed: "),
    "negative": (lambda s: s.update(total=-1), "total: "),
    "no zone": (lambda s: s.update(updated="2026-01-01T12:00:00"), "updated: "),
    "no time": (lambda s: s.update(updated=5), "updated: "),
    "list": (lambda s: s.update(running={}), "running: "),
    "entry": (lambda s: s["running"][1].pop("step"), "running.1.step: "),
    "best": (lambda s: s.update(best=3), "best: "),
    "value": (lambda s: s["best"].update(value=None), "best.value: "),
    "proposals": (lambda s: s.update(proposals={"new": "x"}), "proposals: "),
    "NaN": (lambda s: s.update(seconds=float("nan")), "seconds: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_status_gets_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: str
) -> None:
    change, part = DAMAGES[damage]
    status = json.loads(json.dumps(STATUS))
    change(status)
    begun(tmp_path / "runs", status=status)
    line = refused(capsys, "status", "tiny", "--out", tmp_path)
    assert f"status.json: {part}is missing, or not what a driver writes" in line


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("status.json", '{"state": "runn', "status.json: is not JSON"),
        ("status.json", "[]", "status.json: is missing, or not what"),
        ("study.yaml", "name: [", "study.yaml: is not valid YAML"),
        ("environment.json", "{}", "environment.json: command: is missing"),
        ("environment.json", "nope", "environment.json: is not JSON"),
    ],
)
def test_damaged_files_get_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str, content: str, part: str
) -> None:
    folder = begun(tmp_path / "runs", status=STATUS)
    (folder / file).write_text(content)
    assert part in refused(capsys, "status", "tiny", "--out", tmp_path)


@pytest.mark.parametrize("content", ["{}\n", "3\n", '{"trial": \n', '{"x": 1}\n'])
def test_damaged_results_get_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    folder = begun(tmp_path / "runs")
    (folder / "results.jsonl").write_text(content)
    assert "results.jsonl: is damaged" in refused(capsys, "status", "tiny", "--out", tmp_path)


def test_a_status_of_a_later_version_may_hold_more(tmp_path: Path) -> None:
    file = tmp_path / "status.json"
    file.write_text(json.dumps({**STATUS, "more": 1}))
    assert read_status(file)["more"] == 1


def test_status_finds_studies_by_name_and_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    begun(tmp_path / "runs", status=STATUS)
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_study(Study.model_validate(SEARCH)))
    for name in ("tiny", file):
        status, out, _ = said(capsys, "status", name, "--out", tmp_path)
        assert status == 0
        assert out.startswith("tiny: its driver is gone")
    line = refused(capsys, "status", "tinny", "--out", tmp_path)
    assert "has not been run" in line
    assert "did you mean 'tiny'" in line


def test_the_list_has_a_line_per_study_and_names_what_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    folders = [begun(runs, status=STATUS), begun(runs, TINY_POSE_STUDY, name="bare")]
    moment = datetime(2026, 1, 1, 10, 30).timestamp()  # of this machine's zone, as is shown
    for file in [file for folder in folders for file in folder.iterdir()]:
        os.utime(file, (moment, moment))
    torn = begun(runs, status=STATUS, name="torn")
    (torn / "status.json").write_text("{")
    (runs / "empty").mkdir()
    (runs / "notes.txt").write_text("no folder")
    with driver(folders[0]):
        status, out, _ = said(capsys, "list", "--out", tmp_path)
    lines = out.splitlines()
    assert status == 0
    assert lines[:3] == [
        "name  task  networks  state        trials  failed  best     last change",
        "bare  pose  grid      not running     0/4       0           2026-01-01 10:30",
        "tiny  pose  tpe       running        6/10       1  AP 56.9  2026-01-01 10:30",
    ]
    assert lines[3] == "empty: no study was run here (there is no study.yaml)"
    assert lines[4].startswith(f"torn: broken: {torn / 'status.json'}: is not JSON")
    assert len(lines) == 5


def test_the_list_of_nothing(tmp_path: Path) -> None:
    assert listing(tmp_path / "runs") == f"no study has been run in {tmp_path / 'runs'}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 00 min"),
        (86399, "23 h 59 min"),
        (90000, "1 d 01 h"),
    ],
)
def test_durations_are_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("command", [["status", "tiny"], ["list"], ["curves", "tiny"]])
def test_looking_loads_nothing_heavy(tmp_path: Path, command: list[str]) -> None:
    folder = begun(tmp_path / "runs", status=STATUS)
    (folder / "trials" / "00000").mkdir(parents=True)
    job = {"trial": 0, "arm": "a", "seed": 0}
    (folder / "trials" / "00000" / "trial.json").write_text(json.dumps(job))
    (folder / "trials" / "00000" / "history.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    script = (
        "import sys; from hrnet_search.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'plotly', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else status)"
    )
    given = [sys.executable, "-c", script, *command, "--out", tmp_path]
    subprocess.run(given, check=True, capture_output=True)
