"""Figures: what goes in is what is drawn, on the axes that was given, and pyplot is left as it was."""

from __future__ import annotations

import io
from collections import namedtuple
from functools import partial
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from helpers import emotions, plotting
from helpers.plotting import images

Score = namedtuple("Score", "value low high")
CLASSES = ("anger", "happiness", "neutral")
COUNTS = np.array([[3, 1, 0], [0, 9, 0], [2, 2, 2]])
SWEEP = (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.7, 1.0]), 0.75)
POINTS = {100: Score(0.4, 0.3, 0.5), 200: Score(0.5, 0.45, 0.6)}
GROUPS = {"pose": {"frontal": Score(0.7, 0.6, 0.8), "turned": Score(0.5, 0.4, 0.6)}}
BEST = {"pose": {"frontal": 0.75, "turned": 0.74}}
HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3], "lr": 0.1, "train_loss": [2, 1.5, 1], "loss": [2, 1.8, 1.7], "seconds": 1.0}
    | {"accuracy": [0.2, 0.4, 0.5], "train_accuracy": [0.2, 0.5, 0.8]}
)


@pytest.fixture(autouse=True)
def _own_rc():
    with mpl.rc_context():
        yield
        plt.close("all")


def faces(num, *, color=False, size=48, seed=0):
    shape = (num, 3, size, size) if color else (num, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def spiral():
    angle = np.linspace(0, 6, 68)
    return np.stack([24 + angle * np.cos(angle), 24 + angle * np.sin(angle)], axis=1).astype(np.float32)


def plane(num=60, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(-0.7, 0.7, (num, 2)), random.integers(0, len(CLASSES), num)


def table(**columns):
    return pd.DataFrame(columns, index=CLASSES)


P, Q = np.array([0.6, 0.3, 0.1]), np.array([0.5, 0.1, 0.4])
WORDS = (["anger"] * 4, ["neutral", "anger"] * 2, np.ones(4))
DRAW = {
    plotting.face: (faces(1)[0], "happiness"),
    plotting.face_grid: (faces(9), ["anger"] * 9),
    plotting.face_rows: ({"anger": faces(3), "neutral": faces(2)},),
    plotting.landmarks: (faces(1)[0], spiral()),
    plotting.mistakes: (faces(4), *WORDS),
    plotting.misplaced: (faces(4), np.eye(4)[:, :2], -np.eye(4)[:, :2]),
    plotting.class_balance: (table(train=P, test=Q),),
    plotting.class_scores: (table(precision=P, recall=Q),),
    plotting.distribution: (P, CLASSES),
    plotting.beside: (P, {"kl": Q}, CLASSES),
    plotting.scatter: (*plane(), CLASSES),
    plotting.circumplex: (*plane(), CLASSES, emotions.CIRCUMPLEX),
    plotting.circumplex_errors: (plane(300)[0], plane(300)[0] / 2),
    plotting.circumplex_confusions: (COUNTS, CLASSES, emotions.CIRCUMPLEX),
    plotting.agreement: (*plane()[0].T, plane()[1], CLASSES, "valence"),
    plotting.scores: ({"a": POINTS[100], "b": POINTS[200]}, ["a"], ["b"]),
    plotting.subgroups: (GROUPS, BEST),
    plotting.confusion: (COUNTS, CLASSES),
    plotting.curves: (HISTORY, ["train_loss", "loss"]),
    plotting.lr_finder: (np.logspace(-5, 0, 30), np.arange(30.0), 1e-3),
    plotting.learning_curve: ({"validation": POINTS},),
    plotting.perturbation: (np.array([0, 1]), {"a": [*POINTS.values()]}),
    plotting.roc: ({"anger": SWEEP, "neutral": SWEEP},),
    plotting.precision_recall: ({"anger": SWEEP},),
    plotting.reliability: ({"kl": np.array([[3, 0.4, 0.3], [9, 0.8, 0.9]])},),
    plotting.arrows: (faces(1, size=8)[0], np.eye(8), np.ones((8, 8))),
    plotting.directions: (np.arange(9.0),),
    plotting.heat_map: (np.arange(6).reshape(2, 3) / 6, ["1", "3"], list("abc")),
}


@pytest.mark.parametrize("draw", DRAW, ids=lambda draw: draw.__name__)
def test_draws_on_the_axes_it_is_given_or_on_one_figure_that_renders_inside_its_canvas(draw):
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    assert draw(*DRAW[draw], ax=ax) is ax
    assert len(figure.axes) == 1 + (draw is plotting.heat_map)  # with its scale
    assert ax.has_data()
    assert plt.get_fignums() == []
    plotting.style()
    ax = draw(*DRAW[draw])
    assert plt.get_fignums() == [ax.figure.number]
    ax.figure.canvas.draw()
    assert np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].std() > 0
    drawn, page = ax.figure.get_tightbbox(), ax.figure.get_size_inches()
    assert drawn.min.min() > -0.02  # inches
    assert np.all(drawn.max < page + 0.02)


def test_style_keeps_text_legible_and_files_small():
    plotting.style()
    smallest = min(mpl.rcParams[f"{name}size"] for name in ("font.", "legend.font", "axes.label"))
    assert mpl.rcParams["figure.dpi"] <= 80
    assert smallest * mpl.rcParams["figure.dpi"] / 72 >= 12  # pixels


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), int)


