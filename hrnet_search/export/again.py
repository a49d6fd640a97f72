"""The metrics of an exported folder, measured again with the folder's own source."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from ..record import WANTED
from ..result import Result
from ..search.trial import hardware_of
from ..study import Study
from ..tasks import load_task, prepare
from ..training import evaluate

Progress = Callable[[int, int], None]


def measure_again(
    folder: Path, study: Study, result: Result, progress: Progress
) -> dict[str, tuple[float, float]]:
    """Metric -> its recorded value, and that of the folder's network on the validation data.

    Evaluated as the trial was: in the same precision, on one thread.

    Args:
        folder: The exported one. Its code is run.
        study: Without variants.
        result: The trial.
        progress: Called with images done and in all, if data has to be prepared.

    Raises:
        InputError: The data is not the trial's, its device is not here, or the record does not say
            what the trial ran on.
        RuntimeError: The folder's source fails, or puts out numbers that are none.
    """
    lacking = [name for name in WANTED if name not in result.environment]
    if lacking:
        rule = f"the record does not say what trial {result.trial} ran on: {', '.join(lacking)}"
        raise InputError(rule, key="--check")
    data, wanted = prepare(study, progress), result.environment["data"]["checksum"]
    if data.checksum != wanted:
        rule = f"the data is not what the trial was evaluated on ({wanted})"
        raise InputError(rule, key="data.checksum", value=data.checksum)
    hardware = hardware_of(result.environment)
    if hardware.device == "cuda" and not torch.cuda.is_available():
        rule = "the trial was evaluated on a GPU, and here is none"
        raise InputError(rule, key="--check", value="cuda")
    net = source_network(folder)
    net.to(hardware.device, memory_format=hardware.layout)  # type: ignore[call-overload]
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a study's trials
    try:
        found = evaluate(net, load_task(study, data), hardware)
    finally:
        torch.set_num_threads(before)
    return {name: (value, found[name]) for name, value in result.metrics.items()}


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
