"""The exported winner, used in processes that cannot import the package it came from."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save, save_file

from hrnet_search.arch import ArchSpec
from hrnet_search.errors import InputError
from hrnet_search.export import choose_winner, export_winner
from hrnet_search.files import write_json
from hrnet_search.model import build, init_weights
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


def test_there_is_no_winner_without_a_complete_trial() -> None:
    assert choose_winner([], "metrics.ap") is None
    assert choose_winner([result(0, "a", 0, None)], "metrics.ap") is None


def make_run(run: Path, study: Study, *, seed: int = 0) -> Path:
    """A run of one trial whose weights are the initial ones, BatchNorm statistics stirred."""
    data = prepare(study, lambda done, total: None)
    task = load_task(study, data)
    params = study.arms()[-1]
    spec = study.space.arch(params)
    net = build(spec, head=task.head, num_outputs=task.num_outputs)
    init_weights(net, seed=seed)
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
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


@pytest.fixture(scope="module")
def segmentation_winner(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    base = tmp_path_factory.mktemp("segmentation")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for name, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (base / "data" / name).mkdir(parents=True)
            for number in range(2):
                shape = (50, 70, 3) if mode == "RGB" else (50, 70)
                values = torch.randint(0, 11, shape, generator=generator, dtype=torch.uint8)
                Image.fromarray(values.numpy(), mode).save(base / "data" / name / f"{number}.png")
    overrides = [f"data.root={base / 'data'}", "data.crop_size=[32, 32]"]
    study = load_study(ROOT / "studies" / "camvid_fusion_ablation.yaml", overrides)
    folder = export_winner(make_run(base / "run", study), base / "report")
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


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (97, 131)])
def test_outputs_of_the_export_are_bit_for_bit_those_of_the_network(
    pose_run: Path, winner: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    record = Result.read(pose_run / "trials" / "00000" / "result.json")
    net = build(ArchSpec.from_dict(record.arch), head="v1", num_outputs=17)
    net.load_state_dict(load_file(pose_run / "trials" / "00000" / "weights.safetensors"))
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    save_file({"image": image}, tmp_path / "in.safetensors")
    script = """
import torch
from safetensors.torch import load_file, save_file
from network import load_network
torch.set_num_threads(int(sys.argv[4]))
net = load_network(sys.argv[1])
with torch.inference_mode():
    output = net(load_file(sys.argv[2])["image"])
save_file({"output": output}, sys.argv[3])
try:
    import hrnet_search
except ImportError:
    print("isolated", list(net.body.channels), list(net.body.strides))
"""
    threads = torch.get_num_threads()
    arguments = (winner, tmp_path / "in.safetensors", tmp_path / "out.safetensors", threads)
    said = isolated(script, *arguments, cwd=tmp_path)
    with torch.inference_mode():
        expected = net.eval()(image)
    assert torch.equal(load_file(tmp_path / "out.safetensors")["output"], expected)
    assert expected.abs().max() > 0
    assert said.strip() == "isolated [4] [4]"


def test_the_source_imports_torch_and_the_standard_library_alone(winner: Path) -> None:
    modules = set()
    for file in (winner / "network").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(str(node.module).partition(".")[0])
    foreign = modules - set(sys.stdlib_module_names)
    assert foreign == {"torch", "safetensors"}
    # safetensors is read by one function, on demand: the network itself needs torch alone.
    script = """
sys.modules["safetensors"] = None
from network import load_network
print(sum(p.numel() for p in load_network(sys.argv[1], weights=False).parameters()))
"""
    assert int(isolated(script, winner, cwd=winner.parent)) > 0


@pytest.mark.parametrize("kind", ["pose", "segmentation"])
def test_the_example_draws_a_prediction(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    folder = request.getfixturevalue("winner" if kind == "pose" else "segmentation_winner")
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(copy / "example.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    picture = Image.open(tmp_path / "prediction.png").convert("RGB")
    assert len(picture.getcolors(picture.width * picture.height) or []) > 10
    names = json.loads((copy / "preprocess.json").read_text())
    for name in names["keypoints" if kind == "pose" else "classes"]:
        assert name in done.stdout


def test_the_example_decodes_as_the_evaluation_does(winner: Path, tmp_path: Path) -> None:
    from hrnet_search.tasks.pose import decode

    heatmaps = torch.rand(1, 30, 9, 7, generator=torch.Generator().manual_seed(0))
    save_file({"heatmaps": heatmaps}, tmp_path / "h.safetensors")
    script = """
import json
from safetensors.torch import load_file
from example import peak
maps = load_file(sys.argv[2])["heatmaps"][0]
print(json.dumps([[peak(m, s) for m in maps] for s in (False, True)]))
"""
    plain, refined = json.loads(isolated(script, winner, tmp_path / "h.safetensors", cwd=tmp_path))
    for found, subpixel in ((plain, False), (refined, True)):
        expected = decode(heatmaps, subpixel=subpixel)[0, :, :2]
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-4)


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
    with pytest.raises(RuntimeError):
        export_winner(run, tmp_path / "report")
    assert not list((tmp_path / "report").iterdir())


def test_a_trial_that_does_not_exist_is_named_with_those_that_do(
    pose_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--trial: 7: .*those are 0"):
        export_winner(pose_run, tmp_path, trial=7)


def test_the_card_states_metrics_cost_and_versions(winner: Path) -> None:
    text = (winner / "README.md").read_text()
    for part in ("| AP | 25.0 |", "seed\n0", "torch", "smoke"):
        assert part in text
