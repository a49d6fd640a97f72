"""The exported winner, used in processes that cannot import the package it came from."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import load_file, save, save_file
from tiny import TINY_POSE_STUDY

from hrnet_search.arch import ArchSpec
from hrnet_search.cli import main
from hrnet_search.detectors import Detector, HRPyramid, build_detector
from hrnet_search.errors import InputError
from hrnet_search.export import check_again, choose_winner, export_winner, formats, front_trials
from hrnet_search.export import folder as module
from hrnet_search.export.again import PLAIN, measure_graph, source_network
from hrnet_search.export.card import card as card_of
from hrnet_search.export.runtime import InOnnxRuntime
from hrnet_search.export.verify import differences, run_alone
from hrnet_search.files import scratch_folder, write_json
from hrnet_search.frameworks import DetectorSpec
from hrnet_search.keypoints import decode
from hrnet_search.labels import SYNTHETIC_CLASSES
from hrnet_search.model import build
from hrnet_search.networks import initialise, network
from hrnet_search.outputs import NamedOutputs
from hrnet_search.predict import Person, open_winner, plan, predict
from hrnet_search.presets import preset
from hrnet_search.result import Result
from hrnet_search.study import Study, dump_study, load_study
from hrnet_search.tasks import load_task, prepare
from hrnet_search.training import Hardware, evaluate

ROOT = Path(__file__).parents[1]
ISOLATED = """
import sys
sys.modules["hrnet_search"] = None
sys.path.insert(0, sys.argv[1])
"""


def result(trial: int, arm: str, seed: int, ap: float | None) -> Result:
    return Result(
        study="s", trial=trial, state="failed" if ap is None else "complete", arm=arm, params={},
        seed=seed, key=arm, arch={}, profile={}, metrics={} if ap is None else {"ap": ap},
        history=[], seconds=0.0, attempt=1, started="",
    )  # fmt: skip


def test_the_winner_is_the_best_seed_of_the_arm_with_the_best_mean() -> None:
    rows = [("a", 0, 0.9), ("a", 1, 0.1), ("b", 0, 0.6), ("b", 1, 0.7)]
    results = [result(n, *row) for n, row in enumerate(rows)]
    winner = choose_winner(results, "metrics.ap")
    assert winner is not None
    assert winner.trial == 3


def test_an_arm_with_fewer_seeds_does_not_win() -> None:
    rows = [("a", 0, 0.9), ("a", 1, None), ("b", 0, 0.6), ("b", 1, 0.7)]
    winner = choose_winner([result(n, *row) for n, row in enumerate(rows)], "metrics.ap")
    assert winner is not None
    assert winner.arm == "b"


def test_the_smallest_error_wins() -> None:
    rows = [("a", 0, 0.05), ("a", 1, 0.07), ("b", 0, 0.01), ("b", 1, 0.2)]
    results = [
        replace(result(n, arm, seed, None), state="complete", metrics={"nme": error})
        for n, (arm, seed, error) in enumerate(rows)
    ]
    winner = choose_winner(results, "metrics.nme")
    assert winner is not None
    assert winner.trial == 0


def test_there_is_no_winner_without_a_complete_trial() -> None:
    assert choose_winner([], "metrics.ap") is None
    assert choose_winner([result(0, "a", 0, None)], "metrics.ap") is None


def test_a_network_that_has_learnt_nothing_is_exported_but_not_praised() -> None:
    """So that every command works after a few steps, of which the smoke study has no more."""
    results = [result(n, arm, 0, 0.0) for n, arm in enumerate("ab")]
    chosen = choose_winner(results, "metrics.ap")
    assert chosen == results[0]
    study = load_study(ROOT / "studies" / "smoke.yaml")
    nothing = "This network has learnt nothing: its AP is 0. It shows how an exported network"
    flatter = "The figures are those of one seed on the validation data it was chosen on"
    for ap, words in ((0.0, nothing), (0.001, flatter)):
        trained = replace(result(0, "a", 0, ap), environment={"versions": {"torch": "1"}})
        card = card_of(study, trained, "v1", module.NOTHING)
        assert [text in card for text in (nothing, flatter)] == [words == nothing, words == flatter]


def make_run(run: Path, study: Study, *, seed: int = 0) -> Path:
    """A run of one trial whose weights are the initial ones, BatchNorm statistics stirred."""
    data = prepare(study, lambda done, total: None)
    params = study.arms()[-1]
    spec = study.space.arch(params)
    net = network(study, spec.to_dict())
    initialise(net, seed=seed)
    with torch.no_grad():
        body = net.train().backbone if study.detector else net.train()
        body(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    trial = run / "trials" / "00000"
    trial.mkdir(parents=True)
    (trial / "weights.safetensors").write_bytes(save(dict(net.state_dict())))
    (run / "study.yaml").write_text(dump_study(study))
    record = Result(
        study=study.name, trial=0, state="complete", arm=study.space.arm(params), params=params,
        seed=seed, key=spec.key, arch=spec.to_dict(), profile={"macs": 1e6, "params": 1e5},
        metrics={study.accuracy.removeprefix("metrics."): 0.25}, history=[], seconds=1.0,
        attempt=1, started=f"seed {seed}",
        environment={
            "data": {"folder": str(data.folder), "checksum": data.checksum},
            "versions": {"torch": torch.__version__},
        },
    )  # fmt: skip
    write_json(trial / "result.json", record.to_dict())
    return run


@pytest.fixture(scope="module")
def pose_run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    run = tmp_path_factory.mktemp("pose") / "smoke"
    return make_run(run, load_study(ROOT / "studies" / "smoke.yaml"))


@pytest.fixture(scope="module")
def winner(pose_run: Path) -> Path:
    folder = export_winner(pose_run, pose_run.parent / "report")
    assert folder is not None
    return folder


def random_picture(file: Path, size: tuple[int, int], *, seed: int, labels: int = 0) -> None:
    """A file of noise (H, W), in colour or of labels below `labels`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    shape = size if labels else (*size, 3)
    values = torch.randint(0, labels or 256, shape, generator=generator, dtype=torch.uint8)
    Image.fromarray(values.numpy()).save(file)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of noise per split in the CamVid layout."""
    root = tmp_path_factory.mktemp("camvid")
    for split in ("train", "val"):
        for number in range(2):
            name = f"{number}.png"
            random_picture(root / split / name, (50, 70), seed=number)
            random_picture(root / f"{split}annot" / name, (50, 70), seed=number, labels=11)
    return root


def export_camvid(camvid: Path, base: Path, *overrides: str) -> Path:
    study = load_study(
        ROOT / "studies" / "camvid_fusion_ablation.yaml",
        [f"data.root={camvid}", "data.crop_size=[32, 32]", *overrides],
    )
    folder = export_winner(make_run(base / "run", study), base / "report")
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def segmentation_winner(
    camvid: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> Path:
    return export_camvid(camvid, tmp_path_factory.mktemp("segmentation"), "data.base_length=80")


@pytest.fixture(scope="module")
def ocr_winner(camvid: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    base = tmp_path_factory.mktemp("ocr")
    return export_camvid(camvid, base, "task.head=ocr", "task.test.resize=[64, 96]")


@pytest.fixture(scope="module")
def classification_winner(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    base = tmp_path_factory.mktemp("classification")
    for split in ("train", "val"):
        for number, name in enumerate(("ant", "bee", "cat")):
            random_picture(base / "data" / split / name / "0.png", (60, 45), seed=number)
    raw = {
        "name": "three",
        "task": {"kind": "classification"},
        "data": {
            "kind": "image_folders",
            "root": str(base / "data"),
            "num_classes": 3,
            "input_size": [48, 32],
        },
        "space": TINY_POSE_STUDY["space"],
        "train": TINY_POSE_STUDY["train"],
    }
    study = Study.model_validate(raw)
    folder = export_winner(make_run(base / "run", study), base / "report")
    assert folder is not None
    return folder


DETECTION = Study.model_validate(
    {
        "name": "objects",
        "task": {
            **{"kind": "detection", "framework": "mask_rcnn", "channels": 16, "hidden": 32},
            **{"test_proposals": 50},
        },
        "data": {
            **{"kind": "synthetic_detection", "num_train": 2, "num_val": 2},
            **{"image_size": [70, 128]},
        },
        "space": TINY_POSE_STUDY["space"],
        "train": {**TINY_POSE_STUDY["train"], "batch_size": 2},
    }
)


@pytest.fixture(scope="module")
def detection_winner(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    base = tmp_path_factory.mktemp("detection")
    folder = export_winner(make_run(base / "run", DETECTION), base / "report")
    assert folder is not None
    return folder


def isolated(script: str, *arguments: object, cwd: Path) -> str:
    """Output of a fresh process, outside the repository, in which hrnet_search cannot load."""
    command = [sys.executable, "-I", "-W", "error::ImportWarning", "-c", ISOLATED + script]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_outputs_of_the_export_are_bit_for_bit_those_of_the_network(
    pose_run: Path, winner: Path, tmp_path: Path
) -> None:
    record = Result.read(pose_run / "trials" / "00000" / "result.json")
    net = build(ArchSpec.from_dict(record.arch), head="v1", num_outputs=17)
    net.load_state_dict(load_file(pose_run / "trials" / "00000" / "weights.safetensors"))
    generator = torch.Generator().manual_seed(1)
    sizes = ((32, 32), (64, 48), (97, 131))
    images = {f"{h}x{w}": torch.randn(2, 3, h, w, generator=generator) for h, w in sizes}
    save_file(images, tmp_path / "in.safetensors")
    script = """
