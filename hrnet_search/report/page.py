"""Puts the report together and writes it: the page, its tables, and what a replay needs.

Of a study with scales that were run, `fidelity.html`, `fidelity.md` and `fidelity.csv` beside it.
Of several studies one page that compares them.
"""

import base64
import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from ..comparisons import looks
from ..files import read_json, write_atomic, write_json
from ..portable import portable_environment, portable_study
from ..ranks import DRAWS
from ..result import Result, joined, metric
from ..study import dump_study
from . import (
    coordinates,
    fidelity,
    figures,
    fronts,
    knobs,
    networks,
    pareto,
    parts,
    search,
    speed,
    studies,
    summary,
    tables,
    timeline,
)
from .frame import Run, paper_table, read_run, results_frame

PLOTLY_FILE = "plotly.min.js"  # beside the reports that share it
MANY_TRIALS = 30  # rows; a longer list is folded up


def write_report(
    run: Path, out: Path, *, shared: bool = False, reload: float | None = None
) -> Path:
    """Write the report of a run, finished or not, and return its page.

    Args:
        run: Folder with `study.yaml`, and `results.jsonl` and `environment.json` if there are any.
        out: Folder for `index.html`, `table.md`, `table.tex`, `table.csv`, `results.csv`, of a
            grid also `comparisons.csv`, of a search `importance.csv` and `path.csv`; and of the run
            `study.yaml`, `environment.json` and the state in `status.json`, so that the folder
            alone is enough to train a trial of it again, and to compare it with others. A
            `winner/` in it is linked to.
        shared: Leave Plotly's code, most of a page, in one file beside `out` for all reports
            there; otherwise the page is complete by itself.
        reload: Seconds after which a browser reads the page again, of a study that runs.

    Raises:
        InputError: The study is missing or not valid.
    """
    read = read_run(run)
    write_atomic(out / "study.yaml", dump_study(portable_study(read.study)))
    if read.environment:
        write_json(out / "environment.json", _replayed(read))
    if state := read.status.get("state"):  # of a search: whether further networks are to come
        write_json(out / "status.json", {"state": state})
    write_atomic(out / "results.csv", _csv(results_frame(read)))
    plotly = _plotly(out, shared)
    if read.study.search.is_grid:
        _write_grid(read, out, plotly, reload)
    else:
        _write_search(read, out, plotly, reload, beside=fronts.baselines(run, read))
    return out / "index.html"


def _plotly(out: Path, shared: bool) -> str:
    """Plotly's code for a page; if it is shared none, but the file beside the page's folder.

    It holds no "</script", so it can stand in the page as it is.
    """
    if not shared:
        return get_plotlyjs()
    write_atomic(out.parent / PLOTLY_FILE, get_plotlyjs())
    return ""


def write_fidelity(runs: Mapping[str, Path], out: Path, *, shared: bool = False) -> Path:
    """Write how well the scales of a study predict it, and return the page.

    Args:
        runs: Scale -> its folder, as of `write_report`; the last is what the others predict.
        out: Folder for `fidelity.html`, `fidelity.md` and `fidelity.csv`.
        shared: As of `write_report`.

    Raises:
        InputError: A study is missing or not valid.
    """
    scales = fidelity.compare_scales({name: read_run(run) for name, run in runs.items()})
    write_atomic(out / "fidelity.csv", _csv(fidelity.scales_data(scales)))
    content = _content(scales[-1].run, out) | _fidelity_content(scales, runs, out)
    command = content["command"].replace("hrnet-search run ", "hrnet-search fidelity ", 1)
    content |= {"command": command, "winner": None}
    write_atomic(out / "fidelity.md", _fidelity_markdown(content))
    write_atomic(out / "fidelity.html", _page("fidelity.html.j2", _plotly(out, shared), content))
    return out / "fidelity.html"


def _fidelity_content(
    scales: list[fidelity.Scale], runs: Mapping[str, Path], out: Path
) -> dict[str, Any]:
    full = scales[-1].run
    pages = {name: f"../{run.name}/index.html" for name, run in runs.items()}
    return {
        "title": f"How far smaller runs predict it: {full.study.title or full.study.name}",
        "summary": fidelity.summary(scales),
        "progress": fidelity.progress(scales),
        "strays": sum(scale.run.strays for scale in scales),
        "full": scales[-1].name,
        "draws": DRAWS,
        "arms": full.arms,
        "named": figures.named_arms(full),
        "styles": figures.styles(full),
        "pages": {name: link for name, link in pages.items() if (out / link).exists()},
        "tables": {
            "agreement": fidelity.agreement_table(scales),
            "arms": fidelity.arms_table(scales),
            "scales": fidelity.scales_table(scales),
        }
        | _settings(full),
        "figures": {
            "means": _json(fidelity.means_figure(scales)),
            "places": _json(fidelity.places_figure(scales)),
        },
    }


