"""How many frames a second the predictor reads: one moving face at 640 x 480.

    python -m benchmarks.predictor [--faces 300 --data FOLDER]

A frame is decoded, searched, read and drawn on. ``jpeg`` decodes files as the browser's camera sends them,
``video`` an MJPEG film by OpenCV. The whole frame is searched once in ten frames, in between only around the
face, so the slowest frames are given besides the median. With ``--faces``, also which share of real faces is
found: Muxspace's, 180 pixels wide, pasted one by one into noise. Writes data/results/predictor_speed.json.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import records
from helpers import emotions, faces, images, models, predictor

SIZE, SIDE, WARM_UP = (480, 640), 180, 20
Frames = Iterator[tuple[np.ndarray, float]]  # frames [3, H, W] with their times in seconds


def frames(num: int) -> Iterator[np.ndarray]:
    """Yield frames of a drawn face that wanders and changes, uint8 ``[3, H, W]``."""
    rng = np.random.default_rng(0)
    back = rng.integers(60, 190, (12, 16), dtype=np.uint8)
    back = np.asarray(Image.fromarray(back).resize(SIZE[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
    row = torch.zeros(16, len(faces.ACTION_UNITS))
    row[:, faces.ACTION_UNITS.index("AU12")] = torch.linspace(0, 1, 16)
    shown = faces.render(row, size=SIDE).numpy()
    for i in range(num):
        frame = (back + rng.normal(0, 3, SIZE)).clip(0, 255).astype(np.uint8)
        top, left = int(140 + 90 * np.sin(i / 25)), int(220 + 170 * np.sin(i / 40))
        frame[top : top + SIDE, left : left + SIDE] = shown[abs(i % 31 - 15)]
        yield np.repeat(frame[None], 3, axis=0)


def measure(reader: predictor.Predictor, source: Frames) -> dict[str, float]:
    """Return frames a second and the milliseconds of a frame, the next one's decoding included."""
    stream, each, found = reader.stream(), [], 0
    start, cpu = time.perf_counter(), time.process_time()
    for number, (frame, seconds) in enumerate(source):
        reading = stream.next(frame, seconds)
        reading.annotated()
        now = time.perf_counter()
        if number < WARM_UP:
            cpu = time.process_time()
        else:
            each.append(1000 * (now - start))
            found += len(reading.faces) == 1
        start = now
    low, median, high = np.quantile(each, [0.05, 0.5, 0.95])
    return {
        "frames_a_second": 1000 / float(np.mean(each)),
        "cpu_milliseconds_a_frame": 1000 * (time.process_time() - cpu) / len(each),
        "milliseconds_a_frame": float(median),
        "p5": float(low),
        "p95": float(high),
        "with_its_face": found / len(each),
    }


def sources(shown: list[np.ndarray], folder: Path) -> Iterator[tuple[str, Frames]]:
    """Yield frames as the browser's camera sends them, and as a film."""
    import cv2

    files, path = [], folder / "face.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, SIZE[::-1])
    for frame in shown:
        buffer = io.BytesIO()
        Image.fromarray(frame.transpose(1, 2, 0)).save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
        writer.write(np.ascontiguousarray(frame.transpose(1, 2, 0)[..., ::-1]))
    writer.release()
    yield "jpeg", ((images.read(file, color=True), i / 30) for i, file in enumerate(files))
    yield "video", predictor.video_frames(path)


def share_found(data: str, num: int) -> dict[str, float]:
    """Return which share of real faces is found in an image of noise, and the false positives an image."""
    rng, detector, result = np.random.default_rng(0), predictor.Detector(), {"found": 0.0, "false": 0.0}
    paths = sorted((Path(data) / "muxspace" / "images").iterdir())
    for i in rng.permutation(len(paths))[:num]:
        scene, corner = rng.integers(60, 190, SIZE, dtype=np.uint8), rng.integers(0, np.array(SIZE) - SIDE)
        scene[corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE] = images.read(paths[i], SIDE)
        hits = [overlap(box, *corner) > 0.5 for box in detector.find(scene)]
        result["found"] += any(hits) / num
        result["false"] += (len(hits) - any(hits)) / num
    return result


def overlap(box: predictor.Box, top: int, left: int) -> float:
    """Return intersection over union of a box and a square of ``SIDE``."""
    high = min(box.top + box.side, top + SIDE) - max(box.top, top)
    wide = min(box.left + box.side, left + SIDE) - max(box.left, left)
    both = max(0, high) * max(0, wide)
    return both / (SIDE**2 + box.side**2 - both)


def main() -> None:
    """Measure, print a table and keep a record."""
    options = records.parser(__doc__, frames=320, faces=0).parse_args()
    torch.manual_seed(options.seed)
    reader = predictor.Predictor(models.create("face-cnn", 7, stem="unshuffle"), emotions.FER7)
    record, shown = records.circumstances(options) | {"size": SIZE}, list(frames(options.frames))
    with tempfile.TemporaryDirectory() as folder:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for name, source in sources(shown, Path(folder)):
                record[f"{name}, threads: {threads}"] = measure(reader, source)
                print(f"{name}, threads: {threads}", record[f"{name}, threads: {threads}"], flush=True)
    if options.faces:
        record["real faces"] = share_found(options.data, options.faces)
        print(record["real faces"])
    records.write("predictor_speed", record)


if __name__ == "__main__":
    main()
