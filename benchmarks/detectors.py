"""How long does a training step of each detector take, beside torchvision's own Faster R-CNN?

    python benchmarks/detectors.py [--size 256] [--images 1] [--samples 128] [--rounds 3]

One thread. Every network stands on HRNetV2-W18, and torchvision's `FasterRCNN` on the very pyramid
that ours has, with the same anchors, proposals and samples; that both have the same losses from
the same weights is checked first. Each row: the median seconds of a step (forward, backward, SGD)
and of torchvision's, taken in turns, and their ratio; of the processor, which other work on the
machine does not count to. Images are noise with eight objects each.
With --size 800 --images 2 --samples 512 it is the paper's step, which takes minutes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from hrnet_search import build, preset
from hrnet_search.detectors import Detector, HRPyramid, build_detector, init_detector
from hrnet_search.frameworks import FRAMEWORKS, DetectorSpec

CLASSES = 80
OBJECTS = 8  # in each image
PEER = "faster_rcnn"
Step = Callable[[], None]


def detector(framework: str, samples: int) -> Detector:
    spec = DetectorSpec(framework=framework, num_classes=CLASSES, roi_samples=samples)
    body = preset("w18", task="detection")
    net = build(body, head=spec.pyramid, num_outputs=spec.channels)
    model = build_detector(HRPyramid(net), spec)
    init_detector(model, seed=0)
    return model.train()


def torchvisions(model: Detector) -> FasterRCNN:
    """torchvision's network with the backbone and the weights of our Faster R-CNN."""
    spec, backbone = model.spec, model.backbone
    sides = tuple((int(spec.anchor_scale * stride),) for stride in backbone.strides)
    peer = FasterRCNN(
        backbone,
        CLASSES + 1,
        _skip_resize=True,  # images have one size; it would also draw a random number
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(sides, (spec.anchor_ratios,) * len(sides)),
        rpn_pre_nms_top_n_train=spec.train_proposals,
        rpn_post_nms_top_n_train=spec.train_proposals,
        rpn_batch_size_per_image=spec.rpn_samples,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        box_batch_size_per_image=spec.roi_samples,
    )
    peer.load_state_dict(model.state_dict())
    return peer.train()


def batch(images: int, size: int) -> dict[str, Tensor]:
    """Noise, and rectangles as objects, one of each power of two of sides."""
    torch.manual_seed(0)
    boxes = torch.zeros(images, OBJECTS, 4)
    sides = size / 2 ** torch.linspace(1, 4, OBJECTS)
    boxes[..., :2] = torch.rand(images, OBJECTS, 2) * (size - sides)[:, None]
    boxes[..., 2:] = boxes[..., :2] + sides[:, None]
    masks = torch.zeros(images, OBJECTS, size, size, dtype=torch.uint8)
    for mask, box in zip(masks.flatten(0, 1), boxes.flatten(0, 1).int().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    return {
        "images": torch.randn(images, 3, size, size),
        "sizes": torch.full((images, 2), size),
        "boxes": boxes,
        "labels": torch.randint(1, CLASSES + 1, (images, OBJECTS)),
        "masks": masks,
    }


def losses_of(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(model, FasterRCNN):
        return model(**given)
    pairs = zip(given["boxes"], given["labels"], strict=True)
    return model(list(given["images"]), [{"boxes": b, "labels": n} for b, n in pairs])


def step_of(model: nn.Module, given: dict[str, Tensor]) -> Step:
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-5)

    def step() -> None:
        loss = sum(losses_of(model, given).values())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimiser.step()

    return step


def check(ours: nn.Module, peer: nn.Module, given: dict[str, Tensor]) -> None:
    """Both choose their samples by chance, the same after the same seed."""
    found: list[dict[str, Any]] = []
    for model in (ours, peer):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append({name: loss.item() for name, loss in losses_of(model, given).items()})
    torch.testing.assert_close(found[0], found[1])


def in_turns(steps: tuple[Step, Step], rounds: int) -> list[float]:
    """Median processor seconds of each step, after one that warms up."""
    times: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for kept, step in zip(times, steps, strict=True):
            start = time.process_time()
            step()
            if turn:
                kept.append(time.process_time() - start)
    return [statistics.median(kept) for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="side of an image, of 32 a multiple")
    parser.add_argument("--images", type=int, default=1, help="in a step")
    parser.add_argument("--samples", type=int, default=128, help="regions that losses are of")
    parser.add_argument("--rounds", type=int, default=3, help="steps that are timed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    inputs = batch(given.images, given.size)
    base = detector(PEER, given.samples)
    peer = torchvisions(base)
    check(base, peer, inputs)
    print(f"one thread, HRNetV2-W18, {given.images} of {given.size}x{given.size}, ", end="")
    print(f"{given.samples} samples; seconds of a step")
    print(f"{'framework':24}{'ours':>8}{'torchvision Faster R-CNN':>28}{'ratio':>8}")
    for name, framework in FRAMEWORKS.items():
        model = detector(name, given.samples)
        steps = (step_of(model, inputs), step_of(peer, inputs))
        ours, theirs = in_turns(steps, given.rounds)
        print(f"{framework.title:24}{ours:8.2f}{theirs:28.2f}{ours / theirs:8.2f}", flush=True)


if __name__ == "__main__":
    main()
