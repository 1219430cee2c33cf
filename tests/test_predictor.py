"""Faces from outside: found, cut as in training, followed over time; and input that is no face."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
import types
from unittest import mock

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from helpers import batches, cli, detector, faces, images, losses, metrics, models, predictor, training
from helpers import weights as own_weights
from helpers.cli import predict
from helpers.detector import Box, Detector, Tracker, VideoError
from helpers.predictor import Predictor, Stream

SIDE = 160


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Twenty-four drawn faces of 160 pixels."""
    return np.asarray(faces.sample(24, seed=11, size=SIDE).images)


@pytest.fixture(scope="module")
def plain() -> list[np.ndarray]:
    """Three average faces, seen from the front."""
    amounts = (0.0, 0.5, 1.0)
    return [np.asarray(faces.render({"AU6": 0.7, "AU12": amount}, size=SIDE)[0]) for amount in amounts]


@pytest.fixture(scope="module")
def run(drawn_faces, tmp_path_factory):
    """The folder of a network that was trained for two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    torch.manual_seed(0)
    net = models.create("face-cnn", 7, widths=(8, 16, 16, 32), head_width=16)
    train, validation, _ = drawn_faces.splits(seed=0)
    config = training.Config(epochs=2, batch_size=32, precision="float32")
    scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
    training.fit(net, train, validation, losses.on_labels(), scores, config, run=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def reader(run) -> Predictor:
    return Predictor.load(run)


def scene(*placed: tuple[np.ndarray, int, int], size: tuple[int, int] = (480, 640)) -> np.ndarray:
    """Return a smooth grey image with faces put at (face, top, left)."""
    across = np.linspace(90, 150, size[1])[None] + np.linspace(-20, 20, size[0])[:, None]
    picture = across.astype(np.uint8)
    for face, top, left in placed:
        picture[top : top + face.shape[0], left : left + face.shape[1]] = face
    return picture


def overlap(box: Box, top: int, left: int, side: int = SIDE) -> float:
    """Return intersection over union with a square."""
    high = max(0, min(box.top + box.side, top + side) - max(box.top, top))
    wide = max(0, min(box.left + box.side, left + side) - max(box.left, left))
    return high * wide / (box.side**2 + side**2 - high * wide)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_loaded_run_predicts_as_the_network_did(run, reader, drawn_faces):
    _, validation, _ = drawn_faces.splits(seed=0)
    with np.load(run / "predictions.npz") as kept:
        wanted = torch.from_numpy(kept["output"]).softmax(1).numpy()
    for each in (reader, Predictor.load(run / "best.safetensors")):
        readings = each.images(list(validation.images), whole=True)
        found = np.stack([reading.faces[0].distribution for reading in readings])
        assert found == pytest.approx(wanted, abs=1e-5)
        assert readings[0].faces[0].classes == drawn_faces.classes


def test_any_kind_of_file_is_cut_as_the_training_images_were(reader):
    small = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    rgb, exif = Image.fromarray(small).resize((90, 120), Image.Resampling.BICUBIC), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    cmyk, turned = encoded(rgb.convert("CMYK"), "JPEG"), encoded(rgb, "JPEG", exif=exif)
    for content in (cmyk, turned, encoded(rgb.convert("RGBA"), "WEBP")):
        trained_on = images.read(content, reader.image_size)
        with torch.inference_mode():
            logits = reader.model(batches.normalise(torch.from_numpy(trained_on))[None, None])
        for source in (content, Image.open(io.BytesIO(content))):
            [face] = reader.image(source, whole=True).faces
            assert face.distribution == pytest.approx(logits.softmax(1)[0].numpy(), abs=1e-6)


def test_a_program_gives_its_own_box_and_opencvs_order(drawn):
    net = models.create("face-cnn", 7, 3, widths=(8, 8, 8, 8), dropout=0.0)
    reader = Predictor(net, tuple("abcdefg"), color=True)
    frame = np.random.default_rng(2).integers(0, 256, (100, 140, 3), dtype=np.uint8)
    reading = reader.image(frame, box=(30, 20, 40, 60))
    assert reading.faces[0].box == (20, 20, 60)
    [whole] = reader.image(np.ascontiguousarray(frame[20:80, 20:80]), whole=True).faces
    assert reading.faces[0].distribution == pytest.approx(whole.distribution, abs=1e-5)
    [turned] = reader.image(frame[..., ::-1], box=(30, 20, 40, 60), color="bgr").faces
    assert np.array_equal(turned.distribution, reading.faces[0].distribution)
    for box in ((0, 0, 0, 5), (300, 20, 10, 10)):
        with pytest.raises(ValueError, match=r"box is \(x, y, width, height\)"):
            reader.image(frame, box=box)
    with pytest.raises(ValueError, match="did you mean 'rgb'"):
        reader.image(frame, color="rbg")


def test_a_network_with_heads_gives_the_place_and_a_heat_map(drawn):
    torch.manual_seed(1)
    net = models.create("face-cnn", {"labels": 3, "valence": 1, "arousal": 1}, widths=(8, 8, 8, 8))
    [face] = Predictor(net, ("a", "b", "c")).image(drawn[0], whole=True, heat=True).faces
    with torch.inference_mode():
        out = net(batches.normalise(torch.from_numpy(images.resize(drawn[:1], 48)))[:, None])
    assert face.valence == pytest.approx(out["valence"].item(), abs=1e-5)
    assert face.arousal == pytest.approx(out["arousal"].item(), abs=1e-5)
    assert face.heat_map.shape == (48, 48)
    assert {"valence", "arousal"} <= set(face.record())


def test_faces_are_found_where_they_are(drawn):
    rng = np.random.default_rng(0)
    hits = []
    for face in drawn:
        top, left = int(rng.integers(0, 320)), int(rng.integers(0, 480))
        found = Detector().find(scene((face, top, left)))
        hits.append(len(found) == 1 and overlap(found[0], top, left) > 0.5)
    assert np.mean(hits) > 0.7  # one in twelve is turned or covered so far that the cascade passes it over


def test_each_of_many_faces_is_read_and_drawn(reader, plain):
    placed = list(zip(plain, (20, 260, 40), (20, 240, 440), strict=True))
    reading = reader.image(scene(*placed), heat=True)
    assert len(reading.faces) == 3
    for _, top, left in placed:
        assert max(overlap(face.box, top, left) for face in reading.faces) > 0.5
    changed = (reading.annotated() != reading.picture).any(axis=0)
    for box in (face.box for face in reading.faces):
        assert changed[box.top : box.top + box.side, box.left].mean() > 0.9, "a frame"
    assert not changed[440:, :200].any()
    assert reader.squares(reading.picture).shape == (3, 48, 48)


def test_small_faces_are_found_when_asked_for(plain):
    small = np.asarray(Image.fromarray(plain[0]).resize((60, 60), Image.Resampling.BOX))
    assert Detector(smallest=0.3).find(scene((small, 200, 300))) == []
    assert len(Detector(smallest=0.1).find(scene((small, 200, 300)))) == 1
    for wrong in ({"smallest": 0.0}, {"step": 3.0}):
        with pytest.raises(ValueError, match="from"):
            Detector(**wrong)


def test_an_image_without_a_face_says_what_to_try(reader):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)
    for picture in (noise, scene(), np.zeros((8, 3000), np.uint8)):
        reading = reader.image(picture)
        assert (reading.faces, str(reading)) == ((), predictor.NO_FACE)
        assert np.array_equal(reading.annotated(), reading.picture)


def test_a_face_keeps_its_number_while_it_moves(plain):
    tracker = Tracker()
    for step in range(12):
        top, left = 100 + 8 * step, 60 + 20 * step
        boxes = tracker.update(scene((plain[0], top, left)))
        assert [overlap(boxes[number], top, left) > 0.5 for number in boxes] == [True]
    for _ in range(detector.PATIENCE):
        assert list(tracker.update(scene())) == [1], "a face may be missing for a while"
    assert tracker.update(scene()) == {}
    while not (boxes := tracker.update(scene((plain[1], 100, 60)))):
        assert tracker.frames <= 30
    assert list(boxes) == [2], "no number is given twice"


def test_impressions_fade_with_time_not_with_frames():
    predictions = iter(np.eye(2, dtype=np.float32)[[0, 1, 1, 1, 1, 1, 1]])

    def read(picture, boxes):
        return [predictor.Face(boxes[0], ("a", "b"), next(predictions), 1.0, -1.0)]

    stream, black = Stream(read, memory=0.5), np.zeros((3, 30, 30), np.uint8)
    stream.tracker = types.SimpleNamespace(update=lambda grey: {4: Box(0, 0, 20)})  # one face, always there
    stream.next(black, 0.0)
    for seconds in (0.1, 0.15, 0.35, 0.6, 0.9, 1.0):
        [face] = stream.next(black, seconds).faces
        assert face.distribution == pytest.approx([math.exp(-seconds / 0.5), 1 - math.exp(-seconds / 0.5)])
        assert (face.number, face.valence, face.arousal) == (4, 1.0, -1.0)


@pytest.fixture
def film(tmp_path, plain):
    """A video of half a second in which one face moves."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python is not installed")
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20, (640, 480))
    for step in range(10):
        writer.write(cv2.cvtColor(scene((plain[0], 100, 100 + 8 * step)), cv2.COLOR_GRAY2BGR))
    writer.release()
    return tmp_path / "film.avi"


