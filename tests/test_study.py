"""Study files: strict loading, one line for every mistake, and a dump that loads as it was."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hrnet_search import study as study_module
from hrnet_search.arch import hrnet
from hrnet_search.baselines import network
from hrnet_search.blueprint import canonical
from hrnet_search.errors import InputError
from hrnet_search.paper import TABLES
from hrnet_search.reading import Loader
from hrnet_search.report.frame import told_by
from hrnet_search.result import METRICS
from hrnet_search.space import DEFAULTS, MAX_GRID, Space
from hrnet_search.study import Study, dump_study, load, load_space, load_study
from hrnet_search.survey import combinations

ROOT = Path(__file__).parents[1]
SHIPPED_SPACES = sorted((ROOT / "spaces").glob("*.yaml"))
SHIPPED_STUDIES = sorted((ROOT / "studies").glob("*.yaml"))

POSE = {
    "name": "pose",
    "task": {"kind": "pose"},
    "data": {"kind": "synthetic_pose", "num_train": 8, "num_val": 4, "input_size": [64, 48]},
    "space": {"base": {"width": 4}, "vary": {"across": {"choices": [False, True]}}},
    "train": {"steps": 10, "batch_size": 2, "lr": 0.001},
}
SEGMENTATION = {
    **POSE,
    "name": "segmentation",
    "task": {"kind": "segmentation"},
    "data": {
        "kind": "segmentation_folder",
        "root": "camvid",
        "class_names": ["sky", "road", "car"],
        "crop_size": [64, 96],
    },
}
GONE = object()  # put in place of a value: the key is removed


def changed(content: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """A copy with another value under the dotted key."""
    copied = copy.deepcopy(content)
    *parents, last = key.split(".")
    node = copied
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return copied


def written(folder: Path, content: object, name: str = "study.yaml") -> Path:
    """A file with this content: text as it is, anything else as YAML."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def refusal(read: Callable[[], object]) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(InputError) as caught:
        read()
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- what a study means ------------------------------------------------------------------------


def test_defaults_and_derived_values(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, POSE))
    assert (study.seeds, study.train.optimizer, study.train.schedule) == (3, "adamw", "one_cycle")
    assert (study.task.head, study.task.loss, study.task.sigma) == ("v1", "mse", 2.0)
    assert study.input_size == (64, 48)
    assert (study.accuracy, study.cost) == ("metrics.ap", "profile.macs")
    assert study.arms() == [{"across": False}, {"across": True}]
    assert study.reference_arm == "across=true"


def test_values_that_a_study_states(tmp_path: Path) -> None:
    content = changed(SEGMENTATION, "objectives", ["metrics.pixel_accuracy", "profile.latency"])
    content = changed(content, "reference", "across=false")
    study = load_study(written(tmp_path, content))
    assert study.task.head == "v2"
    assert study.input_size == (64, 96)
    assert (study.accuracy, study.cost) == ("metrics.pixel_accuracy", "profile.latency")
    assert study.reference_arm == "across=false"


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "1.0e-3", "0.001", ".1e-2", "+1e-3"])
def test_every_way_to_write_a_number_is_a_number(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, yaml.safe_dump(changed(POSE, "train.lr", "LR")).replace("LR", text))
    assert load_study(file).train.lr == 0.001


def test_whole_numbers_serve_where_any_number_does(tmp_path: Path) -> None:
    assert load_study(written(tmp_path, changed(POSE, "task.sigma", 2))).task.sigma == 2


# --- paths -------------------------------------------------------------------------------------


def test_a_space_file_is_found_relative_to_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, POSE["space"], "spaces/small.yaml")
    file = written(tmp_path, changed(POSE, "space", "../spaces/small.yaml"), "studies/s.yaml")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_study(file) == load_study(written(tmp_path, POSE))


def test_a_data_root_is_relative_to_the_study_and_to_the_shell_in_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, SEGMENTATION, "studies/s.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")

    def root(content: dict[str, Any], *overrides: str) -> str:
        return load_study(written(tmp_path, content, "studies/s.yaml"), overrides).data.root

    assert root(SEGMENTATION) == str(file.parent / "camvid")
    assert root(changed(SEGMENTATION, "data.root", "/data/x")) == "/data/x"
    assert root(changed(SEGMENTATION, "data.root", "~/x")) == "/home/someone/x"
    assert root(SEGMENTATION, "data.root=x") == str(tmp_path / "x")
    assert root(SEGMENTATION, "data.root=/data/x") == "/data/x"
    assert root(SEGMENTATION, "data.root=~/x") == "/home/someone/x"


@pytest.mark.parametrize("overrides", [[], ["data.root=~no-such-user/x"]])
def test_the_home_of_an_unknown_user_is_kept_as_written(
    tmp_path: Path, overrides: list[str]
) -> None:
    file = written(tmp_path, changed(SEGMENTATION, "data.root", "~no-such-user/x"))
    assert load_study(file, overrides).data.root.endswith("~no-such-user/x")


# --- overrides ---------------------------------------------------------------------------------