@pytest.mark.parametrize(("hot", "off", "size"), [(False, 16, 0.6), (True, 4, 0.8)])
def test_a_packed_png_is_small_and_near_every_colour(hot, off, size):
    before, tiles = dict(mpl.rcParams), faces(8)
    tiles = plotting.heated(tiles, np.random.default_rng(0).random((8, 48, 48))) if hot else tiles
    data = plotting.png(lambda ax: plotting.face_grid(tiles, emotions.AFFECTNET8, ax=ax), (6, 3), 80)
    assert dict(mpl.rcParams) == before, "Matplotlib is left as it was"
    small = plotting.packed(data)
    assert len(small) < size * len(data)
    assert np.abs(pixels(data) - pixels(small)).max() <= off
    shown = pixels(small).reshape(-1, 3)
    for name in emotions.FER7:
        assert np.abs(shown - 255 * np.array(to_rgb(emotions.COLORS[name]))).max(axis=1).min() <= 4, name


# Machado, Oliveira and Fernandes (2009), severity 1.0, in linear RGB
BLINDNESS = {
    "red": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
    "green": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.01182 0.04294 0.968881",
    "blue": "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.3039",
}


@pytest.mark.parametrize("names", [emotions.FER7, emotions.FERPLUS8, emotions.AFFECTNET8])
def test_classes_are_told_apart_by_marker_and_by_those_who_do_not_see_a_colour(names):
    assert len({plotting.MARKERS[name] for name in names}) == len(names)
    colors = np.array([to_rgb(plotting.color(name)) for name in names])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    for matrix in BLINDNESS.values():
        seen = np.clip(linear @ np.array(matrix.split(), float).reshape(3, 3).T, 0, 1)
        seen = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
        assert min(deltaE_ciede2000(one, other) for one, other in combinations(seen, 2)) > 8


def tile_under(ax, text, lift=0.05):
    x, y = text.get_position()
    left, top = round(x - 24), round(y + lift * 48)
    return 255 * np.asarray(ax.images[0].get_array())[top : top + 48, left : left + 48]


