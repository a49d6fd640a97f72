"""A made-up run of a grid, for tables: 32 networks whose accuracy follows from a formula."""

import json
from pathlib import Path
from typing import Any

from tiny import TINY_POSE_STUDY

from hrnet_search.result import Result
from hrnet_search.study import Study, dump_study

NOISE = 0.01  # what seed 1 has more than seed 0
STEPS = (2, 4)
VARIED = {
    "width": {"choices": [4, 6, 8, 10]},
    "num_blocks": {"choices": [1, 2]},
    "final": {"choices": [False, True]},
    "stage1_width": {"choices": [4, 8]},
}
COMMAND = "hrnet-search run studies/made.yaml"


def made_study(**more: Any) -> Study:
    """Its study: 4 x 2 x 2 x 2 networks, two seeds."""
    base = {k: v for k, v in TINY_POSE_STUDY["space"]["base"].items() if k not in VARIED}
    raw = {**TINY_POSE_STUDY, "name": "benchmark_made", "space": {"base": base, "vary": VARIED}}
    return Study.model_validate({**raw, "objectives": ["metrics.ap", "profile.macs"], **more})


def accuracy(params: dict[str, Any]) -> float:
    """Of seed 0: it grows with the width, and with `final` far more than that costs."""
    return 0.05 * params["width"] + 0.2 * params["final"] + 0.005 * params["num_blocks"]


def made_results(study: Study) -> list[Result]:
    found = []
    for seed in range(study.seeds):
        for params in study.arms():
            ap = accuracy(params) + NOISE * seed
            network = study.network(params)
            counted = study.costs(params)
            found.append(
                Result(
                    study=study.name,
                    trial=len(found),
                    state="complete",
                    arm=study.arm(params),
                    params=params,
                    seed=seed,
                    key=study.key(params),
                    arch=network.to_dict(),
                    profile={key.split(".")[1]: value for key, value in counted.items()},
                    metrics={"ap": ap},
                    history=[
                        {"step": 1, "loss": 1.23456789},
                        *({"step": step, "loss": 1 / 3, "ap": ap * step / 4} for step in STEPS),
                    ],
                    seconds=5.0 + seed,
                    attempt=1,
                    started="",
                    environment={"host": "mine"},
                )
            )
    return found


def write_run(folder: Path, study: Study, results: list[Result]) -> Path:
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(dump_study(study))
    environment = {"command": COMMAND, "host": "mine", "data": {"folder": "/a", "checksum": "b"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [json.dumps(result.to_dict()) + "\n" for result in results]
    (folder / "results.jsonl").write_text("".join(lines))
    return folder
