"""Published networks cost what is printed; relatives of HRNet have the pattern they stand for."""

from typing import Any

import pytest
import torch

from hrnet_search.arch import TASK_DEFAULTS, ArchSpec, hrnet
from hrnet_search.blueprint import canonical
from hrnet_search.cost import cost
from hrnet_search.errors import InputError
from hrnet_search.model import build
from hrnet_search.presets import PRESETS, preset

PAPER_GFLOP = 2**30


@pytest.mark.parametrize("head", ["v1", "v2", "cls"])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_built(name: str, head: str) -> None:
    spec = preset(name)
    with torch.device("meta"):
        net = build(spec, head=head, num_outputs=17)
    ours = cost(spec, head=head, num_outputs=17, input_size=(64, 64))
    assert sum(p.numel() for p in net.parameters()) == ours.params


@pytest.mark.parametrize("task", TASK_DEFAULTS)
def test_a_preset_has_the_defaults_of_the_task(task: str) -> None:
    assert preset("w32", task=task) == hrnet(task=task)
    assert preset("w18-small-v2", task=task).bn_momentum == TASK_DEFAULTS[task]["bn_momentum"]


@pytest.mark.parametrize(
    ("name", "head", "millions", "gflops"),
    [
        # Table 15, lower half
        ("w44-c", "cls", 21.9, 3.90),
        ("w76-c", "cls", 40.8, 7.30),
        ("w96-c", "cls", 57.5, 10.2),
        # its upper half
        ("w18", "cls", 21.3, 3.99),
        ("w30", "cls", 37.7, 7.55),
        ("w40", "cls", 57.6, 11.8),
        # Table 16
        ("w27", "cls_i", 21.4, 5.55),
        ("w36", "cls_i", 37.5, 9.00),
        ("w45", "cls_i", 58.2, 13.4),
        ("w25", "cls_ii", 21.7, 5.04),
        ("w34", "cls_ii", 36.7, 8.29),
        ("w43", "cls_ii", 56.3, 12.5),
    ],
)
def test_classification_networks_cost_what_the_paper_prints(
    name: str, head: str, millions: float, gflops: float
) -> None:
    spec = preset(name, task="classification")
    ours = cost(spec, head=head, num_outputs=1000, input_size=(224, 224))
    assert ours.params / 1e6 == pytest.approx(millions, rel=0.005)
    assert ours.macs / PAPER_GFLOP == pytest.approx(gflops, rel=0.005)


# --- relatives ---------------------------------------------------------------------------------


def edges(spec: ArchSpec) -> list[list[tuple[tuple[int, int], ...]]]:
    return [[module.edges for module in stage.modules] for stage in spec.stages]


DOWN = ((0, 1), (1, 2), (2, 3))
UP = ((1, 0), (2, 1), (3, 2))


def test_a_gridnet_goes_down_first_and_up_afterwards() -> None:
    spec = preset("gridnet")
    assert edges(spec) == [[DOWN, DOWN], [DOWN, UP], [UP, UP]]
    assert all(stage.num_branches == 4 for stage in spec.stages)


def test_a_multi_scale_densenet_concatenates_and_never_leads_from_low_to_high() -> None:
    spec = preset("multi-scale-densenet")
    assert spec.fuse == "concat"
    assert edges(spec) == [[DOWN, DOWN]] * 3
    assert all(
        source < target for stage in edges(spec) for module in stage for source, target in module
    )


def test_a_neural_fabric_joins_neighbours_of_equal_width() -> None:
    spec = preset("neural-fabric")
    assert edges(spec) == [[tuple(sorted((*DOWN, *UP)))] * 2] * 3
    assert all(stage.num_channels == (32, 32, 32, 32) for stage in spec.stages)


@pytest.mark.parametrize(("name", "fuse"), [("hourglass", "sum"), ("u-net", "concat")])
def test_serial_networks_go_down_and_up_with_one_branch_at_work_at_a_time(
    name: str, fuse: str
) -> None:
    spec = preset(name)
    assert spec.fuse == fuse
    at_work = [
        [branch for branch, number in enumerate(module.num_blocks) if number]
        for stage in spec.stages
        for module in stage.modules
    ]
    assert at_work == [[1], [2], [3], [2], [1], [0]]
    flat = [edge for stage in edges(spec) for module in stage for edge in module]
    assert flat == [(3, 2), (2, 1), (1, 0)]  # down by transitions, up by fusion units


@pytest.mark.parametrize("name", ["hourglass", "u-net"])
def test_every_unit_of_a_serial_network_lies_on_the_longest_way(name: str) -> None:
    spec = preset(name)
    ours = cost(spec, head="v1", num_outputs=17, input_size=(64, 64))
    stem, stage1, units, down = 2, 4 * 3, 6 * 4 * 2, 3
    # On the way up a 1x1 convolution for each step, and one after each concatenation.
    up = 3 * (2 if name == "u-net" else 1)
    assert ours.depth == stem + stage1 + down + units + up + 1
    whole = canonical(spec, "v1")
    assert sum(sum(m.num_blocks) for s in whole.stages for m in s.modules) == 24  # all are read


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"name": "hour-glass"}, "; did you mean 'hourglass'?"),
        ({"name": "unet"}, "; did you mean 'u-net'?"),
        ({"name": "w32", "task": "poses"}, "; did you mean 'pose'?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        preset(**given)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    key, value = ("task", "poses") if "task" in given else ("preset", given["name"])
    assert str(caught.value).startswith(f"{key}: {value!r}: must be one of ")
