"""Figures: what goes in is what is drawn, on the axes that was given, and pyplot is left as it was."""

from __future__ import annotations

import io
from collections import namedtuple
from itertools import combinations
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core import formatters
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from helpers import emotions, plotting

Score = namedtuple("Score", "value low high")
CLASSES = ("anger", "happiness", "neutral")


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


def per_class():
    return pd.DataFrame({"F1": [0.2, 0.5, 0.7], "recall": [0.1, 0.6, 0.8]}, index=CLASSES)


def sweep():
    rates = np.logspace(-5, 0, 30)
    return rates, 2 - rates**0.2 + rates * 3


DRAW = {
    "face": lambda ax=None: plotting.face(faces(1)[0], "happiness", ax=ax),
    "face_grid": lambda ax=None: plotting.face_grid(faces(9), ["anger"] * 9, ax=ax),
    "face_rows": lambda ax=None: plotting.face_rows({"anger": faces(3), "neutral": faces(2)}, ax=ax),
    "landmarks": lambda ax=None: plotting.landmarks(faces(1)[0], spiral(), ax=ax),
    "class_balance": lambda ax=None: plotting.class_balance(
        pd.DataFrame({"train": [0.2, 0.3, 0.5], "test": [0.3, 0.3, 0.4]}, index=CLASSES), ax=ax
    ),
    "scatter": lambda ax=None: plotting.scatter(*plane(), CLASSES, ax=ax),
    "circumplex": lambda ax=None: plotting.circumplex(*plane(), CLASSES, emotions.CIRCUMPLEX, ax=ax),
    "distribution": lambda ax=None: plotting.distribution(np.array([0.1, 0.7, 0.2]), CLASSES, ax=ax),
    "ridges": lambda ax=None: plotting.ridges(
        {"anger": np.arange(9.0), "neutral": np.ones(4)}, "brightness", ax=ax
    ),
    "scores": lambda ax=None: plotting.scores(
        {"majority": Score(0.2, 0.1, 0.3), "raters": Score(0.7, 0.6, 0.8)}, ["majority"], ["raters"], ax=ax
    ),
    "confusion": lambda ax=None: plotting.confusion(
        np.array([[3, 1, 0], [0, 9, 0], [2, 2, 2]]), CLASSES, ax=ax
    ),
    "class_scores": lambda ax=None: plotting.class_scores(per_class(), ax=ax),
    "mistakes": lambda ax=None: plotting.mistakes(
        faces(4), ["anger"] * 4, ["happiness"] * 4, np.full(4, 0.9), ax=ax
    ),
    "lr_finder": lambda ax=None: plotting.lr_finder(*sweep(), 1e-3, ax=ax),
    "arrows": lambda ax=None: plotting.arrows(faces(1, size=8)[0], np.eye(8), np.ones((8, 8)), ax=ax),
    "directions": lambda ax=None: plotting.directions(np.arange(9.0), ax=ax),
    "heat_map": lambda ax=None: plotting.heat_map(
        np.arange(6).reshape(2, 3) / 6, ["1", "3"], ["0.1", "0.2", "0.4"], ("C", "gamma"), "accuracy", ax=ax
    ),
    "perturbation": lambda ax=None: plotting.perturbation(
        np.array([0, 0.5, 1]), {"a": [Score(0.5, 0.4, 0.6)] * 3, "b": [Score(0.2, 0.1, 0.4)] * 3}, ax=ax
    ),
    "learning_curve": lambda ax=None: plotting.learning_curve(
        {"training": {100: Score(0.9, 0.8, 1.0), 200: Score(0.8, 0.7, 0.9)}}, ax=ax
    ),
}