def test_a_video_is_read_frame_by_frame_and_stands_in_for_the_camera(run, reader, film, tmp_path, capsys):
    readings = list(reader.video(film))
    assert [reading.seconds for reading in readings] == pytest.approx(np.arange(10) / 20)
    for step, reading in enumerate(readings):
        assert [face.number for face in reading.faces] == [1]
        assert overlap(reading.faces[0].box, 100, 100 + 8 * step) > 0.5
    assert cli.main(["webcam", "--video", str(film), "--run", str(run), "--text"]) == 0
    assert capsys.readouterr().out.strip().startswith("0.00 s")
    (tmp_path / "film.mp4").write_text("once upon a time")
    for name, words in (("film.mp4", "no video that can be read"), ("gone.mp4", "no such file")):
        with pytest.raises(VideoError, match=words):
            next(detector.video_frames(tmp_path / name))


def test_a_camera_that_fails_is_one_clear_line(run, reader, monkeypatch, capsys):
    blue = np.zeros((48, 64, 3), np.uint8) + np.array([255, 0, 0], np.uint8)  # as OpenCV orders channels

    def capture(index: int):
        shots = iter([(True, blue)] * 3 * (index == 0))
        how = {"read": lambda: next(shots, (False, None)), "get": lambda _: 30.0, "release": lambda: None}
        return types.SimpleNamespace(**how)

    stand_in = types.SimpleNamespace(VideoCapture=capture, CAP_PROP_FPS=5, utils=mock.MagicMock())
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    seen = reader.camera(0)
    for _ in range(3):
        reading = next(seen)
        assert reading.faces == ()
        assert reading.picture.mean(axis=(1, 2)).tolist() == [0, 0, 255]
    with pytest.raises(VideoError, match="camera 0 went away; plug it in"):
        next(seen)
    assert cli.main(["webcam", "--camera", "2", "--run", str(run), "--text"]) == 1
    assert "camera 2 is not there" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install"):
        next(detector.camera_frames(0))


