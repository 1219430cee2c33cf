"""Batches: the same bits however they are cut, and warps that agree with SciPy."""

import gc
import threading

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from helpers import batches, files
from helpers.batches import Augment, Batches


class Faces:
    """The least that batches are made from."""

    valence_arousal = None
    distribution = None

    def __init__(self, num, size=16, channels=None):
        shape = (num, size, size) if channels is None else (num, channels, size, size)
        self.images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.labels = np.arange(num) % 7


def only(**amounts):
    """Return an augmentation of these changes alone."""
    return Augment(**{"flip": False, **dict.fromkeys(batches.LIMITS, 0.0), **amounts})


def images(faces, augment=None, epoch=0, **how):
    """Return all images of an epoch, in the set's order."""
    [batch] = Batches(faces, len(faces.images), augment=augment, **how).epoch(epoch)
    return batch.images


def indices(data, epoch=0):
    return [batch.index.tolist() for batch in data.epoch(epoch)]


def lowbias32(x):
    """Wellons's mixer on Python's unbounded integers, with the offset that moves zero."""
    x = (x + 0x9E3779B9) % 2**32
    x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
    x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_random_bits_are_the_published_mixer_uniform_and_uncorrelated():
    samples, draws = (0, 7, 40_000), (0, 2)
    key = lowbias32(lowbias32(3) ^ 5)
    expected = [[lowbias32(lowbias32(key ^ sample) ^ draw) for draw in draws] for sample in samples]
    bits = batches.random_bits(3, 5, torch.tensor(samples)[:, None], torch.tensor(draws))
    assert bits.tolist() == expected
    assert [[batches.random_bits(3, 5, sample, draw) for draw in draws] for sample in samples] == expected
    many = batches.random_bits(0, 1, torch.arange(20_000)[:, None], torch.arange(15)).double().numpy() / 2**32
    assert min(stats.kstest(column, "uniform").pvalue for column in many.T) > 1e-4
    assert np.abs(np.corrcoef(many.T) - np.eye(15)).max() < 5 / np.sqrt(20_000)


