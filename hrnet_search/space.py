"""A search space: which arguments of `hrnet` vary, over what."""

import inspect
import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from .arch import ArchSpec, hrnet
from .blueprint import canonical
from .errors import InputError, nearest_name
from .result import COUNTED, LATENCY, check_limits

DEFAULTS = {name: p.default for name, p in inspect.signature(hrnet).parameters.items()}
MAX_GRID = 10_000  # networks; a larger grid is a mistake, and would take minutes to list
MAX_MODULES = 200_000  # of all of them together, likewise
MAX_KNOBS = 100  # each sets an argument of `hrnet` or bundles some: a study has a handful

Scalar = bool | int | float | str
Value = Scalar | list[Scalar | list[Scalar]]
Settings = dict[str, Value]


class Strict(BaseModel):
    """Unknown keys and wrong types are refused; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Choices(Strict):
    """A knob that takes one of the listed values."""

    choices: list[Value] = Field(min_length=1, description="The values, in order.")

    def values(self) -> list[Value]:
        return self.choices


class Range(Strict):
    """A knob over whole numbers: low, low + step, ... up to high."""

    low: int = Field(description="Smallest value.")
    high: int = Field(description="Largest value allowed.")
    step: int = Field(default=1, ge=1, description="Distance between values.")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise InputError(f"must be at least low ({self.low})", key="high", value=self.high)
        if (self.high - self.low) // self.step >= MAX_GRID:
            rule = f"makes more than {MAX_GRID} values with this low and step"
            raise InputError(rule, key="high", value=self.high)
        return self

    def values(self) -> list[Value]:
        return list(range(self.low, self.high + 1, self.step))


class Arms(Strict):
    """A knob whose values are named bundles of arguments."""

    arms: dict[str, Settings] = Field(min_length=1, description="Name -> arguments of hrnet.")

    def values(self) -> list[Value]:
        return list(self.arms)


def _knob_tag(value: Any) -> str | None:
    """Which kind of knob a mapping means, by a key that only this kind has."""
    for tag, kind in KNOB_TAGS.items():
        if isinstance(value, kind):
            return tag
        if isinstance(value, dict) and any(key in value for key in kind.model_fields):
            return tag
    return None


KNOB_TAGS: dict[str, type[Strict]] = {
    "choices knob": Choices,
    "range knob": Range,
    "arms knob": Arms,
}
Knob = Annotated[
    Annotated[Choices, Tag("choices knob")]
    | Annotated[Range, Tag("range knob")]
    | Annotated[Arms, Tag("arms knob")],
    Discriminator(_knob_tag),
]


class Space(Strict):
    """The networks a study may train: `base` arguments of `hrnet`, and knobs that vary them."""

    name: str = Field(default="", description="What to call this space.")
    description: str = Field(default="", description="What it is for.")
    base: Settings = Field(default={}, description="Arguments of hrnet that stay fixed.")
    vary: dict[str, Knob] = Field(
        min_length=1, max_length=MAX_KNOBS, description="Knobs, in order."
    )
    limits: dict[str, float] = Field(
        default={},
        description="Metric -> largest value allowed, in base units; networks above are left out.",
    )

    @model_validator(mode="after")
    def _builds(self) -> "Space":
        check_limits(self.limits, [*COUNTED, LATENCY])
        _check_arguments(self.base, key="base")
        for name, knob in self.vary.items():
            if isinstance(knob, Arms):
                for arm, settings in knob.arms.items():
                    _check_arguments(settings, key=f"vary.{name}.arms.{arm}")
            else:
                _check_arguments({name: None}, key="vary")
        self._check_overlap()
        modules = 0
        for params in self.examples():
            try:
                modules += sum(stage.num_modules for stage in self.arch(params).stages)
            except InputError as error:
                raise self._locate(error, params) from None
            if modules > MAX_MODULES:
                rule = f"makes networks of more than {MAX_MODULES} modules in all"
                raise InputError(rule, key="vary")
        return self

    def _check_overlap(self) -> None:
        """Two knobs that set one argument would overrule each other."""
        setters: dict[str, str] = {}
        for name, knob in self.vary.items():
            for argument in {a for value in knob.values() for a in _settings(name, knob, value)}:
                if setters.setdefault(argument, name) != name:
                    rule = f"is set by the knob {setters[argument]} too"
                    raise InputError(rule, key=f"vary.{name}", value=argument)

    def examples(self) -> Iterator[dict[str, Value]]:
        """All combinations if they can be listed, else each value beside the others' first."""
        if self.size <= MAX_GRID:
            yield from self.params()
            return
        first = {name: knob.values()[0] for name, knob in self.vary.items()}
        for name, knob in self.vary.items():
            yield from ({**first, name: value} for value in knob.values())

    def _locate(self, error: InputError, params: dict[str, Value]) -> InputError:
        """Name the place in the file that a refused argument of `hrnet` came from."""
        key = f"base.{error.key}"  # also where its default does not go with the rest
        for name, value in params.items():
            knob = self.vary[name]
            if error.key in _settings(name, knob, value):
                inside = f".arms.{value}.{error.key}" if isinstance(knob, Arms) else ""
                key = f"vary.{name}{inside}"
        return InputError(error.rule, key=key, value=error.value, nearest=error.nearest)

    def for_task(self, task: str) -> "Space":
        """The same space with the official defaults of a task, if it names none itself."""
        if "task" in self.base:
            return self
        return self.model_copy(update={"base": {"task": task, **self.base}})

    def params(self) -> Iterator[dict[str, Value]]:
        """Every combination of knob values, the last knob changing fastest."""
        values = [knob.values() for knob in self.vary.values()]
        for combination in itertools.product(*values):
            yield dict(zip(self.vary, combination, strict=True))

    def draws(self, rng: random.Random) -> Iterator[dict[str, Value]]:
        """Combinations drawn evenly, without end."""
        knobs = {name: knob.values() for name, knob in self.vary.items()}
        while True:
            yield {name: rng.choice(values) for name, values in knobs.items()}

    def neighbours(self, params: dict[str, Value]) -> Iterator[dict[str, Value]]:
        """The combinations that differ in one knob: by a step where its values are in order.

        In order are ranges, and choices that are numbers rising or falling; of others each value is
        next to each. Two neighbours may build the same network.
        """
        for name, knob in self.vary.items():
            values = knob.values()
            place = values.index(params[name])
            if _in_order(values):
                near = values[max(place - 1, 0) : place] + values[place + 1 : place + 2]
            else:
                near = values[:place] + values[place + 1 :]
            yield from ({**params, name: value} for value in near)

    @property
    def size(self) -> int:
        """Number of combinations."""
        return math.prod(len(knob.values()) for knob in self.vary.values())

    def grid(self, head: str) -> list[dict[str, Value]]:
        """The combinations that build distinct networks; of equal ones the first is kept.

        Args:
            head: The head they are built with, a key of `blueprint.HEADS`.

        Raises:
            InputError: There are more than `MAX_GRID`, or one cannot be built.
        """
        if self.size > MAX_GRID:
            rule = f"a grid may have at most {MAX_GRID} combinations"
            raise InputError(rule, key="space.vary", value=self.size)
        distinct: dict[str, dict[str, Value]] = {}
        for params in self.params():
            distinct.setdefault(canonical(self.arch(params), head).key, params)
        return list(distinct.values())

    def arguments(self, params: dict[str, Value]) -> Settings:
        """All arguments of `hrnet` for these knob values."""
        merged = {**DEFAULTS, **self.base}
        for name, value in params.items():
            merged |= _settings(name, self.vary[name], value)
        return merged

    def arch(self, params: dict[str, Value]) -> ArchSpec:
        """The network for these knob values.

        Raises:
            InputError: They do not go together.
        """
        return hrnet(**self.arguments(params))  # type: ignore[arg-type]

    def arm(self, params: dict[str, Value]) -> str:
        """The knob values as text: "name=value" each; the name alone of a single bundle."""
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items()}
        if len(texts) == 1 and isinstance(next(iter(self.vary.values())), Arms):
            return next(iter(texts.values()))
        return ", ".join(f"{name}={text}" for name, text in texts.items())


def _in_order(values: list[Value]) -> bool:
    """Whether they are numbers, rising or falling."""
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return False
    return values in (sorted(values), sorted(values, reverse=True))


def _settings(name: str, knob: Choices | Range | Arms, value: Value) -> Settings:
    if isinstance(knob, Arms):
        return knob.arms[str(value)]
    return {name: value}


def _check_arguments(settings: dict[str, Any], *, key: str) -> None:
    for name in settings:
        if name not in DEFAULTS:
            rule = f"is not an argument of hrnet ({', '.join(DEFAULTS)})"
            raise InputError(rule, key=f"{key}.{name}", nearest=nearest_name(name, DEFAULTS))