def _fidelity_markdown(content: dict[str, Any]) -> str:
    """The three tables, with the words they need."""
    parts = [f"# {tables.plain(content['title'])}\n", tables.plain(content["summary"]) + "\n"]
    for name in ("agreement", "arms", "scales"):
        parts.append(tables.markdown(content["tables"][name]))
    return "\n".join(parts)


def write_studies(runs: Sequence[Path], out: Path, *, shared: bool = False) -> Path:
    """Write one page that compares several runs, and return it.

    Args:
        runs: Their folders, as of `write_report`; the first is the one that differences are taken
            to. Their names tell them apart.
        out: Folder for `index.html`, `table.md`, `table.tex`, `table.csv`, `orders.csv`,
            `pairs.csv`, `differences.csv` and `studies.csv`.
        shared: As of `write_report`.

    Raises:
        InputError: A study is missing or not valid.
    """
    found = studies.compare_studies({run.name: read_run(run) for run in runs})
    content = _studies_content(found, out)
    files = {
        "table": studies.arms_data(found),
        "orders": studies.orders_data(found),
        "pairs": studies.pairs_data(found),
        "differences": studies.changes_data(found),
        "studies": studies.studies_data(found),
    }
    for name, frame in files.items():
        write_atomic(out / f"{name}.csv", _csv(frame))
    write_atomic(out / "table.md", _studies_markdown(content))
    write_atomic(out / "table.tex", _latex(content["title"], _studies_tables(content)))
    write_atomic(out / "index.html", _page("studies.html.j2", _plotly(out, shared), content))
    return out / "index.html"


def _studies_content(found: studies.Together, out: Path) -> dict[str, Any]:
    first = found.runs[found.first].study
    names = shlex.join(found.runs)
    data = fronts.fronts_data(found.runs)
    settings = {s: portable_study(r.study).model_dump(mode="json") for s, r in found.runs.items()}
    beside = [study for study in found.runs if (out.parent / study / "index.html").exists()]
    drawn = studies.drawn(found)
    return {
        "title": f"Studies side by side: {joined(list(found.runs))}",
        "summary": studies.summary(found, data),
        "progress": studies.trials(found),
        "names": names,
        "command": f"hrnet-search report {names}",
        "strays": sum(run.strays for run in found.runs.values()),
        "noun": found.noun,
        "by_network": found.by_network,
        "unlike": ", ".join(found.unlike),
        "first": found.first,
        "metric": metric(first.accuracy),
        "cost": metric(first.cost),
        "draws": DRAWS,
        "many": MANY_TRIALS,
        "pairs": studies.pairs_tables(found),
        "max_pairs": studies.MAX_PAIRS,
        "left_out": found.left_out,
        "has_adaptive": any(run.study.adaptive for run in found.runs.values()),
        "pages": {study: f"../{study}/index.html" for study in beside},
        "drawn": drawn,
        "styles": drawn,
        "tables": {
            "arms": studies.arms_table(found),
            "alone": studies.alone_table(found),
            "orders": studies.orders_table(found),
            "changes": studies.changes_table(found),
            "settings": studies.differing_table(settings),
            "fronts": fronts.fronts_table(found.runs, data),
            "studies": studies.studies_table(found),
        },
        "figures": {
            "means": _json(studies.means_figure(found)),
            "places": _json(studies.places_figure(found)),
            "fronts": _json(fronts.fronts_figure(found.runs, data)),
            "growth": _json(fronts.growth_figure(found.runs, data)),
        },
    }


def _studies_tables(content: dict[str, Any]) -> dict[str, tables.TextTable]:
    """Heading -> table, of those that have rows."""
    own, noun = content["tables"], content["noun"]
    laid = {
        f"{noun.capitalize()}s in several studies": own["arms"],
        f"{noun.capitalize()}s that one study has alone": own["alone"],
        "Agreement of the orders": own["orders"],
        **{f"{noun.capitalize()}s told apart by {p}": t for p, t in content["pairs"].items()},
        f"Differences to {content['first']}, paired by seed": own["changes"],
        "Settings that differ": own["settings"],
        "Pareto fronts": own["fronts"],
        "What the studies took": own["studies"],
    }
    return {heading: table for heading, table in laid.items() if table.rows}


