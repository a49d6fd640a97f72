"""What a report must be told of, since it keeps no folders: of each variant its own."""

from typing import Any

import pytest

from hrnet_search.errors import InputError
from hrnet_search.record import _check_override, _check_paths, of_variant
from hrnet_search.study import Study

SETTINGS: dict[str, Any] = {
    "name": "varied",
    "task": {"kind": "segmentation"},
    "data": {
        "kind": "segmentation_folder",
        "root": "all",
        "class_names": ["sky", "road"],
        "crop_size": [64, 64],
    },
    "space": {"vary": {"width": {"choices": [4]}}},
    "train": {"steps": 4, "batch_size": 2, "lr": 0.001, "evaluations": 1},
    "variants": {
        "v1": {"task": {"head": "v1"}},
        "few": {"data": {"root": "few"}, "train": {"pretrained": "body.pth"}},
    },
}


@pytest.mark.parametrize(
    ("variant", "wanted"),
    [
        ("v1", ["data.root"]),
        ("few", ["variants.few.data.root", "variants.few.train.pretrained"]),
    ],
)
def test_the_paths_of_a_trials_own_variant_are_asked_for(variant: str, wanted: list[str]) -> None:
    study = Study.model_validate(SETTINGS)
    for place, key in enumerate(wanted):
        with pytest.raises(InputError, match=f"give --set {key}=PATH") as caught:
            _check_paths(study, variant, [f"{given}=/there" for given in wanted[:place]])
        assert caught.value.key == key
    _check_paths(study, variant, [f"{key}=/there" for key in wanted])


def test_paths_may_be_set_within_a_variant_and_nothing_that_trains_otherwise() -> None:
    _check_override("variants.few.data.root=/there", ["v1", "few"])
    _check_override("data.root=/there", [])
    wrong = ("variants.few.train.lr=1", "variants.few=1", "variants={}", "train.lr=1")
    for override in (*wrong, "scales.few.data.root=/there"):
        with pytest.raises(InputError, match="would make another training of it"):
            _check_override(override, ["v1", "few"])


def test_only_a_variant_that_there_is_can_have_its_paths_set() -> None:
    with pytest.raises(InputError, match="variants: 'fw': must be one of v1, few"):
        _check_override("variants.fw.data.root=/there", ["v1", "few"])
    with pytest.raises(InputError, match="would make another training of it"):
        _check_override("variants.few.data.root=/there", [])


def test_an_environment_with_variants_says_of_a_trial_what_one_without_says() -> None:
    data = {name: {"folder": f"/{name}", "checksum": name} for name in ("a", "b")}
    varied = {
        "device": "cpu",
        "variants": {n: {"data": d, "pretrained": n} for n, d in data.items()},
    }
    assert of_variant(varied, "b") == {"device": "cpu", "data": data["b"], "pretrained": "b"}
    plain = {"device": "cpu", "data": data["a"], "pretrained": None}
    assert of_variant(plain, "") == plain
