"""What is checked before anything is trained, and what a trial reserves."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from hrnet_search.baselines import network
from hrnet_search.errors import InputError
from hrnet_search.search.engine import _check_gpus, _check_networks, check, run_study
from hrnet_search.study import Study, load_study
from hrnet_search.weights import save_weights

SMOKE = Path(__file__).parents[2] / "studies" / "smoke.yaml"
SIZES = ["data.num_train=20", "data.num_val=2"]


def smoke(*overrides: str) -> Study:
    return load_study(SMOKE, [*SIZES, *overrides])


def save(study: Study, place: int, file: Path) -> None:
    arch = study.network(study.arms()[place]).to_dict()
    save_weights(network(arch, head="v1", num_outputs=17), file)


def test_a_checkpoint_that_fits_every_network_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "body.safetensors"
    save(smoke(), 0, file)
    _check_networks(smoke(f"train.pretrained={file}", "space.vary.across.choices=[false]"))


def test_a_checkpoint_that_does_not_fit_a_network_names_it(tmp_path: Path) -> None:
    file = tmp_path / "body.safetensors"
    save(smoke(), 0, file)
    with pytest.raises(InputError, match=r"\(network across=true\)") as caught:
        _check_networks(smoke(f"train.pretrained={file}"))
    assert (caught.value.key, caught.value.value) == ("train.pretrained", str(file))


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "body.safetensors").touch()
    with pytest.raises(InputError, match="is no file") as caught:
        _check_networks(smoke(f"train.pretrained={tmp_path / 'boddy.safetensors'}"))
    assert caught.value.key == "train.pretrained"
    assert caught.value.nearest == "body.safetensors"


def test_rivals_have_no_body_to_load(tmp_path: Path) -> None:
    file = tmp_path / "body.safetensors"
    save(smoke(), 0, file)
    study = smoke(
        f"train.pretrained={file}", "space.vary.across.choices=[false]",
        "rivals=[simple_baseline_resnet50]",
    )  # fmt: skip
    with pytest.raises(
        InputError, match=r"is for HRNets alone \(network simple_baseline"
    ) as caught:
        _check_networks(study)
    assert caught.value.key == "train.pretrained"


def test_rivals_may_have_no_head_of_their_own_rate() -> None:
    _check_networks(smoke("train.head_lr=10"))
    with pytest.raises(InputError, match="simple_baseline_resnet50") as caught:
        _check_networks(smoke("train.head_lr=10", "rivals=[simple_baseline_resnet50]"))
    assert (caught.value.key, caught.value.value) == ("train.head_lr", 10)


def test_what_is_refused_changes_nothing_even_when_starting_over(tmp_path: Path) -> None:
    kept = tmp_path / "runs" / "smoke"
    kept.mkdir(parents=True)
    (kept / "study.db").touch()
    study = smoke("train.precision=float16")
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(InputError, match="needs a GPU"):
        run_study(
            study, file=SMOKE, out=tmp_path, jobs=1, address=None, fresh=True, command="",
            console=Console(quiet=True),
        )  # fmt: skip
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["smoke"]


def test_steps_of_a_trial_follow_from_the_data() -> None:
    study = smoke().model_copy()
    train = study.train.model_validate(
        {"epochs": 3, "batch_size": 8, "lr": 1e-3, "precision": "float32"}
    )
    ready = check(study.model_copy(update={"train": train}), Console(quiet=True))
    assert ready.steps == 8  # 3 x 20 samples in batches of 8
    assert [materials.pretrained for materials in ready.materials.values()] == [None]


def test_variants_whose_trials_would_differ_in_length_are_refused() -> None:
    epochs = ["train.steps=null", "train.epochs=2", "train.evaluations=1"]
    check(smoke(*epochs, "variants={a: {}, b: {data: {seed: 1}}}"), Console(quiet=True))
    more = smoke(*epochs, "variants={a: {}, b: {data: {num_train: 40}}}")
    with pytest.raises(InputError, match=r"trials of 10 steps; .* the same \(5\)") as caught:
        check(more, Console(quiet=True))
    assert caught.value.key == "variants.b"


def test_what_is_wrong_with_a_variant_is_told_under_its_name(tmp_path: Path) -> None:
    study = smoke("variants={a: {}, b: {data: {input_size: [48, 48]}, task: {test: {flip: true}}}}")
    check(study, Console(quiet=True))
    file = tmp_path / "body.safetensors"
    save(smoke(), 0, file)
    study = smoke(f"variants={{a: {{}}, b: {{train: {{pretrained: {file}}}}}}}")
    with pytest.raises(InputError, match=r"\(network across=true\)") as caught:
        check(study, Console(quiet=True))
    assert (caught.value.key, caught.value.value) == ("variants.b.train.pretrained", str(file))


def test_the_validation_data_must_have_what_the_study_compares_by() -> None:
    # Drawn people of 32 x 32 pixels are not large, which is from 96 x 96 on.
    size = "data.input_size=[32, 32]"
    check(smoke(size, "objectives=[metrics.ap, profile.macs]"), Console(quiet=True))
    with pytest.raises(InputError, match="nothing that it can be measured on") as caught:
        check(smoke(size, "objectives=[metrics.apl, profile.macs]"), Console(quiet=True))
    assert (caught.value.key, caught.value.value) == ("objectives.0", "metrics.apl")


@pytest.mark.parametrize("stages", [[2, 3], [3, 2]])
def test_images_must_be_large_enough_for_every_network(
    tmp_path: Path, cache: Path, stages: list[int]
) -> None:
    """Three stages have maps at a 16th of the image, two at an 8th."""
    study = Study.model_validate(
        {
            "name": "small",
            "task": {"kind": "segmentation"},
            "data": {
                "kind": "segmentation_folder", "root": str(tmp_path), "crop_size": [32, 32],
                "class_names": ["sky", "road"],
            },
            "space": {
                "base": {"width": 4, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 4},
                "vary": {"num_stages": {"choices": stages}},
            },
            "train": {"steps": 2, "evaluations": 1, "batch_size": 2, "lr": 0.1},
        }
    )  # fmt: skip
    for name in ("train", "trainannot", "val", "valannot"):
        (tmp_path / name).mkdir()
    for height in (15, 16):
        for name in ("train", "val"):
            picture = Image.new("RGB", (40, height))
            picture.save(tmp_path / name / "1.png")
            picture.convert("L").save(tmp_path / f"{name}annot" / "1.png")
        if height == 16:
            assert check(study, Console(quiet=True)).steps == 2
            continue
        with pytest.raises(InputError, match=r"40x15; networks of the study take 16x16 or more"):
            check(study, Console(quiet=True))


def test_no_more_processes_than_gpus() -> None:
    study = smoke("train.processes=4")
    _check_gpus(study, 0)
    _check_gpus(study, 4)
    with pytest.raises(InputError, match=r"the GPUs of this machine \(2\)") as caught:
        _check_gpus(study, 2)
    assert caught.value.key == "train.processes"
