"""The command line: exit statuses, one-line messages, nothing left behind, light commands."""

import csv
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from hrnet_search import cli, export, report
from hrnet_search.arch import hrnet
from hrnet_search.cli import main
from hrnet_search.cost import cost
from hrnet_search.errors import InputError
from hrnet_search.result import Result
from hrnet_search.study import dump_study, load_study

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "studies" / "smoke.yaml"
BY_EXAMPLE = (
    "fidelity",
    "baselines",
    "plan",
    "draw",
    "report",
    "status",
    "list",
    "curves",
    "replay",
    "doctor",
)
CAMVID = ROOT / "studies" / "camvid_fusion_ablation.yaml"


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and error of one command."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command refuses bad input with."""
    status, out, err = said(capsys, *arguments)
    assert status == 2, (out, err)
    assert err.startswith("hrnet-search: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A data set of two images per split in the CamVid layout."""
    for split in ("train", "val"):
        for folder, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
            for number in range(2):
                picture = Image.new(mode, (48, 40), (10 * number, 5, 9) if mode == "RGB" else 3)
                picture.save(tmp_path / "camvid" / folder / f"{number}.png")
    return tmp_path / "camvid"


def test_validate_says_what_each_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    space = ROOT / "spaces" / "fusion_tiny.yaml"
    status, out, _ = said(capsys, "validate", SMOKE, space)
    assert status == 0
    assert out.splitlines() == [
        f"{SMOKE}: ok, study of pose, 2 arms x 2 seeds",
        f"{space}: ok, space of 3 combinations",
    ]


def test_validate_says_how_many_seeds_undecided_arms_may_get(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = said(capsys, "validate", SMOKE, "--set", "adaptive={most: 6, step: 2}")
    assert status == 0
    assert out == f"{SMOKE}: ok, study of pose, 2 arms x 2 seeds, undecided ones up to 6\n"


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ([], "1 arm x 2 seeds; 1 network above the limits left out"),
        (["variants={a: {}, b: {data: {seed: 1}}}"], "2 arms x 2 seeds; 2 arms above the limits"),
    ],
)
def test_validate_says_what_limits_leave_out(
    capsys: pytest.CaptureFixture[str], variants: list[str], says: str
) -> None:
    limit = "space.limits={profile.macs: 273000}"
    given = [part for one in (limit, *variants) for part in ("--set", one)]
    status, out, _ = said(capsys, "validate", SMOKE, *given)
    assert status == 0
    assert says in out


@pytest.mark.parametrize("command", [["validate", str(SMOKE)], ["draw", "w32"]])
def test_light_commands_load_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys; from hrnet_search.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'plotly'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else status)"
    )
    subprocess.run([sys.executable, "-c", script, *command], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in ("validate", "plan", "run", "report", "export", *BY_EXAMPLE))],
)
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    status, out, _ = said(capsys, *command, "--help")
    assert status == 0
    assert "hrnet-search" in out
    if command in ([], ["run"]):
        assert "hrnet-search run studies/fusion_ablation.yaml" in out
    if command and command[0] in BY_EXAMPLE:
        assert f"examples:\n  hrnet-search {command[0]}" in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "studies/smoek.yaml"], ["studies/smoek.yaml", "no such file", "'smoke.yaml'"]),
        (["run", SMOKE, "--set", "task.kind=poze"], ["task.kind", "'poze'", "'pose'"]),
        (["run", SMOKE, "--set", "train.stepz=3"], ["train.stepz", "unknown key", "'steps'"]),
        (["run", SMOKE, "--set", "train.steps=many"], ["train.steps", "'many'", "whole number"]),
        (["run", CAMVID, "--set", "data.root=/no/where"], ["data.root", "'/no/where'", "folder"]),
        (["fidelity", SMOKE], [str(SMOKE), "scales", "is missing"]),
        (["baselines", SMOKE], [str(SMOKE), "search.sampler", "'grid'", "is for searches"]),
        (
            ["fidelity", SMOKE, "--set", "scales.a.train.stepz=3"],
            ["scales.a.train.stepz", "'steps'"],
        ),
        (["validate", "studies"], ["studies", "cannot be read"]),
        (["report", "smoek"], ["'smoek'", "has not been run"]),
        (["export", "nothing"], ["'nothing'", "has not been run in runs; see hrnet-search list"]),
        (["export", str(SMOKE)], [f"has not been run in runs; start it: hrnet-search run {SMOKE}"]),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    parts: list[str],
) -> None:
    (tmp_path / "studies").mkdir()
    shutil.copy(SMOKE, tmp_path / "studies")
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *arguments)
    for part in parts:
        assert part in line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["smoke.yaml", "studies"]


