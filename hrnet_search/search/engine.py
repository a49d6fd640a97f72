"""Running a study: Ray Tune executes trials, the ledger decides which and remembers them."""

import contextlib
import functools
import itertools
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..arch import ArchSpec
from ..blueprint import min_size
from ..errors import InputError
from ..files import (
    DISK_FULL,
    is_disk_full,
    read_json,
    require_writable,
    write_atomic,
    write_json,
)
from ..progress import bar
from ..record import of_variant
from ..rivals import Rival
from ..settings import Files
from ..space import Value
from ..study import Study
from .display import Display
from .job import CHECKPOINT, SCRATCH
from .ledger import Ledger, check_same, set_aside
from .machines import capacity, check_machines, connect, default_jobs, resources
from .provenance import changes, checksum, environment
from .session import Ending, Halted, Session

MAX_IDLE_ROUNDS = 3  # restarts of Ray in which no trial ended, before giving up
EXAMPLES = 200  # networks of a search's space that are looked at beforehand
OF_VARIANTS = ("data.checksum", "pretrained")  # of what must stay as it was; the rest is of all
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Profiler = Callable[[ArchSpec | Rival], dict[str, float]]


@dataclass(frozen=True)
class Ready:
    """What was found out about a study before anything is trained.

    Args:
        hardware: What networks are trained on.
        steps: Of one trial.
        materials: What trials read: variant -> its own, or "" -> that of all.
    """

    hardware: Any
    steps: int
    materials: Mapping[str, "Materials"]


