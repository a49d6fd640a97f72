"""A study: one YAML file that says what to train, on what, how often, and what to compare.

Everything here is read without torch. `load` is strict: an unknown key, a wrong type or an
impossible value is refused with file, dotted key, value, rule and the nearest valid name.
"""

import functools
import json
import os
import re
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from .arch import TASK_DEFAULTS, ArchSpec
from .blueprint import canonical, check_input
from .cost import Cost, cost
from .errors import InputError, nearest_name
from .files import write_json
from .paper import TABLES
from .result import METRICS, closed_form, metric
from .rivals import RIVAL_KNOB, RIVALS, Rival
from .space import KNOB_TAGS, Space, Strict, Value

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MIN_INPUT = 32  # pixels: stride of the fourth branch (section 3.1); more branches want more
COCO_JOINTS = 17
ONLY_OF_SPECS = ("profile.activations", "profile.kernels", "profile.depth")
RIVAL_MULTIPLE = 32  # pixels: ResNets reduce so much and are enlarged again to a quarter

Model = TypeVar("Model", bound=Strict)
Head = Literal["v1", "v1h", "v2"]  # of those in `blueprint.HEADS`, what these tasks can train
Pixels = Annotated[int, Field(ge=MIN_INPUT)]
Size = Annotated[list[Pixels], Field(min_length=2, max_length=2)]


