"""The panels without a browser: what they draw, how they follow, and that they live on."""

from __future__ import annotations

import base64
import datetime
import io
import sys
import time
import types
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special, stats
from skimage import feature
from sklearn.svm import SVC

from helpers import batches, faces, gradcam, losses, metrics, models, predictor, training, widgets
from helpers.widgets import explorers
from helpers.widgets.panel import Panel, png

THREE = ("anger", "fear", "happiness")


def words(figure) -> str:
    """Return all text of a figure."""
    axes = [text.get_text() for ax in figure.axes for text in (*ax.texts, ax.title)]
    return " ".join([*(text.get_text() for text in figure.texts), *axes])


def until(holds, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def parts(drawn_faces):
    return dict(zip(("train", "validation", "test"), drawn_faces.splits(seed=0), strict=True))


@pytest.fixture(scope="module")
def reader(drawn_faces) -> predictor.Predictor:
    torch.manual_seed(0)
    return predictor.Predictor(models.create("face-cnn", 7, widths=(8, 8, 8, 8)), drawn_faces.classes)


@pytest.fixture
def fit(parts):
    def train_with(net, lr=3e-3, epochs=4, **watch):
        scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
        config = training.Config(epochs=epochs, batch_size=32, lr=lr, precision="float32")
        rest = losses.on_labels(), scores, config
        return training.fit(net, parts["train"], parts["validation"], *rest, **watch)

    return train_with


def make(backbone="face-cnn", dropout=0.1):
    torch.manual_seed(0)
    return models.create(backbone, 7, widths=(8, 8, 16, 16), dropout=dropout)


def draw_square(size: int = 3, deep: float = 0.5):
    if size == 13:
        raise ValueError("thirteen is\nno size")
    drawn = widgets.figure(1, 1)
    drawn.add_axes((0, 0, size / 20, 1)).set_facecolor((deep, deep, deep))
    return drawn


def square_panel(size: int = 3) -> Panel:
    controls = {"size": widgets.slider("size", size, 1, 20, 1), "deep": widgets.slider("d", 0.5, 0.0, 1.0)}
    return Panel(draw_square, controls, tell=lambda size, deep: f"{size} wide")


def test_a_panel_shows_what_its_function_draws():
    made = square_panel()
    assert made.image.value == png(draw_square(3, 0.5))
    assert "3 wide" in made.note.value
    made.controls["size"].value = 7
    assert made.image.value == png(draw_square(7, 0.5))
    told = []
    made.tell = lambda **values: str(told.append(values))
    made.set(size=5, deep=0.25)
    assert told == [{"size": 5, "deep": 0.25}], "drawn once"
    assert made.image.value == png(draw_square(5, 0.25))
    assert made.values() == {"size": 5, "deep": 0.25}
    made.say("<script>1</script> & more", wrong=True)
    assert "&lt;script&gt;1&lt;/script&gt; &amp; more" in made.note.value, "text, not markup"


PANELS = {
    "faces": lambda parts, reader: widgets.faces_browser(parts),
    "mixer": lambda parts, reader: widgets.action_unit_mixer(),
    "hog": lambda parts, reader: widgets.hog_explorer(parts["train"], parts["validation"], cell=6),
    "losses": lambda parts, reader: widgets.loss_explorer(losses.divergences(THREE), THREE),
    "heat": lambda parts, reader: widgets.heat_maps(reader, parts["validation"]),
    "trainer": lambda parts, reader: widgets.trainer(lambda net, lr=0.1, epochs=3, **watch: None, make),
}
MOVES = {"faces": {"page": 2, "expression": "fear", "person": 3}, "mixer": {"AU12": 0.9, "turn": 0.4}}
MOVES |= {"hog": {"cell": 12, "orientations": 5, "face": 3}, "losses": {"target fear": 0.9, "guess anger": 0}}
MOVES |= {"heat": {"face": 2, "expression": "fear", "opacity": 0.2}, "trainer": {}}


@pytest.mark.parametrize("which", PANELS)
def test_every_panel_follows_its_controls_and_is_a_picture_in_a_saved_notebook(which, parts, reader):
    made = PANELS[which](parts, reader)
    for name, value in MOVES[which].items():
        before = made.image.value
        made.controls[name].value = value
        assert made.values()[name] == value
        assert made.image.value == png(made.draw(**made.values()))
        assert made.image.value != before, name
    for control in made.controls.values():
        assert len(control.description) <= 22
        width, label = int(control.layout.width[:-2]), int(control.style.description_width[:-2])
        assert width - label - 80 >= 250, "the readout takes up to 80 pixels"
    bundle = made._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    shown, still = made.image.value, base64.b64decode(bundle["image/png"])
    shown, still = (np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), float) for file in (shown, still))
    controls, inside = np.split(still, [still.shape[1] - shown.shape[1]], axis=1)
    assert np.abs(inside[: len(shown)] - shown).mean() < 2, "the figure, in 256 colours of its own"
    assert controls.std() > 5, "and the controls beside it"
    assert len(bundle["image/png"]) < 120_000
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}


