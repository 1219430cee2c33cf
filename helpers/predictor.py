"""Faces from outside: an image, a video or a camera in; expressions, places and heat maps out.

``Predictor.load("runs/03_custom_cnn_synthetic").image("me.jpg")`` finds the faces with a detector that comes
with scikit-image, cuts them out as the training images were cut (:mod:`helpers.images`), and returns a
:class:`Reading`. What is predicted is about an image, not about a person: see the README before you point it
at anybody. Arrays are RGB; say ``color="bgr"`` for OpenCV's.
"""

from __future__ import annotations

import copy
import functools
import glob
import importlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor, nn

from helpers import batches, emotions, files, gradcam, images, plotting, runtime, training, video
from helpers.detector import Box, Detector

Source = str | Path | bytes | np.ndarray | Image.Image
"""An image: a path, the content of a file, uint8 ``[H, W]``, ``[3, H, W]`` or ``[H, W, 3]``, or Pillow's."""
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
NO_FACE = (
    "no face found: it must be upright and look at the camera; of a close-up take the whole image (--whole)"
)
WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "weights"
AGREEMENT = 1e-4  # how far an exported network's outputs may be from the original's


@dataclass(frozen=True)
class Face:
    """One face and what the network predicts: ``distribution`` float32 ``[K]`` over ``classes``, and more.

    ``valence`` and ``arousal`` in [-1, 1], None where the network does not give them; ``heat_map`` float32
    ``[size, size]`` over the box, where asked for; ``number``: which face of a video this is.
    """

    box: Box
    classes: tuple[str, ...]
    distribution: np.ndarray
    valence: float | None = None
    arousal: float | None = None
    heat_map: np.ndarray | None = None
    number: int | None = None

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
        numbers = {} if self.number is None else {"number": self.number}
        places = {"valence": self.valence, "arousal": self.arousal}
        shares = zip(self.classes, self.distribution, strict=True)
        return numbers | {
            "box": {name: int(value) for name, value in self.box._asdict().items()},
            "label": self.label,
            "distribution": {name: round(float(share), 4) for name, share in shares},
            **{name: round(value, 3) for name, value in places.items() if value is not None},
        }

    def __str__(self) -> str:
        place = (
            f", valence {self.valence:+.2f}, arousal {self.arousal:+.2f}" if self.valence is not None else ""
        )
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
            below = max(0, min(top + side - 1, image.height - high - 4))  # where there is no room above
            y = top - high - 4 if top >= high + 4 else below
            pen.rectangle((x, y, x + wide + 4, y + high + 4), fill=color)
            pen.text((x + 2, y + 1), str(face), fill="white", font=font)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def __str__(self) -> str:
        return "; ".join(map(str, self.faces)) or NO_FACE


