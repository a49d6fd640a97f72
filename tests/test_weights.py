"""Weights go between files, conventions and networks without a change, or not at all."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.blueprint import HEADS
from hrnet_search.errors import InputError
from hrnet_search.model import Network, build
from hrnet_search.presets import preset
from hrnet_search.weights import (
    Loaded,
    inherit_weights,
    load_state,
    load_weights,
    official_name,
    save_weights,
)

GOLDEN = Path(__file__).parent / "golden"
State = dict[str, Tensor]


def tiny(**arguments: Any) -> ArchSpec:
    """A spec of all four stages that runs in milliseconds."""
    small = {"width": 4, "num_modules": 1, "num_blocks": 1}
    return hrnet(**{**small, "stage1_blocks": 1, "stage1_width": 4, "stem_width": 8, **arguments})


def filled(spec: ArchSpec, head: str = "v1", *, seed: int = 0, num_outputs: int = 3) -> Network:
    """A network in which every entry is random and every variance positive."""
    net = build(spec, head=head, num_outputs=num_outputs).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, entry in net.state_dict().items():
        if not entry.is_floating_point():
            entry.fill_(seed)
        elif entry.ndim > 1:
            scale = (2 / entry[0].numel()) ** 0.5
            entry.copy_(torch.randn(entry.shape, generator=generator) * scale)
        else:
            least = 0.5 if name.endswith(("running_var", "weight")) else -0.5
            entry.copy_(torch.rand(entry.shape, generator=generator) + least)
    return net


def official(net: nn.Module) -> State:
    return {official_name(net, name): entry.clone() for name, entry in net.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


def outputs(net: nn.Module, size: int = 64) -> list[Tensor]:
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        result = net(image)
    return [result] if isinstance(result, Tensor) else list(result)


def message(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "suffix"),
    [("ours", ".safetensors"), ("official", ".safetensors"), ("official", ".pth")],
)
@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded_is_the_same(tmp_path: Path, head: str, names: str, suffix: str) -> None:
    net, other = filled(tiny(), head), filled(tiny(), head, seed=1)
    path = tmp_path / f"net{suffix}"
    save_weights(net, path, names=names)
    loaded = load_weights(other, path)
    assert same(net, other)
    is_pyramid = head in ("v1p", "v1hp", "v2p", "v2p_s2")
    expected = "ours" if names == "ours" else "parts" if is_pyramid else "official"
    assert loaded == Loaded(expected, tuple(net.state_dict()), (), ())
    assert list(tmp_path.iterdir()) == [path]


def test_official_names_in_the_file(tmp_path: Path) -> None:
    save_weights(filled(tiny(), "v1"), tmp_path / "pose.pth", names="official")
    state = torch.load(tmp_path / "pose.pth", weights_only=True)
    assert {"conv1.weight", "layer1.0.bn3.running_var", "final_layer.bias"} <= state.keys()
    save_weights(filled(tiny(), "v2p"), tmp_path / "det.pth", names="official")
    state = torch.load(tmp_path / "det.pth", weights_only=True)
    assert {"backbone.conv1.weight", "neck.reduction_conv.0.bias"} <= state.keys()


def test_weights_in_another_memory_format_are_saved(tmp_path: Path) -> None:
    net, other = filled(tiny()), filled(tiny(), seed=1)
    save_weights(net.to(memory_format=torch.channels_last), tmp_path / "a.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert same(net, other)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.onnx"])
def test_a_file_of_another_kind_is_not_written(tmp_path: Path, name: str) -> None:
    text = message(lambda: save_weights(filled(tiny()), tmp_path / name))
    assert text == f"{tmp_path / name}: must end in .safetensors, .pth, .pt, .bin"
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = message(lambda: save_weights(filled(tiny()), tmp_path / "file" / "a.pth"))
    assert "cannot be written" in text


def test_unknown_names_and_parts(tmp_path: Path) -> None:
    net = filled(tiny())
    assert message(lambda: save_weights(net, tmp_path / "a.pth", names="timm")).startswith("names")
    assert message(lambda: load_state(net, official(net), parts="head")).startswith("parts")
    assert message(lambda: load_state(nn.Linear(1, 1), {}, parts="body")).startswith("parts")
    assert message(lambda: load_weights(net, tmp_path / "none.pth", parts="bodyy")) == (
        "parts: 'bodyy': must be all, or for an HRNet body; did you mean 'body'?"
    )


# --- official lists -----------------------------------------------------------------------------


def golden_networks() -> list[Path]:
    return [path for path in sorted(GOLDEN.glob("*.json")) if '"state_dict"' in path.read_text()]


def golden_network(golden: dict[str, Any]) -> Network | None:
    """The recorded network, or None for one that is no HRNet of ours."""
    name, config = golden["model"], golden["config"]
    width = str(config.get("width")).replace("_", "-")
    arch = f"w18-{width}" if width.startswith("small") else f"w{width}"
    head = {"pose_hrnet": "v1", "cls_hrnet": "cls", "det_hrfpn": "v2p", "seg_hrnet": "v2"}.get(
        "_".join(name.split("_")[:2])
    )
    if head is None:
        return None
    if "OCR" in str(config.get("head", "")):
        head = "ocr"
    counts = ("num_joints", "num_classes", "out_channels")
    return build(
        preset(arch), head=head, num_outputs=next(config[c] for c in counts if c in config)
    )


@pytest.mark.parametrize("path", golden_networks(), ids=lambda path: path.stem)
def test_recorded_official_entries(path: Path) -> None:
    golden = json.loads(path.read_text())
    net = golden_network(golden)
    if net is None:
        pytest.skip("no HRNet")
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(shape, generator=generator) if shape else torch.tensor(5)
        for name, shape in golden["state_dict"]
    }
    loaded = load_state(net, state)
    assert (len(loaded.matched), loaded.missing, loaded.ignored) == (len(state), (), ())
    written = official(net)
    assert all(torch.equal(written[name], entry) for name, entry in state.items())


# --- conventions of others ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "model.module.module."])
@pytest.mark.parametrize("head", ["v1", "v2p"])
def test_wrappers(prefix: str, head: str) -> None:
    net, other = filled(tiny(), head), filled(tiny(), head, seed=1)
    load_state(other, {prefix + name: entry for name, entry in official(net).items()})
    assert same(net, other)


def test_a_wrapper_around_some_entries_is_none() -> None:
    state = official(filled(tiny()))
    state["module.conv1.weight"] = state.pop("conv1.weight")
    text = message(lambda: load_state(filled(tiny()), state))
    assert "conv1.weight" in text


@pytest.mark.parametrize("prefix", ["", "module."])
def test_loss_of_the_official_segmentation_wrapper(prefix: str) -> None:
    net, other = filled(tiny(), "v2"), filled(tiny(), "v2", seed=1)
    state = {f"{prefix}model.{name}": entry for name, entry in official(net).items()}
    state[f"{prefix}loss.criterion.weight"] = torch.ones(19)
    assert load_state(other, state).ignored == (f"{prefix}loss.criterion.weight",)
    assert same(net, other)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "meta": {"CLASSES": ("a", "b")}},
        lambda state: {"model": "pose_hrnet", "state_dict": state, "best_state_dict": state},
        lambda state: {"model": state, "optimizer": {"state": {}}},
        lambda state: {"model_state": state},
        lambda state: {"net": state},
        lambda state: state,
    ],
)
def test_containers(tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    net, other = filled(tiny()), filled(tiny(), seed=1)
    torch.save(wrap(official(net)), tmp_path / "a.pth.tar")
    load_weights(other, tmp_path / "a.pth.tar")
    assert same(net, other)


def test_mmdet() -> None:
    """Names of mmdet's `hrfpn.py`, in a whole detector."""
    net, other = filled(tiny(), "v2p"), filled(tiny(), "v2p", seed=1)
    state = {}
    for name, entry in official(net).items():
        name = name.replace("reduction_conv.0.", "reduction_conv.conv.")
        for level in range(5):
            name = name.replace(f"fpn_conv.{level}.", f"fpn_convs.{level}.conv.")
        state[name] = entry
    assert "neck.fpn_convs.4.conv.bias" in state
    state["rpn_head.rpn_conv.weight"] = torch.ones(1)
    loaded = load_state(other, state)
    assert (loaded.convention, loaded.ignored) == ("parts", ("rpn_head.rpn_conv.weight",))
    assert same(net, other)