SWEEP = (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.7, 1.0]), 0.75)
GROUPS = {"pose": {"frontal": Score(0.7, 0.6, 0.8), "turned": Score(0.5, 0.4, 0.6)}}
DRAW |= {
    "roc": lambda ax=None: plotting.roc({"anger": SWEEP, "neutral": SWEEP}, ax=ax),
    "precision_recall": lambda ax=None: plotting.precision_recall({"anger": SWEEP}, ax=ax),
    "agreement": lambda ax=None: plotting.agreement(*plane()[0].T, plane()[1], CLASSES, "valence", ax=ax),
    "misplaced": lambda ax=None: plotting.misplaced(faces(4), np.eye(4)[:, :2], -np.eye(4)[:, :2], ax=ax),
    "circumplex_errors": lambda ax=None: plotting.circumplex_errors(plane(300)[0], plane(300)[0] / 2, ax=ax),
    "circumplex_confusions": lambda ax=None: plotting.circumplex_confusions(
        np.array([[3, 1, 0], [0, 9, 0], [2, 2, 2]]), CLASSES, emotions.CIRCUMPLEX, ax=ax
    ),
    "subgroups": lambda ax=None: plotting.subgroups(
        GROUPS, {"pose": {"frontal": 0.75, "turned": 0.74}}, ax=ax
    ),
}


@pytest.mark.parametrize("name", DRAW)
def test_draws_on_the_axes_it_is_given_and_opens_no_figure(name):
    figure = Figure()
    ax = figure.subplots()
    assert DRAW[name](ax=ax) is ax
    assert figure.axes == [ax]
    assert ax.has_data()
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", DRAW)
def test_without_axes_makes_one_figure_that_renders_inside_its_canvas(name):
    plotting.style()
    ax = DRAW[name]()
    assert plt.get_fignums() == [ax.figure.number]
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3]
    assert pixels.std() > 0
    drawn, page = ax.figure.get_tightbbox(), ax.figure.get_size_inches()
    assert drawn.min.min() > -0.02  # inches
    assert np.all(drawn.max < page + 0.02)


def test_style_keeps_text_legible_and_pictures_small():
    plotting.style()
    smallest = min(mpl.rcParams["font.size"], mpl.rcParams["legend.fontsize"], mpl.rcParams["axes.labelsize"])
    assert mpl.rcParams["figure.dpi"] <= 80
    assert smallest * mpl.rcParams["figure.dpi"] / 72 >= 12  # pixels


def test_a_notebook_keeps_a_figure_as_a_picture_of_few_colours():
    ax = plotting.face_rows({"anger": faces(4), "happiness": faces(4, seed=1)})
    full = io.BytesIO()
    ax.figure.savefig(full, format="png", bbox_inches="tight")
    small = plotting.look._png(ax.figure)
    shown, meant = (
        np.asarray(Image.open(data).convert("RGB"), dtype=float) for data in (io.BytesIO(small), full)
    )
    assert len(small) < 0.6 * len(full.getvalue())
    assert np.abs(shown - meant).mean() < 2  # of 255


def test_style_gives_a_notebook_that_picture(monkeypatch):
    formatter = formatters.PNGFormatter()
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"image/png": formatter}))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(plt, "switch_backend", lambda name: None)  # that needs a whole kernel
    plotting.style()
    picture = Image.open(io.BytesIO(formatter(plotting.face(faces(1)[0]).figure)))
    assert (picture.format, picture.mode) == ("PNG", "P")  # a palette
    plotting.style(colors=10)
    picture = Image.open(io.BytesIO(formatter(plotting.face(faces(1)[0]).figure)))
    assert 5 < len(picture.getcolors()) <= 10


def test_neighbouring_classes_differ_in_marker_as_well_as_in_colour():
    for names in (emotions.FER7, emotions.FERPLUS8, emotions.AFFECTNET8):
        assert len({plotting.MARKERS[name] for name in names}) == len(names)
        assert len({plotting.color(name) for name in names}) == len(names)


@pytest.mark.parametrize("color", [False, True])
def test_face_grid_shows_each_face_where_its_title_stands(color):
    images = faces(5, color=color)
    ax = plotting.face_grid(images, ["a", "b", "c", "d", "e"], columns=3)
    shown = np.asarray(ax.images[0].get_array())
    for face, text in zip(images, ax.texts, strict=True):
        x, y = text.get_position()
        left, top = round(x - 24), round(y + 0.05 * 48)
        tile = shown[top : top + 48, left : left + 48]
        expected = face.transpose(1, 2, 0) if color else face
        np.testing.assert_allclose(tile * 255, expected, atol=255 / 46 + 1e-6)  # half of one of 24 levels
    assert [text.get_text() for text in ax.texts] == list("abcde")


