"""What an exported network finds in pictures: drawn, and as JSON.

The folder's code is never run: the network is built by this package from `arch.json`, and its
weights are read as safetensors. Nothing heavy is imported before folder and pictures are checked.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .arch import ArchSpec
from .blueprint import check_input, head_of
from .drawing import (
    DRAWN_SCORE,
    class_shares,
    draw_classes,
    draw_objects,
    draw_people,
    draw_scores,
)
from .errors import InputError, nearest_name
from .files import is_number, read_user_json, write_atomic, write_json
from .frameworks import DetectorSpec
from .progress import Advance
from .views import IMAGE_SUFFIXES, centre_crop, fitted_size, padded_size, seen_size

if TYPE_CHECKING:
    from torch import Tensor, nn

ARCH, ABOUT, WEIGHTS = "arch.json", "preprocess.json", "weights.safetensors"
LABELS = "_labels.png"
PEOPLE = 32  # crops that the network sees at once
TOP = 5  # classes that are listed
FARTHEST, THINNEST = 1_000_000, 0.001  # pixels: numbers of a box, and its sides
# What `preprocess.json` says of each task, beside task, mean and std.
KEYS: Mapping[str, tuple[str, ...]] = {
    "pose": ("input_size", "keypoints", "skeleton", "decoder", "sigma", "softmax", "padding"),
    "segmentation": ("resize", "base_length", "align_corners", "classes"),
    "classification": ("input_size", "centre", "classes"),
    "detection": ("image_size", "padded", "classes"),
}

Box = tuple[float, float, float, float]  # x, y, width, height in pixels
Found = tuple[dict[str, Any], dict[str, Image.Image]]  # record, pictures by what their names end in


@dataclass(frozen=True)
class Winner:
    """An exported network: its description, checked; the weights are not read yet.

    Args:
        folder: Where it is.
        spec: Its body.
        head: Its head.
        num_outputs: Joints or classes; channels of a pyramid.
        about: What `preprocess.json` says.
        detector: What stands on the pyramid, if objects are found.
    """

    folder: Path
    spec: ArchSpec
    head: str
    num_outputs: int
    about: dict[str, Any]
    detector: DetectorSpec | None = None

    @property
    def task(self) -> str:
        return str(self.about["task"])


@dataclass(frozen=True)
class Person:
    """A person's box in an image.

    Args:
        image: Name or path of the image.
        box: x, y, width, height in pixels.
        score: How sure the detector is.
    """

    image: str
    box: Box
    score: float = 1.0


@dataclass(frozen=True)
class Job:
    """One picture to look at.

    Args:
        image: Its file.
        name: What the names of its results begin with.
        people: Boxes in it; None: the whole picture is one person.
    """

    image: Path
    name: str
    people: list[Person] | None = None


# --------------------------------------------------------------------------- what is asked for


def open_winner(folder: Path) -> Winner:
    """The description of an exported network.

    Args:
        folder: What `hrnet-search run` or `export` wrote, such as reports/smoke/winner.

    Raises:
        InputError: It is no such folder, or its files do not fit together.
    """
    if not folder.is_dir():
        rule = "is no folder; that of an exported network is wanted, such as reports/smoke/winner"
        raise InputError(rule, file=folder)
    for name in (ARCH, ABOUT, WEIGHTS):
        if not (folder / name).is_file():
            rule = f"is not the folder of an exported network: it has no {name}"
            raise InputError(rule, file=folder)
    arch, about = (read_user_json(folder / name) for name in (ARCH, ABOUT))
    _check(arch, ("head", "num_outputs", "arch"), folder / ARCH)
    _check(about, ("task", "mean", "std"), folder / ABOUT)
    _check(about, KEYS[about["task"]], folder / ABOUT)
    if about["task"] == "detection":
        _check(arch, ("detector",), folder / ARCH)
    try:
        head_of(arch["head"])
        spec = ArchSpec.from_dict(arch["arch"])
        detector = _detector(arch) if about["task"] == "detection" else None
    except InputError as error:
        raise error.within(file=folder / ARCH) from None
    names = about["keypoints" if about["task"] == "pose" else "classes"]
    count = detector.num_classes if detector else arch["num_outputs"]
    if len(names) != count:
        rule = f"has {len(names)} names of outputs, but the network has {count}"
        raise InputError(rule, file=folder / ABOUT)
    return Winner(folder, spec, arch["head"], arch["num_outputs"], about, detector)


def _detector(arch: Mapping[str, Any]) -> DetectorSpec:
    """What `arch.json` says of the detector.

    Raises:
        InputError: It is none, or stands on another head.
    """
    try:
        detector = DetectorSpec.from_dict(arch["detector"])
    except InputError as error:
        raise error.within(key="detector") from None
    if arch["head"] != detector.pyramid:
        rule = f"must be {detector.pyramid}, which {detector.framework} stands on"
        raise InputError(rule, key="head", value=arch["head"])
    return detector


def _check(values: Any, keys: Sequence[str], file: Path) -> None:
    """That the keys are there, and their values what export writes."""
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            raise InputError("is missing", file=file, key=key)
        if not VALID[key](values[key]):
            rule = "is not what an exported network has there"
            raise InputError(rule, file=file, key=key, value=values[key])


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_list(value: Any, of: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value)) and all(map(of, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_place(value: Any) -> bool:
    return type(value) is int and value >= 0


VALID: Mapping[str, Callable[[Any], bool]] = {
    "head": _is_name,
    "num_outputs": _is_place,
    "arch": lambda value: isinstance(value, dict),
    "detector": lambda value: isinstance(value, dict),
    "task": lambda value: _is_name(value) and value in KEYS,
    "mean": lambda value: _is_list(value, is_number, 3),
    "std": lambda value: _is_list(value, _is_positive, 3),
    "input_size": lambda value: _is_list(value, _is_place, 2) and min(value) > 0,
    "keypoints": lambda value: _is_list(value, _is_name),
    "classes": lambda value: _is_list(value, _is_name),
    "skeleton": lambda value: _is_list(value, lambda pair: _is_list(pair, _is_place, 2)),
    "decoder": lambda value: value in ("quarter", "parabola", "dark"),
    "sigma": _is_positive,
    "padding": _is_positive,
    "centre": _is_positive,
    "softmax": lambda value: type(value) is bool,
    "resize": lambda value: value == [] or (_is_list(value, _is_place, 2) and min(value) > 0),
    "base_length": _is_place,
    "align_corners": lambda value: type(value) is bool,
    "image_size": lambda value: _is_list(value, _is_place, 2) and 0 < value[0] <= value[1],
    "padded": lambda value: _is_place(value) and value > 0,
}


def find_images(paths: Sequence[Path], winner: Winner) -> list[Path]:
    """The images that are meant, each once; a folder stands for the images in it.

    Raises:
        InputError: There is no such file, it is no image, or too small for the network.
    """
    found = [image for path in paths for image in _images_at(path)]
    images = list({image.resolve(): image for image in found}.values())
    for image in images:
        _check_image(image, winner)
    return images


def _images_at(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not inside:
            raise InputError(f"holds no images ({', '.join(IMAGE_SUFFIXES)})", file=path)
        return inside
    if not path.is_file():
        near = nearest_name(path.name, [other.name for other in path.parent.glob("*")])
        raise InputError("there is no such image", file=path, nearest=near)
    return [path]


def _check_image(image: Path, winner: Winner) -> None:
    """By its header: its pixels are read when it is their turn."""
    try:
        with Image.open(image) as picture:
            size = (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"is not a readable image ({error})", file=image) from None
    if winner.task in ("segmentation", "detection"):
        height, width = _whole_size(size, winner)
        try:
            check_input(winner.spec, winner.head, (height, width))
        except InputError as error:
            seen = "" if (height, width) == size else f"is seen at {height}x{width} pixels, which "
            raise InputError(seen + error.rule, file=image, value=f"{size[0]}x{size[1]}") from None


def _whole_size(size: tuple[int, int], winner: Winner) -> tuple[int, int]:
    """(H, W) at which a network that sees whole images sees one of (H, W)."""
    about = winner.about
    if winner.task == "segmentation":
        return seen_size(size, about)
    return padded_size(fitted_size(size, *about["image_size"]), about["padded"])


def read_people(file: Path) -> list[Person]:
    """People's boxes from a JSON list of `{"image": name, "bbox": [x, y, width, height]}`.

    An entry may have a "score".

    Raises:
        InputError: The file is missing or no such list.
    """
    entries = read_user_json(file)
    if not isinstance(entries, list):
        raise InputError("must be a list of boxes", file=file)
    return [_person(entry, str(place), file) for place, entry in enumerate(entries)]


def _person(entry: Any, key: str, file: Path) -> Person:
    rule = 'must be {"image": name, "bbox": [x, y, width, height]}, and may have a "score"'
    known = {"image", "bbox", "score"}
    if not isinstance(entry, dict) or not known - {"score"} <= {*entry} <= known:
        raise InputError(rule, file=file, key=key, value=entry)
    box, score = entry["bbox"], entry.get("score", 1.0)
    if not isinstance(entry["image"], str):
        raise InputError("must be the name of an image", file=file, key=f"{key}.image")
    if not _is_list(box, is_number, 4):
        raise InputError("must be four numbers", file=file, key=f"{key}.bbox", value=box)
    if max(map(abs, box)) > FARTHEST or min(box[2:]) < THINNEST:
        rule = f"must be within +-{FARTHEST} pixels, width and height {THINNEST} or more"
        raise InputError(rule, file=file, key=f"{key}.bbox", value=box)
    if not is_number(score):
        raise InputError("must be a number", file=file, key=f"{key}.score", value=score)
    x, y, width, height = map(float, box)
    return Person(entry["image"], (x, y, width, height), float(score))


def check_out(out: Path, winner: Winner, read: Sequence[Path]) -> None:
    """That results cannot take the place of what they are made from.

    Args:
        out: Where the results will be.
        winner: The network.
        read: Images, and the file of boxes.

    Raises:
        InputError: One of these is in that folder, or the folder in that of the network.
    """
    real, network = out.resolve(), winner.folder.resolve()
    folders = {folder for file in read for folder in (file.parent.resolve(), file.resolve().parent)}
    if real in folders or real == network or network in real.parents:
        rule = "holds what is read; results need a folder of their own"
        raise InputError(rule, key="--out", value=str(out))


def plan(images: Sequence[Path], people: Sequence[Person] | None = None) -> list[Job]:
    """What to do with each image: the names of its results, and who is in it.

    Results are named after the image; where two would have the same name, or the name of
    another's label image, a number is added.

    Args:
        images: From `find_images`.
        people: From `read_people`; an image they do not name shows nobody. None: every picture
            is one person.

    Raises:
        InputError: Nobody is in any of them.
    """
    taken: set[str] = set()
    jobs = []
    for image in images:
        name, number = image.stem, 1
        while not taken.isdisjoint(_results(name)):
            number += 1
            name = f"{image.stem}-{number}"
        taken.update(_results(name))
        jobs.append(Job(image, name, _people_in(image, people)))
    if people and not any(job.people for job in jobs):
        near = nearest_name(people[0].image, [image.name for image in images])
        rule = "is none of the given images, and no other entry names one of them"
        raise InputError(rule, key="--boxes", value=people[0].image, nearest=near)
    return jobs


def _results(name: str) -> set[str]:
    """Names of all files that an image may get; some file systems do not tell A from a."""
    return {f"{name}{end}".lower() for end in (".png", ".json", LABELS)}


def _people_in(image: Path, people: Sequence[Person] | None) -> list[Person] | None:
    if people is None:
        return None
    return [person for person in people if person.image in (image.name, str(image))]


# ---------------------------------------------------------------------------------- predictions


def predict(
    winner: Winner,
    jobs: Sequence[Job],
    out: Path,
    progress: Advance = lambda done, total: None,
    *,
    score: float = DRAWN_SCORE,
) -> list[float]:
    """Write a drawing and a JSON file for each image, and for segmentation its classes.

    Args:
        winner: The network.
        jobs: From `plan`.
        out: Folder of `<name>.png`, `<name>.json` and `<name>_labels.png`.
        progress: Called with images done and images in all.
        score: Least score of an object that is drawn; the JSON file has all of them.

    Returns:
        The scores of all objects that were found in all images; other tasks find none.

    Raises:
        InputError: The weights do not fit, or an image is broken; earlier results stay.
    """
    from .tasks.images import decode

    finder, scores = Finder(winner, score=score), list[float]()
    for done, job in enumerate(jobs, start=1):
        pixels = decode(job.image.read_bytes(), file=job.image, kind="image")
        picture = Image.fromarray(pixels)
        _check_boxes(job, picture)
        record, pictures = finder.find(picture, job)
        size = [picture.height, picture.width]
        write_json(out / f"{job.name}.json", {"image": job.image.name, "size": size, **record})
        for end, drawn in pictures.items():
            buffer = io.BytesIO()
            drawn.save(buffer, "PNG")
            write_atomic(out / f"{job.name}{end}", buffer.getvalue())
        scores += [found["score"] for found in record.get("objects", ())]
        progress(done, len(jobs))
    return scores


def _check_boxes(job: Job, picture: Image.Image) -> None:
    """That each box shows something of the picture."""
    for x, y, width, height in (person.box for person in job.people or ()):
        inside = x < picture.width and y < picture.height and x + width > 0 and y + height > 0
        if not inside:
            rule = f"lies outside the image, which is {picture.width}x{picture.height} pixels"
            raise InputError(rule, file=job.image, key="--boxes", value=[x, y, width, height])


class Finder:
    """A network with its weights.

    Args:
        winner: Its description.
        score: Least score of an object that is drawn.

    Raises:
        InputError: The weights do not fit.
    """

    def __init__(self, winner: Winner, *, score: float = DRAWN_SCORE) -> None:
        import torch

        from .weights import load_weights

        self.about, self.task, self.score = winner.about, winner.task, score
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        net = _built(winner)
        load_weights(net, winner.folder / WEIGHTS)
        self.net: nn.Module = net.eval().to(self.device)

    def find(self, picture: Image.Image, job: Job) -> Found:
        """What is in a picture: the record of its JSON file, and drawings."""
        import torch

        with torch.inference_mode():
            if self.task == "pose":
                return self._people(picture, job)
            find = {
                "segmentation": self._classes,
                "classification": self._scores,
                "detection": self._objects,
            }
            return find[self.task](picture)

    def _run(self, pictures: Sequence[Image.Image]) -> "Tensor":
        """What the network puts out for pictures of one size, in float32 on the CPU."""
        import torch

        output = self.net(self._images(pictures).to(self.device))
        # Head ocr puts out coarse classes as well, first.
        return (output if isinstance(output, torch.Tensor) else output[-1]).float().cpu()

    def _images(self, pictures: Sequence[Image.Image]) -> "Tensor":
        """Pictures of one size, normalised: (B, 3, H, W)."""
        import torch

        stack = []
        for picture in pictures:
            pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            stack.append(pixels.reshape(picture.height, picture.width, 3))
        mean, std = (torch.tensor(self.about[key]) for key in ("mean", "std"))
        return ((torch.stack(stack).float() - mean) / std).permute(0, 3, 1, 2)

    def _people(self, picture: Image.Image, job: Job) -> Found:
        people = job.people
        padding = self.about["padding"]
        if people is None:  # a picture of one person needs no room around it
            whole = (0.0, 0.0, float(picture.width), float(picture.height))
            people, padding = [Person(job.image.name, whole)], 1.0
        found: list[list[list[float]]] = []
        for start in range(0, len(people), PEOPLE):
            boxes = [person.box for person in people[start : start + PEOPLE]]
            found += self._joints(picture, boxes, padding)
        names = self.about["keypoints"]
        records = [
            {
                "bbox": list(person.box),
                "score": person.score,
                "keypoints": dict(zip(names, joints, strict=True)),
            }
            for person, joints in zip(people, found, strict=True)
        ]
        drawn = draw_people(picture, found, names, self.about["skeleton"])
        return {"people": records}, {".png": drawn}

    def _joints(
        self, picture: Image.Image, boxes: Sequence[Box], padding: float
    ) -> list[list[list[float]]]:
        """Of each box every joint: x, y in the picture, and score."""
        import torch

        from .keypoints import affine, apply, box_view, crop, decode, inverse, stride_of

        height, width = self.about["input_size"]
        size = (height, width)
        matrices = [affine(*box_view(box, size, padding), size) for box in boxes]
        heatmaps = self._run([crop(picture, matrix, size) for matrix in matrices])
        if self.about["softmax"]:
            heatmaps = heatmaps.flatten(2).softmax(-1).reshape(heatmaps.shape)
        stride = stride_of(size, (heatmaps.shape[-2], heatmaps.shape[-1]))
        decoder, sigma = self.about["decoder"], self.about["sigma"]
        joints = decode(heatmaps, decoder=decoder, sigma=sigma, stride=stride)
        joints[..., :2] = apply(inverse(torch.stack(matrices)), joints[..., :2])
        people: list[list[list[float]]] = joints.tolist()
        return people

    def _classes(self, picture: Image.Image) -> Found:
        from torch.nn import functional as F

        full = (picture.height, picture.width)
        height, width = seen_size(full, self.about)
        scores = self._run([picture.resize((width, height), Image.Resampling.BILINEAR)])
        corners = self.about["align_corners"]
        scores = F.interpolate(scores, size=full, mode="bilinear", align_corners=corners)
        labels = Image.fromarray(scores[0].argmax(0).byte().numpy())
        names = self.about["classes"]
        shares = dict(zip(names, class_shares(labels, len(names)), strict=True))
        drawn = draw_classes(picture, labels, names)
        return {"classes": shares}, {".png": drawn, LABELS: labels}

    def _scores(self, picture: Image.Image) -> Found:
        from .tasks.classification import named_scores

        height, width = self.about["input_size"]
        crop = centre_crop(picture, (height, width), centre=self.about["centre"])
        classes = self.about["classes"]
        top = self._run([crop])[0].softmax(0).topk(min(TOP, len(classes)))
        scores = named_scores(classes, top.values, top.indices)
        record = {"class": next(iter(scores)), "scores": scores}
        return record, {".png": draw_scores(picture, list(scores.items()))}

    def _objects(self, picture: Image.Image) -> Found:
        from .objects import own_masks

        found, full = self._found(picture), (picture.height, picture.width)
        sure = {name: values[found["scores"] >= self.score] for name, values in found.items()}
        boxes, labels, scores = (sure[key].tolist() for key in ("boxes", "labels", "scores"))
        masks = own_masks(sure["masks"], sure["boxes"], full) if "masks" in sure else None
        drawn = draw_objects(picture, boxes, labels, scores, self.about["classes"], masks)
        return {"objects": self._records(found, full)}, {".png": drawn}

    def _found(self, picture: Image.Image) -> "dict[str, Tensor]":
        """What the detector finds, in the picture's own pixels."""
        import torch

        from .objects import fitted, padded, placed

        shown = fitted(picture, self.about["image_size"])
        size = (shown.height, shown.width)
        image = padded(self._images([shown]), self.about["padded"])
        (found,) = self.net(image.to(self.device), torch.tensor([size]))
        return placed(found, size, (picture.height, picture.width))

    def _records(self, found: "dict[str, Tensor]", size: tuple[int, int]) -> list[dict[str, Any]]:
        """Objects as in COCO's results format, but for the name of the class."""
        from .tasks.detection import pasted

        columns = (found[key].tolist() for key in ("labels", "scores", "boxes"))
        records: list[dict[str, Any]] = [
            {
                "class": self.about["classes"][label - 1],
                "score": score,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for label, score, (x1, y1, x2, y2) in zip(*columns, strict=True)
        ]
        if "masks" in found:
            runs = pasted(found["masks"].float(), found["boxes"], size)
            for record, mask in zip(records, runs, strict=True):
                record["segmentation"] = mask
        return records


def _built(winner: Winner) -> "nn.Module":
    """The network without its weights."""
    from .model import build

    net = build(winner.spec, head=winner.head, num_outputs=winner.num_outputs)
    if winner.detector is None:
        return net
    from .detectors import HRPyramid, build_detector

    return build_detector(HRPyramid(net), winner.detector)
