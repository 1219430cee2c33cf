"""Trainings on the command line: words to settings, settings to a folder, and the named configurations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from inspect import get_annotations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import HEAR_CTRL_C, ROOT
from PIL import Image
from safetensors.torch import load_file

from helpers import cli, datasets, hog, losses, models, training
from helpers.cli import data, evaluate, experiment, settings
from helpers.cli.settings import CONFIGURATIONS, KINDS, Settings, from_file, merged

SMALL = ["--model-option", "widths", "(4,8)", "--model-option", "head_width", "8", "--batch-size", "32"]
SMALL += ["--device", "cpu", "--no-amp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder with 210 drawn faces in the cache."""
    root = tmp_path_factory.mktemp("data")
    datasets.load("synthetic", root=root, num_faces=210)
    return root


def words_of(folder: Path, out: Path, *words: str) -> list[str]:
    return ["train", "--root", str(folder), "--option", "num_faces", "210", "--out", str(out), *SMALL, *words]


def train(*words: object) -> int:
    return cli.main(words_of(*words))


def refused(capsys, *words: str) -> str:
    assert cli.main(["train", *words]) == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("python3 -m helpers train: error: ")
    return said


def yaml(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def recorded(run: Path, name: str = "config") -> dict:
    return json.loads((run / f"{name}.json").read_text())


def test_a_flag_goes_before_a_file_and_a_file_before_a_configuration(tmp_path):
    text = "Epochs: 7\nlearning_rate: 1e-3\nbatch-size: 16\nmodel_options: {head_width: 8}\namp: false\n"
    file = from_file(yaml(tmp_path / "mine.yaml", text))
    found = merged(CONFIGURATIONS["resnet18-4class"], file, {"lr": 3e-4, "optimizer": "AdamW"})
    assert (found.model, found.schedule, found.step_size) == ("resnet18", "step", 7)  # the configuration's
    assert (found.epochs, found.batch_size, found.amp) == (7, 16, False)  # the file's
    assert (found.lr, found.optimizer) == (3e-4, "adamw")  # the flags'
    assert merged(file).lr == 1e-3
    both = merged(file, {"model_options": {"stem": "small"}}).model_options
    assert both == {"head_width": 8, "stem": "small"}


def test_every_setting_is_a_flag_and_a_name_in_a_file(tmp_path):
    usual, made_up = asdict(Settings()), {int: 3, float: 0.5, str: "accuracy", dict: {"a": 1}}
    for name, kind in KINDS.items():
        kind = cli.bare(kind)
        value = made_up.get(getattr(kind, "__origin__", kind), not usual[name])
        value = get_args(kind)[-2] if get_args(kind) and not isinstance(value, dict) else value
        value = 64 if name == "image_size" else "cross-entropy" if name == "loss" else value
        flag = "--" + name.replace("_", "-")
        words = [flag, "a", "1"] if value == {"a": 1} else [flag, str(value)]
        words = [flag if value else "--no-" + name] if isinstance(value, bool) else words
        found = merged(cli.parse(["train", *words]).arguments)
        file = yaml(tmp_path / "one.yaml", json.dumps({name: value}))  # JSON is YAML
        assert merged(from_file(file)) == found == merged({name: value}), name


def test_the_words_that_are_offered_are_those_that_the_rooms_know():
    assert (*models.NAMES, "hog-svm") == get_args(settings.Network)
    assert set(datasets.LAYOUTS) == set(get_args(settings.Data))
    assert set(get_args(KINDS["optimizer"])) == set(training.config.OPTIMIZERS)
    assert set(get_args(KINDS["schedule"])) == set(training.config.SCHEDULES)
    assert get_args(KINDS["augment"]) == tuple(experiment.AUGMENTS)
    assert tuple(training.TTA) == get_args(get_annotations(evaluate.How, eval_str=True)["tta"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--modle", "resnet18"], "did you mean '--model'"),
        (["--model", "resnet81"], "did you mean 'resnet18'"),
        (["--data", "fer2031"], "did you mean 'fer2013'"),
        (["--loss", "emd"], "unknown loss for the task expression 'emd'; known: cross-entropy"),
        (["--task", "multitask", "--loss", "msee"], "did you mean 'mse'"),
        (["--epochs", "many"], "--epochs is a whole number, not 'many'"),
        (["--epochs", "2.5"], "--epochs is a whole number, not '2.5'"),
        (["--lr", "-1"], "lr"),
        (["--grad-clip", "-1"], "grad_clip"),
        (["--image-size", "60000"], "image_size must be from 8 to 1024"),
        (["--dropout", "1.5"], "dropout must be from 0.0 to 0.99"),
        (["--config", "resnet18-4clas"], "did you mean 'resnet18-4class'"),
        (["--config", "no/such.yaml"], "no/such.yaml cannot be read"),
        (["--model", "hog-svm", "--task", "multitask"], "hog-svm learns expressions alone"),
        (["--model", "hog-svm", "--model-option", "D", "1"], "option of hog-svm 'D'; known: C, gamma"),
        (["--monitor", "acuracy"], "did you mean 'accuracy'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_data_is_read(words, message, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data is read"))
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("epochs: three", "epochs is a whole number, not 'three'"),
        ("epochs: 2.5", "epochs is a whole number, not 2.5"),
        ("amp: 1", "amp is true or false, not 1"),
        ("options: [1, 2]", "options is names with values"),
        ("epochs: [", "line 1"),
        ("- a\n- b", "lines of 'name: value'"),
        ("a: !!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("a: &a [1]\nb: &b [*a,*a]\nc: [*b,*b]", "has aliases"),
    ],
)
def test_a_file_with_a_mistake_is_refused_in_one_line(text, message, capsys, tmp_path):
    assert message in refused(capsys, "--config", str(yaml(tmp_path / "mine.yaml", text)))


def test_a_run_holds_what_makes_its_network_again(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "a", "--epochs", "1", "--seed", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["best"]["epoch"] == 1
    record, audit = recorded(tmp_path / "a"), recorded(tmp_path / "a", "audit")
    assert merged(record["settings"]).seed == 3
    parts = datasets.load("synthetic", folder, num_faces=210).splits()
    assert list(record["sizes"].values()) == [len(part) for part in parts]
    column = audit["balance"]["columns"].index("train")
    counts = [row[column] for row in audit["balance"]["data"]]
    assert counts == np.bincount(parts[0].labels, minlength=7).tolist()
    assert train(folder, tmp_path / "b", "--fast", "--epochs", "50") == 0
    record = recorded(tmp_path / "b")
    assert record["config"]["epochs"] == 1
    assert record["sizes"]["train"] <= 256


def test_a_finished_run_goes_on_and_another_is_not_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "a"
    assert train(folder, out, "--epochs", "1") == 0
    weights = (out / "best.safetensors").read_bytes()
    assert train(folder, out, "--epochs", "1") == 0
    assert "finished already" in capsys.readouterr().out
    assert train(folder, out, "--epochs", "1", "--lr", "1e-2") == 2
    assert "another training is in" in (said := capsys.readouterr().err)
    assert "lr 0.001, now 0.01" in said
    assert (out / "best.safetensors").read_bytes() == weights
    with pytest.warns(UserWarning, match="epochs 1, now 3"):
        assert cli.main(["train", "--out", str(out), "--epochs", "3"]) == 0  # the rest stays as it was
    assert len((out / "history.csv").read_text().splitlines()) == 4
    assert train(folder, out, "--epochs", "1", "--lr", "1e-2", "--anew") == 0
    assert (out / "best.safetensors").read_bytes() != weights


def test_a_training_starts_from_another_one_and_two_at_once_are_refused(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "a", "--epochs", "2") == 0
    begin = ["--start", str(tmp_path / "a"), "--no-state", "--lr", "1e-8", "--warmup", "0"]
    assert train(folder, tmp_path / "b", "--epochs", "1", "--augment", "none", *begin) == 0
    one, other = (load_file(tmp_path / name / "best.safetensors")["head.weight"] for name in "ab")
    assert torch.allclose(one, other, atol=1e-5)
    assert train(folder, tmp_path / "c", "--epochs", "1", "--start", str(tmp_path / "none")) == 2
    capsys.readouterr()
    with training.Run(tmp_path / "a").alone():
        assert train(folder, tmp_path / "a", "--epochs", "3") == 2
    assert "another training is under way" in capsys.readouterr().err


def test_images_that_were_added_are_noticed(tmp_path, capsys):
    rng = np.random.default_rng(0)

    def add(part: str, name: str, first: int) -> None:
        (tmp_path / "mine" / part / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + 15):
            image = Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8))
            image.save(tmp_path / "mine" / part / name / f"{i}.png")

    for part in ("train", "test"):
        for name in ("happy", "sad", "suprise"):
            add(part, name, 0)
    words = ["train", "--data", "folder", "--root", str(tmp_path), "--option", "path", "mine"]
    words += ["--model", "hog-svm", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    assert "left out" in (said := capsys.readouterr().out)
    assert "suprise" in said
    assert cli.main(words) == 0
    assert "finished already" in capsys.readouterr().out
    add("train", "happy", 20)
    with pytest.warns(UserWarning, match="changed"):
        assert cli.main(words) == 2
    assert "the data changed" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals the POSIX way")
def test_stopped_by_ctrl_c_and_taken_up_it_ends_as_if_nothing_had_been(folder, tmp_path):
    words = ["--epochs", "10", "--augment", "v2", "--task", "multitask", "--balance", "learned"]
    assert train(folder, tmp_path / "whole", *words) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "helpers", *words_of(folder, tmp_path / "cut", *words)]
    process, began = subprocess.Popen(line, env=environment, preexec_fn=HEAR_CTRL_C), time.monotonic()
    while not (tmp_path / "cut" / "history.csv").exists() and time.monotonic() - began < 120:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not (tmp_path / "cut" / "finished.json").exists()
    assert train(folder, tmp_path / "cut", *words) == 0
    one, other = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_hog_and_svm_are_kept_without_pickle(folder, tmp_path):
    words = ["train", "--root", str(folder), "--option", "num_faces", "210", "--out", str(tmp_path / "a")]
    assert cli.main([*words, "--model", "hog-svm", "--model-option", "C", "1.0"]) == 0
    machine = hog.SVM.load(tmp_path / "a" / "svm.npz")
    train_faces, *_ = datasets.load("synthetic", folder, num_faces=210).splits()
    again = hog.SVM.fit(hog.hog(train_faces.images), train_faces.labels, train_faces.classes, C=1.0)
    assert np.array_equal(machine.coefficients, again.coefficients)


