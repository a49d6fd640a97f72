"""A network of a study as a folder that stands alone: plain PyTorch, weights, an example.

Also as graphs for other runtimes, if asked for. What is written is verified in a clean process.
"""

import contextlib
import errno
import filecmp
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ..arch import ArchSpec
from ..blueprint import check_input
from ..detectors import Detector
from ..errors import InputError
from ..files import read_user_json, scratch_folder, write_atomic, write_json
from ..networks import network
from ..objects import fitted, padded
from ..outputs import NamedOutputs
from ..profiling.base import OnStep, silent
from ..result import Result
from ..study import Study, load_study
from ..tasks import load_task, prepare
from ..tasks.base import Task, normalise
from ..training import evaluate
from ..weights import load_weights
from .again import PLAIN, Measured, measure_again, measure_graph, preparing
from .card import card
from .checks import NOTHING, is_checks
from .examples import SHOWN, draw_predictions
from .formats import FILES, ONNX_FILES, checksum, require_packages, write_formats
from .verify import differences, require_equal, run_alone
from .winner import pick

PACKAGE = Path(__file__).parents[1]
ARCH, WEIGHTS, CHECKS, CARD = "arch.json", "weights.safetensors", "checks.json", "README.md"
PREPROCESS, SAMPLE = "preprocess.json", "sample.png"
SCRATCH = ".winner-"  # how names of folders begin that are not finished
NAMED = 3  # of the files that differ, so many are named
ODD = (97, 131)  # (H, W) at which graphs are tried besides the study's: multiples of no stride
# Copied as they are: the network's source imports torch and the standard library alone, what
# stands around it Pillow as well, and detectors torchvision.
SOURCES = (
    *("arch.py", "blueprint.py", "errors.py", "model/*.py", "outputs.py", "folding.py"),
    *("drawing.py", "views.py"),
)
TASK_SOURCES = {
    "pose": ("keypoints.py",),
    "detection": ("frameworks.py", "detectors/*.py", "objects.py"),
}
NO_FORMATS: frozenset[str] = frozenset()
CALIBRATION, BATCH = 128, 8  # training images that decide about scales of int8, and so many at once


def export_winner(
    run: Path,
    out: Path,
    *,
    trial: int | None = None,
    formats: frozenset[str] = NO_FORMATS,
    warn: Callable[[str], None] = silent,
    on_step: OnStep = silent,
) -> Path | None:
    """Write the best trial's network to `out/winner`, and check it in a clean process.

    A folder of this trial that has the formats stays as it is, if every file is what would be
    written: its README says that it was verified, which is not true of what was edited. One that
    has other formats keeps them.

    Args:
        run: `runs/<study>`.
        out: `reports/<study>`.
        trial: Export this one instead, to `out/trial-NNNNN`.
        formats: Keys of `FILES`: what is written besides the source.
        warn: Is told in one line which files were edited, and so are written anew.
        on_step: Is told of each step before it begins.

    Returns:
        The folder, or None if no trial is complete.

    Raises:
        InputError: There is no such trial, it did not complete, its weights are damaged, or a
            package is missing.
        RuntimeError: The exported network does not give the same outputs, or it could not be
            found out whether it does; or it has no graph.
    """
    study = load_study(run / "study.yaml")
    result = pick(run, study, trial)
    folder = out / ("winner" if trial is None else f"trial-{trial:05d}")
    if result is None:
        return None
    weights = run / "trials" / f"{result.trial:05d}" / WEIGHTS
    study = study.under(result.params)
    if "int8" in formats and study.detector is not None:
        rule = "is for pose, segmentation and classification; a detector's graph has no metrics, "
        raise InputError(f"{rule}so nobody would know what it loses", key="--format", value="int8")
    known = NOTHING
    if _source(folder) == _provenance(result):
        known = _checks(folder)
        there = frozenset(name for name, file in FILES.items() if _is_whole(folder, file))
        changed = list(dict.fromkeys(_changed(folder, weights, study, result)))
        if formats <= there and not changed:
            return folder
        formats |= there
        if changed:
            warn(f"{folder}: {_differ(changed)} what is exported, so the folder is written anew")
    require_packages(formats)
    out.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out, prefix=SCRATCH) as scratch:
        new = scratch / "new"
        new.mkdir()
        _fill(new, weights, study, result, formats, _measured(known, result), on_step)
        _replace(folder, new, scratch)
    return folder


