"""The summary of a run in plain sentences, every one of them made from its numbers."""

import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ..arch import ArchSpec
from ..frameworks import FRAMEWORKS
from ..result import count, metric
from ..settings import SyntheticDetection, SyntheticPose
from ..space import Value
from ..stats import Verdict, mean_and_deviation
from ..study import Study
from .frame import Arm, Run, paper_table
from .tables import (
    STATES,
    TIMES,
    Compared,
    comparison,
    comparisons,
    confidence,
    dotted,
    interval,
    probability,
    signed,
    with_deviation,
)

TASKS = {  # kind -> what a reader calls it
    "pose": "pose estimation",
    "segmentation": "semantic segmentation",
    "detection": "object detection",
    "classification": "image classification",
}
DATA = {
    "coco_pose": "people in COCO's format",
    "mpii_pose": "people of MPII",
    "segmentation_folder": "labelled images",
    "segmentation_list": "labelled images",
    "coco_detection": "objects in COCO's format",
    "voc_detection": "objects in Pascal VOC's format",
    "image_folders": "images in a folder per class",
}
DRAWN = {  # by the package: what, and how they are shown
    "synthetic_pose": "computer-drawn people of",
    "synthetic_detection": "computer-drawn scenes of objects, of at most",
}


def summary(run: Run) -> str:
    """What was trained, how often, where; the best arm; what became of the paper's order."""
    parts = [_what(run), _how_often(run), where(run), *_outcome(run)]
    return " ".join(part for part in parts if part)


def copies(run: Run) -> str:
    """The channels of cost-matched copies; empty if there are none."""
    study, words = run.study, []
    for params in filter(study.is_copy, study.arms()):
        own, before = _channels(study, params), _channels(study, study.original(params))
        words.append(f"{study.arm(params)}: {own} instead of {before}")
    if not words:
        return ""
    return f"Channels in the last stage, from high to low resolution: {'; '.join(words)}."


def _channels(study: Study, params: Mapping[str, Value]) -> str:
    network = study.network(params)
    assert isinstance(network, ArchSpec)  # a rival has no copy
    return ", ".join(map(str, network.stages[-1].num_channels))


def learnt_nothing(run: Run) -> bool:
    """Whether there are complete trials, and each of them is at 0."""
    complete = [result for result in run.results if result.state == "complete"]
    return bool(complete) and all(r.learnt_nothing(run.study.accuracy) for r in complete)


def progress(run: Run) -> str:
    """As in "6 of 9 trials complete, 2 ended early, 1 failed"."""
    states = Counter(result.state for result in run.results)
    early = f", {states['pruned']} {STATES['pruned']}" if states["pruned"] else ""
    failed = f", {states['failed']} failed" if states["failed"] else ""
    return f"{states['complete']} of {run.planned} trials complete{early}{failed}"


def data_words(study: Study) -> str:
    """What the study trains and measures on."""
    height, width = study.input_size
    size = f"{height} {TIMES} {width} pixels (height {TIMES} width)"
    data = study.data
    if isinstance(data, SyntheticPose | SyntheticDetection):
        drawn = f"{data.num_train} {DRAWN[data.kind]} {size}"
        return f"{drawn}, with {data.num_val} more for validation"
    shown = "in images of at most" if study.task.kind == "detection" else "in crops of"
    return f"{DATA[data.kind]} in {Path(data.root).name}, {shown} {size}"


def _what(run: Run) -> str:
    study = run.study
    networks, changed = count(len(run.arms), "network"), ""
    if study.variants:
        named = {study.network_name(params) for params in study.arms()}
        networks = f"{count(len(named), 'network')} under {len(study.variants)} variants"
        changed = f"; the variants change {', '.join(_changed(study))}"
    return f"{networks} for {task_words(study)}, {training_words(study)}{changed}."


def _changed(study: Study) -> list[str]:
    """Dotted keys of what variants change."""
    return sorted({key for changes in study.variants.values() for key, _ in dotted(changes)})


def task_words(study: Study) -> str:
    """What the networks are for, and of detectors the framework."""
    by = f" by {FRAMEWORKS[study.detector.framework].title}" if study.detector else ""
    return f"{TASKS[study.task.kind]}{by}"


def training_words(study: Study) -> str:
    """How long each network is trained, and on what."""
    train = study.train
    length = f"{train.steps} steps" if train.steps else count(train.epochs or 0, "epoch")
    steps = f"{length} with {train.batch_size} images per step"
    return f"trained for {steps} on {data_words(study)}"


def _how_often(run: Run) -> str:
    seeds = count(run.study.seeds, "seed")
    if run.study.adaptive is not None:
        seeds += f", undecided ones with up to {run.study.adaptive.most}"
    each = f"Each is trained with {seeds}: {progress(run)}"
    missing = run.planned - len(run.results)
    return f"{each}, {missing} not finished yet." if missing > 0 else f"{each}."


