"""The exported winner, used in processes that cannot import the package it came from."""

import ast
import json
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
from hrnet_search.detectors import Detector, HRPyramid, build_detector
from hrnet_search.errors import InputError
from hrnet_search.export import choose_winner, export_winner
from hrnet_search.export import folder as module
from hrnet_search.export.card import card as card_of
from hrnet_search.export.verify import run_alone
from hrnet_search.files import write_json
from hrnet_search.frameworks import DetectorSpec
from hrnet_search.labels import SYNTHETIC_CLASSES
from hrnet_search.model import build
from hrnet_search.networks import initialise, network
from hrnet_search.predict import Person, open_winner, plan, predict
from hrnet_search.result import Result
from hrnet_search.study import Study, dump_study, load_study
from hrnet_search.tasks import load_task, prepare

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
        with (folder / "__init__.py").open("a") as file:
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
    with pytest.raises(InputError, match=r"--trial: 7: .*those are 0"):
        export_winner(pose_run, tmp_path, trial=7)


def test_the_card_states_metrics_cost_and_versions(winner: Path) -> None:
    text = (winner / "README.md").read_text()
    for part in ("| AP | 25.0 |", "seed\n0", "torch", "smoke"):
        assert part in text