def test_broken_yaml_is_placed_by_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("name: x\ntask: {kind: pose\nseeds: 3\n")
    line = refused(capsys, "run", file, "--out", tmp_path)
    assert str(file) in line
    assert "line 3" in line


def test_a_label_out_of_range_names_file_value_and_rule(
    capsys: pytest.CaptureFixture[str], camvid: Path, tmp_path: Path
) -> None:
    bad = camvid / "valannot" / "1.png"
    Image.new("L", (48, 40), 37).save(bad)
    out = tmp_path / "out"
    line = refused(capsys, "run", CAMVID, "--set", f"data.root={camvid}", "--out", out)
    assert f"{bad}: 37: labels must be 0 to 10" in line
    assert not out.exists()


def test_a_truncated_image_is_named(
    capsys: pytest.CaptureFixture[str], camvid: Path, tmp_path: Path
) -> None:
    bad = camvid / "train" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    out = tmp_path / "out"
    line = refused(capsys, "run", CAMVID, "--set", f"data.root={camvid}", "--out", out)
    assert f"{bad}: is not a readable image" in line
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    line = refused(capsys, "run", SMOKE, "--out", file)
    assert "--out" in line
    assert "cannot be written to" in line
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("arguments", [["run"], ["rnu", "x"], ["run", "x", "--jobs", "0"]])
def test_a_wrong_command_line_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, _, err = said(capsys, *arguments)
    assert status == 2
    assert "Traceback" not in err


# --- what comes after the last trial -------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("outputs\ndiffer"),
        InputError("differ", key="outputs"),
        OSError(28, "No space left on device"),
    ],
)
def test_the_report_is_written_even_if_the_export_fails(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    done = []

    def export_winner(run: Path, out: Path, warn: Callable[[str], None]) -> Path:
        done.append("export")
        raise error

    def write_report(run: Path, out: Path) -> Path:
        done.append("report")
        return out / "index.html"

    monkeypatch.setattr(export, "export_winner", export_winner)
    monkeypatch.setattr(report, "write_report", write_report)
    monkeypatch.setattr("hrnet_search.report.frame.read_run", lambda run: None)
    monkeypatch.setattr(report, "headline", lambda run: "The best is that.")
    (tmp_path / "results.jsonl").write_text('{"state": "complete"}\n')
    assert cli._finish(tmp_path, tmp_path / "out") == 1
    assert done == ["export", "report"]  # which links to the winner
    out, err = capsys.readouterr()
    assert out == f"Report: {tmp_path / 'out' / 'index.html'}\nThe best is that.\n"
    assert err == f"not exported: {' '.join(str(error).split())}\n"


@pytest.mark.parametrize(
    ("ap", "headline", "title"),
    [
        (
            0.0,
            "Nothing was learnt: AP is 0 in every complete trial, so no network is the best.",
            "A network to try",
        ),
        (
            0.001,
            "The best mean AP is 0.1 over 1 seed, by across=false; no other arm has results.",
            "Winner",
        ),
    ],
)
def test_no_winner_is_named_where_nothing_was_learnt(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ap: float,
    headline: str,
    title: str,
) -> None:
    monkeypatch.setattr(export, "export_winner", lambda run, out, warn: out / "winner")
    monkeypatch.setattr(report, "write_report", lambda run, out: out / "index.html")
    study = load_study(SMOKE)
    (tmp_path / "study.yaml").write_text(dump_study(study))
    params = study.arms()[0]
    record = Result(
        study="smoke", trial=0, state="complete", arm=study.arm(params), params=params, seed=0,
        key="", arch={}, profile={}, metrics={"ap": ap}, history=[], seconds=1.0, attempt=1,
        started="",
    )  # fmt: skip
    (tmp_path / "results.jsonl").write_text(json.dumps(record.to_dict()) + "\n")
    assert cli._finish(tmp_path, tmp_path) == 0
    example = f"{sys.executable} {tmp_path / 'winner' / 'example.py'} draws a prediction"
    said = f"{title}: {tmp_path / 'winner'}  ({example})"
    lines = f"Report: {tmp_path / 'index.html'}\n{headline}\n{said}\n"
    assert capsys.readouterr() == (lines, "")


# --- several studies ---------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs of two studies, and the file of the first."""
    monkeypatch.chdir(tmp_path)
    for name in ("short", "long"):
        study = load_study(SMOKE, [f"name={name}"])
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "study.yaml").write_text(dump_study(study))
        lines = []
        for trial, params in enumerate(study.arms()):
            record = Result(
                study=name, trial=trial, state="complete", arm=study.arm(params), params=params,
                seed=0, key="", arch={}, profile={"macs": 1e6}, metrics={"ap": 0.1 + trial},
                history=[], seconds=1.0, attempt=1, started="",
            )  # fmt: skip
            lines.append(json.dumps(record.to_dict()) + "\n")
        (folder / "results.jsonl").write_text("".join(lines))
    shutil.copy(tmp_path / "runs" / "short" / "study.yaml", tmp_path / "short.yaml")
    return tmp_path


