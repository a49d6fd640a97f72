"""The command line: parse, call one function, print. Heavy imports wait for their command."""

import argparse
import contextlib
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .blueprint import HEADS
from .cost import cost, text
from .errors import InputError, nearest_name
from .files import DISK_FULL, is_disk_full
from .paper.costs import COSTS
from .presets import TASK_SETTINGS

if TYPE_CHECKING:
    from rich.console import Console

    from .arch import ArchSpec
    from .progress import Advance
    from .rivals import Rival
    from .space import Space
    from .study import Study

DONE, FAILED_TRIALS, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
PROBLEMS = FAILED_TRIALS  # what doctor found
DIFFERS = FAILED_TRIALS  # what replay, or export --check, found
RELOAD = 5.0  # seconds after which a watched page is looked at again
MAX_FOLDER = 255  # bytes of a folder's name, on the file systems that there are

EPILOG = """\
start here:
  hrnet-search run studies/smoke.yaml              a whole study in under a minute
  hrnet-search run studies/fusion_ablation.yaml    the paper's Table 12, about five minutes
  hrnet-search status fusion_ablation              how far it is, from another terminal
  hrnet-search fidelity studies/fidelity_pose.yaml whether small runs predict a larger one
  hrnet-search baselines studies/search_pose.yaml  whether a search beats random search and scaling
  hrnet-search plan studies/fusion_ablation.yaml   how long a study will take, before it is run
  hrnet-search profile w32                         what a network costs
  hrnet-search draw w32 --out w32.svg              what it looks like
  hrnet-search tables 1                            the paper's costs beside ours
  hrnet-search predict WINNER IMAGE --out DIR      what an exported network finds

exit status: 0 done; 1 some trials failed (they are listed), the study stopped, the winner could not
be exported, a network could not be measured, a replay or an exported network differs, or doctor
found a problem; 2 the input was wrong (one line says what); 130 interrupted (run the same command
again to continue)
"""

RUN_EPILOG = """\
examples:
  hrnet-search run studies/fusion_ablation.yaml
  hrnet-search run studies/camvid_fusion_ablation.yaml --set data.root=~/data/camvid
  hrnet-search run studies/fusion_ablation.yaml --set name=longer --set train.steps=2000
  hrnet-search run studies/fusion_ablation.yaml --jobs 1
  hrnet-search run studies/fusion_ablation.yaml --set 'match={profile.macs: reference}'
  hrnet-search run studies/search_pose.yaml --set search.networks=60 --set search.budget=2h
  hrnet-search run studies/search_pose.yaml --dry-run

A study that exists is continued: what is finished is kept, what was cut off goes on from its last
checkpoint (train.checkpoint_minutes), or else starts again.
More `seeds` add trials, more `search.networks` go on with a search. Texts, the reference (without
`match` and `adaptive`), budgets and limits of time, failures allowed, data.root, data.cache_gib,
train.workers and checkpoints may change freely; any other change wants --fresh or another name. A
study that its budget has ended gives 0, one that stopped because its first trials failed or the
disk is full gives 1.
"""

FIDELITY_EPILOG = """\
examples:
  hrnet-search fidelity studies/fidelity_pose.yaml
  hrnet-search fidelity studies/fidelity_pose.yaml --set seeds=5 --jobs 1

Trains the study's arms at each of its `scales`, as studies STUDY-SCALE, then the study itself,
each as `run` would: interrupted, the same command continues; what is finished is kept, also what
`run` has trained. Each has its own report; reports/STUDY/fidelity.html tells how well each scale
predicts the study's order of arms (Spearman, Kendall, with intervals), and the cheapest that
keeps it. --set changes the study and so each scale, unless the scale sets the same key.
"""

BASELINES_EPILOG = """\
examples:
  hrnet-search baselines studies/search_pose.yaml
  hrnet-search baselines studies/search_pose.yaml --jobs 1

Trains the search, as `run` would, and then what it has to beat: as many networks of its space drawn
at random (STUDY-random), and its default network, of search.start or HRNet's, at up to seven widths
that cost what the space's networks do (STUDY-scaling). Interrupted, the same command continues;
what is finished is kept, also what `run` has trained. The report of the search then shows the three
fronts, and how much of their hypervolume each has after how many hours of training.
"""

PLAN_EPILOG = """\
examples:
  hrnet-search plan studies/fusion_ablation.yaml
  hrnet-search plan studies/fusion_ablation.yaml --set train.steps=20000 --jobs 1
  hrnet-search plan studies/camvid_fusion_ablation.yaml --set data.root=~/data/camvid

The cheapest, a middle and the dearest network are trained for a few steps on the study's own data
and evaluated once, each alone; the time of the others follows from their multiply-adds. Data is
prepared as by `run`; nothing is written to runs/. Finished trials of a grid are not counted again.
"""

PROFILE_EPILOG = """\
examples:
  hrnet-search profile w32                                  HRNetV1-W32, pose, 256x192
  hrnet-search profile w48 --task segmentation --count      at once, by stage
  hrnet-search profile simple_baseline_resnet50             a rival of the paper's tables
  hrnet-search profile reports/smoke/winner/arch.json --input 64x64
  hrnet-search profile spaces/hrnet_full.yaml --limit profile.macs=2e9 --limit profile.params=1e7

A network is counted in closed form, by fvcore, ptflops and PyTorch, and its memory and latency are
estimated and measured on this machine. A space is only counted: nothing is trained or built.
"""

