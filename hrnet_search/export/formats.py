"""The network with named outputs as a graph, for other runtimes: the files of `FILES`."""

import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from ..errors import InputError, nearest_name
from ..outputs import NamedOutputs
from ..profiling.base import OnStep, silent
from .int8 import write_int8

SOURCE = "torch"  # always written, whatever else is
FILES: Mapping[str, str] = {
    "onnx": "model.onnx",
    "pt2": "model.pt2",
    "int8": "model-int8.onnx",
}
ONNX_FILES = (FILES["onnx"], FILES["int8"])  # whose metrics ONNX Runtime can measure
_ONNX = ("onnx", "onnxruntime", "onnxscript")
PACKAGES: Mapping[str, tuple[str, ...]] = {"onnx": _ONNX, "pt2": (), "int8": _ONNX}
INPUT = "image"
# What torch.onnx says of an operator, such as aten.cummax, that it cannot translate.
UNKNOWN_OPERATOR = re.compile(r"No ONNX function found for .*?op='(?:aten\.)?([\w.]+)'")
LONGEST = 300  # letters of what a checker says
MOST = 10**6  # pixels: a bound below this is one
TRACED = 2  # images: of one or none, torch.export would hold the number for fixed
# What may vary, from most to least: the first that a network can be exported with is taken.
AXES: tuple[Mapping[int, str], ...] = (
    {0: "batch", 2: "height", 3: "width"},
    {0: "batch"},
    {},
)


@dataclass(frozen=True)
class Graph:
    """A network as torch.export has it.

    Args:
        program: The graph.
        axes: Of the images, those that may vary, by name.
    """

    program: ExportedProgram
    axes: Mapping[int, str]

    @property
    def any_size(self) -> bool:
        return 2 in self.axes

    def bounds(self) -> Iterator[tuple[str, int, bool]]:
        """Of each axis that may vary its name, least length, and whether it may be any above."""
        nodes = self.program.graph.nodes
        image = next(n for n in nodes if n.op == "placeholder" and n.name == INPUT)
        for axis, name in self.axes.items():
            limits = self.program.range_constraints[image.meta["val"].shape[axis].node.expr]
            yield name, int(limits.lower), bool(limits.upper > MOST)


