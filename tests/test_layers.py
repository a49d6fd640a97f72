"""Imports point one way, and every third-party package stays in its home."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hrnet_search

PACKAGE = Path(hrnet_search.__file__).parent

# A module imports from its own layer and from earlier ones.
LAYERS = (
    (
        *("errors", "files", "arch", "blueprint", "presets", "cost", "rivals", "frameworks"),
        "paper",
    ),
    (
        *("joints", "labels", "views", "space", "settings", "reading", "study", "survey", "target"),
        *("matching", "result", "record", "stats", "ranks", "comparisons", "progress"),
        *("strategy", "pareto", "status", "diagram", "portable", "benchmark", "audit"),
    ),
    (
        *("model", "baselines", "detectors", "weights", "networks", "keypoints", "objects"),
        *("outputs", "folding"),
        *("drawing", "profiling", "costtables", "tasks", "training", "predict"),
        "proxies",
    ),
    ("search",),
    ("report",),
    ("export", "curves", "doctor"),
    ("cli",),
)
# Dotted module or package below hrnet_search -> the homes' own names.
HOMES = {
    "torch": (
        "model",
        "baselines",
        "detectors",
        "weights",
        "networks",
        "keypoints",
        "objects",
        "outputs",
        "folding",
        "profiling",
        "costtables",
        "tasks",
        "training",
        "predict",
        "proxies",
        "search.trial",
        "search.replay",
        "search.engine",
        "search.machines",
        "search.forecast",
        "export",
        "curves",  # writes TensorBoard's files
        "doctor",  # tries whether it can be imported, as with those below
    ),
    "torchvision": ("baselines", "detectors", "tasks", "doctor"),
    "timm": ("baselines",),
    "segmentation_models_pytorch": ("baselines",),
    "fvcore": ("profiling",),
    "ptflops": ("profiling",),
    "onnx": ("profiling", "export"),
    "onnxruntime": ("profiling", "export"),
    "pycocotools": ("tasks",),
    "ray": ("search", "doctor"),
    "optuna": ("search", "doctor"),
    "packaging": ("doctor",),
    "plotly": ("report",),
    "kaleido": ("report",),
    "pandas": ("benchmark", "report"),
    "jinja2": ("report",),
    "pydantic": ("space", "settings", "reading", "strategy", "study", "export.checks"),
    "yaml": ("reading", "study", "search.ledger"),
    "rich": ("search", "cli", "progress"),
    "scipy": ("stats", "ranks", "audit", "tasks"),
    "PIL": ("views", "keypoints", "objects", "drawing", "tasks", "predict", "export"),
    "safetensors": ("weights", "search.trial", "export"),
    "platformdirs": ("tasks.cache",),
    "numpy": ("stats", "ranks", "pareto", "audit", "tasks", "search", "report", "export"),
}
TEMPLATES_MAY_IMPORT = {"torch", "PIL", "safetensors", "network"}


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name below the package, and file, of each module that runs inside the package."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if parts[0] != "templates":
            yield name, file


def imports(file: Path, name: str) -> Iterator[str]:
    """Absolute dotted names of all that a module imports, at any depth of its code."""
    is_package = file.name == "__init__.py"
    own = ["hrnet_search", *name.split(".")] if name else ["hrnet_search"]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + is_package] if node.level else []
            prefix = [*base, *(node.module or "").split(".")] if node.module else base
            yield from (".".join([*prefix, alias.name]) for alias in node.names)


def layer(name: str) -> int:
    """Place of a module in the order; the package's own __init__ only names the public parts."""
    top = name.split(".")[0]
    places = [place for place, tops in enumerate(LAYERS) if top in tops]
    assert places, f"{name} has no place in the order"
    return places[0]


def is_below(name: str, home: str) -> bool:
    return name == home or name.startswith(f"{home}.")


def violations(package: Path) -> list[str]:
    """What breaks the rules, one line each."""
    found = []
    for name, file in modules(package):
        for imported in imports(file, name):
            top, _, rest = imported.partition(".")
            if top == "hrnet_search":
                # `from . import x` of the package itself may name an attribute, not a module.
                if name and rest and layer(rest) > layer(name):
                    found.append(f"{name} imports {imported}, which comes later")
            elif top in HOMES:
                if not any(is_below(name, home) for home in HOMES[top]):
                    found.append(f"{name or '__init__'} imports {top}, which has other homes")
            elif top not in sys.stdlib_module_names:
                found.append(f"{name or '__init__'} imports {top}, which has no home")
    return found


