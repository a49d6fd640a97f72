"""What a network costs, measured, beside the closed form of `cost`. See docs/counting.md.

`profile` is what a study records of a network. `measure` puts side by side what several tools
count, how much memory a pass takes and how long it takes, for any `nn.Module`; `render` shows it.
H and W are an image's height and width in pixels.
"""

from ..arch import ArchSpec
from ..cost import PAPER_GFLOP, Size, cost
from ..frameworks import DetectorSpec
from ..model import build
from ..result import closed_form
from ..rivals import Rival
from .counters import count_flop_counter
from .detectors import detector_cost
from .latency import median_latency
from .measurement import Measurement, measure
from .memory import peak_memory
from .text import render

__all__ = ["Measurement", "measure", "profile", "render"]


def profile(
    spec: ArchSpec | Rival,
    *,
    head: str,
    num_outputs: int,
    input_size: Size,
    detector: DetectorSpec | None = None,
) -> dict[str, float]:
    """What a study records of a network's cost, in base units, keys as in `METRICS` after the dot.

    Args:
        spec: The body, or a rival, which has its own head.
        head: The head, a key of `blueprint.HEADS`.
        num_outputs: Joints or classes; channels of each level of a pyramid.
        input_size: (H, W) in pixels.
        detector: What stands on the pyramid, if anything does.

    Returns:
        params, macs, activations, kernels, depth, memory: as in `cost.Cost`. paper_gflops: macs
        divided by 2**30. latency: `median_latency` in seconds. A rival has no closed form:
        torch's counter gives its macs, `peak_memory` its memory in bytes; activations, kernels
        and depth are missing. Of a detector params, macs (with `test_proposals` regions and as
        many masks as it finds at most), paper_gflops and latency alone are known.

    Raises:
        InputError: There is no such head, a number is not a whole one of at least 1, the spec
            lacks a map that the head reads, or the image is too small.
    """
    if detector is not None:
        return _profile_detector(spec, detector, input_size)
    if isinstance(spec, Rival):
        from ..baselines import rival

        net = rival(spec.key, num_outputs)
        counted = count_flop_counter(net, input_size)
        macs = counted.conv + counted.linear
        costs = {
            "params": sum(p.numel() for p in net.parameters()),
            "macs": macs,
            "paper_gflops": macs / PAPER_GFLOP,
            "memory": peak_memory(net, input_size),
        }
    else:
        closed = cost(spec, head=head, num_outputs=num_outputs, input_size=input_size)
        costs = {key.partition(".")[2]: value for key, value in closed_form(closed).items()}
        net = build(spec, head=head, num_outputs=num_outputs)
    return {**costs, "latency": median_latency(net, input_size)}


def _profile_detector(
    spec: ArchSpec | Rival, detector: DetectorSpec, input_size: Size
) -> dict[str, float]:
    from ..baselines import rival_pyramid
    from ..detectors import build_detector, init_detector
    from ..detectors.pyramid import HRPyramid

    head, channels = detector.pyramid, detector.channels
    if isinstance(spec, Rival):
        backbone = rival_pyramid(spec.key, head, channels)
    else:
        backbone = HRPyramid(build(spec, head=head, num_outputs=channels))
    net = build_detector(backbone, detector)
    init_detector(net, seed=0)
    params, macs = detector_cost(
        net, input_size, regions=detector.test_proposals, masked=detector.detections
    )
    costs = {"params": params, "macs": macs, "paper_gflops": macs / PAPER_GFLOP}
    return {**costs, "latency": median_latency(net, input_size)}