def check_again(run: Path, folder: Path, on_step: OnStep = silent) -> Measured:
    """Measure the metrics of an exported folder again, and say in its README what came out.

    Those of its ONNX files are measured too, if they are there as they were written.

    Args:
        run: `runs/<study>`.
        folder: From `export_winner`. It says which trial it is of: while a study runs, another
            one may have become the best meanwhile.
        on_step: Is told of each step before it begins.

    Raises:
        InputError: It cannot be measured here.
        RuntimeError: The folder's source fails, or puts out numbers that are none.
    """
    whole = load_study(run / "study.yaml")
    result = pick(run, whole, read_user_json(folder / ARCH)["source"]["trial"])
    assert result is not None
    study = whole.under(result.params)
    checks = _checks(folder)
    graphs = [file for file in checks["formats"] if file in ONNX_FILES and _is_whole(folder, file)]
    found = measure_again(folder, graphs, study, result, on_step)
    checks |= {"metrics": {name: list(pair) for name, pair in found.source.items()}}
    for file, metrics in found.graphs.items():
        checks["formats"][file]["metrics"] = {} if isinstance(metrics, str) else dict(metrics)
    write_json(folder / CHECKS, checks)
    write_atomic(folder / CARD, card(study, result, study.task.head, checks))
    return found


def _fill(
    folder: Path,
    weights: Path,
    study: Study,
    result: Result,
    formats: frozenset[str],
    metrics: dict[str, Any],
    on_step: OnStep,
) -> None:
    on_step("Reading the network")
    task = load_task(study, prepare(study, preparing(on_step)))  # from the cache, as a rule
    model = network(study, result.arch)
    load_weights(model, weights)
    model.eval()
    about: dict[str, Any] = {
        "arch": result.arch,
        "head": task.head,
        "num_outputs": study.head_outputs,
        "source": _provenance(result),
    }
    if study.detector is not None:
        about["detector"] = study.detector.to_dict()
    write_json(folder / ARCH, about)
    write_json(folder / PREPROCESS, task.preprocessing())
    shutil.copyfile(weights, folder / WEIGHTS)
    Image.fromarray(_sample(task)).save(folder / SAMPLE)
    _copy_sources(folder, study.task.kind)
    files = {name: checksum(folder / name) for name in (ARCH, PREPROCESS, WEIGHTS, SAMPLE)}
    images = _images(task, result)
    named = NamedOutputs(model, task.preprocessing()).eval()
    written = write_formats(
        folder, named, images, formats, on_step, calibration=_training_images(task)
    )
    on_step("Checking in a clean process")
    found = _verify(folder, model, task, images, written)
    draw_predictions(folder, task.samples(SHOWN))
    if (int8 := FILES["int8"]) in found:
        on_step(f"Evaluating {int8}")
        found[int8]["metrics"] = _metrics_of(folder / int8, task)
        on_step("Evaluating the network in float32")
        found[int8]["float32"] = evaluate(model, task, PLAIN)
    checks = {"files": files, "formats": found, "metrics": metrics}
    write_json(folder / CHECKS, checks)
    (folder / CARD).write_text(card(study, result, task.head, checks))


def _copy_sources(folder: Path, kind: str) -> None:
    for name, file in _sources(kind):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)


def _sources(kind: str) -> Iterator[tuple[str, Path]]:
    """Of each file of source its name in an exported folder, and what it is a copy of."""
    templates = PACKAGE / "templates"
    yield "example.py", templates / f"example_{kind}.py"
    yield "network/__init__.py", templates / "network.py"
    for pattern in (*SOURCES, *TASK_SOURCES.get(kind, ())):
        for file in sorted(PACKAGE.glob(pattern)):
            yield f"network/{file.relative_to(PACKAGE).as_posix()}", file


