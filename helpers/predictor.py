"""Faces from outside: an image, a video or a camera in; expressions, places and heat maps out.

What is predicted is about an image, not about a person: see the README before you point it at anybody.
"""

from __future__ import annotations

import copy
import glob
import importlib
import io
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor, nn

from helpers import batches, emotions, files, gradcam, images, plotting, runtime, training
from helpers.detector import Box, Detector, Tracker, camera_frames, video_frames

Source = str | Path | bytes | np.ndarray | Image.Image
"""An image: a path, the content of a file, uint8 ``[H, W]``, ``[3, H, W]`` or ``[H, W, 3]``, or Pillow's."""
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
NO_FACE = "no face found: it must be upright and look at the camera; of a close-up take all of it (--whole)"
WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "weights"
AGREEMENT = 1e-4  # how far an exported network's outputs may be from the original's


@dataclass(frozen=True)
class Face:
    """One face and what the network predicts: ``distribution`` float32 ``[K]`` over ``classes``, and more."""

    box: Box
    classes: tuple[str, ...]
    distribution: np.ndarray
    valence: float | None = None  # in [-1, 1], where the network gives it, as arousal
    arousal: float | None = None
    heat_map: np.ndarray | None = None  # float32 [size, size] over the box, where asked for
    number: int | None = None  # which face of a video this is

    @property
    def label(self) -> str:
        """The likeliest expression."""
        return self.classes[int(self.distribution.argmax())]

    @property
    def probability(self) -> float:
        """How likely that one is, to the network."""
        return float(self.distribution.max())

    def record(self) -> dict[str, Any]:
        """Return the face as plain types, for JSON."""
        shares = zip(self.classes, self.distribution.tolist(), strict=True)
        found = {"number": self.number, "box": self.box._asdict(), "label": self.label}
        found["distribution"] = {name: round(share, 4) for name, share in shares}
        found |= {name: each and round(each, 3) for name, each in self._place().items()}
        return {name: value for name, value in found.items() if value is not None}

    def __str__(self) -> str:
        place = "".join(f", {name} {each:+.2f}" for name, each in self._place().items() if each is not None)
        return f"{self.label} {self.probability:.2f}{place}"

    def _place(self) -> dict[str, float | None]:
        return {"valence": self.valence, "arousal": self.arousal}


@dataclass(frozen=True)
class Reading:
    """An image uint8 ``[3, H, W]`` of RGB (a frame has ``seconds``) with its faces, the largest first."""

    picture: np.ndarray
    faces: tuple[Face, ...]
    seconds: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the reading as plain types, for JSON."""
        when = {} if self.seconds is None else {"seconds": round(self.seconds, 3)}
        height, width = self.picture.shape[1:]
        return when | {"width": width, "height": height, "faces": [face.record() for face in self.faces]}

    def annotated(self) -> np.ndarray:
        """Return the image, uint8 ``[3, H, W]``, with each face's frame, label, and heat map where known."""
        image = Image.fromarray(np.ascontiguousarray(self.picture.transpose(1, 2, 0)))
        for face in self.faces:
            if face.heat_map is not None:
                left, top, side = face.box
                heat = Image.fromarray(face.heat_map.astype(np.float32)).resize((side, side), 2)
                below = np.asarray(image.crop((left, top, left + side, top + side))).transpose(2, 0, 1)
                warm = plotting.heated(below[None], np.asarray(heat)[None])[0].transpose(1, 2, 0)
                image.paste(Image.fromarray(np.ascontiguousarray(warm)), (left, top))
        pen, unit = ImageDraw.Draw(image), max(1, round(min(image.size) / 240))
        font = ImageFont.load_default(size=max(10, 9 * unit))
        for face in self.faces:
            (left, top, side), color = face.box, emotions.COLORS.get(face.label, plotting.ACCENT)
            pen.rectangle((left, top, left + side - 1, top + side - 1), outline=color, width=2 * unit)
            wide, high = pen.textbbox((0, 0), str(face), font=font)[2:]
            x = max(0, min(left, image.width - wide - 4))
            below = max(0, min(top + side - 1, image.height - high - 4))  # where there is no room above
            y = top - high - 4 if top >= high + 4 else below
            pen.rectangle((x, y, x + wide + 4, y + high + 4), fill=color)
            pen.text((x + 2, y + 1), str(face), fill="white", font=font)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def save(self, path: Path) -> None:
        """Write the annotated image as PNG."""
        with files.replacing(path) as file:
            Image.fromarray(self.annotated().transpose(1, 2, 0)).save(file, format="png")

    def __str__(self) -> str:
        return "; ".join(map(str, self.faces)) or NO_FACE


