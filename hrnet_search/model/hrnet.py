"""The body: an image in, parallel maps of several resolutions out."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..arch import BOTTLENECK_EXPANSION, ArchSpec
from .blocks import Bottleneck, Fusion, HRModule, Transition, conv_bn


class HRNet(nn.Module):
    """The body of an HRNet (section 3.1, Table 14), built from its spec.

    Args:
        spec: The network.
        multi_scale_output: Put out all maps (HRNetV2); otherwise only the highest resolution
            (HRNetV1), and the final fusion computes nothing else, as in the official pose code.

    Attributes:
        channels: C_r of each map that is put out.
        strides: Its stride with respect to the input.
    """

    def __init__(self, spec: ArchSpec, *, multi_scale_output: bool = True) -> None:
        super().__init__()
        outputs = len(spec.channels) if multi_scale_output else 1
        self.channels, self.strides = spec.channels[:outputs], spec.strides[:outputs]
        stem = spec.stem_channels
        self.conv1, self.bn1 = conv_bn(3, stem, 3, stride=2)
        self.conv2, self.bn2 = conv_bn(stem, stem, 3, stride=2)
        width = spec.stage1_channels
        wide = width * BOTTLENECK_EXPANSION
        self.layer1 = nn.Sequential(
            *(Bottleneck(wide if i else stem, width) for i in range(spec.stage1_blocks))
        )
        channels: tuple[int, ...] = (wide,)
        self.num_parallel_stages = len(spec.stages)
        for index, stage in enumerate(spec.stages):
            last_stage = index == len(spec.stages) - 1
            modules = []
            for position, fused in enumerate(stage.fusions):
                last = last_stage and position == stage.num_modules - 1
                branches = outputs if last else stage.num_branches
                unit = None
                if fused:
                    unit = Fusion(stage.num_channels, branches, spec.upsample, spec.align_corners)
                modules.append(HRModule(stage, unit))
            self.add_module(f"transition{index + 1}", Transition(channels, stage.num_channels))
            self.add_module(f"stage{index + 2}", nn.Sequential(*modules))
            channels = stage.num_channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, C_r, ceil(H / stride_r), ceil(W / stride_r)) per map."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        xs = [self.layer1(x)]
        for index in range(self.num_parallel_stages):
            xs = self.get_submodule(f"transition{index + 1}")(xs)
            xs = self.get_submodule(f"stage{index + 2}")(xs)
        return xs[: len(self.channels)]
