"""The panels without a browser: what they draw, how they follow, and that they live on."""

from __future__ import annotations

import io
import sys
import threading
import time
import types
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special, stats

from helpers import batches, faces, losses, metrics, models, predictor, training, widgets
from helpers.cli import execution
from helpers.widgets import heat, panel
from helpers.widgets.panel import Latest, Panel, figure, png


def pixels(panel: Panel) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(panel.picture.value)).convert("RGB"))


def words(figure) -> str:
    """Return all text of a figure."""
    axes = [text.get_text() for ax in figure.axes for text in (*ax.texts, ax.title)]
    return " ".join([*(text.get_text() for text in figure.texts), *axes])


@pytest.fixture(scope="module")
def parts(drawn_faces):
    train, validation, test = drawn_faces.splits(seed=0)
    return {"train": train, "validation": validation, "test": test}


# --- what every panel does ---


def draw_square(size: int = 3, deep: float = 0.5):
    if size == 13:
        raise ValueError("thirteen is\nno size")
    drawn = figure(1, 1)
    drawn.add_axes((0, 0, size / 20, 1)).set_facecolor((deep, deep, deep))
    return drawn


def square_panel() -> Panel:
    return Panel(
        draw_square, {"size": panel.slider("size", 3, 1, 20, 1), "deep": panel.slider("d", 0.5, 0.0, 1.0)}
    )


def test_a_panel_shows_what_its_function_draws():
    made = square_panel()
    assert made.picture.value == png(draw_square(3, 0.5))
    made.controls["size"].value = 7
    assert made.picture.value == png(draw_square(7, 0.5))
    made.set(size=5, deep=0.25)
    assert made.picture.value == png(draw_square(5, 0.25))


MOVES = {
    "faces_browser": {"page": 2, "expression": "fear", "person": 10**6},
    "action_unit_mixer": {"AU12": 0.9, "turn": 0.4, "AU4": 0.7},
    "hog_explorer": {"cell": 12, "orientations": 5, "face": 3},
    "loss_explorer": {"target fear": 0.9, "guess anger": 0.0, "target anger": 0.0},
    "heat_maps": {"face": 2, "expression": "fear", "opacity": 0.2},
}


@pytest.mark.parametrize("name", MOVES)
def test_a_figure_that_is_drawn_on_again_is_as_if_it_were_new(name, parts, reader):
    three = ("anger", "fear", "happiness")
    made = {
        "faces_browser": lambda: widgets.faces_browser(parts),
        "action_unit_mixer": widgets.action_unit_mixer,
        "hog_explorer": lambda: widgets.hog_explorer(parts["train"], parts["validation"]),
        "loss_explorer": lambda: widgets.loss_explorer(losses.divergences(three), three),
        "heat_maps": lambda: widgets.heat_maps(reader, parts["validation"]),
    }[name]()
    seen = {made.picture.value}
    for control, value in [*MOVES[name].items(), *list(MOVES[name].items())[::-1]]:
        made.controls[control].value = made.controls[control].max if value == 10**6 else value
        assert made.picture.value == png(made.draw(**made.values())), control
        seen.add(made.picture.value)
    assert len(seen) >= 4


def test_axes_are_kept_while_they_are_asked_for_and_no_longer():
    made = square_panel()
    canvas = made._canvas
    [ax] = canvas.axes
    made.controls["deep"].value = 0.25
    assert canvas.axes == [ax]
    for size in (7, 9, 11):
        made.controls["size"].value = size
    assert made._canvas is canvas
    assert len([each for each in canvas.axes if each.get_visible()]) == 1
    assert len(canvas.axes) <= 2


def test_an_error_is_one_line_and_the_panel_lives_on():
    made = square_panel()
    before = made.picture.value
    made.controls["size"].value = 13
    assert "thirteen is" in made.note.value
    assert "no size" not in made.note.value
    assert made.picture.value == before
    made.controls["size"].value = 14
    assert made.note.value == ""
    assert made.picture.value == png(draw_square(14, 0.5))


def test_a_figure_is_drawn_on_one_thread():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)

    def draw(size: int):
        seen.append(torch.get_num_threads())
        return draw_square(size)

    try:
        made = Panel(draw, {"size": panel.slider("size", 3, 1, 20, 1)})
        made.controls["size"].value = 13  # an error
        assert (seen, torch.get_num_threads()) == ([1, 1], 3)
    finally:
        torch.set_num_threads(before)