NO_IMAGES = [
    (encoded(Image.new("L", (1, 1)), "PNG"), "1 x 1 pixels are too small"),
    (Image.new("L", (1, 1)), "too small"),
    (b"no image at all, only some words", "of a known format"),
    (b"", "is empty"),
    (np.zeros((48, 48), np.uint16), "uint16"),
    (np.zeros((1, 1), np.uint8), "too small"),
    (np.zeros((4, 48, 48), np.uint8), "is no image"),
    (np.zeros((48,), np.uint8), "is no image"),
    (["a.png"], "list .* is no image"),
    ("~/nobody/has/this.png", "no such file"),
]


@pytest.mark.parametrize(("source", "words"), NO_IMAGES)
def test_what_is_no_image_is_one_clear_line(reader, source, words):
    with pytest.raises(ValueError, match=f"^.*{words}.*$") as raised:
        reader.image(source)
    assert "get the file again" not in str(raised.value)


def test_files_folders_patterns_and_arrays_in_either_order_say_the_same(reader, drawn, tmp_path, monkeypatch):
    for number in range(3):
        Image.fromarray(drawn[number]).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted, path = reader.images(list(drawn[:3]), whole=True), tmp_path / "0.png"
    for word in (tmp_path, f"{tmp_path}/*.png", "~", "~/[0-2].png"):
        found = zip(reader.images(word, whole=True), wanted, strict=True)
        assert all(np.array_equal(a.faces[0].distribution, b.faces[0].distribution) for a, b in found)
    color = np.repeat(drawn[:1], 3, axis=0)
    for source in (path, str(path), path.read_bytes(), Image.open(path), color, color.transpose(1, 2, 0)):
        [face] = reader.image(source, whole=True).faces
        assert np.array_equal(face.distribution, wanted[0].faces[0].distribution)
    for word in ("~", f"{tmp_path}/*.png"):
        with pytest.raises(ValueError, match="not an image; give it to Predictor.images"):
            reader.image(word)
    with pytest.raises(FileNotFoundError, match="no image there"):
        reader.images(tmp_path / "*.jpg")