def test_overrides_replace_add_and_follow_one_another(tmp_path: Path) -> None:
    study = load_study(
        written(tmp_path, POSE),
        [
            "seeds=5",
            "train.lr=1e-2",
            "space.base.num_blocks=2",
            "space.vary.across.choices=[true]",
            "task.head=v2",
            "seeds=6",
            "title=a=b",
        ],
    )
    assert (study.seeds, study.train.lr, study.title) == (6, 0.01, "a=b")
    assert study.space.base == {"task": "pose", "width": 4, "num_blocks": 2}
    assert study.arms() == [{"across": True}]


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("seeds", "'seeds': must be key=value"),
        ("=3", "'=3': must be key=value"),
        ("seeds=0", "seeds: 0: must be greater than or equal to 1"),
        ("train.stepz=3", "train.stepz: unknown key; did you mean 'steps'?"),
        ("train.steps.x=3", "train.steps.x: is not inside a mapping"),
        ("train=3", "train: 3: must be a mapping"),
        ("trian.steps=3", "trian: unknown key; did you mean 'train'?"),
        ("space.vary.across.choices=[1]", "space.vary.across: 1: must be true or false"),
        ("seeds=[", "is not valid YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_a_wrong_override_is_said_to_be_one(tmp_path: Path, override: str, text: str) -> None:
    said = refusal(lambda: load_study(written(tmp_path, POSE), [override]))
    assert said.startswith(f"--set: {text}")


def test_a_mistake_in_the_file_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    file = written(tmp_path, changed(POSE, "train.steps", 0))
    said = refusal(lambda: load_study(file, ["train.lr=1e-3", "seeds=1"]))
    assert said == f"{file}: train.steps: 0: must be greater than or equal to 1"


# --- mistakes in the file as such --------------------------------------------------------------


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    written(tmp_path, POSE, "fusion_ablation.yaml")
    path = tmp_path / "fusion_ablatoin.yaml"
    text = f"{path}: there is no such file"
    assert refusal(lambda: load(path)) == f"{text}; did you mean 'fusion_ablation.yaml'?"
    nowhere = tmp_path / "none" / "x.yaml"
    assert refusal(lambda: load(nowhere)) == f"{nowhere}: there is no such file"


def test_a_missing_space_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    written(tmp_path, POSE["space"], "spaces/tiny.yaml")
    file = written(tmp_path, changed(POSE, "space", "spaces/tinny.yaml"))
    assert refusal(lambda: load_study(file)) == (
        f"{file}: space: 'spaces/tinny.yaml': there is no such file; did you mean 'tiny.yaml'?"
    )


def test_a_mistake_in_the_space_file_names_that_file(tmp_path: Path) -> None:
    space = written(tmp_path, changed(POSE["space"], "base.width", 0), "spaces/s.yaml")
    file = written(tmp_path, changed(POSE, "space", "spaces/s.yaml"))
    rule = "base.width: 0: must be a whole number of at least 1"
    assert refusal(lambda: load_study(file)) == f"{space}: {rule}"


def test_a_folder_and_a_binary_file_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(lambda: load(tmp_path)).startswith(f"{tmp_path}: cannot be read (")
    file = tmp_path / "study.yaml"
    file.write_bytes(b"name: \xe4\xff")
    assert refusal(lambda: load(file)).startswith(f"{file}: cannot be read (")


def test_a_space_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, changed(POSE, "space", "a\0b"))
    text = r"space: 'a\x00b': cannot be read (embedded null byte)"
    assert refusal(lambda: load_study(file)) == f"{file}: {text}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("name: a\ntrain: [1\n", "expected ',' or ']', but got '<stream end>' at line 3, column 1"),
        (
            "name: a\n\tb: 1\n",
            "found character '\\t' that cannot start any token at line 2, column 1",
        ),
        ("name: a\nseeds: 1\nname: b\n", "key 'name' is given twice at line 3, column 1"),
        (
            "name: a\ntrain: {lr: 1, steps: 2, lr: 3}\n",
            "key 'lr' is given twice at line 2, column 26",
        ),
        ("on: 1\n", "key True must be a word; put it in quotes at line 1, column 1"),
        ("3: 1\n", "key 3 must be a word; put it in quotes at line 1, column 1"),
        ("? [a]\n: 1\n", "key must be a word"),
        ("a: !!python/object:x.Y {}\n", "could not determine a constructor for the tag"),
        ("--- {a: 1}\n--- {b: 2}\n", "but found another document at line 2, column 1"),
        ("a: !!map [b]\n", "is no mapping at line 1, column 4"),
        ("a: !!bool b\n", "a value does not fit its tag"),
        ("a: !!timestamp b\n", "a value does not fit its tag"),
        ("a: 2024-13-45\n", "month must be in 1..12"),
        ("a: \x01\n", "unacceptable character #x0001"),
        ("[" * 5000, "maximum recursion depth exceeded"),
    ],
)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, content: str, text: str) -> None:
    text = text.replace("[1]", "['a']")
    file = written(tmp_path, content)
    assert refusal(lambda: load(file)).startswith(f"{file}: is not valid YAML: {text}")


@pytest.mark.parametrize("content", ["", "[a, b]\n", "text\n", "3\n", "null\n"])
def test_a_file_must_be_a_mapping(tmp_path: Path, content: str) -> None:
    file = written(tmp_path, content)
    text = f"{file}: must be a mapping of keys to values"
    assert refusal(lambda: load_study(file)) == text
    assert refusal(lambda: load_space(file)) == text
    assert refusal(lambda: load(file)) == text


@pytest.mark.parametrize(("content", "key"), [("a: &x [*x]\n", "a.0"), ("a: &x {b: *x}\n", "a.b")])
def test_an_endless_alias_is_refused(tmp_path: Path, content: str, key: str) -> None:
    file = written(tmp_path, content)
    rule = "an alias may not stand inside its own anchor"
    assert refusal(lambda: load(file)) == f"{file}: {key}: {rule}"


# --- mistakes in what it says ------------------------------------------------------------------

