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

from helpers import batches, emotions, files, gradcam, images, one_of, plotting, runtime, training, weights
from helpers.detector import Box, Detector, Tracker, camera_frames, video_frames

Source = str | Path | bytes | np.ndarray | Image.Image
"""An image: a path, the content of a file, uint8 ``[H, W]``, ``[3, H, W]`` or ``[H, W, 3]``, or Pillow's."""
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
NO_FACE = "no face found: it must be upright and look at the camera; of a close-up take all of it (--whole)"
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
        found = {} if self.number is None else {"number": self.number}
        found |= {"box": self.box._asdict(), "label": self.label}
        found["distribution"] = {name: round(share, 4) for name, share in shares}
        if self.valence is not None:
            found |= {"valence": round(self.valence, 3), "arousal": round(self.arousal, 3)}
        return found

    def __str__(self) -> str:
        known = self.valence is not None
        place = f", valence {self.valence:+.2f}, arousal {self.arousal:+.2f}" if known else ""
        return f"{self.label} {self.probability:.2f}{place}"


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
            y = max(0, top - high - 4)
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
        boxes, faces = self.tracker.update(images.grey(picture)), []
        for number, face in zip(boxes, self.read(picture, list(boxes.values())), strict=True):
            now = np.append(face.distribution, np.array([face.valence, face.arousal], float))  # None is NaN
            then, before = self._before.get(number, (-math.inf, now))
            kept = math.exp(-max(0.0, seconds - then) / self.memory) if self.memory > 0 else 0.0
            now = kept * before + (1 - kept) * now
            self._before[number] = seconds, now
            place = (None, None) if face.valence is None else now[-2:].tolist()
            smooth = {"distribution": now[:-2].astype(np.float32), "valence": place[0], "arousal": place[1]}
            faces.append(replace(face, number=number, **smooth))
        return Reading(picture, tuple(sorted(faces, key=lambda face: -face.box.side)), seconds)


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

        ``run`` is the folder that ``training.fit(..., run=...)`` left, or its file of weights, None for the
        weights that come with the workbook; ``model`` is a network of the same shape, where it was not made
        by ``models.create``; options are ``detector`` and ``device``.
        """
        if run is None or str(run) in weights.OWN:
            run = weights.own_file(str(run or weights.OWN[0]))
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
        height, width = picture.shape[1:]
        if whole:  # the central square, as the training sets keep it
            side = min(height, width)
            box = (width - side) // 2, (height - side) // 2, side, side
        boxes = [_squared(picture, box)] if box else self.detector.find(images.grey(picture))
        return Reading(picture, self._faces(picture, boxes, heat))

    def images(self, sources: Sequence[Source] | str | Path, **options: Any) -> list[Reading]:
        """Return the readings of images, of those in a folder, or of a pattern such as "photos/*.jpg".

        Options are those of :meth:`image`.
        """
        sources = image_files(sources) if isinstance(sources, str | Path) else sources
        return [self.image(source, **options) for source in sources]

    def squares(self, source: Source) -> np.ndarray:
        """Return an image's faces as the network sees them, uint8 ``[F, size, size]``, or RGB."""
        picture = pixels(source)
        return self._squares(picture, self.detector.find(images.grey(picture)))

    def stream(self, memory: float = 0.3, *, heat: bool = False) -> Stream:
        """Return what reads frame after frame; see :class:`Stream`."""
        return Stream(lambda picture, boxes: self._faces(picture, boxes, heat), memory)

    def video(self, path: str | Path, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield the reading of each frame of a video file; ImportError without OpenCV, else VideoError."""
        return itertools.starmap(self.stream(memory, heat=heat).next, video_frames(path))

    def camera(self, index: int = 0, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield the reading of frame after frame of a camera until nobody asks for more; as :meth:`video`."""
        return itertools.starmap(self.stream(memory, heat=heat).next, camera_frames(index))

    def export_onnx(self, path: str | Path) -> float:
        """Write the network for ONNX, and return how far its outputs there are from those here, at most.

        Input is "images", normalised float32 ``[N, C, size, size]``; the outputs are named as the heads.
        """
        try:
            for name in ("onnx", "onnxscript", "onnxruntime"):
                runner = importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"{error.name} is missing: pip install onnx onnxscript onnxruntime") from None
        model, buffer = copy.deepcopy(self.model).cpu(), io.BytesIO()
        shape = (8, 3 if self.color else 1, self.image_size, self.image_size)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            here = _named(model(inputs))
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # the exporter reports its every step
            warnings.simplefilter("ignore")
            how = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("faces", min=1)},)}
            how |= {"input_names": ["images"], "output_names": list(here)}
            torch.onnx.export(model, (inputs,), **how).save(buffer)
        session = runner.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
        there = session.run(list(here), {"images": inputs.numpy()})
        furthest = float(max(np.abs(a - b.numpy()).max() for a, b in zip(there, here.values(), strict=True)))
        if not furthest <= AGREEMENT:
            raise ValueError(f"the exported network differs by {furthest:.1g}, more than {AGREEMENT:g}")
        files.write(path, buffer.getvalue())
        return furthest

    def _squares(self, picture: np.ndarray, boxes: list[Box]) -> np.ndarray:
        found = [images.cut(picture, *box, self.image_size, self.color) for box in boxes]
        return np.stack(found) if found else np.empty((0, self.image_size, self.image_size), dtype=np.uint8)

    def _faces(self, picture: np.ndarray, boxes: list[Box], heat: bool) -> tuple[Face, ...]:
        if not boxes:
            return ()
        squares = torch.from_numpy(self._squares(picture, boxes)).to(self.where)
        inputs = batches.normalise(squares if self.color else squares[:, None])
        with torch.inference_mode():
            out = {name: values.float().cpu() for name, values in _named(self.model(inputs)).items()}
        maps, places = [None] * len(boxes), [(None, None)] * len(boxes)
        if heat:
            head = "labels" if len(out) > 1 else None
            maps = gradcam.grad_cam(self.model, gradcam.last_map(self.model), inputs, head=head).cpu().numpy()
        if "valence" in out and "arousal" in out:
            out["valence_arousal"] = torch.cat([out["valence"], out["arousal"]], 1)
        if "valence_arousal" in out:
            places = out["valence_arousal"].clamp(-1, 1).tolist()
        rows = zip(boxes, out["labels"].softmax(1).numpy(), places, maps, strict=True)
        return tuple(Face(box, self.classes, share, *place, each) for box, share, place, each in rows)