def test_an_error_is_one_line_and_the_panel_lives_on():
    made = square_panel()
    before = made.image.value
    made.controls["size"].value = 13
    assert "thirteen is" in made.note.value
    assert "no size" not in made.note.value
    assert made.image.value == before
    made.draw = lambda size, deep: 1 / 0
    made.controls["size"].value = 14
    assert "ZeroDivisionError: division by zero" in made.note.value
    made.draw = draw_square
    made.controls["size"].value = 15
    assert "15 wide" in made.note.value
    with pytest.raises(ValueError, match="thirteen"):
        square_panel(13)


def test_only_what_every_front_end_has_is_used():
    text = "\n".join(path.read_text() for path in Path(widgets.__file__).parent.glob("*.py"))
    for word in ("ipywidgets.Output", "interact(", "clear_output", "import pyplot"):
        assert word not in text, word


def test_the_browser_shows_the_faces_that_fit(parts):
    train, said = parts["train"], lambda split="train", **fits: words(widgets.browse(parts, split, **fits))
    happy = train.labels == train.classes.index("happiness")
    assert f"{happy.sum()} of {len(train)} faces" in said(expression="happiness")
    light = train.images.astype(float).mean(axis=(1, 2))
    dark = ((light >= 60) & (light <= 100)).sum()
    assert f"{dark} of {len(train)}" in said(brightness=(60, 100))
    bits = stats.entropy(train.distribution, base=2, axis=1)
    unsure = ((bits >= 1) & (bits <= 2.5)).sum()
    assert f"{unsure} of {len(train)}" in said(doubt=(1, 2.5))
    one = (train.subject == train.subject[0]).sum()
    assert f"{one} of {len(train)}" in said(person=int(train.subject[0]))
    assert f"of {len(parts['test'])} faces" in said("test")
    assert "no face fits" in said(brightness=(0, 0))
    titles = [text.get_text() for text in widgets.browse(parts, "train", page=2).axes[0].texts]
    assert titles == [train.classes[label] for label in train.labels[24:48]]


def test_the_mixer_draws_the_face_and_says_its_expression():
    drawn = widgets.mix({"AU6": 0.7, "AU12": 0.9}, turn=0.2)
    expected = faces.render({"AU6": 0.7, "AU12": 0.9}, view={"yaw": 0.2}, size=144)[0].numpy()
    shown = np.asarray(drawn.axes[0].images[0].get_array(), dtype=float)
    shown = shown[..., 0] if shown.ndim == 3 else shown
    shown = shown * 255 if shown.max() <= 1 else shown
    assert np.abs(shown - expected).max() <= 255 / 23  # figures may be kept in few greys
    assert "happiness" in words(drawn)
    made = widgets.action_unit_mixer()
    [start] = [each for each in made.children[0].children if isinstance(each, ipywidgets.Dropdown)]
    start.value = "surprise"
    assert made.values()["AU26"] > 0.5
    assert made.image.value == png(made.draw(**made.values()))


def test_the_explorer_starts_with_the_cells_settings_and_says_the_score(parts):
    made = widgets.hog_explorer(parts["train"], parts["validation"], cell=6)
    settings = {"orientations": 9, "cell": 6, "block": 2, "cost": 3.0, "width": 1.0}
    assert made.values() == {"face": 0, **settings}
    expected = widgets.score_edges(parts["train"], parts["validation"], **settings)
    assert f"validation {expected}" in made.note.value
    made.controls["block"].value = 4
    made.controls["cell"].value = 16
    assert "smaller than one block" in made.note.value


def test_the_score_is_that_of_scikit_learns_machine(parts):
    train, validation = parts["train"], parts["validation"]
    x, unseen = (
        np.stack([feature.hog(i, 6, (8, 8), (2, 2)) for i in part.images]) for part in (train, validation)
    )
    machine = SVC(C=3.0, gamma=2 / (x.shape[1] * x.var())).fit(x, train.labels)
    found = widgets.score_edges(train, validation, orientations=6, cost=3.0, width=2.0)
    assert found.value == pytest.approx(machine.score(unseen, validation.labels), abs=0.03)


def done(made) -> bool:
    return made.thread is not None and not made.thread.is_alive()


def press(made, name: str) -> None:
    made.buttons[name].click()