WHOLE = "must be a whole number"
COUNT = "must be a whole number of at least 1"
NAME = "must be letters, digits, '.', '_' or '-', beginning with a letter or digit"
VALUE = "must be true or false, a number, text, or a list of these"
COSTS = ", ".join(key for key in METRICS if key.startswith("profile."))
NO_ARGUMENT = f"is not an argument of hrnet ({', '.join(DEFAULTS)})"
POSE_METRICS = "metrics.ap, metrics.ap50, metrics.ap75, metrics.apm, metrics.apl, metrics.ar"
POSE_DATA = "synthetic_pose, coco_pose, mpii_pose"
SEGMENTATION_DATA = "segmentation_folder, segmentation_list"
DETECTION_DATA = "synthetic_detection, coco_detection, voc_detection"
POSE_MISTAKES = [
    # unknown and missing keys, at every depth
    ("trian", {}, "trian: unknown key; did you mean 'train'?"),
    ("train.batchsize", 1, "train.batchsize: unknown key; did you mean 'batch_size'?"),
    ("task.los", "mse", "task.los: unknown key; did you mean 'loss'?"),
    ("data.num_trian", 1, "data.num_trian: unknown key; did you mean 'num_train'?"),
    ("space.vray", {}, "space.vray: unknown key; did you mean 'vary'?"),
    (
        "space.vary.across.choice",
        [1],
        "space.vary.across.choice: unknown key; did you mean 'choices'?",
    ),
    ("paper", {"tabel": "table12"}, "paper.tabel: unknown key; did you mean 'table'?"),
    ("zzz", 1, "zzz: unknown key"),
    ("name", GONE, "name: is missing"),
    ("task.kind", GONE, "task.kind: is missing"),
    ("data.num_val", GONE, "data.num_val: is missing"),
    ("train.lr", GONE, "train.lr: is missing"),
    ("space.vary", GONE, "space.vary: is missing"),
    # wrong types
    ("train.steps", "ten", f"train.steps: 'ten': {WHOLE}"),
    ("train.steps", 10.0, f"train.steps: 10.0: {WHOLE}"),
    ("train.steps", True, f"train.steps: True: {WHOLE}"),
    ("train.steps", None, "train.steps: is missing"),
    ("seeds", True, f"seeds: True: {WHOLE}"),
    ("train.lr", "fast", "train.lr: 'fast': must be a number"),
    ("train.lr", True, "train.lr: True: must be a number"),
    ("train", [], "train: []: must be a mapping"),
    ("space", 3, "space: 3: must be a mapping"),
    ("name", 3, "name: 3: must be text"),
    ("data.input_size", 64, "data.input_size: 64: must be a list"),
    ("data.input_size", [64, 64.5], f"data.input_size.1: 64.5: {WHOLE}"),
    ("space.base.width", None, f"space.base.width: None: {VALUE}"),
    ("space.base.width", [8, None], f"space.base.width: [8, None]: {VALUE}"),
    # out of range
    ("train.steps", 0, "train.steps: 0: must be greater than or equal to 1"),
    ("train.batch_size", 1, "train.batch_size: 1: must be greater than or equal to 2"),
    ("train.lr", 0, "train.lr: 0: must be greater than 0"),
    ("train.lr", float("nan"), "train.lr: nan: must be a finite number"),
    ("train.lr", float("inf"), "train.lr: inf: must be a finite number"),
    ("task.sigma", float("nan"), "task.sigma: nan: must be a finite number"),
    ("train.weight_decay", -1, "train.weight_decay: -1: must be greater than or equal to 0"),
    ("train.evaluations", 11, "train.evaluations: 11: cannot be more than steps (10)"),
    ("seeds", 1001, "seeds: 1001: must be less than or equal to 1000"),
    ("data.input_size", [31, 64], "data.input_size.0: 31: must be greater than or equal to 32"),
    ("data.input_size", [64], "data.input_size: [64]: must have at least 2 items"),
    ("data.input_size", [64] * 3, "data.input_size: [64, 64, 64]: must have at most 2 items"),
    ("data.seed", -1, "data.seed: -1: must be greater than or equal to 0"),
    ("name", "a b", f"name: 'a b': {NAME}"),
    ("name", "../a", f"name: '../a': {NAME}"),
    ("name", "", f"name: '': {NAME}"),
    ("name", "a" * 65, f"name: '{'a' * 65}': {NAME}"),
    # the network
    ("space.base.width", 0, f"space.base.width: 0: {COUNT}"),
    ("space.base.width", True, f"space.base.width: True: {COUNT}"),
    ("space.base.num_stages", 9, "space.base.num_stages: 9: the number of stages must be 2 to 8"),
    (
        "space.base.num_stages",
        7,
        "space.base.num_modules: [1, 4, 3]: must be one value or a list with an entry for each of "
        "6 stages",
    ),
    (
        "space.limits",
        {"profile.mac": 1},
        "space.limits: 'profile.mac': must be one of profile.params, profile.macs, "
        "profile.paper_gflops, profile.activations, profile.kernels, profile.depth, "
        "profile.memory, profile.latency; did you mean 'profile.macs'?",
    ),
    ("space.limits", {"profile.macs": 0}, "space.limits.profile.macs: 0.0: must be above 0"),
    (
        "space.limits",
        {"profile.macs": 9},
        "space.limits: no network meets all of them (profile.macs is at least 7.16724e+07)",
    ),
    (
        "rivals",
        ["hourglass_9"],
        "rivals.0: 'hourglass_9': must be one of simple_baseline_resnet50, "
        "simple_baseline_resnet101, simple_baseline_resnet152, simple_baseline_resnet18_w12, "
        "hourglass_8; "
        "did you mean 'hourglass_8'?",
    ),
    (
        "rivals",
        ["hourglass_8"],
        "data.input_size: [64, 48]: must be multiples of 32 where rivals are trained",
    ),
    (
        "space.vary.across",
        {"choices": []},
        "space.vary.across.choices: []: must have at least 1 item",
    ),
    (
        "space.vary.width",
        {"low": 9, "high": 8},
        "space.vary.width.high: 8: must be at least low (9)",
    ),
    (
        "space.vary.acros",
        {"choices": [True]},
        f"space.vary.acros: {NO_ARGUMENT}; did you mean 'across'?",
    ),
    (
        "space.base.nun_blocks",
        2,
        f"space.base.nun_blocks: {NO_ARGUMENT}; did you mean 'num_blocks'?",
    ),
    # names out of a list
    (
        "task.kind",
        "poes",
        "task.kind: 'poes': must be one of pose, segmentation, detection, classification; "
        "did you mean 'pose'?",
    ),
    (
        "data.kind",
        "coco",
        f"data.kind: 'coco': must be one of {POSE_DATA}, {SEGMENTATION_DATA}, {DETECTION_DATA}, "
        "image_folders; did you mean 'coco_pose'?",
    ),
    (
        "train.optimizer",
        "adamm",
        "train.optimizer: 'adamm': must be 'sgd', 'adam' or 'adamw'; did you mean 'adam'?",
    ),
    ("task.head", "v3", "task.head: 'v3': must be 'v1', 'v1h' or 'v2'; did you mean 'v2'?"),
    (
        "objectives",
        ["metrics.app"],
        "objectives.0: 'metrics.app': unknown metric; did you mean 'metrics.ap'?",
    ),
    (
        "objectives",
        ["metrics.ap", "profile.mac"],
        "objectives.1: 'profile.mac': unknown metric; did you mean 'profile.macs'?",
    ),
    (
        "objectives",
        ["metrics.miou"],
        f"objectives.0: 'metrics.miou': must be one of {POSE_METRICS}",
    ),
    (
        "objectives",
        ["profile.macs"],
        f"objectives.0: 'profile.macs': must be one of {POSE_METRICS}",
    ),
    (
        "objectives",
        ["metrics.ap", "metrics.ar"],
        f"objectives.1: 'metrics.ar': must be one of {COSTS}",
    ),
    (
        "objectives",
        ["metrics.ap", "profile.macs", "profile.params"],
        "objectives: ['metrics.ap', 'profile.macs', 'profile.params']: must have at most 2 items",
    ),
    (
        "reference",
        "across=tru",
        "reference: 'across=tru': must be one of the space's arms (across=false; across=true); "
        "did you mean 'across=true'?",
    ),
    (
        "paper",
        {"table": "table21", "column": "pose_ap"},
        f"paper.table: 'table21': must be one of {', '.join(TABLES)}; did you mean 'table12'?",
    ),
    (
        "paper",
        {"table": "table12", "column": "pose"},
        "paper.column: 'pose': must be one of pose_ap, segmentation_miou; did you mean 'pose_ap'?",
    ),
    # what does not go together
    (
        "data",
        SEGMENTATION["data"],
        "data.kind: 'segmentation_folder': task pose needs data of kind "
        f"{POSE_DATA.replace(', ', ' or ')}",
    ),
    (
        "space.vary.width",
        {"low": 1, "high": 9000},
        "space.vary: 18000: a grid may have at most 10000 combinations",
    ),
]
SEGMENTATION_MISTAKES = [
    (
        "task.class_weights",
        [1.0, 2.0],
        "task.class_weights: 2: must have one weight for each of 3 classes",
    ),
    ("task.class_weights", [1.0, 0.0, 1.0], "task.class_weights.1: 0.0: must be greater than 0"),
    ("task.sigma", 1.0, "task.sigma: unknown key"),
    ("data.root", "", "data.root: '': must have at least 1 character"),
    ("data.class_names", ["a"], "data.class_names: ['a']: must have at least 2 items"),
    ("data.ignore_label", 256, "data.ignore_label: 256: must be less than or equal to 255"),
    ("data.crop_size", [16, 64], "data.crop_size.0: 16: must be greater than or equal to 32"),
    (
        "data",
        POSE["data"],
        "data.kind: 'synthetic_pose': task segmentation needs data of kind "
        f"{SEGMENTATION_DATA.replace(', ', ' or ')}",
    ),
]


@pytest.mark.parametrize(
    ("content", "key", "value", "text"),
    [(POSE, *case) for case in POSE_MISTAKES]
    + [(SEGMENTATION, *case) for case in SEGMENTATION_MISTAKES],
)
def test_a_mistake_is_told_with_file_key_value_and_rule(
    tmp_path: Path, content: dict[str, Any], key: str, value: object, text: str
) -> None:
    file = written(tmp_path, changed(content, key, value))
    assert refusal(lambda: load_study(file)) == f"{file}: {text}"


def test_load_tells_spaces_from_studies(tmp_path: Path) -> None:
    assert isinstance(load(written(tmp_path, POSE)), Study)
    assert isinstance(load(written(tmp_path, POSE["space"])), Space)


# --- dump --------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
tricky = st.sampled_from(["1e3", "1e-3", "true", "null", "~", "3", "=", "<<", "a: b", "# x", "- y"])
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z") | st.sampled_from(
    ["1e3", "on", "0x1"]
)
numbers = st.floats(1e-9, 1e9)