def _studies_markdown(content: dict[str, Any]) -> str:
    """The tables with the words they need."""
    parts = [f"# {tables.plain(content['title'])}\n", tables.plain(content["summary"]) + "\n"]
    for heading, table in _studies_tables(content).items():
        parts += [f"## {tables.plain(heading)}\n", tables.markdown(table)]
    return "\n".join(parts)


def headline(run: Run) -> str:
    """What a run has found, in one sentence of its report."""
    if summary.learnt_nothing(run):
        return summary.nothing_words(run)
    if run.study.search.is_grid:
        return summary.best(run)
    return search.best(run, search.networks_data(run))


def _write_grid(run: Run, out: Path, plotly: str, reload: float | None) -> None:
    write_atomic(out / "table.md", _markdown(run))
    write_atomic(out / "table.tex", _grid_latex(run))
    write_atomic(out / "table.csv", _csv(tables.ablation_data(run)))
    write_atomic(out / "comparisons.csv", _csv(tables.comparisons_data(run)))
    shown = networks.of_grid(run, _exported(run, out))
    content = _content(run, out) | _grid_content(run, shown)
    _add_shared(run, shown, content)
    write_atomic(out / "index.html", _page("grid.html.j2", plotly, content, reload))


def _write_search(
    run: Run, out: Path, plotly: str, reload: float | None, *, beside: tuple[fronts.Runs, list[str]]
) -> None:
    data = search.networks_data(run)
    importance, found = knobs.importance_data(run, data), knobs.way(run, data)
    path = knobs.path_data(run, found)
    shown = networks.of_search(run, data, _exported(run, out))
    content = _content(run, out) | _search_content(run, data, shown)
    _add_shared(run, shown, content)
    told = _knobs_content(run, data, importance, path) | {
        "path_words": knobs.path_words(run, found)
    }
    lines = coordinates.lines_data(run, data)
    told |= {"lines": len(lines), "width": coordinates.width(run)}
    content["knobs"] = told
    content["figures"]["coordinates"] = _json(coordinates.figure(run, lines))
    content["figures"] |= _knobs_figures(run, importance, path)
    runs, content["left_out"] = beside
    ahead = fronts.fronts_data(runs)
    content["beside"] = fronts.front_words(runs, ahead) if len(runs) > 1 else []
    content["tables"]["beside"] = fronts.fronts_table(runs, ahead)
    content["figures"]["beside"] = _json(fronts.fronts_figure(runs, ahead))
    content["figures"]["growth"] = _json(fronts.growth_figure(runs, ahead))
    write_atomic(out / "table.md", _search_markdown(content))
    write_atomic(out / "table.tex", _search_latex(content))
    write_atomic(out / "table.csv", _csv(data))
    write_atomic(out / "importance.csv", _csv(importance))
    write_atomic(out / "path.csv", _csv(path))
    write_atomic(out / "index.html", _page("search.html.j2", plotly, content, reload))


def _markdown(run: Run) -> str:
    """The ablation table and its comparisons, with the words they need."""
    heading = tables.plain(run.study.title or run.study.name)
    trained = tables.paper_trained(run)
    parts = [f"# {heading}\n", tables.plain(summary.summary(run)) + "\n"]
    parts.append(tables.markdown(tables.ablation_table(run)))
    parts += [f"The paper trained {tables.plain(trained)}.\n"] if trained else []
    for family in tables.comparisons(run):
        parts += [f"## Comparisons {tables.plain(family.title)}\n"] if family.title else []
        parts.append(tables.markdown(tables.pairs_table(run, family)))
    parts += [tables.plain(summary.copies(run)) + "\n"] if run.study.match else []
    return "\n".join(parts)


def _search_markdown(content: dict[str, Any]) -> str:
    """The front and the best networks, with the words they need."""
    parts = [f"# {tables.plain(content['title'])}\n", tables.plain(content["summary"]) + "\n"]
    for name, heading in (("front", "Pareto front"), ("best", "Best networks beside the front")):
        table = content["tables"][name]
        parts += [f"## {heading}\n", tables.markdown(table)] if table.rows else []
    told = content["knobs"]
    parts += ["## What the knobs did\n", *(tables.plain(line) + "\n" for line in told["words"])]
    parts += [tables.markdown(told["importance"])] if told["importance"].rows else []
    parts.append("## From the default to the best network\n")
    parts.append(tables.plain(told["path_words"]) + "\n")
    parts += [tables.markdown(told["path"])] if len(told["path"].rows) > 1 else []
    return "\n".join(parts)


