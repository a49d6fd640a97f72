"""A network of others goes through a study as every arm does, but is no HRNet that is exported."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hrnet_search import profiling
from hrnet_search.arch import ArchSpec
from hrnet_search.baselines import SimpleBaseline, network
from hrnet_search.cli import main
from hrnet_search.errors import InputError
from hrnet_search.export import choose_winner, export_winner
from hrnet_search.files import read_json, write_json
from hrnet_search.model import Network
from hrnet_search.report import write_report
from hrnet_search.report.frame import Arm, Run, read_run, results_frame
from hrnet_search.report.pareto import grid_figure, pareto_data
from hrnet_search.report.tables import ablation_data, ablation_table, metrics_table
from hrnet_search.result import Result
from hrnet_search.rivals import RIVALS, Rival
from hrnet_search.search.ledger import Job, Ledger
from hrnet_search.study import load_study

SMOKE = Path(__file__).parents[1] / "studies" / "smoke.yaml"
NAME = "simple_baseline_resnet50"
PROFILE = {"params": 1e5, "macs": 1e7, "paper_gflops": 0.01, "memory": 1e6, "latency": 0.002}
OF_SPECS = {"activations": 5e4, "kernels": 900.0, "depth": 20.0}  # which no rival has


def result(job: Job) -> Result:
    """What a worker would leave: the rival is best, and has no closed form."""
    is_rival = job.arm == NAME
    return Result(
        **vars(job),
        state="complete",
        profile=PROFILE | ({"params": 3.4e7} if is_rival else OF_SPECS),
        metrics={"ap": (0.9 if is_rival else 0.3) + job.seed / 100},
        history=[{"step": 5, "loss": 2.0, "ap": 0.1}],
        seconds=1.0,
        started="2026-01-02T03:04:05+00:00",
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the smoke study was run with a rival: four trials of HRNets, two of it."""
    out = tmp_path_factory.mktemp("out")
    study = load_study(SMOKE, [f"rivals=[{NAME}]"])
    with Ledger(out / "runs" / "smoke", study) as ledger:
        ledger.keep_study()
        while job := ledger.next():
            write_json(ledger.trial_folder(job.trial) / "result.json", result(job).to_dict())
            ledger.finish(job.trial)
        assert ledger.unfinished() == 0
    return out


@pytest.fixture
def run(out: Path) -> Run:
    return read_run(out / "runs" / "smoke")


def rival_of(run: Run) -> Arm:
    (arm,) = (arm for arm in run.arms if isinstance(arm.network, Rival))
    return arm


def test_the_ledger_keeps_the_rivals_name_for_its_network(out: Path) -> None:
    jobs = [read_json(file) for file in sorted((out / "runs/smoke/trials").glob("*/trial.json"))]
    assert [job["arm"] == NAME for job in jobs] == [False, False, True] * 2  # seed by seed
    for job in (job for job in jobs if job["arm"] == NAME):
        assert job["arch"] == job["params"] == {"rival": NAME}
        assert job["key"] == NAME
    for job in (job for job in jobs if job["arm"] != NAME):
        assert ArchSpec.from_dict(job["arch"]).key == job["key"]


def test_a_run_that_is_opened_again_has_nothing_to_do(out: Path) -> None:
    folder = out / "runs" / "smoke"
    with Ledger(folder, load_study(folder / "study.yaml")) as ledger:
        assert (ledger.unfinished(), ledger.next(), len(ledger.results())) == (0, None, 6)


def test_frame_and_arms_of_the_report(run: Run) -> None:
    arm = rival_of(run)
    assert (arm.name, arm.network) == (NAME, RIVALS[NAME])
    assert arm.arguments == {"rival": NAME, "head": None, "input_size": [32, 32]}
    assert arm is run.arms[-1]
    assert run.strays == 0
    assert not isinstance(run.reference.network, Rival)
    frame = results_frame(run)
    own = frame[frame["arm"] == NAME]
    assert list(own["metrics.ap"]) == [0.9, 0.91]
    assert list(own["key"]) == [NAME, NAME]
    assert own["profile.depth"].isna().all()
    assert own["params.across"].isna().all()
    assert frame[frame["arm"] != NAME].notna()["profile.depth"].all()


