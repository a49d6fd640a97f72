"""`hrnet-search fidelity` from its command line: several studies, one after another."""

import subprocess
from pathlib import Path

import pytest
import yaml
from running import PATIENCE, command
from tiny import TINY_POSE_STUDY

from hrnet_search.cli import main
from hrnet_search.files import read_json_lines, write_atomic
from hrnet_search.study import dump_study, load_study

SCALED = TINY_POSE_STUDY | {"scales": {"short": {"train": {"steps": 2}}}}


def written(folder: Path, content: dict) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def fidelity(study: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = command("fidelity", str(study), "--out", str(out), "--jobs", "1", *arguments)
    return subprocess.run(given, capture_output=True, text=True, timeout=PATIENCE, check=False)


def trials(out: Path, name: str) -> list[tuple[str, int, str, int]]:
    """Arm, seed, state and last step of each trial."""
    lines = read_json_lines(out / "runs" / name / "results.jsonl")
    return sorted((r["arm"], r["seed"], r["state"], r["history"][-1]["step"]) for r in lines)


def test_every_scale_is_a_study_with_its_report(tmp_path: Path) -> None:
    study, out = written(tmp_path, SCALED), tmp_path / "out"
    done = fidelity(study, out, "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name, steps in (("tiny-short", 2), ("tiny", 4)):
        assert trials(out, name) == [
            (f"final={final}", seed, "complete", steps)
            for final in ("false", "true")
            for seed in (0, 1)
        ]
        assert (out / "reports" / name / "index.html").exists()
    assert f"Fidelity: {out / 'reports' / 'tiny' / 'fidelity.html'}" in done.stdout
    assert (out / "reports" / "tiny" / "fidelity.csv").exists()
    page = out / "reports" / "tiny" / "fidelity.html"
    written_first = page.read_text()
    page.unlink()
    assert main(["report", "tiny", "--out", str(out)]) == 0
    assert page.read_text() == written_first
    before = [file.read_bytes() for file in sorted(out.glob("runs/*/results.jsonl"))]

    again = fidelity(study, out)
    assert again.returncode == 0, again.stderr
    assert "tiny-short: all 4 trials are done" in again.stderr
    assert [file.read_bytes() for file in sorted(out.glob("runs/*/results.jsonl"))] == before


def test_another_study_of_the_name_is_refused_before_a_scale_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    earlier = load_study(written(tmp_path, SCALED), ["train.lr=0.5"])
    write_atomic(out / "runs" / "tiny" / "study.yaml", dump_study(earlier))
    assert main(["fidelity", str(written(tmp_path, SCALED)), "--out", str(out)]) == 2
    _, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert "train.lr: 0.002: was 0.5 when" in err
    assert not (out / "runs" / "tiny-short").exists()


def test_a_wrong_scale_is_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = {"data": {"num_val": 0}}
    file = written(tmp_path, SCALED | {"scales": {"short": SCALED["scales"]["short"], "few": few}})
    assert main(["fidelity", str(file), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "scales.few.data.num_val" in err
    assert not (tmp_path / "out").exists()
