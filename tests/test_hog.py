"""HOG against scikit-image, the support vector machine against scikit-learn, and its file against damage."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage import feature
from sklearn.svm import SVC

from helpers import hog

SIZES = [(48, 48), (47, 53), (40, 64)]
CLASSES = ("anger", "happiness", "sadness", "neutral")


def noise(num: int, size=(48, 48), channels=(), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, *channels, *size), dtype=np.uint8)


def smooth(num: int, size=(48, 48), seed: int = 0) -> np.ndarray:
    """Soft blobs with the spectrum of a face, and plateaus where nothing changes."""
    blobs = gaussian_filter(noise(num, size, seed=seed).astype(float), (0, 3, 3))
    return np.clip((blobs - 110) * 8, 0, 255).astype(np.uint8)


def edges(size=(48, 48)) -> np.ndarray:
    """Ramps whose gradients lie exactly on the border between two bins, and steps from black to white."""
    y, x = np.mgrid[: size[0], : size[1]]
    ramps = [x, y, x + y, x - y, 2 * x, 255 * (x > 20), 255 * (y > 20), 255 * (x > y), 255 * ((x + y) % 2)]
    return np.stack([ramp - ramp.min() for ramp in ramps]).astype(np.uint8)


def reference(images: np.ndarray, **settings) -> np.ndarray:
    settings = hog.DEFAULTS | settings
    axis = 0 if images.ndim == 4 else None
    return np.stack([feature.hog(image, channel_axis=axis, **settings) for image in images])


# ---------------------------------------------------------------- features


@pytest.mark.parametrize("block_norm", hog.BLOCK_NORMS)
@pytest.mark.parametrize(
    ("cell", "block"), [((8, 8), (2, 2)), ((6, 6), (3, 3)), ((5, 7), (1, 2)), ((12, 8), (1, 1))]
)
@pytest.mark.parametrize("orientations", [1, 4, 9, 12])
def test_equals_scikit_image(orientations, cell, block, block_norm):
    settings = {"pixels_per_cell": cell, "cells_per_block": block, "block_norm": block_norm}
    for size in SIZES:
        images = np.concatenate([noise(1, size), smooth(1, size), edges(size)])
        found = hog.hog(images, orientations, **settings)
        np.testing.assert_allclose(found, reference(images, orientations=orientations, **settings), atol=2e-6)


@pytest.mark.parametrize("orientations", [2, 3, 4, 7, 8, 9, 12, 18, 36])
def test_each_gradient_falls_in_the_bin_of_scikit_image(orientations):
    settings = {"pixels_per_cell": (1, 1), "cells_per_block": (1, 1), "block_norm": "L1"}
    images = np.concatenate([noise(3, (40, 40)), edges((40, 40))])  # a cell of one pixel shows its bin
    got = hog.hog(images, orientations, **settings)
    np.testing.assert_array_equal(got > 0.5, reference(images, orientations=orientations, **settings) > 0.5)
    assert (got > 0.5).sum() > 8000


@given(
    seed=st.integers(0, 10**6), height=st.integers(2, 40), width=st.integers(2, 40), cell=st.integers(1, 9)
)
def test_equals_scikit_image_at_any_size(seed, height, width, cell):
    images = smooth(2, (height, width), seed)
    settings = {"pixels_per_cell": (cell, max(1, cell - 1)), "cells_per_block": (1, 1)}
    if min(height // cell, width // max(1, cell - 1)) < 1:
        with pytest.raises(ValueError, match="smaller than one block"):
            hog.hog(images, **settings)
    else:
        np.testing.assert_allclose(hog.hog(images, **settings), reference(images, **settings), atol=2e-6)


def test_colour_takes_the_strongest_channel():
    images = np.concatenate([noise(6, channels=(3,)), noise(6, channels=(3,), seed=1) // 64])  # many ties
    np.testing.assert_allclose(hog.hog(images), reference(images), atol=2e-6)
    grey = noise(3)
    np.testing.assert_array_equal(hog.hog(np.stack([grey] * 3, axis=1)), hog.hog(grey))


def test_equals_scikit_image_on_drawn_faces(drawn_faces):
    images = drawn_faces.images[:40]
    np.testing.assert_allclose(hog.hog(images), reference(images), atol=2e-6)


@pytest.mark.real
def test_equals_scikit_image_on_real_faces(workbook_data):
    from helpers import datasets

    images = datasets.load("fer2013", root=workbook_data).images[::200]
    for orientations, cell, block in [(9, 8, 2), (8, 6, 3), (12, 12, 1)]:
        settings = {"pixels_per_cell": (cell, cell), "cells_per_block": (block, block)}
        found = hog.hog(images, orientations, **settings)
        np.testing.assert_allclose(found, reference(images, orientations=orientations, **settings), atol=1e-4)


def test_flat_images_and_incomplete_cells_and_no_images():
    assert not hog.hog(np.full((2, 48, 48), 200, dtype=np.uint8)).any()
    image = noise(1, (53, 50))
    other = image.copy()
    other[:, 50:], other[:, :, 49:] = 0, 0  # row 48 and column 48 touch the last gradients, these do not
    np.testing.assert_array_equal(hog.hog(image), hog.hog(other))
    assert hog.hog(np.empty((0, 48, 48), dtype=np.uint8)).shape == (0, 900)
    assert hog.cells(np.empty((0, 48, 48), dtype=np.uint8)).shape == (0, 6, 6, 9)


def test_batches_do_not_show():
    images = smooth(300)
    assert len(hog._parts(images)) > 1
    one_by_one = np.concatenate([hog.hog(image[None]) for image in images])
    np.testing.assert_allclose(hog.hog(images), one_by_one, atol=1e-7)


def test_read_only_and_strided_images_are_taken_as_they_are(tmp_path):
    images = noise(8)
    np.save(tmp_path / "images.npy", images)
    flipped = np.ascontiguousarray(images[::2, :, ::-1])
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(hog.hog(mapped), hog.hog(images))
        np.testing.assert_array_equal(hog.hog(images[::2, :, ::-1]), hog.hog(flipped))


def test_defaults_are_those_of_the_function():
    parameters = inspect.signature(hog.hog).parameters.values()
    assert {p.name: p.default for p in parameters if p.name != "images"} == hog.DEFAULTS


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (noise(1) / 255, {}, "uint8 from 0 to 255, not float64"),
        (noise(1)[0], {}, r"not \[48, 48\]; one image is image\[None\]"),
        (noise(1, channels=(4,)), {}, r"not \[1, 4, 48, 48\]"),
        ([[1, 2], [3, 4]], {}, r"images are \[N, H, W\]"),
        (noise(1), {"pixels_per_cell": (64, 64)}, "48 x 48 pixels are smaller than one block of 128 x 128"),
        (noise(1), {"cells_per_block": (7, 1)}, "smaller than one block of 56 x 8"),
        (noise(1), {"pixels_per_cell": (8.0, 8)}, "pixels_per_cell is .*two integers"),
        (noise(1), {"pixels_per_cell": 8}, "pixels_per_cell is .*two integers"),
        (noise(1), {"cells_per_block": (0, 2)}, "cells_per_block is .*from 1 up"),
        (noise(1), {"orientations": 0}, "orientations is an integer from 1 up, not 0"),
        (noise(1), {"orientations": 9.0}, "orientations is an integer from 1 up, not 9.0"),
        (noise(1), {"block_norm": "L2-hys"}, "unknown block_norm 'L2-hys'; did you mean .L2-Hys.?"),
    ],
)
def test_bad_input_is_named_in_one_line(images, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        hog.hog(images, **settings)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("side", [3, 5, 8, 16])
def test_picture_equals_scikit_image(side):
    image = smooth(1)
    drawn = hog.picture(hog.cells(image, 9, (side, side)), (side, side))[0]
    wanted = feature.hog(image[0], 9, (side, side), (1, 1), visualize=True)[1]
    np.testing.assert_allclose(drawn, wanted[: drawn.shape[0], : drawn.shape[1]], atol=1e-4)


def test_picture_draws_lines_along_the_edge():
    upright = hog.picture(hog.cells((255 * (np.mgrid[:48, :48][1] > 20)).astype(np.uint8)[None]), (15, 15))[0]
    rows, columns = np.nonzero(upright[:15, 30:45])  # the edge runs through the third column of cells
    assert np.ptp(rows) > 3 * np.ptp(columns) > 0  # the bin's middle is 10 degrees off


def test_picture_of_a_mean_is_the_mean_picture_and_other_shapes_are_refused():
    histograms = hog.cells(smooth(5))
    expected = hog.picture(histograms).mean(axis=0)
    np.testing.assert_allclose(hog.picture(histograms.mean(axis=0)), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"rows, columns, orientations\], not \[900\]"):
        hog.picture(np.zeros(900))
    with pytest.raises(ValueError, match="glyph is"):
        hog.picture(np.zeros((6, 6, 9)), (0, 8))


# ---------------------------------------------------------------- the support vector machine


def problem(num: int = 240, num_classes: int = 4, seed: int = 0):
    """Overlapping clouds, so that faces lie on both sides of every border."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    centers = rng.normal(size=(num_classes, 12))
    return (centers[labels] + rng.normal(scale=1.5, size=(num, 12))).astype(np.float32), labels


