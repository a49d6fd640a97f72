"""`model-int8.onnx`: a graph whose convolutions compute in integers of 8 bits."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

# Nearly all of the work. What decodes maps, adds and resizes them stays as it is: it would lose
# more than it gains.
QUANTISED = ("Conv", "Gemm")


def write_int8(source: Path, target: Path, images: Iterable[Tensor]) -> None:
    """Quantise a graph statically, in QDQ form: scales of weights per channel, of maps per tensor.

    Args:
        source: In float32, with one input.
        target: Where to.
        images: (1, 3, H, W) each. The least and greatest values of every map on them decide about
            its scale, so they must be like those that will be shown.

    Raises:
        RuntimeError: ONNX Runtime cannot quantise it.
    """
    import onnxruntime
    from onnxruntime import quantization

    name = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).get_inputs()
    logging.disable(logging.WARNING)  # advice on a step that folds BatchNorm, which is folded
    try:
        quantization.quantize_static(
            source,
            target,
            _Feeds(name[0].name, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    except OSError:  # such as a full disk
        raise
    except Exception as error:  # of many kinds
        words = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(f"{target.name} cannot be made: {words}") from error
    finally:
        logging.disable(logging.NOTSET)


class _Feeds:
    """Images one after the other, as ONNX Runtime asks for them."""

    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self.feeds = ({name: image.numpy()} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)
