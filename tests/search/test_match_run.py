"""A study of cost-matched arms through the command line: trained, reported, exported."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from running import SMOKE, results, run, study_folder

from hrnet_search.arch import ArchSpec
from hrnet_search.cli import main
from hrnet_search.cost import cost
from hrnet_search.matching import MATCH_TOLERANCE
from hrnet_search.record import read_record
from hrnet_search.report.frame import read_run

MATCH = ["--set", "match={profile.macs: reference}"]
SHORT = ["--set", "train.steps=4", "--set", "seeds=1", *MATCH]
COPY = "across=false, matched"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = run(SMOKE, folder, *SHORT)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_copy_is_trained_beside_its_original(finished: Path) -> None:
    found = {line["arm"]: line for line in results(finished)}
    assert set(found) == {"across=false", COPY, "across=true"}
    assert all(line["state"] == "complete" for line in found.values())
    macs = {arm: line["profile"]["macs"] for arm, line in found.items()}
    assert abs(macs[COPY] / macs["across=true"] - 1) <= MATCH_TOLERANCE
    spec = ArchSpec.from_dict(found[COPY]["arch"])
    assert macs[COPY] == cost(spec, head="v1", num_outputs=17, input_size=(32, 32)).macs


def test_a_finished_study_has_nothing_to_do(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", str(SMOKE), "--out", str(finished), *SHORT]
    assert main([*given, "--dry-run"]) == 0
    assert "0 of 3 trials would be run" in capsys.readouterr().out
    assert main(["validate", str(SMOKE), *SHORT]) == 0
    assert "3 arms x 1 seed" in capsys.readouterr().out
    assert main(["status", "smoke", "--out", str(finished)]) == 0
    assert "3 of 3" in capsys.readouterr().out


def test_a_rehearsal_costs_the_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(SMOKE), "--out", str(tmp_path), *SHORT, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"  {COPY}, seed 0: 0.000276 GMACs (1e9 conv + linear)" in lines


def test_a_rehearsal_names_the_cost_that_is_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--set", "match={profile.params: reference}", "--set", "seeds=1", "--dry-run"]
    assert main(["run", str(SMOKE), "--out", str(tmp_path), *given]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    params = [float(line.rpartition(", ")[2].removesuffix(" Params (M)")) for line in lines]
    assert len(params) == 3
    assert params[1] == pytest.approx(params[2], rel=0.02)  # as shown, in three digits
    assert params[0] < 0.98 * params[2]


def test_what_reports_are_made_of_tells_copies_apart(finished: Path) -> None:
    arms = read_run(study_folder(finished)).arms
    assert [arm.name for arm in arms] == ["across=false", COPY, "across=true"]
    assert [arm.matched for arm in arms] == [False, True, False]
    table = pd.read_csv(finished / "reports" / "smoke" / "results.csv")
    assert dict(zip(table["arm"], table["params.match"].fillna(""), strict=True)) == {
        "across=false": "", COPY: "profile.macs", "across=true": "",
    }  # fmt: skip


def test_a_copy_is_read_from_its_report(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "smoke"
    shutil.copytree(finished / "reports" / "smoke", place)
    for line in results(finished):
        record = read_record(place, line["trial"])
        assert record.is_of_report
        assert record.result.params == line["params"]
        assert record.arch == line["arch"]


def test_a_copy_can_be_exported(finished: Path) -> None:
    (trial,) = (line["trial"] for line in results(finished) if line["arm"] == COPY)
    given = ["export", "smoke", "--out", str(finished), "--trial", str(trial)]
    assert main(given) == 0
    folder = finished / "reports" / "smoke" / f"trial-{trial:05d}"
    spec = ArchSpec.from_dict(json.loads((folder / "arch.json").read_text())["arch"])
    text = (folder / "README.md").read_text()
    assert "arm `across=false, matched`" in text
    widths = json.dumps([list(stage.num_channels) for stage in spec.stages])
    assert f"its branches scaled to the GMACs of\n`across=true`: width {widths}." in text