@pytest.mark.parametrize("color", [False, True])
def test_face_grid_shows_each_face_where_its_title_stands(color):
    images = faces(5, color=color)
    ax = plotting.face_grid(images, list("abcde"), columns=3)
    assert [text.get_text() for text in ax.texts] == list("abcde")
    assert [text.get_position()[0] // 48 for text in ax.texts] == [0, 1, 2, 0, 1], "row after row"
    for face, text in zip(images, ax.texts, strict=True):
        expected = face.transpose(1, 2, 0) if color else face
        slack = 1e-6 if color else 255 / 46 + 1e-6  # grey in 24 levels, colour as it is
        np.testing.assert_allclose(tile_under(ax, text), expected, atol=slack)


def test_face_rows_leave_missing_places_white_and_title_each_column():
    rows = {"anger": np.zeros((3, 48, 48)), "neutral": np.zeros((1, 48, 48))}
    ax = plotting.face_rows(rows, ["anger", "", "mean"])
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (2 * 48 + 3, 3 * 48 + 2 * 3)
    assert shown[60, 10] == 0
    assert np.all(shown[51:, 51:] == 1)
    above = [text for text in ax.texts if text.get_position()[1] < 0]
    assert [text.get_text() for text in above] == ["anger", "", "mean"]
    assert [text.get_position()[0] for text in above] == [24, 51 + 24, 2 * 51 + 24]
    assert to_hex(ax.collections[-1].get_color()[0]) == emotions.COLORS["anger"]


def test_landmarks_are_drawn_where_they_are():
    assert sorted({point for part in images.OUTLINES for point in part}) == list(range(68))
    points = spiral()
    drawn = np.concatenate([line.get_xydata() for line in plotting.landmarks(faces(1)[0], points).lines])
    assert len(drawn) == 68 + 4  # both eyes and both lips are closed
    assert {tuple(point) for point in drawn.tolist()} == {tuple(point) for point in points.tolist()}


def test_mistakes_stand_under_prediction_and_label():
    predicted, labels = ["happiness", "neutral", "anger"], ["anger", "happiness", "anger"]
    ax = plotting.mistakes(faces(3), labels, predicted, np.array([0.91, 0.5, 0.333]), columns=2)
    words = [text.get_text() for text in ax.texts]
    assert words == ["happiness 91%", "not anger", "neutral 50%", "not happiness", "anger 33%", "right"]
    for image, below in zip(faces(3), ax.texts[1::2], strict=True):
        np.testing.assert_allclose(tile_under(ax, below), image, atol=255 / 46 + 1e-6)
    moved = plotting.misplaced(faces(1), np.array([[0.5, -0.25]]), np.array([[-0.64, -0.02]]))
    assert [text.get_text() for text in moved.texts] == ["−0.6  +0.0", "not +0.5  −0.2"]


def test_pictures_keep_every_line_one_pixel_wide():
    plotting.style()
    images = np.zeros((5, 96, 96))
    images[:, 40, :], images[:, :, 7] = 255, 255
    ax = plotting.pictures(images, ["a", "happiness", "c", "d", "e"], columns=3)
    ax.figure.canvas.draw()
    drawn = np.asarray(ax.figure.canvas.buffer_rgba())[..., 0] / 255
    assert drawn.shape == np.asarray(ax.images[0].get_array()).shape
    row, column = 96 + 6 + 2 * round(0.22 * 96) + 40, 96 + 6 + 7  # of the fifth
    np.testing.assert_allclose(drawn[row - 2 : row + 3, 160], [0, 0, 1, 0, 0], atol=0.01)
    np.testing.assert_allclose(drawn[row + 20, column - 2 : column + 3], [0, 0, 1, 0, 0], atol=0.01)


@pytest.mark.parametrize("color", [False, True])
def test_heat_leaves_cold_places_bare_and_is_scaled_by_each_map(color):
    images = faces(3, color=color) // 2 + 60
    maps = np.zeros((3, 48, 48))
    maps[0, 5, 7], maps[0, 6, 7], maps[1, 1, 1] = 4.0, 2.0, -3.0
    shown = plotting.heated(images, maps)
    bare = images if color else np.stack([images] * 3, axis=1)
    assert (shown.dtype, shown.shape) == (np.uint8, (3, 3, 48, 48))
    assert np.argwhere((shown != bare).any(axis=1)).tolist() == [[0, 5, 7], [0, 6, 7]]
    hotter = maps[[0, 0, 0]] * np.array([1e-6, 9, 1])[:, None, None]
    np.testing.assert_array_equal(shown[0], plotting.heated(images, hotter)[0])
    red, green, blue = shown[0, :, 5, 7].astype(int)
    assert min(red, green) > blue + 60  # the hottest place is yellow
    red, green, blue = shown[0, :, 6, 7].astype(int) - bare[0, :, 6, 7]
    assert red > max(green, blue)  # half as hot: redder than the face was


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def widths(ax):
    return [[bar.get_width() for bar in group] for group in ax.containers]


def test_bars_are_the_numbers_of_each_column_from_top_to_bottom():
    ax = plotting.class_balance(table(train=P, validation=Q))
    np.testing.assert_allclose(widths(ax), [100 * P, 100 * Q])
    assert legend(ax) == ["train", "validation"]
    assert ax.yaxis_inverted()
    ax = plotting.class_scores(table(precision=P, recall=Q, F1=P))
    np.testing.assert_allclose(widths(ax), [P, Q, P])
    assert legend(ax) == ["precision", "recall", "F1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)


def test_bars_of_a_distribution_are_the_truth_and_marks_the_predictions():
    ax = plotting.beside(P, {"kl": Q, "emd": P}, CLASSES)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], P)
    marks = [line for line in ax.get_lines() if line.get_label() in ("kl", "emd")]
    np.testing.assert_allclose([line.get_xdata() for line in marks], [Q, P])
    plotting.beside_key([ax], "people")
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["people", "kl", "emd"]
    inks = [to_hex(bar.get_facecolor()) for bar in plotting.distribution(P, CLASSES).patches]
    assert inks == [emotions.COLORS[name] for name in CLASSES]


