"""Representation heads as modules. Their layers are listed in `blueprint`."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blueprint import Chain, Linear, Unit
from .blocks import conv_bn_relu, residual, resize

OCR_DROPOUT = 0.05  # official `seg_hrnet_ocr.py`


def chain(layers: Chain) -> nn.Sequential:
    """The layers in one row, as the official code numbers them: convolution, BatchNorm, ReLU."""
    row: list[nn.Module] = []
    for layer in layers.layers:
        assert not isinstance(layer, Linear)
        row.extend([residual(layer)] if isinstance(layer, Unit) else conv_bn_relu(layer))
    return nn.Sequential(*row)


def nested(layers: Chain) -> nn.Sequential:
    """The same with BatchNorm and ReLU in a row of their own, as in the official OCR code."""
    row: list[nn.Module] = []
    for layer in layers.layers:
        conv, *rest = conv_bn_relu(layer)  # type: ignore[arg-type]
        row.extend([conv, nn.Sequential(*rest)])
    return nn.Sequential(*row)


def concatenated(xs: list[Tensor], align_corners: bool) -> Tensor:
    """Every (B, C_r, H_r, W_r) -> (B, sum of C_r, H_0, W_0), enlarged bilinearly."""
    enlarged = [resize(x, xs[0], "bilinear", align_corners) for x in xs[1:]]
    return joined([xs[0], *enlarged])


def joined(xs: list[Tensor]) -> Tensor:
    """Tensors of equal shape but for their channels, one after the other."""
    return torch.cat(xs, dim=1) if len(xs) > 1 else xs[0]


def pooled(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), the mean of each channel."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class HeadV1(nn.Module):
    """HRNetV1: a 1x1 convolution on one map (section 3.3, Fig. 4a)."""

    def __init__(self, layers: Mapping[str, Chain]) -> None:
        super().__init__()
        self.final_layer = chain(layers["final_layer"])[0]

    def forward(self, xs: list[Tensor]) -> Tensor:
        """One (B, C_r, H_r, W_r) -> (B, K, H_r, W_r)."""
        return self.final_layer(xs[0])


class HeadV1h(nn.Module):
    """HRNetV1h: one map, widened, then a 1x1 convolution (Fig. 10)."""

    def __init__(self, layers: Mapping[str, Chain]) -> None:
        super().__init__()
        self.last_layer = chain(layers["last_layer"])

    def forward(self, xs: list[Tensor]) -> Tensor:
        """One (B, C_r, H_r, W_r) -> (B, K, H_r, W_r)."""
        return self.last_layer(xs[0])


class HeadV2(nn.Module):
    """HRNetV2: all maps enlarged and concatenated, then 1x1 convolutions (Fig. 4b): two, or one
    that makes the map under CenterNet.
    """

    def __init__(self, layers: Mapping[str, Chain], align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.last_layer = chain(layers["last_layer"])

    def forward(self, xs: list[Tensor]) -> Tensor:
        """Every (B, C_r, H_r, W_r) -> (B, K, H_0, W_0)."""
        return self.last_layer(concatenated(xs, self.align_corners))


class HeadOCR(nn.Module):
    """HRNetV2 + OCR: coarse classes, then each pixel attends to the regions of the classes.

    Yuan et al., "Object-Contextual Representations for Semantic Segmentation", as in the
    official `seg_hrnet_ocr.py`.
    """

    def __init__(self, layers: Mapping[str, Chain], align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.aux_head = chain(layers["aux_head"])
        self.conv3x3_ocr = chain(layers["conv3x3_ocr"])
        self.ocr_distri_head = _ObjectContext(layers)
        self.cls_head = chain(layers["cls_head"])[0]

    def forward(self, xs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Every (B, C_r, H_r, W_r) -> coarse and final scores, each (B, K, H_0, W_0).

        Both are trained, the coarse ones with a smaller weight.
        """
        x = concatenated(xs, self.align_corners)
        coarse = self.aux_head(x)
        features = self.conv3x3_ocr(x)
        weights = coarse.flatten(2).softmax(dim=2)  # (B, K, N) over the N pixels
        regions = torch.bmm(weights, features.flatten(2).transpose(1, 2))  # (B, K, C)
        regions = regions.transpose(1, 2).unsqueeze(3)  # (B, C, K, 1)
        return coarse, self.cls_head(self.ocr_distri_head(features, regions))