def test_all_imports_keep_the_order_and_the_homes() -> None:
    assert violations(PACKAGE) == []


def test_the_walk_sees_every_layer() -> None:
    seen = {name.split(".")[0] for name, _ in modules(PACKAGE) if name}
    assert seen == {top for tops in LAYERS for top in tops}


@pytest.mark.parametrize(
    "module",
    [
        *("arch", "blueprint", "cost", "errors", "frameworks", "joints", "labels", "presets"),
        *("rivals", "diagram"),
    ],
)
def test_plain_data_imports_the_standard_library_alone(module: str) -> None:
    outside = {
        name.split(".")[0]
        for name in imports(PACKAGE / f"{module}.py", module)
        if not name.startswith("hrnet_search.")
    }
    assert outside <= sys.stdlib_module_names


def test_model_imports_torch_arch_and_itself_alone() -> None:
    files = [(name, file) for name, file in modules(PACKAGE) if is_below(name, "model")]
    names = {imported for name, file in files for imported in imports(file, name)}
    copied = ("arch", "blueprint", "errors", "model")
    own = ("torch", *(f"hrnet_search.{name}" for name in copied))
    others = {name for name in names if not any(is_below(name, home) for home in own)}
    assert {name.split(".")[0] for name in others} <= sys.stdlib_module_names
    assert any(is_below(name, "torch") for name in names)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("views", {"PIL"}),
        ("drawing", {"PIL"}),
        ("keypoints", {"PIL", "torch"}),
        ("outputs", {"torch", "hrnet_search"}),  # keypoints, where joints are found
        ("folding", {"torch"}),
        ("objects", {"PIL", "torch", "hrnet_search"}),  # modules that are copied too
    ],
)
def test_what_stands_around_an_exported_network_imports_no_more_than_it_says(
    module: str, allowed: set[str]
) -> None:
    tops = {name.split(".")[0] for name in imports(PACKAGE / f"{module}.py", module)}
    assert tops - sys.stdlib_module_names == allowed


COPIED = (
    *("arch", "blueprint", "errors", "frameworks", "model", "detectors", "views", "drawing"),
    *("keypoints", "objects", "outputs", "folding"),
)


@pytest.mark.parametrize("module", COPIED)
def test_what_export_copies_uses_relative_imports(module: str) -> None:
    path = PACKAGE / module
    files = list(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    trees = [ast.parse(file.read_text()) for file in files]
    nodes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [n.module for n in nodes if n.level == 0 and (n.module or "").startswith("hrnet")]


@pytest.mark.parametrize("file", sorted((PACKAGE / "templates").glob("*.py")), ids=lambda f: f.name)
def test_templates_import_only_what_an_exported_folder_has(file: Path) -> None:
    tops = {name.split(".")[0] for name in imports(file, f"templates.{file.stem}")}
    assert tops - sys.stdlib_module_names <= TEMPLATES_MAY_IMPORT | {"hrnet_search"}
    absolute = {
        (node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level == 0
    }
    assert "hrnet_search" not in absolute


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("arch", "import torch", "arch imports torch, which has other homes"),
        ("files", "import requests", "files imports requests, which has no home"),
        ("arch", "from .study import Study", "arch imports hrnet_search.study.Study, which comes"),
        ("study", "from . import training", "study imports hrnet_search.training, which comes"),
        ("tasks/pose", "from ..search import engine", "tasks.pose imports hrnet_search.search."),
        ("tasks/__init__", "from ..report import page", "tasks imports hrnet_search.report."),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, module: str, line: str, message: str) -> None:
    copy = tmp_path / "hrnet_search"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / f"{module}.py"
    file.write_text(f"{file.read_text()}\n\ndef later():\n    {line}\n")
    (found,) = violations(copy)
    assert found.startswith(message)


def test_checking_a_study_does_not_import_the_heavy_packages() -> None:
    code = "import sys, hrnet_search.study, hrnet_search.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "hrnet_search.study" in loaded
    assert loaded.isdisjoint({"torch", "ray", "optuna", "pandas", "plotly", "scipy", "fvcore"})