DRAW_EPILOG = """\
examples:
  hrnet-search draw w32 --out w32.svg                            HRNetV1-W32, as built for poses
  hrnet-search draw w48 --task segmentation > w48.svg            with head V2, which reads all maps
  hrnet-search draw u-net --head v1h --out u-net.svg
  hrnet-search draw reports/smoke/winner/arch.json --out winner.svg
  hrnet-search draw studies/fusion_ablation.yaml --arm final --out final.svg
  hrnet-search draw table12_pose --trial 3 --out trial.svg       of runs/ or reports/ here
  hrnet-search draw ~/work/runs/search_pose --trial 17 --out trial.svg

Branches are rows, the highest resolution on top; bars are residual units with their width below,
orange and blue lines bring maps up and down. Equal modules in a row are drawn once ("x 4"). What
cannot reach the head's output is left out, as when the network is built. The file follows the
reader's light or dark setting. Without --out it goes to standard output.
"""

PREDICT_EPILOG = """\
examples:
  hrnet-search predict reports/smoke/winner photo.jpg --out predictions
  hrnet-search predict reports/camvid_fusion_ablation/winner data/camvid/val --out predictions
  hrnet-search predict reports/pose/winner crowd.jpg --boxes boxes.json --out predictions
  hrnet-search predict reports/objects/winner street.jpg --score 0.5 --out predictions

Writes NAME.png, the picture with what was found drawn on it, and NAME.json; of a segmentation
also NAME_labels.png, the number of every pixel's class. For joints, boxes.json says where people
are, [{"image": "crowd.jpg", "bbox": [x, y, width, height], "score": 0.9}, ...] in pixels ("score"
may be left out); without --boxes every picture is one person. Of objects NAME.json has all that
are found, NAME.png those of at least the score. DIR may not be a folder that is read from.
"""

REPORT_EPILOG = """\
examples:
  hrnet-search report fusion_ablation
  hrnet-search report fusion_ablation --watch      in another terminal, while it runs
  hrnet-search report fusion_ablation --png        pictures for a slide, beside the page
  hrnet-search report fusion_ablation --shared     pages that are kept together, 0.1 MB each
  hrnet-search report table12_pose table12_camvid  does what wins for pose win for segmentation?
  hrnet-search report short long longer            what longer training has changed

Writes reports/STUDY/ as `run` does at its end, also while the study runs, and the page of its
scales where `fidelity` has run them. Of several studies it writes reports/A+B/ instead, a name that
no study has, and changes nothing of their own reports: the arms they share (by name; of searches
the networks), whether their orders agree, paired differences to the first study, what differs
between the settings. Where there is no run of one of several, its report is read. A page is
complete by itself, of about 5 MB, so that it can be sent to somebody; with --shared it needs the
file beside its folder. --png wants `pip install 'hrnet-search[png]'`, and Chrome or Chromium.
"""

STATUS_EPILOG = """\
examples:
  hrnet-search status fusion_ablation              by name, from another terminal
  hrnet-search status studies/smoke.yaml --out ~/work
  watch hrnet-search status fusion_ablation        again and again

Says whether a driver is at work, or how the command goes on that continues the study. Reads
runs/STUDY/ alone: a study that runs is not disturbed.
"""

LIST_EPILOG = """\
examples:
  hrnet-search list
  hrnet-search list --out ~/work

States: running; starting (its driver has not said anything yet); finished; interrupted, paused,
stopped (hrnet-search status says why); gone (its driver was killed); not running (nobody has ever
said). Folders that are no study, or are broken, are named below the table.
"""

CURVES_EPILOG = """\
examples:
  hrnet-search curves fusion_ablation              reports/fusion_ablation/curves.csv
  hrnet-search curves fusion_ablation --to curves.csv
  hrnet-search curves fusion_ablation --format tensorboard
  tensorboard --logdir reports/fusion_ablation/tensorboard

Trials that still run are there too. The CSV has a line per number: trial, arm, seed, state, step,
name (loss, or a metric as a fraction), value. TensorBoard shows one run per trial; it wants
`pip install tensorboard`. A folder given with --to must be new or empty.
"""

EXPORT_EPILOG = """\
examples:
  hrnet-search export fusion_ablation                      reports/fusion_ablation/winner
  hrnet-search export fusion_ablation --trial 3            reports/fusion_ablation/trial-00003
  hrnet-search export search_pose --pareto                 a folder for each network of the front
  hrnet-search export fusion_ablation --format onnx,pt2    with model.onnx and model.pt2
  hrnet-search export fusion_ablation --format int8        model-int8.onnx, and what it loses
  hrnet-search export fusion_ablation --check              does the folder score what was recorded?

Each folder is verified in a process that cannot import hrnet-search: the source gives the trained
network's outputs bit for bit, graphs within 1e-4 of their range. What was found is in its
README. A folder that has what is asked for stays as it is, unless a file of it was edited: then it
is written anew, and one line says so. ONNX wants
`pip install 'hrnet-search[onnx]'`.
Exit status: 0 done, 1 outputs or metrics differ, 2 the input was wrong.
"""

REPLAY_EPILOG = """\
examples:
  hrnet-search replay fusion_ablation --trial 0
  hrnet-search replay studies/fusion_ablation.yaml --trial 3
  hrnet-search replay camvid_fusion_ablation --trial 0 --set data.root=~/data/camvid

Trains one trial again from its record, in this process, without Ray, and compares every figure.
The record is that of runs/STUDY/ in DIR if it is there, with the history; or else that of
reports/STUDY/, with the final metrics, and then data.root and train.pretrained have to be given,
since reports keep no folders. Of --set, those two, data.cache_gib and train.workers are allowed:
any other key would make another training. Other data than the trial's is refused. Nothing in
runs/ or reports/ is changed. A trial that was ended early is replayed from its run, up to where
it ended.
On a CPU of the same kind with the same versions a replay is identical; a GPU adds up in no fixed
order. Exit status: 0 identical to the last digit, 1 it differs or failed, 2 there is no such
trial, or nothing to compare with.
"""