def from_scikit_learn(svc: SVC) -> hog.SVM:
    """Lay out LIBSVM's coefficients (one row an opponent) as one column a pair."""
    owner, columns = np.repeat(np.arange(len(svc.classes_)), svc.n_support_), []
    for first, second in itertools.combinations(range(len(svc.classes_)), 2):
        column = np.where(owner == first, svc.dual_coef_[second - 1], 0.0)
        columns.append(np.where(owner == second, svc.dual_coef_[first], column))
    vectors, coefficients = svc.support_vectors_.astype(np.float32), np.stack(columns, axis=1)
    return hog.SVM(CLASSES, svc._gamma, vectors, coefficients, svc.intercept_, hog.DEFAULTS)


@pytest.fixture(scope="module")
def machine() -> hog.SVM:
    return hog.SVM.fit(*problem(), CLASSES, C=2.0, gamma=0.05)


@pytest.fixture(scope="module")
def unseen() -> np.ndarray:
    return problem(2000, seed=1)[0]


@pytest.mark.parametrize("C", [0.1, 1.0, 30.0])
def test_the_same_arrays_predict_what_scikit_learn_predicts(C, unseen):
    svc = SVC(C=C, gamma=0.05, decision_function_shape="ovo").fit(*problem())
    ours = from_scikit_learn(svc)
    np.testing.assert_allclose(ours.decision(unseen), svc.decision_function(unseen), atol=1e-4 * C)
    np.testing.assert_array_equal(ours.predict(unseen), svc.predict(unseen))