@dataclass(frozen=True)
class Materials:
    """What trials read.

    Args:
        data: Where the prepared data lies.
        pretrained: Checksum of the checkpoint that networks start from, or None.
    """

    data: Any
    pretrained: str | None

    def to_dict(self) -> dict[str, Any]:
        """As `environment.json` has it."""
        data = {"folder": str(self.data.folder), "checksum": self.data.checksum}
        return {"data": data, "pretrained": self.pretrained}


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        folder: `runs/<study>`.
        ending: "finished", "paused" or "stopped".
        reason: Why, or why there are fewer trials than wanted; may be empty.
    """

    folder: Path
    ending: Ending
    reason: str


def run_study(
    study: Study,
    *,
    file: Path,
    out: Path,
    jobs: int | None,
    address: str | None,
    fresh: bool,
    command: str,
    console: Console,
) -> Outcome:
    """Run what is missing of a study in its folder `out/runs/<study>`.

    Args:
        study: The study.
        file: Where it was read from.
        out: Folder for `runs/`.
        jobs: Trials at a time; None for as many as there are GPUs for, or cores where there is
            none.
        address: Of a Ray cluster; None for a Ray of our own on this machine.
        fresh: Start over; the old run is kept beside the new one.
        command: The command line that repeats this.
        console: Where progress is shown.

    Raises:
        InputError: The data or a folder is not as it must be; nothing was changed.
        KeyboardInterrupt: Ctrl-C; the ledger holds what was done.
    """
    folder = out / "runs" / study.name
    require_writable(folder, key="--out")
    # Before anything is written: the cluster may not be there. Its size decides on the jobs.
    with connect(address, cpus=0) if address is not None else contextlib.nullcontext():
        ready = None
        if fresh or not (folder / "study.yaml").exists():
            ready = check(study, console)  # what is refused changes nothing
        if fresh and (kept := set_aside(folder)):
            _say_kept(kept, console)
        with Ledger(folder, study) as ledger:
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)  # of a driver that was killed
            for line in ledger.repaired:
                console.print(escape(line), highlight=False, soft_wrap=True)
            # A search must ask its sampler whether there is more, and so needs the data.
            if study.search.is_grid and not ledger.unfinished():
                return _conclude(ledger, console)
            jobs = jobs or default_jobs(address, study.train.processes)
            ready = ready or check(study, console)
            if address is not None:
                _check_machines(ledger, ready)
            _make_ready(ledger, ready, jobs, command, file, console)
            ledger.keep_study()
            return _run_trials(ledger, ready, jobs=jobs, address=address, console=console)


def make_all_ready(studies: Iterable[Study], *, out: Path, fresh: bool, console: Console) -> None:
    """Look at all studies of a series before the first is run, and set old runs aside.

    What is refused here is refused before anything is trained or moved.

    Args:
        studies: In the order in which `run_study` will be given them.
        out: Folder for `runs/`.
        fresh: Start all of them over; the old runs are kept beside the new ones.
        console: Where progress is shown.

    Raises:
        InputError: The data of one that was not begun, or a folder, is not as it must be; or a
            folder holds a different study.
    """
    folders = {out / "runs" / study.name: study for study in studies}
    for folder, study in folders.items():
        require_writable(folder, key="--out")
        if fresh or not (folder / "study.yaml").exists():
            check(study, console)
        else:
            check_same(folder / "study.yaml", study)
    for folder in folders if fresh else ():
        if kept := set_aside(folder):
            _say_kept(kept, console)


def _say_kept(kept: Path, console: Console) -> None:
    console.print(f"The earlier run is kept in {escape(str(kept))}", highlight=False)


def _conclude(ledger: Ledger, console: Console) -> Outcome:
    """There is nothing to run, whatever the last driver has left."""
    ledger.keep_study()
    console.print(f"{ledger.study.name}: all {ledger.total()} trials are done", highlight=False)
    record = ledger.folder / "environment.json"
    if record.exists():
        before = read_json(record)
        Session(ledger, jobs=before["jobs"], steps=before["steps"]).write("finished")
    return Outcome(ledger.folder, "finished", "")


def _check_machines(ledger: Ledger, ready: Ready) -> None:
    """Whether every machine of a cluster has what trials read."""
    files = [materials.data.folder for materials in ready.materials.values()]
    for study in ledger.study.parts.values():
        files += [Path(study.train.pretrained)] if study.train.pretrained else []
        files += [Path(study.data.root)] if isinstance(study.data, Files) else []
    check_machines(
        ledger.folder, files=list(dict.fromkeys(files)), processes=ledger.study.train.processes
    )


def _run_trials(
    ledger: Ledger, ready: Ready, *, jobs: int, address: str | None, console: Console
) -> Outcome:
    """Run what is missing, and say how it ended; `status.json` says so too."""
    study = ledger.study
    session = Session(ledger, jobs=jobs, steps=ready.steps)
    ending: Ending = "interrupted"
    reason = ""
    if session.is_used_up():
        session.write("paused", session.used_up())
        return Outcome(ledger.folder, "paused", session.used_up())
    try:
        measure = functools.partial(_measured, ledger, _profiler(study))
        ledger.plan(steps=ready.steps, measure=measure)
        if not ledger.propose():
            ending, reason = "finished", _why_fewer(ledger)
            say = f"{study.name}: all {ledger.total()} trials are done"
            console.print(say, highlight=False)
            return Outcome(ledger.folder, ending, reason)
        _announce(ledger, jobs, console)
        total, before = ledger.total(), ledger.results()
        with Display(console, study, total=total, steps=ready.steps, before=before) as display:
            _run_rounds(ledger, display, session, address)
        if session.is_interrupted:
            raise KeyboardInterrupt
        ending, reason = "finished", _why_fewer(ledger)
        if session.is_closing and ledger.unfinished():
            ending, reason = "paused", session.used_up()
    except Halted as halted:
        ending, reason = halted.ending, halted.reason
    except Exception as error:
        ending, reason = "stopped", f"{type(error).__name__}: {error}"
        raise
    finally:
        with contextlib.suppress(OSError):  # the disk may be full
            session.write(ending, reason)
    return Outcome(ledger.folder, ending, reason)


def _announce(ledger: Ledger, jobs: int, console: Console) -> None:
    """What is about to be run."""
    missing, total = ledger.unfinished(), ledger.total()
    say = f"{ledger.study.name}: {missing} of {total} trials to run, {jobs} at a time"
    if begun := ledger.begun():
        say += f"; {begun} of them from a checkpoint"
    console.print(say, highlight=False)


def _why_fewer(ledger: Ledger) -> str:
    """Why a search trained fewer networks than it was asked for; empty if it did not."""
    proposals = ledger.proposals
    if proposals is None:
        return ""
    return "; ".join(filter(None, [*proposals.dropped, proposals.ended]))


def check(study: Study, console: Console) -> Ready:
    """Prepare the data, and try whatever could be refused later.

    Raises:
        InputError: Something is.
    """
    import torch

    from ..training import choose_hardware

    hardware = choose_hardware(study.train)
    _check_gpus(study, torch.cuda.device_count())
    materials, steps = {}, {}
    for name, part in study.parts.items():
        with _naming(name):
            materials[name], steps[name] = _check_part(part, console)
        if steps[name] != (first := next(iter(steps.values()))):
            rule = f"makes trials of {steps[name]} steps; all variants need the same ({first})"
            raise InputError(rule, key=f"variants.{name}")
    return Ready(hardware, first, materials)


@contextlib.contextmanager
def _naming(variant: str) -> Iterator[None]:
    """What is wrong with a variant is told under its name."""
    try:
        yield
    except InputError as error:
        raise (error.within(key=f"variants.{variant}") if variant else error) from None


def _check_part(study: Study, console: Console) -> tuple[Materials, int]:
    """What trials of a study without variants read, and how many steps each has."""
    from ..tasks import load_task, prepare
    from ..training import total_steps

    _check_networks(study)
    with bar(console, "Preparing data") as advance:
        data = prepare(study, advance)
    task = load_task(study, data)
    task.check(_least_size(study))
    if not task.measures(study.accuracy.removeprefix("metrics.")):
        rule = "the validation data has nothing that it can be measured on"
        raise InputError(rule, key="objectives.0", value=study.accuracy)
    steps = total_steps(study.train, task.num_train)
    return Materials(data, checksum(study.train.pretrained)), steps


def _check_gpus(study: Study, gpus: int) -> None:
    processes = study.train.processes
    if gpus and processes > gpus:
        rule = f"cannot be more than the GPUs of this machine ({gpus})"
        raise InputError(rule, key="train.processes", value=processes)


def _least_size(study: Study) -> int:
    """Height and width in pixels that every HRNet of the study takes.

    Of a search, those that are looked at beforehand: what a sampler proposes is checked by itself.
    """
    nets = [study.network(params) for params in _examples(study)]
    return max(min_size(net, study.task.head) for net in nets if isinstance(net, ArchSpec))


def _examples(study: Study) -> list[dict[str, Value]]:
    """Knob values of a grid's networks, or of some that a search may train."""
    if study.search.is_grid:
        return study.arms()
    able = (params for params in study.space.examples() if not study.obstacle(params))
    return list(itertools.islice(able, EXAMPLES))


