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

    def __init__(self, num, size=16, channels=None, seed=0):
        shape = (num, size, size) if channels is None else (num, channels, size, size)
        self.images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        self.labels = np.arange(num) % 7


def lowbias32(x):
    """Wellons's mixer on Python's unbounded integers, with the offset that moves zero."""
    x = (x + 0x9E3779B9) % 2**32
    x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
    x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_random_bits_are_the_published_mixer():
    bits = batches.random_bits(3, 5, torch.tensor([0, 7, 40_000]), 0, 3)[:, ::2].tolist()
    key = lowbias32(lowbias32(3) ^ 5)
    expected = [[lowbias32(lowbias32(key ^ sample) ^ draw) for draw in (0, 2)] for sample in (0, 7, 40_000)]
    assert bits == expected
    one_by_one = [[batches.random_number(3, 5, sample, draw) for draw in (0, 2)] for sample in (0, 7, 40_000)]
    assert one_by_one == expected


def test_random_bits_are_uniform_and_uncorrelated():
    draws = batches.random_bits(0, 1, torch.arange(20_000), 0, 15).double().numpy() / 2**32
    assert min(stats.kstest(column, "uniform").pvalue for column in draws.T) > 1e-4
    correlation = np.corrcoef(draws.T) - np.eye(15)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_an_epoch_holds_each_sample_once_in_an_order_of_its_own():
    data = Batches(Faces(60), 20, shuffle=True)
    first, second = data.order(0), data.order(1)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(60))
    assert first.tolist() != second.tolist()


def test_batch_size_and_start_change_no_bit():
    faces, augment = Faces(48), Augment(perspective=0.1)
    small, large = (Batches(faces, size, seed=4, augment=augment, shuffle=True) for size in (8, 24))
    one, other = ([batch.images for batch in data.epoch(2)] for data in (small, large))
    assert torch.equal(torch.cat(one), torch.cat(other))
    assert torch.equal(torch.cat(list(one[3:])), torch.cat([b.images for b in small.epoch(2, start=3)]))


@pytest.mark.parametrize("channels", [None, 3])
def test_batches_from_disk_are_the_same_bits(tmp_path, channels):
    faces = Faces(50, channels=channels)
    np.save(tmp_path / "images.npy", faces.images)
    settings = {"seed": 3, "augment": Augment(), "shuffle": True}
    resident = Batches(faces, 8, **settings)
    faces.images = np.load(tmp_path / "images.npy", mmap_mode="r")
    streamed = Batches(faces, 8, **settings, resident=False)
    assert isinstance(streamed.images, files.Rows)
    assert streamed.shape == resident.shape
    for epoch, start in ((0, 0), (1, 4)):
        pairs = list(zip(resident.epoch(epoch, start), streamed.epoch(epoch, start), strict=True))
        assert len(pairs) == 6 - start
        assert all(torch.equal(a.images, b.images) and torch.equal(a.index, b.index) for a, b in pairs)
    index = torch.tensor([7, 7, 49])
    assert torch.equal(streamed.batch(index, 2).images, resident.batch(index, 2).images)


def test_shares_of_a_batch_make_the_batch():
    settings = {"seed": 3, "augment": Augment(), "shuffle": True}
    faces = Faces(40)
    whole = Batches(faces, 8, **settings)
    parts = [Batches(faces, 8, **settings, share=(rank, 2)) for rank in (0, 1)]
    for batch, *shares in zip(*(each.epoch(2) for each in (whole, *parts)), strict=True):
        assert torch.equal(torch.stack([share.index for share in shares], 1).flatten(), batch.index)
        assert torch.equal(torch.stack([share.images for share in shares], 1).flatten(0, 1), batch.images)


def test_a_set_that_has_no_room_is_read_from_disk(tmp_path, monkeypatch):
    faces = Faces(50)
    np.save(tmp_path / "images.npy", faces.images)
    faces.images = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert isinstance(Batches(faces).images, torch.Tensor)
    monkeypatch.setattr(batches.runtime, "free_memory", lambda where: faces.images.nbytes)
    assert isinstance(Batches(faces).images, files.Rows)
    assert isinstance(Batches(faces, resident=True).images, torch.Tensor)


def test_a_reader_that_stops_early_leaves_nothing_behind(tmp_path):
    faces = Faces(50)
    np.save(tmp_path / "images.npy", faces.images)
    faces.images = np.load(tmp_path / "images.npy", mmap_mode="r")
    before = threading.active_count()
    for _ in Batches(faces, 8, resident=False).epoch():
        break
    assert threading.active_count() <= before + 1  # the generator is closed when it is collected
    gc.collect()
    assert threading.active_count() == before


def test_unshuffled_batches_keep_the_rest_and_shuffled_ones_leave_it():
    assert [len(b.index) for b in Batches(Faces(50), 20).epoch()] == [20, 20, 10]
    assert [len(b.index) for b in Batches(Faces(50), 20, shuffle=True).epoch()] == [20, 20]
    assert [len(b.index) for b in Batches(Faces(5), 20, shuffle=True).epoch()] == [5]


