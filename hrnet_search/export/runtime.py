"""An exported ONNX file in place of its network, so that a task can evaluate it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class InOnnxRuntime(nn.Module):
    """What the network puts out, computed by a graph of it on one thread of the CPU.

    Images are shown one at a time: not every graph takes more. Heatmaps that the graph has put
    through their softmax come as logarithms, of which a softmax makes the same again.

    Args:
        file: A graph whose first output is the maps or scores of a `NamedOutputs`.
        about: What `preprocess.json` says.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )
        self.file, self.softmax = file, bool(about.get("softmax"))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, K, h, w), or of a classifier (B, K).

        Raises:
            RuntimeError: The graph takes images of another size alone.
        """
        first, image = self.session.get_outputs()[0], self.session.get_inputs()[0]
        for wanted, given in zip(image.shape[2:], images.shape[2:], strict=True):
            if isinstance(wanted, int) and wanted != given:
                fixed, shown = ("x".join(map(str, s[2:])) for s in (image.shape, images.shape))
                raise RuntimeError(
                    f"{self.file.name} takes images of {fixed} alone, and the study's test shows "
                    f"some of {shown}"
                )
        made = [
            torch.from_numpy(self.session.run([first.name], {image.name: one[None].numpy()})[0])
            for one in images.contiguous()
        ]
        maps = torch.cat(made)
        return maps.clamp_min(torch.finfo(maps.dtype).tiny).log() if self.softmax else maps