def test_the_head_is_trained_first_and_the_rest_after_it(folder, tmp_path):
    out = tmp_path / "a"
    words = ["--epochs", "1", "--frozen-epochs", "2", "--frozen-lr", "1e-2", "--seed", "5"]
    assert train(folder, out, *words) == 0
    torch.manual_seed(5)
    initial = models.create("face-cnn", 7, widths=(4, 8), head_width=8).state_dict()
    first, last = load_file(out / "head" / "best.safetensors"), load_file(out / "best.safetensors")
    head = recorded(out / "head")["config"]
    assert (head["lr"], head["epochs"], recorded(out)["config"]["lr"]) == (1e-2, 2, 1e-3)
    moved = {name for name in initial if not torch.equal(initial[name], first[name])}
    assert moved == {"dense.1.weight", "dense.1.bias", "head.weight", "head.bias"}  # no running mean either
    assert all(not torch.equal(first[name], last[name]) for name in initial if "num_batches" not in name)


def test_the_loss_is_what_was_asked_for(drawn_faces):
    told = merged({"label_smoothing": 0.1, "class_weights": 1.0, "device": "cpu"})
    logits, labels = torch.randn(210, 7), torch.from_numpy(drawn_faces.labels).long()
    weight = losses.class_weights(drawn_faces.labels, 7, 1.0)
    wanted = losses.on_labels(label_smoothing=0.1, weight=weight)(logits, {"labels": labels})
    assert experiment.make_loss(told, drawn_faces)(logits, {"labels": labels}) == wanted
    several = experiment.make_loss(merged({"task": "multitask", "loss": "mse"}), drawn_faces)
    outputs = {"labels": logits, "valence": torch.full((210, 1), 0.5), "arousal": torch.zeros(210, 1)}
    targets = {"labels": labels, "valence_arousal": torch.zeros(210, 2)}
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert several(outputs, targets).item() == pytest.approx(0.25 + plain.item(), rel=1e-4)


