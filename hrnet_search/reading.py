"""YAML files into checked models: strict, with one line for whatever is wrong.

An unknown key, a wrong type or an impossible value is refused with file, dotted key, value, rule
and the nearest valid name.
"""

import json
import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from .errors import InputError, nearest_name
from .space import KNOB_TAGS, Strict

Model = TypeVar("Model", bound=Strict)
# Sections and keys of a study that hold paths, relative to the file or the current folder.
PATHS = (("data", "root"), ("train", "pretrained"))
# Mappings whose keys are metrics, such as profile.macs: their dot parts nothing.
OF_METRICS = ("match", "space.limits", "limits")
# What a file may hold, so that a slip or a trick cannot fill the memory; a study has a few kB.
MAX_BYTES = 2**18
MAX_LENGTH = 2**20  # characters, once every alias stands for what it names
MAX_DEPTH = 50  # lists and mappings inside one another
MAX_WHOLE = 2**63  # numbers beyond would overflow what is computed of them


class Loader(yaml.SafeLoader):
    """Safe YAML with two traps closed: 1e-3 is a number, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):  # "!!map [a]"
            raise yaml.constructor.ConstructorError(None, None, "is no mapping", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                shown = f"{key!r} " if isinstance(key_node, yaml.ScalarNode) else ""
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown}must be a word; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Puts a text such as 1e3 in quotes, since `Loader` reads it as a number."""


for _side in (Loader, Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # not all: it may have no end, as /dev/zero
        text = content.decode("utf-8", errors="ignore" if len(content) > MAX_BYTES else "strict")
    except FileNotFoundError:
        near = nearest_name(path.name, _siblings(path))
        raise InputError("there is no such file", file=path, nearest=near) from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise InputError(f"cannot be read ({error})", file=path) from None
    if len(content) > MAX_BYTES:
        raise InputError(f"must be a text of at most {MAX_BYTES} bytes", file=path)
    raw = _parse_yaml(text, file=path)
    if not isinstance(raw, dict):
        raise InputError("must be a mapping of keys to values", file=path)
    return raw


def _siblings(path: Path) -> list[str]:
    folder = path.parent
    return [p.name for p in folder.iterdir()] if folder.is_dir() else []


def _parse_yaml(text: str, *, file: Path | str) -> Any:
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"is not valid YAML: {error.problem}{place}", file=file) from None
    except (
        LookupError,
        AttributeError,
        ArithmeticError,
    ):  # PyYAML's own, for "!!bool x", '!!int ""'
        raise InputError("is not valid YAML: a value does not fit its tag", file=file) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is not valid YAML: {error}", file=file) from None


def expand_user(path: str) -> Path:
    """`~` resolved; the home of an unknown user is left as it is, a folder that is not there."""
    return Path(os.path.expanduser(path))


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Put one entry "dotted.key=value" into the raw mapping; paths are made absolute."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError("must be key=value", file="--set", value=override)
    value = _parse_yaml(text, file="--set")
    if setting_of(key) in ("space", *map(".".join, PATHS)) and isinstance(value, str) and value:
        value = str(expand_user(value).absolute())
    *parents, last = _parts(key)
    node: Any = raw
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise InputError("is not inside a mapping", file="--set", key=key)
    node[last] = value


def setting_of(key: str) -> str:
    """The dotted key of a setting, whichever scale or variant it is changed in."""
    return re.sub(r"^(scales|variants)\.[^.]+\.", "", key)


def _parts(key: str) -> list[str]:
    """The keys on the way to a value; what stands below `OF_METRICS` is one, with its dot."""
    for outer in OF_METRICS:
        if key.startswith(f"{outer}."):
            return [*outer.split("."), key.removeprefix(f"{outer}.")]
    return key.split(".")


def validate(model: type[Model], raw: Any, file: Path | None = None) -> Model:
    try:
        _length(raw, (), {})
    except InputError as error:
        raise error.within(file=file) from None
    try:
        # JSON mode: lists stand for sequences, and no other type is converted.
        return model.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise _first_error(model, error, raw).within(file=file) from None


def _length(node: Any, keys: tuple[str, ...], lengths: dict[int, int]) -> int:
    """Characters that a value takes where aliases are written out; `lengths` is of those seen.

    Raises:
        InputError: It is too long or too deep, or holds what JSON or Unicode cannot say.
    """
    if not isinstance(node, dict | list | tuple):
        return _scalar_length(node, keys)
    if len(keys) > MAX_DEPTH:
        raise InputError(f"is nested in more than {MAX_DEPTH} lists and mappings", key=keys[0])
    if id(node) not in lengths:
        lengths[id(node)] = -1
        total = 0
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            total += _scalar_length(key, keys) + _length(value, (*keys, str(key)), lengths)
            if total > MAX_LENGTH:
                rule = f"is longer than {MAX_LENGTH} characters with its aliases written out"
                raise InputError(rule, key=".".join(keys))
        lengths[id(node)] = total
    if lengths[id(node)] < 0:
        raise InputError("an alias may not stand inside its own anchor", key=".".join(keys))
    return lengths[id(node)] + 1


def _scalar_length(value: Any, keys: tuple[str, ...]) -> int:
    if type(value) is int and abs(value) >= MAX_WHOLE:
        raise InputError(
            f"must be a number between -{MAX_WHOLE} and {MAX_WHOLE}", key=".".join(keys)
        )
    text = str(value)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError("must be Unicode text, without surrogates", key=".".join(keys))
    return len(text)


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
        elif step in KNOB_TAGS or step == at(node, "kind") or place < len(steps) - 1:
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


def check_name(key: str, value: str, valid: Iterable[str]) -> None:
    names = list(valid)
    if value not in names:
        rule = f"must be one of {', '.join(names)}"
        raise InputError(rule, key=key, value=value, nearest=nearest_name(value, names))


def at(raw: Any, *keys: str, default: Any = None) -> Any:
    """What lies below these keys of nested mappings, or the default."""
    for key in keys:
        if not isinstance(raw, dict) or key not in raw:
            return default
        raw = raw[key]
    return raw
