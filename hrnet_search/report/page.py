"""Puts the report together and writes it: `index.html`, `table.md`, `table.csv`, `results.csv`."""

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from ..files import read_json, write_atomic
from ..result import Result, metric
from ..settings import Files
from ..study import Study, dump_study
from . import figures, summary, tables
from .frame import Run, paper_table, read_run, results_frame

MANY_TRIALS = 30  # rows; a longer list is folded up


def write_report(run: Path, out: Path) -> Path:
    """Write the report of a run, finished or not, and return its page.

    Args:
        run: Folder with `study.yaml`, and `results.jsonl` and `environment.json` if there are any.
        out: Folder for `index.html`, `table.md`, `table.csv` and `results.csv`. A `winner/` in it
            is linked to.

    Raises:
        InputError: The study is missing or not valid.
    """
    read = read_run(run)
    write_atomic(out / "table.md", _markdown(read))
    write_atomic(out / "table.csv", _csv(tables.ablation_data(read)))
    write_atomic(out / "results.csv", _csv(results_frame(read)))
    write_atomic(out / "index.html", _page(read, out))
    return out / "index.html"


def _markdown(run: Run) -> str:
    """The ablation table and its comparisons, with the words they need."""
    heading = tables.plain(run.study.title or run.study.name)
    trained = tables.paper_trained(run)
    parts = [f"# {heading}\n", tables.plain(summary.summary(run)) + "\n"]
    parts.append(tables.markdown(tables.ablation_table(run)))
    parts += [f"The paper trained {tables.plain(trained)}.\n"] if trained else []
    parts.append(tables.markdown(tables.pairs_table(run)))
    return "\n".join(parts)


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _page(run: Run, out: Path) -> str:
    # Plotly's code holds no "</script", so it can stand in the page as it is.
    return str(_template().render(plotly=get_plotlyjs(), **_content(run, out)))


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _content(run: Run, out: Path) -> dict[str, Any]:
    shown, winner = metric(run.study.accuracy), _winner(run, out)
    return {
        "study": run.study,
        "title": run.study.title or run.study.name,
        "summary": summary.summary(run),
        "progress": summary.progress(run),
        "strays": run.strays,
        "metric": shown,
        "cost": metric(run.study.cost),
        "reference": run.reference.name,
        "all_pairs": len(run.arms) <= tables.ALL_PAIRS,
        "arms": run.arms,
        "paper": _paper(run),
        "named": figures.named_arms(run),
        "styles": figures.styles(run),
        "tables": _tables(run),
        "figures": _figures(run),
        "fold_trials": len(run.results) > MANY_TRIALS,
        "yaml": dump_study(_portable(run.study)),
        "has_environment": bool(run.environment),
        "command": run.environment.get("command") or "hrnet-search run study.yaml",
        "given_command": "command" in run.environment,
        "winner": _winner_commands(run, winner) if winner else None,
        "winner_learnt": winner is not None and not winner.learnt_nothing(shown.key),
        "classes_title": tables.CLASS_TITLES.get(run.study.task.kind, ""),
    }


def _tables(run: Run) -> dict[str, tables.TextTable]:
    return {
        "ablation": tables.ablation_table(run),
        "pairs": tables.pairs_table(run),
        "trials": tables.trials_table(run),
        "failures": tables.failures_table(run),
        "metrics": tables.metrics_table(run),
        "classes": tables.classes_table(run),
        "training": tables.settings_table(_training(run)),
        "environment": tables.settings_table(_environment(run)),
    }


def _portable(study: Study) -> Study:
    """The study without the paths that led to its files here."""
    update: dict[str, Any] = {}
    if isinstance(study.data, Files):
        root = Path(study.data.root).name
        update["data"] = study.data.model_copy(update={"root": root})
    if study.train.pretrained:
        name = Path(study.train.pretrained).name
        update["train"] = study.train.model_copy(update={"pretrained": name})
    return study.model_copy(update=update)


def _environment(run: Run) -> dict[str, Any]:
    """The run's environment without names of this machine: reports are sent to others."""
    shown = {name: value for name, value in run.environment.items() if name != "host"}
    if isinstance(shown.get("data"), dict):
        shown["data"] = {k: v for k, v in shown["data"].items() if k != "folder"}
    return shown


def _figures(run: Run) -> dict[str, Any]:
    shown = metric(run.study.accuracy)
    name = shown.key.partition(".")[2]
    return {
        "pareto": _json(figures.pareto_figure(run)),
        "metric": _json(figures.curves_figure(run, name, shown.title, shown.scale)),
        "loss": _json(figures.curves_figure(run, "loss", "Training loss")),
    }


def _json(figure: Figure | None) -> Any:
    return None if figure is None else json.loads(figure.to_json())


def _training(run: Run) -> dict[str, Any]:
    """How the networks were trained, with what "auto" came to where the run tells."""
    study = run.study
    settings = {
        "task": study.task.model_dump(),
        "data": summary.data_words(study),
        "networks": study.space.base,
    }
    chosen = {
        name: run.environment[name]
        for name in ("precision", "memory_format")
        if name in run.environment
    }
    return settings | {"train": _portable(study).train.model_dump() | chosen}


def _paper(run: Run) -> str:
    """Which table of the paper stands beside ours, and what it trained."""
    table = paper_table(run.study)
    return f"{table.title} ({tables.paper_trained(run)})" if table else ""


def _winner(run: Run, out: Path) -> Result | None:
    """The trial whose network is in `winner/`; None if it is none of these."""
    file = out / "winner" / "arch.json"
    if not file.exists():
        return None
    try:
        source = read_json(file)["source"]
        won_by = source["trial"], source["started"]
    except (ValueError, KeyError, TypeError):
        return None  # damaged
    # None of an earlier run.
    return next((r for r in run.results if (r.trial, r.started) == won_by), None)


def _winner_commands(run: Run, won: Result) -> str:
    """How to try the exported winner."""
    name = metric(run.study.accuracy)
    return (
        f"# {won.arm}, seed {won.seed} (trial {won.trial}): "
        f"{name.label} {name.show(won.value(name.key))}\n"
        "cd winner\n"
        "python example.py"
    )
