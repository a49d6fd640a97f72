"""Do scores of untrained networks foretell accuracy? An audit on a table of trained ones.

    python benchmarks/proxies.py [pose] [--out proxies_pose.csv] [--networks 40]
    python benchmarks/proxies.py camvid --root FOLDER

Every network is scored on one core, and its scores are kept in a CSV file, which is continued. The
peers are the numbers of parameters and multiply-adds, which cost nothing. Spearman's rho with the
mean accuracy of a network's trainings, over all networks and within bands of 10 % of multiply-adds
on both sides; ensembles are tried on networks that they were not fitted on.
"""

import argparse
import csv
import io
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from hrnet_search.audit import FITTED, REPETITIONS, SIZES, Audit, audit
from hrnet_search.benchmark import Network, Table, load, names, read
from hrnet_search.errors import InputError
from hrnet_search.files import write_atomic
from hrnet_search.progress import bar
from hrnet_search.proxies import SCORES, probe, score, sizes
from hrnet_search.settings import Files
from hrnet_search.study import Study
from hrnet_search.tasks import load_task, prepare
from hrnet_search.tasks.base import Task

TIME = "seconds."  # what columns of times begin with
COLUMNS = ("key", "seed", *SIZES, *SCORES, *(f"{TIME}{name}" for name in SCORES))

Rows = dict[tuple[str, int], dict[str, float]]  # key and seed of a network -> its columns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", nargs="?", default="pose", help=f"{', '.join(names())}, or files")
    parser.add_argument("--out", type=Path, help="the CSV file; proxies_TABLE.csv")
    parser.add_argument("--networks", type=int, help="so many, drawn at random; all")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--fitted", type=int, default=FITTED, help="networks of an ensemble")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--root", help="folder of the study's images, if it reads any")
    options = parser.parse_args()
    try:
        place = Path(options.table)
        table = read(place) if len(place.parts) > 1 else load(options.table)
        out = options.out or Path(f"proxies_{place.name}.csv")
        rows = scored(table, out, options.networks, seed=options.seed, root=options.root)
        scores = {key: {name: row[name] for name in (*SIZES, *SCORES)} for key, row in rows.items()}
        found = audit(table, scores, fitted=options.fitted, repetitions=options.repetitions)
    except InputError as error:
        parser.error(str(error))
    show(options.table, table, found, rows)


def scored(
    table: Table, file: Path, most: int | None, *, seed: int, root: str | None
) -> dict[str, dict[str, float]]:
    """Key -> scores and times of networks of the table; the file is continued."""
    kept, chosen = kept_rows(file), drawn(table, most)
    missing = [network for network in chosen if (network.key, seed) not in kept]
    if missing:
        task = task_of(table.study, root)
        for network in track(missing, "scores", console=Console(stderr=True), transient=True):
            kept[network.key, seed] = measured(table, network, task, seed=seed)
            write_atomic(file, text(kept))
    return {network.key: kept[network.key, seed] for network in chosen}


def drawn(table: Table, most: int | None) -> list[Network]:
    """So many networks of the table in a random order, always the same; all if None."""
    networks = sorted(table.networks.values(), key=lambda network: network.key)
    random.Random(0).shuffle(networks)
    return networks[:most]


def task_of(study: Study, root: str | None) -> Task:
    """The study's task; a table does not know where its images lie."""
    if isinstance(study.data, Files):
        if root is None:
            raise InputError("must be given: the folder of the study's images", key="--root")
        data = study.data.model_copy(update={"root": str(Path(root).absolute())})
        study = study.model_copy(update={"data": data})
    with bar(Console(stderr=True), "data") as advance:
        return load_task(study, prepare(study, advance))


def measured(table: Table, network: Network, task: Task, *, seed: int) -> dict[str, float]:
    """Scores of a network, and the seconds of each."""
    given, found = probe(table.study, network.params, task, seed=seed), {}
    for name in SCORES:
        start = time.perf_counter()
        found[name] = score(name, given)
        found[f"{TIME}{name}"] = round(time.perf_counter() - start, 4)
    return found | sizes(table.study, network.params)


def kept_rows(file: Path) -> Rows:
    """The rows of the file, none if there is no file.

    Raises:
        InputError: It has other columns: it is another file, or of other scores.
    """
    if not file.exists():
        return {}
    lines = csv.DictReader(io.StringIO(file.read_text()))
    if tuple(lines.fieldnames or ()) != COLUMNS:
        raise InputError("has other columns than these scores; choose another --out", file=file)
    return {
        (line["key"], int(line["seed"])): {name: float(line[name]) for name in COLUMNS[2:]}
        for line in lines
    }


def text(rows: Rows) -> str:
    """The rows as CSV."""
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(COLUMNS)
    for (key, seed), row in rows.items():
        lines.writerow([key, seed, *(row[name] for name in COLUMNS[2:])])
    return buffer.getvalue()


def show(name: str, table: Table, found: Audit, rows: dict[str, dict[str, float]]) -> None:
    """Print the audit."""
    print(
        f"{name}: {found.networks} networks, {found.banded} of them in bands of multiply-adds; rho "
        f"with {table.study.accuracy} and its 95 % interval"
    )
    if found.ceiling is not None:
        print(f"One training foretells another from another seed with a rho of {found.ceiling:.2f}")
    seconds = {
        score: np.array([row[f"{TIME}{score}"] for row in rows.values()]) for score in SCORES
    }
    table_of_scores = [
        {
            "score": row.score,
            "overall": f"refused: {row.refused}" if row.refused else row.overall,
            "within bands": row.within or "",
            "seconds, median": f"{np.median(seconds[row.score]):.3f}"
            if row.score in seconds
            else 0,
            "most": f"{seconds[row.score].max():.3f}" if row.score in seconds else 0,
        }
        for row in found.rows
    ]
    print(pd.DataFrame(table_of_scores).to_markdown(index=False, disable_numparse=True))
    total = sum(seconds.values())
    print("The gradients that snip and zico look at too are timed with grad_norm")
    print(f"All scores of a network: median {np.median(total):.2f} s, most {np.max(total):.2f} s")
    if not found.ensembles:
        print("Too few networks to try ensembles on")
        return
    table_of_ensembles = [
        {
            "ensemble": each.name,
            "overall": each.overall,
            "within bands": each.within or "",
            "above the better of params and macs": each.gain,
            "recommended": "yes" if each.recommended else "no",
        }
        for each in found.ensembles
    ]
    print(pd.DataFrame(table_of_ensembles).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
