"""What an exported network finds in a few validation pictures, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..predict import Finder, Job, open_winner

FOLDER = "predictions"
SHOWN = 4  # pictures
SIDE, QUALITY = 480, 88  # pixels of a picture's longer side, at most; of JPEG


def draw_predictions(folder: Path, images: Sequence[np.ndarray]) -> None:
    """Write `predictions/0.jpg` and so on into an exported folder.

    Args:
        folder: With `arch.json`, `preprocess.json` and the weights.
        images: uint8 (H, W, 3) RGB each.
    """
    finder = Finder(open_winner(folder))
    (folder / FOLDER).mkdir()
    for number, image in enumerate(images):
        _, pictures = finder.find(Image.fromarray(image), Job(Path(), str(number)))
        drawn = pictures[".png"].convert("RGB")
        drawn.thumbnail((SIDE, SIDE))
        drawn.save(folder / FOLDER / f"{number}.jpg", quality=QUALITY)
