"""The panels of notebooks 01, 02, 06 and 07: faces, action units, HOG, losses, and where a network looks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from helpers import batches, emotions, faces, gradcam, hog, losses, metrics, plotting
from helpers.datasets import FaceSet
from helpers.faces import truth
from helpers.metrics import Interval
from helpers.widgets.panel import Panel, choice, figure, log_slider, look, slider

# --- 01: look through a set of faces, and draw one from its action units ---

COLUMNS, ROWS, ALL = 8, 3, "all"

MOVEMENTS = "inner brow up, outer brow up, brows together, upper lid up, cheeks up, lids tight, "
MOVEMENTS += "nose wrinkled, upper lip up, lip corners up, dimples, corners down, chin up, "
MOVEMENTS += "lips stretched, lips tight, lips pressed, lips apart, jaw dropped"


def browse(
    parts: FaceSet | Mapping[str, FaceSet],
    split: str = "",
    expression: str = ALL,
    person: int = -1,
    brightness: tuple[float, float] = (0, 255),
    doubt: tuple[float, float] = (0, 4),
    page: int = 1,
    rows: int = ROWS,
) -> Figure:
    """Draw a page of the faces that fit; brightness is the mean grey, doubt the entropy in bits."""
    chosen = parts if isinstance(parts, FaceSet) else parts[split or next(iter(parts))]
    fits = np.ones(len(chosen), dtype=bool)
    if expression != ALL:
        fits &= chosen.labels == chosen.classes.index(expression)
    if person >= 0 and chosen.subject is not None:
        fits &= chosen.subject == person
    if tuple(brightness) != (0, 255):
        light = chosen.images.reshape(len(chosen), -1).mean(axis=1)
        fits &= (light >= brightness[0]) & (light <= brightness[1])
    if chosen.distribution is not None and tuple(doubt) != (0, 4):
        bits = stats.entropy(chosen.distribution, base=2, axis=1)
        fits &= (bits >= doubt[0]) & (bits <= doubt[1])
    fitting = np.flatnonzero(fits)
    pages = max(1, -(-len(fitting) // (COLUMNS * rows)))
    page = min(max(page, 1), pages)
    shown = fitting[(page - 1) * COLUMNS * rows : page * COLUMNS * rows]
    drawn, top = figure(7.8, 0.35 + 1.14 * rows), 0.35 / (0.35 + 1.14 * rows)
    words = f"{len(fitting):,} of {len(chosen):,} faces · page {page} of {pages}"
    drawn.text(0.01, 1 - top / 2, words, va="center")
    if len(shown):
        titles = [chosen.classes[label] for label in chosen.labels[shown]]
        ax = drawn.add_axes((0.01, 0.01, 0.98, 0.98 - top))
        plotting.face_grid(chosen.images[shown], titles, COLUMNS, ax=ax)
    else:
        drawn.text(0.5, 0.5, "no face fits; widen a range", ha="center", va="center")
    return drawn


def faces_browser(parts: FaceSet | Mapping[str, FaceSet]) -> Panel:
    """Return the panel that looks through faces by class, split, person, brightness and doubt.

    Args:
        parts: a set, or the name of a split to its faces.
    """
    splits = {"": parts} if isinstance(parts, FaceSet) else dict(parts)
    first = next(iter(splits.values()))
    controls = {
        "split": choice("split", [(name or "whole set", name) for name in splits]),
        "expression": choice("expression", [ALL, *first.classes]),
        "brightness": ipywidgets.IntRangeSlider(value=(0, 255), min=0, max=255, **look("brightness")),
    }
    if first.subject is not None:
        most = max(int(part.subject.max(initial=0)) for part in splits.values())
        controls["person"] = slider("person (-1: all)", -1, -1, most, 1)
    if first.distribution is not None:
        bits = {"value": (0, 4), "min": 0, "max": 4, "step": 0.1}
        controls["doubt"] = ipywidgets.FloatRangeSlider(**bits, **look("doubt (bits)"))
    pages = max(-(-len(part) // (COLUMNS * ROWS)) for part in splits.values())
    controls["page"] = slider("page", 1, 1, pages, 1)
    return Panel(functools.partial(browse, splits), controls)


def mix(action_units: Mapping[str, float], turn: float = 0.0, upright: bool = False) -> Figure:
    """Draw the face that action units make, turned by radians, and its place on the circumplex."""
    units = torch.zeros(1, len(faces.ACTION_UNITS))
    for name, value in action_units.items():
        units[0, truth.au_column(name)] = value
    face = faces.render(units, view={"yaw": turn}, size=144)[0].numpy()
    [place], [p] = faces.valence_arousal(units).numpy(), faces.class_probabilities(units).numpy()
    drawn = figure(4.6, 7.6) if upright else figure(7.4, 3.6)
    above = drawn.add_axes((0.16, 0.52, 0.82, 0.45) if upright else (0.01, 0.02, 0.44, 0.9))
    plane = drawn.add_axes((0.16, 0.07, 0.82, 0.42) if upright else (0.56, 0.17, 0.42, 0.81))
    first, second = np.argsort(-p)[:2]
    plotting.face(face, ", ".join(f"{emotions.FER7[k]} {p[k]:.0%}" for k in (first, second)), ax=above)
    names = {name: emotions.CIRCUMPLEX[name] for name in emotions.FER7}
    plotting.circumplex(place[None], np.zeros(1, dtype=int), (emotions.FER7[first],), names, ax=plane)
    ring = {"markerfacecolor": "none", "markeredgewidth": 2.5, "zorder": 10}
    plane.plot(*place, marker="o", markersize=14, color=plotting.ACCENT, **ring)
    return drawn


def action_unit_mixer() -> Panel:
    """Return the panel that draws a face live from seventeen action units, and moves its dot."""
    moves = zip(faces.ACTION_UNITS, MOVEMENTS.split(", "), strict=True)
    units = {name: slider(f"{name[2:]} {move}", 0.0, 0.0, 1.0) for name, move in moves}
    start = choice("start from", emotions.FER7, "neutral")

    def draw(turn: float, **action_units: float) -> Figure:
        return mix(action_units, turn, upright=True)

    def take(_: object) -> None:
        prototype = next(units for name, _, units in truth.PROTOTYPES if name == start.value)
        panel.set(**{name: prototype.get(int(name[2:]), 0.0) for name in units})

    panel = Panel(draw, {"turn": slider("turn of the head", 0.0, -0.7, 0.7), **units}, above=[start])
    start.observe(take, names="value")
    return panel


# --- 02: what a histogram of oriented gradients keeps of a face, and what it is worth ---

MOST = 500  # training faces that the score is fitted to, so that it comes while one is still curious


def draw_edges(image: np.ndarray, orientations: int = 9, cell: int = 8, block: int = 2) -> Figure:
    """Draw a face, its gradients by cell, and the same after each block has been divided by its length.

    Args:
        image: uint8 ``[H, W]``.
        orientations: bins that share 180 degrees.
        cell: side length of a cell in pixels.
        block: side length of a block in cells.

    Raises:
        ValueError: a block is larger than the face.
    """
    sizes = {"orientations": orientations, "pixels_per_cell": (cell, cell)}
    features = hog.hog(image[None], **sizes, cells_per_block=(block, block))[0]
    cells = hog.cells(image[None], **sizes)[0]
    glyph = max(1, round(240 / (cells.shape[0] * cell)) * cell)
    shown = [image]
    for histograms in (cells, _mean_over_blocks(features, cells.shape, block)):
        stars = hog.picture(histograms, (glyph, glyph))
        shown.append(255 * np.sqrt(stars / max(float(stars.max()), 1e-9)))  # the root shows weak strokes, too
    titles = ("the face", f"{cells.shape[0]} x {cells.shape[1]} cells", f"{features.size:,} features")
    drawn = figure(7.8, 2.75)
    for place, (each, title) in enumerate(zip(shown, titles, strict=True)):
        plotting.face(each, title, ax=drawn.add_axes((0.005 + place / 3, 0.01, 0.323, 0.88)))
    return drawn


def _mean_over_blocks(features: np.ndarray, shape: tuple[int, ...], block: int) -> np.ndarray:
    """Return for each cell the mean of what the blocks around it make of it, ``[rows, columns, bins]``."""
    rows, columns, bins = shape
    blocks = torch.from_numpy(features).reshape(-1, block * block, bins).permute(2, 1, 0).flatten(0, 1)[None]
    sums, counts = (functional.fold(b, (rows, columns), block)[0] for b in (blocks, torch.ones_like(blocks)))
    return (sums / counts).permute(1, 2, 0).numpy()


def score_edges(
    train: FaceSet,
    validation: FaceSet,
    orientations: int = 9,
    cell: int = 8,
    block: int = 2,
    cost: float = 3.0,
    width: float = 1.0,
    seed: int = 0,
) -> Interval:
    """Return the validation accuracy of HOG + SVM, fitted to at most ``MOST`` faces, which the seed picks.

    ``cost`` is C of the SVM and ``width`` its gamma, in units of 1 / (features x their variance).
    """
    train, validation = (
        part.select(np.sort(np.random.default_rng(seed).permutation(len(part))[:MOST]))
        for part in (train, validation)
    )
    settings = {"orientations": orientations, "pixels_per_cell": (cell, cell)}
    settings["cells_per_block"] = (block, block)
    features = hog.hog(train.images, **settings)
    gamma = width * hog.gamma_scale(features)
    svm = hog.SVM.fit(features, train.labels, train.classes, C=cost, gamma=gamma, settings=settings)
    right = svm.predict(hog.hog(validation.images, **settings)) == validation.labels
    return metrics.bootstrap(np.mean, right, resamples=300, seed=seed)


def hog_explorer(
    train: FaceSet,
    validation: FaceSet,
    orientations: int = 9,
    cell: int = 8,
    block: int = 2,
    cost: float = 3.0,
    width: float = 1.0,
) -> Panel:
    """Return the panel whose figure follows the sliders at once, and the validation score a moment later.

    The settings that it starts with are those of :func:`score_edges`.
    """
    controls = {
        "face": slider("face", 0, 0, len(train) - 1, 1),
        "orientations": slider("orientations", orientations, 2, 18, 1, live=False),
        "cell": slider("cell (pixels)", cell, 4, 16, 1, live=False),
        "block": slider("block (cells)", block, 1, 4, 1, live=False),
        "cost": log_slider("C", cost, -2, 3, live=False),
        "width": log_slider("gamma (units)", width, -2, 1.5, live=False),
    }

    def draw(face: int, orientations: int, cell: int, block: int, **_: float) -> Figure:
        return draw_edges(train.images[face], orientations, cell, block)

    @functools.lru_cache  # another face has the same score
    def score(**settings: float) -> str:
        found = score_edges(train, validation, **settings)
        return f"fitted to {min(len(train), MOST):,} faces: accuracy on validation {found}"

    return Panel(draw, controls, tell=lambda face, **settings: score(**settings))


# --- 06: one target, one prediction, and what each loss makes of the two ---

Loss = Callable[[Tensor, Tensor], Tensor]  # of logits [1, K] and a distribution [1, K]
COMMON: dict[str, Loss] = {"cross-entropy": losses.soft_cross_entropy, "KL": losses.kl_divergence}


def compare_losses(
    target: Sequence[float],
    prediction: Sequence[float],
    classes: Sequence[str],
    compared: Mapping[str, Loss] = COMMON,
) -> Figure:
    """Draw target and prediction, the value of each loss, and its negative gradient in each logit.

    Args:
        target: K weights of 0 or more, not all 0; their shares are the target.
        prediction: K weights; their shares are the predicted probabilities (0 counts as 0.001).
        classes: K names.
        compared: name to function of (logits, distribution).

    Raises:
        ValueError: the weights are negative, or all 0.
    """
    p, q = _shares(target), _shares(np.maximum(prediction, 1e-3))
    logits = torch.tensor(np.log(q)[None], dtype=torch.float32, requires_grad=True)
    values, pushes = [], []
    for name, loss in compared.items():
        value = loss(logits, torch.tensor(p[None], dtype=torch.float32)).sum()
        values.append(f"{name} {value.item():.3f}")
        pushes.append(-torch.autograd.grad(value, logits)[0][0].numpy())
    places, colors = np.arange(len(classes)), [plotting.color(name) for name in classes]
    drawn = figure(8.2, 1.2 + 0.42 * max(len(values), len(classes)))
    left, right = drawn.add_axes((0.14, 0.15, 0.24, 0.68)), drawn.add_axes((0.56, 0.15, 0.42, 0.68))
    left.barh(places - 0.2, p, 0.36, color=colors)
    left.barh(places + 0.2, q, 0.36, color=colors, alpha=0.4)
    left.set(yticks=places, yticklabels=classes, xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5))
    left.set_title("target (full), prediction (pale)")
    rows, thick = np.arange(len(values)), 0.8 / len(classes)
    for k, push in enumerate(np.transpose(pushes)):
        right.barh(rows + (k - (len(classes) - 1) / 2) * thick, push, thick, color=colors[k])
    right.set(yticks=rows, yticklabels=values, ylim=(len(values) - 0.5, -0.5))
    right.set_title("loss, and its push on each logit")
    right.axvline(0, color="#888888", linewidth=0.8)
    return drawn


def _shares(weights: Sequence[float]) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
        raise ValueError("weights must be 0 or more, and not all of them 0")
    return weights / weights.sum()


def loss_explorer(
    compared: Mapping[str, Loss] = COMMON, classes: Sequence[str] = ("happiness", "surprise", "fear")
) -> Panel:
    """Return the panel with a slider for each class of the target and of the prediction."""
    start = np.linspace(0.8, 0.1, len(classes)).round(2).tolist()
    controls = {}
    for word, weights in (("target", start), ("guess", start[::-1])):
        for name, weight in zip(classes, weights, strict=True):
            controls[f"{word} {name}"] = slider(f"{word}: {name}", weight, 0.0, 1.0)

    def draw(**weights: float) -> Figure:
        target, guess = ([weights[f"{word} {name}"] for name in classes] for word in ("target", "guess"))
        return compare_losses(target, guess, classes, compared)

    return Panel(draw, controls)


# --- 07: where a network looks, by layer and class, on its faces or on your own ---

LIKELIEST = "the likeliest"


def explain(
    model: nn.Module,
    image: np.ndarray,
    classes: Sequence[str],
    layer: str = "",
    expression: str = LIKELIEST,
    opacity: float = 0.7,
) -> Figure:
    """Draw a face, where a layer ("": the usual one) found what speaks for a class, and all probabilities."""
    inputs = _inputs(model, image)
    with torch.inference_mode():
        out = model.eval()(inputs)
    head, logits = ("labels", out["labels"]) if isinstance(out, dict) else (None, out)
    p = metrics.softmax(logits.float().cpu().numpy())[0]
    label = int(p.argmax()) if expression == LIKELIEST else list(classes).index(expression)
    maps = gradcam.grad_cam(model, layer or gradcam.last_map(model), inputs, label, head=head).cpu().numpy()
    bare = image if image.ndim == 3 else np.repeat(image[None], 3, axis=0)
    mixed = bare + (plotting.heated(image[None], maps)[0].astype(float) - bare) * min(1.0, opacity / 0.7)
    drawn = figure(7.8, 2.8)
    plotting.face(bare, "the network's input", ax=drawn.add_axes((0.005, 0.01, 0.3, 0.87)))
    plotting.face(mixed.clip(0, 255), f"for {classes[label]}", ax=drawn.add_axes((0.325, 0.01, 0.3, 0.87)))
    plotting.distribution(p, classes, ax=drawn.add_axes((0.76, 0.12, 0.22, 0.76)))
    return drawn


def _inputs(model: nn.Module, image: np.ndarray) -> Tensor:
    inputs = batches.normalise(torch.from_numpy(np.array(image)[None])).to(next(model.parameters()).device)
    return inputs if inputs.ndim == 4 else inputs[:, None]


def layers(model: nn.Module, image: np.ndarray) -> list[str]:
    """Return the names of the layers whose output is a map, coarse blocks only, in the order they run."""
    found: dict[str, None] = {}

    def note(name: str, _: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1:
            found[name] = None

    depth = 2 if hasattr(model, "blocks") else 1
    coarse = [(name, part) for name, part in model.named_modules() if name and name.count(".") < depth]
    hooks = [part.register_forward_hook(functools.partial(note, name)) for name, part in coarse]
    try:
        with torch.inference_mode():
            model.eval()(_inputs(model, image))
    finally:
        for each in hooks:
            each.remove()
    return list(found)


def heat_maps(reader: Any, faces: FaceSet) -> Panel:
    """Return the panel with layer, class, face and opacity, and a button for an image of your own.

    Args:
        reader: what reads images: a ``predictor.Predictor``.
        faces: the faces to choose from.
    """
    own: list[Any] = []  # where the slider stood when an image was uploaded, and the face in it
    usual = gradcam.last_map(reader.model)
    names = list(dict.fromkeys([*layers(reader.model, faces.images[0]), usual]))
    controls = {
        "face": slider("face", 0, 0, len(faces) - 1, 1),
        "layer": choice("layer", names, usual),
        "expression": choice("explain", [LIKELIEST, *reader.classes]),
        "opacity": slider("opacity", 0.7, 0.0, 1.0),
    }
    upload = ipywidgets.FileUpload(accept="image/*", description="your own image", layout={"width": "220px"})

    def draw(face: int, **settings: Any) -> Figure:
        if own and own[0] != face:  # the slider was moved: back to the set's faces
            own.clear()
        return explain(reader.model, own[1] if own else faces.images[face], reader.classes, **settings)

    def take(_: object) -> None:
        with panel.errors_shown():
            squares = reader.squares(uploaded(upload.value))
            if not len(squares):
                raise ValueError("no face found in it: it must look at the camera, upright")
            own[:] = [controls["face"].value, squares[0]]
            panel.refresh()
            which = f"the largest of {len(squares)} faces" if len(squares) > 1 else "your image"
            panel.say(f"{which}; move the slider 'face' to go back")

    panel = Panel(draw, controls, above=[upload])
    upload.observe(take, names="value")
    return panel


def uploaded(value: Any) -> bytes:
    """Return the content of the file that a ``FileUpload`` holds, in ipywidgets 7 and 8 alike."""
    files = list(value.values()) if isinstance(value, dict) else list(value)
    if not files:
        raise ValueError("no file was chosen")
    return bytes(files[-1]["content"])
