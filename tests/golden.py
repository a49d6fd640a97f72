"""Check golden files: figures of the official networks on weights made from parameter names.

    python tests/golden.py tests/golden/*.json

One line per file: model, worst difference relative to the recorded maximum, verdict. Exit status
0 if all match, else 1. A file states its own rule for weights and input (`fill_rule`); the
numbers are those of the official code, run once (`source`).
"""

import json
import math
import re
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hrnet_search.model import build
from hrnet_search.presets import preset
from hrnet_search.weights import official_name

TOLERANCE = 1e-4  # of the recorded maximum; the smallest mistake that was tried moves it by 5.5e-3
SAME = 1e-6  # of the sizes of random numbers; between CPUs they differ in the last bits, 1e-7
NAME = re.compile(r"(pose|seg|cls|det)_hr(?:net|fpn)(_ocr)?_(w\d+(?:_small_v[12])?)(_\w+)?")
STAGES = ("layer1", "stage2", "stage3", "stage4", "deconv_layers")

Figures = Mapping[str, Any]


def network(golden: Figures) -> nn.Module:
    """The network that a file is about, from its `model` name and `config`."""
    name, config = golden["model"], golden["config"]
    if name.startswith("pose_resnet_"):
        from hrnet_search.baselines import rival

        return rival(f"simple_baseline_resnet{config['depth']}", config["num_joints"])
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: no such model")
    kind, ocr, width, _ = match.groups()
    arch = width.replace("_", "-")
    if kind == "pose":
        return build(preset(arch), head="v1", num_outputs=config["num_joints"])
    if kind == "cls":
        spec = preset(arch, task="classification")
        return build(spec, head="cls", num_outputs=config["num_classes"])
    if kind == "det":
        spec = preset(arch, task="detection")
        return build(spec, head="v2p", num_outputs=config["out_channels"])
    spec = preset(arch, task="segmentation_ocr" if config["align_corners"] else "segmentation")
    return build(spec, head="ocr" if ocr else "v2", num_outputs=config["num_classes"])


def fill(name: str, entry: Tensor) -> Tensor:
    """The value of one entry, from its official name (the files' `fill_rule`)."""
    if not entry.is_floating_point():
        return entry
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if entry.ndim >= 2:
        scale = math.sqrt(2 / math.prod(entry.shape[1:]))
        return torch.randn(entry.shape, generator=generator) * scale
    if name.endswith("running_var"):
        return 0.5 + torch.rand(entry.shape, generator=generator)
    if name.endswith(("running_mean", "bias")):
        return 0.1 * torch.randn(entry.shape, generator=generator)
    return 0.5 * (0.5 + torch.rand(entry.shape, generator=generator))


def names_and_shapes(net: nn.Module) -> list[list[Any]]:
    """The state dict under official names, as the files record it."""
    return [[official_name(net, k), list(v.shape)] for k, v in net.state_dict().items()]


def filled(golden: Figures) -> nn.Module:
    """The network with the weights of the file.

    Raises:
        ValueError: Names, shapes, the number of parameters, or the weights are not the file's.
    """
    net = network(golden).eval()
    if sorted(names_and_shapes(net)) != sorted(golden["state_dict"]):
        ours = {(name, tuple(shape)) for name, shape in names_and_shapes(net)}
        theirs = {(name, tuple(shape)) for name, shape in golden["state_dict"]}
        raise ValueError(f"names or shapes differ: {sorted(ours ^ theirs)[:4]}")
    if sum(p.numel() for p in net.parameters()) != golden["num_params"]:
        raise ValueError("number of parameters differs from the file's num_params")
    state = {official_name(net, key): entry for key, entry in net.state_dict().items()}
    for name, entry in state.items():
        entry.copy_(fill(name, entry))
    floats = [entry for entry in state.values() if entry.is_floating_point()]
    expected = golden["fill_check"]
    good = _same_sums(floats, expected["all_float_entries"]) and all(
        _same_first(state[name], figures) and _same_sums([state[name]], figures)
        for name, figures in expected["entries"].items()
    )
    if not good:
        raise ValueError("weights differ from the file's fill_check")
    return net


def image(golden: Figures) -> Tensor:
    """The input of the file.

    Raises:
        ValueError: Random numbers here are not the file's.
    """
    expected = golden["input"]
    generator = torch.Generator().manual_seed(expected["seed"])
    x = torch.randn(expected["shape"], generator=generator)
    if not (_same_first(x, expected) and _same_sums([x], expected)):
        raise ValueError("input differs from the file's")
    return x