def test_targets_follow_their_images():
    faces = Faces(30)
    faces.valence_arousal = np.stack([np.arange(30), -np.arange(30)], 1).astype(np.float32) / 30
    for batch in Batches(faces, 8, shuffle=True).epoch():
        assert torch.equal(batch.targets["labels"], batch.index % 7)
        assert torch.allclose(batch.targets["valence_arousal"][:, 0], batch.index / 30)
        assert torch.equal(batch.images, batches.normalise(torch.tensor(faces.images[batch.index])[:, None]))


@pytest.mark.parametrize("channels", [None, 3])
def test_no_augmentation_changes_nothing(channels):
    faces = Faces(12, channels=channels)
    plain, none = (Batches(faces, 12, augment=a).batch(torch.arange(12)) for a in (None, Augment.none()))
    assert torch.equal(plain.images, none.images)
    assert plain.images.shape == (12, channels or 1, 16, 16)


def test_flip_alternates_between_epochs():
    data = Batches(Faces(40), 40, augment=Augment(True, *[0.0] * 7))
    whole = torch.arange(40)
    plain = Batches(Faces(40), 40).batch(whole).images
    even, odd = (data.batch(whole, epoch).images for epoch in (0, 1))
    flipped = ~torch.isclose(even, plain, atol=1e-5).flatten(1).all(1)
    assert 8 < flipped.sum() < 32
    assert torch.allclose(odd, torch.where(flipped[:, None, None, None], plain, plain.flip(-1)), atol=1e-5)
    assert torch.allclose(even, torch.where(flipped[:, None, None, None], plain.flip(-1), plain), atol=1e-5)


def test_the_warp_is_what_scipy_says():
    augment = Augment(False, 25, 0.15, 0.2, 0.0, 0.0, 0.0, 0.0)
    faces, index = Faces(6, size=24), torch.arange(6)
    faces.images = ndimage.gaussian_filter(faces.images, (0, 2, 2))
    warped = Batches(faces, 6, seed=1, augment=augment).batch(index, epoch=3).images[:, 0]
    turn, shift_x, shift_y, zoom = batches.random_bits(1, 3, index, 2, 6).double().numpy().T / 2**32 * 2 - 1
    for i in range(6):
        angle, size = np.radians(25 * turn[i]), 1 + 0.2 * zoom[i]
        # (row, column) in pixels around the centre: x runs along columns
        matrix = size * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        shift = 24 * 0.15 * np.array([shift_y[i], shift_x[i]])
        centre = np.full(2, 11.5)
        image = batches.normalise(torch.tensor(faces.images[i])).numpy()
        offset = centre + shift - matrix @ centre
        expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(warped[i], expected, atol=2e-3)


def test_perspective_keeps_straight_lines_straight():
    faces = Faces(1, size=64)
    faces.images = np.zeros((1, 64, 64), np.uint8)
    faces.images[0, 31:33] = 255
    augment = Augment(False, 0, 0, 0, 0.5, 0.0, 0.0, 0.0)
    tilted = Batches(faces, 1, augment=augment).batch(torch.tensor([0])).images[0, 0]
    rows = (tilted.clamp(min=0) * torch.arange(64)[:, None]).sum(0) / tilted.clamp(min=0).sum(0)
    fit = np.polyfit(np.arange(64), rows.numpy(), 1)
    assert np.abs(np.polyval(fit, np.arange(64)) - rows.numpy()).max() < 0.1


def test_light_is_a_gain_and_an_offset_within_their_ranges():
    faces = Faces(200)
    changed = (
        Batches(faces, 200, augment=Augment(False, 0, 0, 0, 0, 0.1, 0.2, 0)).batch(torch.arange(200)).images
    )
    plain = Batches(faces, 200).batch(torch.arange(200)).images
    lines = np.array([np.polyfit(a.flatten(), b.flatten(), 1) for a, b in zip(plain, changed, strict=True)])
    assert 0.8 <= lines[:, 0].min() < 0.83
    assert 1.17 < lines[:, 0].max() <= 1.2
    assert 0.35 < np.abs(lines[:, 1]).max() <= 0.1 / batches.STD + 1e-5


def test_erasing_takes_its_share_of_images_and_of_area():
    faces = Faces(2000, size=32)
    faces.images[:] = 255
    erased = (
        Batches(faces, 2000, augment=Augment(False, 0, 0, 0, 0, 0, 0, 0.3)).batch(torch.arange(2000)).images
    )
    area = (erased == 0).float().mean((1, 2, 3))
    hit = area[area > 0]
    assert stats.binomtest(len(hit), 2000, 0.3).pvalue > 1e-3
    assert hit.min() > 0.01
    assert hit.max() < 0.23


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


def test_float64_targets_are_handed_out_as_float32():
    faces = Faces(9)
    faces.valence_arousal = np.linspace(-1, 1, 18).reshape(9, 2)
    [batch] = Batches(faces).epoch()
    assert batch.targets["valence_arousal"].dtype == torch.float32
