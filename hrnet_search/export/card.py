"""README of an exported folder: what it is, what it scored and cost, how it is used."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..frameworks import FRAMEWORKS
from ..result import METRICS, Result
from ..study import Study
from .formats import FILES
from .verify import LIMIT

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


def card(study: Study, result: Result, head: str, checks: Mapping[str, Any]) -> str:
    """README of the folder.

    Args:
        study: The study; without variants.
        result: The trial.
        head: Its head.
        checks: What `checks.json` says.
    """
    rows = [(METRICS[f"metrics.{name}"], value) for name, value in result.metrics.items()]
    rows += [(METRICS[f"profile.{name}"], value) for name, value in result.profile.items()]
    table = "\n".join(f"| {m.title} | {m.show(value)} |" for m, value in rows)
    versions = ", ".join(f"{k} {v}" for k, v in result.environment["versions"].items())
    height, width = study.input_size
    outputs, usage = USAGE[study.task.kind]
    if head == "ocr":
        outputs = f"a pair, coarse and final, of which the second is the prediction: {outputs}"
    detector = study.detector
    needs = f"torch, {'' if detector is None else 'torchvision, '}safetensors and pillow"
    imports = "torch" if detector is None else "torch and torchvision"
    graphs = _formats(study, result, checks["formats"])
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
`load_network(".", fold=True)` gives the same network with BatchNorm folded into the convolutions,
which is faster; `load_backbone(".")` the body alone, which returns a list of feature maps and
states their `channels` and `strides`.
`arch.json` is the whole architecture, `preprocess.json` says how to normalise an image and what
the outputs mean, `network/` is the source (it imports {imports}, and for crops and drawings
Pillow).

{graphs}With hrnet-search installed, `hrnet-search predict FOLDER IMAGE... --out DIR` does many
pictures.

{_worth(study, result)}

Loaded in a process without hrnet-search, this folder gave the trained network's outputs bit for
bit on `sample.png`. Trained with {versions}.
{_evaluated(checks)}
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


# What `model.onnx` and `model.pt2` put out, by task.
NAMED: Mapping[str, str] = {
    "pose": (
        "`heatmaps` (B, K, h, w) and `joints` (B, K, 3): x, y in pixels of the crop, and score,\n"
        "found as the study's test finds them in one view"
    ),
    "segmentation": (
        "`scores` (B, K, h, w) and `classes` (B, H, W), the number of every pixel's class"
    ),
    "classification": "`scores` (B, K) and `probabilities` (B, K)",
    "detection": (
        "what there is before boxes are chosen (below), as the choice has loops whose lengths\n"
        "depend on the image. The whole detector, with that choice, is the source in `network/`"
    ),
}


def _formats(study: Study, result: Result, formats: Mapping[str, Mapping[str, Any]]) -> str:
    """A section on the files beside the source; empty if there are none."""
    if not formats:
        return ""
    *first, last = [f"`{name}`" for name in formats]
    names = f"{', '.join(first)} and {last}" if first else last
    varies = next(iter(formats.values()))["varies"]
    rows = [row for about in formats.values() for row in about["differences"]]
    return f"""## {names}

Weights are within. Input is `image`, normalised as `preprocess.json` says, outputs are
{NAMED[study.task.kind]}.
{_sizes(varies, rows[0]["size"])}
In a process without hrnet-search the outputs were compared with those of the trained network.
Decoded outputs are compared on equal maps{_chosen(study)}. More than {LIMIT:g} of the range
would have failed{_quantised(formats)}.

| file | size | output | greatest difference | share of the output's range |
|---|---|---|---|---|
{chr(10).join(_difference(row) for row in rows)}
{"".join(_scored(file, about, result) for file, about in formats.items())}
"""


def _scored(file: str, about: Mapping[str, Any], result: Result) -> str:
    """What a graph scored on the validation data; empty if nobody measured.

    Integers are set beside the network in float32, other graphs beside the record.
    """
    found, beside = about["metrics"], about["float32"] or result.metrics
    if not found:
        return ""
    precision = result.environment.get("precision", "unknown precision")
    title = "in float32" if about["float32"] else f"the trial's record ({precision})"
    rows = [
        f"| {METRICS[f'metrics.{name}'].title} "
        + "".join(f"| {METRICS[f'metrics.{name}'].show(each[name])} " for each in (found, beside))
        + f"| {found[name] - beside[name]:+.2g} |\n"
        for name in result.metrics
        if name in found and name in beside
    ]
    return f"""
`{file}` was evaluated in ONNX Runtime, on one thread, on all of the study's validation data.
The difference is of the metric as a fraction.

| figure | `{file}` | {title} | difference |
|---|---|---|---|
{"".join(rows)}"""


def _quantised(formats: Mapping[str, Any]) -> str:
    """What is otherwise with integers of 8 bits."""
    if (file := FILES["int8"]) not in formats:
        return ""
    return (
        f", but of `{file}`, which rounds: its convolutions compute in integers\n"
        "of 8 bits (static quantisation, QDQ), with ranges from training images. What that costs\n"
        "is measured below"
    )


def _chosen(study: Study) -> str:
    """How classes, which jump where two scores are about equal, were compared."""
    if study.task.kind != "segmentation":
        return ""
    return "; of `classes` it says how much lower\nthe chosen class scores than the best"


def _sizes(varies: Mapping[str, int], size: Sequence[int]) -> str:
    """What of the images may vary: names of axes with their least lengths."""
    if "height" in varies:
        least = f"from {varies['height']}x{varies['width']} pixels on"
        return f"Batch, height and width may vary, {least}.\n"
    batch = "The batch may vary, height and width not" if varies else "Nothing may vary"
    return f"{batch}: images are of {size[0]}x{size[1]} pixels.\n"


def _difference(row: Mapping[str, Any]) -> str:
    size = "x".join(map(str, row["size"]))
    most, share = (f"{row[name]:.2g}" for name in ("most", "share"))
    return f"| `{row['file']}` | {size} | `{row['output']}` | {most} | {share} |"


def _evaluated(checks: Mapping[str, Any]) -> str:
    """Whether the figures were measured again on this folder, and what came out."""
    if not checks["metrics"]:
        return (
            "\nThe figures are the trial's record; they were not measured again on this folder\n"
            "(`hrnet-search export STUDY --check` does)."
        )
    return "\n" + "\n".join(_measured(checks["metrics"]))


def _measured(metrics: Mapping[str, Sequence[float]]) -> Iterator[str]:
    different = [name for name, (recorded, found) in metrics.items() if recorded != found]
    yield "The network of this folder was evaluated again on all of the study's validation data"
    if not different:
        yield f"({', '.join(metrics)}): every figure is that of the record to the last digit."
        return
    yield f"({', '.join(metrics)}). These are not the recorded ones to the last digit:"
    for name in different:
        recorded, found = metrics[name]
        yield f"{name} {found!r} instead of {recorded!r};"