def _same_first(entry: Tensor, expected: Figures) -> bool:
    first = torch.tensor(expected["first"], dtype=torch.float64)
    ours = entry.flatten()[: len(first)].double()
    return torch.allclose(ours, first, rtol=SAME, atol=SAME)


def _same_sums(entries: list[Tensor], expected: Figures) -> bool:
    doubles = [entry.double() for entry in entries]
    squares = sum(entry.square().sum().item() for entry in doubles)
    size = math.sqrt(sum(entry.numel() for entry in entries) * squares)  # at least sum of |x|
    total = sum(entry.sum().item() for entry in doubles)
    return abs(total - expected["sum"]) <= SAME * size and math.isclose(
        squares, expected.get("sumsq", squares), rel_tol=10 * SAME
    )


def difference(output: Tensor, expected: Figures) -> float:
    """Worst difference of one map's figures, relative to its recorded maximum.

    Raises:
        ValueError: Its shape is not the file's.
    """
    if list(output.shape) != expected["shape"]:
        raise ValueError(f"shape {list(output.shape)} instead of {expected['shape']}")
    flat = output.detach().double().flatten()
    ours = [flat.mean(), flat.std(correction=0), flat.abs().max()]
    theirs = [expected[name] for name in ("mean", "std", "absmax")]
    if "values" in expected:
        ours.extend(flat[expected["indices"]])
        theirs.extend(expected["values"])
    apart = torch.stack(ours) - torch.tensor(theirs, dtype=torch.float64)
    return (apart.abs().max() / expected["absmax"]).item()


def check(golden: Figures) -> float:
    """Worst relative difference over all outputs and intermediate maps.

    Raises:
        ValueError: Something other than a number differs, such as names or shapes; the message
            is one line.
    """
    net = filled(golden)
    body = getattr(net, "body", net)
    seen: dict[str, Tensor] = {}

    def keep(name: str, out: Any) -> None:  # a copy, as later layers may write in place
        many = isinstance(out, list)
        maps = {f"{name}[{i}]": x for i, x in enumerate(out)} if many else {name: out}
        seen.update({key: x.clone() for key, x in maps.items() if x is not None})

    for name in STAGES:
        if hasattr(body, name):
            body.get_submodule(name).register_forward_hook(
                lambda _, __, out, name=name: keep(name, out)
            )
    body.register_forward_hook(lambda _, __, out: keep("backbone", out))
    with torch.inference_mode():
        result = net(image(golden))
    outputs = [result] if isinstance(result, Tensor) else list(result)
    if len(outputs) != len(golden["outputs"]):
        raise ValueError(f"{len(outputs)} outputs instead of {len(golden['outputs'])}")
    pairs = list(zip(outputs, golden["outputs"], strict=True))
    expected = dict(golden["intermediates"])
    expected |= {figures["name"]: figures for figures in golden.get("backbone_outputs", [])}
    if not expected.keys() <= seen.keys():
        raise ValueError(f"no such map: {', '.join(sorted(expected.keys() - seen.keys()))}")
    pairs += [(seen[name], figures) for name, figures in expected.items()]
    return torch.tensor([difference(*pair) for pair in pairs]).max().item()


def verdict(file: str) -> tuple[str, bool]:
    """One line about a file, and whether all is well."""
    try:
        golden = json.loads(Path(file).read_text())
    except OSError as error:
        return f"{file}: cannot be read ({error.strerror})", False
    except ValueError:
        return f"{file}: is not JSON", False
    if not (isinstance(golden, dict) and {"model", "state_dict", "outputs"} <= golden.keys()):
        return f"{file}: is no golden file of a network", False
    try:
        worst = check(golden)
    except Exception as error:  # a damaged file can fail anywhere; it must not hide the others
        text = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        return f"{golden['model']:44} {text}  DIFFERS", False
    return f"{golden['model']:44} {worst:.1e}  {'ok' if worst <= TOLERANCE else 'DIFFERS'}", (
        worst <= TOLERANCE
    )


def main(files: list[str]) -> int:
    if not files:
        print(__doc__)
        return 2
    torch.set_num_threads(1)
    good = True
    for file in files:
        line, same = verdict(file)
        print(line, flush=True)
        good &= same
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