def _latex(title: str, laid: Mapping[str, tables.TextTable]) -> str:
    """Tables for LaTeX, each under its heading and with the title as caption."""
    parts = [
        tables.latex(table, f"{title}: {heading}" if heading else title)
        for heading, table in laid.items()
        if table.rows
    ]
    return "\n".join([tables.LATEX_NEEDS, *parts])


def _grid_latex(run: Run) -> str:
    """The ablation table and its comparisons."""
    laid = {"": tables.ablation_table(run)} | {
        f"comparisons {family.title}".strip(): tables.pairs_table(run, family)
        for family in tables.comparisons(run)
    }
    return _latex(run.study.title or run.study.name, laid)


def _search_latex(content: dict[str, Any]) -> str:
    """The front and the best networks."""
    headings = {"front": "Pareto front", "best": "best networks beside the front"}
    return _latex(content["title"], {headings[n]: content["tables"][n] for n in headings})


def _csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _page(template: str, plotly: str, content: dict[str, Any], reload: float | None = None) -> str:
    page = _templates().get_template(template)
    file = f"../{PLOTLY_FILE}"
    return str(page.render(plotly=plotly, plotly_file=file, reload=reload, **content))


@functools.cache
def _templates() -> jinja2.Environment:
    folder = resources.files(__package__)
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _content(run: Run, out: Path) -> dict[str, Any]:
    """What the pages of grids and searches share."""
    shown, winner = metric(run.study.accuracy), _winner(run, out)
    orders = speed.orders(run)
    environment = portable_environment(run.environment)
    return {
        "study": run.study,
        "names": run.study.name,
        "title": run.study.title or run.study.name,
        "noun": "arm" if run.study.search.is_grid else "network",
        "progress": summary.progress(run),
        "strays": run.strays,
        "metric": shown,
        "cost": metric(run.study.cost),
        "yaml": dump_study(portable_study(run.study)),
        "has_environment": bool(run.environment),
        "command": environment.get("command") or "hrnet-search run study.yaml",
        "given_command": "command" in run.environment,
        "winner": _winner_commands(run, winner) if winner else None,
        "winner_finds": _winner_finds(out) if winner else [],
        "winner_learnt": winner is not None and not winner.learnt_nothing(shown.key),
        "speed": {
            "words": speed.words(orders),
            "table": speed.table(run, orders),
            "orders": orders,
            "least": speed.LEAST_RATIO,
            "folded": len(orders.pairs) > speed.MAX_UNFOLDED,
        },
    }


def _add_shared(run: Run, shown: networks.Networks, content: dict[str, Any]) -> None:
    """Figures and tables that both kinds of page have."""
    data = parts.parts_data(run, shown)
    content["tables"]["parts"] = parts.table(run, data)
    content["figures"]["parts"] = _json(parts.figure(data))
    content["max_parts"], content["part_colours"] = parts.MAX_ROWS, parts.colours(data)
    ran = timeline.timeline(run)
    content["figures"]["timeline"] = _json(timeline.figure(run, ran))
    content["ran"] = {
        "words": timeline.words(ran),
        "trials": len(ran.bars),
        "drawn": len(timeline.drawn(ran)),
        "rows": len(ran.rows),
        "max_rows": timeline.MAX_ROWS,
        "cut": bool(ran.pauses),
        "machines": len({machine for machine, _ in ran.rows}),
        "again": bool((ran.bars["attempt"] > 1).any()),
    }


def _grid_content(run: Run, shown: networks.Networks) -> dict[str, Any]:
    return {
        "networks": shown,
        "summary": summary.summary(run),
        "reference": run.reference.name,
        "families": [
            (family.title, tables.pairs_table(run, family)) for family in tables.comparisons(run)
        ],
        "with_reference": all(
            other is run.reference
            for family in tables.comparisons(run)
            for _, other, _ in family.pairs
        )
        and len(run.arms) > 2,
        "to_reference": tables.to_reference(run),
        "confidence": tables.confidence(run),
        "looks": looks(run.study),
        "copies": summary.copies(run) if run.study.match else "",
        "arms": run.arms,
        "paper": _paper(run),
        "named": figures.named_arms(run),
        "styles": figures.styles(run),
        "tables": _tables(run) | _settings(run),
        "figures": _figures(run, shown),
        "fold_trials": len(run.results) > MANY_TRIALS,
        "classes_title": tables.CLASS_TITLES.get(run.study.task.kind, ""),
    }


