"""Google Colab: what its machines lack of what the notebooks need. Standard library only."""

from __future__ import annotations

import importlib
import subprocess
import sys

from helpers import __main__ as setup


def install_missing() -> list[str]:
    """Install what the notebooks need and this machine lacks; what is there stays as it is.

    Returns:
        What was installed; nothing where all was there.

    Raises:
        RuntimeError: pip failed.
    """
    missing = setup.missing()
    if missing:
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing])
        if done.returncode:
            names = ", ".join(missing)
            raise RuntimeError(f"pip could not install {names}; restart the runtime and try again")
        importlib.invalidate_caches()
    return missing