def test_a_watched_report_follows_a_study_to_its_end(
    capsys: pytest.CaptureFixture[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, page = runs / "runs" / "short" / "results.jsonl", Path("reports/short/index.html")
    lines = results.read_text().splitlines(keepends=True)
    results.unlink()
    steps, seen = iter(["".join(lines[:1]), None, "".join(lines), "over"]), []

    def sleep(seconds: float) -> None:
        text = page.read_text()
        seen.append(text.partition("trials complete")[0].rpartition("· ")[2])
        assert "location.reload()" in text
        page.touch()
        if (step := next(steps)) == "over":
            fcntl.flock(lock, fcntl.LOCK_UN)
        elif step is not None:
            results.write_text(step)

    monkeypatch.setattr(cli.time, "sleep", sleep)
    with open(runs / "runs" / "short" / "lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, out, err = said(capsys, "report", "short", "--watch", "--shared")
    assert (status, err) == (0, "")
    assert [words.split()[0] for words in seen] == ["0", "1", "1", str(len(lines))]
    assert "location.reload()" not in page.read_text()
    assert out.splitlines()[-1] == f"Report: {page}"


def test_watching_ends_with_a_last_page(
    capsys: pytest.CaptureFixture[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", interrupt)
    with open(runs / "runs" / "short" / "lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert said(capsys, "report", "short", "--watch", "--shared")[0] == 0
    assert "location.reload()" not in Path("reports/short/index.html").read_text()


@pytest.mark.parametrize("option", ["--watch", "--png"])
def test_what_is_for_one_report_is_refused_of_several(
    capsys: pytest.CaptureFixture[str], runs: Path, option: str
) -> None:
    line = refused(capsys, "report", "short", "long", option)
    assert line == f"hrnet-search: {option}: is for one study\n"


def test_report_of_several_studies_leaves_their_own_alone(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    own = runs / "reports" / "short" / "index.html"
    own.parent.mkdir(parents=True)
    own.write_text("own")
    status, out, err = said(capsys, "report", "short.yaml", "long", "--shared")
    assert (status, err) == (0, "")
    page = Path("reports/short+long/index.html")
    assert out == f"Report: {page}\n"
    assert "Studies side by side: short and long" in page.read_text()
    assert own.read_text() == "own"
    assert sorted(path.name for path in (runs / "reports").iterdir()) == [
        "plotly.min.js", "short", "short+long",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("studies", "parts"),
    [
        (["short", "short"], ["study: 'short'", "is study short, which is given before"]),
        (
            ["short", "long", "short.yaml"],
            ["study: 'short.yaml'", "is study short, which is given"],
        ),
        (["short", "lnog"], ["study: 'lnog'", "has neither trials in runs", "'long'"]),
        (["nothing", "short"], ["study: 'nothing'", "nor a report in reports"]),
        (["short", "long.yaml"], ["long.yaml", "there is no such file"]),
    ],
)
def test_studies_that_cannot_be_compared_get_one_line(
    capsys: pytest.CaptureFixture[str], runs: Path, studies: list[str], parts: list[str]
) -> None:
    line = refused(capsys, "report", *studies)
    for part in parts:
        assert part in line
    assert not (runs / "reports").exists()


def test_a_report_is_compared_where_there_is_no_run(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    assert said(capsys, "report", "long", "--shared")[0] == 0
    shutil.rmtree(runs / "runs" / "long")
    status, _, err = said(capsys, "report", "short", "long", "--shared")
    assert (status, err) == (0, "")
    with open(runs / "reports" / "short+long" / "studies.csv") as file:
        assert [row["complete"] for row in csv.DictReader(file)] == ["2", "2"]


def test_the_report_of_a_run_that_is_gone_is_told(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    assert said(capsys, "report", "long", "--shared")[0] == 0
    shutil.rmtree(runs / "runs" / "long")
    line = refused(capsys, "export", "long")
    assert "has not been run in runs; reports/long is its report" in line


def test_a_study_that_is_damaged_leaves_nothing_of_a_comparison(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    (runs / "runs" / "long" / "study.yaml").write_text("name: long\n")
    assert "runs/long/study.yaml: task: is missing" in refused(capsys, "report", "short", "long")
    assert not (runs / "reports").exists()


def test_names_that_make_too_long_a_name_are_refused(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    names = [f"{'x' * 63}{number}" for number in range(4)]
    for name in names:
        shutil.copytree(runs / "runs" / "short", runs / "runs" / name)
    assert "more than 255 letters" in refused(capsys, "report", *names)
    assert not (runs / "reports").exists()


# --- profile and tables --------------------------------------------------------------------------


def test_profile_of_a_space_counts_its_networks(capsys: pytest.CaptureFixture[str]) -> None:
    space = ROOT / "spaces" / "fusion_tiny.yaml"
    status, out, err = said(capsys, "profile", space, "--limit", "profile.macs=1.1e8")
    assert (status, err) == (0, "")
    assert "3 combinations, all looked at: 3 distinct networks" in out
    assert "profile.macs at most 0.11 GMACs: 33.3 % of the networks" in out


def test_profile_counts_at_once_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "profile", "w32", "--count")
    assert status == 0
    assert "28,536,113" in out
    assert "7.645 GMACs, 7.12 of the paper's GFLOPs" in out
    code = "import sys; from hrnet_search.cli import main; main(['profile', 'w32', '--count'])"
    command = [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_profile_of_a_network_shows_every_counter(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = hrnet(width=4, num_modules=1, num_blocks=1, stage1_blocks=1, stage1_width=4)
    expected = cost(spec, head="v1", num_outputs=3, input_size=(32, 48)).macs
    file = tmp_path / "arch.json"
    file.write_text(json.dumps(spec.to_dict()))
    status, out, _ = said(capsys, "profile", file, "--input", "32x48", "--outputs", "3")
    assert status == 0
    for counter in ("closed form", "fvcore", "torch"):
        rows = [line for line in out.splitlines() if line.startswith(counter)]
        assert f" {expected:,} " in rows[0]
    for text in ("ptflops", "skips", "relu", "Peak memory", "Latency", "channels-last"):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "w33"], "'w33': is no network's name"),
        (["profile", "w32", "--head", "v3"], "--head: 'v3': must be one of v1, v1h, v2 for pose;"),
        (["profile", str(SMOKE), "--head", "cls"], "must be one of v1, v1h, v2 for pose; cls is"),
        (["profile", "w32", "--input", "16x64"], "input_size: (16, 64): must be at least 32 x 32"),
        (["profile", "w32", "--limit", "profile.macs=1"], "--limit: 'profile.macs=1': is for spac"),
        (["profile", str(SMOKE), "--limit", "profile.macs"], "--limit: 'profile.macs': must be ME"),
        (["profile", str(SMOKE), "--input", "8x8"], "space: builds no network at all: input_size"),
        (["profile", "resnet50", "--head", "v2"], "--head: 'v2': resnet50 has its own"),
        (["profile", str(SMOKE), "--count"], "--count: is for one network; a space is only count"),
        (["profile", "resnet50", "--count"], "--count: 'resnet50': is for HRNets"),
        (["profile", "w32", "--input", "64"], "argument --input: '64': must be HEIGHTxWIDTH"),
        (["tables", "20"], "table: '20': must be one of 1, 2, 3"),
        (["tables", "1", "--out", f"{SMOKE}/tables.md"], "cannot be written"),
    ],
)  # fmt: skip
def test_profile_and_tables_refuse_bad_input(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refused(capsys, *arguments)


def test_tables_are_printed_or_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = said(capsys, "tables", "16")
    assert status == 0
    assert out.startswith("Table 16")
    assert "HRNet-W25-Cii" in out
    for form, start in (("markdown", "#"), ("csv", "table,"), ("html", "<!doctype html>")):
        file = tmp_path / f"tables.{form}"
        status, out, _ = said(capsys, "tables", "16", "--format", form, "--out", file)
        assert (status, out) == (0, f"Tables: {file}\n")
        assert file.read_text().startswith(start)


def test_a_drawing_is_printed_or_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, printed, err = said(capsys, "draw", "w32")
    assert (status, err) == (0, "")
    root = ElementTree.fromstring(printed)
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "w32"
    file = tmp_path / "w32.svg"
    assert said(capsys, "draw", "w32", "--out", file) == (0, f"Drawing: {file}\n", "")
    assert file.read_text() == printed
    assert (ROOT / "docs" / "images" / "w32.svg").read_text() == file.read_text()
    with_v2 = said(capsys, "draw", "w32", "--head", "v2")[1]
    assert ">v2<" in with_v2
    assert ">v2<" not in printed


def test_a_drawing_names_no_folders_of_the_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "winner" / "arch.json"
    file.parent.mkdir()
    exported = {"arch": hrnet(width=4).to_dict(), "head": "v2", "num_outputs": 11}
    file.write_text(json.dumps(exported))
    _, printed, _ = said(capsys, "draw", file)
    assert "<title>winner/arch.json</title>" in printed
    assert str(tmp_path) not in printed
    assert ">v2<" in printed


def test_arms_and_trials_of_studies_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    study, folder = ROOT / "studies" / "table12_pose.yaml", ROOT / "reports" / "table12_pose"
    whole = said(capsys, "draw", study, "--arm", "+within")[1]
    assert "<title>table12_pose: +within</title>" in whole
    rows = list(csv.DictReader((folder / "results.csv").open()))
    trial = next(row["trial"] for row in rows if row["arm"] == "+within")
    again = said(capsys, "draw", folder, "--trial", trial)[1]
    assert f"<title>table12_pose: trial {trial}, +within</title>" in again
    assert whole.partition("</title>")[2] == again.partition("</title>")[2]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["w33"], "'w33': is no network's name"),
        (["table12_pose"], "is a study; name one of its networks by --arm or --trial"),
        (["reports/table12_pose"], "is a study; name one of its networks by --arm or --trial"),
        (["hourglass_8"], "'hourglass_8': is no HRNet, so it has no branches to draw"),
        ([str(SMOKE)], "holds many networks; name one of a study by --arm or --trial"),
        ([str(SMOKE), "--arm", "alll"], "--arm: 'alll': must be one of "),
        ([str(SMOKE), "--arm", "all", "--head", "v2"], "--head: 'v2': is for other networks"),
        (
            ["w32", "--task", "detection", "--head", "cls"],
            "--head: 'cls': must be one of v1p, v1hp, v2p, v2p_s2, v2r for detection; "
            "cls is for classification",
        ),
        (
            ["w32", "--head", "ocr"],
            "must be one of v1, v1h, v2 for pose; ocr is for segmentation or segmentation_ocr",
        ),
        (["w32", "--task", "detection", "--head", "v2q"], "did you mean 'v2"),
        ([str(ROOT / "reports" / "table12_pose"), "--trial", "999"], "--trial: 999: is no trial"),
        (
            [str(ROOT / "studies" / "search_pose.yaml"), "--arm", "x"],
            "--arm: 'x': is for grids; the networks of a search are named by --trial",
        ),
        (["w32", "--out", "/proc/none/x.svg"], "--out: '/proc/none/x.svg': cannot be written"),
    ],
)
def test_what_cannot_be_drawn_gets_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    rule: str,
) -> None:
    monkeypatch.chdir(ROOT)  # whose reports are found by name
    assert rule in refused(capsys, "draw", *arguments)


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_a_cluster_that_is_not_there_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, address: str
) -> None:
    status, _, errors = said(capsys, "run", SMOKE, "--address", address, "--out", tmp_path / "o")
    assert status == 2
    assert errors.startswith(f"hrnet-search: --address: {address!r}: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "o").exists()