@pytest.mark.parametrize("part", ["keypoint_head", "head"])
def test_mmpose(part: str) -> None:
    net, other = filled(tiny()), filled(tiny(), seed=1)
    state = {
        f"{part if name.startswith('final_layer') else 'backbone'}.{name}": entry
        for name, entry in official(net).items()
    }
    assert load_state(other, state).convention == "parts"
    assert same(net, other)


def test_networks_of_others_keep_their_names() -> None:
    net, other = nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.Conv2d(3, 4, 1))
    load_state(other, {f"module.{name}": entry for name, entry in net.state_dict().items()})
    assert same(net, other)


def test_old_checkpoints_do_not_count_batches() -> None:
    net, other = filled(tiny()), filled(tiny(), seed=1)
    state = {k: v for k, v in official(net).items() if not k.endswith("num_batches_tracked")}
    loaded = load_state(other, state)
    assert len(loaded.matched) == len(state)
    assert len(loaded.missing) == len(net.state_dict()) - len(state) > 0
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing)


# --- what is refused ----------------------------------------------------------------------------


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda o, path: path.write_bytes(pickle.dumps(o, 2))])
def test_nothing_is_unpickled(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "trace"
    save({"state_dict": official(filled(tiny())), "extra": Bomb(trace)}, path)
    text = message(lambda: load_weights(filled(tiny()), path))
    assert text.startswith(f"{path}: must hold a state dict alone")
    assert not trace.exists()
    with path.open("rb") as file:  # the trap itself works
        if file.read(2) != b"PK":
            pickle.loads(path.read_bytes())
            assert trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_file_that_was_cut_off(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"a{suffix}"
    net, before = filled(tiny()), filled(tiny())
    save_weights(filled(tiny(), seed=1), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in message(lambda: load_weights(net, path))
    assert same(net, before)


@pytest.mark.parametrize("content", [{}, [1], 3, {"epoch": 1}, {"state_dict": {"a": 1}}])
def test_a_file_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    text = message(lambda: load_weights(filled(tiny()), tmp_path / "a.pth"))
    assert text.startswith(f"{tmp_path / 'a.pth'}: must be a state dict, or hold one under")


def test_no_file(tmp_path: Path) -> None:
    save_weights(filled(tiny()), tmp_path / "pose.pth")
    text = message(lambda: load_weights(filled(tiny()), tmp_path / "pose.pt"))
    assert text == f"{tmp_path / 'pose.pt'}: is no file; did you mean 'pose.pth'?"
    nowhere = tmp_path / "a" / "pose.pt"
    assert message(lambda: load_weights(filled(tiny()), nowhere)) == f"{nowhere}: is no file"


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    for folder in (tmp_path, Path("."), tmp_path / "pose.pth"):
        folder.mkdir(exist_ok=True)
        text = message(lambda path=folder: load_weights(filled(tiny()), path))
        assert text == f"{folder}: is a folder, not a file"
    # nor is a folder proposed for a file
    text = message(lambda: load_weights(filled(tiny()), tmp_path / "pose.pt"))
    assert text == f"{tmp_path / 'pose.pt'}: is no file"


def test_mismatch_names_entries_and_shapes(tmp_path: Path) -> None:
    net, before = filled(tiny()), filled(tiny())
    state = official(filled(tiny(), seed=1))
    del state["conv1.weight"]
    state["bn2.weight"] = torch.ones(9)
    state["layer1.7.conv1.weight"] = torch.ones(2, 3)
    torch.save(state, tmp_path / "a.pth")
    assert message(lambda: load_weights(net, tmp_path / "a.pth")) == (
        f"{tmp_path / 'a.pth'}: must fit the network: 1 missing, 1 surplus, 1 of other shape: "
        "body.conv1.weight (ours (8, 3, 3, 3), theirs none), "
        "body.layer1.7.conv1.weight (ours none, theirs (2, 3)), "
        "body.bn2.weight (ours (8,), theirs (9,))"
    )
    assert same(net, before)


def with_one(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    def change(entry: Tensor) -> Tensor:
        entry = entry.to(dtype, copy=True)
        entry.view(-1)[-1] = value
        return entry

    return change


NO_WEIGHTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sparse": (lambda entry: entry.to_sparse(), "must be a dense tensor"),
    "csr": (lambda entry: entry.flatten(1).to_sparse_csr(), "must be a dense tensor"),
    "nested": (lambda e: torch.nested.nested_tensor([e, e]), "must be a dense tensor"),
    "meta": (lambda entry: entry.to("meta"), "is on the meta device: it has no values"),
    "bool": (
        lambda entry: entry > 0,
        "must be of floating-point numbers, is torch.bool",
    ),
    "int64": (lambda e: e.long(), "must be of floating-point numbers, is torch.int64"),
    "complex": (
        lambda entry: entry.to(torch.complex64),
        "must be of floating-point numbers, is torch.complex64",
    ),
    "nan": (
        with_one(float("nan")),
        "must be finite numbers in torch.float32, has infinite ones or NaN",
    ),
    "infinite": (
        with_one(float("-inf"), torch.float16),
        "must be finite numbers in torch.float32, has infinite ones or NaN",
    ),
    "too large": (
        with_one(1e300, torch.float64),
        "must be finite numbers in torch.float32, has infinite ones or NaN",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_an_entry_that_holds_no_weights_is_refused_by_name(kind: str) -> None:
    change, rule = NO_WEIGHTS[kind]
    net, before = filled(tiny()), filled(tiny())
    state = official(filled(tiny(), seed=1))
    name = "stage4.0.branches.3.0.conv2.weight"  # not the first
    state[name] = change(state[name])
    assert message(lambda: load_state(net, state)) == f"{name}: {rule}"
    assert message(lambda: load_state(net, state, parts="body")) == f"{name}: {rule}"
    assert same(net, before)


def test_the_file_of_an_entry_without_weights_is_named(tmp_path: Path) -> None:
    state = official(filled(tiny()))
    state["final_layer.bias"] = torch.full((3,), float("nan"))
    torch.save(state, tmp_path / "a.pth")
    net, before = filled(tiny(), seed=1), filled(tiny(), seed=1)
    text = message(lambda: load_weights(net, tmp_path / "a.pth"))
    assert text.startswith(f"{tmp_path / 'a.pth'}: final_layer.bias: must be finite")
    assert same(net, before)
    load_weights(net, tmp_path / "a.pth", parts="body")  # which does not read it
    assert same(net.head, before.head)
    assert same(net.body, filled(tiny()).body)


@pytest.mark.parametrize("value", [float("nan"), 1j])
def test_a_count_of_batches_is_a_number_too(value: complex) -> None:
    state = official(filled(tiny()))
    state["bn2.num_batches_tracked"] = torch.tensor(value)
    assert message(lambda: load_state(filled(tiny()), state)).startswith("bn2.num_batches_tracked")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(dtype: torch.dtype) -> None:
    net, source = filled(tiny()), filled(tiny(), seed=1)
    load_state(net, {name: entry.to(dtype) for name, entry in official(source).items()})
    theirs = source.state_dict()
    for name, entry in net.state_dict().items():
        assert torch.equal(entry, theirs[name].to(dtype).to(entry.dtype))


def test_a_network_without_values_is_refused(tmp_path: Path) -> None:
    save_weights(filled(tiny()), tmp_path / "a.pth")
    with torch.device("meta"):
        net = build(tiny(), head="v1", num_outputs=3)
    rule = "the network must not be on the meta device, which keeps no values"
    assert message(lambda: load_state(net, official(filled(tiny())))) == rule
    assert message(lambda: load_weights(net, tmp_path / "a.pth")) == rule


def test_at_most_three_examples() -> None:
    text = message(lambda: load_state(filled(tiny()), official(filled(tiny(width=5)))))
    assert text.count("theirs") == 3
    assert "0 missing, 0 surplus" in text


def test_two_names_of_one_entry() -> None:
    state = {"backbone.conv1.weight": torch.ones(1)}
    both = state | {f"{part}.final_layer.bias": torch.ones(3) for part in ("head", "keypoint_head")}
    text = message(lambda: load_state(filled(tiny()), both))
    assert text == "must not have both head.final_layer.bias and keypoint_head.final_layer.bias"


# --- the body alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", [head for head in HEADS if head != "cls"])
def test_classification_weights_under_another_head(head: str) -> None:
    source = filled(tiny(), "cls", seed=1)
    net, before = filled(tiny(), head), filled(tiny(), head)
    text = message(lambda: load_state(net, official(source)))
    assert text.endswith("; to load the body alone: load_weights(..., parts='body')")
    assert same(net, before)
    loaded = load_state(net, official(source), parts="body")
    theirs = source.body.state_dict()
    body = net.body.state_dict()
    assert all(torch.equal(entry, theirs[name]) for name, entry in body.items())
    assert same(net.head, before.head)
    assert set(loaded.missing) == {f"head.{name}" for name in net.head.state_dict()}
    surplus = {*official(source)} - {*body}
    assert set(loaded.ignored) == surplus
    rows = {n for n in surplus if n.startswith("stage4.0.fuse_layers")}
    assert bool(rows) == (head in ("v1", "v1h", "v1p", "v1hp"))
    assert {name.split(".")[3] for name in rows} <= {"1", "2", "3"}


def test_what_leads_nowhere_is_ignored_with_the_body_alone() -> None:
    """Without a fusion after it, stage 4 keeps branch 0 alone, and stage 3 what leads there."""
    spec = tiny(final=False)
    net, source = filled(spec), filled(spec, "cls", seed=1)
    loaded = load_state(net, official(source), parts="body")
    begins = {name.split(".")[0] for name in loaded.ignored}
    assert {"transition3", "stage4", "stage3"} <= begins
    assert all(torch.equal(a, b) for a, b in zip(outputs_of(net), outputs_of(source), strict=True))


def outputs_of(net: Network) -> list[Tensor]:
    """The highest-resolution map of the body."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return net.body(image)[:1]


def test_a_body_with_layers_that_matter_is_refused() -> None:
    """The source fuses where the network does not: no rule may drop that."""
    net, before = filled(tiny(final=False)), filled(tiny(final=False))
    state = official(filled(tiny(), "cls", seed=1))
    text = message(lambda: load_state(net, state, parts="body"))
    assert "stage4.0.fuse_layers.0" in text
    assert "parts=" not in text
    assert same(net, before)


def test_a_body_that_lacks_an_entry_is_refused() -> None:
    state = official(filled(tiny(), "cls"))
    del state["stage2.0.branches.0.0.bn1.weight"]
    text = message(lambda: load_state(filled(tiny(), "v2"), state, parts="body"))
    assert "1 missing, 0 surplus" in text


def test_pose_and_classification_final_layers_are_different() -> None:
    text = message(lambda: load_state(filled(tiny(), "cls"), official(filled(tiny(), "v1"))))
    assert "body alone" not in text  # the pose network lacks rows that this one needs
    load_state(filled(tiny(), "cls"), official(filled(tiny(), "v2")), parts="body")


# --- from larger to smaller ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "fuse"), [*((head, "sum") for head in HEADS), ("v2", "concat"), ("v2", "weighted")]
)
def test_an_equal_network_inherits_everything(head: str, fuse: str) -> None:
    net, source = filled(tiny(fuse=fuse), head), filled(tiny(fuse=fuse), head, seed=1)
    done = inherit_weights(net, source)
    assert (done.whole, done.sliced, done.left) == (tuple(net.state_dict()), (), ())
    assert same(net, source)
    pairs = zip(outputs(net), outputs(source), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def silence(source: Network, net: Network) -> None:
    """Make every channel of `source` that `net` does not have zero, after its BatchNorm."""
    kept = {n: m.num_features for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, module in source.named_modules():
        if name in kept:
            module.weight.data[kept[name] :] = 0
            module.bias.data[kept[name] :] = 0


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        *((head, {}) for head in HEADS),
        ("v2", {"fuse": "concat"}),
        ("v1", {"fuse": "concat", "output_branch": 2}),
        ("v2", {"fuse": "weighted"}),
        ("v2", {"fuse": "multiply"}),
        ("v2", {"unit": "bottleneck"}),
        ("v2", {"downsample": "avg_pool"}),
    ],
)
def test_a_narrower_network_computes_what_is_left_of_the_source(
    head: str, changes: dict[str, Any]
) -> None:
    """Where the surplus channels are zero, both networks are the same function."""
    small = {"stem_width": 8, "stage1_width": 4}
    net = filled(tiny(width=4, **changes, **small), head)
    source = filled(tiny(width=8, **changes, stem_width=12, stage1_width=8), head, seed=1)
    silence(source, net)
    done = inherit_weights(net, source)
    assert (done.left, bool(done.sliced)) == ((), True)
    for mine, theirs in zip(outputs(net), outputs(source), strict=True):
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_inputs_of_a_joined_layer_are_the_leading_ones_of_each_branch() -> None:
    """Entry (o, i) of the source is 1000 o + i: what is copied says where it came from."""
    net = build(tiny(width=4), head="v2", num_outputs=3)
    source = build(tiny(width=6), head="v2", num_outputs=3)
    weight = source.state_dict()["head.last_layer.0.weight"]  # (90, 90, 1, 1)
    weight.copy_((1000 * torch.arange(90)[:, None] + torch.arange(90))[..., None, None])
    done = inherit_weights(net, source)
    assert "head.last_layer.0.weight" in done.sliced
    # Branches of 6, 12, 24, 48 channels begin at 0, 6, 18, 42; 4, 8, 16, 32 are taken.
    inputs = [*range(4), *range(6, 14), *range(18, 34), *range(42, 74)]
    expected = 1000 * torch.arange(60)[:, None] + torch.tensor(inputs)
    assert torch.equal(net.state_dict()["head.last_layer.0.weight"][..., 0, 0], expected.float())


@pytest.mark.parametrize("fuse", ["concat", "weighted"])
def test_fusion_with_fewer_edges_takes_those_it_has(fuse: str) -> None:
    net = build(tiny(fuse=fuse, edges="neighbours"), head="v2", num_outputs=3)
    source = build(tiny(fuse=fuse), head="v2", num_outputs=3)
    name = "mix.0.weight" if fuse == "concat" else "weight"
    name = f"body.stage4.0.fuse_layers.1.{name}"  # from branches 0, 1, 2 of 0, 1, 2, 3
    width = 8 if fuse == "concat" else 1
    entry = source.state_dict()[name]
    entry.copy_(torch.arange(entry.numel()).reshape(entry.shape))
    inherit_weights(net, source)
    dim = entry.ndim - 1 if fuse == "weighted" else 1
    assert torch.equal(net.state_dict()[name], entry.narrow(dim, 0, 3 * width))
    far = "body.stage4.0.fuse_layers.3." + name.partition("fuse_layers.1.")[2]
    theirs = source.state_dict()[far]  # from branches 2, 3 of 0, 1, 2, 3
    width = theirs.shape[dim] // 4
    assert torch.equal(net.state_dict()[far], theirs.narrow(dim, 2 * width, 2 * width))


def test_fewer_modules_and_blocks_are_the_first_ones() -> None:
    spec = tiny(num_blocks=3, stage1_blocks=2, num_modules=(1, 3, 2))
    net, source = filled(tiny(), "v2"), filled(spec, "v2", seed=1)
    done = inherit_weights(net, source)
    assert (done.sliced, done.left) == ((), ())
    theirs = source.state_dict()
    assert all(torch.equal(entry, theirs[name]) for name, entry in net.state_dict().items())


def test_what_the_source_does_not_have_is_left() -> None:
    net, before = filled(tiny(width=8, num_blocks=2)), filled(tiny(width=8, num_blocks=2))
    done = inherit_weights(net, filled(tiny(), "v2", seed=1))
    assert {"head.final_layer.weight", "head.final_layer.bias"} <= set(done.left)
    assert "body.stage2.0.branches.0.1.conv1.weight" in done.left  # no such block
    assert "body.stage2.0.branches.0.0.conv1.weight" in done.left  # narrower
    assert "body.conv1.weight" in done.whole
    states = net.state_dict(), before.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in done.left)


def test_other_residual_units_do_not_correspond() -> None:
    text = message(lambda: inherit_weights(filled(tiny(unit="bottleneck")), filled(tiny())))
    assert text == "unit: 'bottleneck': is basic in the source"