@pytest.mark.parametrize(("C", "gamma"), [(0.3, 0.02), (1.0, "scale"), (10.0, 0.1)])
def test_fit_finds_the_machine_of_scikit_learn(C, gamma, unseen):
    ours = hog.SVM.fit(*problem(), CLASSES, C=C, gamma=gamma)
    theirs = SVC(C=C, gamma=gamma, decision_function_shape="ovo").fit(*problem())
    assert ours.gamma == pytest.approx(theirs._gamma, rel=1e-6)
    np.testing.assert_array_equal(in_order(ours.support_vectors), in_order(theirs.support_vectors_))
    np.testing.assert_allclose(ours.decision(unseen), theirs.decision_function(unseen), atol=1e-4 * C)
    np.testing.assert_array_equal(ours.predict(unseen), theirs.predict(unseen))


def in_order(vectors: np.ndarray) -> np.ndarray:
    return np.unique(vectors.astype(np.float32), axis=0)


def test_fit_finds_the_machine_of_scikit_learn_on_faces(drawn_faces):
    features = hog.hog(drawn_faces.images)
    ours = hog.SVM.fit(features[:150], drawn_faces.labels[:150], drawn_faces.classes, C=3.0)
    theirs = SVC(C=3.0).fit(features[:150], drawn_faces.labels[:150])
    np.testing.assert_array_equal(ours.predict(features), theirs.predict(features))
    np.testing.assert_array_equal(ours.features(drawn_faces.images[:9]), features[:9])