class Stream:
    """Reads frame after frame of one scene; an impression fades to a third in ``memory`` seconds.

    ``read`` gives the faces of an image ``[3, H, W]`` and its boxes.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray, list[Box]], list[Face]],
        memory: float = 0.3,
        tracker: video.Tracker | None = None,
    ) -> None:
        self.read, self.memory, self.tracker = read, memory, tracker or video.Tracker()
        self._before: dict[int, tuple[float, np.ndarray]] = {}

    def next(self, picture: np.ndarray, seconds: float) -> Reading:
        """Return the reading of the next frame, uint8 ``[3, H, W]``, and when it was taken."""
        boxes = self.tracker.update(images.grey(picture))
        found = self.read(picture, list(boxes.values())) if boxes else []
        faces = [self._smoothed(number, face, seconds) for number, face in zip(boxes, found, strict=True)]
        self._before = {number: self._before[number] for number in boxes}
        return Reading(picture, tuple(sorted(faces, key=lambda face: -face.box.side)), seconds)

    def _smoothed(self, number: int, face: Face, seconds: float) -> Face:
        placed = face.valence is not None
        now = np.append(face.distribution, [face.valence, face.arousal] if placed else [])
        if number in self._before and self.memory > 0:
            then, before = self._before[number]
            kept = math.exp(-max(0.0, seconds - then) / self.memory)
            now = kept * before + (1 - kept) * now
        self._before[number], num = (seconds, now), len(face.distribution)
        valence, arousal = map(float, now[num:]) if placed else (None, None)
        smooth = now[:num].astype(np.float32)
        return replace(face, distribution=smooth, valence=valence, arousal=arousal, number=number)


class Predictor:
    """Reads faces with a trained network.

    Args:
        model: the network; its output is logits ``[B, K]``, or a dict with "labels" and, where it gives
            them, "valence_arousal" ``[B, 2]`` or "valence" and "arousal" ``[B, 1]``.
        classes: names of the K expressions.
        image_size: side length of the images that it was trained on, in pixels.
        color: it was trained on RGB, not on grey.
        detector: what finds the faces.
        device: where to compute: "auto", "cpu", "cuda" or "mps".
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
    def load(
        cls,
        run: str | Path | None = None,
        model: nn.Module | None = None,
        *,
        detector: Detector | None = None,
        device: str = "auto",
    ) -> Predictor:
        """Return the predictor of a training that was kept.

        Args:
            run: the folder that ``training.fit(..., run=...)`` left, or its file of weights; None: the
                weights that come with the workbook.
            model: a network of the same shape, where it was not made by ``models.create``.
            detector: what finds the faces.
            device: where to compute.

        Raises:
            FileNotFoundError: there is no trained network.
            ValueError: the record does not say enough, or the weights are damaged or another network's.
        """
        if run is None and not (run := next(WEIGHTS.glob("*.safetensors"), None)):
            advice = "train a network (notebook 03) and name its folder in runs/"
            raise FileNotFoundError(f"no weights in {WEIGHTS} yet: {advice}")
        kept = training.Run.open(run)
        faces = kept.record.get("faces", {})
        if not faces.get("classes") or not faces.get("image_size") or faces.get("channels") not in (1, 3):
            raise ValueError(f"{run or kept.best} does not say what it was trained on; train it again")
        model = kept.model if model is None else kept.load(model)
        color = faces["channels"] == 3
        return cls(model, faces["classes"], faces["image_size"], color, detector=detector, device=device)

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

        Raises:
            images.PictureError: it is no image that can be used.
        """
        picture = pixels(source, color)
        boxes = self._boxes(picture, whole) if box is None else [_squared(picture, box)]
        return Reading(picture, tuple(self._read(picture, boxes, heat)))

    def images(
        self, sources: Sequence[Source] | str | Path, *, whole: bool = False, heat: bool = False
    ) -> list[Reading]:
        """Return the readings of several images; the network sees all their faces at once.

        Args:
            sources: the images; or a folder of them, or a pattern such as "photos/*.jpg".
            whole: as for :meth:`image`.
            heat: as for :meth:`image`.

        Raises:
            images.PictureError: one of them is no image that can be used.
        """
        sources = image_files(sources) if isinstance(sources, str | Path) else sources
        pictures = [pixels(source) for source in sources]
        boxes = [self._boxes(picture, whole) for picture in pictures]
        squares = [self._square(p, box) for p, its in zip(pictures, boxes, strict=True) for box in its]
        found = iter(self._predicted(squares, [box for its in boxes for box in its], heat))
        return [Reading(p, tuple(next(found) for _ in its)) for p, its in zip(pictures, boxes, strict=True)]

    def squares(self, source: Source) -> np.ndarray:
        """Return an image's faces as the network sees them, uint8 ``[F, size, size]``, or RGB."""
        picture = pixels(source)
        found = [self._square(picture, box) for box in self.detector.find(images.grey(picture))]
        shape = (
            (0, 3, self.image_size, self.image_size) if self.color else (0, self.image_size, self.image_size)
        )
        return np.stack(found) if found else np.empty(shape, dtype=np.uint8)

    def stream(self, memory: float = 0.3, *, heat: bool = False) -> Stream:
        """Return what reads frame after frame; see :class:`Stream`."""
        return Stream(functools.partial(self._read, heat=heat), memory)

    def video(self, path: str | Path, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield the reading of each frame of a video file.

        Args:
            path: the file.
            memory: seconds after which an impression has faded to a third.
            heat: as for :meth:`image`.

        Raises:
            ImportError: OpenCV is not installed.
            VideoError: it is no video that can be read.
        """
        stream = self.stream(memory, heat=heat)
        return (stream.next(*frame) for frame in video.video_frames(path))

    def camera(self, index: int = 0, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield the reading of frame after frame of a camera until nobody asks for more; as :meth:`video`."""
        stream = self.stream(memory, heat=heat)
        return (stream.next(*frame) for frame in video.camera_frames(index))

    def outputs(self, squares: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for uint8 squares, float32 ``[N, ...]`` by head; a single head is "labels"."""
        with torch.inference_mode():
            named = _named(self.model(self._normalised(squares)))
        return {name: values.float().cpu().numpy() for name, values in named.items()}

    def export_onnx(self, path: str | Path) -> float:
        """Write the network for ONNX, and return how far its outputs there are from those here, at most.

        Args:
            path: the file. Its input "images" is normalised float32 ``[N, C, size, size]``, as
                ``batches.normalise`` makes it; its outputs have the names of the heads.

        Raises:
            ImportError: onnx, onnxscript or onnxruntime is not installed.
            ValueError: the outputs differ by more than 1e-4; nothing is written.
        """
        onnxruntime = [_onnx(name) for name in ("onnx", "onnxscript", "onnxruntime")][-1]
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
        gaps = [np.abs(a - b.numpy()).max() for a, b in zip(there, here.values(), strict=True)]
        furthest = float(max(gaps))
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

    def _read(self, picture: np.ndarray, boxes: list[Box], heat: bool = False) -> list[Face]:
        return self._predicted([self._square(picture, box) for box in boxes], boxes, heat)

    def _normalised(self, squares: np.ndarray) -> Tensor:
        inputs = batches.normalise(torch.from_numpy(squares).to(self.where))
        return inputs if inputs.ndim == 4 else inputs[:, None]

    def _predicted(self, squares: list[np.ndarray], boxes: list[Box], heat: bool) -> list[Face]:
        if not squares:
            return []
        out, maps = self.outputs(np.stack(squares)), [None] * len(squares)
        if heat:
            layer, head = gradcam.last_map(self.model), "labels" if len(out) > 1 else None
            maps = gradcam.grad_cam(self.model, layer, self._normalised(np.stack(squares)), head=head)
            maps = maps.cpu().numpy()
        places = [(None, None)] * len(squares)
        if "valence" in out and "arousal" in out:
            out["valence_arousal"] = np.concatenate([out["valence"], out["arousal"]], axis=1)
        if "valence_arousal" in out:
            places = out["valence_arousal"].clip(-1, 1).tolist()
        shares = torch.from_numpy(out["labels"]).softmax(1).numpy()
        rows = zip(boxes, shares, places, maps, strict=True)
        return [Face(box, self.classes, share, *place, each) for box, share, place, each in rows]


def _named(out: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return out if isinstance(out, dict) else {"labels": out}


def _squared(picture: np.ndarray, box: tuple[int, int, int, int]) -> Box:
    x, y, width, height = box
    if min(width, height) < 1 or not (
        0 <= x + width / 2 < picture.shape[2] and 0 <= y + height / 2 < picture.shape[1]
    ):
        raise ValueError(f"box is (x, y, width, height) in pixels of the image, not {tuple(box)}")
    side = max(width, height)
    return Box(round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), round(side))


def pixels(source: Source, color: str = "rgb") -> np.ndarray:
    """Return an image as uint8 ``[3, H, W]`` of RGB, or raise images.PictureError."""
    if color not in ("rgb", "bgr"):
        raise ValueError(f"color is 'rgb' or 'bgr', not {color!r}")
    if isinstance(source, Image.Image):
        content = io.BytesIO()
        ImageOps.exif_transpose(source).save(content, "TIFF")  # keeps every depth and mode
        source = content.getvalue()
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir() or (glob.has_magic(str(path)) and not path.exists()):
            what = "is a folder" if path.is_dir() else "is a pattern"
            raise images.PictureError(
                str(path), f"{what}, not an image", "give it to Predictor.images or predict"
            )
        return images.read(path, color=True)
    if isinstance(source, bytes):
        return images.read(source, color=True)
    shape = list(getattr(source, "shape", ()))
    known = len(shape) == 2 or (len(shape) == 3 and 3 in (shape[0], shape[2]))
    if getattr(source, "dtype", None) != np.uint8 or not known:
        what = f"{getattr(source, 'dtype', type(source).__name__)} {shape} is no image"
        raise images.PictureError("array", what, "give uint8 [H, W], [3, H, W] or [H, W, 3]")
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


def _onnx(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is missing: pip install onnx onnxscript onnxruntime") from None