def test_face_rows_leaves_missing_places_white():
    ax = plotting.face_rows({"anger": np.zeros((3, 48, 48)), "neutral": np.zeros((1, 48, 48))})
    shown = np.asarray(ax.images[0].get_array())
    assert shown.shape == (2 * 48 + 3, 3 * 48 + 2 * 3)
    assert shown[60, 10] == 0
    assert np.all(shown[51:, 51:] == 1)
    assert [text.get_text() for text in ax.texts] == ["anger", "neutral"]


def test_each_column_of_rows_has_its_title_above_it():
    rows = {"right": np.zeros((3, 48, 48)), "wrong": np.zeros((3, 48, 48))}
    ax = plotting.face_rows(rows, ["anger", "", "mean"])
    above = [text for text in ax.texts if text.get_position()[1] < 0]
    assert [text.get_text() for text in above] == ["anger", "", "mean"]
    assert [text.get_position()[0] for text in above] == [24, 51 + 24, 2 * 51 + 24]
    assert to_hex(ax.collections[-1].get_color()[0]) == emotions.COLORS["anger"]


def test_landmark_parts_name_each_of_the_68_points():
    assert sorted({point for part in plotting.LANDMARK_PARTS.values() for point in part}) == list(range(68))


def test_landmarks_are_drawn_where_they_are():
    points = spiral()
    drawn = np.concatenate([line.get_xydata() for line in plotting.landmarks(faces(1)[0], points).lines])
    assert len(drawn) == 68 + 4  # both eyes and both lips are closed
    assert {tuple(point) for point in drawn.tolist()} == {tuple(point) for point in points.tolist()}


def test_class_balance_draws_shares_in_percent_from_top_to_bottom():
    shares = pd.DataFrame({"train": [0.2, 0.3, 0.5], "validation": [0.1, 0.2, 0.7]}, index=CLASSES)
    ax = plotting.class_balance(shares)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([20, 30, 50])
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches] == [emotions.COLORS[name] for name in CLASSES]
    assert list(ax.collections[0].get_offsets()[:, 0]) == pytest.approx([10, 20, 70])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train (bar)", "validation"]
    assert ax.yaxis_inverted()


def test_scatter_draws_each_point_once_in_the_colour_of_its_class():
    points, labels = plane()
    ax = plotting.scatter(points, labels, CLASSES, ("one", "two"))
    for index, group in enumerate(ax.collections):
        np.testing.assert_array_equal(group.get_offsets(), points[labels == index])
        assert to_hex(group.get_facecolor()[0]) == emotions.COLORS[CLASSES[index]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("one", "two")


def test_circumplex_has_the_unit_circle_and_names_its_axes():
    points, labels = plane()
    ax = plotting.circumplex(points, labels, CLASSES, {"anger": (-0.4, 0.5)})
    assert [(patch.center, patch.radius) for patch in ax.patches] == [((0, 0), 1)]
    assert ax.get_xlabel().startswith("valence")
    assert ax.get_ylabel().startswith("arousal")
    assert [(text.get_text(), text.get_position()) for text in ax.texts] == [("anger", (-0.4, 0.5))]


def test_names_on_the_circumplex_do_not_cover_each_other():
    points, labels = plane()
    close = {
        "anger": (-0.43, 0.55),
        "contempt": (-0.43, 0.57),
        "fear": (-0.4, 0.56),
        "happiness": (0.7, 0.55),
    }
    ax = plotting.circumplex(points, labels, CLASSES, close)
    ax.figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert boxes.keys() == close.keys()
    assert not any(a.overlaps(b) for a, b in combinations(boxes.values(), 2))
    assert (0.7, 0.55) in [text.get_position() for text in ax.texts]  # nothing near it: left where it is


def test_distribution_bars_are_the_probabilities():
    ax = plotting.distribution(np.array([0.1, 0.7, 0.2]), CLASSES)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.1, 0.7, 0.2])
    assert ax.get_xlim() == (0, 1)


