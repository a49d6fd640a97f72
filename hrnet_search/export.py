"""The winner of a study as a folder that stands alone: plain PyTorch, weights, an example."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .detectors import Detector
from .errors import InputError
from .files import read_user_json, write_json
from .frameworks import FRAMEWORKS
from .networks import network
from .objects import fitted, padded
from .result import METRICS, Result
from .rivals import RIVAL_KNOB
from .study import Study, load_study
from .tasks import load_task, prepare
from .tasks.base import Task, normalise
from .weights import load_weights

PACKAGE = Path(__file__).parent
ARCH, WEIGHTS = "arch.json", "weights.safetensors"
# Copied as they are: the network's source imports torch and the standard library alone, what
# stands around it Pillow as well, and detectors torchvision.
SOURCES = ("arch.py", "blueprint.py", "errors.py", "model/*.py", "drawing.py", "views.py")
TASK_SOURCES: Mapping[str, tuple[str, ...]] = {
    "pose": ("keypoints.py",),
    "detection": ("frameworks.py", "detectors/*.py", "objects.py"),
}

_RUN_ALONE = """
import sys
folder, given, found, *paths = sys.argv[1:]
sys.path[:] = [folder, *paths]
sys.modules["hrnet_search"] = None  # any import of it fails from here on
import torch
from safetensors.torch import load_file, save_file
from network import load_network
net, given = load_network(folder), load_file(given)
inputs = [given[str(n)] for n in range(len(given))]
with torch.inference_mode():
    outputs = net(*inputs)
    maps = net.backbone(inputs[0]).values() if hasattr(net, "backbone") else []
outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
if maps:
    outputs = [*maps, *(outputs[0][name] for name in sorted(outputs[0]))]
