"""How a command ends that cannot do what it was asked: one line, and exit status 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import wraps

Perform = Callable[[argparse.Namespace], int]


def in_one_line(perform: Perform) -> Perform:
    """Return the command with its refusals told on stderr instead of raised.

    What the reader can put right (a name, a file, a package, a value) ends with status 2; a training whose
    loss is no number ends with 1, Ctrl-C with 130.

    Args:
        perform: takes the parsed words and returns an exit status.
    """

    @wraps(perform)
    def told(arguments: argparse.Namespace) -> int:
        try:
            return perform(arguments)
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            line = " ".join(str(error).split())
            print(f"python3 -m helpers {arguments.command}: error: {line}", file=sys.stderr)
            return 1 if isinstance(error, FloatingPointError) else 2
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return 130

    return told