def test_ridges_show_each_histogram_and_leave_out_what_is_unknown():
    values = {
        "anger": np.array([0.5, 1.5, 1.6, 9.9, np.nan]),
        "fear": np.array([]),
        "neutral": np.full(30, 5.0),
    }
    ax = plotting.ridges(values, "brightness (0 to 255)", bins=np.linspace(0, 10, 11))
    expected = {0: [1, 2, 0, 0, 0, 0, 0, 0, 0, 1], 1: [0] * 10, 2: [0, 0, 0, 0, 0, 30, 0, 0, 0, 0]}
    for (row, counts), group in zip(expected.items(), ax.collections, strict=True):
        x, y = group.get_paths()[0].vertices.T
        heights = [row - y[(x >= left) & (x <= left + 1)].min() for left in range(10)]
        tall = [max(counts[max(i - 1, 0) : i + 2]) for i in range(10)]  # bins share their edges
        np.testing.assert_allclose(heights, 0.88 * np.array(tall) / max(max(counts), 1), atol=1e-9)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["anger", "fear", "neutral"]


def test_scores_show_value_and_interval_and_carry_down_baseline_and_ceiling():
    rows = {
        "guess": Score(0.1, 0.05, 0.15),
        "majority": Score(0.3, 0.2, 0.4),
        "model": Score(0.6, 0.55, 0.65),
        "raters": Score(0.7, 0.6, 0.8),
    }
    ax = plotting.scores(rows, baseline=["guess", "majority"], ceiling=["raters"])
    bars, values = ax.lines[0:8:2], ax.lines[1:8:2]
    assert [tuple(bar.get_xdata()) for bar in bars] == [(row.low, row.high) for row in rows.values()]
    assert [value.get_xdata()[0] for value in values] == [row.value for row in rows.values()]
    assert [line.get_xdata()[0] for line in ax.lines[8:]] == [0.3, 0.7]
    assert ax.texts[2].get_text() == "0.600 [0.550, 0.650]"
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    assert ax.yaxis_inverted()


def test_confusion_shows_each_row_in_percent_and_its_faces():
    table = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4]])
    ax = plotting.confusion(table, CLASSES)
    written = np.array([int(text.get_text()) for text in ax.texts]).reshape(3, 3)
    np.testing.assert_array_equal(written, [[75, 25, 0], [0, 0, 0], [25, 25, 50]])
    np.testing.assert_allclose(ax.images[0].get_array(), written)
    places = [text.get_position() for text in ax.texts]
    assert places[1] == (1, 0)  # second column, first row: anger taken for happiness
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["anger  (4)", "happiness  (0)", "neutral  (8)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(CLASSES)


def test_class_scores_draw_bars_and_marks():
    ax = plotting.class_scores(per_class())
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.2, 0.5, 0.7])
    assert list(ax.collections[0].get_offsets()[:, 0]) == pytest.approx([0.1, 0.6, 0.8])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["F1 (bar)", "recall"]


def test_mistakes_stand_under_what_was_said_and_what_was_right():
    said, right = ["happiness", "neutral", "anger"], ["anger", "happiness", "neutral"]
    ax = plotting.mistakes(faces(3), right, said, np.array([0.91, 0.5, 0.333]), columns=2)
    words = [text.get_text() for text in ax.texts]
    assert words == ["happiness 91%", "not anger", "neutral 50%", "not happiness", "anger 33%", "not neutral"]
    shown = np.asarray(ax.images[0].get_array())
    for image, below in zip(faces(3), ax.texts[1::2], strict=True):
        x, y = below.get_position()
        left, top = round(x - 24), round(y + 0.05 * 48)
        np.testing.assert_allclose(shown[top : top + 48, left : left + 48] * 255, image, atol=255 / 46 + 1e-6)


def test_misplaced_faces_stand_under_what_was_said_and_what_was_annotated():
    ax = plotting.misplaced(
        faces(2), np.array([[0.5, -0.25], [0, 1]]), np.array([[-0.64, -0.02], [0.2, 0.3]])
    )
    words = [text.get_text() for text in ax.texts]
    assert words == ["−0.6  +0.0", "not +0.5  −0.2", "+0.2  +0.3", "not +0.0  +1.0"]


def test_lr_finder_marks_the_chosen_rate():
    rates, losses = sweep()
    ax = plotting.lr_finder(rates, losses, chosen=3e-3)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), rates)
    assert set(ax.lines[1].get_xdata()) == {3e-3}
    assert ax.get_xscale() == "log"