def test_an_error_in_the_first_drawing_is_raised():
    with pytest.raises(ValueError, match="thirteen"):
        Panel(draw_square, {"size": panel.slider("size", 13, 1, 20, 1)})


def test_what_is_told_is_text_and_not_markup():
    made = square_panel()
    made.say("<script>1</script> & more", wrong=True)
    assert "<script>" not in made.note.value
    assert "&lt;script&gt;1&lt;/script&gt; &amp; more" in made.note.value


def test_only_what_was_asked_for_last_is_worked_on():
    begun, go, done = threading.Event(), threading.Event(), []

    def work(wanted):
        begun.set()
        go.wait(10)
        done.append(wanted)

    latest = Latest(work)
    latest.ask(0)
    begun.wait(10)
    for wanted in (1, 2, 3):
        latest.ask(wanted)
    go.set()
    until(lambda: done == [0, 3])


def until(holds, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


# --- 01 ---


def test_the_browser_shows_the_faces_that_fit(parts):
    train = parts["train"]
    happy = train.labels == train.classes.index("happiness")
    assert f"{happy.sum()} of {len(train)} faces" in words(widgets.browse(parts, expression="happiness"))
    light = train.images.astype(float).mean(axis=(1, 2))
    dark = (light <= 100).sum()
    assert f"{dark} of {len(train)}" in words(widgets.browse(train, brightness=(0, 100)))
    bits = stats.entropy(train.distribution, base=2, axis=1)
    unsure = ((bits >= 1) & (bits <= 2.5)).sum()
    assert f"{unsure} of {len(train)}" in words(widgets.browse(train, doubt=(1, 2.5)))
    one = (train.subject == train.subject[0]).sum()
    assert f"{one} of {len(train)}" in words(widgets.browse(train, person=int(train.subject[0])))
    assert "no face fits" in words(widgets.browse(train, brightness=(0, 0)))


def test_the_browser_has_the_controls_that_the_set_can_answer(parts):
    made = widgets.faces_browser(parts)
    assert list(made.controls) == ["split", "expression", "brightness", "person", "doubt", "page"]
    before = made.picture.value
    made.controls["expression"].value = "happiness"
    assert made.picture.value != before
    made.controls["split"].value = "test"
    assert made.picture.value == png(widgets.browse(parts, "test", "happiness"))
    plain = types.SimpleNamespace(**vars(parts["train"]))
    assert plain.subject is not None
    import dataclasses

    bare = dataclasses.replace(parts["train"], subject=None, distribution=None)
    assert list(widgets.faces_browser(bare).controls) == ["split", "expression", "brightness", "page"]


def test_the_mixer_draws_the_face_and_says_its_place():
    drawn = widgets.mix({"AU6": 0.7, "AU12": 0.9}, turn=0.2)
    [image] = drawn.axes[0].images
    row = torch.zeros(1, 17)
    row[0, faces.ACTION_UNITS.index("AU6")], row[0, faces.ACTION_UNITS.index("AU12")] = 0.7, 0.9
    expected = faces.render(row, view={"yaw": 0.2}, size=144)[0].numpy()
    shown = np.asarray(image.get_array(), dtype=float)
    shown = shown[..., 0] if shown.ndim == 3 else shown
    assert np.abs(255 * shown - expected).max() <= 255 / 23  # figures are kept in 24 greys
    assert "happiness" in words(drawn)
    with pytest.raises(ValueError, match="unknown action unit 'AU99'"):
        widgets.mix({"AU99": 1.0})


def test_the_mixer_starts_from_an_expression():
    made = widgets.action_unit_mixer()
    [start] = [each for each in made.children[0].children if isinstance(each, ipywidgets.Dropdown)]
    neutral = made.picture.value
    start.value = "surprise"
    assert made.controls["AU26"].value > 0.5
    assert made.picture.value == png(
        widgets.mix({k: made.controls[k].value for k in faces.ACTION_UNITS}, upright=True)
    )
    start.value = "neutral"
    assert made.picture.value == neutral


# --- 02 ---


def test_the_explorer_follows_at_once_and_scores_a_moment_later(parts):
    made = widgets.hog_explorer(parts["train"], parts["validation"])
    made.controls["cell"].value = 12
    assert made.picture.value == png(widgets.draw_edges(parts["train"].images[0], 9, 12, 2))
    until(lambda: "accuracy on validation" in made.note.value)
    made.controls["block"].value = 4
    assert made.picture.value == png(widgets.draw_edges(parts["train"].images[0], 9, 12, 4))
    made.controls["cell"].value = 16
    until(lambda: "smaller than one block" in made.note.value)


def test_the_score_is_that_of_the_machine(parts):
    from skimage import feature
    from sklearn.svm import SVC

    train, validation = parts["train"], parts["validation"]
    x, unseen = (
        np.stack([feature.hog(i, 6, (8, 8), (2, 2)) for i in part.images]) for part in (train, validation)
    )
    machine = SVC(C=3.0, gamma=2 / (x.shape[1] * x.var())).fit(x, train.labels)
    found = widgets.score_edges(train, validation, orientations=6, cost=3.0, width=2.0)
    assert found.value == pytest.approx(machine.score(unseen, validation.labels), abs=0.03)


# --- 03 ---


@pytest.fixture
def fit(parts):
    def train_with(lr=3e-3, batch_size=32, epochs=4, dropout=0.1, backbone="face-cnn", depth=1, **watch):
        torch.manual_seed(0)
        net = models.create(backbone, 7, widths=(8, 8, 16, 16), dropout=dropout)
        scores = {"accuracy": metrics.on_labels(metrics.accuracy)}
        config = training.Config(epochs=epochs, batch_size=batch_size, lr=lr, precision="float32")
        rest = losses.on_labels(), scores, config
        return training.fit(net, parts["train"], parts["validation"], *rest, **watch)

    return train_with


def done(made) -> bool:
    return made.thread is not None and not made.thread.is_alive()


def test_a_trainer_has_a_control_for_each_setting_it_knows(fit):
    made = widgets.trainer(fit, backbone=("face-cnn", "face-cnn-fast"))
    assert set(made.controls) == {"backbone", "lr", "batch_size", "epochs", "dropout"}
    assert made.settings == {
        "lr": pytest.approx(3e-3),
        "batch_size": 32,
        "epochs": 4,
        "dropout": 0.1,
        "backbone": "face-cnn",
    }
    with pytest.raises(ValueError, match="none of the settings"):
        widgets.trainer(lambda x=1: None)


def test_every_setting_reaches_the_function_as_its_control_stands():
    asked = []

    def train_with(
        body="drawn",
        optimizer="adamw",
        frozen=False,
        lr_decay=0.7,
        valence_weight=1,
        arousal_weight=1,
        **watch,
    ):
        asked.append((body, optimizer, frozen, lr_decay, valence_weight, arousal_weight))
        return training.History("loss")

    made = widgets.trainer(train_with, body=("chance", "drawn"))
    moves = {"body": "chance", "optimizer": "muon", "frozen": True, "lr_decay": 0.3}
    moves |= {"valence_weight": 2.5, "arousal_weight": 0}
    for name, value in moves.items():
        made.controls[name].value = value
    made.buttons["Train"].click()
    until(lambda: done(made))
    assert asked == [("chance", "muon", True, 0.3, 2.5, 0)]


def test_losses_are_drawn_at_the_left_and_scores_at_the_right():
    of = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "loss": 1.9, "log loss": 1.8, "seconds": 3.0}
    of |= {"images_per_second": 100.0, "accuracy": 0.3, "CCC valence": 0.4}
    history = training.History("accuracy", epochs=[of, of | {"epoch": 2, "accuracy": 0.5}])
    left, right = widgets.draw_training(history, last=5).axes
    drawn = [[line.get_label() for line in ax.lines] for ax in (left, right)]
    assert drawn == [["train loss", "loss", "log loss"], ["accuracy", "CCC valence", "best on validation"]]
    assert [ax.get_xlim() for ax in (left, right)] == [(0.7, 5.3)] * 2
    assert list(right.lines[0].get_ydata()) == [0.3, 0.5]
    assert right.lines[-1].get_xdata()[0] == 2


