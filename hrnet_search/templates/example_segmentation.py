"""Load the network of this folder and colour the classes it finds.

python example.py            the sample
python example.py IMAGE      a picture of yours
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from network import load_network, to_input
from network.drawing import class_shares, draw_classes
from network.views import seen_size
from PIL import Image, ImageOps
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Print the share of each class, and write a picture tinted by them."""
    options = parse()
    about = json.loads((HERE / "preprocess.json").read_text())
    try:
        picture = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
    except OSError as error:
        sys.exit(f"{options.image} is not a readable image: {error}")
    labels = find(picture, about)
    shares = class_shares(labels, len(about["classes"]))
    for name, share in zip(about["classes"], shares, strict=True):
        print(f"{name:15s} {share:6.1%}")
    draw_classes(picture, labels, about["classes"]).save(options.out)
    print(f"{options.out.resolve()} shows them")


def find(picture: Image.Image, about: dict) -> Image.Image:
    """The number of every pixel's class, as a grey picture."""
    full = (picture.height, picture.width)
    height, width = seen_size(full, about)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    with torch.inference_mode():
        output = load_network(HERE)(to_input(resized, about))
    scores = output if isinstance(output, torch.Tensor) else output[-1]  # OCR: coarse, final
    corners = about["align_corners"]
    scores = F.interpolate(scores, size=full, mode="bilinear", align_corners=corners)
    classes = scores[0].argmax(0).flatten().tolist()
    return Image.frombytes("L", picture.size, bytes(classes))


def parse() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path, nargs="?", default=HERE / "sample.png")
    parser.add_argument("--out", type=Path, default=Path("prediction.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
