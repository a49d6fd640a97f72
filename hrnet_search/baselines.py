"""The HRNet paper's rivals, built from torchvision, timm and segmentation-models-pytorch.

All have random weights; nothing is downloaded. Tables are those of Wang et al., arXiv
1908.07919v2, whose text leaves many details of the rivals open: where one is chosen because the
printed parameters and GFLOPs come out with it, the docstring says so; `tests/test_baselines.py`
lists what does not come out.
Shapes: B images, K outputs, H and W height and width of the input.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arch import ArchSpec
from .detectors.pyramid import FPN, Pyramid
from .errors import InputError, nearest_name
from .model import build
from .rivals import RIVAL_KNOB


class SimpleBaseline(nn.Module):
    """A ResNet, three transposed convolutions and a 1x1 convolution (Xiao et al., ECCV 2018).

    State dict and outputs are those of the official lib/models/pose_resnet.py.

    Args:
        body: The ResNet, with torchvision's names.
        channels: Of the body's last map, and of those of the transposed convolutions.
        num_outputs: K.
    """

    BODY = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")

    def __init__(self, body: nn.Module, channels: tuple[int, int], num_outputs: int) -> None:
        super().__init__()
        for name in self.BODY:
            self.add_module(name, body.get_submodule(name))
        layers: list[nn.Module] = []
        last, width = channels
        for inputs in (last, width, width):
            deconv = nn.ConvTranspose2d(inputs, width, 4, stride=2, padding=1, bias=False)
            layers += [deconv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(width, num_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, H/4, W/4) for H and W that 32 divides."""
        for name in self.BODY:
            x = self.get_submodule(name)(x)
        return self.final_layer(self.deconv_layers(x))


def simple_baseline(depth: int, num_outputs: int) -> nn.Module:
    """SimpleBaseline as published: (B, 3, H, W) -> (B, K, H/4, W/4)."""
    return SimpleBaseline(_resnet(f"resnet{depth}"), (2048, 256), num_outputs)


def narrow_simple_baseline(width: int, num_outputs: int) -> nn.Module:
    """The smallest of Xiao et al.'s, on ResNet-18, with `width` channels where that has 64.

    Its transposed convolutions have 4 * `width`: 256 where the body is a whole ResNet-18.
    """
    return SimpleBaseline(narrow_resnet18(width), (8 * width, 4 * width), num_outputs)


class _PreActivation(nn.Module):
    """BatchNorm, ReLU, convolution, three times, and a shortcut; biases as in Torch 7."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        layers: list[nn.Module] = []
        for i, o, kernel in ((inputs, half, 1), (half, half, 3), (half, outputs, 1)):
            layers += [nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, o, kernel, padding=kernel // 2)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


class _Hourglass(nn.Module):
    """(B, width, h, w) -> the same shape, by way of a map of 2**depth times fewer rows."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        inner = _Hourglass(depth - 1, width) if depth > 1 else _PreActivation(width, width)
        self.skip, first, last = (_PreActivation(width, width) for _ in range(3))
        self.low = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), first, inner, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + F.interpolate(self.low(x), x.shape[-2:])


class StackedHourglass(nn.Module):
    """`num_stacks` hourglasses of depth 4 (Newell et al., ECCV 2016).

    The original's loss sums over the heat maps of every hourglass (intermediate supervision):
    `heatmaps` returns them all. `forward` returns the last, in training too, so that the network
    runs where the others do: every parameter learns, but not as in the original.
    """

    def __init__(self, num_stacks: int, num_outputs: int, width: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            _PreActivation(64, 128),
            nn.MaxPool2d(2, ceil_mode=True),
            _PreActivation(128, 128),
            _PreActivation(128, width),
        )
        self.stacks = nn.ModuleList(
            nn.Sequential(
                _Hourglass(4, width),
                _PreActivation(width, width),
                nn.Conv2d(width, width, 1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for _ in range(num_stacks)
        )
        again = range(num_stacks - 1)  # what goes on into the next hourglass
        self.maps_again = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in again)
        self.heads_again = nn.ModuleList(nn.Conv2d(num_outputs, width, 1) for _ in again)
        # The last of the network's layers, which `init_weights` wants to be the output's.
        self.heads = nn.ModuleList(nn.Conv2d(width, num_outputs, 1) for _ in range(num_stacks))

    def heatmaps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, K, ceil(H / 4), ceil(W / 4)) of each hourglass."""
        x = self.stem(x)
        results: list[Tensor] = []
        for number, (stack, head) in enumerate(zip(self.stacks, self.heads, strict=True)):
            y = stack(x)
            results.append(head(y))
            if number < len(self.maps_again):
                x = x + self.maps_again[number](y) + self.heads_again[number](results[-1])
        return results

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, ceil(H / 4), ceil(W / 4)), the last hourglass's."""
        return self.heatmaps(x)[-1]


