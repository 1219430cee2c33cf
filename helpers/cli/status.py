"""What a command shows in the terminal: progress on one line, durations, paths."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path


class StatusLine:
    """One line of progress that writes over itself on a terminal, and goes on below itself in a file.

    Args:
        every: least number of seconds between two lines where the output is no terminal.
    """

    def __init__(self, every: float = 0.0):
        self.every, self.last, self.due = every, "", 0.0
        self.live = sys.stdout.isatty()

    def show(self, text: str) -> None:
        """Show a text in place of the one before.

        Args:
            text: one line; what is wider than the terminal is cut.
        """
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + text[:width].ljust(width), end="", flush=True)
        elif text != self.last and time.monotonic() >= self.due:
            print(text, flush=True)
            self.due = time.monotonic() + self.every
        self.last = text

    def clear(self) -> None:
        """Take the text away, for an ordinary line to follow."""
        if self.live and self.last:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", flush=True)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, "1:05".

    Args:
        seconds: the duration.
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def short(path: str | Path) -> str:
    """Return a path as it is shortest to type in the working directory.

    Args:
        path: the path, absolute or not.
    """
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except ValueError:  # on Windows: another drive
        return str(path)
