"""What a search has to beat."""

import subprocess
from pathlib import Path

import pytest
import yaml
from running import PATIENCE, command
from tiny import TINY_POSE_STUDY

from hrnet_search.errors import InputError
from hrnet_search.files import read_json_lines
from hrnet_search.search.baselines import MOST, baselines
from hrnet_search.search.path import default_params
from hrnet_search.study import Study, load_study

STUDIES = Path(__file__).parents[2] / "studies"


def search(*settings: str) -> Study:
    return load_study(STUDIES / "search_pose.yaml", settings)


def widths(study: Study) -> list[int]:
    return [study.space.arguments(params)["width"] for params in study.arms()]  # type: ignore[misc]


def test_random_search_is_the_search_but_for_its_sampler_and_start() -> None:
    study = search()
    random = baselines(study)["random"]
    assert random.name == "search_pose-random"
    assert random.search == study.search.model_copy(update={"sampler": "random", "start": []})
    for part in ("task", "data", "space", "train", "seeds", "objectives"):
        assert getattr(random, part) == getattr(study, part)


def test_a_random_search_is_its_own_baseline() -> None:
    assert list(baselines(search("search.sampler=random"))) == ["scaling"]


def test_scaling_has_the_default_network_between_the_costs_of_the_space() -> None:
    study = search()
    scaling = baselines(study)["scaling"]
    assert scaling.search.is_grid
    assert scaling.name == "search_pose-scaling"
    assert scaling.objectives == study.objectives
    assert len(scaling.arms()) <= MOST
    found = widths(scaling)
    assert found == sorted(set(found))
    assert 14 in found  # that of search.start[0]
    own = study.space.arguments(default_params(study, ()))
    for params in scaling.arms():
        arguments = scaling.space.arguments(params)
        assert {k: v for k, v in arguments.items() if k != "width"} == {
            k: v for k, v in own.items() if k != "width"
        }
    macs = [study.costs(params)["profile.macs"] for params in study.space.params()]
    scaled = [scaling.costs(params)["profile.macs"] for params in scaling.arms()]
    assert min(macs) <= scaled[0] < scaled[-1] <= max(macs)
    assert scaled[-1] > 3 * scaled[0]


def test_scaling_keeps_the_limits() -> None:
    limited = search("space.limits={profile.macs: 1.0e7}")
    found = baselines(limited)["scaling"]
    assert max(found.costs(params)["profile.macs"] for params in found.arms()) <= 1e7


def test_widths_of_each_stage_are_scaled_alike() -> None:
    study = search(
        "space={base: {width: [[4, 8], [4, 8, 16], [4, 8, 16, 32]], stage1_width: 16, "
        "stem_width: 16, num_modules: 1}, vary: {num_blocks: {low: 1, high: 4}}}",
        "search.start=[]",
    )
    found = baselines(study)["scaling"]
    shown = [found.space.arguments(params)["width"] for params in found.arms()]
    assert [[4, 8], [4, 8, 16], [4, 8, 16, 32]] in shown
    for first, second, third in shown:  # type: ignore[misc]
        assert first == third[:2]
        assert second == third[:3]


def test_a_grid_has_nothing_to_beat() -> None:
    with pytest.raises(InputError, match=r"search\.sampler: 'grid': is for searches"):
        baselines(load_study(STUDIES / "smoke.yaml"))


def test_the_command_trains_all_three_and_the_report_compares_them(tmp_path: Path) -> None:
    """Two networks, two at random, and the default one scaled; a second time nothing is trained."""
    content = TINY_POSE_STUDY | {
        "seeds": 1,
        "search": {"sampler": "qmc", "networks": 2},
        "objectives": ["metrics.ap", "profile.macs"],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    given = command("baselines", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path), "--quiet")
    done = subprocess.run(given, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Compared: {tmp_path / 'reports' / 'tiny' / 'index.html'}" in done.stdout
    files = sorted(tmp_path.glob("runs/*/results.jsonl"))
    assert [file.parent.name for file in files] == ["tiny", "tiny-random", "tiny-scaling"]
    for file in files:
        keys = [record["key"] for record in read_json_lines(file)]
        assert len(keys) == len(set(keys))  # no network twice
        assert len(keys) == 2 or file.parent.name == "tiny-scaling"
    page = (tmp_path / "reports" / "tiny" / "index.html").read_text()
    assert "tiny-random" in page
    assert "tiny-scaling" in page
    before = [file.read_bytes() for file in files]
    again = subprocess.run(given, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0, again.stderr
    assert [file.read_bytes() for file in files] == before