class _Dilated(nn.Module):
    """A timm ResNet without stride after H/8, and a head: (B, 3, H, W) -> (B, K, H/8, W/8)."""

    def __init__(self, body: str, head: nn.Module) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model(
            body, pretrained=False, features_only=True, out_indices=(4,), output_stride=8
        )
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[-1])


class _PyramidPooling(nn.Module):
    """Means over 1, 4, 9 and 36 parts of the map, beside the map: (B, C, h, w) -> (B, 2C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), _conv_bn_relu(channels, channels // 4, 1))
            for size in (1, 2, 3, 6)
        )

    def forward(self, x: Tensor) -> Tensor:
        means = [F.interpolate(f(x), x.shape[-2:], mode="bilinear") for f in self.levels]
        return torch.cat([x, *means], dim=1)


def dilated_resnet101(num_outputs: int) -> nn.Module:
    """A 3x3 and a 1x1 convolution on a dilated ResNet, (B, K, H/8, W/8).

    Table 3's figures come out with a stem of three 3x3 convolutions, 64-64-128 ("resnet101s" of
    timm), as in PSPNet's own code; with torchvision's 7x7 GFLOPs are 3 % too low.
    """
    from torchvision.models.segmentation.fcn import FCNHead

    return _Dilated("resnet101s", FCNHead(2048, num_outputs))


def pspnet_resnet101(num_outputs: int) -> nn.Module:
    """PSPNet (Zhao et al., CVPR 2017), no auxiliary branch, stem as above, (B, K, H/8, W/8)."""
    head = (_PyramidPooling(2048), _conv_bn_relu(4096, 512, 3), nn.Dropout2d(0.1))
    return _Dilated("resnet101s", nn.Sequential(*head, nn.Conv2d(512, num_outputs, 1)))


def deeplabv3_resnet101(num_outputs: int) -> nn.Module:
    """DeepLabv3 (Chen et al., 2017), (B, K, H/8, W/8).

    Table 3's figures come out with a 7x7 stem and without the 3x3 convolution that torchvision's
    own network has before the classifier; with it they are 1 % too high.
    """
    from torchvision.models.segmentation.deeplabv3 import ASPP

    head = nn.Sequential(ASPP(2048, [12, 24, 36]), nn.Conv2d(256, num_outputs, 1))
    return _Dilated("resnet101", head)


class _Padded(nn.Module):
    """A network that wants multiples of 32: pads below and to the right, and cuts that off."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, h, w), h and w in the proportion of the network's own output."""
        height, width = x.shape[2:]
        y = self.net(F.pad(x, (0, -width % 32, 0, -height % 32)))
        stride = -(-width // 32) * 32 // y.shape[3]
        return y[..., : -(-height // stride), : -(-width // stride)]


def _smp(kind: str, body: str, num_outputs: int, **options: int) -> nn.Module:
    """A network of segmentation-models-pytorch. Its UNets give (B, K, H, W)."""
    import segmentation_models_pytorch as smp

    net = getattr(smp, kind)(body, encoder_weights=None, classes=num_outputs, **options)
    return _Padded(net)


deeplabv3plus_xception71 = partial(  # (B, K, H/4, W/4)
    _smp, "DeepLabV3Plus", "tu-xception71", encoder_output_stride=8, upsampling=1
)


def _resnet(name: str, num_outputs: int = 1000) -> Any:
    from torchvision import models

    return getattr(models, name)(weights=None, num_classes=num_outputs)


def narrow_resnet18(width: int) -> nn.Module:
    """ResNet-18 (He et al., 2016, Table 1) without its classifier, from `width` channels on.

    Modules are named as torchvision's: (B, 3, H, W) -> (B, 8 * `width`, H/32, W/32).
    """
    stem = _conv_bn_relu(3, width, 7, 2)
    parts = dict(zip(("conv1", "bn1", "relu"), stem, strict=True))
    parts["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    inputs = width
    for number in range(1, 5):
        outputs = width * 2 ** (number - 1)
        first = _unit("BasicBlock", inputs, outputs, stride=1 if number == 1 else 2)
        parts[f"layer{number}"] = nn.Sequential(first, _unit("BasicBlock", outputs, outputs))
        inputs = outputs
    return nn.Sequential(OrderedDict(parts))


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _unit(kind: str, inputs: int, width: int, stride: int = 1) -> nn.Module:
    """A residual unit of torchvision, its shortcut projected where the shape changes."""
    from torchvision.models import resnet

    block = getattr(resnet, kind)
    outputs = width * block.expansion
    if stride == 1 and inputs == outputs:
        return block(inputs, width)
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return block(inputs, width, stride, nn.Sequential(conv, nn.BatchNorm2d(outputs)))


def basic_resnet(num_blocks: tuple[int, int, int], num_outputs: int) -> nn.Module:
    """The ResNets of Table 15's upper half: (B, 3, H, W) -> (B, K).

    The paper gives their depths alone. Parameters, GFLOPs and depth come out with HRNet's stem
    and first stage (two 3x3 convolutions of stride 2, three bottlenecks), stages 2 to 4 with as
    many basic units as ResNet-50, 101 and 152 have there, and a bottleneck from 512 to 2048
    channels before the classifier, which the depth does not count: 38 = 2 + 9 + 2 * 13 + 1.
    """
    layers: list[nn.Module] = [_conv_bn_relu(3, 64, 3, 2), _conv_bn_relu(64, 64, 3, 2)]
    layers += [_unit("Bottleneck", inputs, 64) for inputs in (64, 256, 256)]
    for inputs, width, count in zip((256, 128, 256), (128, 256, 512), num_blocks, strict=True):
        layers.append(_unit("BasicBlock", inputs, width, stride=2))
        layers += [_unit("BasicBlock", width, width) for _ in range(count - 1)]
    layers += [_unit("Bottleneck", 512, 512), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(2048, num_outputs))


def resnet_fpn(
    name: str, num_outputs: int, *, stride8: bool = False, stride_in_1x1: bool = True
) -> nn.Module:
    """A ResNet and a feature pyramid: (B, 3, H, W) -> five (B, K, h, w), by name.

    Faster R-CNN's GFLOPs of Table 19, and FCOS's of Table 7, come out for ResNet-50 and 101 with
    the stride in a bottleneck's first 1x1 convolution (He et al.), those of Table 7's other
    frameworks, and all of ResNeXt, with torchvision's, in the 3x3.

    Args:
        name: Of the ResNet in torchvision.
        num_outputs: K.
        stride8: Strides 8 to 128, the last two by convolutions (RetinaNet, FCOS), not 4 to 64.
        stride_in_1x1: Where the bottlenecks of plain ResNets have their stride.
    """
    from torchvision.models import resnet
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

    body = _resnet(name)
    for block in body.modules():
        if stride_in_1x1 and isinstance(block, resnet.Bottleneck) and block.conv2.groups == 1:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    first = 2 if stride8 else 1
    levels = {f"layer{number}": str(number - first) for number in range(first, 5)}
    widths = [128 * 2**number for number in range(first, 5)]
    extra = LastLevelP6P7(num_outputs, num_outputs) if stride8 else LastLevelMaxPool()
    return BackboneWithFPN(body, levels, widths, num_outputs, extra)


BUILDERS: Mapping[str, Callable[[int], nn.Module]] = {  # a key of `RIVALS` -> what makes it
    # Tables 1, 2 and 17
    "simple_baseline_resnet50": partial(simple_baseline, 50),
    "simple_baseline_resnet101": partial(simple_baseline, 101),
    "simple_baseline_resnet152": partial(simple_baseline, 152),
    "simple_baseline_resnet18_w12": partial(narrow_simple_baseline, 12),  # of small studies
    "hourglass_8": partial(StackedHourglass, 8),
    # Tables 3 and 18, but for UNet, which the paper does not have
    "unet_resnet50": partial(_smp, "Unet", "resnet50"),
    "unetplusplus_resnet101": partial(_smp, "UnetPlusPlus", "resnet101"),
    "dilated_resnet101": dilated_resnet101,
    "deeplabv3_resnet101": deeplabv3_resnet101,
    "deeplabv3plus_xception71": deeplabv3plus_xception71,
    "pspnet_resnet101": pspnet_resnet101,
    # Table 15
    "resnet38": partial(basic_resnet, (4, 6, 3)),
    "resnet72": partial(basic_resnet, (4, 23, 3)),
    "resnet106": partial(basic_resnet, (8, 36, 3)),
    "resnet50": partial(_resnet, "resnet50"),
    "resnet101": partial(_resnet, "resnet101"),
    "resnet152": partial(_resnet, "resnet152"),
    # Tables 7 and 19, without the detectors' heads
    "resnet50_fpn": partial(resnet_fpn, "resnet50"),
    "resnet101_fpn": partial(resnet_fpn, "resnet101"),
    "resnext101_64x4d_fpn": partial(resnet_fpn, "resnext101_64x4d"),
}


PYRAMID_STRIDES = {"v2p": (4, 8, 16, 32, 64), "v2p_s2": (8, 16, 32, 64, 128)}


def rival(name: str, num_outputs: int) -> nn.Module:
    """A network of `RIVALS` with random weights.

    Args:
        name: A key of `RIVALS`.
        num_outputs: Joints, classes, or (detection) channels per level, 256 in the paper.

    Raises:
        InputError: There is no such rival.
    """
    if name not in BUILDERS:
        rule = f"must be one of {', '.join(BUILDERS)}"
        raise InputError(rule, key=RIVAL_KNOB, value=name, nearest=nearest_name(name, BUILDERS))
    return BUILDERS[name](num_outputs)


def rival_pyramid(name: str, head: str, channels: int, *, stride_in_1x1: bool = True) -> Pyramid:
    """A ResNet with its pyramid as a detector's backbone.

    Args:
        name: A key of `RIVALS` that ends in "_fpn".
        head: What an HRNet would have in its place: "v2p", or "v2p_s2" for strides 8 to 128.
        channels: Of each map.
        stride_in_1x1: See `resnet_fpn`.

    Raises:
        InputError: There is no such pyramid, or no pyramid is asked for.
    """
    known = [key for key in BUILDERS if key.endswith("_fpn")]
    if name not in known:
        rule = f"must be one of {', '.join(known)}"
        raise InputError(rule, key=RIVAL_KNOB, value=name, nearest=nearest_name(name, known))
    if head not in PYRAMID_STRIDES:
        raise InputError("is for HRNets alone (CenterNet reads one map)", key="head", value=head)
    strides = PYRAMID_STRIDES[head]
    network = resnet_fpn(
        name.removesuffix("_fpn"), channels, stride8=strides[0] == 8, stride_in_1x1=stride_in_1x1
    )
    return FPN(network, strides)


def network(arch: Mapping[str, Any], *, head: str, num_outputs: int) -> nn.Module:
    """The network of a record: an HRNet with this head, or a rival, which has its own.

    Args:
        arch: `ArchSpec.to_dict` or `Rival.to_dict`.
        head: A key of `blueprint.HEADS`.
        num_outputs: Joints or classes.

    Raises:
        InputError: The record breaks a rule.
    """
    if RIVAL_KNOB in arch:
        return rival(arch[RIVAL_KNOB], num_outputs)
    return build(ArchSpec.from_dict(arch), head=head, num_outputs=num_outputs)


def official_macs(net: nn.Module, input_size: tuple[int, int]) -> int:
    """Multiply-adds of one image as the official code counts them; the paper prints them / 2**30.

    A convolution costs its weights times its output positions, a linear layer its weights, all
    else nothing (`get_model_summary` of leoxiaobin/deep-high-resolution-net.pytorch,
    lib/utils/utils.py). A transposed convolution is thus counted stride**2 times: SimpleBaseline
    at 256x192 takes 5.05, 8.44 and 11.83 times 2**30, the paper prints 8.90, 12.4 and 15.7.

    Args:
        net: Any network; a copy runs, on the meta device.
        input_size: (H, W) in pixels.
    """
    total = 0

    def add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        positions = 1 if isinstance(module, nn.Linear) else output.shape[2:].numel()
        total += module.get_parameter("weight").numel() * positions

    net = copy.deepcopy(net).to("meta").eval()
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(add)
    with torch.no_grad():
        net(torch.empty(1, 3, *input_size, device="meta"))
    return total
