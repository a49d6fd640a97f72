"""The networks of a study as the page shows them: each with its drawing and what was measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from ..arch import ArchSpec
from ..diagram import STYLE, Drawing, draw, sheet
from ..result import Metric, metric
from . import pareto
from .frame import Arm, Run
from .search import label
from .tables import spread, with_deviation

MAX_DRAWN = 40  # networks of a search
MAX_UNFOLDED = 8  # drawings; more are folded up


@dataclass(frozen=True)
class Shown:
    """A network on the page.

    Args:
        arm: Its arm.
        name: What it is called there, as in tables.
        title: The same where no heading says of what.
        about: Its knob values, where the name does not say them; of a rival its title.
        measured: The metric and the costs.
        drawing: None of a rival, which has no branches.
    """

    arm: str
    name: str
    title: str
    about: str
    measured: str
    drawing: Drawing | None

    @property
    def svg(self) -> str:
        return self.drawing.svg if self.drawing else ""


@dataclass(frozen=True)
class Networks:
    """What a page holds of networks.

    Args:
        shown: In order; the page numbers them by their places.
        best: Place of the one that is shown at first.
        winner: The exported one, if there is any.
    """

    shown: Sequence[Shown]
    best: int
    winner: Shown | None

    @property
    def _drawings(self) -> list[Drawing]:
        own = [*self.shown, *([self.winner] if self.winner else [])]
        return [shown.drawing for shown in own if shown.drawing]

    @property
    def places(self) -> pareto.Places:
        return {shown.arm: place for place, shown in enumerate(self.shown)}

    @property
    def widest(self) -> int:
        """Pixels of the widest drawing: all are shown at one scale."""
        return max((drawing.width for drawing in self._drawings), default=1)

    @property
    def sheet(self) -> str:
        """What the drawings are made of."""
        return sheet(self._drawings)

    @property
    def style(self) -> str:
        return STYLE

    @property
    def folded(self) -> bool:
        return len(self.shown) > MAX_UNFOLDED


def of_grid(run: Run, winner: str | None) -> Networks:
    """All arms, in the study's order.

    Args:
        run: The grid.
        winner: Name of the exported arm.
    """
    return _networks(run, run.arms, {arm.name: arm.name for arm in run.arms}, winner)


def of_search(run: Run, data: pd.DataFrame, winner: str | None) -> Networks:
    """The best, the front, those on the front of another cost, and the next best.

    At most `MAX_DRAWN` in all: the best first, since it is what the page opens with.

    Args:
        run: The search.
        data: From `search.networks_data`.
        winner: Arm of the exported network.
    """
    fronts = [pareto.networks_data(run, data, cost.key) for cost in pareto.costs(run)]
    ahead = {name for found in fronts for name in found["arm"][found["front"]]}
    compared = list(data["arm"][data["compared"]])
    best = list(data["arm"][data["front"]])[-1:]  # the front is in order of cost
    chosen = sorted(compared, key=lambda name: (name not in best, name not in ahead))[:MAX_DRAWN]
    arms = {arm.name: arm for arm in run.arms}
    names = {arm.name: label(arm) for arm in run.arms}
    return _networks(run, [arms[name] for name in chosen], names, winner)


def _networks(run: Run, arms: Iterable[Arm], names: dict[str, str], winner: str | None) -> Networks:
    shown = [_shown(run, arm, names[arm.name]) for arm in arms]
    won = next((arm for arm in run.arms if arm.name == winner), None)
    exported = _shown(run, won, names[won.name]) if won else None
    return Networks(shown, _best(run, [one.arm for one in shown]), exported)


def _best(run: Run, names: list[str]) -> int:
    """Place of the one with the best mean; the first where nothing was measured."""
    accuracy = metric(run.study.accuracy)
    sign = accuracy.sign
    means = {arm.name: spread(arm, accuracy.key)[0] for arm in run.arms}
    values = [sign * mean if (mean := means[name]) is not None else None for name in names]
    measured = [value for value in values if value is not None]
    return values.index(max(measured)) if measured else 0


def _shown(run: Run, arm: Arm, name: str) -> Shown:
    title = name if run.study.search.is_grid else f"network {name}"
    drawing, about = None, "" if name == arm.name else arm.name
    if isinstance(arm.network, ArchSpec):
        drawing = draw(arm.network, str(arm.arguments["head"]), title=title)
    else:
        about = arm.network.title
    return Shown(arm.name, name, title, about, _measured(run, arm), drawing)


def _measured(run: Run, arm: Arm) -> str:
    """As in "AP 73.4 ± 0.2 (3), GMACs 0.021, Params 0.08 M"."""
    accuracy = metric(run.study.accuracy)
    mean, deviation = spread(arm, accuracy.key)
    seeds = len(arm.values(accuracy.key))
    parts = [f"{accuracy.label} {with_deviation(accuracy, mean, deviation, seeds)}"]
    return ", ".join([*parts, *(_cost(cost, arm) for cost in pareto.costs(run))])


def _cost(cost: Metric, arm: Arm) -> str:
    """With the unit where it is a word of few letters."""
    unit = cost.unit.partition(",")[0]
    value = cost.show(spread(arm, cost.key)[0])
    return f"{cost.label} {value} {unit}" if 0 < len(unit) < 4 else f"{cost.label} {value}"