def spaces() -> st.SearchStrategy[dict[str, Any]]:
    knobs = {
        "across": st.just({"choices": [False, True]}),
        "width": st.fixed_dictionaries({"low": st.integers(1, 8), "high": st.integers(8, 16)}),
        "num_modules": st.just({"choices": [1, [1, 2, 1]]}),
        "fusion": st.dictionaries(
            texts | tricky, st.just({"final": True}), min_size=1, max_size=2
        ).map(lambda arms: {"arms": arms}),
    }
    vary = st.fixed_dictionaries({}, optional=knobs).filter(bool)
    base = st.fixed_dictionaries({}, optional={"num_blocks": st.integers(1, 3)})
    return st.fixed_dictionaries({"vary": vary, "base": base, "description": texts | tricky})


def studies() -> st.SearchStrategy[dict[str, Any]]:
    train = st.fixed_dictionaries(
        {"steps": st.integers(5, 1000), "batch_size": st.integers(2, 99), "lr": numbers},
        optional={
            "weight_decay": numbers,
            "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
            "schedule": st.sampled_from(["one_cycle", "poly", "constant"]),
            "evaluations": st.integers(1, 5),
        },
    )
    common = {"name": names, "title": texts | tricky, "space": spaces(), "train": train}
    pose = st.fixed_dictionaries(
        {"kind": st.just("pose"), "loss": st.sampled_from(["mse", "cross_entropy"])},
        optional={"sigma": numbers},
    )
    folder = st.fixed_dictionaries(
        {
            "kind": st.just("segmentation_folder"),
            "root": texts.filter(bool) | tricky,
            "class_names": st.lists(texts | tricky, min_size=2, max_size=4, unique=True),
            "crop_size": st.just([64, 32]),
        }
    )
    return st.fixed_dictionaries(
        {**common, "task": pose, "data": st.just(POSE["data"])}
    ) | st.fixed_dictionaries({**common, "task": st.just({"kind": "segmentation"}), "data": folder})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@given(content=studies())
def test_a_dumped_study_loads_as_it_was(folder: Path, content: dict[str, Any]) -> None:
    study = Study.model_validate(content)
    if study.data.kind == "segmentation_folder":
        absolute = {**content["data"], "root": "/" + content["data"]["root"].replace("\0", "")}
        study = Study.model_validate({**content, "data": absolute})
    file = folder / "dumped.yaml"
    file.write_text(dump_study(study), encoding="utf-8", newline="")
    assert load_study(file) == study


@pytest.mark.parametrize("file", SHIPPED_STUDIES, ids=lambda file: file.name)
def test_a_dumped_study_is_complete(file: Path, tmp_path: Path) -> None:
    study = load_study(file)
    dumped = yaml.safe_load(dump_study(study))
    assert dumped.keys() == Study.model_fields.keys()
    assert dumped["train"]["precision"] == "auto"
    assert load_study(written(tmp_path, dump_study(study))) == study


# --- what is shipped ---------------------------------------------------------------------------


def test_spaces_and_studies_are_shipped() -> None:
    assert SHIPPED_SPACES
    assert {file.stem for file in SHIPPED_STUDIES} >= {"smoke", "fusion_ablation"}


@pytest.mark.parametrize("file", SHIPPED_SPACES + SHIPPED_STUDIES, ids=lambda file: file.name)
def test_shipped_networks_run(file: Path) -> None:
    import torch

    from hrnet_search.model import build

    loaded = load(file)
    space = loaded if isinstance(loaded, Space) else loaded.space
    head = "v2" if isinstance(loaded, Space) else loaded.task.head
    some = list(combinations(space, count=MAX_GRID))
    for params in (some[0], some[-1]):
        net = build(space.arch(params), head=head, num_outputs=7).eval()
        with torch.inference_mode():
            found = net(torch.zeros(1, 3, 64, 64))
            finest = found[0] if isinstance(found, list) else found  # of a pyramid
            stride = 4 * 2 ** (net.spec.output_branch if head == "v1" else 0)
            assert finest.shape == (1, 7, 64 // stride, 64 // stride)


@pytest.mark.parametrize("file", SHIPPED_STUDIES, ids=lambda file: file.name)
def test_shipped_studies_are_named_as_their_file_and_say_how_to_run(file: Path) -> None:
    assert load_study(file).name == file.stem
    assert f"hrnet-search run studies/{file.name}" in file.read_text()


# Of a study that asks only part of the paper's table: the rows it is about.
SOME_ROWS = {
    "fusion_operator_camvid_long": {"bilinear downsampling", "strided convolution and sum"},
}


@pytest.mark.parametrize("file", SHIPPED_STUDIES, ids=lambda file: file.name)
def test_shipped_studies_of_the_paper_have_its_rows_as_arms(file: Path) -> None:
    study = load_study(file)
    if study.paper is None:
        pytest.skip("sets no table beside it")
    table = TABLES[study.paper.table]
    column = study.paper.column
    assert table.columns[column][0] == study.accuracy
    arms = [params for params in study.arms() if not study.is_copy(params)]
    given = [told_by(study, params) for params in arms]
    some = SOME_ROWS.get(study.name, {row.label for row in table.rows})
    rows = [row for row in table.rows if row.label in some]
    assert len(rows) == len(some)
    assert [table.row(one) for one in given] == rows
    papers = max(rows, key=lambda row: row.values.get(column, 0))
    names = [study.arm(params) for params in arms]
    wanted = [names[rows.index(papers)]]
    if study.match:  # to the dearest, whatever it is: a narrowed network may be too narrow
        dearest = max(arms, key=lambda params: study.costs(params)[study.cost])
        wanted.append(study.arm(dearest))
    assert study.reference in wanted


def test_width_and_depth_are_compared_at_equal_cost() -> None:
    study = load_study(ROOT / "studies" / "width_or_depth_pose.yaml")
    costs = [study.costs(params)["profile.macs"] for params in study.arms()]
    assert costs == pytest.approx([costs[-1]] * 3, rel=0.002)


def test_input_sizes_are_compared_at_equal_cost() -> None:
    """By torch's counter, which knows both networks."""
    study = load_study(ROOT / "studies" / "input_size_pose.yaml")
    macs: dict[str, list[int]] = {}
    for params in study.arms():
        arch = study.network(params).to_dict()
        net = network(arch, head=study.task.head, num_outputs=study.head_outputs).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.zeros(1, 3, *study.under(params).input_size))
        macs.setdefault(study.variant_of(params), []).append(counter.get_total_flops() // 2)
    assert len(macs) == 4
    for variant, (ours, theirs) in macs.items():
        assert ours == pytest.approx(theirs, rel=0.01), variant


def test_modules_are_compared_at_equal_depth() -> None:
    study = load_study(ROOT / "studies" / "blocks_or_modules_pose.yaml")
    for params in study.arms():
        for stage in study.space.arch(study.original(params)).stages:
            assert {
                sum(units) for units in zip(*(m.num_blocks for m in stage.modules), strict=True)
            } == {4}


# --- JSON Schema -------------------------------------------------------------------------------

needs_schemas = pytest.mark.skipif(
    not hasattr(study_module, "json_schemas"), reason="no JSON Schemas yet"
)


def validator(name: str) -> Any:
    import jsonschema

    schema = study_module.json_schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@needs_schemas
@pytest.mark.parametrize("file", SHIPPED_SPACES + SHIPPED_STUDIES, ids=lambda file: file.name)
def test_shipped_files_meet_the_json_schema(file: Path) -> None:
    name = "space" if file in SHIPPED_SPACES else "study"
    raw = yaml.load(file.read_text(), Loader=Loader)
    assert list(validator(name).iter_errors(raw)) == []


@needs_schemas
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trian", {}),
        ("train.lrr", 1),
        ("train.steps", "ten"),
        ("train.steps", 0),
        ("task.kind", "poes"),
        ("space.vary", GONE),
        ("data.input_size", [31, 64]),
        ("name", "a b"),
    ],
)
def test_the_json_schema_refuses_what_loading_refuses(key: str, value: object) -> None:
    check = validator("study")
    assert check.is_valid(POSE)
    assert not check.is_valid(changed(POSE, key, value))


