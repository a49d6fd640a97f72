"""Load the network of this folder and say what a picture shows.

python example.py            the sample
python example.py IMAGE      a picture of yours
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from network import load_network, to_input
from network.drawing import draw_scores
from network.views import centre_crop
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
TOP = 5  # classes that are listed


def main() -> None:
    """Print the most probable classes, and write the picture with them below."""
    options = parse()
    about = json.loads((HERE / "preprocess.json").read_text())
    try:
        picture = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
    except OSError as error:
        sys.exit(f"{options.image} is not a readable image: {error}")
    scores = find(picture, about)
    for name, probability in scores:
        print(f"{name:25s} {probability:6.1%}")
    draw_scores(picture, scores).save(options.out)
    print(f"{options.out.resolve()} shows them")


def find(picture: Image.Image, about: dict) -> list[tuple[str, float]]:
    """The most probable classes and their probabilities, the best first."""
    crop = centre_crop(picture, tuple(about["input_size"]), about["centre"])
    with torch.inference_mode():
        scores = load_network(HERE)(to_input(crop, about))[0]
    top = scores.softmax(0).topk(min(TOP, len(scores)))
    names = [about["classes"][number] for number in top.indices.tolist()]
    return list(zip(names, top.values.tolist(), strict=True))


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