class PoseTask(Strict):
    """Top-down pose estimation: heatmaps of COCO's 17 keypoints, AP over OKS."""

    kind: Literal["pose"]
    head: Head = Field(default="v1", description="Representation head.")
    loss: Literal["mse", "cross_entropy"] = Field(
        default="mse",
        description="mse: the paper's, on Gaussian heatmaps. cross_entropy: a softmax over all "
        "positions against the same Gaussians; learns in far fewer steps.",
    )
    sigma: float = Field(
        default=2.0, gt=0, description="Spread of the Gaussians, heatmap pixels; 2 in the paper."
    )
    subpixel: bool = Field(
        default=False,
        description="false: Gaussians at rounded pixels, decoding with the quarter offset, as in "
        "the paper. true: at exact places, decoding with a parabola (Zhang et al., CVPR 2020).",
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("metrics.ap", "metrics.ap50", "metrics.ap75", "metrics.ar")


class SegmentationTask(Strict):
    """Semantic segmentation: cross-entropy per pixel, mean intersection over union."""

    kind: Literal["segmentation"]
    head: Head = Field(default="v2", description="Representation head.")
    class_weights: list[Annotated[float, Field(gt=0)]] = Field(
        default=[],
        description="Weight of each class in the loss, none for equal weights. The official "
        "Cityscapes code has fixed ones.",
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("metrics.miou", "metrics.pixel_accuracy")


class SyntheticPose(Strict):
    """Drawn people with COCO's keypoints, made from a seed on this machine."""

    kind: Literal["synthetic_pose"]
    num_train: int = Field(ge=1, description="Training images.")
    num_val: int = Field(ge=1, description="Validation images.")
    input_size: Size = Field(description="[height, width] in pixels.")
    seed: int = Field(default=0, ge=0, description="Seed of the pictures.")


class SegmentationFolder(Strict):
    """A folder of images and label images of the same name, in the CamVid layout."""

    kind: Literal["segmentation_folder"]
    root: str = Field(min_length=1, description="The data set's folder.")
    train_images: str = Field(default="train", description="Folder of training images.")
    train_labels: str = Field(default="trainannot", description="Their label images.")
    val_images: str = Field(default="val", description="Folder of validation images.")
    val_labels: str = Field(default="valannot", description="Their label images.")
    class_names: list[str] = Field(min_length=2, description="Names of labels 0, 1, ...")
    ignore_label: int = Field(default=255, ge=0, le=255, description="Label left out of all.")
    crop_size: Size = Field(description="Training crop, [height, width] in pixels.")


class Train(Strict):
    """How each network is trained."""

    steps: int = Field(ge=1, description="Optimiser steps.")
    batch_size: int = Field(ge=2, description="Images per step.")
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = Field(gt=0, description="Largest learning rate.")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["one_cycle", "poly", "constant"] = Field(
        default="one_cycle", description="poly: power 0.9, as the paper's segmentation (4.3)."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 where the hardware has it."
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        default="auto", description="auto: channels_last, the faster one on CPU and GPU."
    )
    evaluations: int = Field(
        default=5, ge=1, description="Evaluations, evenly spaced, last at end."
    )

    @model_validator(mode="after")
    def _enough_steps(self) -> "Train":
        if self.evaluations > self.steps:
            rule = f"cannot be more than steps ({self.steps})"
            raise InputError(rule, key="evaluations", value=self.evaluations)
        return self


class Paper(Strict):
    """The table of the paper that this study repeats."""

    table: str = Field(description="A key of hrnet_search.paper.TABLES.")
    column: str = Field(description="Its column for this task.")

    @model_validator(mode="after")
    def _exists(self) -> "Paper":
        _check_name("table", self.table, TABLES)
        _check_name("column", self.column, TABLES[self.table].columns)
        return self


class Study(Strict):
    """One study file."""

    name: str = Field(pattern=NAME_PATTERN, description="Names runs/<name> and reports/<name>.")
    title: str = Field(default="", description="Headline of the report.")
    description: str = Field(default="", description="Text at the head of the report.")
    task: Annotated[PoseTask | SegmentationTask, Field(discriminator="kind")]
    data: Annotated[SyntheticPose | SegmentationFolder, Field(discriminator="kind")]
    space: Space = Field(description="A space, or in a file the path of one.")
    train: Train
    seeds: int = Field(default=3, ge=1, le=1000, description="Trainings of each network.")
    rivals: list[str] = Field(
        default=[],
        description="Networks of others to train beside those of the space, as further arms.",
    )
    objectives: list[str] = Field(
        default=[], max_length=2, description="Metrics to compare by; accuracy first, then cost."
    )
    reference: str = Field(default="", description="Arm that others are compared with; last one.")
    paper: Paper | None = Field(default=None, description="Table to set beside the results.")

    @model_validator(mode="before")
    @classmethod
    def _task_defaults(cls, raw: Any) -> Any:
        """The space's networks have the official defaults of the study's task."""
        kind, space = _at(raw, "task", "kind"), _at(raw, "space")
        base = _at(space, "base", default={})
        wanted = isinstance(kind, str) and kind in TASK_DEFAULTS and isinstance(space, dict)
        if not wanted or not isinstance(base, dict) or "task" in base:
            return raw
        return {**raw, "space": {**space, "base": {"task": kind, **base}}}

    @model_validator(mode="after")
    def _fits_together(self) -> "Study":
        wanted = "synthetic_pose" if self.task.kind == "pose" else "segmentation_folder"
        if self.data.kind != wanted:
            rule = f"task {self.task.kind} needs data of kind {wanted}"
            raise InputError(rule, key="data.kind", value=self.data.kind)
        if self.task.kind == "segmentation" and self.data.kind == "segmentation_folder":
            count, classes = len(self.task.class_weights), len(self.data.class_names)
            if count not in (0, classes):
                rule = f"must have one weight for each of {classes} classes"
                raise InputError(rule, key="task.class_weights", value=count)
            if self.data.ignore_label < classes:
                rule = f"must not be the number of a class (0 to {classes - 1})"
                raise InputError(rule, key="data.ignore_label", value=self.data.ignore_label)
        self._check_objectives()
        self._check_rivals()
        self._check_sizes()
        arms = [self.space.arm(params) for params in self._feasible]
        for place, name in enumerate(self.rivals):
            if name in arms:
                raise InputError("is the name of an arm too", key=f"rivals.{place}", value=name)
        if self.reference and self.reference not in arms:
            rule = f"must be one of the space's arms ({', '.join(arms[:10])})"
            near = nearest_name(self.reference, arms)
            raise InputError(rule, key="reference", value=self.reference, nearest=near)
        return self

    def _check_objectives(self) -> None:
        costs = [key for key in METRICS if key.startswith("profile.")]
        for place, (key, valid) in enumerate(
            zip(self.objectives, (self.task.metrics, costs), strict=False)
        ):
            try:
                metric(key)
            except InputError as error:
                raise error.within(key=f"objectives.{place}") from None
            if key not in valid:
                rule = f"must be one of {', '.join(valid)}"
                raise InputError(rule, key=f"objectives.{place}", value=key)
            if self.rivals and key in ONLY_OF_SPECS:
                rule = "is not known of rivals; choose another cost, or leave the rivals out"
                raise InputError(rule, key=f"objectives.{place}", value=key)

    def _check_sizes(self) -> None:
        key = "data.input_size" if self.data.kind == "synthetic_pose" else "data.crop_size"
        for params in self._grid:
            spec = canonical(self.space.arch(params), self.task.head)
            try:
                check_input(spec, self.task.head, self.input_size)
            except InputError as error:
                raise InputError(error.rule, key=key, value=list(self.input_size)) from None

    def _check_rivals(self) -> None:
        if RIVAL_KNOB in self.space.vary and self.rivals:
            rule = "is reserved for networks of others; choose another name for the knob"
            raise InputError(rule, key=f"space.vary.{RIVAL_KNOB}")
        names = [name for name, rival in RIVALS.items() if self.task.kind in rival.tasks]
        for place, name in enumerate(self.rivals):
            _check_name(f"rivals.{place}", name, names)
        wrong = [side for side in self.input_size if side % RIVAL_MULTIPLE]
        if self.task.kind == "pose" and self.rivals and wrong:
            rule = f"must be multiples of {RIVAL_MULTIPLE} where rivals are trained"
            raise InputError(rule, key="data.input_size", value=list(self.input_size))
        if len(set(self.rivals)) < len(self.rivals):
            raise InputError("must not repeat a name", key="rivals", value=self.rivals)

    def arms(self) -> list[dict[str, Value]]:
        """Knob values of each network within the limits, in the order of the file; rivals last."""
        rivals: list[dict[str, Value]] = [{RIVAL_KNOB: name} for name in self.rivals]
        return [*self._feasible, *rivals]

    def left_out(self) -> int:
        """How many networks of the space are above its limits."""
        return len(self._grid) - len(self._feasible)

    @functools.cached_property
    def _grid(self) -> list[dict[str, Value]]:
        """Knob values of the space's distinct networks."""
        return self.space.grid(self.task.head)

    @functools.cached_property
    def _feasible(self) -> list[dict[str, Value]]:
        """Those within its limits."""
        grid = self._grid
        if not self.space.limits:
            return grid
        costs = [closed_form(self._cost(params)) for params in grid]
        limits = self.space.limits.items()
        kept = [p for p, c in zip(grid, costs, strict=True) if all(c[k] <= m for k, m in limits)]
        if not kept:
            least = ", ".join(
                f"{key} is at least {min(c[key] for c in costs):g}" for key, _ in limits
            )
            raise InputError(f"no network meets all of them ({least})", key="space.limits")
        return kept

    def _cost(self, params: dict[str, Value]) -> Cost:
        return cost(
            self.space.arch(params),
            head=self.task.head,
            num_outputs=self.num_outputs,
            input_size=self.input_size,
        )

    def network(self, params: Mapping[str, Value]) -> ArchSpec | Rival:
        """What these knob values build with the task's head, in its canonical form."""
        if self._is_rival(params):
            return RIVALS[str(params[RIVAL_KNOB])]
        return canonical(self.space.arch(dict(params)), self.task.head)

    def arm(self, params: Mapping[str, Value]) -> str:
        """The knob values as text, or the rival's name."""
        if self._is_rival(params):
            return str(params[RIVAL_KNOB])
        return self.space.arm(dict(params))

    def _is_rival(self, params: Mapping[str, Value]) -> bool:
        return set(params) == {RIVAL_KNOB} and RIVAL_KNOB not in self.space.vary

    @property
    def accuracy(self) -> str:
        """Key of the metric that decides."""
        return self.objectives[0] if self.objectives else self.task.metrics[0]

    @property
    def cost(self) -> str:
        """Key of the cost that it is set against."""
        return self.objectives[1] if len(self.objectives) > 1 else "profile.macs"

    @property
    def num_outputs(self) -> int:
        """Joints or classes."""
        return (
            len(self.data.class_names) if self.data.kind == "segmentation_folder" else COCO_JOINTS
        )

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) that networks are trained and profiled at."""
        size = self.data.input_size if self.data.kind == "synthetic_pose" else self.data.crop_size
        return size[0], size[1]

    @property
    def reference_arm(self) -> str:
        """The arm that the others are compared with."""
        return self.reference or self.arm(self._feasible[-1])


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a YAML file.

    Args:
        path: The file. Relative paths in it are relative to its folder.
        overrides: Entries "dotted.key=value", the value in YAML. Relative paths among them
            are relative to the current folder.

    Raises:
        InputError: The file, or what it says, is not valid.
    """
    raw = _read_yaml(path)
    if "vary" in raw and "task" not in raw:
        raise InputError("is a space; a study is wanted, which names a space", file=path)
    space_file: Path | None = None
    for override in overrides:
        if override.startswith("space="):  # another space, which further overrides may change
            _override(raw, override)
    if isinstance(raw.get("space"), str):
        space_file = Path(os.path.normpath(path.parent / raw["space"]))
        try:
            raw["space"] = _read_yaml(space_file)
        except InputError as error:
            raise InputError(
                error.rule, file=path, key="space", value=raw["space"], nearest=error.nearest
            ) from None
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("root"), str) and data["root"]:
        data["root"] = os.path.abspath(path.parent / _expand_user(data["root"]))
    for override in overrides:
        if not override.startswith("space="):
            _override(raw, override)
    try:
        return _validate(Study, raw, path)
    except InputError as error:
        key = error.key
        given = [override.partition("=")[0] for override in overrides]
        if any(f"{key}.".startswith(f"{n}.") or n.startswith(f"{key}.") for n in given):
            raise InputError(
                error.rule, key=key, value=error.value, file="--set", nearest=error.nearest
            ) from None
        if space_file is not None and key.startswith("space."):
            key = key.removeprefix("space.")
            raise InputError(
                error.rule, key=key, value=error.value, file=space_file, nearest=error.nearest
            ) from None
        raise


