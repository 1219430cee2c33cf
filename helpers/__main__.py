"""Set-up, then the command line: ``python3 -m helpers run`` and ``python3 -m helpers test``.

Standard library only, and only what Python 3.7 can read. Nothing is set up where the running interpreter has
what ``requirements.txt`` names (Colab, Kaggle, conda); else the packages go into ``.venv`` beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV, REQUIREMENTS = ROOT / ".venv", ROOT / "requirements.txt"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "reading-faces-setup"  # .venv is ours: the digest of what was installed, empty until all was


def missing(command: str = "") -> list[str]:
    """Return what the running interpreter lacks, as "numpy>=1.26"; below "# The tests." only for ``test``."""
    import importlib.metadata  # Python 3.8 brought it; the message for older ones comes first

    text, lacks = REQUIREMENTS.read_text(encoding="utf-8"), []
    text = text if command == "test" else text.split("# The tests.")[0]
    for name, bound in re.findall(r"^([A-Za-z][\w.-]*)>=([\d.]+)", text, re.MULTILINE):
        here = "0"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            here = importlib.metadata.version(name) or "0"  # None where its record is damaged
        release, wanted = ([int(n) for n in re.findall(r"\d+", v.split("+")[0])[:3]] for v in (here, bound))
        lacks += [name + ">=" + bound] if release < wanted else []
    return lacks


def prepared(command: str) -> Path | None:
    """Install what a command lacks, and return the Python to go on with, or None for the running one."""
    lacks, inside = ", ".join(missing(command)), Path(sys.prefix).resolve() == VENV.resolve()
    if not lacks:
        return None
    if VENV.is_dir() and any(VENV.iterdir()) and not STAMP.is_file():
        if PYTHON.exists() and not inside:
            return PYTHON  # somebody else's: used if it serves, never changed
        sys.exit(f"Set-up: .venv was not made by this command and lacks {lacks}; complete or move it")
    if inside and not STAMP.read_text(encoding="utf-8"):
        return Path(sys._base_executable)  # an environment cannot be made again from inside
    VENV.mkdir(exist_ok=True)
    with open(str(VENV / "setup.lock"), "a") as lock:
        with contextlib.suppress(ImportError, OSError):  # Windows, and network drives that know no locks
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)  # another set-up in this folder ends first
        _install(inside)
    importlib.invalidate_caches()
    if inside and missing(command):
        sys.exit(f"Set-up: installed, and still lacking: {', '.join(missing(command))}; delete .venv")
    return None if inside else PYTHON


def _install(inside: bool) -> None:
    """Make the environment where it is not whole, install, and stamp it last."""
    uv, digest = shutil.which("uv"), hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamped = STAMP.read_text(encoding="utf-8") if STAMP.is_file() else ""
    whole = stamped if PYTHON.exists() else ""  # a link to a Python that is gone does not exist
    if whole == digest and not inside:
        return
    print(f"Setting up .venv with {'uv' if uv else 'pip'}; stopped, the same command goes on.", flush=True)
    STAMP.write_text(whole, encoding="utf-8")
    if not whole:  # what a killed installer left cannot be trusted; its downloads are in a cache
        for folder in ("bin", "lib", "lib64", "Lib", "Scripts"):
            shutil.rmtree(str(VENV / folder), ignore_errors=True)
        make = [uv, "venv", "--allow-existing", "--python"] if uv else []
        if subprocess.run([*make, sys.executable, *([] if uv else ["-m", "venv"]), str(VENV)]).returncode:
            sys.exit("Set-up: no environment could be made; sudo apt install python3-venv, or install uv")
    pip = [uv, "pip", "install", "--python", str(PYTHON)] if uv else [str(PYTHON), "-m", "pip", "install"]
    settings = dict(os.environ, PIP_USER="0")  # pip.conf may ask for --user
    if subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], env=settings).returncode:
        sys.exit(
            "Set-up: the packages could not be installed; the lines above say why. It takes a network (a "
            "proxy's certificate: PIP_CERT, SSL_CERT_FILE), 6 GB of disk with CUDA, and Python 3.11 or newer"
        )
    STAMP.write_text(digest, encoding="utf-8")
    print(f"Set up. Jupyter Lab starts with: {os.path.relpath(str(PYTHON))} -m jupyterlab", flush=True)


def main(words: list[str]) -> int:
    """Do what the words behind ``python3 -m helpers`` say, after setting up; return the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is read by older ones, too)
        here = "{}.{}".format(*sys.version_info)
        sys.exit(f"Reading Faces needs Python 3.11 or newer, not {here}: https://www.python.org/downloads")
    from helpers import cli

    call = cli.parse(words)  # help and mistakes end here: nobody waits for an installation to read of a typo
    try:
        python = prepared(call.command)
        if python is None:
            return call.perform()
        command = [str(python), str(ROOT / "helpers"), *words]
        sys.stdout.flush()
        for name in ("PYTHONHOME", "__PYVENV_LAUNCHER__"):  # they belong to this Python
            os.environ.pop(name, None)
        if os.name == "nt":
            return subprocess.run(command).returncode  # Windows' own exec returns to the prompt at once
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"Set-up: {error}")
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.", file=sys.stderr)
    return 130


if __name__ == "__main__":
    if not __package__:  # started by its path: the rooms here must not pass for top-level modules
        sys.path[0] = str(ROOT)
    sys.exit(main(sys.argv[1:]))
