"""Load the network of this folder and draw the joints it finds.

python example.py [IMAGE] [OUTPUT]
"""

import json
import sys
from pathlib import Path

import torch
from network import load_network
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
STRIDE = 4  # of the heatmaps
SCALE = 6  # of the drawing


def main(image_file: Path = HERE / "sample.png", output: Path = Path("prediction.png")) -> None:
    """Write a picture of the person in `image_file` with joints and skeleton."""
    about = json.loads((HERE / "preprocess.json").read_text())
    height, width = about["input_size"]
    picture = Image.open(image_file).convert("RGB").resize((width, height))
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    image = pixels.reshape(1, height, width, 3).float()
    image = (image - torch.tensor(about["mean"])) / torch.tensor(about["std"])
    with torch.inference_mode():
        heatmaps = load_network(HERE)(image.permute(0, 3, 1, 2))[0]
    joints = [peak(heatmap) for heatmap in heatmaps]
    for name, (x, y) in zip(about["keypoints"], joints, strict=True):
        print(f"{name:15s} x {x:6.1f}  y {y:6.1f}")
    canvas = picture.resize((width * SCALE, height * SCALE))
    draw = ImageDraw.Draw(canvas)
    points = [((x + 0.5) * SCALE, (y + 0.5) * SCALE) for x, y in joints]
    for first, second in about["skeleton"]:
        draw.line([points[first], points[second]], fill=(240, 228, 66), width=SCALE // 2)
    for name, (x, y) in zip(about["keypoints"], points, strict=True):
        colour = (0, 158, 115) if name.startswith("left") else (213, 94, 0)
        draw.ellipse([x - SCALE, y - SCALE, x + SCALE, y + SCALE], fill=colour)
    canvas.save(output)
    print(f"{output} shows them (left green, right and nose red)")


def peak(heatmap: torch.Tensor) -> tuple[float, float]:
    """The highest place of (h, w) in input pixels, a quarter pixel towards its neighbour."""
    y, x = divmod(int(heatmap.argmax()), heatmap.shape[1])
    fx, fy = float(x), float(y)
    if 0 < x < heatmap.shape[1] - 1 and 0 < y < heatmap.shape[0] - 1:
        fx += 0.25 * float(torch.sign(heatmap[y, x + 1] - heatmap[y, x - 1]))
        fy += 0.25 * float(torch.sign(heatmap[y + 1, x] - heatmap[y - 1, x]))
    return fx * STRIDE, fy * STRIDE


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