save_file({str(n): tensor.contiguous() for n, tensor in enumerate(outputs)}, found)
"""


def choose_winner(results: Sequence[Result], key: str) -> Result | None:
    """The best seed of the arm with the best mean, among the arms trained with most seeds.

    Networks of others are left out: what is exported is an HRNet. Where nothing was learnt it is
    the first, for its folder shows how one is used; the folder and the report do not praise it.

    Args:
        results: Results of one study.
        key: The metric that decides, upwards or downwards as `METRICS` says.
    """
    sign = 1 if METRICS[key].direction == "maximize" else -1
    arms: dict[str, list[tuple[float, Result]]] = {}
    for result in results:
        value = result.value(key)
        if result.state == "complete" and value is not None and RIVAL_KNOB not in result.arch:
            arms.setdefault(result.arm, []).append((sign * value, result))
    if not arms:
        return None
    most = max(len(entries) for entries in arms.values())
    full = [entries for entries in arms.values() if len(entries) == most]
    best = max(full, key=lambda entries: fmean(value for value, _ in entries))
    return max(best, key=lambda entry: entry[0])[1]


def export_winner(run: Path, out: Path, *, trial: int | None = None) -> Path | None:
    """Write the best trial's network to `out/winner`, and check it in a clean process.

    Args:
        run: `runs/<study>`.
        out: `reports/<study>`.
        trial: Export this one instead, to `out/trial-NNNNN`.

    Returns:
        The folder, or None if no trial is complete.

    Raises:
        InputError: There is no such trial, it did not complete, or its weights are damaged.
        RuntimeError: The exported network does not give the same outputs, or it could not be
            found out whether it does.
    """
    study = load_study(run / "study.yaml")
    result = _pick(run, study, trial)
    folder = out / ("winner" if trial is None else f"trial-{trial:05d}")
    if result is None:
        return None
    weights = run / "trials" / f"{result.trial:05d}" / WEIGHTS
    if _source(folder, weights) == _provenance(result):
        return folder
    out.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out, prefix=".winner-"))
    try:
        temporary.chmod(0o755)
        _fill(temporary, weights, study.under(result.params), result)
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _pick(run: Path, study: Study, trial: int | None) -> Result | None:
    files = sorted((run / "trials").glob("*/result.json"))
    results = [Result.read(file) for file in files]
    if trial is None:
        return choose_winner(results, study.accuracy)
    for result in results:
        if result.trial == trial and result.state == "complete":
            if RIVAL_KNOB in result.arch:
                rule = (
                    f"trained {result.arm}, which its own library saves; only HRNets are exported"
                )
                raise InputError(rule, file=run, key="--trial", value=trial)
            return result
    complete = ", ".join(str(r.trial) for r in results if r.state == "complete")
    rule = f"is not a complete trial of this study (those are {complete or 'none'})"
    raise InputError(rule, file=run, key="--trial", value=trial)


def _fill(folder: Path, weights: Path, study: Study, result: Result) -> None:
    task = load_task(study, prepare(study, lambda done, total: None))  # from the cache, as a rule
    model = network(study, result.arch)
    load_weights(model, weights)
    about: dict[str, Any] = {
        "arch": result.arch,
        "head": task.head,
        "num_outputs": study.head_outputs,
        "source": _provenance(result),
    }
    if study.detector is not None:
        about["detector"] = study.detector.to_dict()
    write_json(folder / ARCH, about)
    write_json(folder / "preprocess.json", task.preprocessing())
    shutil.copyfile(weights, folder / WEIGHTS)
    Image.fromarray(task.sample()).save(folder / "sample.png")
    _copy_sources(folder / "network", study.task.kind)
    shutil.copy(PACKAGE / "templates" / f"example_{study.task.kind}.py", folder / "example.py")
    (folder / "README.md").write_text(_card(study, result, task.head))
    _verify(folder, model.eval(), task)


def _copy_sources(folder: Path, kind: str) -> None:
    for pattern in (*SOURCES, *TASK_SOURCES.get(kind, ())):
        for file in PACKAGE.glob(pattern):
            target = folder / file.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    shutil.copy(PACKAGE / "templates" / "network.py", folder / "__init__.py")


def _verify(folder: Path, model: nn.Module, task: Task) -> None:
    """Compare outputs bit for bit with those of a process that cannot import this package.

    Raises:
        RuntimeError: They differ, or are no numbers.
    """
    inputs = _inputs(model, task)
    with torch.inference_mode():
        outputs = _outputs(model, inputs)
    if not all(bool(tensor.isfinite().all()) for tensor in outputs):
        raise RuntimeError("the trained network puts out NaN or infinity, so is not exported")
    found = _run_alone(folder, inputs)
    wrong = "the exported network is not the trained one: outputs"
    shapes, wanted = ([tuple(tensor.shape) for tensor in each] for each in (found, outputs))
    if shapes != wanted:
        raise RuntimeError(f"{wrong} are of shapes {shapes} instead of {wanted}")
    if not all(map(torch.equal, found, outputs)):
        pairs = [(a, b) for a, b in zip(found, outputs, strict=True) if a.numel()]
        most = max((a - b).abs().max().item() for a, b in pairs)
        raise RuntimeError(f"{wrong} differ by up to {most:g}")


def _inputs(model: nn.Module, task: Task) -> list[Tensor]:
    """What the network is called with to look at the sample, in the layout that a file keeps."""
    sample = task.sample()
    if not isinstance(model, Detector):
        return [normalise(sample[None]).contiguous()]
    about = task.preprocessing()
    shown = fitted(Image.fromarray(sample), about["image_size"])
    image = padded(normalise(np.asarray(shown)[None]), about["padded"])
    return [image.contiguous(), torch.tensor([[shown.height, shown.width]])]


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """All that the network puts out.

    Of a detector, which might find nothing, the maps of its pyramid as well.
    """
    output = model(*inputs)
    if isinstance(model, Detector):
        maps = model.backbone(inputs[0]).values()
        return [*maps, *(output[0][name] for name in sorted(output[0]))]
    return [output] if isinstance(output, Tensor) else list(output)


def _run_alone(folder: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What an exported network puts out in a process of its own.

    That process finds what this one finds, wherever it is, but first what is in the folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch) / "in.safetensors", Path(scratch) / "out.safetensors"
        save_file({str(n): tensor for n, tensor in enumerate(inputs)}, given)
        options = ["-B", "-W", "ignore", "-c", _RUN_ALONE]
        done = subprocess.run(
            [sys.executable, *options, *map(str, (folder, given, found, *sys.path))],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RuntimeError(f"the exported network could not be checked: {lines[-1]}")
        tensors = load_file(found)
    return [tensors[str(n)] for n in range(len(tensors))]


def _provenance(result: Result) -> dict[str, str | int]:
    return {
        "study": result.study,
        "trial": result.trial,
        "seed": result.seed,
        "started": result.started,
        "version": metadata.version("hrnet-search"),
    }


def _source(folder: Path, weights: Path) -> object:
    """The provenance of what is exported there now, if it is whole and has these weights.

    Weights that are gone from the run, where nothing could be made of them anew, may be any.
    """
    try:
        content = read_user_json(folder / ARCH)
        is_whole = (folder / WEIGHTS).exists() and (
            not weights.exists() or filecmp.cmp(weights, folder / WEIGHTS, shallow=False)
        )
    except (InputError, OSError):
        return None
    return content.get("source") if is_whole and isinstance(content, dict) else None


def _replace(folder: Path, temporary: Path) -> None:
    """Put a finished folder in place of an old one."""
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".old-"))
    if folder.exists():
        folder.rename(old / folder.name)
    temporary.rename(folder)
    shutil.rmtree(old)


# What the outputs are and how to call the example, by task.
USAGE: Mapping[str, tuple[str, str]] = {
    "pose": (
        "one heatmap per joint of a person's crop",
        "    python example.py IMAGE --box X Y WIDTH HEIGHT   # one person in a picture\n",
    ),
    "segmentation": ("scores of the classes, to be enlarged to the image's size", ""),
    "classification": ("scores of the classes; their softmax is the probabilities", ""),
    "detection": (
        "for each image boxes, scores, labels from 1, and with some frameworks masks",
        "    python example.py IMAGE --score 0.5              # only what it is so sure of\n",
    ),
}


def _card(study: Study, result: Result, head: str) -> str:
    """README of the folder: what it is, what it scored and cost, how to use it."""
    rows = [(METRICS[f"metrics.{name}"], value) for name, value in result.metrics.items()]
    rows += [(METRICS[f"profile.{name}"], value) for name, value in result.profile.items()]
    table = "\n".join(f"| {m.title} | {m.show(value)} |" for m, value in rows)
    versions = ", ".join(f"{k} {v}" for k, v in result.environment["versions"].items())
    height, width = study.input_size
    outputs, usage = USAGE[study.task.kind]
    if head == "ocr":
        outputs = f"a pair, coarse and final, of which the second is the prediction: {outputs}"
    detector = study.detector
    body = "net.body" if detector is None else "net.backbone.network.body"
    needs = f"torch, {'' if detector is None else 'torchvision, '}safetensors and pillow"
    imports = "torch" if detector is None else "torch and torchvision"
    by = "" if detector is None else f" by {FRAMEWORKS[detector.framework].title}"
    return f"""# {study.name}: a trained network