def test_pairs_side_by_side_give_the_same_machine_and_only_as_many_as_memory_holds(monkeypatch):
    at_once, pool = [], hog.ThreadPoolExecutor
    monkeypatch.setattr(hog, "ThreadPoolExecutor", lambda num, **how: at_once.append(num) or pool(num, **how))
    machines = []
    for threads, free in ((1, 2**33), (3, 2**33), (3, 0)):
        monkeypatch.setattr(hog.torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(hog.runtime, "free_memory", lambda where, free=free: free)
        machines.append(hog.SVM.fit(*problem(), CLASSES, C=2.0, gamma=0.05))
    assert at_once == [1, 1, 3, 3, 1, 1]
    for other in machines[1:]:
        np.testing.assert_array_equal(other.coefficients, machines[0].coefficients)
        np.testing.assert_array_equal(other.intercepts, machines[0].intercepts)


def test_labels_decide_not_their_order():
    features, labels = problem()
    order = np.random.default_rng(3).permutation(len(labels))
    one, other = (
        hog.SVM.fit(features[rows], labels[rows], CLASSES, gamma=0.05) for rows in (slice(None), order)
    )
    np.testing.assert_allclose(one.decision(features), other.decision(features), atol=5e-3)


def test_two_classes():
    features, labels = problem(num_classes=2)
    ours = hog.SVM.fit(features, labels, CLASSES[:2], gamma=0.05)
    theirs = SVC(gamma=0.05).fit(features, labels)
    # LIBSVM's sign is the first class's, scikit-learn turns it round for two classes
    np.testing.assert_allclose(-ours.decision(features)[:, 0], theirs.decision_function(features), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(features), theirs.predict(features))


def test_a_class_without_faces_is_never_predicted():
    features, labels = problem()
    kept = labels != 1
    ours = hog.SVM.fit(features[kept], labels[kept], CLASSES, gamma=0.05)
    theirs = SVC(gamma=0.05).fit(features[kept], labels[kept])
    np.testing.assert_array_equal(ours.predict(features), theirs.predict(features))
    assert ours.votes(features)[:, 1].max() == 0


def test_votes_add_up_and_ties_go_to_the_first_class():
    nothing = np.zeros((1, 2), dtype=np.float32)
    circle = hog.SVM(CLASSES[:3], 1.0, nothing, np.zeros((1, 3)), np.array([1.0, -1.0, 1.0]), hog.DEFAULTS)
    np.testing.assert_array_equal(circle.votes(nothing), [[1, 1, 1]])  # each beats one of the others
    assert circle.predict(nothing) == [0]


@pytest.mark.parametrize("gap", [-1e-11, 1e-11])
def test_a_face_close_to_the_border_is_decided_in_double_precision(gap):
    features, labels = problem()
    svc = SVC(C=2.0, gamma=0.05, decision_function_shape="ovo").fit(features, labels)
    ours = from_scikit_learn(svc)
    border = svc.decision_function(features)  # scikit-learn computes in float64
    for row in range(20):
        moved = dataclasses.replace(ours, intercepts=ours.intercepts - border[row] + gap)
        np.testing.assert_array_equal(moved.decision(features[row : row + 1]) > 0, [[gap > 0] * 6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros(8)}, r"features \[N, D\] and labels \[N\]"),
        ({"labels": np.zeros(7, dtype=int)}, r"shape \(8, 2\) and \(7,\)"),
        ({"labels": np.arange(8) / 4}, "labels are integers from 0 to 3"),
        ({"labels": np.arange(8)}, "labels are integers from 0 to 3"),
        ({"labels": np.ones(8, dtype=int)}, "every face is 'happiness'"),
        ({"features": np.full((8, 2), np.nan)}, "NaN or infinity"),
        ({"C": 0}, "C is a number above 0, not 0"),
        ({"gamma": -1.0}, "gamma is a number above 0, not -1.0"),
        ({"gamma": "auto"}, "gamma is a number above 0, not 'auto'"),
    ],
)
def test_bad_training_is_named_in_one_line(change, message):
    arguments = {"features": np.eye(8, 2), "labels": np.arange(8) % 4, "classes": CLASSES} | change
    with pytest.raises(ValueError, match=message) as caught:
        hog.SVM.fit(**arguments)
    assert "\n" not in str(caught.value)


