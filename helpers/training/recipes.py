"""Where to start when a network with trained weights is fine-tuned: one configuration a network."""

from __future__ import annotations

from helpers.training.config import Config

_GENTLE = {"schedule": "cosine", "warmup": 0.1, "grad_clip": 1.0, "patience": 5}

RECIPES = {
    "face-cnn": Config(epochs=20, batch_size=64, lr=1e-3, lr_decay=0.7, weight_decay=0.05, warmup=0.2),
    "face-cnn-fast": Config(epochs=20, batch_size=64, lr=1e-3, lr_decay=0.7, weight_decay=0.05, warmup=0.2),
    "resnet18": Config(epochs=15, batch_size=64, lr=1e-3, lr_decay=0.6, weight_decay=0.05, **_GENTLE),
    "resnet34": Config(epochs=15, batch_size=64, lr=7e-4, lr_decay=0.6, weight_decay=0.05, **_GENTLE),
    "resnet50": Config(epochs=15, batch_size=64, lr=5e-4, lr_decay=0.6, weight_decay=0.05, **_GENTLE),
    "efficientnet_b0": Config(epochs=20, batch_size=64, lr=1e-3, lr_decay=0.8, weight_decay=0.01, **_GENTLE),
    "efficientnet_lite0": Config(epochs=20, batch_size=64, lr=1e-3, lr_decay=0.8, **_GENTLE),
    "vit_b_16": Config(epochs=12, batch_size=32, lr=3e-4, lr_decay=0.75, weight_decay=0.05, **_GENTLE),
}
"""Name of a network to how its whole can be fine-tuned, after its head was trained on frozen features.

Starting points, to be changed on validation faces: ``dataclasses.replace(RECIPES["resnet18"], epochs=5)``.
The head takes the highest learning rate and each stage below it ``lr_decay`` of the one above (Howard and
Ruder 2018, arXiv 1801.06146, divide by 2.6; Bao et al. 2022, arXiv 2106.08254, take 0.65 to 0.75 for a
transformer). Networks with more stages get a decay nearer to 1, so that the first is not left out.
"""
