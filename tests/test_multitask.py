"""A loss that learns, in the training loop: trained with the network, resumed with it; local contrast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_training import Faces, StopAt, network, same, scores
from torch import nn

from helpers import losses, metrics, models, training


class Brightness(Faces):
    """Images whose brighter half tells the label and whose brightness tells the valence."""

    def __init__(self, num=96, seed=0):
        super().__init__(num, seed)
        valence = self.images.reshape(num, -1).mean(axis=1) / 64 - 2
        self.valence_arousal = np.stack([valence, np.full(num, np.nan)], axis=1).astype(np.float32)


class TwoHeads(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.body, self.degree = network(seed=seed), nn.Linear(2, 1)

    def forward(self, images):
        logits = self.body(images)
        return {"labels": logits, "valence": self.degree(logits)}


def learning_loss():
    terms = {"labels": losses.on_labels(), "valence": losses.on_dimension("valence")}
    return losses.UncertaintyWeighted(terms, ["valence"], speed=3.0)


def fit(model, loss, run=None, stop=None, **settings):
    config = training.Config(
        **{"epochs": 4, "batch_size": 16, "lr": 0.01, "precision": "float32", **settings}
    )
    score = {"accuracy": metrics.on_labels(metrics.accuracy)}
    how = {"run": run, "stop": stop, "device": "cpu", "progress": False}
    return training.fit(model, Brightness(), Brightness(64, 1), loss, score, config, **how)


def test_the_loop_trains_the_loss_with_the_network():
    loss = learning_loss()
    before = loss.weights()
    fit(TwoHeads(), loss)
    assert all(loss.weights()[name] != before[name] for name in before)


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"weight_decay": 0.5}])
def test_it_is_trained_as_adam_would_train_it_without_weight_decay(settings):
    """One step of Adam from rest moves a number by its learning rate, whatever the gradient."""
    loss = learning_loss()
    fit(TwoHeads(), loss, epochs=1, batch_size=96, lr=0.01, schedule="constant", warmup=0.0, **settings)
    np.testing.assert_allclose(loss.slow.detach().abs().numpy(), 0.01, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "ema": 0.9}])
@pytest.mark.parametrize("look", [3, 15])
def test_stopped_and_resumed_with_its_loss_is_the_same_to_the_bit(tmp_path, settings, look):
    whole, loss = TwoHeads(), learning_loss()
    history = fit(whole, loss, **settings)
    assert fit(TwoHeads(), learning_loss(), tmp_path, StopAt(look), **settings).stopped
    model, again = TwoHeads(), learning_loss()
    resumed = fit(model, again, tmp_path, **settings)
    assert same(model, whole)
    assert scores(resumed) == scores(history)
    assert torch.equal(again.slow, loss.slow)


def test_local_contrast_equals_scipy_s_boxes_and_forgets_the_light():
    images = torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def blurred(image):
        for _ in range(2):  # SciPy calls "mirror" what PyTorch calls "reflect"
            image = ndimage.uniform_filter(image, 7, mode="mirror")
        return image

    for ours, image in zip(models.LocalContrast(3)(images), images[:, 0].numpy(), strict=True):
        centred = image - blurred(image)
        expected = centred / (np.sqrt(blurred(centred**2)) + 0.125)
        np.testing.assert_allclose(ours[0].numpy(), expected, atol=1e-6)  # its boxes are rounded to float32
    light = torch.linspace(-2, 2, 48, dtype=torch.float64)  # from one side to the other
    lit, plain = (models.LocalContrast(3)(100 * (images + add))[..., 14:-14] for add in (light, 0))
    torch.testing.assert_close(lit, plain, atol=1e-5, rtol=0)
