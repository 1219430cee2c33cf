"""HOG against scikit-image, the support vector machine against scikit-learn, and its file against damage."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import feature
from sklearn.svm import SVC

from helpers import hog

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


def reference(images: np.ndarray, **options) -> np.ndarray:
    axis = 0 if images.ndim == 4 else None
    return np.stack([feature.hog(image, channel_axis=axis, **hog.DEFAULTS | options) for image in images])


@pytest.mark.parametrize("block_norm", hog.BLOCK_NORMS)
@pytest.mark.parametrize(("cell", "block"), [((8, 8), (2, 2)), ((5, 7), (1, 2)), ((12, 8), (1, 1))])
@pytest.mark.parametrize("orientations", [1, 9, 12])
def test_features_equal_scikit_image(orientations, cell, block, block_norm):
    options = {"orientations": orientations, "pixels_per_cell": cell, "cells_per_block": block}
    for size in ((48, 48), (47, 53)):
        images = np.concatenate([noise(1, size), smooth(1, size), edges(size)])
        found = hog.hog(images, **options, block_norm=block_norm)
        np.testing.assert_allclose(found, reference(images, **options, block_norm=block_norm), atol=2e-6)


@pytest.mark.parametrize("orientations", [2, 4, 9, 36])
def test_each_gradient_falls_in_the_bin_of_scikit_image(orientations):
    options = {"pixels_per_cell": (1, 1), "cells_per_block": (1, 1), "block_norm": "L1"}
    images = np.concatenate([noise(1, (40, 40)), edges((40, 40))])  # a cell of one pixel shows its bin
    got = hog.hog(images, orientations, **options)
    np.testing.assert_array_equal(got > 0.5, reference(images, orientations=orientations, **options) > 0.5)
    assert (got > 0.5).sum() > 5000


def test_colour_takes_the_strongest_channel_and_no_images_have_no_features():
    images = np.concatenate([noise(6, channels=(3,)), noise(6, channels=(3,), seed=1) // 64])  # many ties
    np.testing.assert_allclose(hog.hog(images), reference(images), atol=2e-6)
    none = np.empty((0, 48, 48), dtype=np.uint8)
    assert (hog.hog(none).shape, hog.cells(none).shape) == ((0, 900), (0, 6, 6, 9))


def test_images_are_taken_in_parts_read_only_and_strided(tmp_path):
    images = smooth(90)
    assert images.size > hog.PIXELS_AT_ONCE
    expected = np.concatenate([hog.hog(image[None]) for image in images])
    np.save(tmp_path / "images.npy", images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = hog.hog(np.load(tmp_path / "images.npy", mmap_mode="r"))
        np.testing.assert_allclose(found, expected, atol=1e-7)
        flipped = hog.hog(np.ascontiguousarray(images[::2, :, ::-1]))
        np.testing.assert_array_equal(hog.hog(images[::2, :, ::-1]), flipped)


BAD_IMAGES = [
    (noise(1) / 255, {}, "uint8 from 0 to 255, not float64"),
    (noise(1)[0], {}, r"not \[48, 48\]; one image is image\[None\]"),
    (noise(1, channels=(4,)), {}, r"not \[1, 4, 48, 48\]"),
    ([[1, 2], [3, 4]], {}, r"images are \[N, H, W\]"),
    (noise(1), {"pixels_per_cell": (64, 64)}, "48 x 48 pixels are smaller than one block of 128 x 128"),
    (noise(1), {"pixels_per_cell": (8.0, 8)}, r"pixels_per_cell .* integers from 1 up, not 9, \(8.0, 8\)"),
    (noise(1), {"pixels_per_cell": 8}, r"pixels_per_cell \(height, width\) .* integers"),
    (noise(1), {"cells_per_block": 2}, "cells_per_block .* integers"),
    (noise(1), {"cells_per_block": (0, 2)}, "cells_per_block .*from 1 up"),
    (noise(1), {"orientations": 0}, "orientations.* integers from 1 up, not 0"),
    (noise(1), {"orientations": 9.0}, "orientations.* integers from 1 up, not 9.0"),
    (noise(1), {"block_norm": "L2-hys"}, "unknown block_norm 'L2-hys'; did you mean .L2-Hys.?"),
]


@pytest.mark.parametrize(("images", "options", "message"), BAD_IMAGES)
def test_bad_images_are_named_in_one_line(images, options, message):
    with pytest.raises(ValueError, match=f"^.*{message}.*$"):
        hog.hog(images, **options)


@pytest.mark.parametrize("side", [3, 8, 16])
def test_the_drawing_equals_scikit_images_and_of_a_mean_is_the_mean(side):
    histograms = hog.cells(smooth(3), 9, (side, side))
    drawn = hog.picture(histograms, (side, side))
    wanted = feature.hog(smooth(3)[0], 9, (side, side), (1, 1), visualize=True)[1]
    np.testing.assert_allclose(drawn[0], wanted[: drawn.shape[1], : drawn.shape[2]], atol=1e-4)
    mean = hog.picture(histograms.mean(axis=0), (side, side))
    np.testing.assert_allclose(mean, drawn.mean(axis=0), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"rows, columns, orientations\], not \[900\]"):
        hog.picture(np.zeros(900))


def problem(num: int = 240, num_classes: int = 4, seed: int = 0):
    """Overlapping clouds, so that faces lie on both sides of every border."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num)
    centers = rng.normal(size=(num_classes, 12))
    return (centers[labels] + rng.normal(scale=1.5, size=(num, 12))).astype(np.float32), labels


