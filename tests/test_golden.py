"""The networks are the official ones, number by number; and the script that says so can be trusted.

The script is `tests/golden.py`; the files and their sources are listed in `tests/golden`.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import TOLERANCE, check, main, names_and_shapes, network

from hrnet_search.blueprint import canonical
from hrnet_search.presets import preset

FOLDER = Path(__file__).parent / "golden"
FILES = {file.stem: file for file in sorted(FOLDER.glob("*.json"))}
SMALL = "seg_hrnet_w18_small_v1"


def load(name: str) -> dict[str, Any]:
    return json.loads(FILES[name].read_text())


def test_a_file_of_every_official_repository_is_here() -> None:
    assert {
        *("pose_hrnet_w32", "pose_resnet_50", "cls_hrnet_w18_small_v1", "cls_hrnet_w18"),
        *("seg_hrnet_w18_small_v1", "seg_hrnet_w18", "seg_hrnet_ocr_w48", "det_hrfpn_w18"),
    } <= FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_outputs_and_maps_on_the_way_are_those_of_the_official_code(name: str) -> None:
    assert check(load(name)) <= TOLERANCE


@pytest.mark.parametrize("name", FILES)
def test_state_dict_has_the_official_names_and_shapes_in_order(name: str) -> None:
    golden = load(name)
    with torch.device("meta"):
        ours = names_and_shapes(network(golden))
    if "ocr" in name:  # the official code has the coarse scores after the final ones
        ours = sorted(ours, key=lambda entry: entry[0].startswith("aux_head"))
    assert ours == golden["state_dict"]


@pytest.mark.parametrize(
    ("name", "head", "arch", "corners"),
    [  # files that are not here, by their names
        ("pose_hrnet_w48", "v1", "w48", False),
        ("seg_hrnet_w18_small_v2", "v2", "w18-small-v2", False),
        ("seg_hrnet_w48", "v2", "w48", False),
        ("seg_hrnet_w18_small_v1_odd_97x113", "v2", "w18-small-v1", False),
        ("seg_hrnet_w48_align_corners_true", "v2", "w48", True),
        ("seg_hrnet_ocr_w48_align_corners_false", "ocr", "w48", False),
        ("cls_hrnet_w18_small_v2", "cls", "w18-small-v2", False),
        ("cls_hrnet_w32", "cls", "w32", False),
        ("det_hrfpn_w32", "v2p", "w32", False),
    ],
)
def test_the_name_of_a_file_tells_its_network(
    name: str, head: str, arch: str, corners: bool
) -> None:
    task = {"pose": "pose", "cls": "classification", "det": "detection"}.get(name[:4].strip("_"))
    outputs = {"num_joints": 17, "num_classes": 17, "out_channels": 17}
    with torch.device("meta"):
        net = network({"model": name, "config": {**outputs, "align_corners": corners}})
    assert net.head_name == head
    expected = preset(arch, task=task or ("segmentation_ocr" if corners else "segmentation"))
    assert net.spec == canonical(expected, head)
    assert net.spec.align_corners is corners


# --- the script --------------------------------------------------------------------------------


def test_the_script_prints_one_line_per_file_wherever_it_is_called(tmp_path: Path) -> None:
    script = FOLDER.with_suffix(".py")
    done = subprocess.run(
        [sys.executable, script, FILES[SMALL], FILES["cls_hrnet_w18_small_v1"]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    models, worst, verdicts = zip(*map(str.split, done.stdout.splitlines()), strict=True)
    assert models == (SMALL, "cls_hrnet_w18_small_v1")
    assert verdicts == ("ok", "ok")
    assert all(float(figure) <= TOLERANCE for figure in worst)


def verdict(tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]) -> str:
    """What the script says about a file that is not good: one line, and exit status 1."""
    file = tmp_path / "file.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    assert main([str(file)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    return line.replace(f"{file}: ", "")


def add(*keys: Any, by: float) -> Callable[[dict[str, Any]], None]:
    """Alters one number of a file."""

    def alter(golden: Any) -> None:
        for key in keys[:-1]:
            golden = golden[key]
        golden[keys[-1]] += by

    return alter


@pytest.mark.parametrize(
    ("name", "alter"),
    [
        (SMALL, add("outputs", 0, "values", 7, by=2e-4)),
        (SMALL, add("outputs", 0, "std", by=2e-4)),
        (SMALL, add("intermediates", "layer1", "absmax", by=1e-3)),
        (SMALL, add("intermediates", "stage3[2]", "mean", by=1e-3)),
        ("pose_resnet_50", add("intermediates", "deconv_layers", "std", by=1e-3)),
        ("det_hrfpn_w18", add("backbone_outputs", 3, "values", 7, by=0.01)),
        ("det_hrfpn_w18", add("outputs", 4, "values", 7, by=0.02)),
    ],
)
def test_one_altered_number_differs(
    name: str,
    alter: Callable[[dict[str, Any]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    golden = load(name)
    alter(golden)
    model, worst, word = verdict(tmp_path, golden, capsys).split()
    assert (model, word) == (name, "DIFFERS")
    assert TOLERANCE < float(worst) < 0.01


def rename(golden: dict[str, Any]) -> None:
    golden["state_dict"][0][0] = "conv0.weight"


def reshape(golden: dict[str, Any]) -> None:
    golden["state_dict"][0][1] = [64, 3, 5, 5]


@pytest.mark.parametrize(
    ("alter", "text"),
    [
        (
            rename,
            "names or shapes differ: [('conv0.weight', (64, 3, 3, 3)), "
            "('conv1.weight', (64, 3, 3, 3))]",
        ),
        (
            reshape,
            "names or shapes differ: [('conv1.weight', (64, 3, 3, 3)), "
            "('conv1.weight', (64, 3, 5, 5))]",
        ),
        (add("num_params", by=1), "number of parameters differs from the file's num_params"),
        (
            add("fill_check", "all_float_entries", "sum", by=1.0),
            "weights differ from the file's fill_check",
        ),
        (
            add("fill_check", "entries", "conv1.weight", "first", 2, by=1e-4),
            "weights differ from the file's fill_check",
        ),
        (
            add("fill_check", "entries", "bn1.bias", "sum", by=1e-3),
            "weights differ from the file's fill_check",
        ),
        (add("input", "sum", by=0.5), "input differs from the file's"),
        (add("input", "seed", by=1), "input differs from the file's"),
        (
            add("outputs", 0, "shape", 3, by=1),
            "shape [1, 19, 32, 32] instead of [1, 19, 32, 33]",
        ),
        (
            lambda golden: golden["intermediates"].update({"stage4[4]": {}}),
            "no such map: stage4[4]",
        ),
        (lambda golden: golden["outputs"].append({}), "1 outputs instead of 2"),
        (lambda golden: golden.update(model="seg_hrnet_w19"), None),
        (lambda golden: golden.update(model="hrnet"), "hrnet: no such model"),
        (lambda golden: golden.pop("fill_check"), "lacks 'fill_check'"),
        (lambda golden: golden.update(outputs=3), None),
    ],
)
def test_what_is_not_a_number_is_told_in_one_line(
    alter: Callable[[dict[str, Any]], None],
    text: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    golden = load(SMALL)
    alter(golden)
    line = verdict(tmp_path, golden, capsys)
    assert line.endswith("  DIFFERS")
    if text is not None:
        assert line == f"{golden['model']:44} {text}  DIFFERS"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"params": 3}, "is no golden file of a network"),
        ([], "is no golden file of a network"),
        ("state_dict", "is not JSON"),
    ],
)
def test_what_is_no_golden_file_is_told(
    content: object, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(tmp_path, content, capsys) == text


def test_a_missing_file_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.json"
    assert main([str(missing), str(FILES[SMALL])]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{missing}: cannot be read (No such file or directory)"
    assert second.endswith("  ok")


def test_without_files_the_script_says_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python tests/golden.py" in capsys.readouterr().out
