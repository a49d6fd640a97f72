"""How long a study will take and how much memory it needs, from a few measured steps.

Some networks are measured, each in a process of its own (`python -m` this module), and the others'
time follows from their multiply-adds. Nothing is written to `runs/`.
"""

import json
import math
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..detectors import Detector
from ..errors import InputError
from ..networks import initialise, network
from ..profiling.base import cpu_name
from ..profiling.counters import count_flop_counter
from ..profiling.memory import free_bytes, resident
from ..profiling.text import table
from ..progress import bar
from ..result import METRICS, count, read_results
from ..rivals import RIVAL_KNOB
from ..space import Value
from ..study import Study
from ..tasks import load_task
from ..tasks.base import Task
from ..tasks.cache import Prepared
from ..training import Hardware, State, batches, begin, evaluate, update

if TYPE_CHECKING:
    from rich.console import Console

MAX_STEPS = 10  # measured of one network
MAX_SECONDS = 2.0  # after which no further step is measured
SAMPLE = 100  # networks of a search's space that stand for what a sampler will propose
MAX_DRAWN = 2000  # combinations looked at to find them
LOADED_AHEAD = 2  # batches by each of torch's workers: its default
MAX_RIVALS = 2  # measured


class NotMeasured(RuntimeError):
    """A network could not be trained for a few steps and evaluated."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that the study may train.

    Args:
        arm: Its name in the study.
        arch: `ArchSpec.to_dict` or `Rival.to_dict`.
        macs: Multiply-adds of one image; of a detector, those of its backbone with the pyramid.
        trainings: How many are still to be done; of a search's sample 1 each.
        variant: What it is trained under; empty where there are none.
    """

    arm: str
    arch: dict[str, Any]
    macs: float
    trainings: int
    variant: str = ""

    @property
    def is_rival(self) -> bool:
        return RIVAL_KNOB in self.arch

    @property
    def kind(self) -> tuple[str, bool]:
        """What its time follows from: that of others trained alike, and rivals take other times."""
        return self.variant, self.is_rival


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one network.

    Args:
        step: Seconds of one step of the optimiser.
        evaluation: Seconds of one evaluation.
        memory: Peak bytes of one process: resident, or of tensors on a GPU.
    """

    step: float
    evaluation: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What follows from the measurements.

    Args:
        trials: Measured network -> seconds of one training.
        mean: Seconds of one training, over all that are to be done.
        longest: Seconds of the longest.
        trainings: How many are to be done.
        at_once: How many of them at a time.
        total: Seconds of the whole study.
        memory: Bytes that trainings need at once, at most: all together, or on one card.
        within_budget: How many trainings end within the budget, None without one.
    """

    trials: Mapping[str, float]
    mean: float
    longest: float
    trainings: int
    at_once: int
    total: float
    memory: int
    within_budget: int | None


def forecast(study: Study, *, out: Path, jobs: int | None, console: "Console") -> str:
    """Measure some networks of a study; the text says what the whole of it will take.

    Args:
        study: The study.
        out: Folder that holds `runs/`; finished trials of a grid in it are not counted again.
        jobs: Trials at a time; None for as many as `run` would take.
        console: Where progress is shown.

    Raises:
        InputError: The data, or anything else that `run` would refuse, is not as it must be.
        NotMeasured: A network could not be trained.
    """
    from .engine import check
    from .machines import default_jobs

    candidates = list_candidates(study, finished(study, out))
    trainings = _trainings(study, candidates)
    if not trainings:
        return f"{study.name}: all trainings are done"
    ready, chosen = check(study, console), choose(candidates)
    measured: dict[str, Measured] = {}
    with bar(console, "Measuring networks") as advance:
        for done, candidate in enumerate(chosen):
            advance(done, len(chosen))
            part, data = study.parts[candidate.variant], ready.materials[candidate.variant].data
            measured[candidate.arm] = measure(part, candidate, data, ready.hardware)
    usual = default_jobs(None, study.train.processes)
    found = estimate(
        candidates,
        measured,
        steps=ready.steps,
        evaluations=study.train.evaluations,
        trainings=trainings,
        jobs=jobs or usual,
        processes=study.train.processes,
        cards=torch.cuda.device_count() or 1,
        budget=study.search.budget_seconds,
    )
    room = torch.cuda.mem_get_info()[0] if ready.hardware.device == "cuda" else free_bytes()
    device = ready.hardware.device
    return render(study, chosen, measured, found, device=device, room=room, usual=usual)


