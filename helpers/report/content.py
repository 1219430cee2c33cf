"""What a report says about trainings: written here once, whatever it is set in."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from helpers import plotting
from helpers.report.blocks import Block, Code, Heading, Picture, Row, Table, Text, drawn, picture
from helpers.report.reading import CEILING, Kept

TITLE = "How well do these networks read faces?"

CONVENTIONS = (
    "Each network saw its training faces only; the epoch that is kept, and every choice between "
    "networks, was decided on validation faces. The test faces were read once, by the evaluation that "
    "this report shows. Brackets hold 95 % intervals: percentile bootstrap over faces, and over people "
    "where the set names them, since two pictures of one person are not two independent faces. Macro F1 "
    "averages over the classes that occur, each counted alike. Two networks are compared on the same "
    "faces by McNemar's exact test, with Holm's correction where there are several. Heat maps are "
    "Grad-CAM on the last map of features: what in the picture speaks for the class that the network "
    "gave; yellow is most."
)
CAUTION = (
    "These networks name what raters saw in a picture. They do not know what a person feels, and people "
    "themselves agree with each other on no more than two faces in three of such sets."
)


def blocks_of(runs: Sequence[Kept], comparisons: Sequence[Sequence[dict[str, Any]]] = ()) -> list[Block]:
    """Return the report on some runs.

    Args:
        runs: the trainings, each scored.
        comparisons: for each set of faces that several runs share, their rows, the best first: "run", and for
            all but the best "accuracy_to_best", "mcnemar" and "mcnemar_holm".
    """
    today = datetime.date.today().isoformat()
    names = ", ".join(run.name for run in runs)
    opening = Text(f"{_count(len(runs), 'training')}: {names}. Made on {today}.")
    blocks: list[Block] = [Heading(TITLE, 1), opening]
    blocks += [Heading("In short"), *_summary(runs, comparisons)]
    blocks += [Heading("The faces"), *_faces(runs)]
    for run in runs:
        blocks += [Heading(run.name), *_model(run), *_training(run), *_results(run), *_looks(run)]
    blocks += [Heading("How it was done"), Text(CONVENTIONS), *_particulars(runs), Text(CAUTION)]
    return [*blocks, Heading("The machine, and how to do it again"), *_machine(runs)]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------- in short


def _summary(runs: Sequence[Kept], comparisons: Sequence[Sequence[dict[str, Any]]]) -> list[Block]:
    every = [run.evaluation["scores"] for run in runs]
    shared = [name for name in every[0] if all(name in scores for scores in every)]
    rows = [[run.name, *(str(run.score(name)) for name in (*shared, "majority"))] for run in runs]
    caption = "Scores with 95 % intervals; majority: the accuracy of always naming the commonest class."
    blocks: list[Block] = [Text(_headline(runs))]
    blocks.append(Table(["", *shared, "majority"], rows, caption))
    found = {run.name: run.score("accuracy") for run in runs}
    found["majority"] = runs[0].score("majority")
    best = runs[0].score(CEILING)
    found |= {"best possible": best} if best else {}
    ceiling = ["best possible"] if best else []

    def draw(ax: Any) -> None:
        label = f"accuracy on {runs[0].split} faces"
        plotting.scores(found, baseline=["majority"], ceiling=ceiling, label=label, ax=ax)

    caption = "Accuracy, each with its 95 % interval."
    if best:
        caption += (
            " Best possible: naming the class that the drawn face most probably has; raters differ, too."
        )
    blocks.append(drawn((7.4, 1.0 + 0.4 * len(found)), caption, draw, 0.95))
    return blocks + [Text(sentence) for rows in comparisons for sentence in _tested(rows)]


def _headline(runs: Sequence[Kept]) -> str:
    best = max(runs, key=lambda run: run.score("accuracy").value)
    score, floor = best.score("accuracy"), best.score("majority")
    above = "clearly above" if score.low > floor.high else "not clearly above"
    which = f"Of these, {best.name} finds" if len(runs) > 1 else f"{best.name} finds"
    faces = f"{best.evaluation['faces']:,} {best.split} faces of {best.settings['data']}"
    return (
        f"{which} the labelled expression of {score:.1%} of {faces}, {above} the {floor:.1%} that always "
        "naming the commonest one would get."
    )


def _tested(rows: Sequence[dict[str, Any]]) -> list[str]:
    best, said = rows[0]["run"], []
    for row in rows[1:]:
        chance = row["mcnemar_holm"]
        verdict = "hardly makes" if chance < 0.05 else "may well make"
        gap = -row["accuracy_to_best"]["value"]
        test = f"McNemar's exact test, p = {chance:.2g} after Holm's correction"
        more = f"{abs(gap):.1%} {'more' if gap >= 0 else 'less'} of the faces rightly than {row['run']}"
        said.append(f"{best} reads {more}, a difference that chance alone {verdict} ({test}).")
    return said


# ---------------------------------------------------------------- the faces


def _faces(runs: Sequence[Kept]) -> list[Block]:
    """Describe each set of faces once, however many runs learned from it."""
    names = ("data", "root", "options", "merge", "leaks", "split_seed")
    sets: list[tuple[dict[str, Any], Kept]] = []
    for run in runs:
        about = {name: run.settings[name] for name in names}
        if about not in [each for each, _ in sets]:
            sets.append((about, run))
    return [block for _, run in sets for block in _set_of_faces(run, titled=len(sets) > 1)]


def _set_of_faces(run: Kept, titled: bool) -> list[Block]:
    sizes = run.record["sizes"]
    parts = ", ".join(f"{number:,} for {name}" for name, number in sizes.items())
    kind = "grey" if run.record["faces"]["channels"] == 1 else "RGB"
    side = run.record["faces"]["image_size"]
    options = "".join(f", {key} {value}" for key, value in run.settings["options"].items())
    blocks: list[Block] = [Heading(f"{run.settings['data']}{options}", 3)] if titled else []
    blocks.append(Text(f"{run.settings['data']}{options}: {parts}; {kind}, {side} × {side} pixels."))
    if not run.audit:
        return blocks
    balance = run.audit["balance"].set_index("class")
    blocks.append(_balance(balance.drop(columns="share")))
    blocks.append(Text(" ".join(_audited(run.audit, run.settings["leaks"]))))
    return blocks + _left_out(run.audit["rejects"])


def _balance(counts: pd.DataFrame) -> Picture:
    shares = counts / counts.sum()
    common, rare = shares.iloc[:, 0].idxmax(), shares.iloc[:, 0].idxmin()
    first = shares.columns[0]
    caption = (
        f"Share of each class in each part. {common} is the commonest, {shares.loc[common, first]:.0%} of "
        f"the {first} faces; {rare} the rarest, {shares.loc[rare, first]:.1%}."
    )
    return drawn((7.2, 1.0 + 0.36 * len(shares)), caption, lambda ax: plotting.class_balance(shares, ax), 0.9)


def _audited(audit: dict[str, pd.DataFrame], leaks: str) -> list[str]:
    pairs = audit["duplicates"]
    across = pairs[(pairs["split"] != pairs["other"]) & (pairs["faces"] > 0)]
    within = int(pairs[pairs["split"] == pairs["other"]]["faces"].sum())
    said = [
        f"{row.faces:,} {row.split} faces have the very pixels of a face in {row.other}."
        for row in across.itertuples()
    ]
    if not said:
        said = ["No face stands in two parts with the same pixels."]
    if leaks == "drop":
        said.append("What stood in a later part too was left out of the earlier one.")
    copies = f"{_count(within, 'face')} {'is a copy' if within == 1 else 'are copies'}"
    said.append(f"Within the parts {copies if within else 'no face is a copy'}.")
    people = audit["subjects"]
    shared = int(people["subjects"].sum()) if len(people) else 0
    if len(people):
        both = f"{shared // 2:,} people stand in two parts." if shared else "Nobody is in two parts."
        said.append(both)
    else:
        said.append("Who is in a picture is not known, so one person may stand in two parts.")
    return said


def _left_out(rejects: pd.DataFrame) -> list[Block]:
    if not len(rejects):
        return []
    rows = [[str(row.kind), str(row.split), f"{row.faces:,}"] for row in rejects.itertuples()]
    return [Table(["left out because", "part", "faces"], rows, "Nothing is left out in silence.")]


# ---------------------------------------------------------------- one run


def _model(run: Kept) -> list[Block]:
    told, faces = run.settings, run.record["faces"]
    options = "".join(f", {key} {value}" for key, value in told["model_options"].items())
    size = run.record.get("num_parameters")
    learned = f", {size / 1e6:,.2f} million numbers to learn" if size else ""
    what = f"{told['model']}{options}{learned}: {told['task']}, {len(faces['classes'])} classes."
    cells = [[key.replace("_", " "), str(value)] for key, value in _trained(told).items()]
    half = (len(cells) + 1) // 2
    rows = [left + right for left, right in zip_longest(cells[:half], cells[half:], fillvalue=["", ""])]
    return [Text(what), Table(["setting", "value"] * 2, rows, "How it was trained.")]


def _trained(told: dict[str, Any]) -> dict[str, Any]:
    if told["model"] == "hog-svm":
        return {"features": "histograms of oriented gradients", "machine": "support vectors, Gaussian kernel"}
    names = ["loss", "label_smoothing", "class_weights", "augment", "epochs", "frozen_epochs", "batch_size"]
    names += ["lr", "optimizer", "weight_decay", "schedule", "warmup", "ema", "seed"]
    return {name: told[name] for name in names if told[name] not in (0, 0.0, "") or name == "seed"}


def _training(run: Kept) -> list[Block]:
    epochs = run.history
    if not len(epochs):
        return []
    config = run.record["config"]
    monitor = config["monitor"]
    lower = config["minimise"] or monitor == "loss"
    best = int(epochs.loc[epochs[monitor].idxmin() if lower else epochs[monitor].idxmax(), "epoch"])
    seconds = epochs["seconds"].sum()
    took = f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:,.0f} seconds"
    caption = f"Loss after each epoch. Epoch {best} was kept, the best by {monitor} on the validation faces."
    text = f"{_count(len(epochs), 'epoch')} in {took}, without validation; {monitor} on the validation faces "
    text += f"was {epochs.loc[epochs['epoch'] == best, monitor].iloc[0]:.3f} in epoch {best}."
    blocks: list[Block] = [Heading(f"{run.name}: training", 3), Text(text)]
    if len(epochs) > 1:
        blocks.append(drawn((6.4, 3.2), caption, lambda ax: plotting.curves(epochs, best=best, ax=ax), 0.75))
    return blocks


def _results(run: Kept) -> list[Block]:
    found, split = run.evaluation, run.split
    blocks: list[Block] = [Heading(f"{run.name}: what it finds", 3), Text(_errors(run)), _by_class(found)]
    said = f"What each class was taken for, in per cent of its {split} faces; correct on the diagonal."
    blocks += picture(run.folder / f"confusion-{split}.png", said, 0.75)
    if "without_leaked" in found:
        blocks.append(_clean(found))
    curves = {
        "roc": "Recall over false alarms for every threshold on a class, with the area under it.",
        "pr": "Precision over recall, where a rare class shows what the other hides.",
    }
    agree = "As predicted over as annotated; on the dashed line they agree."
    for pair in ({"valence": agree, "arousal": agree}, curves):
        found_there = (picture(run.folder / split / f"{name}.png", said) for name, said in pair.items())
        shown = [each for there in found_there for each in there]
        blocks += [Row(shown)] if shown else []
    return blocks


def _errors(run: Kept) -> str:
    found, classes = run.evaluation, run.evaluation["classes"]
    table = np.array(found["confusion"])
    wrong = table - np.diag(table.diagonal())
    if not wrong.any():
        return f"Every one of the {found['faces']:,} faces was given its class."
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    recall = table.diagonal() / np.maximum(table.sum(axis=1), 1)
    there = np.flatnonzero(table.sum(axis=1))
    best, worst = there[recall[there].argmax()], there[recall[there].argmin()]
    return (
        f"It finds {classes[best]} best ({recall[best]:.0%} of its faces) and {classes[worst]} worst "
        f"({recall[worst]:.0%}). The commonest mistake: {classes[row]} taken for {classes[column]}, "
        f"{wrong[row, column]:,} of {table[row].sum():,} faces."
    )


def _by_class(found: dict[str, Any]) -> Table:
    columns = found["per_class"]
    shown = [[f"{value:.3f}" for value in columns[key]] for key in ("precision", "recall", "f1")]
    faces = [f"{number:,}" for number in columns["support"]]
    rows = [list(row) for row in zip(found["classes"], *shown, faces, strict=True)]
    return Table(["", "precision", "recall", "F1", "faces"], rows, "By class.")


def _clean(found: dict[str, Any]) -> Table:
    rows = []
    for name, clean in found["without_leaked"].items():
        both = (found["scores"][name], clean)
        rows.append([name, *("-" if each["value"] is None else f"{each['value']:.3f}" for each in both)])
    header = ["", "all faces", f"without the {found['leaked']:,} that stand in training too"]
    return Table(header, rows, "What copies of training faces are worth.")


def _looks(run: Kept) -> list[Block]:
    surely = "with which share of the votes" if run.settings["model"] == "hog-svm" else "how surely"
    said = f"Its most confident mistakes: above each face what was given and {surely}, below it the label."
    blocks: list[Block] = [*picture(run.folder / f"mistakes-{run.split}.png", said)]
    said = (
        "What in the picture spoke for the given class (Grad-CAM), in faces that it read rightly and in its "
        "most confident mistakes. A map shows where, not why; notebook 07 puts such maps to the test."
    )
    blocks += picture(run.folder / f"gradcam-{run.split}.png", said)
    return [Heading(f"{run.name}: mistakes, and where it looked", 3), *blocks] if blocks else []


# ---------------------------------------------------------------- how, where


def _particulars(runs: Sequence[Kept]) -> list[Block]:
    from helpers.training import TTA  # late: PyTorch takes seconds to load

    ways = sorted({run.evaluation.get("tta", "none") for run in runs} - {"none"})
    said = [f"Outputs are means over {TTA[way]}." for way in ways]
    quick = ", ".join(run.name for run in runs if run.record.get("fast"))
    if quick:
        said.append(f"Trained with --fast, on a few faces for one epoch, and so of no meaning: {quick}.")
    if any(run.split == "validation" for run in runs):
        said.append("Scores are on the validation faces, by which epochs were chosen: they are too good.")
    return [Text(" ".join(said))] if said else []


def _machine(runs: Sequence[Kept]) -> list[Block]:
    machines = [run.record["machine"] for run in runs]
    rows = [
        [name.replace("_", " "), ", ".join(dict.fromkeys(str(each.get(name, "-")) for each in machines))]
        for name in dict.fromkeys(name for each in machines for name in each)
    ]
    commands = [run.record["command"] for run in runs]
    commands.append(f"python3 -m helpers report {' '.join(run.folder.as_posix() for run in runs)}")
    return [Table(["", "here"], rows, "Where it was trained."), Code("\n".join(commands))]
