"""Which network of a study is exported: the best, a trial, or all on the Pareto front."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..errors import InputError
from ..record import there_are
from ..result import METRICS, Result
from ..rivals import RIVAL_KNOB
from ..study import Study

if TYPE_CHECKING:
    from ..report.frame import Run


def choose_winner(results: Sequence[Result], key: str) -> Result | None:
    """The best seed of the arm with the best mean, among the arms trained with most seeds.

    Networks of others are left out: what is exported is an HRNet. Where nothing was learnt it is
    the first, for its folder shows how one is used; the folder and the report do not praise it.

    Args:
        results: Results of one study.
        key: The metric that decides, upwards or downwards as `METRICS` says.
    """
    sign = METRICS[key].sign
    arms: dict[str, list[tuple[float, Result]]] = {}
    for result in results:
        value = result.value(key)
        if result.state == "complete" and value is not None and RIVAL_KNOB not in result.arch:
            arms.setdefault(result.arm, []).append((sign * value, result))
    if not arms:
        return None
    most = max(len(entries) for entries in arms.values())
    full = [entries for entries in arms.values() if len(entries) == most]
    best = max(full, key=lambda entries: fmean(value for value, _ in entries))
    return max(best, key=lambda entry: entry[0])[1]


def pick(run: Path, study: Study, trial: int | None) -> Result | None:
    """The record of a trial, of the winner if none is named; None without a complete trial.

    Raises:
        InputError: There is no such trial, or it is of no HRNet.
    """
    if trial is None:
        return choose_winner(_results(run), study.accuracy)
    file = run / "trials" / f"{trial:05d}" / "result.json"
    result = Result.read(file) if file.exists() else None
    if result is None or result.state != "complete":
        complete = [other.trial for other in _results(run) if other.state == "complete"]
        those = there_are(complete) if complete else "there is none"
        rule = f"is not a complete trial of this study; {those}"
        raise InputError(rule, file=run, key="--trial", value=trial)
    if RIVAL_KNOB in result.arch:
        rule = f"trained {result.arm}, which its own library saves; only HRNets are exported"
        raise InputError(rule, file=run, key="--trial", value=trial)
    return result


def _results(run: Path) -> list[Result]:
    return [Result.read(file) for file in sorted((run / "trials").glob("*/result.json"))]


def front_trials(run: Path) -> tuple[list[int], list[str]]:
    """Of each network on the report's Pareto front the trial of the best seed.

    Returns:
        Trials by number; and the names of networks of others on the front, which are not exported.
    """
    from ..report.frame import read_run

    read = read_run(run)
    names = _on_front(read)
    trials, rivals = [], []
    for arm in read.arms:
        if arm.name not in names:
            continue
        best = choose_winner(arm.results, read.study.accuracy)
        if best is None:
            rivals.append(arm.name)
        else:
            trials.append(best.trial)
    return sorted(trials), rivals


def _on_front(read: "Run") -> set[str]:
    from ..report.pareto import pareto_data
    from ..report.search import networks_data

    data = pareto_data(read, read.study.cost) if read.study.search.is_grid else networks_data(read)
    return set(data["arm"][data["front"]])
