"""The command line: parse, call one function, print. Heavy imports wait for their command."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .errors import InputError, nearest_name

DONE, FAILED_TRIALS, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EPILOG = """\
start here:
  hrnet-search run studies/smoke.yaml              a whole study in under a minute
  hrnet-search run studies/fusion_ablation.yaml    the paper's Table 12, about five minutes

exit status: 0 done; 1 some trials failed (they are listed); 2 the input was wrong (one line
says what); 130 interrupted (run the same command again to continue)
"""

RUN_EPILOG = """\
examples:
  hrnet-search run studies/fusion_ablation.yaml
  hrnet-search run studies/camvid_fusion_ablation.yaml --set data.root=~/data/camvid
  hrnet-search run studies/fusion_ablation.yaml --set name=longer --set train.steps=2000
  hrnet-search run studies/fusion_ablation.yaml --jobs 1

A study that exists is continued: what is finished is kept, what was cut off runs again.
More `seeds` add trials; texts and the reference may change freely; any other change of the study
wants --fresh or another name.
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


def _validate(options: argparse.Namespace, _: list[str]) -> int:
    from .study import Study, load

    for file in options.files:
        checked = load(file, options.set)
        if isinstance(checked, Study):
            arms = len(checked.arms())
            what = f"study of {checked.task.kind}, {arms} arms x {checked.seeds} seeds"
        else:
            what = f"space of {checked.size} combinations"
        print(f"{file}: ok, {what}")
    return DONE


def _run(options: argparse.Namespace, given: list[str]) -> int:
    from rich.console import Console

    from .files import require_writable
    from .study import load_study

    study = load_study(options.study, options.set)
    # Threads of numpy and torch in this process; trials set their own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from .search.engine import StuckError, run_study

    reports = options.out / "reports" / study.name
    require_writable(reports, key="--out")
    console = Console(stderr=True)
    command = shlex.join(["hrnet-search", *(word for word in given if word != "--fresh")])
    try:
        run = run_study(
            study,
            out=options.out,
            jobs=options.jobs,
            fresh=options.fresh,
            command=command,
            console=console,
        )
    except KeyboardInterrupt:
        if not (options.out / "runs" / study.name / "study.db").exists():
            raise  # nothing was begun
        print(f"Interrupted. To continue the study:  {command}", file=sys.stderr)
        return INTERRUPTED
    except StuckError as error:
        print(f"hrnet-search: {error}", file=sys.stderr)
        return FAILED_TRIALS
    return _finish(run, reports)


def _report(options: argparse.Namespace, _: list[str]) -> int:
    run, reports = _find_run(options.study, options.out)
    from .report import write_report

    print(f"Report: {write_report(run, reports)}")
    return DONE


def _export(options: argparse.Namespace, _: list[str]) -> int:
    run, reports = _find_run(options.study, options.out)
    from .export import export_winner

    folder = export_winner(run, reports, trial=options.trial)
    if folder is None:
        raise InputError("no trial is complete yet", file=run)
    print(f"Exported: {folder}")
    return DONE


def _finish(run: Path, out: Path) -> int:
    """Export the winner, write the report, list failures, say where everything is."""
    from .files import read_json_lines
    from .report import write_report

    results = read_json_lines(run / "results.jsonl")
    failed = [result for result in results if result["state"] == "failed"]
    winner = None
    if len(failed) < len(results):
        from .export import export_winner

        winner = export_winner(run, out)
    print(f"Report: {write_report(run, out)}")
    if winner is not None:
        print(f"Winner: {winner}  ({sys.executable} {winner / 'example.py'} draws a prediction)")
    for result in failed:
        error = result["error"]
        where = run / "trials" / f"{result['trial']:05d}" / "result.json"
        print(
            f"failed: trial {result['trial']} ({result['arm']}, seed {result['seed']}): "
            f"{error['type']}: {error['message']}  (traceback in {where})",
            file=sys.stderr,
        )
    return FAILED_TRIALS if failed else DONE


def _find_run(study: str, out: Path) -> tuple[Path, Path]:
    """Folders of run and report of a study that was run, given its file or its name."""
    from .files import require_writable
    from .study import load_study

    path = Path(study)
    name = load_study(path).name if path.suffix in (".yaml", ".yml") else study
    run, reports = out / "runs" / name, out / "reports" / name
    if not (run / "study.yaml").exists():
        known = [p.parent.name for p in (out / "runs").glob("*/study.yaml")]
        rule = f"has not been run in {out / 'runs'}"
        raise InputError(rule, key="study", value=study, nearest=nearest_name(name, known))
    require_writable(reports, key="--out")
    return run, reports


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    run.add_argument("study", type=Path, metavar="STUDY", help="the study's YAML file")
    _add_set(run)
    run.add_argument(
        "--jobs", type=_count, help="trials at a time (default: one per GPU, or else per core)"
    )
    run.add_argument(
        "--fresh", action="store_true", help="start over; the earlier run is kept beside it"
    )
    _add_out(run)

    report = _command(commands, "report", "write a study's report again", _report)
    report.add_argument("study", metavar="STUDY", help="name or file of a study that was run")
    _add_out(report)

    export = _command(commands, "export", "write a trained network as plain PyTorch", _export)
    export.add_argument("study", metavar="STUDY", help="name or file of a study that was run")
    export.add_argument("--trial", type=int, help="number of the trial (default: the best)")
    _add_out(export)
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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