@pytest.fixture(scope="module")
def real_layouts(tmp_path_factory) -> Path:
    """Forty-two drawn faces as each real set is laid out."""
    root = tmp_path_factory.mktemp("sets")
    for name in ("fer2013", "muxspace", "affectnet_fused"):  # and AffectNet with it
        data.write(name, root, 42, balance="uniform", faces_per_person=2)
    return root


def test_the_configurations_are_listed_and_follow_their_projects(capsys):
    assert cli.main(["train", "--configs"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CONFIGURATIONS)
    assert all(merged(values) for values in CONFIGURATIONS.values())
    four, affectnet = merged(CONFIGURATIONS["resnet18-4class"]), merged(CONFIGURATIONS["resnet50-e34"])
    assert (four.schedule, four.step_size, four.gamma, four.epochs) == ("step", 7, 0.1, 20)
    assert (affectnet.epochs, affectnet.dropout, affectnet.weight_decay) == (34, 0.3, 1e-5)
    assert affectnet.options["num_classes"] == 7
    fused = {merged(v).loss for v in CONFIGURATIONS.values() if v.get("task") == "distribution"}
    assert fused == set(settings.LOSSES["distribution"])


QUICK = {"epochs": 1, "frozen_epochs": 0, "batch_size": 4, "device": "cpu", "amp": False, "pretrained": False}


@pytest.mark.parametrize(
    "name", ["fer2013-efficientnet", "resnet18-4class", "muxspace-resnet18", "fused-kl+emd"]
)
def test_a_configuration_builds_and_takes_a_step(name, real_layouts, tmp_path):
    size = 16 if "fer2013" in name else 32
    told = merged(CONFIGURATIONS[name], QUICK, {"root": str(real_layouts), "image_size": size})
    parts, _ = experiment.load_faces(told)
    run = training.Run(tmp_path / "run", {"sizes": {n: len(part) for n, part in parts.items()}})
    few = {name: part.select(slice(8)) for name, part in parts.items()}  # two batches
    history = experiment.train(told, few, run, False, False)
    assert np.isfinite(history.epochs[0]["train_loss"])


def test_earth_is_not_moved_between_classes_without_a_place(real_layouts):
    told = merged(CONFIGURATIONS["fused-emd"], QUICK, {"root": str(real_layouts), "image_size": 32})
    faces = experiment.load_faces(told)[0]["train"]
    with pytest.raises(ValueError, match=r"of serene, .*take a loss without emd"):
        experiment.places(replace(faces, valence_arousal=None))
    seen = np.full((len(faces), 2), 0.25, dtype=np.float32)
    spots = experiment.places(replace(faces, valence_arousal=seen))
    assert spots["quiet"] == pytest.approx((0.25, 0.25))
    assert spots["fear"] == experiment.emotions.CIRCUMPLEX["fear"]
