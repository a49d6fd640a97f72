"""Load the network of this folder and draw the objects it finds.

python example.py                        the sample
python example.py IMAGE                  a picture of yours
python example.py IMAGE --score 0.5      only what it is so sure of
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from network import load_network, to_input
from network.drawing import DRAWN_SCORE, draw_objects, drawn_objects
from network.errors import InputError
from network.frameworks import DetectorSpec
from network.objects import fitted, own_masks, padded, placed
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Print the objects, and write a picture that shows them."""
    options = parse()
    least = least_score(options.score)
    about = json.loads((HERE / "preprocess.json").read_text())
    try:
        picture = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
    except OSError as error:
        sys.exit(f"{options.image} is not a readable image: {error}")
    everything, names = find(picture, about), about["classes"]
    found = {key: values[everything["scores"] >= least] for key, values in everything.items()}
    boxes, labels, scores = (found[key].tolist() for key in ("boxes", "labels", "scores"))
    for (x1, y1, x2, y2), label, score in zip(boxes, labels, scores, strict=True):
        place = f"x {x1:6.1f}  y {y1:6.1f}  width {x2 - x1:6.1f}  height {y2 - y1:6.1f}"
        print(f"{names[label - 1]:15s} {place}  score {score:.3f}")
    size = (picture.height, picture.width)
    masks = own_masks(found["masks"], found["boxes"], size) if "masks" in found else None
    draw_objects(picture, boxes, labels, scores, names, masks).save(options.out)
    said = drawn_objects(everything["scores"].tolist(), least=least)
    print(f"{options.out.resolve()} shows {said}")


def least_score(asked: float | None) -> float:
    """Least score of an object that is shown."""
    arch = json.loads((HERE / "arch.json").read_text())
    try:
        return DetectorSpec.from_dict(arch["detector"]).least_drawn(asked, usual=DRAWN_SCORE)
    except InputError as error:
        sys.exit(str(error))


def find(picture: Image.Image, about: dict) -> dict[str, torch.Tensor]:
    """Boxes (x1, y1, x2, y2 in pixels of the picture), labels from 1, scores, perhaps masks."""
    shown = fitted(picture, about["image_size"])
    size = (shown.height, shown.width)
    with torch.inference_mode():
        image = padded(to_input(shown, about), about["padded"])
        (found,) = load_network(HERE)(image, torch.tensor([size]))
    return placed(found, size, (picture.height, picture.width))


def parse() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path, nargs="?", default=HERE / "sample.png")
    parser.add_argument(
        "--score", type=float, help=f"least score of what is shown (default: {DRAWN_SCORE})"
    )
    parser.add_argument("--out", type=Path, default=Path("prediction.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