def _search_content(run: Run, data: pd.DataFrame, shown: networks.Networks) -> dict[str, Any]:
    named = search.leaders(run, data)
    listed = search.network_tables(run, data)
    trials = {"trials": search.trials(run), "failures": search.failures(run)}
    totals = {
        "front": int(data["front"].sum()),
        "compared": int(data["compared"].sum()),
        "rest": len(data) - len(listed["front"].rows) - len(listed["best"].rows),
        "trials": len(run.results),
        "failures": sum(result.state == "failed" for result in run.results),
    }
    return {
        "summary": search.summary(run, data),
        "named": named.arms,
        "styles": figures.styles(named),
        "totals": totals,
        "max_faint": search.MAX_FAINT,
        "fold_failures": MANY_TRIALS,
        "networks": shown,
        "tables": listed | trials | {"metrics": search.others(run, data)} | _settings(run),
        "figures": _search_figures(run, data, shown),
    }


def _knobs_content(
    run: Run, data: pd.DataFrame, importance: pd.DataFrame, path: pd.DataFrame
) -> dict[str, Any]:
    return {
        "words": knobs.importance_words(run, data, importance),
        "importance": knobs.importance_table(importance),
        "path": knobs.path_table(run, path),
    }


def _knobs_figures(run: Run, importance: pd.DataFrame, path: pd.DataFrame) -> dict[str, Any]:
    study = run.study
    drawn = {
        "importance_metric": knobs.importance_figure(importance, study.accuracy),
        "importance_cost": knobs.importance_figure(importance, study.cost),
        "path": knobs.path_figure(run, path),
    }
    return {name: _json(figure) for name, figure in drawn.items()}


def _search_figures(run: Run, data: pd.DataFrame, shown: networks.Networks) -> dict[str, Any]:
    accuracy = metric(run.study.accuracy)
    name = accuracy.key.partition(".")[2]
    drawn = {
        "pareto": pareto.search_figure(run, data, shown.places),
        "metric": search.curves_figure(run, data, name, accuracy.title, accuracy.scale),
        "loss": search.curves_figure(run, data, "loss", "Training loss"),
    }
    drawn |= search.growth_figures(run, data)
    return {name: _json(figure) for name, figure in drawn.items()}


def _settings(run: Run) -> dict[str, tables.TextTable]:
    return {
        "training": tables.settings_table(_training(run)),
        "environment": tables.settings_table(portable_environment(run.environment)),
    }


def _tables(run: Run) -> dict[str, tables.TextTable]:
    return {
        "ablation": tables.ablation_table(run),
        "trials": tables.trials_table(run),
        "failures": tables.failures_table(run),
        "metrics": tables.metrics_table(run),
        "classes": tables.classes_table(run),
    }


def _replayed(run: Run) -> dict[str, Any]:
    """What a replay asks of the environment; a command may name folders of this machine."""
    return {
        name: value
        for name, value in portable_environment(run.environment).items()
        if name != "command"
    }


def _figures(run: Run, shown: networks.Networks) -> dict[str, Any]:
    accuracy = metric(run.study.accuracy)
    name = accuracy.key.partition(".")[2]
    return {
        "differences": _json(figures.differences_figure(run)),
        "pareto": _json(pareto.grid_figure(run, shown.places)),
        "metric": _json(figures.curves_figure(run, name, accuracy.title, accuracy.scale)),
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
    if not study.search.is_grid:
        settings["search"] = study.search.model_dump()
    chosen = {
        name: run.environment[name]
        for name in ("precision", "memory_format")
        if name in run.environment
    }
    portable = portable_study(study)
    variants = {"variants": portable.variants} if study.variants else {}
    return settings | {"train": portable.train.model_dump() | chosen} | variants


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


def _winner_finds(out: Path) -> list[str]:
    """The pictures of what it finds that were exported with it, for a page that stands alone."""
    files = sorted((out / "winner" / "predictions").glob("*.jpg"))
    return [base64.b64encode(file.read_bytes()).decode() for file in files]


def _exported(run: Run, out: Path) -> str | None:
    """The arm of the network in `winner/`."""
    won = _winner(run, out)
    return won.arm if won else None


def _winner_commands(run: Run, won: Result) -> str:
    """How to try the exported winner."""
    name = metric(run.study.accuracy)
    return (
        f"# {won.arm}, seed {won.seed} (trial {won.trial}): "
        f"{name.label} {name.show(won.value(name.key))}\n"
        "cd winner\n"
        "python example.py"
    )