def test_a_run_says_what_is_missing(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained network in .*none"):
        Predictor.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="did you mean 'small'"):
        Predictor.load(run.with_name("smal"))
    (tmp_path / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    record = json.loads((run / "config.json").read_text())
    faces = record["faces"]
    for wrong in ({"faces": {"train": 1}}, {"faces": faces | {"channels": 0}}, {"model": {"class": "N"}}):
        (tmp_path / "config.json").write_text(json.dumps(record | wrong))
        with pytest.raises(ValueError, match=r"^.*(does not say|did not make).*$"):
            Predictor.load(tmp_path)


def test_without_a_run_the_weights_of_the_workbook_are_taken_whole_or_not_at_all(run, tmp_path, monkeypatch):
    monkeypatch.setattr(own_weights, "FOLDER", tmp_path)
    with pytest.raises(own_weights.NoWeights, match=r"no file .*fer2013\.safetensors: git checkout"):
        Predictor.load()
    file, content = tmp_path / "fer2013.safetensors", (run / "best.safetensors").read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="checksum"):
        models.create("face-cnn", 4, weights="fer2013")
    file.write_bytes(content)
    assert Predictor.load().image_size == 48


@pytest.mark.parametrize("name", own_weights.OWN)
def test_a_photograph_is_read_out_of_the_box(name, root):
    file = root / "data" / "weights" / f"{name}.safetensors"
    assert file.stat().st_size < 5e6
    assert hashlib.sha256(file.read_bytes()).hexdigest() in file.with_suffix(".md").read_text()
    [face] = Predictor.load(name).image(skimage.data.astronaut()).faces  # Eileen Collins smiles
    assert face.label == "happiness"
    assert face.probability > 0.7
    lighter = (255 * (skimage.data.astronaut() / 255) ** 0.5).astype(np.uint8)
    [again] = Predictor.load(name).image(lighter, box=(*face.box[:2], face.box.side, face.box.side)).faces
    assert np.abs(again.distribution - face.distribution).max() < 0.1, "what changes light changes nothing"


def test_trained_weights_are_a_start_for_other_classes():
    net = models.create("face-cnn-fast", 4, weights="fer2013")
    kept, _ = own_weights.own("fer2013")
    mine = net.state_dict()
    assert all(torch.equal(mine[k], v.to(mine[k])) for k, v in kept.items() if not k.startswith("head."))
    assert "fer2013" in net.origin
    assert models.create(**net.spec).spec == net.spec
    with pytest.raises(ValueError, match="another network"):
        models.create("face-cnn-fast", 4, weights="fer2013", widths=(8, 16))


