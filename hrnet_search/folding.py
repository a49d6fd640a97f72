"""BatchNorm folded into the convolutions before it: the same function in fewer steps.

Copied into the folder of an exported network: needs torch alone.
"""

import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(net: nn.Module) -> nn.Module:
    """The same network, changed in place, without BatchNorm, for evaluation alone.

    Outputs differ by the rounding of float32. State dicts of the two are not exchangeable.

    Args:
        net: In evaluation mode. Every BatchNorm of it is registered right after the convolution
            that it follows, or first in the `nn.Sequential` after it (OCR), as all are here.

    Raises:
        ValueError: The network is in training mode.
    """
    if any(module.training for module in net.modules()):
        raise ValueError("BatchNorm is folded in evaluation mode: call net.eval() before")
    for module in list(net.modules()):
        _fold_children(module)
    return net


def _fold_children(module: nn.Module) -> None:
    """Fold each BatchNorm into the convolution that is registered before it in `module`."""
    for (name, conv), (place, norm) in itertools.pairwise(list(module.named_children())):
        owner = module
        if isinstance(norm, nn.Sequential) and len(norm):
            owner, place, norm = norm, "0", norm[0]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(owner, place, nn.Identity())