def test_an_epoch_holds_each_sample_once_in_an_order_of_its_own():
    data = Batches(Faces(60), 20, shuffle=True)
    first, second = (sum(indices(data, epoch), []) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    assert sum(indices(Batches(Faces(60), 20, shuffle=True, seed=1)), []) not in (first, second)
    assert [len(rows) for rows in indices(Batches(Faces(50), 20))] == [20, 20, 10]
    assert [len(rows) for rows in indices(Batches(Faces(50), 20, shuffle=True))] == [20, 20]
    assert [len(rows) for rows in indices(Batches(Faces(5), 20, shuffle=True))] == [5]


def test_batch_size_start_and_share_change_no_bit():
    faces, how = Faces(480), {"seed": 4, "augment": Augment(perspective=0.1), "shuffle": True}
    small, large = Batches(faces, 6, **how), Batches(faces, 160, **how)
    one, other = (torch.cat([batch.images for batch in data.epoch(2)]) for data in (small, large))
    assert torch.equal(one, other)
    assert torch.equal(one[66 * 6 :], torch.cat([batch.images for batch in small.epoch(2, start=66)]))
    parts = [Batches(faces, 6, **how, share=(rank, 2)) for rank in (0, 1)]
    for batch, *shares in zip(*(each.epoch(2) for each in (small, *parts)), strict=True):
        assert torch.equal(torch.stack([share.index for share in shares], 1).flatten(), batch.index)
        assert torch.equal(torch.stack([share.images for share in shares], 1).flatten(0, 1), batch.images)


@pytest.mark.parametrize("channels", [None, 3])
def test_what_has_no_room_is_read_from_disk_to_the_same_bits(tmp_path, monkeypatch, channels):
    faces, how = Faces(50, channels=channels), {"seed": 3, "augment": Augment(), "shuffle": True}
    np.save(tmp_path / "images.npy", faces.images)
    resident = Batches(faces, 8, **how)
    faces.images = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert isinstance(Batches(faces).images, torch.Tensor)
    monkeypatch.setattr(batches.runtime, "free_memory", lambda where: faces.images.nbytes)
    assert isinstance(Batches(faces, resident=True).images, torch.Tensor)
    streamed = Batches(faces, 8, **how)
    assert isinstance(streamed.images, files.Rows)
    assert streamed.shape == resident.shape == (50, channels or 1, 16, 16)
    for epoch, start in ((0, 0), (1, 4)):
        pairs = list(zip(resident.epoch(epoch, start), streamed.epoch(epoch, start), strict=True))
        assert len(pairs) == 6 - start
        assert all(torch.equal(a.images, b.images) and torch.equal(a.index, b.index) for a, b in pairs)
    gc.collect()
    before = threading.active_count()
    for _ in streamed.epoch():
        break  # who stops early leaves no thread behind
    gc.collect()
    assert threading.active_count() == before


def test_targets_follow_their_images_as_float32():
    faces = Faces(30)
    faces.valence_arousal = np.stack([np.arange(30), -np.arange(30)], 1) / 30.0  # float64
    for batch in Batches(faces, 8, shuffle=True).epoch():
        assert torch.equal(batch.targets["labels"], batch.index % 7)
        assert torch.equal(batch.targets["valence_arousal"][:, 0], batch.index.float() / 30)
        expected = (faces.images[batch.index][:, None] / 255 - batches.MEAN) / batches.STD
        np.testing.assert_allclose(batch.images, expected, atol=1e-6)


@pytest.mark.parametrize("channels", [None, 3])
def test_no_augmentation_changes_nothing_and_features_stay(channels):
    faces = Faces(12, channels=channels)
    assert torch.equal(images(faces), images(faces, Augment.none()))
    assert images(faces, Augment().scaled(0.5)).shape == (12, channels or 1, 16, 16)
    faces.images = np.random.default_rng(0).normal(size=(12, 5))
    assert torch.equal(images(faces, Augment()), torch.tensor(faces.images, dtype=torch.float32))


def test_flip_alternates_between_epochs():
    plain = images(Faces(40))
    even, odd = (images(Faces(40), only(flip=True), epoch) for epoch in (0, 1))
    flipped = ~torch.isclose(even, plain, atol=1e-5).flatten(1).all(1)
    assert 8 < flipped.sum() < 32
    assert torch.allclose(odd, torch.where(flipped[:, None, None, None], plain, plain.flip(-1)), atol=1e-5)
    assert torch.allclose(even, torch.where(flipped[:, None, None, None], plain.flip(-1), plain), atol=1e-5)


def test_the_warp_is_what_scipy_says():
    faces, index = Faces(6, size=24), torch.arange(6)
    faces.images = ndimage.gaussian_filter(faces.images, (0, 2, 2))
    augment = only(rotation=25, translation=0.15, scale=0.2)
    warped = images(faces, augment, epoch=3, seed=1)[:, 0]
    draws = batches.random_bits(1, 3, index[:, None], torch.arange(2, 6)).double().numpy()
    for i, (turn, shift_x, shift_y, zoom) in enumerate(draws / 2**32 * 2 - 1):
        angle, size = np.radians(25 * turn), 1 + 0.2 * zoom
        # (row, column) in pixels around the centre: x runs along columns
        matrix = size * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre, shift = np.full(2, 11.5), 24 * 0.15 * np.array([shift_y, shift_x])
        image, offset = (
            batches.normalise(torch.tensor(faces.images[i])).numpy(),
            centre + shift - matrix @ centre,
        )
        expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(warped[i], expected, atol=2e-3)


def test_perspective_keeps_straight_lines_straight():
    faces = Faces(1, size=64)
    faces.images = np.zeros((1, 64, 64), np.uint8)
    faces.images[0, 14:20] = 255
    tilted = images(faces, only(perspective=0.5))[0, 0] + batches.MEAN / batches.STD  # from 0 on
    rows = (tilted * torch.arange(64)[:, None]).sum(0) / tilted.sum(0)
    line = np.polyval(np.polyfit(np.arange(64), rows.numpy(), 1), np.arange(64))
    assert np.abs(line - rows.numpy()).max() < 0.1
    assert np.ptp(line) > 1


def test_light_is_a_gain_and_an_offset_within_their_ranges():
    pairs = zip(images(Faces(200)), images(Faces(200), only(brightness=0.1, contrast=0.2)), strict=True)
    gain, offset = np.array([np.polyfit(a.flatten(), b.flatten(), 1) for a, b in pairs]).T
    assert 0.8 <= gain.min() < 0.83
    assert 1.17 < gain.max() <= 1.2
    assert 0.35 < np.abs(offset).max() <= 0.1 / batches.STD + 1e-5


def test_erasing_takes_its_share_of_images_and_of_area():
    faces = Faces(2000)
    faces.images = np.full((2000, 32, 24), 255, np.uint8)
    area = (images(faces, only(erasing=0.3, rotation=5)) == 0).float().mean((1, 2, 3))
    hit = area[area > 0]
    assert stats.binomtest(len(hit), 2000, 0.3).pvalue > 1e-3
    assert 0.01 < hit.min() < hit.max() < 0.23


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augment(rotation=200), r"Augment\(rotation=200\): must be from 0 to 180"),
        (lambda: Augment(erasing=-0.1), r"Augment\(erasing=-0.1\): must be from 0 to 1"),
        (lambda: Augment(scale=float("nan")), "scale"),
        (lambda: Batches(Faces(0)), "the set is empty"),
        (lambda: Batches(Faces(3), 0), "batch_size must be at least 1, not 0"),
        (lambda: Batches(Faces(9), 3, share=(0, 2)), "batch_size 3 cannot be shared evenly by 2 processes"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
