"""What is shown while a study runs."""

import io

import pytest
from rich.console import Console

from hrnet_search.result import Result
from hrnet_search.search.display import Display
from hrnet_search.search.job import Job
from hrnet_search.study import Study

WFLW = {
    "kind": "coco_pose",
    "root": "/nowhere",
    "input_size": [64, 64],
    "keypoints": {"names": ["left", "right"], "normalise_by": ["left", "right"]},
}


def display(study: Study, *, before: list[Result], steps: int = 10) -> Display:
    console = Console(file=io.StringIO(), width=200)
    return Display(console, study, total=4, steps=steps, before=before)


def result(trial: int, metric: str, value: float) -> Result:
    return Result(
        study="s", trial=trial, state="complete", arm="a", params={}, seed=0, key="k", arch={},
        profile={}, metrics={metric: value}, history=[], seconds=1.0, attempt=1, started="",
    )  # fmt: skip


def job(trial: int) -> Job:
    return Job(study="s", trial=trial, arm="a", params={}, seed=0, key="k", arch={}, attempt=1)


def of_metric(study: Study, metric: str) -> Study:
    if metric == "ap":
        return study
    raw = study.model_dump()
    raw["task"] = {"kind": "pose", "metric": "nme"}
    return Study.model_validate({**raw, "data": WFLW})


@pytest.mark.parametrize(("metric", "best"), [("ap", 2), ("nme", 1)])
def test_the_best_is_the_highest_or_the_lowest_as_the_metric_says(
    tiny_study: Study, metric: str, best: int
) -> None:
    study = of_metric(tiny_study, metric)
    values = {0: 0.5, 1: 0.2, 2: 0.9, 3: 0.6}
    shown = display(study, before=[result(n, metric, v) for n, v in values.items()])
    assert shown.best is not None
    assert shown.best.trial == best


def test_bars_count_the_steps_that_the_data_makes(tiny_study: Study) -> None:
    shown = display(tiny_study, before=[result(0, "ap", 0.5)], steps=15)
    overall = shown.progress.tasks[0]
    assert (overall.total, overall.completed) == (60, 15)
    shown.start(job(1))
    shown.update(1, {"step": 6, "loss": 1.0})
    assert (shown.progress.tasks[1].total, shown.progress.tasks[1].completed) == (15, 6)
    assert overall.completed == 21
    shown.finish(1, None, again=True)  # it was saved
    assert overall.completed == 15
    shown.start(job(1))
    shown.update(1, {"step": 7, "loss": 1.0})  # it goes on from its checkpoint
    assert overall.completed == 22
    shown.finish(1, result(1, "ap", 0.6), again=False)
    assert overall.completed == 30
