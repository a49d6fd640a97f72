"""The metrics of an exported folder, measured again: of its own source, and of `model.onnx`."""

import importlib.util
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from ..files import is_disk_full
from ..profiling.base import OnStep
from ..progress import Advance
from ..record import WANTED
from ..result import Result
from ..search.trial import hardware_of
from ..study import Study
from ..tasks import load_task, prepare
from ..tasks.base import Task
from ..training import Hardware, evaluate
from .runtime import InOnnxRuntime

PLAIN = Hardware("cpu", "float32", "contiguous")  # what a graph is run on


def preparing(on_step: OnStep) -> Advance:
    """Called with images done and in all, while data is prepared; tells it as a step."""
    return lambda done, total: on_step(f"Preparing data: {done} of {total} images")


@dataclass(frozen=True)
class Measured:
    """What a folder scores on the validation data of its study.

    Args:
        source: Metric -> its recorded value, and that of the network of the folder's source.
        graphs: Of each graph its metrics, or in words why it has none. Graphs add up in another
            order, and in float32, so theirs need not be the recorded ones to the last digit.
    """

    source: Mapping[str, tuple[float, float]]
    graphs: Mapping[str, Mapping[str, float] | str]


def measure_again(
    folder: Path, graphs: Collection[str], study: Study, result: Result, on_step: OnStep
) -> Measured:
    """The metrics of the network in a folder.

    The source is evaluated as the trial was: in the same precision, on one thread.

    Args:
        folder: The exported one. Its code is run.
        graphs: ONNX files in it, which are measured as well.
        study: Without variants.
        result: The trial.
        on_step: Is told of each step before it begins.

    Raises:
        InputError: The data is not the trial's, its device is not here, or the record does not say
            what the trial ran on.
        RuntimeError: The folder's source fails, or puts out numbers that are none.
    """
    lacking = [name for name in WANTED if name not in result.environment]
    if lacking:
        rule = f"the record does not say what trial {result.trial} ran on: {', '.join(lacking)}"
        raise InputError(rule, key="--check")
    data, wanted = prepare(study, preparing(on_step)), result.environment["data"]["checksum"]
    if data.checksum != wanted:
        rule = f"the data is not what the trial was evaluated on ({wanted})"
        raise InputError(rule, key="data.checksum", value=data.checksum)
    hardware = hardware_of(result.environment)
    if hardware.device == "cuda" and not torch.cuda.is_available():
        rule = "the trial was evaluated on a GPU, and here is none"
        raise InputError(rule, key="--check", value="cuda")
    net = source_network(folder)
    net.to(hardware.device, memory_format=hardware.layout)  # type: ignore[call-overload]
    on_step("Evaluating the source")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a study's trials
    try:
        task = load_task(study, data)
        found = evaluate(net, task, hardware)
        made = {}
        for file in graphs:
            on_step(f"Evaluating {file}")
            made[file] = measure_graph(folder / file, task)
    finally:
        torch.set_num_threads(before)
    return Measured({name: (value, found[name]) for name, value in result.metrics.items()}, made)


def measure_graph(file: Path, task: Task) -> dict[str, float] | str:
    """The metrics of an ONNX file on the validation data, or in words why there are none."""
    about = task.preprocessing()
    if about["task"] == "detection":
        return "it ends before boxes are chosen"
    if importlib.util.find_spec("onnxruntime") is None:
        return "there is no onnxruntime here: pip install 'hrnet-search[onnx]'"
    try:
        return evaluate(InOnnxRuntime(file, about), task, PLAIN)
    except Exception as error:  # the runtime's own, of many kinds
        if is_disk_full(error):
            raise
        return " ".join(str(error).split())


def source_network(folder: Path) -> nn.Module:
    """The network that the folder's own source builds, with its weights; nothing is left there.

    Raises:
        RuntimeError: The source fails, as it may after it was edited.
    """
    name = f"exported_{abs(hash(folder.resolve()))}"
    place = folder / "network"
    spec = importlib.util.spec_from_file_location(
        name, place / "__init__.py", submodule_search_locations=[str(place)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        net: nn.Module = module.load_network(folder)
    except Exception as error:  # whatever somebody has written there
        raise RuntimeError(f"the source in {place} fails: {error!r}") from error
    finally:
        sys.dont_write_bytecode = before
        for other in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[other]
    return net