def test_confusion_shows_each_row_in_per_cent_and_its_faces():
    ax = plotting.confusion(np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4]]), CLASSES)
    written = np.array([int(text.get_text()) for text in ax.texts]).reshape(3, 3)
    np.testing.assert_array_equal(written, [[75, 25, 0], [0, 0, 0], [25, 25, 50]])
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == ["anger  (4)", "happiness  (0)", "neutral  (8)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(CLASSES)
    assert "% of the row" in ax.get_xlabel()
    assert ax.yaxis_inverted()


def test_heat_map_frames_the_largest_value_and_has_a_scale():
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.5]])
    ax = plotting.heat_map(values, ["1", "3"], ["a", "b", "c"], label="accuracy")
    (frame,) = ax.patches
    assert frame.get_x() < 1.5 < frame.get_x() + frame.get_width()
    assert frame.get_y() < 1.5 < frame.get_y() + frame.get_height()
    assert ax.figure.axes[1].get_ylabel() == "accuracy"


def test_scatter_draws_each_point_in_the_colour_of_its_class_and_names_all():
    points, labels = plane()
    ax = plotting.scatter(points, labels, CLASSES, ("one", "two"))
    (group,) = ax.collections
    np.testing.assert_allclose(group.get_offsets(), points)
    drawn = [to_hex(ink) for ink in group.get_facecolor()]
    assert drawn == [emotions.COLORS[CLASSES[label]] for label in labels]
    assert legend(ax) == list(CLASSES)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("one", "two")
    ax = plotting.agreement(points[:, 0], points[:, 1], labels, CLASSES, "arousal")
    np.testing.assert_allclose(ax.collections[0].get_offsets(), points)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("arousal, annotated", "arousal, predicted")


def test_circumplex_has_the_unit_circle_and_names_that_do_not_cover_each_other():
    near = {"anger": (-0.43, 0.55), "contempt": (-0.43, 0.57), "fear": (-0.4, 0.56), "happiness": (0.7, 0.55)}
    ax = plotting.circumplex(*plane(), CLASSES, near)
    assert [(patch.center, patch.radius) for patch in ax.patches] == [((0, 0), 1)]
    assert (ax.get_xlabel()[:7], ax.get_ylabel()[:7]) == ("valence", "arousal")
    ax.figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert boxes.keys() == near.keys()
    assert not any(a.overlaps(b) for a, b in combinations(boxes.values(), 2))
    assert (0.7, 0.55) in [text.get_position() for text in ax.texts]  # nothing near it: left where it is


def test_errors_on_the_circumplex_are_means_of_cells_from_truth_to_prediction():
    truth = np.array([[-0.5, -0.5], [-0.4, -0.6], [0.5, 0.5], [0.4, 0.4], [0.6, -0.5], [np.nan, 0.1]])
    predicted = truth + [[0.2, 0.0], [0.4, 0.2], [-0.1, 0.0], [-0.1, -0.2], [9.0, 9.0], [9.0, 9.0]]
    _, quiver = plotting.circumplex_errors(truth, predicted, cells=2, fewest=2).collections
    order = np.argsort(quiver.X)
    starts = np.stack([quiver.X, quiver.Y], 1)[order]
    moves = np.stack([np.asarray(quiver.U), np.asarray(quiver.V)], 1)[order]
    np.testing.assert_allclose(starts, [[-0.45, -0.55], [0.45, 0.45]])
    np.testing.assert_allclose(moves, [[0.3, 0.1], [-0.1, -0.1]], atol=1e-12)


def test_confusions_on_the_circumplex_leave_from_what_is_true_as_wide_as_they_are_common():
    counts, centers = np.array([[6, 4, 0], [0, 98, 2], [1, 0, 3]]), emotions.CIRCUMPLEX
    ax = plotting.circumplex_confusions(counts, CLASSES, centers, least=0.05)
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    ends = [(arrow.get_position(), arrow.xy) for arrow in arrows]
    assert ends == [(centers["anger"], centers["happiness"]), (centers["neutral"], centers["anger"])]
    lines = [arrow.arrow_patch.get_linewidth() for arrow in arrows]
    assert lines[0] / lines[1] == pytest.approx(0.4 / 0.25)
    ax = plotting.circumplex_confusions(counts, CLASSES, centers | {"anger": (np.nan, np.nan)})
    assert {text.get_text() for text in ax.texts} == set(CLASSES) - {"anger"}