@pytest.fixture(scope="module")
def machine() -> hog.SVM:
    return hog.SVM.fit(*problem(), CLASSES, C=2.0, gamma=0.05)


@pytest.fixture(scope="module")
def unseen() -> np.ndarray:
    return problem(2000, seed=1)[0]


@pytest.mark.parametrize(("C", "gamma"), [(0.3, 0.02), (1.0, "scale"), (10.0, 0.1)])
def test_the_machine_is_that_of_scikit_learn(C, gamma, unseen):
    ours = hog.SVM.fit(*problem(), CLASSES, C=C, gamma=gamma)
    theirs = SVC(C=C, gamma=gamma, decision_function_shape="ovo").fit(*problem())
    assert ours.gamma == pytest.approx(theirs._gamma, rel=1e-6)
    vectors = ours.support_vectors, theirs.support_vectors_.astype(np.float32)
    np.testing.assert_array_equal(*(np.unique(each, axis=0) for each in vectors))
    np.testing.assert_allclose(ours.decision(unseen), theirs.decision_function(unseen), atol=1e-5 * C)
    np.testing.assert_array_equal(ours.predict(unseen), theirs.predict(unseen))


def test_on_faces_it_predicts_what_scikit_learn_predicts(drawn_faces):
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
    hog.torch.set_num_threads(1)
    assert at_once == [1, 3, 1]
    for other in machines[1:]:
        np.testing.assert_array_equal(other.coefficients, machines[0].coefficients)
        np.testing.assert_array_equal(other.intercepts, machines[0].intercepts)


def test_a_class_without_faces_is_never_predicted_and_ties_go_to_the_first():
    features, labels = problem()
    kept = labels != 1
    ours = hog.SVM.fit(features[kept], labels[kept], CLASSES, gamma=0.05)
    theirs = SVC(gamma=0.05).fit(features[kept], labels[kept])
    np.testing.assert_array_equal(ours.predict(features), theirs.predict(features))
    assert ours.votes(features)[:, 1].max() == 0
    nothing = np.zeros((1, 2), dtype=np.float32)  # each of three classes beats one of the others
    circle = hog.SVM(CLASSES[:3], 1.0, nothing, np.zeros((1, 3)), np.array([1.0, -1.0, 1.0]), hog.DEFAULTS)
    np.testing.assert_array_equal(circle.votes(nothing), [[1, 1, 1]])
    assert circle.predict(nothing) == [0]


