"""What a training tells its trackers: read back from TensorBoard's files, and by a stand-in for W&B."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from helpers import losses, metrics, models, training
from helpers.training.tracking import TensorBoard


def fit(drawn_faces, folder, *trackers, about=None, stop=None):
    torch.manual_seed(0)
    model = models.create("face-cnn", 7, widths=(4, 8), head_width=8)
    config = training.Config(epochs=2, batch_size=32, augment=None, precision="float32")
    faces = drawn_faces.select(slice(0, 96)), drawn_faces.select(slice(96, 128))
    score = {"accuracy": metrics.on_labels(metrics.accuracy)}
    draw = {"confusion": lambda outputs, targets, ax: ax.plot(outputs.argmax(1), targets["labels"])}
    how = {"run": training.Run(folder, about, trackers), "figures": draw, "stop": stop, "progress": False}
    return training.fit(model, *faces, losses.on_labels(), score, config, device="cpu", **how)


class StandIn:
    """What is used of the package wandb, noting every call; it refuses what wandb refuses."""

    def __init__(self):
        self.inits, self.logged, self.artifacts, self.finished, self.summary = [], [], [], 0, {}
        self.Image = lambda path: Path(path).read_bytes()[:4]

    def init(self, *, config, project, name, tags, id, mode, dir, resume):
        assert not set(project) & set("/\\#?%:")
        assert all(1 <= len(tag) <= 64 for tag in tags)
        self.inits.append({"config": config, "project": project, "tags": tags, "id": id, "mode": mode})
        log_artifact, summary = self.artifacts.append, self.summary
        return SimpleNamespace(log=self.log, log_artifact=log_artifact, finish=self.finish, summary=summary)

    def log(self, values, step):
        assert not self.logged or step >= self.logged[-1][0]
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1

    def Artifact(self, name, type):
        assert re.fullmatch(r"[a-zA-Z0-9_\-.]{1,128}", name)
        files = []
        return SimpleNamespace(add_file=files.append, files=files)


@pytest.fixture
def wandb(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return stand_in


def test_tensorboard_and_wandb_get_scalars_figures_and_settings(drawn_faces, tmp_path, wandb):
    about = {"data": {"name": "synthetic", "options": {"num_faces": 210}}}
    tracker = training.WandB(tmp_path, "faces", tags=("a", "b"))
    history = fit(drawn_faces, tmp_path, tracker, about=about)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["data"] == about["data"]
    assert (record["model"]["name"], record["model"]["widths"]) == ("face-cnn", [4, 8])
    assert record["faces"]["normalisation"] == {"mean": 0.5, "std": 0.25}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = [(each.step, each.value) for each in events.Scalars("accuracy")]
    assert values == [(each["epoch"], pytest.approx(each["accuracy"])) for each in history.epochs]
    [best] = events.Scalars("best/accuracy")
    assert (best.step, best.value) == (history.best_epoch, pytest.approx(history.best["accuracy"]))
    assert [image.step for image in events.Images("confusion")][-1] == history.best_epoch
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    noted = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert noted["config.lr"].number_value == 1e-3
    assert noted["model.name"].string_value == "face-cnn"
    assert noted["data.options.num_faces"].number_value == 210
    [told] = wandb.inits  # with the settings, before the first epoch
    assert (told["project"], told["tags"], told["mode"]) == ("faces", ["a", "b"], "offline")
    assert told["config"]["config.lr"] == 1e-3
    scalars = set().union(*(values for _, values in wandb.logged)) | set(wandb.summary)
    assert scalars == set(events.Tags()["scalars"]) | set(events.Tags()["images"])
    assert [step for step, _ in wandb.logged] == [1, 2]
    assert wandb.logged[0][1]["confusion"] == b"\x89PNG"
    assert wandb.summary["best/accuracy"] == history.best["accuracy"]
    assert [Path(file).name for file in wandb.artifacts[0].files] == ["best.safetensors", "config.json"]
    assert wandb.finished == 1


def test_tensorboard_forgets_what_a_killed_training_told_later(tmp_path):
    board = TensorBoard(tmp_path)
    for epoch, loss in ((1, 4.0), (2, 3.0), (3, 2.0), (2, 1.0)):
        board.epoch(epoch, {"loss": loss}, {})
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(each.step, each.value) for each in events] == [(1, 4.0), (2, 1.0)]


def test_a_stopped_training_goes_on_under_the_same_id(drawn_faces, tmp_path, wandb):
    stop = training.Stop()
    stopping = SimpleNamespace(epoch=stop.request)
    assert fit(drawn_faces, tmp_path, training.WandB(tmp_path, "faces"), stopping, stop=stop).stopped
    assert not fit(drawn_faces, tmp_path, training.WandB(tmp_path, "faces")).stopped
    assert [step for step, _ in wandb.logged] == [1, 2]
    assert wandb.finished == 2
    assert wandb.inits[0]["id"] == wandb.inits[1]["id"]


def test_names_that_wandb_refuses_are_made_safe_and_its_errors_cost_no_training(drawn_faces, tmp_path, wandb):
    folder = tmp_path / "faces kl+emd (1)"
    fit(drawn_faces, folder, training.WandB(folder, "a/b: c", tags=["x" * 99]))
    assert (len(wandb.artifacts), wandb.finished) == (1, 1)
    wandb.init = lambda **_: 1 / 0
    with pytest.warns(UserWarning, match=r"WandB is told no more \(division by zero\); the training goes on"):
        fit(drawn_faces, tmp_path / "b", training.WandB(tmp_path / "b", "faces"))
    assert training.Run(tmp_path / "b").finished["epochs"] == 2


def test_without_wandb_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what an import of something missing meets
    with pytest.raises(ImportError, match="pip install wandb"):
        training.WandB(tmp_path, "faces")


def test_the_real_package_takes_it_offline(drawn_faces, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "kl+emd"
    fit(drawn_faces, folder, training.WandB(folder, "faces"))
    assert list((folder / "wandb").glob("offline-run-*"))