def test_scores_show_value_and_interval_and_carry_down_baseline_and_ceiling():
    rows = {"guess": Score(0.1, 0.05, 0.15), "majority": Score(0.3, 0.2, 0.4)}
    rows |= {"model": Score(0.6, 0.55, 0.65), "raters": Score(0.7, 0.6, 0.8)}
    ax = plotting.scores(rows, baseline=["guess", "majority"], ceiling=["raters"])
    bars, values = ax.lines[0:8:2], ax.lines[1:8:2]
    assert [tuple(bar.get_xdata()) for bar in bars] == [(row.low, row.high) for row in rows.values()]
    assert [value.get_xdata()[0] for value in values] == [row.value for row in rows.values()]
    assert [line.get_xdata()[0] for line in ax.lines[8:]] == [0.3, 0.7]
    assert legend(ax) == ["best baseline", "best ceiling"]
    assert ax.texts[2].get_text() == "0.600 [0.550, 0.650]"
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    assert ax.yaxis_inverted()
    ax = plotting.subgroups(GROUPS, BEST)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["pose: frontal", "pose: turned"]
    assert [value.get_xdata()[0] for value in ax.lines[1:4:2]] == [0.7, 0.5]
    np.testing.assert_allclose(ax.lines[-1].get_xydata(), [[0.75, 0], [0.74, 1]])
    assert legend(ax) == ["best possible"]


def test_curves_show_loss_and_score_of_train_and_validation():
    ax = plotting.curves(HISTORY, ["train_accuracy", "accuracy"], best=2)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "accuracy")
    for line, name in zip(ax.lines, ("accuracy", "train_accuracy"), strict=False):
        np.testing.assert_allclose(line.get_xydata(), HISTORY[["epoch", name]])
    assert legend(ax) == ["validation", "train", "best on validation"]
    several = plotting.curves(HISTORY, ["train_loss", "accuracy"])
    assert legend(several) == ["loss, validation", "loss, train", "accuracy, validation", "accuracy, train"]


@pytest.mark.parametrize("draw", [plotting.learning_curve, partial(plotting.perturbation, [100, 200])])
def test_each_point_lies_within_its_band(draw):
    points = POINTS if draw is plotting.learning_curve else list(POINTS.values())
    ax = draw({"a": points, "b": points})
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[100, 0.4], [200, 0.5]])
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices.round(6)}
    assert {(100.0, 0.3), (100.0, 0.5), (200.0, 0.45), (200.0, 0.6)} <= corners
    assert len({str(line.get_linestyle()) for line in ax.lines}) == 2
    assert legend(ax) == ["a", "b"]


@pytest.mark.parametrize(("draw", "area"), [(plotting.roc, "AUC"), (plotting.precision_recall, "AP")])
def test_threshold_curves_are_drawn_as_given_with_their_area(draw, area):
    ax = draw({"anger": SWEEP, "neutral": (SWEEP[0], SWEEP[0], 0.5)})
    for line, name in zip(ax.lines, ("anger", "neutral"), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), SWEEP[0])
        assert to_hex(line.get_color()) == emotions.COLORS[name]
    assert legend(ax) == ["anger  0.75", "neutral  0.50"]
    assert ax.get_legend().get_title().get_text() == area
    assert len({str(line.get_linestyle()) for line in ax.lines[:2]}) == 2


def test_arrows_point_towards_the_light():
    down, right = np.zeros((8, 8)), np.zeros((8, 8))
    down[2, 5], right[6, 1] = 40.0, -20.0
    (quiver,) = plotting.arrows(faces(1, size=8)[0], down, right).collections
    sideways, downwards = (np.asarray(part).reshape(8, 8) for part in (quiver.U, quiver.V))
    assert downwards[2, 5] > 0
    assert sideways[6, 1] < 0
    assert np.count_nonzero(downwards) == np.count_nonzero(sideways) == 1
    assert quiver.axes.get_ylim()[0] > quiver.axes.get_ylim()[1]  # rows run down, as in the array