def test_arrows_point_towards_the_light():
    down, right = np.zeros((8, 8)), np.zeros((8, 8))
    down[2, 5], right[6, 1] = 40.0, -20.0
    (quiver,) = plotting.arrows(faces(1, size=8)[0], down, right).collections
    sideways, downwards = (np.asarray(part).reshape(8, 8) for part in (quiver.U, quiver.V))
    assert downwards[2, 5] > 0
    assert sideways[6, 1] < 0
    assert np.count_nonzero(downwards) == np.count_nonzero(sideways) == 1
    assert quiver.axes.get_ylim()[0] > quiver.axes.get_ylim()[1]  # rows run down, as in the array


def test_directions_share_the_half_circle_evenly():
    bars = plotting.directions(np.array([1.0, 4.0, 2.0])).patches
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in bars], [30, 90, 150])
    assert [bar.get_height() for bar in bars] == [1, 4, 2]


def test_heat_map_frames_the_largest_value_and_writes_every_number():
    values = np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.5]])
    ax = plotting.heat_map(values, ["1", "3"], ["a", "b", "c"])
    (frame,) = ax.patches
    assert frame.get_x() < 1 < frame.get_x() + frame.get_width()
    assert frame.get_y() < 1 < frame.get_y() + frame.get_height()
    assert [text.get_text() for text in ax.texts] == [f"{value:.3f}" for value in values.ravel()]
    np.testing.assert_array_equal(ax.images[0].get_array(), values)


def test_learning_curve_puts_each_score_at_its_number_of_faces_within_its_band():
    points = {100: Score(0.4, 0.3, 0.5), 200: Score(0.5, 0.45, 0.6), 800: Score(0.6, 0.55, 0.62)}
    ax = plotting.learning_curve({"validation": points})
    np.testing.assert_allclose(
        ax.lines[0].get_xydata(), [[size, score.value] for size, score in points.items()]
    )
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices.round(6)}
    assert {(float(size), score.low) for size, score in points.items()} <= corners
    assert {(float(size), score.high) for size, score in points.items()} <= corners


@pytest.mark.parametrize(("draw", "area"), [(plotting.roc, "AUC"), (plotting.precision_recall, "AP")])
def test_threshold_curves_are_drawn_as_given_with_their_area(draw, area):
    ax = draw({"anger": SWEEP, "neutral": (SWEEP[0], SWEEP[0], 0.5)})
    for line, name in zip(ax.lines, ("anger", "neutral"), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), SWEEP[0])
        assert to_hex(line.get_color()) == emotions.COLORS[name]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["anger  0.75", "neutral  0.50"]
    assert ax.get_legend().get_title().get_text() == area
    assert len({str(line.get_linestyle()) for line in ax.lines[:2]}) == 2


def test_agreement_has_the_truth_on_the_horizontal_axis():
    points, labels = plane()
    ax = plotting.agreement(points[:, 0], points[:, 1], labels, CLASSES, "arousal")
    np.testing.assert_array_equal(ax.collections[1].get_offsets(), points[labels == 1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("arousal, annotated", "arousal, predicted")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[-1, -1], [1, 1]])


def test_errors_on_the_circumplex_are_means_of_cells_from_truth_to_prediction():
    truth = np.array([[-0.5, -0.5], [-0.4, -0.6], [0.5, 0.5], [0.4, 0.4], [0.6, -0.5], [np.nan, 0.1]])
    predicted = truth + [[0.2, 0.0], [0.4, 0.2], [-0.1, 0.0], [-0.1, -0.2], [9.0, 9.0], [9.0, 9.0]]
    ax = plotting.circumplex_errors(truth, predicted, cells=2, fewest=2)
    _, quiver = ax.collections
    order = np.argsort(quiver.X)
    starts = np.stack([quiver.X, quiver.Y], 1)[order]
    moves = np.stack([np.asarray(quiver.U), np.asarray(quiver.V)], 1)[order]
    np.testing.assert_allclose(starts, [[-0.45, -0.55], [0.45, 0.45]])
    np.testing.assert_allclose(moves, [[0.3, 0.1], [-0.1, -0.1]], atol=1e-12)