def where(run: Run) -> str:
    """The machine, as far as the run tells."""
    found = run.environment
    parts = [found[name] for name in ("device", "cpu", "precision") if found.get(name)]
    if found.get("processes", 1) > 1:
        parts.append(f"{found['processes']} processes per trial")
    elif found.get("threads_per_trial"):
        parts.append(f"{count(found['threads_per_trial'], 'thread')} per trial")
    return f"Trained on: {', '.join(map(str, parts))}." if parts else ""


def _outcome(run: Run) -> list[str]:
    """The best arm and what became of the paper's order, if there is anything to compare."""
    if learnt_nothing(run):
        return [nothing_words(run)]
    return [best(run), _order(run), _differences(run)]


def nothing_words(run: Run) -> str:
    """What is said of a run that learnt nothing."""
    every = f"{metric(run.study.accuracy).label} is 0 in every complete trial"
    return f"Nothing was learnt: {every}, so no network is the best."


def best(run: Run) -> str:
    """The arm with the best mean, and what is known of its lead."""
    ranked = _ranked(run)
    shown = metric(run.study.accuracy)
    if not ranked:
        return f"No trial has measured {shown.label} yet, so there is nothing to compare."
    values = ranked[0].values(shown.key)
    numbers = with_deviation(shown, *mean_and_deviation(values.values()), len(values))
    best = f"The best mean {shown.label} is {numbers.rpartition(' (')[0]}"
    best += f" over {count(len(values), 'seed')}, by {ranked[0].name}"
    if len(ranked) == 1:
        return f"{best}; no other arm has results."
    second = ranked[1]
    lead = comparison(run, ranked[0], second)
    if lead is None:
        behind = signed(shown, _mean(run, second) - _mean(run, ranked[0]))
        return f"{best}; {second.name} follows at {behind}, a difference that nothing tests."
    if lead.interval is None:
        return f"{best}; too few seeds to tell its lead over {second.name} from chance."
    tells = "not shown" if lead.verdict == "not shown" else "shown"
    limits = f"{confidence(run)} interval {interval(shown, lead.interval)}"
    over = f"{best}; its lead over {second.name} is {signed(shown, lead.difference)}"
    return f"{over} ({limits}, p {probability(lead.p_table)} of the table), {tells} by these seeds."


def _order(run: Run) -> str:
    if run.study.paper is None:
        return ""
    table = paper_table(run.study)
    if table is None:
        label = metric(run.study.accuracy).label
        return f"The paper's column is not {label}, so none of its figures is set beside ours."
    ours = {a.name: _mean(run, a) for a in _ranked(run) if a.paper is not None and not a.matched}
    if len(ours) < 2:
        return "Too few arms of the paper's table have results to check its order."
    theirs = {a.name: a.paper for a in run.arms if a.name in ours and a.paper is not None}
    # In the other's order to begin with, so that arms of equal mean stand alike in both chains.
    there = _chain({name: theirs[name] for name in sorted(theirs, key=lambda name: ours[name])})
    here = _chain({name: ours[name] for name in sorted(theirs, key=lambda name: theirs[name])})
    # Arms that are equal in the paper may stand either way.
    apart = [(a, b) for a, b in itertools.permutations(theirs, 2) if theirs[a] < theirs[b]]
    if all(ours[a] < ours[b] for a, b in apart):
        return f"The means are in the paper's order ({there})."
    return f"The means are not in the paper's order: {here} here, {there} there."


def _chain(values: dict[str, float]) -> str:
    """As in "a < b = c"."""
    names = sorted(values, key=lambda name: values[name])
    text = names[0]
    for low, high in itertools.pairwise(names):
        text += f" {'=' if values[low] == values[high] else '<'} {high}"
    return text


def _differences(run: Run) -> str:
    return " ".join(filter(None, map(_verdicts, comparisons(run))))


def _verdicts(family: Compared) -> str:
    verdicts = Counter(c.verdict for _, _, c in family.pairs if c.paper and c.n)
    total = sum(verdicts.values())
    if not total:
        return ""
    order: tuple[Verdict, ...] = ("reproduced", "not shown", "contradicted", "too few seeds")
    parts = [f"{verdicts[v]} {v}" for v in order if verdicts[v]]
    which = f" {family.title}" if family.title else ""
    differences = f"{count(total, 'difference')} between arms of the paper's table{which}"
    text = f"Of {differences}: {', '.join(parts)}."
    if verdicts["reproduced"] + verdicts["contradicted"] == 0:
        text += f" So{which} these trials neither support nor contradict the paper's order."
    return text


def _ranked(run: Run) -> list[Arm]:
    """The arms that were measured, best mean first."""
    shown = metric(run.study.accuracy)
    measured = [arm for arm in run.arms if arm.values(shown.key)]
    descending = shown.direction == "maximize"
    return sorted(measured, key=lambda arm: _mean(run, arm), reverse=descending)


def _mean(run: Run, arm: Arm) -> float:
    return mean_and_deviation(arm.values(run.study.accuracy).values())[0]
