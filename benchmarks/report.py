"""How long does the report of a large search take to write, and to open?

    python benchmarks/report.py [--trials 10000] [--seed 0]

A search of so many distinct networks of `spaces/hrnet_full.yaml`, with costs in closed form and a
made-up accuracy; half of the trials are ended early at a rung, one in fifty fails. No training.

Then: seconds of `write_report` in a process of its own, from start to exit; size of the page;
seconds until Chromium, headless, has drawn all of its figures. The peer is Optuna's own
`optuna.visualization` of the same trials (Pareto front, history, importance by PED-ANOVA, parallel
coordinates, slices), written as one page with Plotly inside, in a process of its own as well. At
10,000 trials at most 30 s and 3 s are asked.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml

from hrnet_search.errors import InputError
from hrnet_search.result import Result
from hrnet_search.study import Study, dump_study, load_study

SPACE = Path(__file__).parents[1] / "spaces" / "hrnet_full.yaml"
RUNGS = (50, 100, 200, 400)  # steps
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
WORKERS = 8  # each begins a trial every minute

REPORT = """
import sys
from pathlib import Path
from hrnet_search.report import write_report
write_report(Path(sys.argv[1]), Path(sys.argv[2]))
"""

PEER = """
import json, sys
from pathlib import Path
import optuna
from optuna import visualization
from optuna.importance import PedAnovaImportanceEvaluator
from hrnet_search.study import load_study
optuna.logging.disable_propagation()
optuna.logging.set_verbosity(optuna.logging.ERROR)
run, out = map(Path, sys.argv[1:])
study = optuna.create_study(directions=["maximize", "minimize"])
vary = load_study(run / "study.yaml").space.vary
trials = []
for line in (run / "results.jsonl").read_text().splitlines():
    record = json.loads(line)
    if record["state"] != "complete":
        continue
    params = {name: json.dumps(value) for name, value in record["params"].items()}
    choices = {name: [json.dumps(v) for v in vary[name].values()] for name in params}
    trials.append(optuna.trial.create_trial(
        params=params,
        distributions={
            name: optuna.distributions.CategoricalDistribution(each)
            for name, each in choices.items()
        },
        values=[record["metrics"]["ap"], record["profile"]["macs"]],
    ))
study.add_trials(trials)
ap = lambda trial: trial.values[0]
worse = lambda trial: -ap(trial)  # as that evaluator wants it
figures = [
    visualization.plot_pareto_front(study),
    visualization.plot_optimization_history(study, target=ap, target_name="AP"),
    visualization.plot_param_importances(
        study, evaluator=PedAnovaImportanceEvaluator(), target=worse, target_name="AP"
    ),
    visualization.plot_parallel_coordinate(study, target=ap, target_name="AP"),
    visualization.plot_slice(study, target=ap, target_name="AP"),
]
parts = [f.to_html(full_html=False, include_plotlyjs=not n) for n, f in enumerate(figures)]
(out / "index.html").write_text("<html><body>" + "".join(parts) + "</body></html>")
"""


def study_file(folder: Path, trials: int) -> Study:
    """The study of a search whose file stands in the folder."""
    settings = {
        "name": "large",
        "task": {"kind": "pose", "loss": "cross_entropy"},
        "data": {
            "kind": "synthetic_pose",
            "num_train": 2048,
            "num_val": 256,
            "input_size": [128, 96],
        },
        "space": str(SPACE),
        "train": {"steps": RUNGS[-1], "batch_size": 16, "lr": 0.01, "evaluations": 8},
        "search": {"sampler": "tpe", "networks": trials, "scheduler": "asha"},
        "objectives": ["metrics.ap", "profile.macs"],
    }
    folder.mkdir(parents=True)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(settings))
    study = load_study(file)
    file.write_text(dump_study(study))
    return study


def networks(study: Study, rng: random.Random) -> dict[str, dict[str, Any]]:
    """Key -> knob values, of networks that can be trained."""
    found: dict[str, dict[str, Any]] = {}
    for params in study.space.draws(rng):
        if len(found) == study.search.networks:
            break
        try:
            found.setdefault(study.network(params).key, params)
        except InputError:  # it cannot be built
            continue
    return found


def time_of(seconds: int) -> str:
    """So long after the search began."""
    return (START + timedelta(seconds=seconds)).isoformat()


def result(study: Study, params: dict[str, Any], number: int, rng: random.Random) -> Result:
    """What a trial would have left: better with cost and fusion, and noise."""
    costs = study.costs(params)
    ap = 0.75 - 2e7 / (costs["profile.macs"] + 4e7) + 0.02 * params["within"] + rng.gauss(0, 0.01)
    state = rng.choices(("complete", "pruned", "failed"), (0.49, 0.49, 0.02))[0]
    last = RUNGS[-1] if state == "complete" else rng.choice(RUNGS[:-1])
    steps = [step for step in RUNGS if step <= last]
    diverged = {"type": "Diverged", "message": "nan", "traceback": "", "cause": "diverged"}
    is_failed = state == "failed"
    return Result(
        study=study.name,
        trial=number,
        state=state,
        arm=study.arm(params),
        params=params,
        seed=0,
        key=study.network(params).key,
        arch=study.network(params).to_dict(),
        profile={key.removeprefix("profile."): value for key, value in costs.items()}
        | {"latency": costs["profile.macs"] * rng.uniform(1, 1.5) / 5e10},
        metrics={} if is_failed else {"ap": max(0.0, ap * last / RUNGS[-1])},
        history=[{"step": s, "loss": 5 - s / 200, "ap": ap * s / RUNGS[-1]} for s in steps],
        seconds=float(last) / 10,
        attempt=1,
        started=time_of(number // WORKERS * 60),
        ended=time_of(number // WORKERS * 60 + last // 10),
        error=diverged if is_failed else None,
        proposal=number,
    )


def make_run(folder: Path, *, trials: int, seed: int) -> Path:
    """A run folder as a search leaves it."""
    rng = random.Random(seed)
    study = study_file(folder, trials)
    found = enumerate(networks(study, rng).values())
    lines = [json.dumps(result(study, params, n, rng).to_dict()) + "\n" for n, params in found]
    (folder / "results.jsonl").write_text("".join(lines))
    return folder


def seconds_to_write(program: str, run: Path, out: Path) -> float:
    out.mkdir()
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(run), str(out)], check=True)
    return time.perf_counter() - start


def seconds_to_open(page: Path) -> float:
    """Until every figure that the page holds is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A chromium on the PATH, else what `playwright install chromium` brings.
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="load")
        tab.wait_for_function(
            "() => { const all = [...document.querySelectorAll('.js-plotly-plot')];"
            " return all.length && all.every(one => one.querySelector('.main-svg')); }",
            timeout=600_000,
        )
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder / "run", trials=given.trials, seed=given.seed)
        print(f"{given.trials} networks")
        found = {}
        for label, program in (("hrnet-search", REPORT), ("optuna.visualization", PEER)):
            out = folder / label
            written = seconds_to_write(program, run, out)
            opened = seconds_to_open(out / "index.html")
            size = (out / "index.html").stat().st_size / 1e6
            found[label] = (written, opened, size)
            print(f"{label:22}{written:8.1f} s to write{opened:8.1f} s to open{size:8.1f} MB")
        ours, theirs = found.values()
        ratios = [f"{own / peer:.2f}" for own, peer in zip(ours, theirs, strict=True)]
        print(f"{'ratio':22}{ratios[0]:>8}  {'':8}{ratios[1]:>8}  {'':6}{ratios[2]:>8}")


if __name__ == "__main__":
    main()