def test_onnx_agrees(reader, tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    path = tmp_path / "net.onnx"
    assert reader.export_onnx(path) <= 1e-4
    session = sys.modules["onnxruntime"].InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = np.random.default_rng(2).normal(size=(5, 1, 48, 48)).astype(np.float32)
    with torch.inference_mode():
        here = reader.model(torch.from_numpy(inputs)).numpy()
    assert session.run(["labels"], {"images": inputs})[0] == pytest.approx(here, abs=1e-4)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
        reader.export_onnx(path)


def test_predict_has_a_line_for_each_image_however_bad(run, plain, tmp_path, capsys):
    color = Image.fromarray(np.repeat(scene((plain[0], 100, 200))[..., None], 3, axis=2))
    contents = {
        "cmyk.jpg": encoded(color.convert("CMYK"), "JPEG", quality=95),
        "nobody.png": encoded(Image.fromarray(scene()), "PNG"),
        "pixel.png": encoded(Image.new("L", (1, 1)), "PNG"),
        "text.jpg": b"some words",
        "two.png": encoded(Image.fromarray(scene((plain[0], 100, 40), (plain[1], 100, 400))), "PNG"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    words = ["predict", str(tmp_path), "--run", str(run), "--annotate", str(tmp_path / "out"), "--heat"]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    refused, read = said.err.strip().split("\n"), said.out.strip().split("\n")
    assert [line.split(":")[0] for line in refused] == [str(tmp_path / n) for n in ("pixel.png", "text.jpg")]
    names = ("cmyk.jpg", "nobody.png", "two.png", "two.png")
    assert [line.split("  ")[0] for line in read] == [str(tmp_path / name) for name in names]
    assert "no face found" in read[1]
    assert ["face 1 of 2" in read[2], "face 2 of 2" in read[3]] == [True, True]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"cmyk.png", "nobody.png", "two.png"}
    assert Image.open(tmp_path / "out" / "cmyk.png").size == (640, 480)
    assert cli.main(["predict", str(tmp_path / "two.png"), "--run", str(run), "--whole", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    [face] = found["faces"]
    assert sum(face["distribution"].values()) == pytest.approx(1, abs=1e-3)
    assert face["label"] == max(face["distribution"], key=face["distribution"].get)
    assert face["box"] == {"left": 80, "top": 0, "side": 480}


WRONG_WORDS = [
    (["predict", "film.mp4"], "webcam --video film.mp4"),
    (["predict", "a.png", "--heat"], "--annotate"),
    (["predict", "a/x.png", "b/x.png", "--annotate", "out"], "one file"),
    (["predict", "a.png", "--jsn"], "--jsn"),
    (["predict", "a.png", "--run", "nowhere"], "no trained network in nowhere"),
    (["webcam", "--camera", "-1"], "from 0"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_WORDS)
def test_words_that_cannot_be_meant_are_refused(words, said, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_q_or_a_closed_window_quits_and_s_keeps_an_image(tmp_path, monkeypatch):
    shown, keys, visible = [], iter([-1, ord("s"), 256 + ord("s"), 256 + ord("q"), -1]), iter([1, 1, 1, 1, 0])
    names = {"WND_PROP_VISIBLE": 4, "COLOR_RGB2BGR": 4, "namedWindow": lambda name: None}
    stand_in = types.SimpleNamespace(**names, cvtColor=lambda picture, _: picture[..., ::-1])
    stand_in.imshow = lambda name, picture: shown.append(picture)
    stand_in.waitKey = lambda wait: next(keys)
    stand_in.getWindowProperty = lambda name, which: next(visible)
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    reading = predictor.Reading(np.arange(24, dtype=np.uint8).reshape(3, 2, 4).repeat(8, 1), ())
    predict.watch([reading] * 9, tmp_path)
    assert len(shown) == 4
    assert np.array_equal(shown[0], reading.picture.transpose(1, 2, 0)[..., ::-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000.png", "001.png"]
    visible = iter([0])
    predict.watch([reading] * 9, tmp_path)
    assert len(shown) == 5
    monkeypatch.setattr(stand_in, "namedWindow", lambda name: 1 / 0)
    with pytest.raises(ImportError, match="no window here"):
        predict.watch([reading], tmp_path)