An HRNet for {study.task.kind}{by}, arm `{result.arm}`, trained in trial {result.trial} (seed
{result.seed}) of the study `{study.name}` at {height}x{width} pixels.

| figure | value |
|---|---|
{table}

Use it (needs {needs}, nothing else):

    python example.py                                # draws prediction.png from sample.png
    python example.py IMAGE --out DRAWING            # from a picture of yours
{usage}
In code: `from network import load_network; net = load_network(".")`. It puts out
{outputs}.
`{body}` returns feature maps and states their `channels` and `strides`.
`arch.json` is the whole architecture, `preprocess.json` says how to normalise an image and what
the outputs mean, `network/` is the source (it imports {imports}, and for crops and drawings
Pillow).

With hrnet-search installed, `hrnet-search predict FOLDER IMAGE... --out DIR` does many pictures.

{_worth(study, result)}

Loaded in a process without hrnet-search, this folder gave the trained network's outputs bit for
bit on `sample.png`. Trained with {versions}.
Architecture: `{json.dumps(result.params)}`{_widths(study, result)}.
"""


def _widths(study: Study, result: Result) -> str:
    """Of a cost-matched copy: what its knob values do not say."""
    if not study.is_copy(result.params):
        return ""
    widths = json.dumps(study.arguments(result.params)["width"])
    (cost,) = study.match
    scaled = f", its branches scaled to the {METRICS[cost].label} of"
    return f"{scaled}\n`{study.reference_arm}`: width {widths}"


def _worth(study: Study, result: Result) -> str:
    """How far its figures can be trusted, for its README."""
    if result.learnt_nothing(study.accuracy):
        label = METRICS[study.accuracy].label
        return (
            f"This network has learnt nothing: its {label} is 0. It shows how an exported network\n"
            "is used, and is not the best of its study."
        )
    return (
        "The figures are those of one seed on the validation data it was chosen on, so they "
        "flatter; the\nstudy's report has the mean and interval of its arm."
    )