# --- random damage -----------------------------------------------------------------------------

JUNK: list[object] = [
    *(None, True, 0, -1, 7, 10**20, 1.5, float("nan"), float("inf"), "", "x", "~", "1e3", "\0"),
    *([], {}, [[]], [None], {"a": None}, {"kind": "pose"}, ["metrics.ap"], "\ud7ff", "\U0001f600"),
    *({"choices": [1]}, {"arms": {"a": {}}}, {"low": 1, "high": 2}, [1, 2, 3], "spaces", "."),
]


def places(node: object) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested lists and mappings."""
    entries = node.items() if isinstance(node, dict) else enumerate(node)  # type: ignore[arg-type]
    for key, value in entries:
        yield node, key
        if isinstance(value, (dict, list)):
            yield from places(value)


def swapped_type(value: object) -> object:
    if isinstance(value, dict):
        return list(value)
    if isinstance(value, list):
        return {str(number): entry for number, entry in enumerate(value)}
    if isinstance(value, str):
        return [value]
    return str(value)


def damaged(text: str, rng: random.Random) -> str:
    """The text of a YAML file with one to three random mistakes."""
    if rng.random() < 0.25:
        start = rng.randrange(len(text))
        piece = rng.choice(["", "\t", ": ", "[", "}", "\n-", "&a *a", "\x85", "'", "!!x "])
        return text[:start] + piece + text[start + rng.randrange(3) :]
    if rng.random() < 0.2:
        return text[: rng.randrange(len(text))]
    raw = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        candidates = list(places(raw))
        if not candidates:
            break
        node, key = rng.choice(candidates)
        action = rng.choice(["delete", "swap", "rename", "junk"])
        if action == "delete":
            del node[key]
        elif action == "swap":
            node[key] = swapped_type(node[key])
        elif action == "rename" and isinstance(node, dict):
            node[key[:-1] + rng.choice("xyz_")] = node.pop(key)
        else:
            node[key] = copy.deepcopy(rng.choice(JUNK))
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=rng.random() < 0.5)


@pytest.mark.parametrize("file", SHIPPED_SPACES + SHIPPED_STUDIES, ids=lambda file: file.name)
def test_a_damaged_file_loads_or_is_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    rng = random.Random(file.name)
    (tmp_path / "spaces").symlink_to(ROOT / "spaces")
    victim = tmp_path / "studies" / file.name
    victim.parent.mkdir()
    text, refused = file.read_text(), 0
    for _ in range(100):
        victim.write_text(damaged(text, rng), encoding="utf-8")
        try:
            assert isinstance(load(victim), Study | Space)
        except InputError as error:
            refused += 1
            assert str(error).strip()
            assert "\n" not in str(error)
            # The file it was found in, or the space file it names.
            assert Path(str(error.file)).resolve() in (victim.resolve(), *SHIPPED_SPACES)
    assert refused > 30


def test_the_damage_is_of_every_kind() -> None:
    text = SHIPPED_STUDIES[0].read_text()
    rng = random.Random(0)
    results = [damaged(text, rng) for _ in range(50)]
    assert len(set(results)) > 45
    assert json.dumps(results) != json.dumps([text] * 50)


def test_another_space_may_be_given_in_set_and_changed_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"base": {"num_blocks": 1}, "vary": {"width": {"choices": [8, 16]}}}
    written(tmp_path, space, "elsewhere/other.yaml")
    file = written(tmp_path, POSE, "studies/s.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = load_study(file, ["space.base.num_blocks=2", "space=other.yaml"])
    assert study.arms() == [{"width": 8}, {"width": 16}]
    assert study.space.base == {"task": "pose", "num_blocks": 2}
    assert load(tmp_path / "elsewhere" / "other.yaml", ["base.num_blocks=3"]).base == {  # type: ignore[union-attr]
        "num_blocks": 3
    }


def test_the_ignored_label_may_not_be_a_class(tmp_path: Path) -> None:
    file = written(tmp_path, changed(SEGMENTATION, "data.ignore_label", 0))
    text = "data.ignore_label: 0: must not be the number of a class (0 to 2)"
    assert refusal(lambda: load_study(file)) == f"{file}: {text}"


# --- limits and rivals -------------------------------------------------------------------------


def test_networks_above_a_limit_are_left_out(tmp_path: Path) -> None:
    small = changed(POSE, "space.vary", {"width": {"choices": [4, 8, 400]}})
    study = load_study(written(tmp_path, changed(small, "space.limits", {"profile.params": 5e6})))
    assert study.arms() == [{"width": 4}, {"width": 8}]
    assert study.left_out() == 1
    assert study.reference_arm == "width=8"


def test_rivals_are_arms_after_those_of_the_space(tmp_path: Path) -> None:
    square = changed(POSE, "data.input_size", [64, 64])
    study = load_study(written(tmp_path, changed(square, "rivals", ["hourglass_8"])))
    assert study.arms()[-1] == {"rival": "hourglass_8"}
    assert study.arm(study.arms()[-1]) == "hourglass_8"
    assert study.network({"rival": "hourglass_8"}).to_dict() == {"rival": "hourglass_8"}
    assert study.reference_arm != "hourglass_8"
    named = changed(square, "space.vary", {"fusion": {"arms": {"hourglass_8": {"final": False}}}})
    with pytest.raises(InputError, match=r"rivals.0: 'hourglass_8': is the name of an arm too"):
        load_study(written(tmp_path, changed(named, "rivals", ["hourglass_8"])))
    rival = changed(square, "rivals", ["hourglass_8"])
    with pytest.raises(InputError, match="reference: 'hourglass_8': must be one of the space's"):
        load_study(written(tmp_path, changed(rival, "reference", "hourglass_8")))
    deep = changed(rival, "objectives", ["metrics.ap", "profile.depth"])
    with pytest.raises(InputError, match=r"objectives.1: 'profile.depth': is not known of rivals"):
        load_study(written(tmp_path, deep))
    twice = changed(square, "rivals", ["hourglass_8", "hourglass_8"])
    with pytest.raises(InputError, match=r"rivals: .*: must not repeat a name"):
        load_study(written(tmp_path, twice))


# --- cost-matched arms -------------------------------------------------------------------------

FUSION = {"final": {"across": False, "within": False}, "whole": {}}
MATCHED = changed(POSE, "space", {"base": {"width": 16}, "vary": {"fusion": {"arms": FUSION}}})


def by(content: dict[str, Any], key: str = "profile.macs") -> dict[str, Any]:
    return {**content, "match": {key: "reference"}}


def test_an_arm_is_followed_by_its_copy_of_equal_cost(tmp_path: Path) -> None:
    without = load_study(written(tmp_path, MATCHED))
    study = load_study(written(tmp_path, by(MATCHED)))
    final, whole = without.arms()
    copy = {**final, "match": "profile.macs"}
    assert study.arms() == [final, copy, whole]
    assert [study.arm(p) for p in study.arms()] == ["final", "final, matched", "whole"]
    assert study.reference_arm == "whole"
    costs = [study.costs(p)["profile.macs"] for p in study.arms()]
    assert costs[0] < 0.99 * costs[2]
    assert costs[1] == pytest.approx(costs[2], rel=0.01)
    assert study.network(final) == without.network(final)
    assert study.network(copy) != without.network(final)
    assert [study.is_copy(p) for p in study.arms()] == [False, True, False]
    assert [study.is_matched(p) for p in study.arms()] == [False, True, True]
    assert [study.counterpart(p) for p in study.arms()] == [copy, copy, whole]
    assert [study.original(p) for p in study.arms()] == [final, final, whole]
    assert without.counterpart(final) is None
    assert not without.is_matched(final)


@pytest.mark.parametrize("final", [True, False])
def test_the_arguments_of_a_copy_build_it(tmp_path: Path, final: bool) -> None:
    # Without the final fusion unit lower branches are not built, whose widths do not matter.
    content = by(changed(MATCHED, "space.base", {"width": 5, "final": final}), "profile.params")
    study = load_study(written(tmp_path, content))
    for params in study.arms():
        built = canonical(hrnet(**study.arguments(params)), "v1")
        assert built == study.network(params)


def test_a_narrower_reference_narrows_the_others(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, {**by(MATCHED), "reference": "final"}))
    assert [study.arm(p) for p in study.arms()] == ["final", "whole", "whole, matched"]
    _, whole, copy = study.arms()
    assert study.costs(copy)["profile.macs"] < study.costs(whole)["profile.macs"]


def test_an_arm_that_is_near_enough_stands_for_itself(tmp_path: Path) -> None:
    vary = {"output_bias": {"choices": [False, True]}}  # of 17 joints: next to nothing
    study = load_study(
        written(tmp_path, by(changed(MATCHED, "space.vary", vary), "profile.params"))
    )
    without, whole = study.arms()
    assert study.costs(without) != study.costs(whole)
    assert all(study.is_matched(p) and study.counterpart(p) == p for p in study.arms())


def test_a_copy_that_is_an_arm_already_is_not_trained_twice(tmp_path: Path) -> None:
    vary = {"width": {"choices": [4, 8]}, "across": {"choices": [False, True]}}
    study = load_study(written(tmp_path, by(changed(MATCHED, "space.vary", vary))))
    assert [study.arm(p) for p in study.arms()] == [
        "across=false, width=4",
        "across=false, width=4, matched",
        "across=false, width=8",  # near enough as it is
        "across=true, width=4",  # whose copy is the reference
        "across=true, width=8",
    ]
    keys = [study.network(p).key for p in study.arms()]
    assert len(set(keys)) == len(keys)
    narrow, wide = {"width": 4, "across": True}, {"width": 8, "across": True}
    assert study.counterpart(narrow) == wide
    assert not study.is_matched(narrow)


def test_rivals_are_never_matched(tmp_path: Path) -> None:
    square = changed(by(MATCHED), "data.input_size", [64, 64])
    study = load_study(written(tmp_path, changed(square, "rivals", ["hourglass_8"])))
    assert study.arms()[-1] == {"rival": "hourglass_8"}
    assert study.counterpart({"rival": "hourglass_8"}) is None
    assert not study.is_matched({"rival": "hourglass_8"})
    assert study.arguments({"rival": "hourglass_8"}) == {}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "match",
            {"profile.latency": "reference"},
            "match: 'profile.latency': is measured, so widths cannot be found beforehand that meet "
            "it; did you mean 'profile.macs'?",
        ),
        (
            "match",
            {"profile.mac": "reference"},
            "match: 'profile.mac': must be one of profile.params, profile.macs, "
            "profile.paper_gflops, profile.activations, profile.memory; "
            "did you mean 'profile.macs'?",
        ),
        ("match", {"profile.kernels": "reference"}, "match: 'profile.kernels': must be one of"),
        (
            "match",
            {"profile.macs": "referenc"},
            "match.profile.macs: 'referenc': must be 'reference'; did you mean 'reference'?",
        ),
        (
            "match",
            {"profile.macs": "reference", "profile.params": "reference"},
            "match: {'profile.macs': 'reference', 'profile.params': 'reference'}: must have at "
            "most 1 item",
        ),
        (
            "space.vary",
            {"match": {"arms": FUSION}},
            "space.vary.match: is reserved for cost-matched arms; choose another name",
        ),
        (
            "space.vary.fusion.arms",
            {**FUSION, "final, matched": {"within": False}},
            "match: 'final, matched': is the name of an arm, and of the cost-matched copy",
        ),
        (
            "space.vary",
            {"width": {"low": 1, "high": 101}},
            "match: 101: is for at most 100 arms",
        ),
        (
            "space.vary.fusion.arms",  # its stem costs more than the whole reference
            {"heavy": {"stem_width": 400, "across": False}, "whole": {}},
            "match: 'profile.macs': arm 'heavy' cannot be brought within 1% of arm 'whole' by "
            "whole channels; the nearest is ",
        ),
        (
            "search",
            {"sampler": "random", "networks": 2},
            "match: \"{'profile.macs': 'reference'}\": is for studies of a grid; a search by",
        ),
    ],
)
def test_matches_that_cannot_be_are_refused(
    tmp_path: Path, key: str, value: object, expected: str
) -> None:
    content = changed(by(MATCHED), key, value)
    assert (
        refusal(lambda: load_study(written(tmp_path, content)))
        .removeprefix(f"{tmp_path / 'study.yaml'}: ")
        .startswith(expected)
    )


@pytest.mark.parametrize("key", ["match", "space.limits"])
def test_keys_that_are_metrics_can_be_set_with_their_dot(tmp_path: Path, key: str) -> None:
    value = "reference" if key == "match" else "1.0e9"
    study = load_study(written(tmp_path, MATCHED), [f"{key}.profile.macs={value}"])
    found = study.match if key == "match" else study.space.limits
    assert found == {"profile.macs": "reference" if key == "match" else 1e9}


def test_an_arm_that_cannot_be_matched_goes_without_a_copy(tmp_path: Path) -> None:
    heavy = {"stem_width": 400, "across": False}
    content = changed(by(MATCHED), "space.vary.fusion.arms", {"heavy": heavy, **FUSION})
    content["reference"] = "whole"
    study = load_study(written(tmp_path, content))
    assert [study.arm(p) for p in study.arms()] == ["final", "final, matched", "heavy", "whole"]
    assert list(study.unmatched) == ["heavy"]
    assert study.unmatched["heavy"] > 0.01
    assert study.counterpart({"fusion": "heavy"}) is None
    assert not study.is_matched({"fusion": "heavy"})


def test_a_copy_above_a_limit_is_refused(tmp_path: Path) -> None:
    # Fusion units have many parameters for their multiply-adds: what has as many has more of these.
    content = by(MATCHED, "profile.params")
    study = load_study(written(tmp_path, content))
    final, copy, whole = (study.costs(params)["profile.macs"] for params in study.arms())
    assert final < whole < copy
    limited = changed(content, "space.limits", {"profile.macs": copy - 1})
    assert "arm 'final, matched' would be above space.limits.profile.macs" in refusal(
        lambda: load_study(written(tmp_path, limited))
    )


def test_equal_networks_are_equal_for_the_head_of_the_task(tmp_path: Path) -> None:
    # The final fusion's low-resolution rows are not built under V1, so neither are their edges.
    vary = {"output_bias": {"choices": [True]}, "align_corners": {"choices": [False, True]}}
    study = load_study(written(tmp_path, changed(POSE, "space.vary", vary)))
    assert study.arms() == [{"output_bias": True, "align_corners": False}]


# --- scales ------------------------------------------------------------------------------------

SCALED = {
    **POSE,
    "scales": {
        "short": {"train": {"steps": 5}},
        "small": {"data": {"input_size": [32, 32]}, "space": {"base": {"num_blocks": 1}}},
    },
}


def test_scales_make_studies_of_their_own(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, SCALED), ["train.batch_size=4", "scales.short.seeds=1"])
    found = study.at_scales()
    assert [(name, one.name) for name, one in found.items()] == [
        ("short", "pose-short"), ("small", "pose-small"), ("full", "pose"),
    ]  # fmt: skip
    short, small, full = found.values()
    assert full is study
    assert [one.train.batch_size for one in found.values()] == [4, 4, 4]
    assert [one.train.steps for one in found.values()] == [5, 10, 10]
    assert [one.seeds for one in found.values()] == [1, 3, 3]
    assert (short.input_size, small.input_size) == ((64, 48), (32, 32))
    assert small.space.base == study.space.base | {"num_blocks": 1}
    assert (short.scales, small.scales) == ({}, {})


def test_a_scale_says_what_the_whole_file_would_say(tmp_path: Path) -> None:
    """A default that follows from what the scale changes is that of the scale."""
    steps = {"train": {"epochs": 2, "steps": None}}
    study = load_study(written(tmp_path, {**SCALED, "scales": {"short": steps}}))
    whole = changed(changed(POSE, "train.epochs", 2), "train.steps", GONE)
    whole |= {"name": "pose-short", "title": "pose: scale short"}
    assert study.at_scale("short") == load_study(written(tmp_path, whole, "whole.yaml"))


def test_a_study_with_scales_loads_as_it_was_dumped(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, SCALED))
    again = load_study(written(tmp_path, dump_study(study), "again.yaml"))
    assert again == study
    assert again.at_scales() == study.at_scales()


def test_paths_of_scales_are_relative_to_the_file(tmp_path: Path) -> None:
    content = {**SEGMENTATION, "scales": {"few": {"data": {"root": "few"}}}}
    file = written(tmp_path, content, "studies/s.yaml")
    assert load_study(file).at_scale("few").data.root == str(tmp_path / "studies" / "few")
    given = load_study(file, ["scales.few.data.root=few"]).at_scale("few")
    assert given.data.root == str(Path("few").absolute())


@pytest.mark.parametrize(
    ("scales", "parts"),
    [
        ({"short": {}}, ["scales.short", "changes nothing"]),
        ({"short": {"space": {}}}, ["scales.short", "changes nothing"]),
        (
            {"short": {"seeds": 1}, "Short": {"seeds": 2}},
            ["scales: ", "must differ by more than capital letters"],
        ),
        ({"short": {"trian": {"steps": 5}}}, ["scales.short.trian", "'train'"]),
        ({"short": {"name": "other"}}, ["scales.short.name", "must be one of data, task"]),
        ({"short": {"reference": "x"}}, ["scales.short.reference", "must be one of data, task"]),
        ({"short": {"train": 5}}, ["scales.short.train", "must be a mapping"]),
        ({"short": {"train": {"stepz": 5}}}, ["scales.short.train.stepz", "'steps'"]),
        ({"short": {"train": {"steps": 0}}}, ["scales.short.train.steps", "0"]),
        ({"short": {"seeds": "two"}}, ["scales.short.seeds", "'two'"]),
        ({"short": {"space": {"vary": {}}}}, ["scales.short.space.vary", "must be one of base"]),
        (
            {"short": {"space": {"base": {"widht": 4}}}},
            ["scales.short.space.base.widht", "'width'"],
        ),
        ({"short": {"data": {"input_size": [8, 8]}}}, ["scales.short.data.input_size.0", "8"]),
        ({"full": {"seeds": 1}}, ["scales", "'full'"]),
        ({"a.b": {"seeds": 1}}, ["scales", "'a.b'"]),
        ({"short": {"task": {"metric": "nme"}}}, ["scales.short.task.metric", "'nme'"]),
    ],
)
def test_wrong_scales_are_refused(tmp_path: Path, scales: object, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_study(written(tmp_path, {**POSE, "scales": scales}))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_scales_that_a_limit_reaches_differently_are_refused(tmp_path: Path) -> None:
    content = changed(SCALED, "space.vary", {"width": {"choices": [4, 8]}})
    macs = [
        load_study(written(tmp_path, content)).costs({"width": w})["profile.macs"] for w in (4, 8)
    ]
    content = changed(content, "space.limits", {"profile.macs": sum(macs) / 2})
    with pytest.raises(InputError, match=r"scales\.small: .* the same arms"):
        load_study(written(tmp_path, content))


def test_scales_whose_name_is_too_long_and_those_of_searches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scales\.short: makes a name of more than 64"):
        load_study(written(tmp_path, {**SCALED, "name": "x" * 60}))
    search = {"sampler": "random", "networks": 2}
    with pytest.raises(InputError, match=r"scales: .* a search by random has no arms"):
        load_study(written(tmp_path, {**SCALED, "search": search}))


# --- variants ----------------------------------------------------------------------------------

V1: dict[str, Any] = {}  # the study as it is
V2 = {"task": {"head": "v2"}}
SMALL = {"data": {"input_size": [32, 32]}}
WIDTHS = changed(POSE, "space", {"vary": {"width": {"choices": [4, 8]}}})
VARIED = {**WIDTHS, "variants": {"v1": V1, "v2": V2, "small": SMALL}}


def test_each_network_is_an_arm_under_each_variant(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, yaml.safe_dump(VARIED, sort_keys=False)))
    assert [study.arm(params) for params in study.arms()] == [
        "width=4, v1", "width=4, v2", "width=4, small",
        "width=8, v1", "width=8, v2", "width=8, small",
    ]  # fmt: skip
    assert study.arms()[1] == {"width": 4, "variant": "v2"}
    assert study.reference_arm == "width=8, small"
    assert list(study.parts) == ["v1", "v2", "small"]
    under = [study.under(params) for params in study.arms()]
    assert [one.task.head for one in under] == ["v1", "v2", "v1"] * 2
    assert [one.input_size for one in under] == [(64, 48), (64, 48), (32, 32)] * 2
    assert all(one.variants == {} and one.name == "pose" for one in under)


def test_networks_costs_and_keys_are_those_of_the_variants_study(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, VARIED))
    for params in study.arms():
        part, knobs = study.under(params), {"width": params["width"]}
        assert study.original(params) == knobs
        assert study.network(params) == part.network(knobs)
        assert study.costs(params) == part.costs(knobs)
        assert study.arguments(params) == part.arguments(knobs)
        assert study.key(params) == f"{part.network(knobs).key}-{params['variant']}"
    assert len({study.key(params) for params in study.arms()}) == 6


def test_without_variants_keys_are_those_of_the_networks(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, POSE))
    assert [study.key(p) for p in study.arms()] == [study.network(p).key for p in study.arms()]
    assert study.parts == {"": study}
    assert study.under(study.arms()[0]) is study


def test_where_there_is_one_network_arms_are_called_as_variants(tmp_path: Path) -> None:
    one = changed(VARIED, "space.vary", {"width": {"choices": [4]}})
    study = load_study(written(tmp_path, {**one, "reference": "v2"}))
    assert {study.arm(params) for params in study.arms()} == {"v1", "v2", "small"}
    content = {**changed(one, "data.input_size", [64, 64]), "rivals": ["hourglass_8"]}
    with_rival = load_study(written(tmp_path, yaml.safe_dump(content, sort_keys=False)))
    assert [with_rival.arm(params) for params in with_rival.arms()] == [
        "width=4, v1", "width=4, v2", "width=4, small",
        "hourglass_8, v1", "hourglass_8, v2", "hourglass_8, small",
    ]  # fmt: skip
    assert with_rival.arms()[3] == {"rival": "hourglass_8", "variant": "v1"}
    assert with_rival.network(with_rival.arms()[3]).to_dict() == {"rival": "hourglass_8"}
    assert with_rival.reference_arm == "width=4, small"


def test_distinct_networks_and_limits_are_those_of_each_variant(tmp_path: Path) -> None:
    """How maps are enlarged makes no difference to V1, where the body takes the nearest place."""
    space = {"base": {"width": 4}, "vary": {"align_corners": {"choices": [False, True]}}}
    content = {**VARIED, "space": space, "variants": {"a": V1, "b": V2}}
    study = load_study(written(tmp_path, content))
    for name, part in study.parts.items():
        own = [study.original(p) for p in study.arms() if p["variant"] == name]
        assert own == part.arms()
    assert [study.arm(params) for params in study.arms()] == [
        "align_corners=false, a", "align_corners=false, b", "align_corners=true, b",
    ]  # fmt: skip
    limited = changed(VARIED, "space.limits", {"profile.macs": 1e12})
    free = load_study(written(tmp_path, limited))
    macs = {free.arm(p): free.costs(p)["profile.macs"] for p in free.arms()}
    most = macs["width=8, v1"]
    assert macs["width=8, v2"] > most
    study = load_study(written(tmp_path, changed(VARIED, "space.limits", {"profile.macs": most})))
    assert {study.arm(p) for p in study.arms()} == {a for a, m in macs.items() if m <= most}
    assert study.left_out() == sum(m > most for m in macs.values()) > 0


def test_a_study_with_variants_loads_as_it_was_dumped(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, VARIED), ["variants.v2.train.lr=0.01"])
    assert study.parts["v2"].train.lr == 0.01
    again = load_study(written(tmp_path, dump_study(study), "again.yaml"))
    assert again == study
    for name, part in study.parts.items():
        assert dump_study(again.parts[name]) == dump_study(part)


def test_paths_of_variants_are_relative_to_the_file(tmp_path: Path) -> None:
    content = {**SEGMENTATION, "variants": {"all": {}, "few": {"data": {"root": "few"}}}}
    file = written(tmp_path, content, "studies/s.yaml")
    parts = load_study(file).parts
    roots = {name: part.data.root for name, part in parts.items()}  # type: ignore[union-attr]
    assert roots["few"] == str(tmp_path / "studies" / "few")
    assert roots["all"] == str(tmp_path / "studies" / "camvid")
    given = load_study(file, ["variants.few.data.root=few"]).parts["few"]
    assert given.data.root == str(Path("few").absolute())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("variants", "parts"),
    [
        ({"v1": {}}, ["variants: ", "at least two"]),
        ({"a": {}, "b": {"task": {"head": "v1"}}}, ["variants.b", "the same study as variant a"]),
        ({"a": V2, "A": {}}, ["variants: ", "must differ by more than capital letters"]),
        ({"a.b": V2, "c": {}}, ["variants", "'a.b'"]),
        ({"a": V2, "b": {"seeds": 2}}, ["variants.b.seeds", "must be one of data, task, train"]),
        ({"a": V2, "b": {"space": {}}}, ["variants.b.space", "must be one of data, task, train"]),
        ({"a": V2, "b": {"task": "v1"}}, ["variants.b.task", "must be a mapping"]),
        ({"a": V2, "b": None}, ["variants.b"]),
        ({"a": V2, "b": {"task": {"heed": "v1"}}}, ["variants.b.task.heed", "'head'"]),
        ({"a": {}, "b": {"data": {"input_size": [8, 8]}}}, ["variants.b.data.input_size.0", "8"]),
        ({"a": {}, "b": {"train": {"steps": 5}}}, ["variants.b.train.steps", "5", "(10)"]),
        ({"a": {}, "b": {"train": {"evaluations": 2}}}, ["variants.b.train.evaluations", "(5)"]),
        ({"a": {}, "b": {"train": {"precision": "float32"}}}, ["variants.b.train.precision"]),
        ({"a": {}, "b": {"task": {"metric": "nme"}}}, ["variants.b.task.metric", "'nme'"]),
    ],
)
def test_wrong_variants_are_refused(tmp_path: Path, variants: object, parts: list[str]) -> None:
    text = refusal(lambda: load_study(written(tmp_path, {**POSE, "variants": variants})))
    assert all(part in text for part in parts), text


def test_variants_that_learn_other_things_are_refused(tmp_path: Path) -> None:
    other = {"data": {"class_names": ["sky", "road", "bus"]}}
    content = {**SEGMENTATION, "variants": {"a": {}, "b": other}}
    text = refusal(lambda: load_study(written(tmp_path, content)))
    assert "variants.b.data: changes the joints or classes" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("match", {"profile.macs": "reference"}),
        ("adaptive", {"most": 9}),
        ("scales", {"short": {"train": {"steps": 5}}}),
    ],
)
def test_beside_variants_there_is_no_other_plan_of_arms(
    tmp_path: Path, key: str, value: object
) -> None:
    text = refusal(lambda: load_study(written(tmp_path, {**VARIED, key: value})))
    assert f"{key}: cannot be given beside variants" in text


def test_variants_are_for_grids_and_no_knob_has_their_name(tmp_path: Path) -> None:
    search = {"sampler": "random", "networks": 2}
    text = refusal(lambda: load_study(written(tmp_path, {**VARIED, "search": search})))
    assert "variants: " in text
    assert "a search by random has no arms" in text
    vary = {"variant": {"arms": {"a": {"width": 4}, "b": {"width": 8}}}}
    text = refusal(lambda: load_study(written(tmp_path, changed(VARIED, "space.vary", vary))))
    assert "space.vary.variant: is reserved for variants" in text
    assert load_study(written(tmp_path, changed(POSE, "space.vary", vary))).arms()


def test_the_reference_is_an_arm_of_a_variant(tmp_path: Path) -> None:
    content = {**VARIED, "reference": "width=4, v1"}
    assert load_study(written(tmp_path, content)).reference_arm == "width=4, v1"
    text = refusal(lambda: load_study(written(tmp_path, {**VARIED, "reference": "width=4"})))
    assert "must be one of the space's arms" in text
