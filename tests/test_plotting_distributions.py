"""Figures of distributions: the numbers that are drawn are the numbers that were given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers import metrics, plotting

THREE = ("anger", "fear", "happiness")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_a_push_towards_a_class_points_to_its_corner():
    middle = np.full((3, 3), 1 / 3)
    ax = plotting.simplex(middle, np.eye(3) - 1 / 3, np.array([0.6, 0.3, 0.1]), THREE)
    [arrows] = ax.collections
    at = {text.get_text(): np.array(text.get_position()) for text in ax.texts}
    for name, u, v, start in zip(THREE, arrows.U, arrows.V, arrows.get_offsets(), strict=True):
        way = at[name] - start
        assert np.dot(way, (u, v)) / np.linalg.norm(way) > 0.95
    np.testing.assert_allclose(np.hypot(arrows.U, arrows.V), 1)


def test_a_weak_push_is_faint_but_not_gone_and_none_is_no_error():
    pushes = np.array([[1, -1, 0], [0.01, -0.01, 0], [0, 0, 0.0]])
    ax = plotting.simplex(np.full((3, 3), 1 / 3), pushes, np.array([0.6, 0.3, 0.1]), THREE)
    strong, weak, none = ax.collections[0].get_alpha()
    assert strong == 1
    assert strong > weak > none > 0


def test_bars_are_the_truth_and_marks_the_predictions():
    truth, said = np.array([0.6, 0.3, 0.1]), {"kl": np.array([0.5, 0.4, 0.1]), "emd": np.array([0.2, 0.8, 0])}
    ax = plotting.beside(truth, said, THREE)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], truth)
    for line, (name, values) in zip(ax.get_lines(), said.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_allclose(line.get_xdata(), values)
    plotting.beside_key([ax], "people")
    [legend] = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["people", "kl", "emd"]


def test_reliability_leaves_empty_bins_out():
    q = np.array([[0.9, 0.1], [0.55, 0.45], [0.95, 0.05]])
    table = metrics.calibration(np.array([0, 1, 0]), q, 10)
    ax = plotting.reliability({"kl": table})
    _, curve = ax.get_lines()
    np.testing.assert_allclose(curve.get_xydata(), [[0.55, 0.0], [0.9, 1.0], [0.95, 1.0]])