import torch
from safetensors.torch import load_file, save_file
from network import load_network
torch.set_num_threads(int(sys.argv[4]))
net = load_network(sys.argv[1])
with torch.inference_mode():
    outputs = {size: net(image) for size, image in load_file(sys.argv[2]).items()}
save_file(outputs, sys.argv[3])
try:
    import hrnet_search
except ImportError:
    print("isolated", list(net.body.channels), list(net.body.strides))
"""
    threads = torch.get_num_threads()
    arguments = (winner, tmp_path / "in.safetensors", tmp_path / "out.safetensors", threads)
    said = isolated(script, *arguments, cwd=tmp_path)
    outputs = load_file(tmp_path / "out.safetensors")
    net.eval()
    for size, image in images.items():
        with torch.inference_mode():
            expected = net(image)
        assert torch.equal(outputs[size], expected)
        assert expected.abs().max() > 0
    assert said.strip() == "isolated [4] [4]"


def foreign_imports(folder: Path) -> set[str]:
    """What the source in an exported folder imports beside the standard library."""
    modules = set()
    for file in (folder / "network").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(str(node.module).partition(".")[0])
    return modules - set(sys.stdlib_module_names)


def test_the_source_imports_torch_pillow_and_the_standard_library_alone(winner: Path) -> None:
    assert foreign_imports(winner) == {"torch", "safetensors", "PIL"}
    # safetensors is read by one function, on demand, and Pillow is for crops and drawings: the
    # network itself needs torch alone.
    script = """
for name in ("safetensors", "PIL", "numpy"):
    sys.modules[name] = None
from network import load_network
print(sum(p.numel() for p in load_network(sys.argv[1], weights=False).parameters()))
"""
    assert int(isolated(script, winner, cwd=winner.parent)) > 0


def test_the_source_of_a_detector_imports_torchvision_as_well(detection_winner: Path) -> None:
    assert foreign_imports(detection_winner) == {"torch", "torchvision", "safetensors", "PIL"}
    card = (detection_winner / "README.md").read_text()
    assert "needs torch, torchvision, safetensors and pillow" in card
    arch = json.loads((detection_winner / "arch.json").read_text())
    assert (arch["head"], arch["num_outputs"]) == ("v2p", 16)
    assert DETECTION.detector is not None
    assert arch["detector"] == DETECTION.detector.to_dict()


# Runs examples as __main__, one after the other, without what a winner's folder must do without.
EXAMPLES = """
import contextlib, io, json, runpy
for name in sys.argv[2].split():
    sys.modules[name] = None
del sys.path[0]
said = []
for folder, arguments in json.loads(sys.argv[1]):
    for name in [name for name in sys.modules if name.partition(".")[0] == "network"]:
        del sys.modules[name]
    sys.path.insert(0, folder)  # as `python FOLDER/example.py` does
    sys.argv = [f"{folder}/example.py", *arguments]
    stream = io.StringIO()
    try:
        with contextlib.redirect_stdout(stream):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as exit_:
        stream.write(str(exit_.code))
    del sys.path[0]
    said.append(stream.getvalue())