BAD_TRAINING = [
    ({"features": np.zeros(8)}, "Expected 2D array, got 1D array"),
    ({"labels": np.zeros(7, dtype=int)}, r"inconsistent numbers of samples: \[8, 7\]"),
    ({"labels": np.arange(8) / 4}, "labels are integers from 0 to 3"),
    ({"labels": np.arange(8)}, "labels are integers from 0 to 3"),
    ({"labels": np.ones(8, dtype=int)}, "every face is 'happiness'"),
    ({"features": np.full((8, 2), np.nan)}, "contains NaN"),
    ({"C": 0}, "'C' parameter .* Got 0"),
    ({"gamma": "auto"}, "gamma is a number above 0, not 'auto'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TRAINING)
def test_bad_training_is_refused(change, message):
    arguments = {"features": np.eye(8, 2), "labels": np.arange(8) % 4, "classes": CLASSES} | change
    with pytest.raises(ValueError, match=message):
        hog.SVM.fit(**arguments)


def test_more_faces_than_memory_holds_and_features_of_another_length_are_refused(machine, monkeypatch):
    assert machine.predict(np.empty((0, 12), dtype=np.float32)).shape == (0,)
    with pytest.raises(ValueError, match=r"are \[N, 12\], not \[3, 900\]; make them with SVM.features"):
        machine.predict(np.zeros((3, 900)))
    monkeypatch.setattr(hog, "MOST_IN_A_PAIR", 100)
    with pytest.raises(ValueError, match="two largest classes have 1.. faces, more than the 100"):
        hog.SVM.fit(*problem(), CLASSES)


@pytest.fixture
def saved(machine, tmp_path) -> Path:
    machine.save(tmp_path / "models" / "svm.npz")
    return tmp_path / "models" / "svm.npz"


def refused(path: Path, why: str = "") -> None:
    with pytest.raises(ValueError, match=rf"^.*{path.name} is not a whole SVM .*{why}.*$"):
        hog.SVM.load(path)


def test_a_machine_comes_back_the_same_and_damage_is_noticed(machine, saved, unseen):
    loaded = hog.SVM.load(saved)
    for name in ("classes", "gamma", "settings"):
        assert getattr(loaded, name) == getattr(machine, name)
    np.testing.assert_array_equal(loaded.decision(unseen), machine.decision(unseen))
    whole, wanted, num_refused = saved.read_bytes(), machine.decision(unseen[:50]), 0
    for length in np.linspace(0, len(whole) - 1, 20).astype(int):
        saved.write_bytes(whole[:length])
        refused(saved)
    for place in np.concatenate([np.random.default_rng(0).choice(len(whole), 60), np.arange(-60, 0)]):
        saved.write_bytes(b"".join((whole[:place], bytes([whole[place] ^ 0x11]), whole[place:][1:])))
        try:  # a byte that nothing depends on, such as a date, may be taken
            np.testing.assert_array_equal(hog.SVM.load(saved).decision(unseen[:50]), wanted)
        except ValueError as error:
            num_refused += "svm.npz is not a whole SVM" in str(error)
    assert num_refused > 60


def test_pickles_foreign_files_and_arrays_that_do_not_fit_are_refused(saved, tmp_path):
    with np.load(saved) as arrays:
        content = dict(arrays)
    for name in ("support_vectors", "coefficients", "intercepts"):
        np.savez(saved, **content | {name: content[name][:-1]})
        refused(saved, "of shape")
    np.savez(saved, words="{}", support_vectors=np.array([{}], dtype=object))
    refused(saved, "holds a pickle")
    saved.write_bytes(f"cos\nmkdir\n(V{tmp_path / 'sprung'}\ntR.".encode())  # as pickled: os.mkdir(sprung)
    refused(saved, "holds a pickle")
    assert not (tmp_path / "sprung").exists()
    saved.write_text("<!DOCTYPE html>\n<html>not found</html>")
    refused(saved)
    with pytest.raises(FileNotFoundError, match="no SVM at .*none.npz; SVM.fit"):
        hog.SVM.load(tmp_path / "none.npz")
