"""What happened in a training, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd


@dataclass
class History:
    """The epochs of one training.

    Args:
        monitor: the metric that picks the best epoch.
        lower_is_better: whether less of it is better.
        epochs: one record an epoch: "epoch" (from 1), "lr", "train_loss", "loss" and the metrics (on the
            validation set), "seconds", "images_per_second".
        stopped: whether it was stopped before its end.
    """

    monitor: str
    lower_is_better: bool = False
    epochs: list[dict[str, float]] = field(default_factory=list)
    stopped: bool = False

    @property
    def best(self) -> dict[str, float] | None:
        """The record of the best epoch, the earliest where several are equal; None before the first.

        An epoch whose score is not a number is worse than any other.
        """
        sign = 1 if self.lower_is_better else -1

        def rank(record: dict[str, float]) -> tuple[bool, float]:
            score = sign * record[self.monitor]
            return math.isnan(score), score

        return min(self.epochs, key=rank, default=None)

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch, from 1; 0 before the first."""
        return int(self.best["epoch"]) if self.best else 0

    @property
    def epochs_since_best(self) -> int:
        """How many epochs have passed since the best one."""
        return len(self.epochs) - self.best_epoch

    def frame(self) -> pd.DataFrame:
        """Return one row an epoch."""
        return pd.DataFrame(self.epochs)