class Stream:
    """Reads frame after frame of one scene; an impression fades to a third in ``memory`` seconds."""

    def __init__(self, read: Callable[[np.ndarray, list[Box]], Sequence[Face]], memory: float = 0.3) -> None:
        self.read, self.memory, self.tracker = read, memory, Tracker()
        self._before: dict[int, tuple[float, np.ndarray]] = {}  # when, and the numbers of each face

    def next(self, picture: np.ndarray, seconds: float) -> Reading:
        """Return the reading of the next frame, uint8 ``[3, H, W]``, and when it was taken."""
        boxes = self.tracker.update(images.grey(picture))
        found = self.read(picture, list(boxes.values()))
        faces = [self._smoothed(number, face, seconds) for number, face in zip(boxes, found, strict=True)]
        self._before = {number: self._before[number] for number in boxes}
        return Reading(picture, tuple(sorted(faces, key=lambda face: -face.box.side)), seconds)

    def _smoothed(self, number: int, face: Face, seconds: float) -> Face:
        place = [] if face.valence is None else [face.valence, face.arousal]
        now = np.append(face.distribution, place)
        if number in self._before and self.memory > 0:
            then, before = self._before[number]
            kept = math.exp(-max(0.0, seconds - then) / self.memory)
            now = kept * before + (1 - kept) * now
        self._before[number], num = (seconds, now), len(face.distribution)
        valence, arousal = now[num:].tolist() if place else (None, None)
        smooth = now[:num].astype(np.float32)
        return replace(face, distribution=smooth, valence=valence, arousal=arousal, number=number)


