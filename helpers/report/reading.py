"""What a run's folder says about the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.metrics import Interval

SPLITS = ("test", "validation")
"""The parts of the faces that a run may have been scored on, the one to report first."""
CEILING = "best_possible"
"""The accuracy of naming the likeliest class, where the true probabilities are known."""


@dataclass(frozen=True)
class Kept:
    """A training that was kept and scored.

    Args:
        folder: where it stands.
        record: ``config.json``.
        history: a row an epoch; empty for what has no epochs.
        audit: table by name, as an audit of the splits counted them; empty where there was none.
        evaluation: ``<split>/evaluation.json``.
    """

    folder: Path
    record: dict[str, Any]
    history: pd.DataFrame
    audit: dict[str, pd.DataFrame]
    evaluation: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def settings(self) -> dict[str, Any]:
        """What it was told on the command line."""
        return self.record["settings"]

    @property
    def split(self) -> str:
        """The part of the faces that it was scored on."""
        return self.evaluation["split"]

    def score(self, name: str) -> Interval | None:
        """Return a score with its interval, or None where it has none of that name.

        Args:
            name: as it stands in the evaluation; "majority" for the accuracy of the commonest class, or
                ``CEILING``.
        """
        apart = ("majority", CEILING)
        found = self.evaluation.get(name) if name in apart else self.evaluation["scores"].get(name)
        if found is None or found["value"] is None:
            return None
        numbers = [float("nan") if found[key] is None else found[key] for key in ("value", "low", "high")]
        return Interval(*numbers)


def read(folder: Path, split: str = "test") -> Kept:
    """Return what a run's folder says.

    Args:
        folder: of the run.
        split: the part of the faces that it was scored on.

    Raises:
        FileNotFoundError: the run, or its evaluation, is not there.
        ValueError: a file is damaged, or the run was not made on the command line.
    """
    record = _json(folder / "config.json")
    if "settings" not in record:
        raise ValueError(f"{folder} was not made by python3 -m helpers train: it does not name its faces")
    audit = _json(folder / "audit.json") if (folder / "audit.json").is_file() else {}
    tables = {name: pd.DataFrame(part["data"], columns=part["columns"]) for name, part in audit.items()}
    history = folder / "history.csv"
    epochs = pd.read_csv(history) if history.is_file() else pd.DataFrame()
    return Kept(folder, record, epochs, tables, _json(folder / split / "evaluation.json"))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged; make it again") from None