def test_more_faces_than_memory_holds_are_refused_before_it_is_full(monkeypatch):
    monkeypatch.setattr(hog, "MOST_IN_A_PAIR", 100)
    features, labels = problem()
    with pytest.raises(ValueError, match="two largest classes have 1.. faces, more than the 100"):
        hog.SVM.fit(features, labels, CLASSES)
    hog.SVM.fit(features[:150], labels[:150], CLASSES, gamma=0.05)


def test_no_faces_give_no_predictions_and_features_of_another_length_are_refused(machine):
    assert machine.predict(np.empty((0, 12), dtype=np.float32)).shape == (0,)
    with pytest.raises(ValueError, match=r"are \[N, 12\], not \[3, 900\]; make them with SVM.features"):
        machine.predict(np.zeros((3, 900)))


# ---------------------------------------------------------------- its file


@pytest.fixture
def saved(machine, tmp_path) -> Path:
    machine.save(tmp_path / "models" / "svm.npz")
    return tmp_path / "models" / "svm.npz"


def test_a_saved_machine_comes_back_the_same(machine, saved, unseen):
    loaded = hog.SVM.load(saved)
    np.testing.assert_array_equal(loaded.decision(unseen), machine.decision(unseen))
    for name in ("classes", "gamma", "settings"):
        assert getattr(loaded, name) == getattr(machine, name)
    with np.load(saved, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    assert [path.name for path in saved.parent.iterdir()] == ["svm.npz"]


def test_an_unfinished_save_leaves_the_old_file(machine, saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(np, "savez", lambda file, **_: (file.write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        machine.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["svm.npz"]


def refused(path: Path, why: str = "") -> None:
    with pytest.raises(ValueError, match=rf"{path.name} is not a whole SVM .*{why}") as caught:
        hog.SVM.load(path)
    assert "\n" not in str(caught.value)


def test_every_cut_is_noticed(saved):
    whole = saved.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        saved.write_bytes(whole[:length])
        refused(saved)


def test_no_flipped_byte_changes_a_prediction(machine, saved, unseen):
    whole, wanted, num_refused = saved.read_bytes(), machine.decision(unseen[:50]), 0
    places = np.random.default_rng(0).choice(len(whole), 150, replace=False)
    for place in np.concatenate([places, np.arange(60), len(whole) - 1 - np.arange(400)]):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
        try:  # a byte that nothing depends on, such as a date, may be taken
            np.testing.assert_array_equal(hog.SVM.load(saved).decision(unseen[:50]), wanted)
        except ValueError as error:
            num_refused += "svm.npz is not a whole SVM" in str(error)
    assert num_refused > 150


class Trap:
    """Makes a folder when unpickled: what a pickled model may do."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_a_pickle_is_refused_and_not_run(saved, tmp_path):
    sprung = tmp_path / "sprung"
    np.savez(saved, format=hog.FORMAT, support_vectors=np.array([Trap(sprung)], dtype=object))
    refused(saved, "holds a pickle")
    saved.write_bytes(f"cos\nmkdir\n(V{sprung}\ntR.".encode())  # as pickled: os.mkdir(sprung)
    refused(saved, "holds a pickle")
    assert not sprung.exists()


def test_foreign_files_and_arrays_that_do_not_fit_are_named(saved, tmp_path):
    with np.load(saved) as arrays:
        content = dict(arrays)
    for name in ("support_vectors", "coefficients", "intercepts"):
        np.savez(saved, **content | {name: content[name][:-1]})
        refused(saved, "of shape")
    np.savez(saved, **{name: array for name, array in content.items() if name != "words"})
    refused(saved, "words")
    np.savez(saved, weights=np.zeros(3))
    refused(saved, "its format is None, not 'reading-faces")
    saved.write_text("<!DOCTYPE html>\n<html>not found</html>")
    refused(saved)
    with pytest.raises(FileNotFoundError, match="no SVM at .*none.npz; SVM.fit"):
        hog.SVM.load(tmp_path / "none.npz")