# --- which networks ----------------------------------------------------------------------------


def list_candidates(study: Study, ended: set[tuple[str, int]]) -> list[Candidate]:
    """The networks of a grid that have trainings left, or a random sample of a search's.

    Args:
        study: The study.
        ended: (key of the network, seed) of what need not be trained any more.

    Raises:
        InputError: No network of the sample can be trained.
    """
    if not study.search.is_grid:
        return [_candidate(study, params, 1) for params in _sample(study)]
    found = []
    for params in study.arms():
        key = study.key(params)
        if left := sum((key, seed) not in ended for seed in range(study.most_seeds)):
            found.append(_candidate(study, params, left))
    return found


def finished(study: Study, out: Path) -> set[tuple[str, int]]:
    """(key of the network, seed) of a grid's trainings that have ended; a search has no list.

    None of another study that lies in this one's folder.
    """
    from .ledger import check_same

    folder = out / "runs" / study.name
    try:
        check_same(folder / "study.yaml", study)
    except InputError:
        return set()
    if not study.search.is_grid:
        return set()
    results = read_results(folder / "results.jsonl")
    return {(result.key, result.seed) for result in results.values()}


def choose(candidates: Sequence[Candidate]) -> list[Candidate]:
    """What is measured: the cheapest, a middle and the dearest, and two rivals at most.

    Where there are variants, so many of each.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.macs)
    chosen = []
    for variant in dict.fromkeys(candidate.variant for candidate in candidates):
        own = [c for c in ordered if c.kind == (variant, False)]
        rivals = [c for c in ordered if c.kind == (variant, True)]
        chosen += [own[place] for place in (0, (len(own) - 1) // 2, -1)] if own else []
        chosen += [rivals[0], rivals[-1]][:MAX_RIVALS] if rivals else []
    return list({candidate.arm: candidate for candidate in chosen}.values())


def _candidate(study: Study, params: dict[str, Value], trainings: int) -> Candidate:
    arm, arch = study.arm(params), study.network(params).to_dict()
    is_rival = RIVAL_KNOB in arch
    part = study.under(params)
    macs = _rival_macs(part, arch) if is_rival else study.costs(params)["profile.macs"]
    variant = study.variant_of(params)
    return Candidate(arm=arm, arch=arch, macs=macs, trainings=trainings, variant=variant)


def _rival_macs(study: Study, arch: dict[str, Any]) -> float:
    """Counted by torch as in a study's profiles; there is no closed form."""
    net = network(study, arch)
    counted = count_flop_counter(
        net.backbone if isinstance(net, Detector) else net, study.input_size
    )
    return counted.conv + counted.linear


def _sample(study: Study) -> list[dict[str, Value]]:
    """Random knob values of networks that the search could train.

    Raises:
        InputError: None was found.
    """
    drawn = islice(study.space.draws(random.Random(study.search.seed)), MAX_DRAWN)
    found = list(islice((params for params in drawn if study.is_feasible(params)), SAMPLE))
    if not found:
        rule = f"none of {MAX_DRAWN} random networks can be trained within the limits"
        raise InputError(rule, key="space")
    return found


def _trainings(study: Study, candidates: Sequence[Candidate]) -> int:
    """How many are to be done."""
    networks = study.search.networks
    if networks is None:
        return sum(candidate.trainings for candidate in candidates)
    return min(networks, study.space.size) * study.seeds


# --- the measurement ---------------------------------------------------------------------------