def test_it_trains_and_says_how_well(fit):
    made = widgets.trainer(fit)
    empty = made.picture.value
    made.controls["epochs"].value = 2
    made.buttons["Train"].click()
    assert made.buttons["Train"].disabled
    assert not made.buttons["Stop"].disabled
    until(lambda: done(made))
    assert len(made.history.epochs) == 2
    assert "done; best accuracy" in made.note.value
    assert made.bar.value == 1
    assert made.picture.value != empty
    assert not made.buttons["Train"].disabled


def test_a_stopped_training_ends_within_a_batch_and_goes_on_as_if_never_stopped(fit, tmp_path):
    whole = fit(epochs=4, run=tmp_path / "whole", progress=False)
    made = widgets.trainer(lambda epochs=4, **watch: fit(epochs=epochs, **watch), run=tmp_path / "panel")
    drawn = made._epoch

    def interrupt(history):
        drawn(history)
        if len(history.epochs) == 2:
            made.buttons["Stop"].click()

    made._epoch = interrupt
    made.buttons["Train"].click()
    until(lambda: done(made))
    assert made.history.stopped
    assert len(made.history.epochs) == 2
    assert "stopped" in made.note.value
    assert [button.disabled for button in made.buttons.values()] == [False, True, False]
    made._epoch = drawn
    made.controls["epochs"].value = 9  # what is gone on with has the settings it began with
    made.buttons["Continue"].click()
    assert made.controls["epochs"].value == 4
    until(lambda: done(made))
    assert not made.history.stopped
    assert [e["loss"] for e in made.history.epochs] == [e["loss"] for e in whole.epochs]