def _named(out: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return out if isinstance(out, dict) else {"labels": out}


def _squared(picture: np.ndarray, box: tuple[int, int, int, int]) -> Box:
    (x, y, width, height), (tall, wide) = box, picture.shape[1:]
    across, down, side = x + width / 2, y + height / 2, max(width, height)
    if min(width, height) < 1 or not (0 <= across < wide and 0 <= down < tall):
        raise ValueError(f"box is (x, y, width, height) in pixels of the image, not {tuple(box)}")
    return Box(round(across - side / 2), round(down - side / 2), round(side))


def pixels(source: Source, color: str = "rgb") -> np.ndarray:
    """Return an image as uint8 ``[3, H, W]`` of RGB, or raise images.PictureError."""
    one_of("color", color, ("rgb", "bgr"))
    if isinstance(source, str | Path) and image_files(source) != [Path(source).expanduser()]:
        what = "is a folder or a pattern, not an image"
        raise images.PictureError(str(source), what, "give it to Predictor.images or predict")
    if isinstance(source, Image.Image):
        content = io.BytesIO()
        ImageOps.exif_transpose(source).save(content, "TIFF")  # keeps every depth and mode
        source = content.getvalue()
    if isinstance(source, str | Path | bytes):
        return images.read(source, color=True)
    kind, shape = getattr(source, "dtype", type(source).__name__), getattr(source, "shape", ())
    if kind != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and 3 in (shape[0], shape[2]))):
        advice = "give uint8 [H, W], [3, H, W] or [H, W, 3]"
        raise images.PictureError("array", f"{kind} {list(shape)} is no image", advice)
    array = np.repeat(source[None], 3, axis=0) if len(shape) == 2 else source
    array = array.transpose(2, 0, 1) if len(shape) == 3 and shape[2] == 3 else array
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