def load_space(path: Path, overrides: Sequence[str] = ()) -> Space:
    """The space of a YAML file, with overrides as in `load_study`.

    Raises:
        InputError: The file, or what it says, is not valid.
    """
    raw = _read_yaml(path)
    for override in overrides:
        _override(raw, override)
    return _validate(Space, raw, path)


def load(path: Path, overrides: Sequence[str] = ()) -> Study | Space:
    """Whatever the file holds: a mapping with `vary` is a space, any other a study."""
    reader = load_space if "vary" in _read_yaml(path) else load_study
    return reader(path, overrides)


def dump_study(study: Study) -> str:
    """The study as YAML, complete: every default written out."""
    data = study.model_dump(mode="json")
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Safe YAML with two traps closed: 1e-3 is a number, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):  # "!!map [a]"
            raise yaml.constructor.ConstructorError(None, None, "is no mapping", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} must be a word; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts a text such as 1e3 in quotes, since `_Loader` reads it as a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest_name(path.name, _siblings(path))
        raise InputError("there is no such file", file=path, nearest=near) from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise InputError(f"cannot be read ({error})", file=path) from None
    raw = _parse_yaml(text, file=path)
    if not isinstance(raw, dict):
        raise InputError("must be a mapping of keys to values", file=path)
    return raw


