"""Tables of networks trained beforehand: what a run wrote is found again."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_table import COMMAND, NOISE, accuracy, made_results, made_study, write_run

from hrnet_search import benchmark
from hrnet_search.errors import InputError

STUDY = made_study()
PARAMS = {"width": 6, "num_blocks": 2, "final": True, "stage1_width": 8}
RESULTS = made_results(STUDY)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> benchmark.Table:
    folder = tmp_path_factory.mktemp("table")
    return benchmark.pack(write_run(folder / "run", STUDY, RESULTS), folder / "made")


def test_a_table_has_every_training_of_its_run(table: benchmark.Table) -> None:
    assert (len(table.results), len(table.networks)) == (64, 32)
    assert table.study == STUDY
    assert table.environment == {"command": COMMAND, "data": {"checksum": "b"}}
    for given, kept in zip(RESULTS, table.results, strict=True):
        loss = {"loss": 1.2346}, {"loss": 0.33333}, {"loss": 0.33333}
        history = [{**point, **own} for point, own in zip(given.history, loss, strict=True)]
        assert kept == replace(given, arch={}, environment={}, history=history)


def test_a_network_is_found_by_its_knobs(table: benchmark.Table) -> None:
    found = table.find(**PARAMS)
    ap = accuracy(PARAMS)
    assert found.params == PARAMS
    assert found.seconds == 5.5
    assert found.mean("metrics.ap") == pytest.approx(ap + NOISE / 2, rel=1e-12)
    assert found.mean("profile.macs") == STUDY.costs(PARAMS)["profile.macs"]
    assert found.value("metrics.ap", seed=1) == ap + NOISE
    assert found.value("metrics.ap", seed=0, step=2) == ap / 2
    with pytest.raises(KeyError):
        found.value("metrics.ap", seed=2)
    with pytest.raises(KeyError):
        found.value("metrics.ap", seed=0, step=3)


def test_frames_have_a_row_per_training_and_per_evaluation(table: benchmark.Table) -> None:
    frame, curves = table.frame(), table.curves()
    assert len(frame) == 64
    assert len(curves) == 128
    assert list(frame.columns[:7]) == [
        *("key", "seed", "state"),
        *(f"params.{name}" for name in STUDY.space.vary),
    ]
    means = frame.groupby("key")["metrics.ap"].mean()
    assert all(means[key] == network.mean("metrics.ap") for key, network in table.networks.items())
    last = curves[curves["step"] == 4].set_index(["key", "seed"])["ap"]
    assert last.to_dict() == frame.set_index(["key", "seed"])["metrics.ap"].to_dict()


def test_a_failed_training_is_kept_but_no_value(tmp_path: Path) -> None:
    error = {"cause": "diverged", "message": "the loss is nan", "traceback": "/a/b.py"}
    failed = [
        replace(result, state="failed", metrics={}, error=error) if result.trial in (0, 33) else
        result for result in RESULTS if result.trial != 32
    ]  # fmt: skip
    run = write_run(tmp_path / "run", STUDY, failed)
    table = benchmark.pack(run, tmp_path / "made")
    assert len(table.results) == 63
    assert RESULTS[0].key not in table.networks  # one failed, the other is missing
    assert [t.seed for t in table.networks[RESULTS[1].key].trainings] == [0]
    told = {"cause": "diverged", "message": "the loss is nan"}
    assert [result.error for result in table.results if result.error] == [told, told]
    with pytest.raises(KeyError):
        table.find(**RESULTS[0].params)


def test_the_command_writes_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "benchmark_made", STUDY, RESULTS)
    command = [sys.executable, "-m", "hrnet_search.benchmark", str(run), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    place = tmp_path / "made"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"64 trainings of 32 networks: {place}.yaml, .json, .jsonl.gz\n"
    assert benchmark.read(place).study == STUDY
    command[3] = str(tmp_path / "nowhere")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nowhere/study.yaml" in done.stderr


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    for name, results in (("one", RESULTS), ("two", RESULTS[::-1])):
        benchmark.pack(write_run(tmp_path / name / "run", STUDY, results), tmp_path / name / "made")
    for suffix in ("yaml", "json", "jsonl.gz"):
        one, two = (tmp_path / name / f"made.{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_refusals(tmp_path: Path, table: benchmark.Table) -> None:
    with pytest.raises(InputError, match=r"table: 'poses': .*did you mean 'pose'"):
        benchmark.load("poses")
    with pytest.raises(InputError, match="width: 5: must be one of 4, 6, 8, 10"):
        table.find(**{**PARAMS, "width": 5})
    with pytest.raises(InputError, match=r"knob: 'with': .*did you mean 'width'"):
        table.find(**{**PARAMS, "with": 6})
    with pytest.raises(InputError, match="final: None: must be one of"):
        table.find(width=6, num_blocks=2)
    searched = made_study(search={"sampler": "tpe", "networks": 4})
    with pytest.raises(InputError, match="must be grid"):
        benchmark.pack(write_run(tmp_path / "search", searched, []), tmp_path / "made")
    with pytest.raises(InputError, match=r"part: lacks 2 networks, such as width=10, .*; run"):
        benchmark.pack(write_run(tmp_path / "part", STUDY, RESULTS[:30]), tmp_path / "made")
    assert not list(tmp_path.glob("made*"))


@pytest.mark.parametrize("name", benchmark.names())
def test_a_shipped_table_is_whole(name: str) -> None:
    """Every network of its study, cost as the closed form has it, nothing of any machine."""
    table = benchmark.load(name)
    keys = {table.study.key(params): params for params in table.study.arms()}
    assert set(table.networks) <= set(keys)
    assert len(table.networks) >= 0.98 * len(keys)
    assert {(result.key, result.seed) for result in table.results if result.seed == 0} == {
        (key, 0) for key in keys
    }
    assert len({(result.key, result.seed) for result in table.results}) == len(table.results)
    for network in list(table.networks.values())[::20]:
        costs = table.study.costs(keys[network.key])
        assert all(network.mean(key) == value for key, value in costs.items())
    assert "/" not in table.environment["command"].replace("studies/", "")
    text = "".join(
        file.read_text() for file in benchmark.FOLDER.glob(f"{name}.*") if file.suffix != ".gz"
    )
    assert "/home" not in text
    assert "/root" not in text
