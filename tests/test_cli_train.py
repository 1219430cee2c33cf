"""Trainings on the command line: words to settings, settings to a folder, and the named configurations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEAR_CTRL_C, ROOT
from safetensors.torch import load_file

from helpers import cli, datasets, faces, hog, models, training
from helpers.cli import evaluate, experiment, settings
from helpers.cli.configurations import CONFIGURATIONS
from helpers.cli.settings import Settings, merged
from helpers.datasets import layouts

SMALL = ["--model-option", "widths", "(4,8)", "--model-option", "head_width", "8"]
SMALL += ["--device", "cpu", "--no-amp", "--batch-size", "32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder with 210 drawn faces in the cache."""
    root = tmp_path_factory.mktemp("data")
    datasets.load("synthetic", root=root, num_faces=210)
    return root


def train(folder: Path, out: Path, *words: str) -> int:
    told = ["train", "--root", str(folder), "--option", "num_faces", "210", "--out", str(out), *SMALL, *words]
    arguments = cli.parse(told)
    return arguments.perform(arguments)


def parsed(*words: str) -> Settings:
    arguments = cli.parse(["train", *words])
    return cli.train.settings_of(arguments)


def refused(capsys, *words: str) -> str:
    """Return the line that refuses some words, at once or when they are carried out."""
    try:
        arguments = cli.parse(["train", *words])
        status = arguments.perform(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert last.startswith("python3 -m helpers train: error: ")
    return last


# --- words ---


def test_a_flag_goes_before_a_file_and_a_file_before_a_configuration(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 7\nlr: 1\nbatch-size: 16\nmodel_options: {dropout: 0.1}\namp: false\n")
    found = parsed("--config", "resnet18-4class", "--config", str(file), "--lr", "3e-4")
    assert (found.model, found.merge, found.schedule) == ("resnet18", "4", "step")  # the configuration's
    assert (found.epochs, found.batch_size, found.amp) == (7, 16, False)  # the file's
    assert found.lr == 3e-4  # the flag's
    more = parsed("--config", str(file), "--model-option", "stem", "small", "--merge", "4")
    assert more.model_options == {"dropout": 0.1, "stem": "small"}
    assert more.lr == 1.0


def test_every_setting_is_a_flag_and_a_name_in_a_file(tmp_path):
    for name, flag in settings.FLAGS.items():
        value = {int: "3", float: "0.5", str: settings.CHOICES.get(name, ("x",))[-1]}.get(flag.kind)
        words = [flag.flag, value] if value else [flag.flag] + ["a", "1"] * (flag.kind is dict)
        words += ["--task", "distribution"] if name == "loss" else []
        words = [word if name != "loss" or word != "x" else "kl" for word in words]
        if words[-1] == "hog-svm":
            words[-1] = "resnet34"
        from_words = parsed(*words)
        file = tmp_path / "all.yaml"
        layer = {name: getattr(from_words, name), **({"task": "distribution"} if name == "loss" else {})}
        file.write_text(json.dumps(layer))  # JSON is YAML
        assert parsed("--config", str(file)) == from_words, name
        assert from_words != Settings() or name in ("amp",)


def test_the_words_that_are_offered_are_those_that_the_rooms_know():
    assert (*models.NAMES, "hog-svm") == settings.NETWORKS
    assert set(datasets.LAYOUTS) <= set(settings.SETS)
    assert settings.CHOICES["optimizer"] == training.config.OPTIMIZERS
    assert settings.CHOICES["schedule"] == training.config.SCHEDULES
    assert settings.CHOICES["augment"] == tuple(experiment.AUGMENTS)
    assert tuple(training.TTA) == evaluate.VIEWS
    assert set(settings.LOSSES["multitask"]) == set(experiment.DISTANCES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--modle", "resnet18"], "did you mean '--model'"),
        (["--model", "resnet81"], "did you mean 'resnet18'"),
        (["--data", "fer2031"], "did you mean 'fer2013'"),
        (["--loss", "emd"], "unknown loss for the task expression 'emd'; known: cross-entropy"),
        (["--task", "multitask", "--loss", "msee"], "did you mean 'mse'"),
        (["--epochs", "many"], "--epochs is a whole number, not 'many'"),
        (["--epochs", "2.5"], "--epochs is a whole number, not 2.5"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--lr", "fast"], "--lr is a number, not 'fast'"),
        (["--config", "resnet18-4clas"], "did you mean 'resnet18-4class'"),
        (["--config", "no/such.yaml"], "there is no file no/such.yaml"),
        (["--model", "hog-svm", "--task", "multitask"], "hog-svm learns expressions alone"),
        (["--data", "fer2013", "--root", "nowhere"], "nowhere"),
        (["--monitor", "acuracy"], "no score 'acuracy'; did you mean 'accuracy'"),
        (["--model-option", "steem", "small"], "steem"),
        (["--option", "num_facess", "3"], "did you mean 'num_faces'"),
        (["--lr", "-1"], "lr=-1"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(words, message, capsys, folder, tmp_path):
    root = [] if "--root" in words else ["--root", str(folder)]
    size = [] if "--option" in words or "fer2013" in words else ["--option", "num_faces", "210"]
    assert message in refused(capsys, *root, *size, "--out", str(tmp_path / "run"), *words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "no setting 'epoch'; did you mean 'epochs'"),
        ("epochs: three", "epochs is a whole number, not 'three'"),
        ("amp: 1", "amp is true or false, not 1"),
        ("options: [1, 2]", "options is names with values"),
        ("epochs: [", "line 1"),
        ("- a\n- b", "holds no 'name: value' lines"),
        ("a: !!python/object/apply:os.system ['true']", "line 1"),
    ],
)
def test_a_file_with_a_mistake_is_refused_in_one_line(text, message, capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert message in refused(capsys, "--config", str(file))


def test_the_list_of_configurations_names_them_all(capsys):
    arguments = cli.parse(["train", "--configs"])
    assert arguments.perform(arguments) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CONFIGURATIONS)


# --- folders ---


def test_a_run_holds_what_makes_its_network_again(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "a", "--epochs", "1", "--seed", "3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["best"]["epoch"] == 1
    record = json.loads((tmp_path / "a" / "config.json").read_text())
    assert merged(record["settings"]).seed == 3
    parts = datasets.load("synthetic", folder, num_faces=210).splits()
    assert list(record["sizes"].values()) == [len(part) for part in parts]
    assert record["command"].startswith("python3 -m helpers train --root ")
    assert record["command"].endswith("--epochs 1 --seed 3 --json")
    audit = json.loads((tmp_path / "a" / "audit.json").read_text())
    columns = audit["balance"]["columns"]
    counts = np.array([row[columns.index("train")] for row in audit["balance"]["data"]])
    assert counts.tolist() == np.bincount(parts[0].labels, minlength=7).tolist()


def test_a_finished_run_is_left_alone_and_another_is_not_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "a"
    assert train(folder, out, "--epochs", "1") == 0
    weights = (out / "best.safetensors").read_bytes()
    assert train(folder, out, "--epochs", "1") == 0
    assert "trained already" in capsys.readouterr().out
    assert train(folder, out, "--epochs", "1", "--lr", "1e-2") == 2
    assert "(its lr differ)" in capsys.readouterr().err
    assert (out / "best.safetensors").read_bytes() == weights
    assert train(folder, out, "--epochs", "1", "--lr", "1e-2", "--anew") == 0
    assert (out / "best.safetensors").read_bytes() != weights


def test_stopped_by_ctrl_c_and_taken_up_it_ends_as_if_nothing_had_been(folder, tmp_path):
    words = ["--epochs", "10", "--augment", "v2", "--task", "multitask", "--balance", "learned"]
    assert train(folder, tmp_path / "whole", *words) == 0
    told = ["train", "--root", str(folder), "--option", "num_faces", "210", *SMALL, *words]
    told += ["--out", str(tmp_path / "cut")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers", *told], env=environment, preexec_fn=HEAR_CTRL_C, cwd=tmp_path
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert (tmp_path / "cut" / "state.safetensors").exists()
    assert train(folder, tmp_path / "cut", *words) == 0
    one, other = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_fast_is_one_epoch_of_a_few_faces(folder, tmp_path):
    assert train(folder, tmp_path / "a", "--fast", "--epochs", "50") == 0
    record = json.loads((tmp_path / "a" / "config.json").read_text())
    assert record["config"]["epochs"] == 1
    assert record["sizes"]["train"] <= 256


@pytest.mark.parametrize(
    ("words", "heads", "score"),
    [
        (["--task", "multitask", "--loss", "ccc"], {"labels": 7, "valence": 1, "arousal": 1}, "mean score"),
        (["--task", "distribution", "--loss", "kl"], 7, "KL"),
        (["--class-weights", "1", "--label-smoothing", "0.1", "--merge", "4"], 4, "accuracy"),
    ],
)
def test_each_task_learns_its_labels(words, heads, score, folder, tmp_path):
    assert train(folder, tmp_path / "a", "--epochs", "1", *words) == 0
    record = json.loads((tmp_path / "a" / "config.json").read_text())
    assert record["model"]["num_classes"] == heads
    assert record["config"]["monitor"] == score
    assert score in (tmp_path / "a" / "history.csv").read_text().split("\n")[0].split(",")


def test_hog_and_svm_are_kept_without_pickle(folder, tmp_path):
    assert (
        train(
            folder,
            tmp_path / "a",
            "--model",
            "hog-svm",
            "--config",
            "muxspace-hog-svm",
            "--data",
            "synthetic",
        )
        == 2
    )
    words = ["train", "--root", str(folder), "--option", "num_faces", "210", "--out", str(tmp_path / "a")]
    arguments = cli.parse([*words, "--model", "hog-svm", "--model-option", "C", "1.0"])
    assert arguments.perform(arguments) == 0
    machine = hog.SVM.load(tmp_path / "a" / "svm.npz")
    train_faces, *_ = datasets.load("synthetic", folder, num_faces=210).splits()
    again = hog.SVM.fit(hog.hog(train_faces.images), train_faces.labels, train_faces.classes, C=1.0)
    assert np.array_equal(machine.coefficients, again.coefficients)


# --- the named configurations ---


@pytest.fixture(scope="module")
def real_layouts(tmp_path_factory) -> Path:
    """Forty-two drawn faces as each real set lies on disk."""
    root = tmp_path_factory.mktemp("sets")
    drawn = faces.sample(42, 0, 48, balance="uniform", faces_per_person=2)
    few = datasets.load("synthetic", root, num_faces=42, balance="uniform", faces_per_person=2)
    layouts.write_fer2013(few, root)
    layouts.write_muxspace(few, root / "muxspace")
    fused = faces.fused_probabilities(drawn.action_units, drawn.class_probabilities)
    layouts.write_affectnet_fused(few, np.asarray(fused), root)  # and AffectNet with it
    return root


QUICK = {"epochs": 1, "frozen_epochs": 0, "batch_size": 4, "image_size": 32, "device": "cpu", "amp": False}
ONE_EACH = [name for name in CONFIGURATIONS if not name.startswith("fused-") or name.split("-")[1] == "kl"]


def test_each_of_the_five_projects_is_there():
    named = {"fer2013-cnn", "resnet18-4class", "muxspace-resnet18", "resnet50-v2-e10", "fused-kl"}
    assert named <= set(CONFIGURATIONS)
    assert all(merged(values) for values in CONFIGURATIONS.values())
    losses = {
        merged(values).loss for values in CONFIGURATIONS.values() if values.get("task") == "distribution"
    }
    assert losses == set(settings.LOSSES["distribution"])


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_configuration_builds_and_takes_a_step(name, real_layouts, tmp_path):
    told = merged(CONFIGURATIONS[name], QUICK, {"root": str(real_layouts)})
    if told.data not in datasets.LAYOUTS:
        pytest.skip(f"no reader of {told.data} here")
    if told.model == "hog-svm" or told.model_options.get("stem") == "small":
        told = merged(settings.record(told), {"image_size": 48 if told.model == "hog-svm" else 16})
    if "weights" in told.model_options:  # nothing is downloaded in a test
        told = merged(settings.record(told), {"model_options": {"weights": None}})
    parts = experiment.load_faces(told)
    if told.model == "hog-svm":
        sizes = {name: len(part) for name, part in parts.items()}
        assert (
            experiment.train_svm(told, parts, tmp_path / "run", {"sizes": sizes}).classes
            == parts["train"].classes
        )
        return
    few = {name: part.select(slice(8)) for name, part in parts.items()}  # two batches
    history = experiment.train(told, few, training.Run(tmp_path / "run"), progress=False)
    assert np.isfinite(history.epochs[0]["train_loss"])
    assert history.epochs[0]["epoch"] == 1


def test_earth_is_not_moved_between_words_without_a_place(real_layouts, tmp_path):
    told = merged(CONFIGURATIONS["fused-emd"], QUICK, {"root": str(real_layouts)})
    train = experiment.load_faces(told)["train"]
    with pytest.raises(
        ValueError, match=r"emd needs the place of serene, .*take a loss without emd"
    ) as caught:
        experiment.places("emd", replace(train, valence_arousal=None))
    assert "\n" not in str(caught.value)
    seen = np.full((len(train), 2), 0.25, dtype=np.float32)
    spots = experiment.places("emd", replace(train, valence_arousal=seen))
    assert spots["quiet"] == pytest.approx((0.25, 0.25))
    assert spots["fear"] == experiment.emotions.CIRCUMPLEX["fear"]


def test_the_head_learns_first_and_the_rest_after_it(folder, tmp_path):
    out = tmp_path / "a"
    words = ["--epochs", "1", "--frozen-epochs", "2", "--frozen-lr", "1e-2", "--seed", "5"]
    assert train(folder, out, *words) == 0
    torch.manual_seed(5)
    drawn = models.create("face-cnn", 7, widths=(4, 8), head_width=8).state_dict()
    first, last = load_file(out / "head" / "best.safetensors"), load_file(out / "best.safetensors")
    moved = {name for name in drawn if not torch.equal(drawn[name], first[name])}
    assert moved == {"dense.1.weight", "dense.1.bias", "head.weight", "head.bias"}  # no running mean either
    assert not torch.equal(first["blocks.0.0.weight"], last["blocks.0.0.weight"])
    (out / "finished.json").unlink()  # as if killed before its end
    head = (out / "head" / "history.csv").read_bytes()
    assert train(folder, out, *words) == 0
    assert (out / "head" / "history.csv").read_bytes() == head  # with its seconds: it was not trained again
    assert torch.equal(load_file(out / "best.safetensors")["head.weight"], last["head.weight"])


def test_every_loss_on_distributions_is_there_also_for_merged_classes(folder):
    parts = experiment.load_faces(merged({"root": str(folder), "options": {"num_faces": 210}, "merge": "4"}))
    logits = torch.zeros(len(parts["train"]), 4, requires_grad=True)
    target = {"distribution": torch.from_numpy(parts["train"].distribution)}
    for name in settings.LOSSES["distribution"]:
        loss = experiment.make_loss(merged({"task": "distribution", "loss": name}), parts["train"])
        value = loss(logits, target)
        value.backward()
        assert value > 0, name
    assert torch.isfinite(logits.grad).all()
