"""How fast is an exported network, eager, folded, in ONNX Runtime, and beside timm's HRNet?

    python benchmarks/latency_of_export.py [--preset w18-small-v1] [--size 128x128] [--rounds 15]

One image, one thread. A classification network of ours with timm's weights, if timm has the same
architecture (it is checked that both give the same scores). Contestants take turns, a round is one
pass of each, so that whatever else the machine does meets all of them alike. Each row: the median
over rounds of the time against the eager network of the same round, and its quartiles. Of integers
of 8 bits the time alone means something: weights and images are random.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from hrnet_search import build, preset
from hrnet_search.export.formats import FILES, write_formats
from hrnet_search.folding import folded
from hrnet_search.outputs import NamedOutputs
from hrnet_search.weights import load_weights

TIMM = {"w18-small-v1": "hrnet_w18_small", "w18-small-v2": "hrnet_w18_small_v2", "w18": "hrnet_w18"}
CLASSES = 1000
EAGER, INT8 = "eager", "ONNX Runtime, int8"
Run = Callable[[], object]


def ours(name: str, theirs: nn.Module, folder: Path) -> nn.Module:
    """Our network with timm's weights."""
    net = build(preset(name, task="classification"), head="cls", num_outputs=CLASSES)
    torch.save(theirs.state_dict(), folder / "timm.pth")
    load_weights(net, folder / "timm.pth")
    return net.eval()


def calibrated(net: nn.Module, image: Tensor) -> nn.Module:
    """With statistics of BatchNorm that fit its random weights, or numbers would overflow."""
    with torch.no_grad():
        for _ in range(20):
            net.train()(image.expand(4, -1, -1, -1) + torch.randn(4, *image.shape[1:]))
    return net.eval()


def in_onnx_runtime(file: Path, image: Tensor) -> Callable[[], list[Tensor]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {"image": image.numpy()}
    return lambda: [torch.from_numpy(x) for x in session.run(["scores"], feed)]


def contestants(name: str, size: tuple[int, int], folder: Path) -> dict[str, Run]:
    """What is timed, all but integers checked to give the same scores."""
    image = torch.randn(1, 3, *size)
    theirs = calibrated(timm.create_model(TIMM[name], pretrained=False), image)
    net, fold, last = (ours(name, theirs, folder) for _ in range(3))
    folded(fold)
    folded(last).to(memory_format=torch.channels_last)
    nhwc = image.to(memory_format=torch.channels_last)
    named = NamedOutputs(net, {"task": "classification"}).eval()
    write_formats(folder, named, [image], frozenset({"onnx", "int8"}), calibration=[image])
    runs: dict[str, Callable[[], list[Tensor]]] = {
        EAGER: lambda: [net(image)],
        "folded": lambda: [fold(image)],
        "folded, channels-last": lambda: [last(nhwc)],
        "ONNX Runtime": in_onnx_runtime(folder / FILES["onnx"], image),
        INT8: in_onnx_runtime(folder / FILES["int8"], image),
        f"timm {TIMM[name]}": lambda: [theirs(image)],
    }
    scores = net(image)
    for title, run in runs.items():
        if title == INT8:
            continue
        share = (run()[0] - scores).abs().max() / (scores.max() - scores.min())
        assert share < 1e-4, f"{title} gives other scores: {share:.2g} of their range"
    return dict(runs)


def measured(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each pass, in turns."""
    times: dict[str, list[float]] = {title: [] for title in runs}
    for number in range(rounds + 2):  # two to warm up
        for title, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                times[title].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=TIMM, default="w18-small-v1")
    parser.add_argument("--size", default="128x128", help="HxW in pixels")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    height, width = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        runs = contestants(given.preset, (height, width), Path(folder))
        times = measured(runs, given.rounds)
    eager = statistics.median(times[EAGER])
    print(f"{given.preset}, {given.size}, {given.rounds} rounds; eager {eager * 1e3:.1f} ms")
    print(f"{'':28}{'times eager':>12}{'quartiles':>16}")
    for title, each in times.items():
        ratios = [a / b for a, b in zip(each, times[EAGER], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"{title:28}{middle:12.2f}{low:9.2f} {high:6.2f}")


if __name__ == "__main__":
    main()