def _check_networks(study: Study) -> None:
    """Whether each network of the study can start as `train` says.

    Raises:
        InputError: It lacks a head for `head_lr`, or `pretrained` does not fit.
    """
    from ..networks import network
    from ..training import make_optimizer

    if not study.train.pretrained and study.train.head_lr == 1:
        return
    for params in _examples(study):
        arch = study.network(params).to_dict()
        net = network(study, arch)
        try:
            make_optimizer(net, study.train)
            if study.train.pretrained:
                _check_pretrained(net, study.train.pretrained)
        except InputError as error:
            rule = f"{error.rule} (network {study.arm(params)})"
            raise InputError(
                rule, key=error.key, value=error.value, nearest=error.nearest
            ) from None


def _check_pretrained(net: Any, file: str) -> None:
    from ..networks import load_body

    try:
        load_body(net, file)
    except InputError as error:
        key = "train.pretrained"
        raise InputError(error.rule, key=key, value=file, nearest=error.nearest) from None


def _make_ready(
    ledger: Ledger, ready: Ready, jobs: int, command: str, file: Path, console: Console
) -> None:
    """What trials share beside the data: the environment's record, network costs."""
    record = environment(jobs=jobs, command=command) | vars(ready.hardware)
    processes = ledger.study.train.processes
    record |= {"processes": processes, "threads_per_trial": processes}  # one thread each
    record["steps"] = ready.steps
    found = {name: materials.to_dict() for name, materials in ready.materials.items()}
    record |= {"variants": found} if ledger.study.variants else found[""]
    for variant in ready.materials:
        _check_comparable(_earlier(ledger, variant), of_variant(record, variant), variant)
    write_json(ledger.folder / "environment.json", record)
    if changed := changes(file.parent):
        write_atomic(ledger.folder / "changes.diff", changed)
    if ledger.study.search.is_grid:
        _profile_grid(ledger, console)


def _earlier(ledger: Ledger, variant: str) -> dict[str, dict[str, Any]]:
    """Environments of all that was trained before under a variant: where -> record."""
    found = {
        f"in trial {result.trial}": result.environment
        for result in ledger.results()
        if ledger.study.variant_of(result.params) == variant
    }
    file = ledger.folder / "environment.json"
    if file.exists() and any(ledger.folder.glob(f"trials/*/{CHECKPOINT}")):
        found["in the trials that were cut off"] = of_variant(read_json(file), variant)
    return found