def _siblings(path: Path) -> list[str]:
    folder = path.parent
    return [p.name for p in folder.iterdir()] if folder.is_dir() else []


def _parse_yaml(text: str, *, file: Path | str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"is not valid YAML: {error.problem}{place}", file=file) from None
    except (KeyError, AttributeError):  # PyYAML's own, for "!!bool x" and the like
        raise InputError("is not valid YAML: a value does not fit its tag", file=file) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is not valid YAML: {error}", file=file) from None


def _expand_user(path: str) -> Path:
    """`~` resolved; the home of an unknown user is left as it is, a folder that is not there."""
    return Path(os.path.expanduser(path))


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError("must be key=value", file="--set", value=override)
    value = _parse_yaml(text, file="--set")
    if key in ("data.root", "space") and isinstance(value, str):
        value = str(_expand_user(value).absolute())
    *parents, last = key.split(".")
    node: Any = raw
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise InputError("is not inside a mapping", file="--set", key=key)
    node[last] = value


def _validate(model: type[Model], raw: Any, file: Path) -> Model:
    try:
        # JSON mode: lists stand for sequences, and no other type is converted.
        text = json.dumps(raw, default=str)
    except (ValueError, RecursionError):
        raise InputError("an alias may not stand inside its own anchor", file=file) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _first_error(model, error, raw).within(file=file) from None


