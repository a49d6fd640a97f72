"""Load the network of this folder and colour the classes it finds.

python example.py [IMAGE] [OUTPUT]
"""

import colorsys
import json
import sys
from pathlib import Path

import torch
from network import load_network
from PIL import Image, ImageDraw
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
ROW = 18  # pixels per line of the legend


def main(image_file: Path = HERE / "sample.png", output: Path = Path("prediction.png")) -> None:
    """Write `image_file` with every pixel tinted by its class, and a legend."""
    about = json.loads((HERE / "preprocess.json").read_text())
    try:
        picture = Image.open(image_file).convert("RGB")
    except OSError as error:
        sys.exit(f"{image_file} is not a readable image: {error}")
    width, height = picture.size
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    image = pixels.reshape(1, height, width, 3).float()
    image = (image - torch.tensor(about["mean"])) / torch.tensor(about["std"])
    with torch.inference_mode():
        logits = load_network(HERE)(image.permute(0, 3, 1, 2))
        logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    classes = logits[0].argmax(0)
    count = len(about["classes"])
    colours = [colorsys.hsv_to_rgb(i / count, 0.55 + 0.4 * (i % 2), 0.95) for i in range(count)]
    palette = (torch.tensor(colours) * 255).byte()
    tint = Image.fromarray(palette[classes].numpy())
    canvas = Image.new("RGB", (width + 150, max(height, ROW * count)), "white")
    canvas.paste(Image.blend(picture, tint, 0.55), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place, name in enumerate(about["classes"]):
        share = float((classes == place).float().mean())
        draw.rectangle(
            [width + 8, ROW * place + 3, width + 20, ROW * place + 15],
            fill=tuple(palette[place].tolist()),
        )
        draw.text((width + 26, ROW * place + 3), f"{name} {share:.0%}", fill="black")
        print(f"{name:15s} {share:6.1%}")
    canvas.save(output)
    print(f"{output.resolve()} shows them")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
