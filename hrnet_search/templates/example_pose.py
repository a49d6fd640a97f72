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
    try:
        picture = Image.open(image_file).convert("RGB").resize((width, height))
    except OSError as error:
        sys.exit(f"{image_file} is not a readable image: {error}")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    image = pixels.reshape(1, height, width, 3).float()
    image = (image - torch.tensor(about["mean"])) / torch.tensor(about["std"])
    with torch.inference_mode():
        heatmaps = load_network(HERE)(image.permute(0, 3, 1, 2))[0]
    if about["softmax"]:
        heatmaps = heatmaps.flatten(1).softmax(-1).reshape(heatmaps.shape)
    joints = [peak(heatmap, about["subpixel"]) for heatmap in heatmaps]
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
    print(f"{output.resolve()} shows them (left green, right and nose orange)")


def peak(heatmap: torch.Tensor, subpixel: bool) -> tuple[float, float]:
    """The highest place of (h, w) in input pixels, refined between its neighbours."""
    y, x = divmod(int(heatmap.argmax()), heatmap.shape[1])
    fx, fy = float(x), float(y)
    if 0 < x < heatmap.shape[1] - 1 and 0 < y < heatmap.shape[0] - 1:
        fx += offset(heatmap[y, x - 1 : x + 2], subpixel)
        fy += offset(heatmap[y - 1 : y + 2, x], subpixel)
    return fx * STRIDE, fy * STRIDE


def offset(values: torch.Tensor, subpixel: bool) -> float:
    """From the middle of three values: a parabola's top, or a quarter towards the higher side."""
    if not subpixel:
        return 0.25 * float(torch.sign(values[2] - values[0]))
    low, top, high = values.clamp_min(1e-10).log().tolist()
    return max(-0.5, min(0.5, 0.5 * (high - low) / max(2 * top - low - high, 1e-6)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