def test_a_trainer_has_a_control_for_each_setting_it_knows(fit):
    made = widgets.trainer(fit, make, backbone=("face-cnn", "face-cnn-fast"))
    rest = {"lr": pytest.approx(3e-3), "epochs": 4, "dropout": 0.1}
    assert made.values() == {"backbone": "face-cnn", **rest}
    with pytest.raises(ValueError, match="no argument lr, optimizer"):
        widgets.trainer(lambda net, x=1: None, lambda: None)
    with pytest.raises(ValueError, match="no argument body with a default; known: backbone"):
        widgets.trainer(fit, make, body=("one", "two"))


def test_every_setting_reaches_the_functions_as_its_control_stands():
    asked = []

    def make(body="drawn", dropout=0.2, seed=3):
        asked.append({"body": body, "dropout": dropout, "seed": seed})
        return torch.nn.Linear(1, 1)

    def train_with(net, optimizer="adamw", frozen=False, gain=1.0, seed=3, **watch):
        asked.append({"net": type(net), "optimizer": optimizer, "frozen": frozen, "gain": gain, "seed": seed})
        return training.History("loss")

    made = widgets.trainer(
        train_with, make, body=("random", "drawn"), gain=widgets.slider("gain", 1.0, 0.0, 3.0)
    )
    moves = {"body": "random", "dropout": 0.5, "optimizer": "muon", "frozen": True, "gain": 2.5, "seed": 7}
    for name, value in moves.items():
        made.controls[name].value = value
    press(made, "Train")
    until(lambda: done(made))
    rest = {"optimizer": "muon", "frozen": True, "gain": 2.5, "seed": 7}
    expected = [{"body": "random", "dropout": 0.5, "seed": 7}, {"net": torch.nn.Linear, **rest}]
    assert asked == expected
    assert isinstance(made.model, torch.nn.Linear)
    made.fit(**made.values())
    assert asked == 2 * expected


def test_losses_are_drawn_at_the_left_and_scores_at_the_right():
    of = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "loss": 1.9, "log loss": 1.8, "seconds": 3.0}
    of |= {"images_per_second": 100.0, "accuracy": 0.3, "CCC valence": 0.4}
    history = training.History("accuracy", epochs=[of, of | {"epoch": 2, "accuracy": 0.5}])
    left, right = widgets.draw_training(history, last=5).axes
    drawn = [[line.get_label() for line in ax.lines] for ax in (left, right)]
    scores = ["accuracy, validation", "CCC valence, validation", "best on validation"]
    assert drawn == [["loss, validation", "loss, train", "log loss, validation"], scores]
    assert [ax.get_xlim() for ax in (left, right)] == [(0.7, 5.3)] * 2
    assert list(right.lines[0].get_ydata()) == [0.3, 0.5]


def test_a_training_is_the_cells_stops_within_a_batch_and_goes_on_as_if_never_stopped(fit):
    whole = fit(make(), epochs=4, progress=False)
    made = widgets.trainer(fit, make)
    drawn, empty = made._epoch, made.image.value

    def interrupt(history):
        drawn(history)
        if len(history.epochs) == 2:
            press(made, "Stop")

    made._epoch = interrupt
    press(made, "Train")
    assert [button.disabled for button in made.buttons.values()] == [True, False, True]
    until(lambda: done(made))
    assert made.history.stopped
    assert len(made.history.epochs) == 2
    assert "stopped" in made.note.value
    assert [button.disabled for button in made.buttons.values()] == [False, True, False]
    told = []
    made._epoch = lambda history: (told.append(len(history.epochs)), drawn(history))
    made.controls["epochs"].value = 9  # what is gone on with has the settings it began with
    for action in ("Continue", "Train"):  # "Train" begins anew
        press(made, action)
        assert made.values()["epochs"] == 4
        until(lambda: done(made))
        assert not made.history.stopped
        assert [e["loss"] for e in made.history.epochs] == [e["loss"] for e in whole.epochs]
    assert told == [3, 4, 4, 1, 2, 3, 4, 4]
    assert "done; best accuracy" in made.note.value
    assert made.bar.value == 1
    assert made.image.value != empty
    assert isinstance(made.model, models.FaceCNN)
    assert [button.disabled for button in made.buttons.values()] == [False, True, True]


def test_a_closed_panel_leaves_no_thread(fit):
    made = widgets.trainer(lambda net, epochs=500, **watch: fit(net, epochs=epochs, **watch), make)
    press(made, "Train")
    until(lambda: made.history is not None)
    made.close()
    assert not made.thread.is_alive()
    assert made.thread.daemon, "nor does a kernel that is restarted"


def test_a_failed_training_is_one_line_and_the_next_one_runs(fit):
    made = widgets.trainer(fit, make, backbone=("face-cnn", "no such network"))
    made.set(epochs=1, backbone="no such network")
    for backbone, said in (("no such network", "unknown network"), ("face-cnn", "done; best accuracy")):
        made.controls["backbone"].value = backbone
        press(made, "Train")
        until(lambda: done(made))
        assert said in made.note.value