class Predictor:
    """Reads faces with a trained network.

    Its output is logits ``[B, K]`` of K classes, or a dict with "labels" and, where it gives them,
    "valence_arousal" ``[B, 2]`` or "valence" and "arousal" ``[B, 1]``. It was trained on images of
    ``image_size`` pixels a side, RGB where ``color``.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        image_size: int = 48,
        color: bool = False,
        *,
        detector: Detector | None = None,
        device: str = "auto",
    ) -> None:
        self.where = runtime.device(device)
        self.model = model.to(self.where).eval()
        self.classes, self.image_size, self.color = tuple(classes), image_size, color
        self.detector = detector or Detector()

    @classmethod
    def load(cls, run: str | Path | None = None, model: nn.Module | None = None, **options: Any) -> Predictor:
        """Return the predictor of a training that was kept.

        Args:
            run: the folder that ``training.fit(..., run=...)`` left, or its file of weights; None: the
                weights that come with the workbook.
            model: a network of the same shape, where it was not made by ``models.create``.
            options: ``detector`` and ``device``.
        """
        if run is None and not (run := next(WEIGHTS.glob("*.safetensors"), None)):
            advice = "train a network (notebook 03) and name its folder in runs/"
            raise FileNotFoundError(f"no weights in {WEIGHTS} yet: {advice}")
        kept = training.Run.open(run)
        faces = kept.record.get("faces", {})
        if not faces.get("classes") or not faces.get("image_size") or faces.get("channels") not in (1, 3):
            raise ValueError(f"{run} does not say what it was trained on; train it again")
        model = kept.model if model is None else kept.load(model)
        return cls(model, faces["classes"], faces["image_size"], faces["channels"] == 3, **options)

    def image(
        self,
        source: Source,
        *,
        whole: bool = False,
        heat: bool = False,
        box: tuple[int, int, int, int] | None = None,
        color: str = "rgb",
    ) -> Reading:
        """Return what the network predicts for the faces of one image.

        Args:
            source: the image; an array is RGB or grey, uint8.
            whole: the image is one face, cut out already; look for none.
            heat: add to each face where the network found what speaks for its label (Grad-CAM).
            box: (x, y, width, height) in pixels of the one face, found by a detector of yours; look for none.
            color: the order of an array's channels, "rgb", or "bgr" as OpenCV reads them.
        """
        picture = pixels(source, color)
        boxes = self._boxes(picture, whole) if box is None else [_squared(picture, box)]
        return Reading(picture, self._faces([picture], [boxes], heat))

    def images(
        self, sources: Sequence[Source] | str | Path, *, whole: bool = False, heat: bool = False
    ) -> list[Reading]:
        """Return the readings of images, of those in a folder, or of a pattern such as "photos/*.jpg"."""
        sources = image_files(sources) if isinstance(sources, str | Path) else sources
        pictures = [pixels(source) for source in sources]
        boxes = [self._boxes(picture, whole) for picture in pictures]
        found = iter(self._faces(pictures, boxes, heat))
        parts = [tuple(itertools.islice(found, len(its))) for its in boxes]
        return list(map(Reading, pictures, parts))

    def squares(self, source: Source) -> np.ndarray:
        """Return an image's faces as the network sees them, uint8 ``[F, size, size]``, or RGB."""
        picture = pixels(source)
        found = [self._square(picture, box) for box in self._boxes(picture, whole=False)]
        return np.stack(found) if found else np.empty((0, self.image_size, self.image_size), dtype=np.uint8)

    def stream(self, memory: float = 0.3, *, heat: bool = False) -> Stream:
        """Return what reads frame after frame; see :class:`Stream`."""
        return Stream(lambda picture, boxes: self._faces([picture], [boxes], heat), memory)

    def video(self, path: str | Path, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield the reading of each frame of a video file; ImportError without OpenCV, else VideoError."""
        stream = self.stream(memory, heat=heat)
        return (stream.next(*frame) for frame in video_frames(path))

    def camera(self, index: int = 0, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield the reading of frame after frame of a camera until nobody asks for more; as :meth:`video`."""
        stream = self.stream(memory, heat=heat)
        return (stream.next(*frame) for frame in camera_frames(index))

    def export_onnx(self, path: str | Path) -> float:
        """Write the network for ONNX, and return how far its outputs there are from those here, at most.

        Input is "images", normalised float32 ``[N, C, size, size]``; the outputs are named as the heads.
        """
        try:
            onnxruntime = [importlib.import_module(name) for name in ("onnx", "onnxscript", "onnxruntime")][
                -1
            ]
        except ImportError as error:
            raise ImportError(f"{error.name} is missing: pip install onnx onnxscript onnxruntime") from None
        model, buffer = copy.deepcopy(self.model).cpu(), io.BytesIO()
        shape = (8, 3 if self.color else 1, self.image_size, self.image_size)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            here = _named(model(inputs))
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # the exporter reports its every step
            warnings.simplefilter("ignore")
            free = ({0: torch.export.Dim("faces", min=1)},)
            names = {"input_names": ["images"], "output_names": list(here)}
            torch.onnx.export(model, (inputs,), dynamo=True, dynamic_shapes=free, **names).save(buffer)
        session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
        there = session.run(list(here), {"images": inputs.numpy()})
        furthest = float(max(np.abs(a - b.numpy()).max() for a, b in zip(there, here.values(), strict=True)))
        if not furthest <= AGREEMENT:
            raise ValueError(f"the exported network differs by {furthest:.1g}, more than {AGREEMENT:g}")
        with files.replacing(path) as file:
            file.write(buffer.getvalue())
        return furthest

    def _boxes(self, picture: np.ndarray, whole: bool) -> list[Box]:
        height, width = picture.shape[1:]
        side = min(height, width)
        central = Box((width - side) // 2, (height - side) // 2, side)  # as the training sets keep it
        return [central] if whole else self.detector.find(images.grey(picture))

    def _square(self, picture: np.ndarray, box: Box) -> np.ndarray:
        return images.cut(picture, *box, self.image_size, self.color)

    def _faces(self, pictures: list[np.ndarray], boxes: list[list[Box]], heat: bool) -> tuple[Face, ...]:
        """Return the faces in the boxes of each image, one image after the other."""
        pairs = [(picture, box) for picture, its in zip(pictures, boxes, strict=True) for box in its]
        if not pairs:
            return ()
        squares = torch.from_numpy(np.stack([self._square(*pair) for pair in pairs])).to(self.where)
        inputs = batches.normalise(squares if self.color else squares[:, None])
        with torch.inference_mode():
            out = {name: values.float().cpu() for name, values in _named(self.model(inputs)).items()}
        maps, places = [None] * len(pairs), [(None, None)] * len(pairs)
        if heat:
            head = "labels" if len(out) > 1 else None
            maps = gradcam.grad_cam(self.model, gradcam.last_map(self.model), inputs, head=head).cpu().numpy()
        if "valence" in out and "arousal" in out:
            out["valence_arousal"] = torch.cat([out["valence"], out["arousal"]], 1)
        if "valence_arousal" in out:
            places = out["valence_arousal"].clamp(-1, 1).tolist()
        rows = zip(pairs, out["labels"].softmax(1).numpy(), places, maps, strict=True)
        return tuple(Face(box, self.classes, share, *place, each) for (_, box), share, place, each in rows)


def _named(out: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return out if isinstance(out, dict) else {"labels": out}


def _squared(picture: np.ndarray, box: tuple[int, int, int, int]) -> Box:
    x, y, width, height = box
    middle, side, (tall, wide) = (x + width / 2, y + height / 2), max(width, height), picture.shape[1:]
    if min(width, height) < 1 or not (0 <= middle[0] < wide and 0 <= middle[1] < tall):
        raise ValueError(f"box is (x, y, width, height) in pixels of the image, not {tuple(box)}")
    return Box(round(middle[0] - side / 2), round(middle[1] - side / 2), round(side))


def pixels(source: Source, color: str = "rgb") -> np.ndarray:
    """Return an image as uint8 ``[3, H, W]`` of RGB, or raise images.PictureError."""
    if color not in ("rgb", "bgr"):
        raise ValueError(f"color is 'rgb' or 'bgr', not {color!r}")
    if isinstance(source, Image.Image):
        content = io.BytesIO()
        ImageOps.exif_transpose(source).save(content, "TIFF")  # keeps every depth and mode
        source = content.getvalue()
    if isinstance(source, str | Path):
        source = Path(source).expanduser()
        if source.is_dir() or (glob.has_magic(str(source)) and not source.exists()):
            what = "is a folder" if source.is_dir() else "is a pattern"
            advice = "give it to Predictor.images or predict"
            raise images.PictureError(str(source), f"{what}, not an image", advice)
    if isinstance(source, Path | bytes):
        return images.read(source, color=True)
    kind, shape = getattr(source, "dtype", type(source).__name__), getattr(source, "shape", ())
    if kind != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and 3 in (shape[0], shape[2]))):
        advice = "give uint8 [H, W], [3, H, W] or [H, W, 3]"
        raise images.PictureError("array", f"{kind} {list(shape)} is no image", advice)
    array = np.repeat(source[None], 3, axis=0) if len(shape) == 2 else source
    array = array.transpose(2, 0, 1) if shape[-1] == 3 and len(shape) == 3 else array
    if min(array.shape[1:]) < images.MIN_SIDE:
        size = f"{array.shape[2]} x {array.shape[1]}"
        raise images.PictureError("array", f"{size} pixels are too small for a face", "use a larger image")
    return np.ascontiguousarray(array if color == "rgb" else array[::-1])


def image_files(word: str | Path) -> list[Path]:
    """Return the images that a word means: a file, those in a folder, or those that fit a pattern."""
    path = Path(word).expanduser()
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in ENDINGS)
    elif path.exists() or not glob.has_magic(str(path)):
        return [path]  # what is missing is named when it is read
    else:
        found = sorted(Path(each) for each in glob.glob(str(path), recursive=True) if Path(each).is_file())
    if not found:
        raise FileNotFoundError(f"{path}: no image there; images end in {' '.join(ENDINGS)}")
    return found


def runs(root: str | Path = "runs") -> list[Path]:
    """Return the folders of the trainings that were kept, the latest first."""
    found = [path for path in Path(root).glob("*/best.safetensors") if path.with_name("config.json").exists()]
    return [path.parent for path in sorted(found, key=lambda path: -path.stat().st_mtime)]
