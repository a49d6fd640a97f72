"""`study.db`: two Optuna studies in one SQLite file, written by the driver alone.

`<study>` has a trial for each training, `<study>/networks` one for each proposal of a sampler.
"""

import json
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning

from ..matching import MATCH_KNOB
from ..result import METRICS
from ..rivals import RIVAL_KNOB
from ..space import Range, Space, Value
from ..study import VARIANT_KNOB, Study

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_trainings(file: Path, study: Study) -> optuna.Study:
    """The Optuna study of the trainings; made if it is not there."""
    return _open(file, study.name, (study.accuracy, study.cost))


def open_networks(file: Path | None, study: Study) -> optuna.Study:
    """The Optuna study of the proposals; made if it is not there, without a file in memory."""
    return _open(file, f"{study.name}/networks", study.goals)


def set_aside(file: Path) -> Path:
    """Move a file that is of no use out of the way; returns where to.

    Nothing is lost by it: the trials' folders hold all that is needed to make it anew.
    """
    kept = file.with_name(f"{file.name}.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}")
    file.rename(kept)
    for part in ("-journal", "-wal", "-shm"):  # of the damaged file; SQLite would play them back
        file.with_name(file.name + part).unlink(missing_ok=True)
    return kept


def is_sound(file: Path) -> bool:
    """Whether SQLite finds no fault in a file, and Optuna's own tables are there."""
    try:
        with closing(sqlite3.connect(file)) as database:
            if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                return False
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            return {"studies", "trials", "alembic_version"} <= tables
    except sqlite3.DatabaseError:
        return False


def _open(file: Path | None, name: str, goals: Sequence[str]) -> optuna.Study:
    opened = optuna.create_study(
        storage=f"sqlite:///{file}" if file else None,
        sampler=optuna.samplers.RandomSampler(seed=0),  # asked nothing: `Proposals` has its own
        study_name=name,
        directions=[METRICS[key].direction for key in goals],
        load_if_exists=True,
    )
    name_metrics(opened, goals)
    return opened


def name_metrics(study: optuna.Study, goals: Sequence[str]) -> None:
    """The names of axes in optuna-dashboard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(goals))


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What a sampler chooses from: knob -> its values."""
    found: dict[str, BaseDistribution] = {}
    for name, knob in space.vary.items():
        if isinstance(knob, Range):
            high = knob.low + (knob.high - knob.low) // knob.step * knob.step
            found[name] = IntDistribution(knob.low, high, step=knob.step)
        else:
            found[name] = CategoricalDistribution([encoded(value) for value in knob.values()])
    return found


def training_distributions(study: Study) -> dict[str, BaseDistribution]:
    """Those of the space, of the name of a rival, of the cost that a copy meets, of variants."""
    beside = {RIVAL_KNOB: study.rivals, MATCH_KNOB: study.match, VARIANT_KNOB: study.variants}
    return distributions(study.space) | {
        name: CategoricalDistribution(list(values)) for name, values in beside.items() if values
    }


def encoded_params(params: Mapping[str, Value]) -> dict[str, Any]:
    return {name: encoded(value) for name, value in params.items()}


def encoded(value: Value) -> bool | int | float | str:
    """Optuna's categories are scalars; a list stands there as JSON."""
    return json.dumps(value) if isinstance(value, list) else value


def decoded_params(space: Space, params: Mapping[str, Any]) -> dict[str, Value]:
    """The opposite of `encoded_params`, in the order of the space."""
    return {name: _decoded(knob.values(), params[name]) for name, knob in space.vary.items()}


def _decoded(values: Sequence[Value], found: Any) -> Value:
    return next(v for v in values if encoded(v) == found and type(encoded(v)) is type(found))