def _verify(
    folder: Path,
    model: nn.Module,
    task: Task,
    images: Sequence[Tensor],
    written: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Compare with what a process gives that cannot import this package: the source bit for bit.

    Returns:
        What was written, with the differences of each file.

    Raises:
        RuntimeError: They differ, or are no numbers.
    """
    call = _inputs(model, task)
    with torch.inference_mode():
        outputs = _outputs(model, call)
    if not all(bool(tensor.isfinite().all()) for tensor in outputs):
        raise RuntimeError("the trained network puts out NaN or infinity, so is not exported")
    files = {f: len(images) if "height" in a["varies"] else 1 for f, a in written.items()}
    images = images if files else ()
    found, named = run_alone(folder, call, images, files)
    require_equal(found, outputs)
    rows = differences(NamedOutputs(model, task.preprocessing()).eval(), images, named)
    return {
        file: about | {"differences": [row.to_dict() for row in rows if row.file == file]}
        for file, about in written.items()
    }


def _sample(task: Task) -> np.ndarray:
    """A validation image, uint8 (H, W, 3) RGB."""
    return task.samples(1)[0]


def _training_images(task: Task) -> Iterator[Tensor]:
    """Images (1, 3, H, W) as the training has seen them; those of the validation are kept apart."""
    for step in range(CALIBRATION // BATCH):
        images, _ = task.batch(step, size=BATCH, seed=0)
        yield from images.contiguous().split(1)


def _metrics_of(file: Path, task: Task) -> dict[str, float]:
    """The metrics of a graph that is not exported without them.

    Raises:
        RuntimeError: They cannot be measured.
    """
    metrics = measure_graph(file, task)
    if isinstance(metrics, str):
        raise RuntimeError(f"what {file.name} loses cannot be measured: {metrics}")
    return metrics


def _images(task: Task, result: Result) -> list[Tensor]:
    """Images (1, 3, H, W) for graphs: the sample, and at an odd size if the network takes it."""
    sample = _shown(task)[0]
    spec = ArchSpec.from_dict(result.arch)
    try:
        check_input(spec, task.head, ODD)
    except InputError:
        return [sample]
    return [sample, F.interpolate(sample, size=ODD, mode="bilinear")]


def _shown(task: Task) -> tuple[Tensor, tuple[int, int]]:
    """The sample as the network sees it, and its (H, W) without padding."""
    sample, about = _sample(task), task.preprocessing()
    if about["task"] != "detection":
        return normalise(sample[None]).contiguous(), (sample.shape[0], sample.shape[1])
    shown = fitted(Image.fromarray(sample), about["image_size"])
    image = padded(normalise(np.asarray(shown)[None]), about["padded"])
    return image.contiguous(), (shown.height, shown.width)


def _inputs(model: nn.Module, task: Task) -> list[Tensor]:
    """What the network is called with to look at the sample, in the layout that a file keeps."""
    image, size = _shown(task)
    return [image, torch.tensor([size])] if isinstance(model, Detector) else [image]


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """All that the network puts out.

    Of a detector, which might find nothing, the maps of its pyramid as well.
    """
    output = model(*inputs)
    if isinstance(model, Detector):
        maps = model.backbone(inputs[0]).values()
        return [*maps, *(output[0][name] for name in sorted(output[0]))]
    return [output] if isinstance(output, Tensor) else list(output)


def _provenance(result: Result) -> dict[str, str | int]:
    return {
        "study": result.study,
        "trial": result.trial,
        "seed": result.seed,
        "started": result.started,
        "version": metadata.version("hrnet-search"),
    }


def _source(folder: Path) -> object:
    """The provenance of what is exported there now; None if nothing says so."""
    try:
        content = read_user_json(folder / ARCH)
    except InputError:
        return None
    return content.get("source") if isinstance(content, dict) else None


def _changed(folder: Path, weights: Path, study: Study, result: Result) -> Iterator[str]:
    """Names of files that are not what would be written; what nobody wrote may be there as well.

    Files that follow from the data, which may be gone, are known by their checksums.
    """
    checks = _checks(folder)
    if checks == NOTHING:
        yield CHECKS
    for name, sha256 in checks["files"].items():
        if not (folder / name).is_file() or checksum(folder / name) != sha256:
            yield name
    copies = dict(_sources(study.task.kind))
    if weights.exists():
        copies[WEIGHTS] = weights
    for name, file in copies.items():
        if not (folder / name).is_file() or not filecmp.cmp(file, folder / name, shallow=False):
            yield name
    wanted = card(study, result, study.task.head, checks).encode()
    if not (folder / CARD).is_file() or (folder / CARD).read_bytes() != wanted:
        yield CARD


def _differ(names: Sequence[str]) -> str:
    """The beginning of a sentence on files."""
    if len(names) == 1:
        return f"{names[0]} differs from"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more} differ from"


def _measured(known: dict[str, Any], result: Result) -> dict[str, Any]:
    """The metrics that were measured again, unless the record has become another."""
    recorded = {name: pair[0] for name, pair in known["metrics"].items()}
    return known["metrics"] if recorded == result.metrics else {}


def _checks(folder: Path) -> dict[str, Any]:
    """What `checks.json` says; nothing if it is damaged, or of an earlier version."""
    try:
        content = read_user_json(folder / CHECKS)
    except InputError:
        return NOTHING
    return content if is_checks(content) else NOTHING


def _is_whole(folder: Path, file: str) -> bool:
    """Whether a graph is there as it was written and checked."""
    about = _checks(folder)["formats"].get(file)
    there = about is not None and (folder / file).is_file()
    return there and checksum(folder / file) == about["sha256"]


def _replace(folder: Path, new: Path, scratch: Path) -> None:
    """Put a finished folder in place of an old one; of several exports at once the last stays.

    Args:
        folder: Where to.
        new: The finished one.
        scratch: On the same file system, for old ones.
    """
    for number in itertools.count():
        if _put(folder, new, scratch / f"old-{number}"):
            return


def _put(folder: Path, temporary: Path, old: Path) -> bool:
    """Move `folder` to `old` and `temporary` in its place; whatever interrupts, one is there.

    Returns:
        False if another export has put its own there in between.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        temporary.rename(folder)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if old.exists() and temporary.exists():
            old.rename(folder)
        raise
    return True