def measure(study: Study, candidate: Candidate, data: Prepared, hardware: Hardware) -> Measured:
    """Train a network for a few steps and evaluate it, in a process of its own.

    Raises:
        NotMeasured: It failed, or the process was killed.
    """
    job = pickle.dumps((study, candidate.arch, data, hardware))
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=job, capture_output=True, check=False)
    if done.returncode:
        raise NotMeasured(f"{candidate.arm} could not be measured: {_reason(done)}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Why a process failed, in one line."""
    if done.returncode == -signal.SIGKILL:
        return "its process was killed, as the system does where memory runs out"
    said = done.stderr.decode(errors="replace").split("\n")
    return next((line for line in reversed(said) if line.strip()), f"exit {done.returncode}")


def _in_new_process() -> None:
    """Measure what standard input says, and print it as JSON."""
    torch.set_num_threads(1)
    job = pickle.load(sys.stdin.buffer)  # noqa: S301
    print(json.dumps(asdict(_measure_here(*job))))


def _measure_here(
    study: Study, arch: dict[str, Any], data: Prepared, hardware: Hardware
) -> Measured:
    task, model = load_task(study, data), network(study, arch)
    torch.manual_seed(0)
    initialise(model, seed=0, pretrained=study.train.pretrained)
    state = begin(model, study.train, hardware, num_train=task.num_train)
    step = _step_seconds(state, task)
    before = _now(hardware)
    evaluate(state.tested, task, hardware)
    evaluation = _now(hardware) - before
    return Measured(step=step, evaluation=evaluation, memory=_peak_bytes(hardware))


def _step_seconds(state: State, task: Task) -> float:
    """Mean seconds of a step with its batch, after some that are not timed.

    Where several processes share a batch this one has its share of it; what they exchange is left
    out.
    """
    settings, hardware = state.settings, state.hardware
    total = settings.total_steps(task.num_train)
    # The first step is slow; what workers have loaded ahead would be too fast.
    untimed = min(1 + LOADED_AHEAD * settings.workers, total - 1)
    steps = range(min(untimed + MAX_STEPS, total))
    data = iter(batches(task, settings, seed=0, steps=steps, part=(0, settings.processes)))
    for inputs, target in islice(data, untimed):
        update(state, task, inputs, target)
    start, done = _now(hardware), 0
    for inputs, target in data:
        update(state, task, inputs, target)
        done += 1
        if time.perf_counter() - start > MAX_SECONDS:
            break
    return (_now(hardware) - start) / done


def _now(hardware: Hardware) -> float:
    """In seconds, when all that was asked of the device is done."""
    if hardware.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_bytes(hardware: Hardware) -> int:
    if hardware.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM:")  # of this process alone, which `getrusage` does not say


# --- the forecast ------------------------------------------------------------------------------


def estimate(
    candidates: Sequence[Candidate],
    measured: Mapping[str, Measured],
    *,
    steps: int,
    evaluations: int,
    trainings: int,
    jobs: int,
    processes: int = 1,
    cards: int = 1,
    budget: float | None = None,
) -> Forecast:
    """What the study takes, by arithmetic alone.

    Args:
        candidates: Its networks, or a sample of them.
        measured: Name of a network -> what was measured of it.
        steps: Of one training.
        evaluations: Of one training.
        trainings: How many are to be done.
        jobs: How many at a time, if there are as many.
        processes: That share one training.
        cards: GPUs that the processes are spread over; 1 without any.
        budget: Seconds.
    """
    trials = {arm: steps * m.step + evaluations * m.evaluation for arm, m in measured.items()}
    times = [_trial_seconds(candidate, candidates, trials) for candidate in candidates]
    weights = [candidate.trainings for candidate in candidates]
    mean = sum(t * w for t, w in zip(times, weights, strict=True)) / sum(weights)
    at_once = min(jobs, trainings)
    largest = max(m.memory for m in measured.values())
    within = None if budget is None else min(trainings, int(budget * at_once / mean))
    return Forecast(
        trials=trials,
        mean=mean,
        longest=max(times),
        trainings=trainings,
        at_once=at_once,
        total=max(mean * trainings / at_once, max(times)),  # no study ends before its longest
        memory=math.ceil(at_once * processes / cards) * largest,
        within_budget=within,
    )


def _trial_seconds(
    candidate: Candidate, candidates: Sequence[Candidate], trials: Mapping[str, float]
) -> float:
    """As measured, or between those measured of the same kind."""
    if candidate.arm in trials:
        return trials[candidate.arm]
    points = sorted(
        (other.macs, trials[other.arm])
        for other in candidates
        if other.arm in trials and other.kind == candidate.kind
    )
    macs, seconds = zip(*points, strict=True)
    return float(np.interp(candidate.macs, macs, seconds))


# --- as text -----------------------------------------------------------------------------------


def render(
    study: Study,
    chosen: Sequence[Candidate],
    measured: Mapping[str, Measured],
    found: Forecast,
    *,
    device: str,
    room: int | None,
    usual: int,
) -> str:
    """The forecast as text for a terminal.

    Args:
        study: The study.
        chosen: The networks that were measured.
        measured: What was measured of each.
        found: What follows.
        device: "cpu" or "cuda".
        room: Bytes of memory that are free, on the machine or on a card; None if nobody knows.
        usual: Trials at a time that the machine has cores or cards for.
    """
    where = torch.cuda.get_device_name() if device == "cuda" else f"one thread of {cpu_name()}"
    header = ("network", "GMACs", "one step", "evaluation", "one trial", "peak memory")
    macs = METRICS["profile.macs"]
    rows = []
    for c in chosen:
        m = measured[c.arm]
        times = (m.step, m.evaluation, found.trials[c.arm])
        rows.append((c.arm, macs.show(c.macs), *map(say_time, times), say_memory(m.memory)))
    lines = table(f"{study.name}: each network measured alone, {where}", header, rows, [])
    return "\n".join(
        [*lines[1:], "", *_sentences(study, found, usual), *_memory_sentences(found, device, room)]
    )


def _sentences(study: Study, found: Forecast, usual: int) -> Iterator[str]:
    search = study.search
    why = f" ({search.scheduler} ends trainings early)" if search.scheduler != "none" else ""
    if study.adaptive is not None:
        why = " (with all the seeds that undecided arms may get)"
    most = "at most " if why else ""
    basis = "" if search.is_grid else ", as random networks of the space take"
    yield (
        f"{count(found.trainings, 'training')} x {say_time(found.mean)} on average{basis}: "
        f"{most}{say_time(found.total)} with {found.at_once} at a time{why}."
    )
    if found.at_once > 1:
        is_longest = found.total == found.longest
        what = "longest training" if is_longest else f"time of all divided by {found.at_once}"
        yield (
            f"That is the {what}; what they share, such as memory and disks, "
            "makes each of them slower."
        )
    if found.at_once > usual:
        longer = say_time(found.mean * found.trainings / usual)
        yield f"Warning: this machine has room for {usual} at a time, which take {most}{longer}."
    if found.within_budget is not None:
        fits = f"{found.within_budget} of {count(found.trainings, 'training')}"
        yield f"Budget of {search.budget}: time for about {fits}."
    limit = search.limit_seconds
    if limit is not None and found.longest > limit:
        rule = f"above search.trial_limit ({search.trial_limit})"
        yield f"Warning: the longest training takes {say_time(found.longest)}, {rule}."


def _memory_sentences(found: Forecast, device: str, room: int | None) -> Iterator[str]:
    where = "on a card " if device == "cuda" else ""
    free = "" if room is None else f"; {say_memory(room)} are free"
    yield f"Memory {where}for {found.at_once} at a time: at most {say_memory(found.memory)}{free}."
    if room is not None and found.memory > room:
        yield "Warning: this does not fit; give fewer --jobs or a smaller train.batch_size."


def say_time(seconds: float) -> str:
    """As a person says it: "0.12 s", "45 s", "3 min 20 s", "5.2 h", "3.1 days"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def say_memory(nbytes: float) -> str:
    """In MiB, or from 1 GiB on in GiB."""
    return f"{nbytes / 2**20:.0f} MiB" if nbytes < 2**30 else f"{nbytes / 2**30:.1f} GiB"


if __name__ == "__main__":
    _in_new_process()
