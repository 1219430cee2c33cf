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
from helpers.widgets.panel import Panel, choice, figure, log_slider, look, slider

# --- 01: look through a set of faces, and draw one from its action units
COLUMNS, ROWS, ALL = 8, 3, "all"
PAGE = COLUMNS * ROWS

MOVEMENTS = "inner brow up, outer brow up, brows together, upper lid up, cheeks up, lids tight, "
MOVEMENTS += "nose wrinkled, upper lip up, lip corners up, dimples, corners down, chin up, "
MOVEMENTS += "lips stretched, lips tight, lips pressed, lips apart, jaw dropped"


def browse(
    parts: Mapping[str, FaceSet],
    split: str,
    expression: str = ALL,
    person: int = -1,
    brightness: tuple[float, float] = (0, 255),
    doubt: tuple[float, float] = (0, 4),
    page: int = 1,
) -> Figure:
    """Draw a page of the faces that fit; brightness is the mean grey, doubt the entropy in bits."""
    chosen = parts[split]
    fits = np.ones(len(chosen), dtype=bool)
    if expression != ALL:
        fits &= chosen.labels == chosen.classes.index(expression)
    if person >= 0:
        fits &= chosen.subject == person
    if tuple(brightness) != (0, 255):
        light = chosen.images.reshape(len(chosen), -1).mean(axis=1)
        fits &= (light >= brightness[0]) & (light <= brightness[1])
    if tuple(doubt) != (0, 4):
        bits = stats.entropy(chosen.distribution, base=2, axis=1)
        fits &= (bits >= doubt[0]) & (bits <= doubt[1])
    fitting = np.flatnonzero(fits)
    pages = max(1, -(-len(fitting) // PAGE))
    page = min(page, pages)
    shown = fitting[(page - 1) * PAGE : page * PAGE]
    drawn = figure(7.8, 3.77)
    words = f"{len(fitting):,} of {len(chosen):,} faces · page {page} of {pages}"
    drawn.text(0.01, 0.954, words, va="center")
    if not len(shown):
        drawn.text(0.5, 0.5, "no face fits; widen a range", ha="center", va="center")
        return drawn
    titles = [chosen.classes[label] for label in chosen.labels[shown]]
    plotting.face_grid(chosen.images[shown], titles, COLUMNS, ax=drawn.add_axes((0.01, 0.01, 0.98, 0.887)))
    return drawn


def faces_browser(parts: Mapping[str, FaceSet]) -> Panel:
    """Return the panel that looks through splits, by name, by class, person, brightness and doubt."""
    first = next(iter(parts.values()))
    controls = {
        "split": choice("split", list(parts)),
        "expression": choice("expression", [ALL, *first.classes]),
        "brightness": ipywidgets.IntRangeSlider(value=(0, 255), min=0, max=255, **look("brightness")),
    }
    if first.subject is not None:
        most = max(int(part.subject.max(initial=0)) for part in parts.values())
        controls["person"] = slider("person (-1: all)", -1, -1, most, 1)
    if first.distribution is not None:
        bits = {"value": (0, 4), "min": 0, "max": 4, "step": 0.1}
        controls["doubt"] = ipywidgets.FloatRangeSlider(**bits, **look("doubt (bits)"))
    controls["page"] = slider("page", 1, 1, max(-(-len(part) // PAGE) for part in parts.values()), 1)
    return Panel(functools.partial(browse, parts), controls)


def mix(action_units: Mapping[str, float], turn: float = 0.0) -> Figure:
    """Draw the face that action units make, turned by radians, and its place on the circumplex."""
    units = torch.zeros(1, len(faces.ACTION_UNITS))
    for name, value in action_units.items():
        units[0, truth.au_column(name)] = value
    face = faces.render(units, view={"yaw": turn}, size=144)[0].numpy()
    [place], [p] = faces.valence_arousal(units).numpy(), faces.class_probabilities(units).numpy()
    drawn = figure(4.6, 7.6)
    above, plane = drawn.add_axes((0.16, 0.52, 0.82, 0.45)), drawn.add_axes((0.16, 0.07, 0.82, 0.42))
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

    def take(_: object) -> None:
        prototype = next(units for name, _, units in truth.PROTOTYPES if name == start.value)
        panel.set(**{name: prototype.get(int(name[2:]), 0.0) for name in units})

    controls = {"turn": slider("turn of the head", 0.0, -0.7, 0.7), **units}
    panel = Panel(lambda turn, **action_units: mix(action_units, turn), controls, above=[start])
    start.observe(take, names="value")
    return panel


# --- 02: what a histogram of oriented gradients keeps of a face, and what it is worth
MOST = 500  # training faces that the score is fitted to, so that it comes while one is still curious


def draw_edges(image: np.ndarray, orientations: int = 9, cell: int = 8, block: int = 2) -> Figure:
    """Draw a face, its gradients by cell, and the same after each block has been divided by its length.

    ``image`` is uint8 ``[H, W]``; so many orientations share 180 degrees; a cell has ``cell`` pixels a side
    and a block ``block`` cells, and a block larger than the face is a ``ValueError``.
    """
    sizes = {"orientations": orientations, "pixels_per_cell": (cell, cell)}
    features = hog.hog(image[None], **sizes, cells_per_block=(block, block))[0]
    cells = hog.cells(image[None], **sizes)[0]
    # [bins · block², blocks]: a cell is drawn as the mean of what the blocks around it make of it
    blocks = (
        torch.from_numpy(features).reshape(-1, block * block, orientations).permute(2, 1, 0).flatten(0, 1)
    )
    sums, counts = (functional.fold(b, cells.shape[:2], block) for b in (blocks, torch.ones_like(blocks)))
    glyph = max(1, round(240 / (cells.shape[0] * cell)) * cell)
    shown = [image]
    for histograms in (cells, (sums / counts).permute(1, 2, 0).numpy()):
        stars = hog.picture(histograms, (glyph, glyph))
        shown.append(255 * np.sqrt(stars / max(float(stars.max()), 1e-9)))  # the root shows weak strokes, too
    titles = ("the face", f"{cells.shape[0]} x {cells.shape[1]} cells", f"{features.size:,} features")
    drawn = figure(7.8, 2.75)
    for place, (each, title) in enumerate(zip(shown, titles, strict=True)):
        plotting.face(each, title, ax=drawn.add_axes((0.005 + place / 3, 0.01, 0.323, 0.88)))
    return drawn


def score_edges(
    train: FaceSet,
    validation: FaceSet,
    orientations: int = 9,
    cell: int = 8,
    block: int = 2,
    cost: float = 3.0,
    width: float = 1.0,
) -> metrics.Interval:
    """Return the validation accuracy of HOG + SVM, both sides of at most ``MOST`` random faces.

    ``cost`` is C of the SVM and ``width`` its gamma, in units of 1 / (features x their variance).
    """
    train, validation = (
        part.select(np.sort(np.random.default_rng(0).permutation(len(part))[:MOST]))
        for part in (train, validation)
    )
    settings = {"orientations": orientations, "pixels_per_cell": (cell, cell)}
    settings["cells_per_block"] = (block, block)
    features = hog.hog(train.images, **settings)
    gamma = width * hog.gamma_scale(features)
    svm = hog.SVM.fit(features, train.labels, train.classes, C=cost, gamma=gamma, settings=settings)
    right = svm.predict(hog.hog(validation.images, **settings)) == validation.labels
    return metrics.bootstrap(np.mean, right, resamples=300)


def hog_explorer(
    train: FaceSet, validation: FaceSet, orientations: int = 9, cell: int = 8, block: int = 2
) -> Panel:
    """Return the panel whose figure follows the sliders at once, and the validation score a moment later.

    The settings that it starts with are those of :func:`score_edges`.
    """
    controls = {
        "face": slider("face", 0, 0, len(train) - 1, 1),
        "orientations": slider("orientations", orientations, 2, 18, 1, live=False),
        "cell": slider("cell (pixels)", cell, 4, 16, 1, live=False),
        "block": slider("block (cells)", block, 1, 4, 1, live=False),
        "cost": log_slider("C", 3.0, -2, 3, live=False),
        "width": log_slider("gamma (units)", 1.0, -2, 1.5, live=False),
    }

    @functools.lru_cache  # another face has the same score
    def score(**settings: float) -> str:
        found = score_edges(train, validation, **settings)
        return f"fitted to {min(len(train), MOST):,} faces: accuracy on validation {found}"

    def draw(face: int, cost: float, width: float, **sizes: int) -> Figure:
        return draw_edges(train.images[face], **sizes)

    return Panel(draw, controls, tell=lambda face, **settings: score(**settings))


# --- 06: one target, one prediction, and what each loss makes of the two
Loss = Callable[[Tensor, Tensor], Tensor]  # of logits [1, K] and a distribution [1, K]
COMMON: dict[str, Loss] = {"cross-entropy": losses.soft_cross_entropy, "KL": losses.kl_divergence}


def compare_losses(
    target: Sequence[float],
    prediction: Sequence[float],
    classes: Sequence[str],
    compared: Mapping[str, Loss] = COMMON,
) -> Figure:
    """Draw target and prediction, the value of each loss, and its negative gradient in each logit.

    The shares of K weights, 0 or more and not all 0, are the target, and so is the prediction, where 0 counts
    as 0.001; ``compared`` are functions of (logits, distribution) by name.
    """
    p, q = np.asarray(target, dtype=float), np.maximum(prediction, 1e-3)
    if p.min() < 0 or not p.sum() > 0:
        raise ValueError("weights must be 0 or more, and not all of them 0")
    p, q = p / p.sum(), q / q.sum()
    logits = torch.tensor(np.log(q)[None], dtype=torch.float32, requires_grad=True)
    values, pushes = [], []
    for name, loss in compared.items():
        value = loss(logits, torch.tensor(p[None], dtype=torch.float32)).sum()
        values.append(f"{name} {value.item():.3f}")
        pushes.append(-torch.autograd.grad(value, logits)[0][0].numpy())
    num, colors = len(classes), [plotting.color(name) for name in classes]
    drawn = figure(8.2, 1.2 + 0.42 * max(len(values), num))
    left, right = drawn.add_axes((0.14, 0.15, 0.24, 0.68)), drawn.add_axes((0.56, 0.15, 0.42, 0.68))
    for shift, shares, alpha in ((-0.2, p, 1.0), (0.2, q, 0.4)):
        left.barh(np.arange(num) + shift, shares, 0.36, color=colors, alpha=alpha)
    left.set(yticks=range(num), yticklabels=classes, xlim=(0, 1), ylim=(num - 0.5, -0.5))
    left.set_title("target (full), prediction (pale)")
    for k, push in enumerate(np.transpose(pushes)):
        places = np.arange(len(values)) + 0.8 / num * (k - (num - 1) / 2)
        right.barh(places, push, 0.8 / num, color=colors[k])
    right.set(yticks=range(len(values)), yticklabels=values, ylim=(len(values) - 0.5, -0.5))
    right.set_title("loss, and its push on each logit")
    right.axvline(0, color="#888888", linewidth=0.8)
    return drawn


def loss_explorer(
    compared: Mapping[str, Loss] = COMMON, classes: Sequence[str] = ("happiness", "surprise", "fear")
) -> Panel:
    """Return the panel with a slider for each class of the target and of the prediction."""
    start, controls = np.linspace(0.8, 0.1, len(classes)).round(2).tolist(), {}
    for word, weights in (("target", start), ("guess", start[::-1])):
        for name, weight in zip(classes, weights, strict=True):
            controls[f"{word} {name}"] = slider(f"{word}: {name}", weight, 0.0, 1.0)

    def draw(**weights: float) -> Figure:
        both = list(weights.values())
        return compare_losses(both[: len(classes)], both[len(classes) :], classes, compared)

    return Panel(draw, controls)


# --- 07: where a network looks, by layer and class, on its faces or on your own
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
    found: list[str] = []

    def note(name: str, _: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1:
            found.append(name)

    depth = 2 if hasattr(model, "blocks") else 1
    coarse = [(name, part) for name, part in model.named_modules() if name and name.count(".") < depth]
    hooks = [part.register_forward_hook(functools.partial(note, name)) for name, part in coarse]
    with torch.inference_mode():
        model.eval()(_inputs(model, image))
    for hook in hooks:
        hook.remove()
    return found


def heat_maps(reader: Any, faces: FaceSet) -> Panel:
    """Return the panel of a ``Predictor``: layer, class, face, opacity, and a button for your own image."""
    own: list[Any] = []  # where the slider stood when an image was uploaded, and the face in it
    usual = gradcam.last_map(reader.model)
    names = dict.fromkeys([*layers(reader.model, faces.images[0]), usual])
    controls = {
        "face": slider("face", 0, 0, len(faces) - 1, 1),
        "layer": choice("layer", list(names), usual),
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