def _first_error(model: type[Strict], error: ValidationError, raw: Any) -> InputError:
    # An unknown key explains a missing one (a typo makes both): say the unknown one.
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    key = _dotted(first["loc"], raw)
    context = first.get("ctx", {})
    inner = context.get("error")
    if isinstance(inner, InputError):
        return inner.within(key=key)
    value = first["input"]
    if first["type"] == "extra_forbidden":
        names = _valid_names(model, first["loc"])
        return InputError("unknown key", key=key, nearest=nearest_name(first["loc"][-1], names))
    if first["type"] == "missing":
        return InputError("is missing", key=key)
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_error(key, value, context)
    if first["type"] == "bool_type" and first["loc"][-1] == "bool":  # first of the kinds of `Value`
        rule = "must be true or false, a number, text, or a list of these"
        return InputError(rule, key=_dotted(first["loc"][:-1], raw), value=value)
    rule = _rule(first["msg"])
    if first["type"] == "literal_error":
        near = nearest_name(value, re.findall(r"'([^']*)'", context["expected"]))
        return InputError(rule, key=key, value=value, nearest=near)
    if first["type"] == "string_pattern_mismatch":
        rule = "must be letters, digits, '.', '_' or '-', beginning with a letter or digit"
    return InputError(rule, key=key, value=value)


def _tag_error(key: str, value: Any, context: Mapping[str, Any]) -> InputError:
    if "discriminator" not in context or "kind" not in str(context["discriminator"]):
        rule = "must be a mapping with choices, with low and high, or with arms"
        return InputError(rule, key=key, value=value)
    key = f"{key}.kind"
    if "tag" not in context:
        return InputError("is missing", key=key)
    names = re.findall(r"'([^']*)'", context["expected_tags"])
    rule = f"must be one of {', '.join(names)}"
    return InputError(
        rule, key=key, value=context["tag"], nearest=nearest_name(context["tag"], names)
    )


def _rule(message: str) -> str:
    text = message.replace("Input should be ", "must be ").replace(
        "a valid integer", "a whole number"
    )
    text = text.replace("a valid boolean", "true or false").replace("a valid string", "text")
    text = text.replace("a valid array", "a list").replace("a valid ", "a ")
    text = text.replace("must be an object", "must be a mapping")
    return re.sub(r"^\w+ should have (at \w+ \d+ \w+).*", r"must have \1", text)


def _dotted(loc: Iterable[int | str], raw: Any) -> str:
    """The path as a user wrote it: names that pydantic adds for the kind of a union left out."""
    parts = []
    steps = list(loc)
    node = raw
    for place, step in enumerate(steps):
        if isinstance(node, dict) and step in node:
            node = node[str(step)]
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        elif step in KNOB_TAGS or place < len(steps) - 1:
            continue
        parts.append(str(step))
    return ".".join(parts)


def _valid_names(model: type[Strict], loc: Sequence[int | str]) -> list[str]:
    """The keys allowed at the place of an unknown one."""
    models = [model]
    for step in loc[:-1]:
        fields = [m.model_fields[step] for m in models if step in m.model_fields]
        # A step that is no field is the tag of one model, or an entry of a mapping of them.
        tagged = [m for m in models if step in _tags(m)]
        models = [m for field in fields for m in _models_in(field.annotation)] or tagged or models
    return [name for m in models for name in m.model_fields]


def _models_in(annotation: Any) -> list[type[Strict]]:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _tags(model: type[Strict]) -> list[str]:
    kind = model.model_fields.get("kind")
    knob = [tag for tag, knob in KNOB_TAGS.items() if knob is model]
    return knob if kind is None else [*knob, *get_args(kind.annotation)]


def _check_name(key: str, value: str, valid: Iterable[str]) -> None:
    names = list(valid)
    if value not in names:
        rule = f"must be one of {', '.join(names)}"
        raise InputError(rule, key=key, value=value, nearest=nearest_name(value, names))


def _at(raw: Any, *keys: str, default: Any = None) -> Any:
    """What lies below these keys of nested mappings, or the default."""
    for key in keys:
        if not isinstance(raw, dict) or key not in raw:
            return default
        raw = raw[key]
    return raw


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of the two kinds of file, for editors: name -> schema."""
    schemas = {"study": Study.model_json_schema(), "space": Space.model_json_schema()}
    inline = schemas["study"]["properties"]["space"]
    description = inline.pop("description")
    file = {"type": "string", "description": "Path of a space file, relative to this file."}
    schemas["study"]["properties"]["space"] = {"anyOf": [inline, file], "description": description}
    for name, schema in schemas.items():
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = f"hrnet-search {name} file"
    return schemas


def write_schemas(folder: Path) -> None:
    """Write `<name>.schema.json` into `folder`."""
    for name, schema in json_schemas().items():
        write_json(folder / f"{name}.schema.json", schema)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