def test_confusions_on_the_circumplex_leave_from_what_is_true_as_wide_as_they_are_common():
    table = np.array([[6, 4, 0], [0, 98, 2], [1, 0, 3]])
    ax = plotting.circumplex_confusions(table, CLASSES, emotions.CIRCUMPLEX, least=0.05)
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    ends = [(arrow.get_position(), arrow.xy) for arrow in arrows]
    centers = emotions.CIRCUMPLEX
    assert ends == [
        (centers["anger"], centers["happiness"]),
        (centers["neutral"], centers["anger"]),
    ]
    widths = [arrow.arrow_patch.get_linewidth() for arrow in arrows]
    assert widths[0] / widths[1] == pytest.approx(0.4 / 0.25)
    assert {text.get_text() for text in ax.texts} - {""} == set(CLASSES)
    ax = plotting.circumplex_confusions(table, CLASSES, centers | {"anger": (np.nan, np.nan)})
    assert {text.get_text() for text in ax.texts} == set(CLASSES) - {"anger"}


def test_subgroups_show_interval_and_ceiling_of_each_part():
    ax = plotting.subgroups(GROUPS, {"pose": {"frontal": 0.75, "turned": 0.74}})
    bars, values, best = ax.lines[0::3], ax.lines[1::3], ax.lines[2::3]
    assert [tuple(bar.get_xdata()) for bar in bars] == [(0.6, 0.8), (0.4, 0.6)]
    assert [value.get_xdata()[0] for value in values] == [0.7, 0.5]
    assert [mark.get_xdata()[0] for mark in best] == [0.75, 0.74]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["pose: frontal", "pose: turned"]
    assert ax.yaxis_inverted()
    assert len(plotting.subgroups(GROUPS).lines) == 4


def test_pictures_keep_every_line_one_pixel_wide():
    plotting.style()
    images = np.zeros((5, 96, 96))
    images[:, 40, :], images[:, :, 7] = 255, 255
    ax = plotting.pictures(images, ["a", "happiness", "c", "d", "e"], columns=3)
    ax.figure.canvas.draw()
    shown = np.asarray(ax.images[0].get_array())
    drawn = np.asarray(ax.figure.canvas.buffer_rgba())[..., 0] / 255
    assert drawn.shape == shown.shape
    row, column = 96 + 6 + 2 * round(0.22 * 96) + 40, 96 + 6 + 7  # of the fifth picture
    np.testing.assert_allclose(drawn[row - 2 : row + 3, 160], [0, 0, 1, 0, 0], atol=0.01)
    np.testing.assert_allclose(drawn[row + 20, column - 2 : column + 3], [0, 0, 1, 0, 0], atol=0.01)
    assert [text.get_text() for text in ax.texts] == ["a", "happiness", "c", "d", "e"]


@pytest.mark.parametrize("color", [False, True])
def test_heat_leaves_cold_places_bare_and_is_scaled_by_each_map(color):
    images = faces(3, color=color) // 2 + 60
    maps = np.zeros((3, 48, 48))
    maps[0, 5, 7], maps[0, 6, 7], maps[1, 1, 1] = 4.0, 2.0, -3.0
    shown = plotting.heated(images, maps)
    bare = images if color else np.stack([images] * 3, axis=1)
    assert (shown.dtype, shown.shape) == (np.uint8, (3, 3, 48, 48))
    changed = np.argwhere((shown != bare).any(axis=1))
    assert changed.tolist() == [[0, 5, 7], [0, 6, 7]]
    np.testing.assert_array_equal(shown, plotting.heated(images, 1e-6 * maps))
    red, green, blue = shown[0, :, 5, 7].astype(int)
    assert min(red, green) > blue + 60  # the hottest place is yellow
    red, green, blue = shown[0, :, 6, 7].astype(int) - bare[0, :, 6, 7]
    assert red > max(green, blue)  # half as hot: redder than the face was


def test_perturbation_draws_each_curve_within_its_band():
    curve = [Score(0.9, 0.8, 1.0), Score(0.5, 0.4, 0.6), Score(0.1, 0.05, 0.2)]
    ax = plotting.perturbation(np.array([0, 0.5, 1]), {"Grad-CAM": curve, "random": curve[::-1]})
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.9], [0.5, 0.5], [1, 0.1]])
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices.round(6)}
    assert {(0.5, 0.4), (0.5, 0.6), (1.0, 0.05)} <= corners
    assert len({str(line.get_linestyle()) for line in ax.lines}) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Grad-CAM", "random"]
