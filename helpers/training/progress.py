"""One line that says how far a training is, in a notebook and in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

Watch = Callable[[float, dict[str, float | str]], None]
"""Is told the share of the training that is done, from 0 to 1, and what there is to show beside it."""

_BAR = 20
_EVERY = 0.2  # seconds between two updates


class Progress:
    """A line that is drawn over again.

    In a notebook it is one output that is updated, so that a saved notebook keeps its last state; in a
    terminal it is rewritten in place; anywhere else only what ``close`` is given is printed.

    Args:
        total: steps in all.
        done: steps done already.
        shown: False for silence; or a function that is told instead.
    """

    def __init__(self, total: int, done: int = 0, shown: bool | Watch = True) -> None:
        self.total, self.done, self.shown = total, done, shown is True
        self.watch = shown if callable(shown) else None
        self.first, self.started, self.drawn = done, time.perf_counter(), 0.0
        self.handle = _display("") if self.shown and _in_notebook() else None

    def step(self, **values: float | str) -> None:
        """Count one step.

        Args:
            **values: what to show beside the bar, by name.
        """
        self.done += 1
        now = time.perf_counter()
        if now - self.drawn >= _EVERY:
            self.drawn = now
            if self.watch:
                self.watch(self.done / self.total, values)
            self._draw(self._bar(now) + _listed(values), end="")

    def close(self, line: str) -> None:
        """Draw the last line.

        Args:
            line: what stays.
        """
        self._draw(line, end="\n")

    def _bar(self, now: float) -> str:
        share = self.done / self.total
        left = (now - self.started) / max(1, self.done - self.first) * (self.total - self.done)
        filled = round(share * _BAR)
        minutes, seconds = divmod(round(left), 60)
        return f"{'█' * filled}{'░' * (_BAR - filled)} {share:4.0%}  {minutes}:{seconds:02d} left"

    def _draw(self, line: str, end: str) -> None:
        if not self.shown:
            return
        if self.handle is not None:
            self.handle.update({"text/plain": line}, raw=True)
        elif sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)
        elif end:
            print(line, flush=True)


def _listed(values: dict[str, float | str]) -> str:
    return "".join(
        f" · {name} {value:.3g}" if isinstance(value, float) else f" · {name} {value}"
        for name, value in values.items()
    )


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _display(line: str) -> Any:
    from IPython.display import display

    return display({"text/plain": line}, raw=True, display_id=True)
