"""How the networks of a study are chosen, when a training is stopped, and how much may fail.

The section `search` of a study. Without it a study is an ablation: every network of its space is
trained. With a sampler it is a search: the sampler proposes networks, one after another.
"""

import re
from typing import Literal

from pydantic import Field, model_validator

from .errors import InputError
from .settings import refuse_unused
from .space import Strict, Value

Sampler = Literal[
    "grid", "random", "qmc", "tpe", "gp", "nsga2", "nsga3", "local", "evolution"
]  # fmt: skip
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # of the units of a duration
MAX_DAYS = 10_000  # of a duration; clocks and timeouts overflow far beyond
RUNG_SETTINGS = ("reduction", "first_rung", "cost_bin")
OF_SEARCHES = ("networks", "start", "scheduler", *RUNG_SETTINGS)


class Search(Strict):
    """Which networks are trained, in which order, and how long."""

    sampler: Sampler = Field(
        default="grid",
        description="grid: every network of the space. The others propose networks: at random, by "
        "quasi-Monte Carlo, tree-structured Parzen estimator, Gaussian process, crossing of good "
        "ones (nsga2, nsga3), or a change of one knob of a good one (local: one of the front; "
        "evolution: one of the latest).",
    )
    networks: int | None = Field(
        default=None, ge=1, description="Networks to train; those stopped early count."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the sampler.")
    start: list[dict[str, Value]] = Field(
        default=[], description="Knob values proposed first; missing ones are sampled."
    )
    scheduler: Literal["none", "asha", "hyperband", "median"] = Field(
        default="none",
        description="Stops trainings that are behind: asynchronous successive halving, Hyperband, "
        "or whatever is below the median.",
    )
    reduction: int = Field(
        default=3,
        ge=2,
        description="Of so many networks at a rung of asha or hyperband one goes on.",
    )
    first_rung: int = Field(
        default=1, ge=1, description="The evaluation that the first comparison is made at."
    )
    cost_bin: float = Field(
        default=2.0,
        gt=1,
        description="Where cost is an objective, a rung compares networks of like cost: each bin "
        "ends at so many times the cost where it begins.",
    )
    budget: str = Field(
        default="", description='Time for the study, e.g. "2h"; what is cut off can go on later.'
    )
    trial_limit: str = Field(
        default="", description='Longest time of one trial, e.g. "30m"; longer ones fail.'
    )
    max_failures: int = Field(
        default=2,
        ge=0,
        description="How often a trial is started again after its worker died, or memory or a disk "
        "failed it.",
    )
    failure_budget: int = Field(
        default=5, ge=0, description="The study stops if its first so many trials fail; 0: never."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Search":
        for key in ("budget", "trial_limit"):
            if getattr(self, key):
                try:
                    seconds(getattr(self, key))
                except InputError as error:
                    raise error.within(key=key) from None
        if self.sampler == "grid":
            refuse_unused(self, OF_SEARCHES, "is for samplers other than grid")
        elif self.networks is None:
            rule = "is missing: say how many networks to train"
            raise InputError(rule, key="networks")
        if self.scheduler == "none":
            refuse_unused(self, RUNG_SETTINGS, "is for a scheduler")
        if self.scheduler == "median":
            refuse_unused(self, ("reduction",), "is for scheduler asha or hyperband")
        return self

    @property
    def is_grid(self) -> bool:
        """Is every network of the space trained?"""
        return self.sampler == "grid"

    @property
    def budget_seconds(self) -> float | None:
        return seconds(self.budget) if self.budget else None

    @property
    def limit_seconds(self) -> float | None:
        """Of one trial."""
        return seconds(self.trial_limit) if self.trial_limit else None


def seconds(duration: str) -> float:
    """ "90s", "30m", "2h" or "1.5d" in seconds.

    Raises:
        InputError: It is no such thing, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", duration.strip())
    length = float(found[1]) * SECONDS[found[2]] if found else 0
    if not length:
        rule = "must be a time with its unit, such as 90s, 30m, 2h or 1d"
        raise InputError(rule, value=duration)
    if length > MAX_DAYS * SECONDS["d"]:
        raise InputError(f"must be at most {MAX_DAYS}d", value=duration)
    return length