def test_in_colab_it_trains_in_the_foreground(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    made = widgets.trainer(fit, make)
    made.controls["epochs"].value = 1
    press(made, "Train")
    assert "done; best accuracy" in made.note.value
    assert made.thread is None


def test_losses_and_their_pushes_are_those_of_the_formulas():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    drawn = widgets.compare_losses(7 * p, 4 * q, ("happiness", "surprise", "fear"))
    labels = [text.get_text() for text in drawn.axes[1].get_yticklabels()]
    assert labels == [f"cross-entropy {-(p * np.log(q)).sum():.3f}", f"KL {special.rel_entr(p, q).sum():.3f}"]
    pushes = [[bar.get_width() for bar in bars] for bars in drawn.axes[1].containers]
    np.testing.assert_allclose(pushes, np.tile((p - q)[:, None], 2), atol=1e-5)  # both gradients are q - p
    with pytest.raises(ValueError, match="not all of them 0"):
        widgets.compare_losses([0, 0, 0], q, ("a", "b", "c"))


def test_the_layers_offered_are_those_with_a_map(reader, drawn_faces):
    found = explorers.layers(reader.model, drawn_faces.images[0])
    assert found[-5:] == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks"]


def test_probabilities_shown_are_the_networks(reader, drawn_faces):
    drawn = widgets.explain(reader.model, drawn_faces.images[2], reader.classes)
    with torch.inference_mode():
        logits = reader.model(batches.normalise(torch.from_numpy(drawn_faces.images[2:3].copy()))[:, None])
    shown = [bar.get_width() for bar in drawn.axes[2].patches]
    assert shown == pytest.approx(special.softmax(logits[0].numpy()), abs=1e-5)
    drawn = widgets.explain(reader.model, drawn_faces.images[2], reader.classes, opacity=0.0)
    bare, warm = (np.asarray(ax.images[0].get_array(), float) for ax in drawn.axes[:2])
    assert np.allclose(bare, warm, atol=1e-6), "without opacity the face is bare"


def image_file(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def test_an_image_of_ones_own_is_explained(reader, drawn_faces):
    made = widgets.heat_maps(reader, drawn_faces)
    upload, first = made.children[0].children[0], made.image.value

    def give(content: bytes) -> None:
        about = {"name": "me.png", "type": "image/png", "size": len(content)}
        upload.value = [
            about | {"content": memoryview(content), "last_modified": datetime.datetime(2026, 1, 1)}
        ]

    smile = np.pad(faces.render({"AU6": 0.7, "AU12": 1.0}, size=160)[0].numpy(), 80, mode="edge")
    give(image_file(smile))
    assert "your image" in made.note.value
    assert made.image.value != first
    give(b"only words")
    assert "known format" in made.note.value
    give(image_file(np.full((200, 300), 120, np.uint8)))
    assert "no face found in it" in made.note.value
    give(image_file(np.hstack([smile, smile])))
    assert "the largest of 2 faces" in made.note.value
    made.controls["face"].value = 3
    layer = gradcam.last_map(reader.model)
    assert made.image.value == png(
        widgets.explain(reader.model, drawn_faces.images[3], reader.classes, layer)
    )


def test_uploads_of_both_generations_are_read():
    assert explorers.uploaded({"me.png": {"metadata": {}, "content": b"abc"}}) == b"abc"  # ipywidgets 7
    assert explorers.uploaded(({"name": "me.png", "content": memoryview(b"abc")},)) == b"abc"  # 8
    with pytest.raises(ValueError, match="no file"):
        explorers.uploaded(())


def test_frames_from_the_browser_come_back_read(reader):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    lens, shown, note = widgets.camera(reader).children
    scene = np.full((240, 320), 120, np.uint8)
    scene[40:200, 80:240] = faces.render({"AU12": 0.9}, size=160)[0].numpy()
    frame = memoryview(image_file(scene, "JPEG"))
    lens.set_state({"frame": frame})  # as a browser's message is taken in
    assert lens.answered == 1
    assert Image.open(io.BytesIO(shown.value)).size == (320, 240)
    assert any(name in note.value for name in reader.classes)
    lens.set_state({"frame": memoryview(b"broken")})
    assert lens.answered == 2, "the panel lives on"
    assert "known format" in note.value
    lens.trouble = "the camera went away; plug it in and start again"
    assert "went away" in note.value
    lens.set_state({"trouble": ""})  # it is started again, and goes away with a frame on its way
    lens.set_state({"trouble": "the camera went away once more", "frame": frame})
    assert lens.answered == 3
    assert "went away once more" in note.value


def test_the_camera_asks_for_anywidget_by_name(reader, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ImportError, match="pip install anywidget"):
        widgets.camera(reader)