DOCTOR_EPILOG = """\
examples:
  hrnet-search doctor
  hrnet-search doctor > doctor.txt                 to show to somebody

A line per check: ok; warning, which may slow or stop large studies; or problem, which stops all.
Both say what to do. Looks at the current folder too, so call it where studies will be run.
Exit status: 0 without a problem, 1 with one.
"""

TABLES_EPILOG = """\
examples:
  hrnet-search tables 1 15                        in the terminal
  hrnet-search tables 3 --format markdown
  hrnet-search tables --format html --out tables.html

docs/counting.md explains the conventions, and the figures that nobody can reproduce.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return int(options.command(options, given))
    except InputError as error:
        print(f"hrnet-search: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("hrnet-search: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # e.g. piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if not is_disk_full(error):
            raise
        print(f"hrnet-search: {DISK_FULL}", file=sys.stderr)
        return FAILED_TRIALS


def _validate(options: argparse.Namespace, _: list[str]) -> int:
    from .study import Study, load

    for file in options.files:
        checked = load(file, options.set)
        if isinstance(checked, Study):
            what = f"study of {checked.task.kind}, {_size_of(checked)}"
        else:
            what = f"space of {checked.size} combinations"
        print(f"{file}: ok, {what}")
    return DONE


def _size_of(study: "Study") -> str:
    """How much a study trains, in words."""
    from .result import count

    search, seeds = study.search, count(study.seeds, "seed")
    if not search.is_grid:
        networks = f"{search.networks} of up to {study.space.size} networks"
        return f"{networks} by {search.sampler} x {seeds}"
    text = f"{count(len(study.arms()), 'arm')} x {seeds}"
    if study.adaptive is not None:
        text += f", undecided ones up to {study.most_seeds}"
    if left_out := study.left_out():
        left = count(left_out, "arm" if study.variants else "network")
        text += f"; {left} above the limits left out"
    for name, miss in study.unmatched.items():
        text += f"; arm '{name}' has no matched copy ({miss:.1%} off at the nearest)"
    if study.scales:
        text += f"; smaller scales {', '.join(study.scales)}"
    return text


def _run(options: argparse.Namespace, given: list[str]) -> int:
    from .study import load_study

    study = load_study(options.study, options.set)
    # Threads of numpy and torch in this process; trials set their own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.dry_run:
        from .search.rehearsal import rehearse

        print(rehearse(study, options.out / "runs" / study.name, fresh=options.fresh))
        return DONE
    status, is_over = _train(study, options, given, fresh=options.fresh)
    if is_over and not study.search.is_grid and len(study.goals) > 1:
        others = "" if study.search.sampler == "random" else "random search and "
        command = _repeats(["baselines", *given[1:]])
        print(f"To set it against {others}plain scaling:  {command}")
    return status


def _fidelity(options: argparse.Namespace, given: list[str]) -> int:
    from .study import load_study

    study = load_study(options.study, options.set)
    if not study.scales:
        rule = "is missing: the smaller scales, name and what each changes (docs/studies.md)"
        raise InputError(rule, file=options.study, key="scales")
    studies = study.at_scales()
    status, are_over = _train_all(list(studies.values()), options, given)
    if are_over:
        from .report import write_fidelity

        runs = {name: options.out / "runs" / scaled.name for name, scaled in studies.items()}
        print(f"Fidelity: {write_fidelity(runs, options.out / 'reports' / study.name)}")
    return status


def _baselines(options: argparse.Namespace, given: list[str]) -> int:
    from .study import load_study

    study = load_study(options.study, options.set)
    from .search.baselines import baselines

    try:
        studies = [study, *baselines(study).values()]
    except InputError as error:
        raise error.within(file=options.study) from None
    status, are_over = _train_all(studies, options, given)
    if are_over:
        from .report import write_report

        page = write_report(options.out / "runs" / study.name, options.out / "reports" / study.name)
        print(f"Compared: {page}")
    return status


def _train_all(
    studies: Sequence["Study"], options: argparse.Namespace, given: Sequence[str]
) -> tuple[int, bool]:
    """Run or continue studies that belong together, one after another.

    Returns:
        The exit status, and whether all are over: none interrupted nor stopped.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in `run`
    from .search.engine import make_all_ready

    make_all_ready(studies, out=options.out, fresh=options.fresh, console=_console(options))
    failed = DONE
    for study in studies:
        status, is_over = _train(study, options, given, fresh=False)
        if not is_over:
            return status, False
        failed = failed or status
    return failed, True


def _train(
    study: "Study", options: argparse.Namespace, given: Sequence[str], *, fresh: bool
) -> tuple[int, bool]:
    """Run or continue a study, then report and export.

    Returns:
        The exit status, and whether the study is over: neither interrupted nor stopped.
    """
    from .files import require_writable
    from .search.engine import run_study

    reports = options.out / "reports" / study.name
    require_writable(reports, key="--out")
    command = _repeats(given)
    try:
        outcome = run_study(
            study,
            file=options.study,
            out=options.out,
            jobs=options.jobs,
            address=options.address,
            fresh=fresh,
            command=command,
            console=_console(options),
        )
    except KeyboardInterrupt:
        if not (options.out / "runs" / study.name / "study.yaml").exists():
            raise  # nothing was begun
        print(f"Interrupted. To continue the study:  {command}", file=sys.stderr)
        return INTERRUPTED, False
    if outcome.reason:
        print(f"{study.name}: {outcome.reason}", file=sys.stderr)
    status = _finish(outcome.folder, reports)
    return (FAILED_TRIALS, False) if outcome.ending == "stopped" else (status, True)


