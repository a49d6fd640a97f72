"""Load the network of this folder and draw the joints of one person.

python example.py                                  the sample
python example.py IMAGE                            a picture of one person
python example.py IMAGE --box X Y WIDTH HEIGHT     one person in a picture
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from network import load_network, to_input
from network.drawing import draw_people
from network.keypoints import affine, apply, box_view, crop, decode, inverse, stride_of
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Print the joints, and write a picture that shows them."""
    options = parse()
    about = json.loads((HERE / "preprocess.json").read_text())
    try:
        picture = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
    except OSError as error:
        sys.exit(f"{options.image} is not a readable image: {error}")
    joints = find(picture, options.box, about)
    for name, (x, y, score) in zip(about["keypoints"], joints, strict=True):
        print(f"{name:15s} x {x:6.1f}  y {y:6.1f}  score {score:.3f}")
    draw_people(picture, [joints], about["keypoints"], about["skeleton"]).save(options.out)
    print(f"{options.out.resolve()} shows them (left green, right orange)")


def find(picture: Image.Image, box: list[float] | None, about: dict) -> list[list[float]]:
    """The person's joints: x, y in pixels of the picture, and score."""
    # A box gets some room around it; a picture of one person is shown whole.
    padding = about["padding"] if box else 1.0
    box = box or [0, 0, picture.width, picture.height]
    size = tuple(about["input_size"])
    matrix = affine(*box_view(box, size, padding), size)  # from the picture to the crop
    with torch.inference_mode():
        heatmaps = load_network(HERE)(to_input(crop(picture, matrix, size), about))
    if about["softmax"]:
        heatmaps = heatmaps.flatten(2).softmax(-1).reshape(heatmaps.shape)
    stride = stride_of(size, heatmaps.shape[-2:])
    joints = decode(heatmaps, decoder=about["decoder"], sigma=about["sigma"], stride=stride)[0]
    joints[:, :2] = apply(inverse(matrix), joints[:, :2])
    return joints.tolist()


def parse() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path, nargs="?", default=HERE / "sample.png")
    parser.add_argument(
        "--box", type=float, nargs=4, metavar=("X", "Y", "WIDTH", "HEIGHT"), help="in pixels"
    )
    parser.add_argument("--out", type=Path, default=Path("prediction.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