def _check_comparable(
    earlier: dict[str, dict[str, Any]], environment: dict[str, Any], variant: str = ""
) -> None:
    """Trials of one study are compared with each other: same data, same arithmetic."""
    for where, record in earlier.items():
        for key in ("data.checksum", "pretrained", "device", "precision", "memory_format"):
            before, now = _lookup(record, key), _lookup(environment, key)
            if before is not None and before != now:
                rule = f"was {before!r} {where}; use --fresh to start over"
                if key == "data.checksum":
                    rule = f"the data has changed: {rule}"
                if key == "pretrained":
                    rule = f"the checkpoint has changed: {rule}"
                with _naming(variant if key in OF_VARIANTS else ""):
                    raise InputError(rule, key=key, value=now)


def _lookup(record: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        record = record.get(part, {})
    return record or None


def _profile_grid(ledger: Ledger, console: Console) -> None:
    """Measure each network once, on a machine that is not training yet."""
    study = ledger.study
    todo = [p for p in study.arms() if not _profile_file(ledger, study.key(p)).exists()]
    with bar(console, "Profiling networks") as advance:
        for done, params in enumerate(todo, start=1):
            measure, network = _profiler(study.under(params)), study.network(params)
            write_json(_profile_file(ledger, study.key(params)), measure(network))
            advance(done, len(todo))


def _profiler(study: Study) -> Profiler:
    from ..profiling import profile

    return functools.partial(
        profile,
        head=study.task.head,
        num_outputs=study.head_outputs,
        input_size=study.input_size,
        detector=study.detector,
    )


def _measured(ledger: Ledger, measure: Profiler, network: ArchSpec | Rival) -> dict[str, float]:
    """The profile of a search's network, measured once for all its trials."""
    file = _profile_file(ledger, network.key)
    if not file.exists():
        write_json(file, measure(network))
    found: dict[str, float] = read_json(file)
    return found


def _profile_file(ledger: Ledger, key: str) -> Path:
    return ledger.folder / "profiles" / f"{key}.json"


def _run_rounds(ledger: Ledger, display: Display, session: Session, address: str | None) -> None:
    """Start Ray, and start it again if it gives up, until every trial has ended."""
    cpus = session.jobs * ledger.study.train.processes
    own = connect(None, cpus=cpus) if address is None else contextlib.nullcontext()
    with own, _signals(session):
        idle = 0
        while (before := ledger.unfinished()) and idle < MAX_IDLE_ROUNDS:
            session.write("running")
            try:
                _run_round(ledger, display, session)
            except Exception as error:  # e.g. Ray killed workers to free memory
                if is_disk_full(error):
                    raise Halted("stopped", DISK_FULL) from None
                display.say(escape(f"Ray stopped ({type(error).__name__}: {error}); going on"))
                _bury(ledger, display, session)
            if session.is_closing:
                return
            idle = idle + 1 if ledger.unfinished() == before else 0
    if idle:
        where = ledger.folder / "trials"
        raise Halted("stopped", f"no trial ended in {idle} attempts of Ray; see {where}")


def _bury(ledger: Ledger, display: Display, session: Session) -> None:
    """After Ray broke down every trial that it was running has lost its worker."""
    for number in ledger.running():
        ended, again = ledger.finish(number)
        display.finish(number, ended, again=again)
        session.end(number, ended, again=again)


def _run_round(ledger: Ledger, display: Display, session: Session) -> None:
    """One `Tuner.fit`. Its folder is thrown away: nothing in it is ever read back."""
    from ray import tune

    from .tuning import LedgerSearch, Pulse, train_trial

    scratch = ledger.folder / SCRATCH
    _, gpus = capacity()
    tuner = tune.Tuner(
        tune.with_resources(
            train_trial, resources(session.jobs, ledger.study.train.processes, gpus)
        ),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearch(ledger, display, session),
            num_samples=-1,
            max_concurrent_trials=session.jobs,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(scratch.absolute()),
            name=f"{time.time_ns()}",
            verbose=0,
            callbacks=[Pulse(session)],
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """Ctrl-C, and SIGTERM likewise, reach the session; Ray has set handlers of its own."""
    before = {number: signal.signal(number, session.interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