def _repeats(given: Sequence[str]) -> str:
    """The command line that continues what this one begins."""
    return shlex.join(["hrnet-search", *(word for word in given if word != "--fresh")])


def _console(options: argparse.Namespace) -> "Console":
    from rich.console import Console

    return Console(stderr=True, quiet=options.quiet)


def _plan(options: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from .study import load_study

    study = load_study(options.study, options.set)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in `run`
    from .search.forecast import NotMeasured, forecast

    try:
        console = Console(stderr=True)
        print(forecast(study, out=options.out, jobs=options.jobs, console=console))
    except NotMeasured as error:
        print(f"hrnet-search: {error}", file=sys.stderr)
        return FAILED_TRIALS
    return DONE


def _report(options: argparse.Namespace, _: list[str]) -> int:
    names, out = options.studies, options.out
    if len(names) == 1:
        run, reports = _find_run(names[0], out)
        from .report import write_pictures, write_report

        if options.watch:
            with contextlib.suppress(KeyboardInterrupt):  # ends watching; the last page follows
                _watch(run, reports, shared=options.shared)
        page = write_report(run, reports, shared=options.shared)
        _report_scales(run, reports, shared=options.shared)
        for picture in write_pictures(run, reports) if options.png else ():
            print(f"Picture: {picture}")
    else:
        for key, asked in (("--watch", options.watch), ("--png", options.png)):
            if asked:
                raise InputError("is for one study", key=key)
        runs = [_record_folder(name, out, mark="study.yaml") for name in names]
        reports = _reports_of(names, runs, out)
        from .report import write_studies

        page = write_studies(runs, reports, shared=options.shared)
    print(f"Report: {page}")
    return DONE


def _watch(run: Path, reports: Path, *, shared: bool) -> None:
    """Write the page again whenever trials have ended, for as long as a driver has the study."""
    from .report import write_report
    from .status import is_held

    seen = None
    while is_held(run / "lock"):
        if (now := _changed(run / "results.jsonl")) != seen:
            page = write_report(run, reports, shared=shared, reload=RELOAD)
            if seen is None:
                print(f"Report: {page} (it reloads itself; Ctrl-C ends watching)", flush=True)
            seen = now
        time.sleep(RELOAD)


def _changed(file: Path) -> int:
    """When a file was written last; 0 where there is none yet."""
    return file.stat().st_mtime_ns if file.exists() else 0


def _report_scales(run: Path, reports: Path, *, shared: bool) -> None:
    """The page about a study's scales again, where `hrnet-search fidelity` has run them all."""
    from .report import write_fidelity
    from .study import load_study

    study = load_study(run / "study.yaml")
    runs = {name: run.parent / scaled.name for name, scaled in study.at_scales().items()}
    if study.scales and all((folder / "results.jsonl").exists() for folder in runs.values()):
        print(f"Fidelity: {write_fidelity(runs, reports, shared=shared)}")


def _reports_of(studies: Sequence[str], runs: Sequence[Path], out: Path) -> Path:
    """Folder for the report of several studies; no study's name has a "+"."""
    from .files import require_writable

    names = [run.name for run in runs]
    for place, name in enumerate(names):
        if name in names[:place]:
            rule = f"is study {name}, which is given before; give others to compare it with"
            raise InputError(rule, key="study", value=studies[place])
    if len((folder := "+".join(names)).encode()) > MAX_FOLDER:
        rule = f"make a folder's name of more than {MAX_FOLDER} letters; compare fewer at a time"
        raise InputError(rule, key="study", value=folder)
    require_writable(reports := out / "reports" / folder, key="--out")
    return reports


def _export(options: argparse.Namespace, _: list[str]) -> int:
    if options.pareto and options.trial is not None:
        raise InputError("names one network, --pareto several; give one of the two", key="--trial")
    run, reports = _find_run(options.study, options.out)
    from .export import front_trials, parse_formats

    formats = parse_formats(options.format)
    trials: Sequence[int | None] = [options.trial]
    rivals: Sequence[str] = []
    if options.pareto:
        trials, rivals = front_trials(run)
        for name in rivals:
            print(f"hrnet-search: not exported: {name}, for it is no HRNet", file=sys.stderr)
    done: list[int | None] = []
    told: set[str] = set()  # what is wrong with the data is so for all
    for trial in trials:
        try:
            done.append(_export_one(run, reports, trial, formats, check=options.check))
        except InputError as error:
            if len(trials) == 1:
                raise
            if str(error) not in told:
                _warn(f"not exported: {error}")
            told.add(str(error))
            done.append(FAILED_TRIALS)
    if trials == [] and rivals:
        raise InputError("no HRNet is on the Pareto front", file=run, key="--pareto")
    if not done or None in done:
        raise InputError("no trial of an HRNet is complete yet", file=run)
    return max(status for status in done if status is not None)


def _export_one(
    run: Path, reports: Path, trial: int | None, formats: frozenset[str], *, check: bool
) -> int | None:
    """Export the network of a trial, or the winner; None if there is none."""
    from .export import export_winner

    try:
        with _steps() as on_step:
            folder = export_winner(
                run, reports, trial=trial, formats=formats, warn=_warn, on_step=on_step
            )
    except RuntimeError as error:
        which = "" if trial is None else f"trial {trial}: "
        _warn(f"not exported: {which}{' '.join(str(error).split())}")
        return FAILED_TRIALS
    if folder is None:
        return None
    print(f"Exported: {folder}")
    return _check_export(run, folder) if check else DONE


def _check_export(run: Path, folder: Path) -> int:
    """Print what an exported folder scores; `DIFFERS` if that is not what was recorded."""
    from .export import check_again

    try:
        with _steps() as on_step:
            measured = check_again(run, folder, on_step)
    except RuntimeError as error:
        _warn(f"not checked: {' '.join(str(error).split())}")
        return FAILED_TRIALS
    for name, (recorded, found) in measured.source.items():
        told = "as recorded" if found == recorded else f"recorded {recorded!r}"
        print(f"Checked: {name} {found!r}, {told}")
    for file, metrics in measured.graphs.items():
        if isinstance(metrics, str):
            print(f"Not measured: {file}: {metrics}")
            continue
        for name, (recorded, _) in measured.source.items():
            by = metrics[name] - recorded
            told = f"recorded {recorded!r}, {by:+.2g}" if by else "as recorded"
            print(f"Checked: {file}: {name} {metrics[name]!r}, {told}")
    return DIFFERS if any(a != b for a, b in measured.source.values()) else DONE


def _status(options: argparse.Namespace, _: list[str]) -> int:
    from .status import describe

    run = _run_folder(options.study, options.out, marks=("study.yaml", "lock"))
    print(describe(run, now=datetime.now(timezone.utc)))
    return DONE


def _list(options: argparse.Namespace, _: list[str]) -> int:
    from .status import listing

    print(listing(options.out / "runs"))
    return DONE


def _curves(options: argparse.Namespace, _: list[str]) -> int:
    from .curves import read_curves, require_tensorboard, write_csv, write_tensorboard

    run = _run_folder(options.study, options.out)
    usual = options.out / "reports" / run.name
    if options.format == "tensorboard":
        require_tensorboard()  # before anything is read
        place = options.to or usual / "tensorboard"
        write_tensorboard(read_curves(run), place, anew=options.to is None)
    else:
        place = options.to or usual / "curves.csv"
        write_csv(read_curves(run), place)
    print(f"Curves: {place}")
    return DONE


def _replay(options: argparse.Namespace, _: list[str]) -> int:
    from .record import read_record

    place = _record_folder(options.study, options.out)
    record = read_record(place, options.trial, options.set)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in `run`
    from .search.replay import NotReplayed, departures, make_ready, render, replay

    if different := departures(record):
        warning = f"warning: figures may differ, for the record has {'; '.join(different)}"
        print(f"hrnet-search: {warning}", file=sys.stderr)
    with _bar("Preparing data") as advance:
        data = make_ready(record, advance)
    try:
        with _bar("Training") as advance:
            found = replay(record, data, advance)
    except NotReplayed as error:
        why = " ".join(str(error).split())
        print(f"hrnet-search: the training failed here: {why}", file=sys.stderr)
        return DIFFERS
    print(render(record, found))
    return DIFFERS if found.differing else DONE


def _doctor(_: argparse.Namespace, __: list[str]) -> int:
    from .doctor import examine, line

    levels = []
    for name, finding in examine():
        print(line(name, finding), flush=True)
        levels.append(finding.level)
    return PROBLEMS if "problem" in levels else DONE


def _predict(options: argparse.Namespace, _: list[str]) -> int:
    from .drawing import DRAWN_SCORE, drawn_objects
    from .files import require_writable
    from .predict import check_out, find_images, open_winner, plan, predict, read_people

    winner = open_winner(options.winner)
    if options.boxes and winner.task != "pose":
        rule = f"is for networks that find joints; this one is for {winner.task}"
        raise InputError(rule, key="--boxes", value=str(options.boxes))
    if options.score is not None and winner.task != "detection":
        rule = f"is for networks that find objects; this one is for {winner.task}"
        raise InputError(rule, key="--score", value=options.score)
    detector = winner.detector
    score = detector.least_drawn(options.score, usual=DRAWN_SCORE) if detector else DRAWN_SCORE
    people = read_people(options.boxes) if options.boxes else None
    images = find_images(options.images, winner)
    check_out(options.out, winner, [*images, *([options.boxes] if options.boxes else [])])
    jobs = plan(images, people)
    require_writable(options.out, key="--out")
    with _bar("Predicting") as advance:
        scores = predict(winner, jobs, options.out, advance, score=score)
    seen = f"{len(jobs)} {'images' if len(jobs) > 1 else 'image'}"
    if detector:
        seen += f", {drawn_objects(scores, least=score)}"
    print(f"Predictions: {options.out}  ({seen})")
    return DONE


def _finish(run: Path, out: Path) -> int:
    """Export the winner, write the report, list failures, say where everything is.

    The report shows the winner, so that comes first, but is written without one as well.
    """
    from .files import read_json_lines
    from .report import headline, write_report
    from .report.frame import read_run
    from .report.summary import learnt_nothing

    results = read_json_lines(run / "results.jsonl")
    failed = [result for result in results if result["state"] == "failed"]
    winner, trouble = _exported(run, out) if len(failed) < len(results) else (None, "")
    print(f"Report: {write_report(run, out)}")
    read = read_run(run)
    if results:
        print(headline(read))
    if winner is not None:
        title = "A network to try" if learnt_nothing(read) else "Winner"
        print(f"{title}: {winner}  ({sys.executable} {winner / 'example.py'} draws a prediction)")
    for result in failed:
        error = result["error"]
        where = run / "trials" / f"{result['trial']:05d}" / "result.json"
        print(
            f"failed: trial {result['trial']} ({result['arm']}, seed {result['seed']}): "
            f"{error['type']}: {error['message']}  (traceback in {where})",
            file=sys.stderr,
        )
    if trouble:
        print(f"not exported: {trouble}", file=sys.stderr)
    return FAILED_TRIALS if failed or trouble else DONE


def _exported(run: Path, out: Path) -> tuple[Path | None, str]:
    """The winner's folder, if there is a winner, and in one line why it could not be exported."""
    from .export import export_winner

    try:
        return export_winner(run, out, warn=_warn), ""
    except (RuntimeError, InputError, OSError) as error:
        return None, " ".join(str(error).split())


def _profile(options: argparse.Namespace, _: list[str]) -> int:
    from .result import check_limits
    from .rivals import Rival
    from .space import Space
    from .target import check_head, find_target

    target = find_target(options.target, task=options.task)
    usual = target.setting
    head, num_outputs = options.head or usual[0], options.outputs or usual[1]
    size = options.input or usual[2]
    if isinstance(target.what, Rival) and options.head:
        raise InputError(f"{target.name} has its own", key="--head", value=options.head)
    check_head(options.head, target)
    if isinstance(target.what, Space):
        if options.count:
            raise InputError("is for one network; a space is only counted", key="--count")
        limits = dict(map(_limit, options.limit))
        try:
            check_limits(limits)
        except InputError as error:
            key = "--limit"
            raise InputError(
                error.rule, key=key, value=error.value, nearest=error.nearest
            ) from None
        return _profile_space(target.what, head, num_outputs, size, limits)
    if options.limit:
        rule = "is for spaces; this is one network"
        raise InputError(rule, key="--limit", value=options.limit[0])
    return _profile_network(target.what, head, num_outputs, size, options.count)


def _profile_space(
    space: "Space", head: str, num_outputs: int, size: tuple[int, int], limits: dict[str, float]
) -> int:
    from .survey import render, survey

    with _bar("Costing networks") as advance:
        found = survey(
            space,
            head=head,
            num_outputs=num_outputs,
            input_size=size,
            limits=limits,
            progress=advance,
        )
    print(render(found, head=head, num_outputs=num_outputs, input_size=size))
    return DONE


def _profile_network(
    network: "ArchSpec | Rival", head: str, num_outputs: int, size: tuple[int, int], count: bool
) -> int:
    from .arch import ArchSpec

    # A wrong head, a size too small: said before torch is loaded.
    counted = None
    if isinstance(network, ArchSpec):
        counted = cost(network, head=head, num_outputs=num_outputs, input_size=size)
        if count:
            print(text(counted))
            return DONE
    elif count:
        raise InputError("is for HRNets", key="--count", value=network.key)
    from . import baselines
    from .profiling import measure, render

    net = baselines.network(network.to_dict(), head=head, num_outputs=num_outputs)
    with _steps() as on_step:
        measured = measure(net, size, cost=counted, on_step=on_step)
    print(render(measured))
    return DONE


def _warn(text: str) -> None:
    print(f"hrnet-search: {text}", file=sys.stderr)


def _bar(title: str) -> "AbstractContextManager[Advance]":
    """A progress bar on a terminal, nothing in a log."""
    from rich.console import Console

    from .progress import bar

    return bar(Console(stderr=True), title)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Shows the step that is called with on a terminal, nothing in a log."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda step: status.update(f"{step} ...")


def _limit(text: str) -> tuple[str, float]:
    """ "profile.macs=2e9" -> its key and number."""
    key, _, number = text.partition("=")
    try:
        return key, float(number)
    except ValueError:
        raise InputError("must be METRIC=NUMBER", key="--limit", value=text) from None


def _tables(options: argparse.Namespace, _: list[str]) -> int:
    from .costtables import RENDERERS, cost_table

    names = options.tables or list(COSTS)
    tables = []
    with _bar("Counting") as advance:
        rows = sum(len(COSTS[name].rows) for name in names if name in COSTS)
        done = itertools.count(1)
        for name in names:
            tables.append(cost_table(name, lambda: advance(next(done), rows)))
    _put(RENDERERS[options.format](tables), options.out, "Tables")
    return DONE


def _put(text: str, file: Path | None, what: str) -> None:
    """On the screen, or into the file that --out names."""
    from .files import write_atomic

    if file is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        write_atomic(file, text)
    except OSError as error:
        rule = f"cannot be written ({error.strerror})"
        raise InputError(rule, key="--out", value=str(file)) from None
    print(f"{what}: {file}")


def _draw(options: argparse.Namespace, _: list[str]) -> int:
    from .diagram import draw, standalone

    if options.arm is None and options.trial is None:
        from .target import check_head, find_target, hrnet_of

        folders = [Path(place) / options.spec for place in ("", "runs", "reports")]
        if any((folder / "study.yaml").exists() for folder in folders):
            rule = "is a study; name one of its networks by --arm or --trial"
            raise InputError(rule, key="SPEC", value=options.spec)

        target = find_target(options.spec, task=options.task)
        spec = hrnet_of(target)
        check_head(options.head, target)
        head = options.head or target.setting[0]
        title = "/".join(Path(options.spec).parts[-2:])  # drawings are sent to others
    else:
        spec, head, title = _of_study(options)
    _put(standalone(draw(spec, head, title=title)), options.out, "Drawing")
    return DONE


def _of_study(options: argparse.Namespace) -> tuple["ArchSpec", str, str]:
    """Network, head and name of an arm or a trial."""
    from .record import find_trial
    from .study import load_study
    from .target import network_of, params_of

    for key, value in (("--task", options.task), ("--head", options.head)):
        if value is not None:
            raise InputError("is for other networks; a study has its own", key=key, value=value)
    if options.arm is not None:
        study = load_study(_study_file(options.spec))
        params, name = params_of(study, options.arm), options.arm
    else:
        place = _folder_of(options.spec, mark="results.jsonl")
        study = load_study(place / "study.yaml")
        params = find_trial(place, study, options.trial).params
        name = f"trial {options.trial}, {study.arm(params)}"
    return *network_of(study, params), f"{study.name}: {name}"


def _study_file(study: str) -> Path:
    """The file of a study, given it, or the study's name or folder."""
    path = Path(study)
    if path.suffix in (".yaml", ".yml"):
        return path
    return _folder_of(study, mark="study.yaml") / "study.yaml"


def _folder_of(study: str, *, mark: str) -> Path:
    """Folder of a run or a report, given it; or the study's name or file, looked for here."""
    path = Path(study)
    return path if (path / "study.yaml").exists() else _record_folder(study, Path(), mark=mark)


def _find_run(study: str, out: Path) -> tuple[Path, Path]:
    """Folders of run and report of a study that was run, given its file or its name."""
    from .files import require_writable

    run = _run_folder(study, out)
    reports = out / "reports" / run.name
    require_writable(reports, key="--out")
    return run, reports


def _run_folder(study: str, out: Path, *, marks: Sequence[str] = ("study.yaml",)) -> Path:
    """Folder of a study that was run, given its file or its name; a file in it marks it as one."""
    name, runs = _study_name(study), out / "runs"
    if not any((runs / name / mark).exists() for mark in marks):
        known = [p.parent.name for p in runs.glob("*/study.yaml")]
        rule = f"has not been run in {runs}"
        if (report := out / "reports" / name / "study.yaml").exists():
            raise InputError(f"{rule}; {report.parent} is its report", key="study", value=study)
        is_file = study.endswith((".yaml", ".yml"))
        rule += f"; start it: hrnet-search run {study}" if is_file else "; see hrnet-search list"
        raise InputError(rule, key="study", value=study, nearest=nearest_name(name, known))
    return runs / name


def _record_folder(study: str, out: Path, *, mark: str = "results.jsonl") -> Path:
    """Folder of a study's run, or where there is none of its report, given its file or name.

    A run is one that has the file `mark`.
    """
    name, files = _study_name(study), {"runs": mark, "reports": "results.csv"}
    for folder, file in files.items():
        if (out / folder / name / "study.yaml").exists() and (out / folder / name / file).exists():
            return out / folder / name
    known = {p.parent.name for folder in files for p in out.glob(f"{folder}/*/study.yaml")}
    rule = f"has neither trials in {out / 'runs'} nor a report in {out / 'reports'}"
    raise InputError(rule, key="study", value=study, nearest=nearest_name(name, known))


def _study_name(study: str) -> str:
    """The name of a study, given its file or its name."""
    from .study import load_study

    path = Path(study)
    return load_study(path).name if path.suffix in (".yaml", ".yml") else study


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"hrnet-search: {' '.join(message.split())}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hrnet-search",
        description="Architecture search and ablation studies for HRNet, from a YAML file to a "
        "report and a standalone network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"%(prog)s {metadata.version('hrnet-search')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    validate = _command(
        commands, "validate", "check study and space files, nothing else", _validate
    )
    validate.add_argument("files", type=Path, nargs="+", metavar="FILE")
    _add_set(validate)

    run = _command(
        commands, "run", "run or continue a study, then report and export", _run, RUN_EPILOG
    )
    _add_running(run)
    run.add_argument(
        "--dry-run", action="store_true", help="list the trials that would be run, and stop"
    )

    fidelity = _command(
        commands,
        "fidelity",
        "train a study at smaller scales too, and report how well they predict it",
        _fidelity,
        FIDELITY_EPILOG,
    )
    _add_running(fidelity)

    baselines = _command(
        commands,
        "baselines",
        "set a search against random search and plain scaling",
        _baselines,
        BASELINES_EPILOG,
    )
    _add_running(baselines)

    plan = _command(
        commands,
        "plan",
        "how long a study will take and how much memory it needs, from a few measured steps",
        _plan,
        PLAN_EPILOG,
    )
    plan.add_argument("study", type=Path, metavar="STUDY", help="the study's YAML file")
    _add_set(plan)
    plan.add_argument("--jobs", type=_count, help="trials at a time (default: as `run` has it)")
    _add_out(plan)

    profile = _command(
        commands,
        "profile",
        "what a network costs, counted and measured; or what a space holds",
        _profile,
        PROFILE_EPILOG,
    )
    profile.add_argument(
        "target", metavar="TARGET", help="a preset, a rival, arch.json, a space or a study file"
    )
    profile.add_argument(
        "--task",
        help=f"for a preset, arch.json or space: {', '.join(TASK_SETTINGS)} (default: pose)",
    )
    profile.add_argument("--head", help=f"{', '.join(HEADS)} (default: the task's)")
    profile.add_argument("--outputs", type=_count, help="joints or classes (default: the paper's)")
    profile.add_argument("--input", type=_size, metavar="HxW", help="image in pixels, height first")
    profile.add_argument(
        "--count", action="store_true", help="of one network: the closed form alone, at once"
    )
    profile.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="METRIC=MOST",
        help="for spaces, e.g. profile.macs=2e9; may be repeated",
    )

    tables = _command(
        commands, "tables", "the paper's cost columns beside ours", _tables, TABLES_EPILOG
    )
    tables.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(COSTS)}; or all")
    tables.add_argument("--format", choices=("text", "markdown", "csv", "html"), default="text")
    tables.add_argument("--out", type=Path, metavar="FILE", help="write there, not on the screen")

    drawn = _command(commands, "draw", "a network as a picture, in SVG", _draw, DRAW_EPILOG)
    drawn.add_argument(
        "spec",
        metavar="SPEC",
        help="a preset or arch.json; with --arm or --trial a study: its file, name or folder",
    )
    one = drawn.add_mutually_exclusive_group()
    one.add_argument("--arm", metavar="NAME", help="of a grid, as its report names it")
    one.add_argument("--trial", type=int, metavar="N", help="of a study with a run or a report")
    drawn.add_argument(
        "--task", help=f"for a preset or arch.json: {', '.join(TASK_SETTINGS)} (default: pose)"
    )
    drawn.add_argument("--head", help=f"likewise: {', '.join(HEADS)} (default: the task's)")
    drawn.add_argument(
        "--out", type=Path, metavar="FILE", help="write there, not to standard output"
    )

    report = _command(
        commands,
        "report",
        "write a study's report again, or one page that compares several",
        _report,
        REPORT_EPILOG,
    )
    report.add_argument(
        "studies", nargs="+", metavar="STUDY", help="name or file of a study that was run"
    )
    report.add_argument(
        "--shared", action="store_true", help="one reports/plotly.min.js for all pages"
    )
    report.add_argument(
        "--watch", action="store_true", help="of a study that runs: again as trials end, to its end"
    )
    report.add_argument(
        "--png", action="store_true", help="table.png and pareto.png too (wants kaleido)"
    )
    _add_out(report)

    status = _command(
        commands, "status", "what a study is doing, while it runs or later", _status, STATUS_EPILOG
    )
    status.add_argument("study", metavar="STUDY", help="name or file of a study that was begun")
    _add_out(status)

    listed = _command(
        commands, "list", "the studies in a folder, one line each", _list, LIST_EPILOG
    )
    _add_out(listed)

    curves = _command(
        commands, "curves", "write the learning curves of all trials", _curves, CURVES_EPILOG
    )
    curves.add_argument("study", metavar="STUDY", help="name or file of a study that was run")
    curves.add_argument("--format", choices=("csv", "tensorboard"), default="csv")
    curves.add_argument(
        "--to", type=Path, metavar="PATH", help="file, or folder (default: in reports/STUDY)"
    )
    _add_out(curves)

    _command(
        commands, "doctor", "check this installation, and say what to do", _doctor, DOCTOR_EPILOG
    )

    export = _command(
        commands,
        "export",
        "write trained networks as plain PyTorch, ONNX, and torch.export's graphs",
        _export,
        EXPORT_EPILOG,
    )
    export.add_argument("study", metavar="STUDY", help="name or file of a study that was run")
    export.add_argument(
        "--trial", type=int, metavar="N", help="number of the trial (default: the best)"
    )
    export.add_argument(
        "--pareto", action="store_true", help="every network on the report's Pareto front instead"
    )
    export.add_argument(
        "--format",
        default="torch",
        metavar="LIST",
        help="torch, onnx, pt2, int8, with commas; torch is always written (default: torch)",
    )
    export.add_argument(
        "--check",
        action="store_true",
        help="measure the metrics again with the source, and with ONNX files that are there, and "
        "compare with the record",
    )
    _add_out(export)

    again = _command(
        commands,
        "replay",
        "train one trial again, and compare every figure",
        _replay,
        REPLAY_EPILOG,
    )
    again.add_argument(
        "study", metavar="STUDY", help="name or file of a study with a run or a report"
    )
    again.add_argument("--trial", type=int, required=True, metavar="N", help="number of the trial")
    _add_set(again)
    _add_out(again)

    predict = _command(
        commands, "predict", "draw what a trained network finds", _predict, PREDICT_EPILOG
    )
    predict.add_argument(
        "winner", type=Path, metavar="WINNER", help="folder of an exported network"
    )
    predict.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="an image, or a folder of images"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="DIR", help="write there")
    predict.add_argument(
        "--boxes", type=Path, metavar="FILE", help="joints: where people are, as JSON"
    )
    predict.add_argument(
        "--score", type=_share, help="objects: least score of what is drawn (default: 0.3)"
    )
    return parser


def _command(commands, name, summary, function, epilog=None):  # type: ignore[no-untyped-def]
    command = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=function)
    return command


def _add_running(parser: argparse.ArgumentParser) -> None:
    """What `run`, `fidelity` and `baselines` take alike."""
    parser.add_argument("study", type=Path, metavar="STUDY", help="the study's YAML file")
    _add_set(parser)
    parser.add_argument(
        "--jobs", type=_count, help="trials at a time (default: one per GPU, or else per core)"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="run on this Ray cluster (default: this machine)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="start over; the earlier run is kept beside it"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress: only what failed, and the report"
    )
    _add_out(parser)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace one value of the file, e.g. train.steps=1000; may be repeated",
    )


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder that holds runs/ and reports/ (default: the current one)",
    )


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r}: must be HEIGHTxWIDTH, e.g. 256x192")
    return int(height), int(width)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # nor is NaN
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number from 0 to 1")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