def test_a_failed_training_is_one_line_and_the_next_one_runs(fit):
    made = widgets.trainer(fit, backbone=("face-cnn", "no such network"))
    made.controls["epochs"].value = 1
    made.controls["backbone"].value = "no such network"
    made.buttons["Train"].click()
    until(lambda: done(made))
    assert "unknown network" in made.note.value
    assert not made.buttons["Train"].disabled
    made.controls["backbone"].value = "face-cnn"
    made.buttons["Train"].click()
    until(lambda: done(made))
    assert "done; best accuracy" in made.note.value


def test_in_colab_it_trains_in_the_foreground(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    made = widgets.trainer(fit)
    made.controls["epochs"].value = 1
    made.buttons["Train"].click()
    assert "done; best accuracy" in made.note.value
    assert made.thread is None


# --- 06 ---


def test_losses_and_their_pushes_are_those_of_the_formulas():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    drawn = widgets.compare_losses(7 * p, 4 * q, ("happiness", "surprise", "fear"))
    labels = [text.get_text() for text in drawn.axes[1].get_yticklabels()]
    assert labels == [f"cross-entropy {-(p * np.log(q)).sum():.3f}", f"KL {special.rel_entr(p, q).sum():.3f}"]
    [bars] = drawn.axes[1].collections
    pushes = [path.vertices[1, 0] for path in bars.get_paths()]
    assert pushes == pytest.approx(np.tile(p - q, 2), abs=1e-5)  # the gradient of both is q - p
    with pytest.raises(ValueError, match="not all of them 0"):
        widgets.compare_losses([0, 0, 0], q, ("a", "b", "c"))


def test_the_loss_explorer_follows():
    made = widgets.loss_explorer(classes=("happiness", "fear"))
    made.controls["target fear"].value = 0.9
    values = [
        made.controls[f"{word} {name}"].value
        for word in ("target", "guess")
        for name in ("happiness", "fear")
    ]
    assert made.picture.value == png(widgets.compare_losses(values[:2], values[2:], ("happiness", "fear")))


# --- 07 ---


@pytest.fixture(scope="module")
def reader(drawn_faces) -> predictor.Predictor:
    torch.manual_seed(0)
    return predictor.Predictor(models.create("face-cnn", 7, widths=(8, 8, 8, 8)), drawn_faces.classes)


def test_the_layers_offered_are_those_with_a_map(reader, drawn_faces):
    assert heat.layers(reader.model, drawn_faces.images[0])[-5:] == [
        "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks",
    ]  # fmt: skip


def test_probabilities_shown_are_the_networks(reader, drawn_faces):
    drawn = widgets.explain(reader.model, drawn_faces.images[2], reader.classes)
    with torch.inference_mode():
        logits = reader.model(batches.normalise(torch.from_numpy(drawn_faces.images[2:3].copy()))[:, None])
    shown = [bar.get_width() for bar in drawn.axes[2].patches]
    assert shown == pytest.approx(special.softmax(logits[0].numpy()), abs=1e-5)


def test_without_opacity_the_face_is_bare(reader, drawn_faces):
    drawn = widgets.explain(reader.model, drawn_faces.images[2], reader.classes, opacity=0.0)
    bare, warm = (np.asarray(ax.images[0].get_array(), float) for ax in drawn.axes[:2])
    assert np.allclose(bare, warm, atol=1e-6)


def test_a_picture_of_ones_own_is_explained(reader, drawn_faces):
    made = widgets.heat_maps(reader, drawn_faces)
    upload = made.children[0].children[0]
    first = made.picture.value
    smile = faces.render({"AU6": 0.7, "AU12": 1.0}, size=160)[0].numpy()
    upload.value = [file_of(png_of(np.pad(smile, 80, mode="edge")))]
    assert "your picture" in made.note.value
    assert made.picture.value != first
    upload.value = [file_of(b"only words")]
    assert "no picture of a known format" in made.note.value
    upload.value = [file_of(png_of(np.full((200, 300), 120, np.uint8)))]
    assert "no face found in it" in made.note.value
    upload.value = [file_of(png_of(np.hstack([np.pad(smile, 80, mode="edge")] * 2)))]
    assert "the largest of 2 faces" in made.note.value
    made.controls["face"].value = 3
    assert made.picture.value == png(
        widgets.explain(
            reader.model, drawn_faces.images[3], reader.classes, heat.gradcam.last_map(reader.model)
        )
    )


def png_of(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def file_of(content: bytes) -> dict:
    import datetime

    now = datetime.datetime(2026, 1, 1)
    return {
        "name": "me.png",
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": now,
    }


def test_uploads_of_both_generations_are_read():
    assert heat.uploaded({"me.png": {"metadata": {}, "content": b"abc"}}) == b"abc"  # ipywidgets 7
    assert heat.uploaded(({"name": "me.png", "content": memoryview(b"abc")},)) == b"abc"  # 8
    with pytest.raises(ValueError, match="no file"):
        heat.uploaded(())


# --- the camera ---


def test_frames_from_the_browser_come_back_read(reader):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    made = widgets.camera(reader)
    lens, picture, note = made.children
    face = faces.render({"AU12": 0.9}, size=160)[0].numpy()
    scene = np.full((240, 320), 120, np.uint8)
    scene[40:200, 80:240] = face
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "JPEG", quality=95)
    lens.set_state({"frame": memoryview(buffer.getvalue())})  # as a browser's message is taken in
    assert lens.answered == 1
    assert Image.open(io.BytesIO(picture.value)).size == (320, 240)
    assert any(name in note.value for name in reader.classes)
    lens.set_state({"frame": memoryview(b"broken")})
    assert lens.answered == 2, "the panel lives on"
    assert "no picture of a known format" in note.value
    lens.trouble = "the camera went away; plug it in and start again"
    assert "went away" in note.value
    lens.set_state({"trouble": ""})  # it is started again, and goes away with a frame on its way
    lens.set_state({"trouble": "the camera went away once more", "frame": memoryview(buffer.getvalue())})
    assert lens.answered == 3
    assert "went away once more" in note.value


def test_the_camera_asks_for_anywidget_by_name(reader, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ImportError, match="pip install anywidget"):
        widgets.camera(reader)


# --- promises ---


def test_only_widgets_that_every_front_end_has_are_used():
    text = "\n".join(path.read_text() for path in Path(widgets.__file__).parent.glob("*.py"))
    for word in ("ipywidgets.Output", "interact(", "clear_output", "pyplot"):
        assert word not in text.replace("that pyplot knows nothing of", ""), word


def test_an_executed_notebook_keeps_a_line_in_the_place_of_a_panel(tmp_path):
    source = "from helpers import widgets\n\nwidgets.loss_explorer()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "panel.ipynb")
    root = Path(__file__).resolve().parents[1]
    ran = execution.execute(tmp_path / "panel.ipynb", tmp_path / "out", {}, 120, root)
    assert ran.status == "done"
    kept = nbformat.read(tmp_path / "out" / "panel.ipynb", 4)
    assert kept.cells[0].outputs[0].data == {"text/plain": panel.STILL}
    assert "widgets" not in kept.metadata
