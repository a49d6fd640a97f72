"""Whether an exported folder gives the trained network's outputs, without this package at hand.

The source must do so bit for bit. `model.onnx` and `model.pt2` compute in another order, so theirs
may differ a little, and `model-int8.onnx` rounds. What is decoded from maps can jump where two
values are next to equal (the highest place, the best class): it is compared with what the trained
network's own decoder makes of the same maps.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..outputs import Named, NamedOutputs
from .formats import FILES

LIMIT = 1e-4  # difference of a graph's outputs, as a share of their range
# Of integers none: how much of the metric they lose is measured instead.
LIMITS = dict.fromkeys(FILES.values(), LIMIT) | {FILES["int8"]: math.inf}
Outputs = dict[str, list[Named]]  # file, or "network" -> outputs of each image

_RUN_ALONE = """
import json, sys
folder, given, found, files, *paths = sys.argv[1:]
sys.path[:] = [folder, *paths]
sys.modules["hrnet_search"] = None  # any import of it fails from here on
import torch
from safetensors.torch import load_file, save_file
from network import load_network, named_outputs
given, files = load_file(given), json.loads(files)
call = [given[f"call.{n}"] for n in range(len(given)) if f"call.{n}" in given]
images = [given[f"image.{n}"] for n in range(len(given)) if f"image.{n}" in given]
net = load_network(folder)
kept = {}

def keep(name, number, outputs):
    for output, tensor in outputs.items():
        kept[f"{name}/{number}/{output}"] = tensor.contiguous()

with torch.inference_mode():
    outputs = net(*call)
    maps = net.backbone(call[0]).values() if hasattr(net, "backbone") else []
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if maps:
        outputs = [*maps, *(outputs[0][name] for name in sorted(outputs[0]))]
    keep("call", 0, {str(n): tensor for n, tensor in enumerate(outputs)})
    if files:
        net = named_outputs(folder, net)
        for number, image in enumerate(images):
            keep("network", number, net(image))
for file, shown in files.items():
    if file.endswith(".pt2"):
        run = torch.export.load(f"{folder}/{file}").module()
    else:
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            f"{folder}/{file}", options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]

        def run(image):
            made = session.run(names, {"image": image.numpy()})
            return dict(zip(names, map(torch.from_numpy, made)))

    for number, image in enumerate(images[:shown]):
        with torch.no_grad():
            keep(file, number, run(image))
save_file(kept, found)
"""


@dataclass(frozen=True)
class Difference:
    """How far an output of a file is from that of the trained network.

    Args:
        file: Of `FILES`.
        size: (H, W) of the image.
        output: Its name.
        most: Greatest absolute difference; of `classes` how much lower the chosen class scores
            than the best.
        share: The same over the range of the network's output.
    """

    file: str
    size: tuple[int, int]
    output: str
    most: float
    share: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_alone(
    folder: Path,
    call: Sequence[Tensor],
    images: Sequence[Tensor] = (),
    files: Mapping[str, int] | None = None,
) -> tuple[list[Tensor], Outputs]:
    """What an exported folder gives in a process of its own.

    That process finds what this one finds, wherever it is, but first what is in the folder.

    Args:
        folder: The exported one.
        call: What its network is called with.
        images: (1, 3, H, W) each, for outputs with names.
        files: Of `FILES`, how many of the images each takes.

    Returns:
        Of the call all outputs; of the images those with names, of the source ("network") and of
        each file.

    Raises:
        RuntimeError: It fails there.
    """
    given = {f"call.{n}": tensor for n, tensor in enumerate(call)}
    given |= {f"image.{n}": tensor for n, tensor in enumerate(images)}
    with tempfile.TemporaryDirectory() as scratch:
        sent, found = Path(scratch) / "in.safetensors", Path(scratch) / "out.safetensors"
        save_file(given, sent)
        words = [folder, sent, found, json.dumps(files or {}), *sys.path]
        done = subprocess.run(
            [sys.executable, "-B", "-W", "ignore", "-c", _RUN_ALONE, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RuntimeError(f"the exported network could not be checked: {lines[-1]}")
        tensors = load_file(found)
    return _sorted_out(tensors)


def _sorted_out(tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], Outputs]:
    call: dict[int, Tensor] = {}
    outputs: Outputs = {}
    for key, tensor in tensors.items():
        name, number, output = key.split("/")
        if name == "call":
            call[int(output)] = tensor
            continue
        rows = outputs.setdefault(name, [])
        rows.extend({} for _ in range(int(number) + 1 - len(rows)))
        rows[int(number)][output] = tensor
    return [call[n] for n in range(len(call))], outputs


def require_equal(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Compare bit for bit.

    Raises:
        RuntimeError: They differ.
    """
    wrong = "the exported network is not the trained one: outputs"
    shapes, others = ([tuple(tensor.shape) for tensor in each] for each in (found, wanted))
    if shapes != others:
        raise RuntimeError(f"{wrong} are of shapes {shapes} instead of {others}")
    if not all(map(torch.equal, found, wanted)):
        pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if a.numel()]
        most = max((a - b).abs().max().item() for a, b in pairs)
        raise RuntimeError(f"{wrong} differ by up to {most:g}")


def differences(net: NamedOutputs, images: Sequence[Tensor], outputs: Outputs) -> list[Difference]:
    """How far each output of each file is from the trained network's.

    Args:
        net: The trained network.
        images: As given to `run_alone`.
        outputs: From there.

    Raises:
        RuntimeError: The source's differ at all, or those of a file by more than `LIMITS` says; or
            a file puts out others.
    """
    with torch.inference_mode():
        wanted = [net(image) for image in images]
        for mine, its in zip(wanted, outputs.get("network", []), strict=True):
            require_equal([its[name] for name in mine], list(mine.values()))
        rows = [
            difference
            for file in FILES.values()
            for place, found in enumerate(outputs.get(file, []))
            for difference in _of_image(net, file, images[place], found, wanted[place])
        ]
    for row in rows:
        if not (row.share <= LIMITS[row.file] and math.isfinite(row.share)):  # also if it is NaN
            height, width = row.size
            raise RuntimeError(
                f"{row.file} is not the trained network: at {height}x{width} its {row.output} "
                f"differ by up to {row.most:g}, {row.share:.2g} of their range; "
                f"{LIMITS[row.file]:g} may be"
            )
    return rows


def _of_image(
    net: NamedOutputs, file: str, image: Tensor, found: Named, wanted: Named
) -> Iterator[Difference]:
    size = (image.shape[-2], image.shape[-1])
    if found.keys() != wanted.keys():
        names = [", ".join(sorted(outputs)) for outputs in (found, wanted)]
        raise RuntimeError(f"{file} puts out {names[0]} instead of {names[1]}")
    for name, tensor in found.items():
        if name == "classes":
            scores = net.enlarged(found["scores"], size)
            chosen = scores.gather(1, tensor[:, None])[:, 0]
            pair = (chosen, scores.amax(1))
            spread = _range(scores)
        else:
            own = net.decoded(found["heatmaps"]) if name == "joints" else wanted[name]
            pair, spread = (tensor, own), _range(own)
        most = (pair[0] - pair[1]).abs().max().item()
        yield Difference(file, size, name, most, most / spread if most else 0.0)


def _range(x: Tensor) -> float:
    """From the lowest to the highest; a constant has none, so any difference is too large."""
    return (x.max() - x.min()).item() or torch.finfo(x.dtype).tiny