def parse_formats(text: str) -> frozenset[str]:
    """ "torch,onnx" -> what is written besides the source.

    Raises:
        InputError: A format is unknown, or needs a package that is not installed.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (SOURCE, *FILES):
            rule = f"must be of {SOURCE}, {', '.join(FILES)}, commas between them"
            near = nearest_name(name, (SOURCE, *FILES))
            raise InputError(rule, key="--format", value=name, nearest=near)
    wanted = frozenset(names) - {SOURCE}
    require_packages(wanted)
    return wanted


def require_packages(formats: frozenset[str]) -> None:
    """Whether what writes and checks them is installed.

    Raises:
        InputError: Something is not; it says what to install.
    """
    for name in sorted(formats):
        absent = [package for package in PACKAGES[name] if not importlib.util.find_spec(package)]
        if absent:
            rule = f"needs {', '.join(absent)}: pip install 'hrnet-search[onnx]'"
            raise InputError(rule, key="--format", value=name)


def write_formats(
    folder: Path,
    net: NamedOutputs,
    images: Sequence[Tensor],
    formats: frozenset[str],
    on_step: OnStep = silent,
    *,
    calibration: Iterable[Tensor] = (),
) -> dict[str, dict[str, Any]]:
    """Write the files, and say of each what it takes and puts out.

    Args:
        folder: Where to.
        net: In evaluation mode.
        images: The first of the study's size, which it must take; others (1, 3, H, W) that it
            should take if height and width may vary.
        formats: Keys of `FILES`.
        on_step: Is told of each step before it begins.
        calibration: Training images (1, 3, H, W), for int8.

    Raises:
        RuntimeError: torch.export, or ONNX, cannot express the network.
    """
    if not formats:
        return {}
    about: dict[str, dict[str, Any]] = {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        graph = make_graph(net, images, on_step)
        outputs = list(net(images[0]))
        if "pt2" in formats:
            on_step(f"Writing {FILES['pt2']}")
            torch.export.save(graph.program, folder / FILES["pt2"])
        if formats & {"onnx", "int8"}:
            on_step(f"Writing {FILES['onnx']}")
            _write_onnx(folder / FILES["onnx"], graph, outputs, net.about)
        if "int8" in formats:
            on_step(f"Writing {FILES['int8']}")
            shown = calibration if graph.any_size else _resized(calibration, images[0])
            write_int8(folder / FILES["onnx"], folder / FILES["int8"], shown)
            if "onnx" not in formats:
                (folder / FILES["onnx"]).unlink()
    for name in sorted(formats):
        about[FILES[name]] = {
            "sha256": checksum(folder / FILES[name]),
            "varies": {name: 1 if name == "batch" else least for name, least, _ in graph.bounds()},
            "outputs": outputs,
            "metrics": {},
            "float32": {},
        }
    return about


def _resized(images: Iterable[Tensor], like: Tensor) -> Iterator[Tensor]:
    """Images (1, 3, H, W) in the size of another one."""
    size = (like.shape[-2], like.shape[-1])
    return (F.interpolate(image, size=size, mode="bilinear") for image in images)


def checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def make_graph(net: NamedOutputs, images: Sequence[Tensor], on_step: OnStep = silent) -> Graph:
    """The network as a graph that leaves as much to vary as can be.

    Raises:
        RuntimeError: torch.export cannot express it at all.
    """
    problem: Exception | None = None
    for axes in AXES:
        free = f"any {', '.join(axes.values())}" if axes else "one size alone"
        on_step(f"Tracing the network for {free}")
        try:
            graph = Graph(_program(net, images[0], axes), axes)
            if not all(is_free for _, _, is_free in graph.bounds()):
                raise ValueError("torch.export has found an upper bound")
            run = graph.program.module()
            for image in images if graph.any_size else images[:1]:
                run(image)
        except Exception as error:  # of many kinds, most of them torch's own
            problem = error
        else:
            return graph
    raise RuntimeError(f"torch.export cannot express this network: {_first_line(problem)}")


def _program(net: NamedOutputs, image: Tensor, axes: Mapping[int, str]) -> ExportedProgram:
    shape = list(image.shape)
    if 0 in axes:
        shape[0] = TRACED
    if 3 in axes and shape[2] == shape[3]:
        shape[3] *= 2  # equal sides might be held for equal always
    dims = dict.fromkeys(axes, Dim.DYNAMIC)
    return torch.export.export(net, (torch.zeros(shape),), dynamic_shapes={INPUT: dims})


def _write_onnx(file: Path, graph: Graph, outputs: Sequence[str], about: Mapping[str, Any]) -> None:
    """One file, weights and what `preprocess.json` says (metadata `preprocess`) within it.

    Raises:
        RuntimeError: An operator of the network has no counterpart, or the file breaks a rule of
            ONNX.
    """
    import onnx

    try:
        made = torch.onnx.export(
            graph.program, dynamo=True, input_names=[INPUT], output_names=outputs, verbose=False
        )
    except Exception as error:  # of many kinds
        raise RuntimeError(_without_onnx(_cause(error))) from error
    assert made is not None
    try:
        made.save(file, external_data=False)
        model = onnx.load(file)
        _name_axes(model, graph)
        onnx.helper.set_model_props(model, {"preprocess": json.dumps(about)})
        onnx.checker.check_model(model)
        onnx.save(model, file)
    except OSError:  # such as a full disk
        raise
    except Exception as error:  # of many kinds: the checker's own, protobuf's above 2 GiB
        words = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(
            f"{file.name} is refused by ONNX's own check: {words[:LONGEST]}"
        ) from error


def _without_onnx(cause: str) -> str:
    """Why there is no ONNX of a network, and what there is instead."""
    found = UNKNOWN_OPERATOR.search(cause)
    if found is None:
        return f"torch.onnx cannot express this network: {cause}"
    return (
        f"ONNX has no form of PyTorch's {found[1]}, which this network needs; leave onnx out of "
        "--format (pt2 has all operators)"
    )


def _name_axes(model: Any, graph: Graph) -> None:
    """Batch, height and width in place of the exporter's symbols."""
    (image,) = model.graph.input
    dims = image.type.tensor_type.shape.dim
    names = {dims[axis].dim_param: name for axis, name in graph.axes.items()}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _renamed(dim.dim_param, names)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """An expression with its symbols replaced, longer ones first."""
    for symbol in sorted(names, key=len, reverse=True):
        text = text.replace(symbol, names[symbol])
    return text


def _cause(error: BaseException) -> str:
    """What was wrong in the first place, in one line: the exporter wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
