"""What a network puts out, by name, and what it means: the graph of `model.onnx` and `model.pt2`.

Copied into the folder of an exported network: needs torch alone, for pose also `keypoints`.
Shapes: B images of (H, W) pixels, K joints or classes, maps of (h, w) places.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

Named = dict[str, Tensor]


class NamedOutputs(nn.Module):
    """A network whose outputs have names: its maps or scores first, then what they mean.

    * pose: `heatmaps` (B, K, h, w), after their softmax if it was trained with one, and `joints`
      (B, K, 3): x, y in pixels of the image, score;
    * segmentation: `scores` (B, K, h, w), the final ones of OCR, and `classes` (B, H, W);
    * classification: `scores` (B, K), and `probabilities` (B, K);
    * detection: what there is before boxes are chosen, see `Detector.dense`.

    Args:
        net: A `Network`, or a `Detector` on one.
        about: What `preprocess.json` says.
    """

    def __init__(self, net: nn.Module, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.net, self.about = net, dict(about)

    def forward(self, image: Tensor) -> Named:
        """Of images (B, 3, H, W), normalised."""
        if self.about["task"] == "detection":
            return self.net.dense(self.net.backbone(image))  # type: ignore[operator]
        output = self.net(image)
        maps = output if isinstance(output, Tensor) else output[-1]  # OCR: coarse, final
        return self.read(maps, (image.shape[-2], image.shape[-1]))

    def read(self, maps: Tensor, size: tuple[int, int]) -> Named:
        """What the network's output says of images of `size` (H, W)."""
        task = self.about["task"]
        if task == "pose":
            return self._joints(maps)
        if task == "classification":
            return {"scores": maps, "probabilities": maps.softmax(1)}
        return {"scores": maps, "classes": self.enlarged(maps, size).argmax(1)}

    def _joints(self, maps: Tensor) -> Named:
        if self.about["softmax"]:
            maps = maps.flatten(2).softmax(-1).reshape(maps.shape)
        return {"heatmaps": maps, "joints": self.decoded(maps)}

    def decoded(self, heatmaps: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, K, 3), as the study's test has it."""
        from .keypoints import decode

        how = {name: self.about[name] for name in ("decoder", "sigma")}
        return decode(heatmaps, **how, stride=self.net.body.strides[0])  # type: ignore[union-attr,index,arg-type]

    def enlarged(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, h, w) -> (B, K, H, W), as the study's test has it."""
        corners = self.about["align_corners"]
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=corners)
