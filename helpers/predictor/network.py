"""A trained network with all it needs to read pictures that it has not seen."""

from __future__ import annotations

import importlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import batches, did_you_mean, files, gradcam, images, models, runtime, training
from helpers.predictor import streams
from helpers.predictor.detection import Box, Detector, whole
from helpers.predictor.reading import Face, Reading

Source = str | Path | bytes | np.ndarray
"""A picture: a path, the content of a file, or uint8 ``[H, W]``, ``[3, H, W]`` or ``[H, W, 3]``."""

AGREEMENT = 1e-4
"""How far an exported network's outputs may be from the original's."""

_FEW = 8
"""So many faces are read on one thread: a frame's must not wait for a second core that is busy."""


class Predictor:
    """Reads faces with a trained network.

    Args:
        model: the network; its output is logits ``[B, K]``, or a dict with "labels" and, where it gives
            them, "valence_arousal" ``[B, 2]`` or "valence" and "arousal" ``[B, 1]``.
        classes: names of the K expressions.
        image_size: side of the pictures that it was trained on, in pixels.
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
        run: str | Path,
        model: nn.Module | None = None,
        *,
        detector: Detector | None = None,
        device: str = "auto",
    ) -> Predictor:
        """Return the predictor of a training that was kept.

        Args:
            run: the folder that ``training.fit(..., run=...)`` left.
            model: a network of the same shape, where it was not made by ``models.create``.
            detector: what finds the faces.
            device: where to compute.

        Raises:
            FileNotFoundError: there is no finished epoch in the folder.
            ValueError: the record does not say enough, or the weights are damaged or another network's.
        """
        folder = Path(run)
        if not (folder / "best.safetensors").is_file() or not (folder / "config.json").is_file():
            raise FileNotFoundError(f"no trained network in {folder}{_others(folder)}")
        record = _record(folder)
        faces, model = record["faces"], _rebuilt(folder, record["model"]) if model is None else model
        training.load_weights(model, folder / "best.safetensors")
        color = faces["channels"] == 3
        return cls(model, faces["classes"], faces["image_size"], color, detector=detector, device=device)

    def image(self, source: Source, *, whole: bool = False, heat: bool = False) -> Reading:
        """Return what is to be seen in one picture.

        Args:
            source: the picture.
            whole: the picture is one face, cut out already; look for none.
            heat: add to each face where the network found what speaks for its label (Grad-CAM).

        Raises:
            images.PictureError: it is no picture that can be used.
        """
        return self.images([source], whole=whole, heat=heat)[0]

    def images(self, sources: Sequence[Source], *, whole: bool = False, heat: bool = False) -> list[Reading]:
        """Return what is to be seen in several pictures; the network sees all their faces at once.

        Args:
            sources: the pictures.
            whole: as for :meth:`image`.
            heat: as for :meth:`image`.

        Raises:
            images.PictureError: one of them is no picture that can be used.
        """
        pictures = [pixels(source) for source in sources]
        boxes = [self._boxes(picture, whole) for picture in pictures]
        squares = [self._square(p, box) for p, its in zip(pictures, boxes, strict=True) for box in its]
        found = iter(self._read(squares, [box for its in boxes for box in its], heat))
        return [Reading(p, tuple(next(found) for _ in its)) for p, its in zip(pictures, boxes, strict=True)]

    def squares(self, source: Source) -> np.ndarray:
        """Return the faces of a picture as the network sees them, the largest first.

        Args:
            source: the picture.

        Returns:
            uint8 ``[F, size, size]``, or ``[F, 3, size, size]`` in colour.

        Raises:
            images.PictureError: it is no picture that can be used.
        """
        picture = pixels(source)
        found = [self._square(picture, box) for box in self._boxes(picture, False)]
        shape = (3, self.image_size, self.image_size) if self.color else (self.image_size, self.image_size)
        return np.stack(found) if found else np.empty((0, *shape), dtype=np.uint8)

    def stream(self, memory: float = 0.3, *, heat: bool = False) -> streams.Stream:
        """Return what reads frame after frame; see :class:`streams.Stream`.

        Args:
            memory: seconds after which an impression has faded to a third.
            heat: as for :meth:`image`.
        """

        def read(picture: np.ndarray, boxes: list[Box]) -> list[Face]:
            return self._read([self._square(picture, box) for box in boxes], boxes, heat)

        return streams.Stream(read, memory)

    def video(self, path: str | Path, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield what is to be seen in each frame of a video file.

        Args:
            path: the file.
            memory: as for :meth:`stream`.
            heat: as for :meth:`image`.

        Raises:
            ImportError: OpenCV is not installed.
            VideoError: it is no video that can be read.
        """
        stream = self.stream(memory, heat=heat)
        return (stream.next(*frame) for frame in streams.video_frames(path))

    def camera(self, index: int = 0, memory: float = 0.3, *, heat: bool = False) -> Iterator[Reading]:
        """Yield what a camera sees, frame after frame, until nobody asks for more.

        Args:
            index: which camera, from 0.
            memory: as for :meth:`stream`.
            heat: as for :meth:`image`.

        Raises:
            ImportError: OpenCV is not installed.
            VideoError: there is no such camera, or it went away.
        """
        stream = self.stream(memory, heat=heat)
        return (stream.next(*frame) for frame in streams.camera_frames(index))

    def outputs(self, squares: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the network puts out, float32 ``[N, ...]`` by head; a single head is called "labels".

        Args:
            squares: uint8 ``[N, size, size]``, or ``[N, 3, size, size]`` in colour.
        """
        with torch.inference_mode():
            out = self.model(self._normalised(squares))
        named = out if isinstance(out, dict) else {"labels": out}
        return {name: values.float().cpu().numpy() for name, values in named.items()}

    def export_onnx(self, path: str | Path) -> float:
        """Write the network for ONNX, and return how far its outputs there are from those here, at most.

        Args:
            path: the file. Its input "images" is normalised float32 ``[N, C, size, size]``, as
                ``batches.normalise`` makes it; its outputs have the names of the heads.

        Raises:
            ImportError: onnx, onnxscript or onnxruntime is not installed.
            ValueError: the outputs differ by more than ``AGREEMENT``; nothing is written.
        """
        runtime_ = [_onnx(name) for name in ("onnx", "onnxscript", "onnxruntime")][-1]
        generator = torch.Generator().manual_seed(0)
        shape = (8, 3 if self.color else 1, self.image_size, self.image_size)
        pictures = torch.randn(shape, generator=generator)
        content, names = _exported(self.model.to("cpu"), pictures)
        session = runtime_.InferenceSession(content, providers=["CPUExecutionProvider"])
        there = dict(zip(names, session.run(names, {"images": pictures.numpy()}), strict=True))
        with torch.inference_mode():
            here = _named(self.model(pictures))
        self.model.to(self.where)
        furthest = max(float(np.abs(there[name] - here[name].numpy()).max()) for name in names)
        if not furthest <= AGREEMENT:
            raise ValueError(f"the exported network differs by {furthest:.1g}, more than {AGREEMENT:g}")
        with files.replacing(path) as file:
            file.write(content)
        return furthest

    def _boxes(self, picture: np.ndarray, as_it_is: bool) -> list[Box]:
        return [whole(*picture.shape[1:])] if as_it_is else self.detector.find(images.grey(picture))

    def _square(self, picture: np.ndarray, box: Box) -> np.ndarray:
        return images.cut(picture, *box, self.image_size, self.color)

    def _normalised(self, squares: np.ndarray) -> Tensor:
        pictures = batches.normalise(torch.from_numpy(squares).to(self.where))
        return pictures if pictures.ndim == 4 else pictures[:, None]

    def _read(self, squares: list[np.ndarray], boxes: list[Box], heat: bool) -> list[Face]:
        if not squares:
            return []
        with runtime.threads(1) if len(squares) <= _FEW else nullcontext():
            out = self.outputs(np.stack(squares))
            maps = self._heat(np.stack(squares)) if heat else [None] * len(squares)
        distributions = torch.from_numpy(out["labels"]).softmax(1).numpy()
        places = _places(out, len(squares))
        rows = zip(boxes, distributions, places, maps, strict=True)
        return [Face(box, self.classes, p, *place, heat_map) for box, p, place, heat_map in rows]

    def _heat(self, squares: np.ndarray) -> np.ndarray:
        pictures = self._normalised(squares)
        head = "labels" if isinstance(self.model(pictures[:1]), dict) else None
        maps = gradcam.grad_cam(self.model, gradcam.last_map(self.model), pictures, head=head)
        return maps.cpu().numpy()


def pixels(source: Source) -> np.ndarray:
    """Return a picture as uint8 ``[3, H, W]`` of RGB.

    Args:
        source: see ``Source``.

    Raises:
        images.PictureError: it is no picture that can be used.
    """
    if not isinstance(source, np.ndarray):
        return images.read(source, color=True)
    sides = source.shape[:2] if source.shape[2:] == (3,) else source.shape[-2:]
    known = source.ndim == 2 or (source.ndim == 3 and 3 in (source.shape[0], source.shape[2]))
    if source.dtype != np.uint8 or not known:
        reason = f"{source.dtype} {list(source.shape)} is no picture"
        raise images.PictureError("array", reason, "give uint8 [H, W], [3, H, W] or [H, W, 3]")
    if min(sides) < images.MIN_SIDE:
        reason = f"{sides[1]} x {sides[0]} pixels are too small for a face"
        raise images.PictureError("array", reason, "use a larger picture")
    if source.ndim == 2:
        return np.repeat(source[None], 3, axis=0)
    return np.ascontiguousarray(source.transpose(2, 0, 1)) if source.shape[2] == 3 else source


def runs(root: str | Path = "runs") -> list[Path]:
    """Return the folders of the trainings that were kept, the latest first.

    Args:
        root: the folder that holds them.
    """
    found = [path for path in Path(root).glob("*/best.safetensors") if path.with_name("config.json").exists()]
    return [path.parent for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


def _others(folder: Path) -> str:
    known = [path.name for path in runs(folder.parent)]
    if not known:
        return "; run notebook 03 first, which leaves one in runs/"
    return f"{did_you_mean(folder.name, known)}; trained ones there: {', '.join(known)}"


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = record["faces"]["classes"] and record["faces"]["image_size"] and record["faces"]["channels"]
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{folder / 'config.json'} does not say what was learned; train it again")
    return record


def _rebuilt(folder: Path, spec: dict[str, Any]) -> nn.Module:
    options = {name: value for name, value in spec.items() if name not in ("class", "weights")}
    if "name" not in options:
        kind = spec.get("class", "network")
        raise ValueError(f"{folder} holds a {kind} that models.create did not make; give it as model=")
    return models.create(**options)


def _places(out: dict[str, np.ndarray], num: int) -> list[tuple[float | None, float | None]]:
    if "valence_arousal" in out:
        values = out["valence_arousal"]
    elif "valence" in out and "arousal" in out:
        values = np.concatenate([out["valence"].reshape(num, 1), out["arousal"].reshape(num, 1)], axis=1)
    else:
        return [(None, None)] * num
    return [(float(valence), float(arousal)) for valence, arousal in values.clip(-1, 1)]


def _named(out: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return out if isinstance(out, dict) else {"labels": out}


def _exported(model: nn.Module, pictures: Tensor) -> tuple[bytes, list[str]]:
    with torch.inference_mode():
        names = list(_named(model(pictures)))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # the exporter reports its every step
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (pictures,),
            dynamo=True,
            input_names=["images"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("faces", min=1)},),
        )
    program.save(buffer)
    return buffer.getvalue(), names


def _onnx(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is missing: pip install onnx onnxscript onnxruntime") from None