class _ObjectContext(nn.Module):
    """Attention of pixels to regions, joined to the pixels' own features."""

    def __init__(self, layers: Mapping[str, Chain]) -> None:
        super().__init__()
        self.object_context_block = nn.ModuleDict(
            {name: nested(layers[name]) for name in ("f_pixel", "f_object", "f_down", "f_up")}
        )
        joined = nested(layers["conv_bn_dropout"])
        self.conv_bn_dropout = nn.Sequential(*joined, nn.Dropout2d(OCR_DROPOUT))

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C, K, 1) -> (B, C, H, W)."""
        block = self.object_context_block
        query = block["f_pixel"](x).flatten(2).transpose(1, 2)  # (B, N, D)
        key = block["f_object"](regions).flatten(2)  # (B, D, K)
        value = block["f_down"](regions).flatten(2).transpose(1, 2)  # (B, K, D)
        scores = torch.bmm(query, key) * key.shape[1] ** -0.5
        context = torch.bmm(scores.softmax(dim=2), value)  # (B, N, D)
        context = context.transpose(1, 2).unflatten(2, x.shape[2:])
        return self.conv_bn_dropout(torch.cat([block["f_up"](context), x], dim=1))


class HeadV2p(nn.Module):
    """HRNetV2p: V2's map with fewer channels, pooled to five levels (Fig. 4c); or V1's map, as it
    is or widened as V1h's.
    """

    def __init__(self, layers: Mapping[str, Chain], align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.widening_conv: nn.Module = nn.Identity()
        if "widening_conv" in layers:
            self.widening_conv = chain(layers["widening_conv"])
        self.reduction_conv = chain(layers["reduction_conv"])
        levels = [row for name, row in layers.items() if name.startswith("fpn_conv.")]
        self.pools = [level.pool for level in levels]
        self.fpn_conv = nn.ModuleList(chain(level)[0] for level in levels)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        """The (B, C_r, H_r, W_r) that are read -> five (B, K, h, w), each half the one before."""
        x = concatenated(xs, self.align_corners)
        x = self.reduction_conv(self.widening_conv(x))
        maps = [x if pool == 1 else F.avg_pool2d(x, pool) for pool in self.pools]
        return [conv(y) for conv, y in zip(self.fpn_conv, maps, strict=True)]


class HeadC(nn.Module):
    """HRNet-C: maps widened, added from high to low resolution, pooled (Fig. 11)."""

    def __init__(self, layers: Mapping[str, Chain]) -> None:
        super().__init__()
        self.incre_modules = _rows(layers, "incre_modules.")
        self.downsamp_modules = _rows(layers, "downsamp_modules.")
        self.final_layer = chain(layers["final_layer"])
        self.classifier = linear(layers["classifier"])

    def forward(self, xs: list[Tensor]) -> Tensor:
        """Every (B, C_r, H_r, W_r) -> (B, K)."""
        wide = [widen(x) for widen, x in zip(self.incre_modules, xs, strict=True)]
        y = wide[0]
        for down, x in zip(self.downsamp_modules, wide[1:], strict=True):
            y = x + down(y)
        return self.classifier(pooled(self.final_layer(y)))


class HeadCi(nn.Module):
    """HRNet-Ci: every map pooled, all concatenated (Table 16)."""

    def __init__(self, layers: Mapping[str, Chain]) -> None:
        super().__init__()
        self.classifier = linear(layers["classifier"])

    def forward(self, xs: list[Tensor]) -> Tensor:
        """Every (B, C_r, H_r, W_r) -> (B, K)."""
        return self.classifier(joined([pooled(x) for x in xs]))


class HeadCii(nn.Module):
    """HRNet-Cii: every map brought to the lowest resolution, concatenated, pooled (Table 16)."""

    def __init__(self, layers: Mapping[str, Chain]) -> None:
        super().__init__()
        self.downsamp_modules = _rows(layers, "downsamp_modules.")
        self.classifier = linear(layers["classifier"])

    def forward(self, xs: list[Tensor]) -> Tensor:
        """Every (B, C_r, H_r, W_r) -> (B, K)."""
        ys = [down(x) for down, x in zip(self.downsamp_modules, xs, strict=True)]
        return self.classifier(pooled(joined(ys)))


def linear(layers: Chain) -> nn.Linear:
    layer = cast(Linear, layers.layers[0])
    return nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)


def _rows(layers: Mapping[str, Chain], prefix: str) -> nn.ModuleList:
    return nn.ModuleList(chain(row) for name, row in layers.items() if name.startswith(prefix))


MODULES: Mapping[str, Callable[..., nn.Module]] = {  # a key of `blueprint.HEADS` -> its module
    "v1": HeadV1,
    "v1h": HeadV1h,
    "v2": HeadV2,
    "ocr": HeadOCR,
    "v1p": HeadV2p,
    "v1hp": HeadV2p,
    "v2p": HeadV2p,
    "v2p_s2": HeadV2p,
    "v2r": HeadV2,
    "cls": HeadC,
    "cls_i": HeadCi,
    "cls_ii": HeadCii,
}