print(json.dumps(said))
"""
BOX = (90.0, 10.0, 40.0, 100.0)
OTHERS = "scipy pycocotools timm pydantic yaml rich ray optuna"


@pytest.fixture(scope="module")
def examples(
    winner: Path,
    segmentation_winner: Path,
    ocr_winner: Path,
    classification_winner: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, Path, Path, str]]:
    """Of each call of an example: the winner, the image, the drawing, what was printed."""
    base = tmp_path_factory.mktemp("examples")
    photo, text = base / "photo.jpg", base / "text.png"
    random_picture(photo, (120, 200), seed=5)
    text.write_text("no image")
    calls = {
        "pose": (winner, photo, []),
        "box": (winner, photo, ["--box", *map(str, BOX)]),
        "text": (winner, text, []),
        "segmentation": (segmentation_winner, None, []),
        "ocr": (ocr_winner, photo, []),
        "classification": (classification_winner, photo, []),
    }
    jobs = [
        (str(folder), [*([str(image), "--out", f"{name}.png"] if image else []), *more])
        for name, (folder, image, more) in calls.items()
    ]
    without = f"numpy torchvision {OTHERS}"
    said = json.loads(isolated(EXAMPLES, json.dumps(jobs), without, cwd=base))
    return {
        name: (
            folder,
            image or folder / "sample.png",
            base / f"{name if image else 'prediction'}.png",
            output,
        )
        for (name, (folder, image, _)), output in zip(calls.items(), said, strict=True)
    }


def expected_lines(record: dict[str, Any]) -> list[str]:
    """What the example prints of what `predict` has found."""
    if "people" in record:
        joints = record["people"][0]["keypoints"].items()
        return [f"{n:15s} x {x:6.1f}  y {y:6.1f}  score {s:.3f}" for n, (x, y, s) in joints]
    width = 15 if "classes" in record else 25
    shares = record.get("classes") or record["scores"]
    return [f"{name:{width}s} {share:6.1%}" for name, share in shares.items()]


@pytest.mark.parametrize("call", ["pose", "box", "segmentation", "ocr", "classification"])
def test_the_example_finds_and_draws_what_predict_does(
    examples: dict[str, tuple[Path, Path, Path, str]], tmp_path: Path, call: str
) -> None:
    folder, image, drawing, said = examples[call]
    people = [Person(image.name, BOX)] if call == "box" else None
    predict(open_winner(folder), plan([image], people), tmp_path)
    record = json.loads((tmp_path / f"{image.stem}.json").read_text())
    *lines, last = said.splitlines()
    assert lines == expected_lines(record)
    assert last.startswith(f"{drawing} shows them")
    drawn, expected = (Image.open(file) for file in (drawing, tmp_path / f"{image.stem}.png"))
    assert drawn.size == expected.size
    assert drawn.tobytes() == expected.tobytes()


def test_the_example_finds_and_draws_the_objects_that_predict_does(
    detection_winner: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    random_picture(photo, (90, 150), seed=5)
    predict(open_winner(detection_winner), plan([photo]), tmp_path)
    record = json.loads((tmp_path / "photo.json").read_text())
    # An untrained network is unsure of everything, and half of it shall be shown.
    least = median(one["score"] for one in record["objects"])
    predict(open_winner(detection_winner), plan([photo]), tmp_path, score=least)
    arguments = [str(photo), "--out", "drawing.png", "--score", str(least)]
    calls = (arguments, [str(photo), "--out", "not.png", "--score", "0.04"])
    jobs = json.dumps([(str(detection_winner), call) for call in calls])
    said, refused = json.loads(isolated(EXAMPLES, jobs, OTHERS, cwd=tmp_path))
    lines = [
        f"{one['class']:15s} x {x:6.1f}  y {y:6.1f}  width {width:6.1f}  height {height:6.1f}"
        f"  score {one['score']:.3f}"
        for one in record["objects"]
        for x, y, width, height in [one["bbox"]]
        if one["score"] >= least
    ]
    assert 0 < len(lines) < len(record["objects"])
    assert said.splitlines()[:-1] == lines
    highest = max(one["score"] for one in record["objects"])
    seen = f"{len(lines)} objects of score {least} or more, highest score {highest:.3f}"
    assert said.splitlines()[-1] == f"{tmp_path / 'drawing.png'} shows {seen}"
    drawn, expected = (Image.open(tmp_path / name) for name in ("drawing.png", "photo.png"))
    assert drawn.tobytes() == expected.tobytes()
    rule = "must be 0.05 or more, the least score of what this network finds"
    assert refused == f"--score: 0.04: {rule}"
    assert not (tmp_path / "not.png").exists()


def test_the_example_refuses_what_is_no_image(
    examples: dict[str, tuple[Path, Path, Path, str]],
) -> None:
    _, image, _, said = examples["text"]
    assert said.startswith(f"{image} is not a readable image")
    assert image.read_text() == "no image"  # the drawing would have been here


@pytest.mark.parametrize(
    "name", ["winner", "segmentation_winner", "ocr_winner", "classification_winner"]
)
def test_predict_finds_what_the_evaluation_found(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    folder: Path = request.getfixturevalue(name)
    (run,) = folder.parents[1].glob("*/study.yaml")
    study = load_study(run)
    task = load_task(study, prepare(study, lambda done, total: None))
    about = json.loads((folder / "arch.json").read_text())
    net = network(study, about["arch"]).eval()
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    with torch.inference_mode():
        task.evaluate(net, out=tmp_path / "evaluation")
    image = folder / "sample.png"  # the first validation image, or what is seen of it
    if study.task.kind == "classification":
        image = Path(study.data.root) / "val" / "ant" / "0.png"
    predict(open_winner(folder), plan([image]), tmp_path)
    record = json.loads((tmp_path / f"{image.stem}.json").read_text())
    if study.task.kind == "segmentation":
        expected, found = (
            np.asarray(Image.open(file))
            for file in (
                tmp_path / "evaluation" / "predictions" / "0_0.png",
                tmp_path / "sample_labels.png",
            )
        )
        assert (expected == found).mean() > 0.999  # but where two classes are equal
        return
    first = json.loads((tmp_path / "evaluation" / "predictions.json").read_text())[0]
    if study.task.kind == "classification":
        assert record["scores"] == pytest.approx(first["scores"], abs=1e-5)
        return
    joints = [value for joint in record["people"][0]["keypoints"].values() for value in joint]
    assert joints == pytest.approx(first["keypoints"], abs=1e-3)


@pytest.mark.parametrize(("name", "count"), [("winner", 4), ("detection_winner", 2)])
def test_what_is_found_in_a_few_validation_pictures_lies_beside(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, count: int
) -> None:
    folder: Path = request.getfixturevalue(name)
    shown = sorted((folder / "predictions").iterdir())
    assert [file.name for file in shown] == [f"{number}.jpg" for number in range(count)]
    predict(open_winner(folder), plan([folder / "sample.png"]), tmp_path)
    with Image.open(tmp_path / "sample.png") as drawn, Image.open(shown[0]) as found:
        drawn.thumbnail((480, 480))
        assert drawn.size == found.size
        off = np.abs(np.asarray(drawn.convert("RGB"), float) - np.asarray(found, float))
    assert off.mean() < 3  # of 255: what JPEG loses
    with Image.open(shown[1]) as other:
        assert np.abs(np.asarray(other, float) - np.asarray(found, float)).mean() > 10


def test_predict_finds_the_objects_that_the_evaluation_found(
    detection_winner: Path, tmp_path: Path
) -> None:
    task = load_task(DETECTION, prepare(DETECTION, lambda done, total: None))
    with torch.inference_mode():
        task.evaluate(trained(detection_winner), out=tmp_path)
    entries = json.loads((tmp_path / "predictions.json").read_text())
    expected = [entry for entry in entries if entry["image_id"] == entries[0]["image_id"]]
    predict(open_winner(detection_winner), plan([detection_winner / "sample.png"]), tmp_path)
    found = json.loads((tmp_path / "sample.json").read_text())["objects"]
    assert len(found) == len(expected) > 5
    for one, other in zip(found, expected, strict=True):
        assert one["class"] == SYNTHETIC_CLASSES[other["category_id"] - 1]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.01)
    masks, others = (
        coco_mask.decode([one["segmentation"] for one in each]) for each in (found, expected)
    )
    assert (masks == others).mean() > 0.999  # but where a probability is a half
    assert 0 < masks.mean() < 1


def test_the_card_of_a_network_with_two_outputs_says_which_counts(
    winner: Path, ocr_winner: Path
) -> None:
    line = "a pair, coarse and final, of which the second is the prediction"
    assert line in (ocr_winner / "README.md").read_text()
    assert line not in (winner / "README.md").read_text()


def test_a_folder_holds_only_what_its_task_needs(
    winner: Path, segmentation_winner: Path, classification_winner: Path
) -> None:
    assert (winner / "network" / "keypoints.py").exists()
    for folder in (winner, segmentation_winner, classification_winner):
        assert (folder / "network" / "drawing.py").exists()
        assert not (folder / "network" / "predict.py").exists()
    for folder in (segmentation_winner, classification_winner):
        assert not (folder / "network" / "keypoints.py").exists()
    for folder in (winner, segmentation_winner, classification_winner):
        for name in ("objects.py", "frameworks.py", "detectors"):
            assert not (folder / "network" / name).exists()


def test_exporting_again_changes_nothing_and_another_trial_replaces_it(
    pose_run: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "smoke", tmp_path / "report"
    shutil.copytree(pose_run, run)
    first = export_winner(run, out)
    assert first is not None
    stamp = (first / "arch.json").stat().st_mtime_ns
    export_winner(run, out)
    assert (first / "arch.json").stat().st_mtime_ns == stamp
    shutil.rmtree(run)
    make_run(run, load_study(ROOT / "studies" / "smoke.yaml"), seed=1)
    export_winner(run, out)
    assert json.loads((first / "arch.json").read_text())["source"]["seed"] == 1
    assert [path.name for path in out.iterdir()] == ["winner"]


def test_weights_that_are_not_the_networks_are_refused_and_nothing_is_left(
    pose_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "smoke"
    shutil.copytree(pose_run, run)
    file = run / "trials" / "00000" / "weights.safetensors"
    weights = load_file(file)
    weights.popitem()
    save_file(weights, file)
    with pytest.raises(InputError, match=f"{file}: must fit the network"):
        export_winner(run, tmp_path / "report")
    file.write_bytes(b"")
    with pytest.raises(InputError, match=f"{file}: must hold a state dict"):
        export_winner(run, tmp_path / "report")
    assert not list((tmp_path / "report").iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("arch.json", "{"),
        ("arch.json", "[]"),
        ("arch.json", '{"a": 1}'),
        pytest.param("arch.json", "[" * 100_000, id="arch.json-deep"),
        ("arch.json", None),
        ("weights.safetensors", ""),
        ("weights.safetensors", None),
    ],
)
def test_a_damaged_winner_is_made_anew(
    pose_run: Path,
    winner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str | None,
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})  # takes seconds, and is tested below
    folder = shutil.copytree(winner, tmp_path / "winner")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    assert export_winner(pose_run, tmp_path) == folder
    assert (folder / name).read_bytes() == (winner / name).read_bytes()
    assert list(tmp_path.iterdir()) == [folder]


EDITED = (
    *("README.md", "arch.json", "checks.json", "example.py", "preprocess.json", "sample.png"),
    *("network/__init__.py", "network/model/hrnet.py", "network/keypoints.py"),
)


@pytest.mark.parametrize("name", EDITED)
def test_a_folder_that_was_edited_is_told_and_made_anew(
    pose_run: Path, winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})
    folder = shutil.copytree(winner, tmp_path / "winner")
    said: list[str] = []
    assert export_winner(pose_run, tmp_path, warn=said.append) == folder
    assert said == []
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole + b" ")  # JSON and PNG say the same as before
    export_winner(pose_run, tmp_path, warn=said.append)
    if name == "checks.json":  # a space is nothing to it
        (folder / name).write_text("{}")
        export_winner(pose_run, tmp_path, warn=said.append)
    rule = "differs from what is exported, so the folder is written anew"
    assert said == [f"{folder}: {name} {rule}"]
    assert (folder / name).read_bytes() == whole
    (folder / name).unlink()
    export_winner(pose_run, tmp_path)
    assert (folder / name).read_bytes() == whole


def test_many_edited_files_are_told_in_one_line(
    pose_run: Path, winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})
    folder = shutil.copytree(winner, tmp_path / "winner")
    for name in EDITED:
        if name not in ("arch.json", "checks.json"):
            (folder / name).unlink()
    said: list[str] = []
    export_winner(pose_run, tmp_path, warn=said.append)
    first = "preprocess.json, sample.png, example.py and 4 more differ from what is exported"
    assert said == [f"{folder}: {first}, so the folder is written anew"]


def test_metrics_measured_again_are_forgotten_with_the_record_they_were_compared_with(
    pose_run: Path, winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})
    run = shutil.copytree(pose_run, tmp_path / "smoke")
    folder = shutil.copytree(winner, tmp_path / "report" / "winner")
    for ap, kept in ((0.25, {"ap": [0.25, 0.25]}), (0.5, {})):
        file = run / "trials" / "00000" / "result.json"
        write_json(file, replace(Result.read(file), metrics={"ap": ap}).to_dict())
        checks = json.loads((folder / "checks.json").read_text())
        write_json(folder / "checks.json", checks | {"metrics": {"ap": [0.25, 0.25]}})
        export_winner(run, tmp_path / "report")
        assert json.loads((folder / "checks.json").read_text())["metrics"] == kept


def test_what_a_killed_export_has_left_goes(
    pose_run: Path, winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})
    (tmp_path / ".winner-left" / "new").mkdir(parents=True)
    with scratch_folder(tmp_path, prefix=module.SCRATCH) as of_another:
        folder = export_winner(pose_run, tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([of_another, folder])


def test_weights_of_another_training_are_replaced_and_lost_ones_do_no_harm(
    pose_run: Path, winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})
    run = shutil.copytree(pose_run, tmp_path / "smoke")
    folder = shutil.copytree(winner, tmp_path / "report" / "winner")
    file = folder / "weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of the same size
    export_winner(run, tmp_path / "report")
    assert file.read_bytes() == whole
    (run / "trials" / "00000" / "weights.safetensors").unlink()
    assert export_winner(run, tmp_path / "report") == folder
    assert file.read_bytes() == whole


def test_outputs_that_differ_are_told_and_nothing_is_left(
    pose_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_sources = module._copy_sources

    def copy_wrong_ones(folder: Path, kind: str) -> None:
        copy_sources(folder, kind)
        with (folder / "network" / "__init__.py").open("a") as file:
            file.write("_load = load_network\n")
            file.write("load_network = lambda folder: lambda x: _load(folder)(x) + 0.5\n")

    monkeypatch.setattr(module, "_copy_sources", copy_wrong_ones)
    with pytest.raises(RuntimeError, match=r"is not the trained one: outputs differ by up to 0\.5"):
        export_winner(pose_run, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_that_puts_out_nan_is_not_exported(pose_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(pose_run, tmp_path / "run")
    file = run / "trials" / "00000" / "weights.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.startswith("head.") and name.endswith("weight"))
    file.write_bytes(save({**weights, name: torch.full_like(weights[name], 3e38)}))
    with pytest.raises(RuntimeError, match="the trained network puts out NaN or infinity"):
        export_winner(run, tmp_path / "report")
    assert not list((tmp_path / "report").iterdir())


def trained(folder: Path) -> Detector:
    """The detector of an exported folder."""
    about = json.loads((folder / "arch.json").read_text())
    net = build(ArchSpec.from_dict(about["arch"]), head="v2p", num_outputs=16)
    detector = build_detector(HRPyramid(net), DetectorSpec.from_dict(about["detector"]))
    detector.load_state_dict(load_file(folder / "weights.safetensors"))
    return detector.eval()


@pytest.mark.parametrize(
    ("score", "changed"),
    [
        (0.05, "roi_heads.mask_predictor.mask_fcn_logits.bias"),
        (1.0, "backbone.network.body.conv1.weight"),  # nothing is found: the pyramid tells
    ],
)
def test_a_detector_of_other_weights_is_not_taken_for_the_trained_one(
    detection_winner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    score: float,
    changed: str,
) -> None:
    folder = shutil.copytree(detection_winner, tmp_path / "winner")
    about = json.loads((folder / "arch.json").read_text())
    about["detector"]["score"] = score
    write_json(folder / "arch.json", about)
    task = load_task(DETECTION, prepare(DETECTION, lambda done, total: None))
    net = trained(folder)
    inputs = module._inputs(net, task)
    with torch.inference_mode():
        assert bool(len(net(*inputs)[0]["boxes"])) == (score < 1)
    if score < 1:  # what the clean process gives, which was asked for when this was exported
        whole = module._outputs(trained(folder), inputs)
        monkeypatch.setattr(module, "run_alone", lambda *_: (whole, {}))
    with torch.no_grad():
        dict(net.named_parameters())[changed] += 0.25
    with pytest.raises(RuntimeError, match="is not the trained one: outputs differ by up to"):
        module._verify(folder, net, task, (), {})


def test_the_clean_process_finds_what_this_one_finds(
    winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages may come from PYTHONPATH or the user's own folder; this one fails loudly."""
    (tmp_path / "safetensors").mkdir()
    (tmp_path / "safetensors" / "__init__.py").write_text("raise ImportError('one\\nof mine')")
    (tmp_path / "network.py").write_text("raise ImportError('not of the folder')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError) as caught:
        run_alone(winner, [torch.zeros(1, 3, 64, 64)])
    assert str(caught.value) == "the exported network could not be checked: of mine"
    (tmp_path / "safetensors" / "__init__.py").unlink()
    (tmp_path / "safetensors").rmdir()
    (output,), _ = run_alone(winner, [torch.zeros(1, 3, 64, 64)])
    assert output.shape == (1, 17, 16, 16)


def test_a_trial_that_does_not_exist_is_named_with_those_that_do(
    pose_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--trial: 7: .*there is 0"):
        export_winner(pose_run, tmp_path, trial=7)


def test_the_card_states_metrics_cost_and_versions(winner: Path) -> None:
    text = (winner / "README.md").read_text()
    for part in ("| AP | 25.0 |", "seed\n0", "torch", "smoke"):
        assert part in text


# --- graphs, fronts, metrics measured again ------------------------------------------------------

BOTH = frozenset({"onnx", "pt2"})


@pytest.fixture(scope="module")
def graphs(pose_run: Path) -> Path:
    """The pose winner with both graphs."""
    pytest.importorskip("onnxscript")
    folder = export_winner(pose_run, pose_run.parent / "graphs", formats=BOTH)
    assert folder is not None
    return folder


def session_of(folder: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def test_graphs_give_heatmaps_and_joints_of_any_batch_and_size(
    pose_run: Path, graphs: Path
) -> None:
    record = Result.read(pose_run / "trials" / "00000" / "result.json")
    net = build(ArchSpec.from_dict(record.arch), head="v1", num_outputs=17).eval()
    net.load_state_dict(load_file(graphs / "weights.safetensors"))
    session, program = session_of(graphs), torch.export.load(graphs / "model.pt2").module()
    about = json.loads((graphs / "preprocess.json").read_text())
    assert about["softmax"] is True
    generator = torch.Generator().manual_seed(1)
    for shape in ((1, 3, 32, 32), (3, 3, 64, 48), (2, 3, 97, 131)):
        image = torch.randn(shape, generator=generator)
        with torch.inference_mode():
            raw = net(image)
        heatmaps = raw.flatten(2).softmax(-1).reshape(raw.shape)
        with torch.no_grad():
            traced = program(image)
        assert torch.equal(traced["heatmaps"], heatmaps)
        found, joints = map(
            torch.from_numpy, session.run(["heatmaps", "joints"], {"image": image.numpy()})
        )
        assert (found - heatmaps).abs().max() <= 1e-5 * (heatmaps.max() - heatmaps.min())
        how = {"decoder": about["decoder"], "sigma": about["sigma"]}
        torch.testing.assert_close(joints, decode(found, **how, stride=4))
        torch.testing.assert_close(traced["joints"], decode(heatmaps, **how, stride=4))


def test_the_onnx_file_says_what_it_takes(graphs: Path) -> None:
    session = session_of(graphs)
    (image,) = session.get_inputs()
    assert (image.name, image.shape) == ("image", ["batch", 3, "height", "width"])
    joints = session.get_outputs()[1]
    assert (joints.name, joints.shape) == ("joints", ["batch", 17, 3])
    metadata = session.get_modelmeta().custom_metadata_map
    about = json.loads((graphs / "preprocess.json").read_text())
    assert json.loads(metadata["preprocess"]) == about
    assert not list(graphs.glob("*.data"))


def test_the_card_and_the_checks_have_every_difference(graphs: Path, winner: Path) -> None:
    checks = json.loads((graphs / "checks.json").read_text())
    text = (graphs / "README.md").read_text()
    assert list(checks["formats"]) == ["model.onnx", "model.pt2"]
    for file, about in checks["formats"].items():
        rows = [(row["size"], row["output"]) for row in about["differences"]]
        outputs = ("heatmaps", "joints")
        assert rows == [(size, name) for size in ([32, 32], [97, 131]) for name in outputs]
        assert all(row["share"] <= 1e-4 for row in about["differences"])
        assert about["varies"].keys() == {"batch", "height", "width"}
        for size in ("32x32", "97x131"):
            assert f"| `{file}` | {size} | `heatmaps` |" in text
    assert {row["most"] for row in checks["formats"]["model.pt2"]["differences"]} == {0.0}
    assert "## `model.onnx` and `model.pt2`" in text
    assert "model.onnx" not in (winner / "README.md").read_text()
    assert not (winner / "model.onnx").exists()


def test_a_folder_with_the_formats_asked_for_is_not_made_again(
    pose_run: Path, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def fill(folder: Path, *given: Any) -> None:
        made.append(given[3])
        (folder / "arch.json").write_text("{}")

    monkeypatch.setattr(module, "_fill", fill)
    folder = shutil.copytree(graphs, tmp_path / "winner")
    for asked in (frozenset(), frozenset({"onnx"}), BOTH):
        assert export_winner(pose_run, tmp_path, formats=asked) == folder
    assert made == []
    (folder / "model.pt2").write_bytes(b"cut off")
    export_winner(pose_run, tmp_path, formats=frozenset({"onnx"}))
    assert made == []  # nobody asked for the other
    export_winner(pose_run, tmp_path, formats=frozenset({"pt2"}))
    assert made == [BOTH]  # what was there is kept


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_before_anything_is_written(
    pose_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: str,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else real(name)
    )
    shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    assert main(["export", "smoke", "--format", "onnx", "--out", str(tmp_path)]) == 2
    rule = f"needs {absent}: pip install 'hrnet-search[onnx]'"
    assert capsys.readouterr().err == f"hrnet-search: --format: 'onnx': {rule}\n"
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--format", "onnxx"], "--format: 'onnxx': must be of torch, onnx, pt2, int8, commas"),
        (["--format", ""], "--format: '': must be of torch, onnx, pt2, int8, commas"),
        (["--trial", "0", "--pareto"], "--trial: names one network, --pareto several"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(
    pose_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], rule: str
) -> None:
    shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    assert main(["export", "smoke", *words, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"hrnet-search: {rule}")
    assert said.count("\n") == 1
    assert not (tmp_path / "reports").exists()


def test_a_graph_that_is_off_is_not_exported() -> None:
    """By a thousandth of the range, or as it is no number."""
    scores = torch.tensor([[0.0, 2.0]])
    net = NamedOutputs(Answer(scores), {"task": "classification"})
    own = net(torch.zeros(1, 3, 8, 8))
    near, off, none = (
        own | {"scores": scores + torch.tensor([[0.0, far]])} for far in (0.0001, 0.002, np.nan)
    )
    images = [torch.zeros(1, 3, 8, 8)]
    for made in (off, near):  # integers may be off, but no NaN
        differences(net, images, {"network": [own], "model-int8.onnx": [made]})
    with pytest.raises(RuntimeError, match=r"model-int8\.onnx is not the trained network"):
        differences(net, images, {"network": [own], "model-int8.onnx": [none]})
    (row, same) = differences(net, images, {"network": [own], "model.pt2": [near]})
    assert (row.output, row.size, same.most) == ("scores", (8, 8), 0.0)
    assert row.most == pytest.approx(0.0001, abs=1e-6)
    assert row.share == pytest.approx(0.00005, abs=1e-6)
    for file in ("model.onnx", "model.pt2"):
        wrong = f"{file} is not the trained network: at 8x8 its scores differ by up to "
        for found, most in ((off, "0.002"), (none, "nan")):
            with pytest.raises(RuntimeError, match=re.escape(wrong + most)):
                differences(net, images, {"network": [own], file: [found]})
    with pytest.raises(RuntimeError, match="puts out scores instead of probabilities, scores"):
        differences(net, images, {"network": [own], "model.pt2": [{"scores": scores}]})
    with pytest.raises(RuntimeError, match="the exported network is not the trained one"):
        differences(net, images, {"network": [off]})


def test_classes_are_judged_by_their_scores() -> None:
    """A class that scores a little less than the best may be chosen, one that scores 1 less not."""
    scores = torch.tensor([1.0, 1.0 - 1e-6, 0.0]).reshape(1, 3, 1, 1)
    net = NamedOutputs(Answer(scores), {"task": "segmentation", "align_corners": False})
    image = torch.zeros(1, 3, 2, 2)
    own = net(image)
    assert own["classes"].unique().tolist() == [0]
    near, far = (own | {"classes": torch.full_like(own["classes"], n)} for n in (1, 2))
    rows = differences(net, [image], {"network": [own], "model.pt2": [near]})
    assert rows[1].share == rows[1].most == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(RuntimeError, match="its classes differ by up to 1, 1 of their range"):
        differences(net, [image], {"network": [own], "model.pt2": [far]})


class Answer(torch.nn.Module):
    """Puts out the same for any image."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.scores


def exported_again(folder: Path, out: Path) -> tuple[Path, dict[str, Any]]:
    """The network of a winner with model.onnx, and what was checked of it."""
    made = export_winner(folder.parents[1] / "run", out, formats=frozenset({"onnx"}))
    assert made is not None
    about = json.loads((made / "checks.json").read_text())["formats"]["model.onnx"]
    names = [output.name for output in session_of(made).get_outputs()]
    assert names == about["outputs"]
    assert max(row["share"] for row in about["differences"]) <= 1e-4
    return made, about


def test_a_segmentation_network_as_onnx_gives_the_final_scores_and_classes(
    ocr_winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(formats, "AXES", ({},))  # the others are tested above, and take longer
    made, about = exported_again(ocr_winner, tmp_path)
    assert about["outputs"] == ["scores", "classes"]
    size = tuple(about["differences"][0]["size"])
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    scores, classes = session_of(made).run(None, {"image": image})
    assert classes.shape == (1, *size)
    assert scores.shape == (1, 11, *(-(-side // 4) for side in size))
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(scores), size=size, mode="bilinear", align_corners=True
    )
    assert json.loads((made / "preprocess.json").read_text())["align_corners"] is True
    assert (enlarged.argmax(1).numpy() == classes).mean() > 0.999  # but where two are equal


@pytest.fixture(scope="module")
def centernet_run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    raw = DETECTION.model_dump(mode="json", exclude_unset=True)
    raw["task"] = {"kind": "detection", "framework": "centernet", "channels": 16}
    run = tmp_path_factory.mktemp("centernet") / "runs" / "objects"
    return make_run(run, Study.model_validate(raw))


def test_an_operator_that_onnx_lacks_is_named_in_one_line(
    centernet_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(formats, "AXES", ({},))  # the others take longer
    out = centernet_run.parents[1]
    assert main(["export", "objects", "--format", "onnx", "--out", str(out)]) == 1
    assert capsys.readouterr().err == (
        "hrnet-search: not exported: ONNX has no form of PyTorch's cummax, which this network "
        "needs; leave onnx out of --format (pt2 has all operators)\n"
    )
    assert not list((out / "reports" / "objects").iterdir())


def test_what_onnx_refuses_is_told_in_one_line_and_the_folder_stays(
    pose_run: Path,
    winner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checker's words are of several lines, and its exceptions of its own."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(formats, "AXES", ({},))
    shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    folder = shutil.copytree(winner, tmp_path / "reports" / "smoke" / "winner")
    before = sorted(folder.rglob("*"))
    name_axes = formats._name_axes

    def swapped(model: Any, graph: Any) -> None:
        name_axes(model, graph)
        nodes = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend(reversed(nodes))

    monkeypatch.setattr(formats, "_name_axes", swapped)
    assert main(["export", "smoke", "--format", "onnx", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    begin = "hrnet-search: not exported: model.onnx is refused by ONNX's own check: "
    assert said.startswith(f"{begin}Nodes in a graph must be topologically sorted")
    assert said.count("\n") == 1

    def broken(*_: Any) -> None:
        raise onnx.shape_inference.InferenceError("[ShapeInferenceError]\nof Conv")

    monkeypatch.setattr(formats, "_name_axes", broken)
    assert main(["export", "smoke", "--format", "onnx", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{begin}[ShapeInferenceError] of Conv\n"
    assert sorted(folder.rglob("*")) == before


def test_int8_is_calibrated_on_training_images_and_its_loss_is_in_the_card(
    classification_winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    shown: list[torch.Tensor] = []
    quantise = formats.write_int8

    def kept(source: Path, target: Path, images: Any) -> None:
        shown.extend(images)
        quantise(source, target, shown)

    monkeypatch.setattr(formats, "write_int8", kept)
    monkeypatch.setattr(module, "CALIBRATION", 16)
    run = classification_winner.parents[1] / "run"
    folder = export_winner(run, tmp_path, formats=frozenset({"int8"}))
    assert folder is not None
    study = load_study(run / "study.yaml")
    task = load_task(study, prepare(study, lambda done, total: None))
    wanted = torch.cat([task.batch(step, size=8, seed=0)[0] for step in range(2)])
    assert torch.equal(torch.cat(shown), wanted)
    assert not (folder / "model.onnx").exists()
    graph = onnx.load(folder / "model-int8.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weight = made[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert types[weight.input[0]] == onnx.TensorProto.INT8
    checks = json.loads((folder / "checks.json").read_text())["formats"]["model-int8.onnx"]
    assert checks["metrics"] == measure_graph(folder / "model-int8.onnx", task)
    assert checks["float32"] == evaluate(source_network(folder), task, PLAIN)
    top1, whole = checks["metrics"]["top1"], checks["float32"]["top1"]
    row = f"| Top-1 | {100 * top1:.1f} | {100 * whole:.1f} | {top1 - whole:+.2g} |"
    text = (folder / "README.md").read_text()
    assert "| figure | `model-int8.onnx` | in float32 | difference |" in text
    assert row in text
    assert export_winner(run, tmp_path, formats=frozenset({"int8"})) == folder


def test_int8_of_a_detector_is_refused_in_one_line(
    centernet_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    out = str(centernet_run.parents[1])
    assert main(["export", "objects", "--format", "int8", "--out", out]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hrnet-search: --format: 'int8': is for pose, segmentation and classif")
    assert said.count("\n") == 1


def test_each_step_of_an_export_is_told(
    pose_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(formats, "AXES", ({0: "batch", 2: "height", 3: "width"}, {}))
    told: list[str] = []
    export_winner(pose_run, tmp_path, formats=BOTH, on_step=told.append)
    assert told == [
        "Reading the network",
        "Tracing the network for any batch, height, width",
        "Writing model.pt2",
        "Writing model.onnx",
        "Checking in a clean process",
    ]


def test_a_detector_as_onnx_ends_before_boxes_are_chosen(
    detection_winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(formats, "AXES", ({},))  # others take torch.export a minute to refuse
    made, about = exported_again(detection_winner, tmp_path)
    assert about["outputs"] == ["objectness", "proposals", *(f"level_{n}" for n in range(5))]
    card = (made / "README.md").read_text()
    assert "The whole detector, with that choice, is the source in" in card
    height, width = about["differences"][0]["size"]
    assert f"Nothing may vary: images are of {height}x{width} pixels." in card


def measured_run(run: Path, place: Path) -> tuple[Path, dict[str, float]]:
    """A copy of a run whose record has what its network scores here."""
    copy = shutil.copytree(run, place)
    study = load_study(copy / "study.yaml")
    file = copy / "trials" / "00000" / "result.json"
    record = Result.read(file)
    hardware = Hardware("cpu", "float32", "channels_last")
    net = network(study, record.arch)
    net.load_state_dict(load_file(file.parent / "weights.safetensors"))
    net.to(memory_format=torch.channels_last)
    metrics = evaluate(net, load_task(study, prepare(study, lambda done, total: None)), hardware)
    environment = record.environment | vars(hardware)
    record = replace(record, metrics=metrics, environment=environment)
    write_json(file, record.to_dict())
    return copy, metrics


def test_the_metrics_are_measured_again_with_the_folders_source(
    pose_run: Path, tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run, metrics = measured_run(pose_run, tmp_path / "runs" / "smoke")
    command = ["export", "smoke", "--check", "--out", str(tmp_path)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [f"Checked: {k} {v!r}, as recorded" for k, v in metrics.items()]
    folder = tmp_path / "reports" / "smoke" / "winner"
    checks = json.loads((folder / "checks.json").read_text())
    assert checks["metrics"] == {name: [value, value] for name, value in metrics.items()}
    card = (folder / "README.md").read_text()
    assert "every figure is that of the record to the last digit" in card
    assert "were not measured again" not in card

    file = run / "trials" / "00000" / "result.json"
    record = Result.read(file)
    write_json(file, replace(record, metrics=metrics | {"ap": 0.5}).to_dict())
    assert main(command) == 1
    assert f"Checked: ap {metrics['ap']!r}, recorded 0.5" in capsys.readouterr().out
    assert f"ap {metrics['ap']!r} instead of 0.5" in (folder / "README.md").read_text()


def constant_graph(file: Path, values: np.ndarray, size: tuple[Any, Any]) -> Path:
    """An ONNX file that puts out the same whatever it is shown."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    node = onnx.helper.make_node(
        "Constant", [], ["found"], value=onnx.numpy_helper.from_array(values)
    )
    image = make("image", real, [1, 3, *size])
    graph = onnx.helper.make_graph([node], "g", [image], [make("found", real, values.shape)])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), file)
    return file


def test_a_graph_is_evaluated_as_the_studys_test_does(
    classification_winner: Path, tmp_path: Path
) -> None:
    """One that says "bee" to everything is right of one picture in three, and of five classes
    there are but three."""
    study = load_study(classification_winner.parents[1] / "run" / "study.yaml")
    task = load_task(study, prepare(study, lambda done, total: None))
    scores = np.array([[0.0, 1.0, 0.5]], dtype=np.float32)
    file = constant_graph(tmp_path / "bee.onnx", scores, (48, 32))
    assert measure_graph(file, task) == {"top1": pytest.approx(1 / 3), "top5": 1.0}
    file = constant_graph(tmp_path / "small.onnx", scores, (32, 32))
    said = "small.onnx takes images of 32x32 alone, and the study's test shows some of 48x32"
    assert measure_graph(file, task) == said
    file.write_bytes(b"no graph")
    said = str(measure_graph(file, task))
    assert "small.onnx" in said
    assert "\n" not in said


def test_heatmaps_after_their_softmax_are_not_put_through_another(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).standard_normal((1, 2, 3, 4), dtype=np.float32)
    shares = np.exp(raw) / np.exp(raw).sum((2, 3), keepdims=True)
    file = constant_graph(tmp_path / "model.onnx", shares, ("height", "width"))
    made = InOnnxRuntime(file, {"softmax": True})(torch.zeros(2, 3, 9, 9))
    again = made.flatten(2).softmax(-1).reshape(made.shape)
    torch.testing.assert_close(again, torch.from_numpy(shares).expand(2, -1, -1, -1))
    made = InOnnxRuntime(file, {"softmax": False})(torch.zeros(1, 3, 9, 9))
    assert torch.equal(made, torch.from_numpy(shares))


def test_a_check_measures_model_onnx_too(
    pose_run: Path,
    graphs: Path,
    tmp_path: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_changed", lambda *_: [])  # as its record has other metrics here
    _, metrics = measured_run(pose_run, tmp_path / "runs" / "smoke")
    folder = shutil.copytree(graphs, tmp_path / "reports" / "smoke" / "winner")
    command = ["export", "smoke", "--check", "--out", str(tmp_path)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [f"Checked: model.onnx: {name} " for name in metrics]
    found = [line for line in lines if "model.onnx" in line]
    assert [line.startswith(name) for line, name in zip(found, names, strict=True)] == [True] * 4
    checks = json.loads((folder / "checks.json").read_text())
    kept = checks["formats"]["model.onnx"]["metrics"]
    assert kept == pytest.approx(metrics, abs=0.01)  # it adds up in another order
    assert checks["formats"]["model.pt2"]["metrics"] == {}
    text = (folder / "README.md").read_text()
    assert "`model.onnx` was evaluated in ONNX Runtime" in text
    assert "`model.pt2` was evaluated" not in text
    (folder / "model.onnx").write_bytes(b"cut off")
    assert main(command) == 0
    assert "model.onnx" not in capsys.readouterr().out


def test_a_source_that_fails_is_told_in_one_line_and_leaves_nothing(
    pose_run: Path,
    tmp_path: Path,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    measured_run(pose_run, tmp_path / "runs" / "smoke")
    command = ["export", "smoke", "--check", "--out", str(tmp_path)]
    assert main(command) == 0
    folder = tmp_path / "reports" / "smoke" / "winner"
    assert not list(folder.rglob("__pycache__"))
    (folder / "network" / "__init__.py").write_text("def (\n")
    monkeypatch.setattr(module, "_changed", lambda *_: [])  # it is edited after the export
    capsys.readouterr()
    assert main(command) == 1
    said = capsys.readouterr().err
    place = folder / "network"
    assert said.startswith(f"hrnet-search: not checked: the source in {place} fails: SyntaxError(")
    assert said.count("\n") == 1


def test_what_is_checked_is_the_trial_of_the_folder(
    pose_run: Path, tmp_path: Path, one_thread: None
) -> None:
    """A study that runs may have another winner by then."""
    run, metrics = measured_run(pose_run, tmp_path / "smoke")
    folder = export_winner(run, tmp_path / "report")
    assert folder is not None
    record = Result.read(run / "trials" / "00000" / "result.json")
    better = replace(record, trial=1, seed=1, metrics=dict.fromkeys(metrics, 1.0))
    (run / "trials" / "00001").mkdir()
    write_json(run / "trials" / "00001" / "result.json", better.to_dict())
    found = check_again(run, folder)
    assert found.source == {name: (value, value) for name, value in metrics.items()}
    assert found.graphs == {}


ROW = {"file": "model.onnx", "size": [32, 32], "output": "joints", "most": 0.0, "share": 0.0}
GRAPH = {
    **{"sha256": "0", "varies": {"batch": 1}, "outputs": ["joints"], "differences": [ROW]},
    **{"metrics": {}, "float32": {}},
}


@pytest.mark.parametrize(
    ("content", "believed"),
    [
        ({"formats": {"model.onnx": GRAPH}, "metrics": {"ap": [0.5, 0.5]}}, True),
        ({"files": {"arch.json": "0"}}, True),
        ([], False),
        ({"files": None}, False),
        ({"files": {"arch.json": 0}}, False),
        ({"formats": None}, False),
        ({"formats": {"model.exe": GRAPH}}, False),
        ({"formats": {"model.onnx": {"sha256": "0"}}}, False),
        ({"formats": {"model.onnx": GRAPH | {"differences": []}}}, False),
        ({"formats": {"model.onnx": GRAPH | {"metrics": {"ap": "high"}}}}, False),
        ({"formats": {"model.onnx": GRAPH | {"differences": [[]]}}}, False),
        ({"formats": {"model.onnx": GRAPH | {"varies": {"height": 5}}}}, False),
        ({"metrics": {"ap": 0.5}}, False),
        ({"metrics": {"ap": [0.5, float("nan")]}}, False),
    ],
)
def test_checks_that_were_edited_are_not_believed(
    tmp_path: Path, content: Any, believed: bool
) -> None:
    content = module.NOTHING | content if isinstance(content, dict) else content
    (tmp_path / "checks.json").write_text(json.dumps(content))
    assert module._checks(tmp_path) == (content if believed else module.NOTHING)


def test_a_folder_comes_back_if_another_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, new = tmp_path / "winner", tmp_path / ".winner-x"
    for place in (folder, new):
        place.mkdir()
        (place / "name").write_text(place.name)
    real = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self == new:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module._replace(folder, new, tmp_path)
    assert (folder / "name").read_text() == "winner"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".winner-x", "winner"]


def test_of_two_exports_at_once_the_last_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other, new = (tmp_path / name for name in ("winner", ".winner-1", ".winner-2"))
    (scratch := tmp_path / "scratch").mkdir()
    for place in (folder, other, new):
        place.mkdir()
        (place / "name").write_text(place.name)
    real = Path.rename

    def with_another(self: Path, target: Path) -> Path:
        if self == new and other.exists():  # the other comes in between
            real(other, folder)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", with_another)
    module._replace(folder, new, scratch)
    assert (folder / "name").read_text() == ".winner-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "winner"]
    assert [(old / "name").read_text() for old in sorted(scratch.iterdir())] == [
        "winner", ".winner-1",
    ]  # fmt: skip


def test_a_record_that_does_not_say_what_it_ran_on_is_not_measured_again(
    pose_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    assert main(["export", "smoke", "--check", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "does not say what trial 0 ran on: device, precision, memory_format" in said


def run_of(place: Path, rows: list[tuple[int, int, float, float]]) -> Path:
    """A run of the smoke study: arm, seed, multiply-adds and AP of each trial."""
    study = load_study(ROOT / "studies" / "smoke.yaml")
    place.mkdir()
    (place / "study.yaml").write_text(dump_study(study))
    records = []
    for trial, (arm, seed, macs, ap) in enumerate(rows):
        params = study.arms()[arm]
        record = replace(result(trial, study.arm(params), seed, ap), params=params)
        record = replace(record, profile={study.cost.removeprefix("profile."): macs})
        records.append(json.dumps(record.to_dict()) + "\n")
    (place / "results.jsonl").write_text("".join(records))
    return place


def test_the_front_is_that_of_the_report_by_the_best_seeds(tmp_path: Path) -> None:
    cheap, dear = [(0, 0, 1e6, 0.3), (0, 1, 1e6, 0.5)], [(1, 0, 2e6, 0.7), (1, 1, 2e6, 0.6)]
    assert front_trials(run_of(tmp_path / "both", cheap + dear)) == ([1, 2], [])
    worse = [(1, 0, 2e6, 0.45), (1, 1, 2e6, 0.1)]  # its mean is less at more cost
    assert front_trials(run_of(tmp_path / "one", cheap + worse)) == ([1], [])
    assert front_trials(run_of(tmp_path / "none", [])) == ([], [])


def test_every_network_of_the_front_is_exported(
    pose_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    record = Result.read(run / "trials" / "00000" / "result.json")
    (run / "results.jsonl").write_text(json.dumps(record.to_dict()) + "\n")
    assert main(["export", "smoke", "--pareto", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "reports" / "smoke" / "trial-00000"
    assert capsys.readouterr().out == f"Exported: {folder}\n"
    assert (folder / "network" / "__init__.py").exists()


def test_a_damaged_checkpoint_on_the_front_does_not_keep_others_from_being_exported(
    pose_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_verify", lambda *_: {})
    run = shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    record = Result.read(run / "trials" / "00000" / "result.json")
    for trial in (1, 2):
        place = shutil.copytree(run / "trials" / "00000", run / "trials" / f"0000{trial}")
        write_json(place / "result.json", replace(record, trial=trial).to_dict())
    monkeypatch.setattr("hrnet_search.export.front_trials", lambda run: ([0, 1, 2], []))
    damaged = run / "trials" / "00001" / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert main(["export", "smoke", "--pareto", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    reports = tmp_path / "reports" / "smoke"
    exported = [reports / "trial-00000", reports / "trial-00002"]
    assert said.out.splitlines() == [f"Exported: {folder}" for folder in exported]
    assert sorted(reports.iterdir()) == exported
    assert said.err.startswith(f"hrnet-search: not exported: {damaged}: must hold a state dict")
    assert said.err.count("\n") == 1


def test_what_keeps_a_whole_front_from_being_exported_is_told_once(
    pose_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(pose_run, tmp_path / "runs" / "smoke")

    def no_data(*_: Any, **__: Any) -> None:
        raise InputError("there is no such folder", key="data.root")

    monkeypatch.setattr("hrnet_search.export.front_trials", lambda run: ([0, 1, 2], []))
    monkeypatch.setattr("hrnet_search.export.export_winner", no_data)
    assert main(["export", "smoke", "--pareto", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "hrnet-search: not exported: data.root: there is no such folder\n"
    )


def test_a_front_of_others_networks_alone_is_told(
    pose_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(pose_run, tmp_path / "runs" / "smoke")
    monkeypatch.setattr("hrnet_search.export.front_trials", lambda run: ([], ["hourglass_8"]))
    assert main(["export", "smoke", "--pareto", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "hrnet-search: not exported: hourglass_8, for it is no HRNet",
        f"hrnet-search: {tmp_path}/runs/smoke: --pareto: no HRNet is on the Pareto front",
    ]


def documented(word: str) -> str:
    """The Python block of the documents that has this word."""
    text = (ROOT / "docs" / "use-the-winner.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if word in b]
    return block


def test_the_backbone_drops_into_other_libraries_as_documented(
    segmentation_winner: Path, tmp_path: Path
) -> None:
    """torchvision's Faster R-CNN and a U-Net of segmentation-models-pytorch on an exported body."""
    place = tmp_path / "reports" / "camvid_fusion_ablation"
    place.mkdir(parents=True)
    (place / "winner").symlink_to(segmentation_winner)
    script = (
        documented("FasterRCNN").replace("import sys\n", "", 1)
        + """
maps = body(torch.zeros(2, 3, 97, 131))
assert [x.shape[1] for x in maps] == list(body.channels), body.channels
sides = [tuple(x.shape[2:]) for x in maps]
assert sides == [(-(-97 // s), -(-131 // s)) for s in body.strides], body.strides
target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
sum(detector([torch.rand(3, 64, 64)], [target]).values()).backward()
assert body.conv1.weight.grad.abs().sum() > 0
assert set(detector.eval()([torch.rand(3, 64, 96)])[0]) == {"boxes", "labels", "scores"}
"""
        + documented("smp.Unet").replace("import sys\n", "", 1)
        + """
assert unet(torch.zeros(2, 3, 64, 96)).shape == (2, 21, 64, 96)
print(*body.channels, *body.strides)
"""
    )
    about = json.loads((segmentation_winner / "arch.json").read_text())
    spec = ArchSpec.from_dict(about["arch"])
    said = isolated(script, segmentation_winner, cwd=tmp_path)
    assert said.split() == [str(n) for n in (*spec.channels, *spec.strides)]


def test_a_backbone_and_timms_say_the_same_of_their_maps() -> None:
    """Of HRNet-W18-Small: channels and strides of the streams."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("hrnet_w18_small", features_only=True, feature_location="")
    info = theirs.feature_info
    streams = [n for n, stride in enumerate(info.reduction()) if stride > 2]  # beside the stem
    body = build(preset("w18-small-v1", task="classification"), head="cls", num_outputs=10).body
    assert list(body.channels) == [info.channels()[n] for n in streams]
    assert list(body.strides) == [info.reduction()[n] for n in streams]


def test_the_folded_network_of_a_folder_gives_its_outputs(ocr_winner: Path, tmp_path: Path) -> None:
    script = """
import torch
from network import load_backbone, load_network
net, fast = load_network(sys.argv[1]), load_network(sys.argv[1], fold=True)
image = torch.randn(1, 3, 97, 131)
with torch.inference_mode():
    # Coarse scores: at random weights the attention after them makes 4e-5 of rounding, which the
    # unfolded network in float32 is off from itself in float64 as well.
    wanted, maps = net(image)[0], load_backbone(sys.argv[1])(image)
    found = fast.to(memory_format=torch.channels_last)(image)[0]
kinds = [type(m).__name__ for m in fast.modules()]
assert maps[0].equal(net.body(image)[0])
print("BatchNorm2d" in kinds, float((found - wanted).abs().max() / (wanted.max() - wanted.min())))
"""
    has_norm, share = isolated(script, ocr_winner, cwd=tmp_path).split()
    assert has_norm == "False"
    assert float(share) <= 1e-5