def test_the_rivals_row_has_no_fusion_units(run: Run) -> None:
    row = ablation_data(run).set_index("arm").loc[NAME]
    assert row["profile.params"] == 3.4e7
    assert str(row["fusion_units"]) == "<NA>"
    assert row["difference"] == pytest.approx(0.6)
    table = ablation_table(run)
    titles = [column.title for column in table.columns]
    units = {cells[0]: cells[titles.index("Fusion units")] for cells in table.rows}
    assert units.pop(NAME) == "n/a"
    assert all(text.isdigit() for text in units.values())
    params = {cells[0]: cells[titles.index("Params")] for cells in table.rows}
    assert params[NAME] == "34"


def test_costs_that_a_rival_does_not_have_are_not_available(run: Run) -> None:
    table = metrics_table(run)
    titles = [column.title for column in table.columns]
    cells = {row[0]: row for row in table.rows}
    for title in ("Activations", "Kernels", "Depth"):
        assert cells[NAME][titles.index(title)] == "n/a"
        assert cells[run.reference.name][titles.index(title)] != "n/a"
    assert cells[NAME][titles.index("Peak memory")] != "n/a"


def test_its_points_are_drawn_with_its_title(run: Run) -> None:
    title = "SimpleBaseline, ResNet-50"
    front = pareto_data(run, "profile.macs").set_index("arm")["front"]
    assert bool(front[NAME])
    figure = grid_figure(run, {})
    assert figure is not None
    texts = [text for t in figure.data if t.name == NAME for text in t.hovertext]
    assert len(texts) == 3  # two seeds and their mean
    for text in texts:
        lines = text.split("<br>")
        assert lines[0].startswith(f"<b>{NAME}</b>, ")
        assert lines[-1] == title
        assert "Params (M): 34" in lines


def test_the_page_and_its_tables_are_written(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrnet_search.report.page.get_plotlyjs", lambda: "/* plotly.js */")
    page = write_report(out / "runs" / "smoke", tmp_path)
    text = page.read_text()
    assert NAME in text
    assert "SimpleBaseline, ResNet-50" in text
    with (tmp_path / "table.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert rows[NAME]["fusion_units"] == ""
    assert rows[NAME]["profile.params"] == "34000000.0"
    assert any(
        line.startswith("| simple\\_baseline\\_resnet50 | n/a |")
        for line in (tmp_path / "table.md").read_text().splitlines()
    )


def test_the_rival_does_not_win_although_it_is_best(run: Run) -> None:
    best = max(run.results, key=lambda found: found.metrics["ap"])
    assert best.arm == NAME
    winner = choose_winner(run.results, run.study.accuracy)
    assert winner is not None
    assert winner.arm != NAME
    only = [found for found in run.results if found.arm == NAME]
    assert choose_winner(only, run.study.accuracy) is None


def test_the_export_of_a_rivals_trial_is_refused_in_one_line(
    out: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = rival_of(run).results[0].trial
    arguments = ["export", "smoke", "--trial", str(trial), "--out", str(out)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"--trial: {trial}: trained {NAME}" in said
    assert "only HRNets are exported" in said
    with pytest.raises(InputError):
        export_winner(out / "runs" / "smoke", out / "reports" / "smoke", trial=trial)
    assert not list(out.glob("reports/*/*"))


def test_a_record_of_either_kind_gives_its_network(run: Run) -> None:
    with torch.device("meta"):
        nets = {
            arm.name: network(json_again(arm.network.to_dict()), head="v1", num_outputs=17)
            for arm in run.arms
        }
    assert isinstance(nets.pop(NAME), SimpleBaseline)
    specs = {arm.name: arm.network for arm in run.arms if arm.name in nets}
    assert len(nets) == 2
    for name, net in nets.items():
        assert isinstance(net, Network)
        assert net.spec == specs[name]


def test_a_record_of_an_unknown_rival_is_refused() -> None:
    with pytest.raises(InputError, match=rf"^rival: '{NAME}s': must be one of .*'{NAME}'\?$"):
        network({"rival": f"{NAME}s"}, head="v1", num_outputs=17)


def json_again(data: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(data))
    return read


def test_the_profile_of_a_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "median_latency", lambda net, size: 0.5)
    found = profiling.profile(RIVALS[NAME], head="v1", num_outputs=17, input_size=(32, 32))
    assert set(found) == set(PROFILE)
    with torch.device("meta"):
        net: nn.Module = network({"rival": NAME}, head="v1", num_outputs=17)
    assert found["params"] == sum(p.numel() for p in net.parameters())
    assert found["paper_gflops"] == found["macs"] / 2**30
    assert found["memory"] > 2 * 4 * found["params"]  # parameters and their gradients
    assert found["latency"] == 0.5
