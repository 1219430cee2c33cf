"""The drawn faces: what is said of them must be true of the pixels and of the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression

from helpers import emotions, faces
from helpers.faces import camera, people
from helpers.faces.shape import MOVES

SIZE = 96
UNITS = faces.ACTION_UNITS


def _render(units=None, view=None, **identity):
    return faces.render(units or {}, identity, {"noise": 0.0} | (view or {}), size=SIZE)[0].float()


def _described(levels=None, view=None):
    """Return units, person and view of the average face that shows these action units."""
    units = torch.zeros(1, 17, 2)
    for name, level in (levels or {}).items():
        units[:, UNITS.index(name)] = level
    like = units[:, :, 0]
    return units, people.average(faces.IDENTITY, {}, like), people.average(faces.VIEW, view or {}, like)


def _landmarks(levels=None, view=None):
    return camera.landmarks(*_described(levels, view), SIZE)[0].numpy()


@pytest.fixture(scope="module")
def many() -> faces.Drawn:
    return faces.sample(6000, seed=21, size=16)


def test_the_faces_are_those_that_the_notebooks_quote():
    drawn = faces.sample(30, seed=0, color=True, masks=True)
    labels = "2 0 5 6 3 3 4 3 0 3 3 3 6 4 2 2 4 6 0 3 6 4 6 3 0 6 2 2 3 6"
    assert drawn.labels.tolist() == [int(label) for label in labels.split()]
    means = "103 130 132 63 123 107 62 162 133 137 116 102 144 125 134 43 170 124 56 129 137 112 193 216 117"
    light = drawn.images[:25].float().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(light, [int(mean) for mean in means.split()], atol=1)
    small = torch.nn.functional.avg_pool2d(drawn.images[:3].float().mean(1), 12).flatten(1).numpy()
    expected = [
        [86, 130, 122, 57, 91, 121, 117, 81, 86, 123, 132, 80, 85, 96, 121, 123],
        [114, 156, 161, 97, 90, 124, 112, 107, 123, 156, 164, 119, 127, 152, 157, 123],
        [82, 109, 123, 77, 84, 109, 130, 103, 168, 119, 146, 182, 222, 127, 135, 203],
    ]
    np.testing.assert_allclose(small, expected, atol=1)
    points = [[7.9, 19.9], [31.3, 46.1], [39.6, 11.5], [29.1, 10.8], [23, 27.8], [17, 19.8], [21.5, 34]]
    np.testing.assert_allclose(drawn.landmarks[0, :56:8], points, atol=0.1)
    np.testing.assert_allclose(drawn.masks.float().mean((0, 2, 3)), [0.175, 0.257, 0.137, 0.288], atol=0.002)
    np.testing.assert_allclose(drawn.pose[0], [-0.0904, -0.0749, -0.2586], atol=1e-3)
    np.testing.assert_allclose(drawn.valence_arousal[1], [-0.7004, 0.5949], atol=1e-3)
    assert drawn.votes[1].tolist() == [9, 0, 1, 0, 0, 0, 0]
    x = faces.sample(60, seed=1, size=SIZE).images.double()
    sums = [x.mean(), x.square().mean().sqrt(), x.diff(dim=1).abs().mean(), x.diff(dim=2).abs().mean()]
    np.testing.assert_allclose(sums, [119.880, 135.246, 7.0876, 7.7936], atol=2e-3)  # each line counts


def test_a_face_depends_on_seed_and_number_not_on_how_many_nor_on_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        drawn = faces.sample(300, seed=3, masks=True)  # two blocks, side by side
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        few = faces.sample(71, seed=3, masks=True)
        again = faces.sample(300, seed=3).images
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn.images, again)
    for name in few.__dataclass_fields__:
        assert torch.equal(getattr(drawn, name)[:71], getattr(few, name)), name
    both = torch.cat([few.images, faces.sample(70, seed=4).images]).numpy().reshape(141, -1)
    assert len(np.unique(both, axis=0)) == 141


def test_uniform_numbers_are_uniform_and_streams_are_independent():
    index = torch.arange(20_000)
    one, other = people.uniform(0, "one", index, 2), people.uniform(0, "other", index, 1)
    for column in (*one.T, other[:, 0]):
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    for pair in ((one[:, 0], one[:, 1]), (one[:, 0], other[:, 0]), (one[1:, 0], one[:-1, 0])):
        assert abs(np.corrcoef(*(side.numpy() for side in pair))[0, 1]) < 4 / np.sqrt(len(index))


def test_mps_is_drawn_for_by_the_cpu(monkeypatch):
    move = torch.Tensor.to  # this machine may lack MPS: nothing but the result may be sent there

    def without_mps(self, *rest):
        return move(self, *("cpu" if each == "mps" else each for each in rest))

    monkeypatch.setattr(torch.Tensor, "to", without_mps)
    assert torch.equal(faces.sample(3, seed=3, device="mps").images, faces.sample(3, seed=3).images)


def test_grey_is_the_luminance_of_colour_at_any_size():
    assert faces.sample(3, size=47).images.shape == (3, 47, 47)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601
    colour = (faces.sample(64, seed=1, color=True).images.float() * weights).sum(1)
    grey = faces.sample(64, seed=1).images.float()
    unclipped = (grey > 2) & (grey < 230)  # a channel that is cut at white changes the sum
    assert ((colour - grey).abs()[unclipped] < 3).float().mean() > 0.97


@pytest.mark.parametrize(
    ("trait", "without", "points"),
    [("brow_density", 0.0, (17, 27)), ("lip_shade", 1.1, (48, 68)), ("iris_shade", 0.6, (36, 48))],
)
@pytest.mark.parametrize("yaw", [-0.35, 0.35])
def test_landmarks_fall_on_what_they_name(trait, without, points, yaw):
    view = {"yaw": yaw, "roll": 0.2, "shift_x": 0.05}
    changed = (_render(view=view) - _render(view=view, **{trait: without})).abs() > 3
    rows, columns = np.nonzero(changed.numpy())
    named = _landmarks(view=view)[slice(*points)]
    low, high = named.min(0) - 4, named.max(0) + 4
    assert len(rows) > 15
    assert np.mean((columns >= low[0]) & (columns <= high[0]) & (rows >= low[1]) & (rows <= high[1])) > 0.95
    centre = np.array([columns.mean(), rows.mean()])
    assert np.linalg.norm(centre - (low + high) / 2) < 0.06 * SIZE


def test_landmarks_and_pixels_follow_the_face_and_left_is_that_of_the_image():
    rest, smile = _landmarks(), _landmarks({"AU12": 1.0})
    gape, brows = _landmarks({"AU25": 1.0, "AU26": 1.0}), _landmarks({"AU1": 1.0, "AU2": 1.0})
    assert (smile[[48, 54], 1] < rest[[48, 54], 1] - 2).all()
    assert gape[66, 1] - gape[62, 1] > rest[66, 1] - rest[62, 1] + 5
    assert (brows[17:27, 1] < rest[17:27, 1] - 1).all()
    units = torch.zeros(1, 17, 2)
    units[0, UNITS.index("AU12"), 0] = 1.0
    change = (faces.render(units, size=SIZE, view={"noise": 0.0})[0].float() - _render()).abs()
    assert change[:, : SIZE // 2].sum() > 3 * change[:, SIZE // 2 :].sum()


@pytest.mark.parametrize("name", UNITS)
def test_each_action_unit_changes_the_image_where_it_says(name):
    def masks(levels):
        number = torch.zeros(1, dtype=torch.int64)
        texture = camera.textures(0, number, number, SIZE)
        return camera.images(*_described(levels), texture, SIZE, color=False)[1][0]

    change = (_render({name: 1.0}) - _render()).abs()
    moved = [any(int(name[2:]) in part for part in MOVES[region].values()) for region in faces.REGIONS]
    allowed = (masks({}) | masks({name: 1.0}))[torch.tensor(moved)].any(0)
    allowed = torch.nn.functional.max_pool2d(allowed[None].float(), 5, 1, 2)[0] > 0  # two pixels of grace
    assert change.max() > 12
    assert change[allowed].sum() / change.sum() > 0.95


def test_regions_hold_their_landmarks():
    drawn = faces.sample(96, seed=5, size=SIZE, masks=True)
    points = {"brow": (17, 27), "eye": (36, 48), "nose": (28, 36), "mouth": (48, 68)}
    x, y = drawn.landmarks.round().long().unbind(-1)
    inside = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
    rows = torch.arange(len(x))[:, None]
    for number, region in enumerate(faces.REGIONS):
        hit = drawn.masks[rows, number, y.clamp(0, SIZE - 1), x.clamp(0, SIZE - 1)]
        wanted = slice(*points[region])
        assert hit[:, wanted][inside[:, wanted]].float().mean() > 0.9, region


def test_logistic_regression_on_the_action_units_reaches_the_bayes_accuracy(many):
    features, labels = many.action_units.numpy(), many.labels.numpy()
    fitted = LogisticRegression(C=100.0, max_iter=2000).fit(features[:4000], labels[:4000])
    best = many.class_probabilities[4000:].amax(-1).double()
    error = (best * (1 - best)).mean().div(2000).sqrt().item()
    score = fitted.score(features[4000:], labels[4000:])
    assert best.mean() - 0.015 - 3 * error < score < best.mean() + 3 * error
    assert 0.70 <= many.class_probabilities.amax(-1).mean() <= 0.80


def test_labels_and_votes_follow_the_stated_distribution(many):
    p = many.class_probabilities.double()
    for counts, draws in ((many.votes, 10), (torch.nn.functional.one_hot(many.labels, 7), 1)):
        for column in range(7):
            groups = p[:, column].argsort().chunk(10)  # faces of like p: seen and expected counts in each
            seen = np.array([counts[g, column].sum().item() for g in groups], dtype=float)
            due = np.array([draws * p[g, column].sum().item() for g in groups])
            spread = np.array([draws * (p[g, column] * (1 - p[g, column])).sum().item() for g in groups])
            assert stats.chi2.sf(((seen - due) ** 2 / spread).sum(), len(groups)) > 1e-4
    assert (many.votes.sum(-1) == 10).all()


def test_the_set_is_as_balanced_as_fer2013_and_its_raters_disagree_like_those_of_ferplus(many):
    wanted = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965]) / 28_709  # counted in its Training rows
    assert np.abs(many.class_probabilities.mean(0).numpy() - wanted).max() < 0.02
    votes = many.votes.numpy().astype(float)
    assert 0.58 < (((votes**2).sum(1) - 10) / 90).mean() < 0.68  # share of agreeing pairs; FER+: 0.61
    assert set(many.subject[:5000].bincount().tolist()) == {20}
    assert len(many.subject[:50].unique()) == 50


def test_probabilities_are_the_written_formula():
    units = np.random.default_rng(0).uniform(size=(5, 17)).astype(np.float32)
    scores = np.zeros((5, 7))
    for c, name in enumerate(emotions.FER7):
        scores[:, c] = faces.truth.BIAS[name]
        for number, weight in faces.truth.EVIDENCE[name].items():
            scores[:, c] += weight * units[:, UNITS.index(f"AU{number}")]
    raised = np.exp(0.65 / 2.0 * scores)
    expected = 0.9 * raised / raised.sum(1, keepdims=True) + 0.1 / 7
    given = faces.class_probabilities(torch.tensor(units), ambiguity=2.0, label_noise=0.1)
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-4)
    sure = faces.sample(500, seed=1, size=16, ambiguity=0.05, label_noise=0.0)
    assert sure.class_probabilities.amax(-1).mean() > 0.95
    assert (sure.labels == sure.class_probabilities.argmax(-1)).float().mean() > 0.93


def test_valence_and_arousal_scatter_as_stated_and_order_the_expressions(many):
    error = many.valence_arousal - faces.valence_arousal(many.action_units)
    assert abs(error.square().mean().sqrt().item() - 0.1) < 0.003
    assert many.valence_arousal.abs().max() <= 1
    likeliest = many.class_probabilities.argmax(-1)
    means = np.array([many.valence_arousal[likeliest == k].mean(0).numpy() for k in range(7)])
    known = np.array([emotions.CIRCUMPLEX[name] for name in emotions.FER7])
    for i in (0, 1):
        assert stats.spearmanr(means[:, i], known[:, i]).statistic > 0.7


def test_thirteen_classes_come_from_the_same_seven(many):
    fused = faces.fused_probabilities(many.action_units, many.class_probabilities)
    torch.testing.assert_close(fused.sum(-1), torch.ones(len(many)))
    for name in ("anger", "disgust", "fear", "sadness", "surprise"):
        ours = fused[:, emotions.FUSED13.index(name)]
        torch.testing.assert_close(ours, many.class_probabilities[:, emotions.FER7.index(name)])
    contempt = fused[:, emotions.FUSED13.index("contempt")]
    assert torch.equal(contempt > 0, many.action_units[:, UNITS.index("AU14")] > 0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: faces.sample(0), "num_faces must be from 1"),
        (lambda: faces.sample(1, size=15), "size must be from 16 to 1024"),
        (lambda: faces.render({}, size=15), "size must be from 16 to 1024"),
        (lambda: faces.sample(1, label_noise=1.5), "label_noise must be from 0 to 1"),
        (lambda: faces.sample(1, balance="even"), "balance must be"),
        (lambda: faces.sample(1, balance={"happines": 1}), "did you mean 'happiness'"),
        (lambda: faces.sample(1, balance={"anger": -1.0}), "balance must hold weights"),
        (lambda: faces.sample(1, fixed={"glases": 1.0}), "did you mean 'glasses'"),
        (lambda: faces.render({"AU13": 0.5}), "unknown action unit 'AU13'; did you mean 'AU1"),
        (lambda: faces.render({"AU12": float("nan")}), "action_units must lie in 0 to 1"),
        (lambda: faces.render(torch.zeros(0, 17)), "N of 1 or more"),
        (lambda: faces.render(torch.zeros(1, 16)), "N, 17"),
        (lambda: faces.render({}, {"nose": 1.0}), "unknown trait 'nose'"),
        (lambda: faces.render({}, None, {"yav": 1.0}), "did you mean 'yaw'"),
    ],
)
def test_bad_input_is_named_in_one_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
