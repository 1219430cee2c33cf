"""Google Colab: ``python -m helpers.colab`` installs what its machine lacks of what the notebooks need.

What is there stays as it is, so that Colab's own packages go on fitting together. Standard library only.
"""

from __future__ import annotations

import subprocess
import sys

from helpers import __main__ as setup


def main() -> int:
    """Install what is missing, and return pip's exit status; pip's own words say what went wrong."""
    missing = setup.missing()
    return subprocess.call([sys.executable, "-m", "pip", "install", "-q", *missing]) if missing else 0


if __name__ == "__main__":
    sys.exit(main())
