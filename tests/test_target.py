"""What `profile` is asked about is found by name or by file, or refused in one line."""

import json
from pathlib import Path

import pytest

from hrnet_search.arch import hrnet
from hrnet_search.blueprint import HEADS
from hrnet_search.errors import InputError
from hrnet_search.presets import TASK_SETTINGS, preset
from hrnet_search.rivals import RIVALS
from hrnet_search.space import Space
from hrnet_search.target import check_head, find_target, heads_of

ROOT = Path(__file__).parents[1]


def test_a_preset_has_the_settings_of_its_task() -> None:
    pose = find_target("w48", task="pose")
    assert pose.what == preset("w48")
    assert pose.setting == ("v1", 17, (256, 192))
    segmentation = find_target("w48", task="segmentation")
    assert segmentation.what == preset("w48", task="segmentation")
    assert segmentation.setting == ("v2", 19, (1024, 2048))


def test_every_head_is_of_a_task_and_the_usual_one_of_its_own() -> None:
    assert {name for task in TASK_SETTINGS for name in heads_of(task)} == set(HEADS)
    assert all(setting[0] in heads_of(task) for task, setting in TASK_SETTINGS.items())
    assert heads_of("pose") == ("v1", "v1h", "v2")
    assert set(heads_of("detection")) == {"v1p", "v1hp", "v2p", "v2p_s2", "v2r"}


def test_a_network_may_have_the_heads_of_what_it_may_be_for(tmp_path: Path) -> None:
    file, spec = tmp_path / "arch.json", hrnet(width=4)
    file.write_text(json.dumps(spec.to_dict()))
    for head in HEADS:  # a bare spec does not say what it is for
        check_head(head, find_target(str(file), task=None))
    file.write_text(json.dumps({"arch": spec.to_dict(), "head": "v1", "num_outputs": 11}))
    found = find_target(str(file), task=None)
    for head in ("v2", "ocr", None):  # V1 is a head of pose and segmentation
        check_head(head, found)
    for head in ("cls", "v2p"):
        with pytest.raises(InputError, match=f"--head: '{head}': must be one of v1, v1h, v2, ocr"):
            check_head(head, found)


def test_a_rival_has_the_settings_of_a_task_it_is_for() -> None:
    assert find_target("hourglass_8", task="pose").what == RIVALS["hourglass_8"]
    assert find_target("pspnet_resnet101", task=None).setting == ("v2", 19, (1024, 2048))
    with pytest.raises(InputError, match="--task: 'pose': pspnet_resnet101 is for segmentation"):
        find_target("pspnet_resnet101", task="pose")


def test_a_study_brings_its_own_settings_and_a_space_takes_those_of_the_task() -> None:
    smoke = str(ROOT / "studies" / "smoke.yaml")
    study = find_target(smoke, task=None)
    assert isinstance(study.what, Space)
    assert study.setting == ("v1", 17, (32, 32))
    with pytest.raises(InputError, match="--task: 'pose': is for spaces"):
        find_target(smoke, task="pose")
    full = find_target(str(ROOT / "spaces" / "hrnet_full.yaml"), task="segmentation")
    assert isinstance(full.what, Space)
    assert full.what.base["task"] == "segmentation"
    assert full.setting == ("v2", 19, (1024, 2048))


def test_a_spec_is_read_bare_or_from_an_exported_folder(tmp_path: Path) -> None:
    spec = hrnet(width=4)
    file = tmp_path / "arch.json"
    file.write_text(json.dumps(spec.to_dict()))
    assert find_target(str(file), task="pose").what == spec
    exported = {"arch": spec.to_dict(), "head": "v2", "num_outputs": 11}
    file.write_text(json.dumps(exported))
    found = find_target(str(file), task="pose")
    assert (found.what, found.setting) == (spec, ("v2", 11, (256, 192)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "arch.json: is not readable JSON"),
        ("[]", "arch.json: .*must be a mapping of fields to values"),
        ('{"arch": {}}', "arch.json: stem_channels: is missing"),
        ("SPEC", "arch.json: head: 3: must be the name of a head"),
        ("\udcff", "arch.json: is not readable JSON"),
        ("9" * 5000, "arch.json: is not readable JSON"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "arch.json"
    spec = json.dumps({"arch": hrnet(width=4).to_dict(), "head": 3, "num_outputs": 1})
    text = spec if content == "SPEC" else content
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message) as caught:
        find_target(str(file), task="pose")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("w48s", "pose", "'w48s': is no network's name .* did you mean 'w48'"),
        ("nowhere.json", "pose", "nowhere.json: there is no such file"),
        ("nowhere.yaml", "pose", "nowhere.yaml: there is no such file"),
        ("w48", "poses", "--task: 'poses': must be one of pose, .* did you mean 'pose'"),
    ],
)
def test_what_is_not_there_is_named(name: str, task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_target(name, task=task)
