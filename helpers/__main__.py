"""Set-up, then the command line: ``python3 -m helpers run`` and ``python3 -m helpers test``.

Standard library only, and only what Python 3.7 can read: this file runs before anything is installed, and
has to tell the reader of an old Python so. Where the running interpreter meets ``requirements.txt`` (Colab,
Kaggle, conda, an environment the reader made) nothing is set up. Elsewhere the packages go into ``.venv``
beside this package, and the command goes on in there; no other environment is ever written to.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import operator
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements.txt"
MARK = "reading-faces-setup"
"""File in ``.venv`` by which it is ours: a stamp when the environment is complete, UNFINISHED before."""
UNFINISHED = "unfinished"
SPARE = {
    "run": {"jupyterlab", "nbval", "pytest", "pytest-xdist", "hypothesis", "torchmetrics", "pyyaml", "typst"},
    "test": {"jupyterlab"},
}
WITHOUT_NOTEBOOKS = ("predict", "webcam", "train", "evaluate", "compare", "ensemble", "data", "report")
SPARE |= dict.fromkeys(
    WITHOUT_NOTEBOOKS, SPARE["run"] - {"pyyaml"} | {"nbclient", "nbconvert", "ipykernel", "ipywidgets"}
)
"""Packages that a command does without; Colab has everything that ``run`` needs."""

_OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_CAUSES = (
    (
        r"No space left|Errno 28|not enough space|disk quota",
        "the disk is full; free some space (6 GB with the CUDA builds of PyTorch) and type the command again",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|UnknownIssuer",
        "the network's certificate is not trusted; behind a proxy set SSL_CERT_FILE and PIP_CERT to the file "
        "of its certificate",
    ),
    (
        r"name resolution|NewConnectionError|getaddrinfo|dns error|Network is unreachable|ProxyError"
        r"|ReadTimeout|Connection refused|error sending request|failed to lookup|Connection reset|timed out",
        "no network, or no way to the package index through it; connect and type the command again",
    ),
    (
        r"No matching distribution found|has no wheels|no version of|No solution found",
        "a package has no build for Python {}.{} on this machine; 3.11, 3.12 and 3.13 have them all".format(
            *sys.version_info
        ),
    ),
    (
        r"Permission denied|Errno 13|Access is denied",
        "this folder cannot be written; copy the project to one of your own",
    ),
)


class Trouble(Exception):
    """Something the reader has to put right; its text is the one line they see."""


def version_key(text: str) -> tuple:
    """Return what orders versions as PEP 440 does: 2.10 after 2.9, 3.0rc1 before 3.0, local parts left aside.

    Args:
        text: a version such as "2.15.0+cu130" or "1.0.post1".

    Raises:
        ValueError: the text is no version.
    """
    match = re.fullmatch(
        r"\s*v?(?:(\d+)!)?(\d+(?:\.\d+)*)(?:[-_.]?(alpha|beta|preview|pre|rc|a|b|c)[-_.]?(\d*))?"
        r"(?:(-\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?(?:[-_.]?(dev)[-_.]?(\d*))?(?:\+[a-z0-9._-]+)?\s*",
        text.lower(),
    )
    if not match:
        raise ValueError(f"{text!r} is not a version")
    epoch, release, phase, phase_number, bare_post, post, post_number, dev, dev_number = match.groups()
    numbers = [int(part) for part in release.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    after = int(bare_post[1:]) if bare_post else int(post_number or 0) if post else -1
    # A development release comes before its phases, a final release after them.
    step = {"a": 0, "b": 1}.get(phase[0], 2) if phase else -1 if dev and after < 0 else 3
    before = (step, int(phase_number or 0))
    return int(epoch or 0), tuple(numbers), before, after, int(dev_number or 0) if dev else float("inf")


def parse_requirement(line: str) -> tuple[str, list[tuple[str, str]]] | None:
    """Return the name and the (operator, version) pairs of a line of a requirements file.

    Args:
        line: ``name``, or ``name>=1.2,<3``; a comment may follow.

    Returns:
        None where the line says more than this can judge (a marker, an address, an option, ``==1.*``).
    """
    text = re.sub(r"(^|\s)#.*", "", line).strip()
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*((?:(?:[<>=!]=|[<>])\s*[\w.+!]+\s*,?\s*)*)", text)
    if not match:
        return None
    return match.group(1), re.findall(r"([<>=!]=|[<>])\s*([\w.+!]+)", match.group(2))


def lacking(requirements: str, spare: set[str] = frozenset()) -> list[str]:
    """Return what the running interpreter lacks, as "nbval" or "numpy>=1.26 (here: 1.24.4)".

    A line that cannot be judged here counts as lacking.

    Args:
        requirements: the text of a requirements file.
        spare: names, in lower case, that may be missing.
    """
    lines = (line.strip() for line in requirements.splitlines())
    found = (_lack(line, spare) for line in lines if line and not line.startswith("#"))
    return [lack for lack in found if lack]


def _lack(line: str, spare: set[str]) -> str:
    import importlib.metadata  # Python 3.8 brought it; the message for older ones comes first

    parsed = parse_requirement(line)
    if parsed is None:
        return line
    name, bounds = parsed
    if name.lower() in spare:
        return ""
    try:
        here = importlib.metadata.version(name)
        good = all(_OPERATORS[sign](version_key(here), version_key(wanted)) for sign, wanted in bounds)
    except (importlib.metadata.PackageNotFoundError, ValueError, TypeError, AttributeError):
        return name  # not there, or its record is damaged
    wanted = ",".join(sign + version for sign, version in bounds)
    return "" if good else f"{name}{wanted} (here: {here})"


def too_old(version: tuple[int, ...]) -> str:
    """Return what to tell the reader of a Python before 3.11, or nothing.

    Args:
        version: as ``sys.version_info`` has it.
    """
    if version[:2] >= OLDEST:
        return ""
    newer = next((name for name in ("python3.13", "python3.12", "python3.11") if _runs(name)), "")
    hint = f"type {newer} -m helpers instead" if newer else "get one from https://www.python.org/downloads"
    here = ".".join(map(str, version[:3]))
    return f"Reading Faces needs Python 3.11 or newer, and {sys.executable} is {here}; {hint}"


def _runs(name: str) -> bool:
    found = shutil.which(name)  # a version manager's stand-in may be there without the Python behind it
    return bool(found) and subprocess.run([found, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0


def stamp(requirements: str, version: str) -> str:
    """Return what marks an environment as complete: it changes with the requirements and with Python.

    Args:
        requirements: the text of the requirements file.
        version: "3.11" and so on, of the environment's Python.
    """
    return hashlib.sha256((requirements + "\n" + version).encode()).hexdigest()


def environment(missing: list[str]) -> Path | None:
    """Make and fill ``.venv`` where that has not been done, and return the Python to go on with.

    Args:
        missing: what the running interpreter lacks.

    Returns:
        None where the running interpreter is that of ``.venv``, and has now been completed.

    Raises:
        Trouble: the environment cannot be made, or it is not ours and lacks something.
    """
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    if VENV.is_dir() and any(VENV.iterdir()) and not (VENV / MARK).is_file():
        if not inside and python.exists():
            return python  # somebody else's: used if it serves, never changed
        raise Trouble(
            f".venv was not made by this command and lacks {', '.join(missing)}; "
            "install requirements.txt into it, or move it away"
        )
    if inside and _mark() == UNFINISHED:
        return Path(sys._base_executable)  # nobody can clear away the ground they stand on
    if inside or not _complete(python):
        VENV.mkdir(exist_ok=True)
        if not (VENV / MARK).exists():
            (VENV / MARK).write_text(UNFINISHED, encoding="utf-8")
        with _alone():
            _fill(python)
    return None if inside else python


def _mark() -> str:
    with contextlib.suppress(FileNotFoundError):
        return (VENV / MARK).read_text(encoding="utf-8")
    return UNFINISHED


def _complete(python: Path) -> bool:
    return _mark() == stamp(REQUIREMENTS.read_text(encoding="utf-8"), _version_of(python))


def _version_of(python: Path) -> str:
    """Return "3.11" and so on, or nothing for an environment whose Python does not run (any more)."""
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([str(python), "-c", question], stdout=subprocess.PIPE, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.decode().strip() if answer.returncode == 0 else ""


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the set-up for one process; the lock falls with the process, however it ends."""
    with open(str(VENV / "setup.lock"), "a") as file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise Trouble("another one is under way in this folder; wait until it is done") from error
        except OSError:
            pass  # a network drive that knows no locks
        yield


def _fill(python: Path) -> None:
    """Make the environment where needed, install, and stamp it; the stamp is the last thing written."""
    uv, began, before = shutil.which("uv"), time.monotonic(), _mark()
    afresh = before == UNFINISHED or not _version_of(python)
    _announce("uv" if uv else "pip", afresh)
    (VENV / MARK).write_text(UNFINISHED, encoding="utf-8")
    if afresh:  # what a killed installer left cannot be trusted; its downloads are in the installer's cache
        _empty()
        _make()
    if uv:
        command = [uv, "pip", "install", "--python", str(python), "--requirements", str(REQUIREMENTS)]
    else:
        # Byte code is made where it is first needed: for all packages at once it takes as long as the rest.
        command = [str(python), "-m", "pip", "install", "--no-input", "--no-compile", "--progress-bar", "off"]
        command += ["--disable-pip-version-check", "--requirement", str(REQUIREMENTS)]
    log = VENV / "setup.log"
    if _watch(command, log):
        if not afresh:  # the installer gave up by itself: the environment is as it was
            (VENV / MARK).write_text(before, encoding="utf-8")
        raise Trouble(f"the packages could not be installed: {_cause(log)}")
    complete = stamp(REQUIREMENTS.read_text(encoding="utf-8"), _version_of(python))
    (VENV / MARK).write_text(complete, encoding="utf-8")
    _say(
        f"Set up in {time.monotonic() - began:.0f} s. Jupyter Lab starts with: {_short(python)} -m jupyterlab"
    )


def _announce(installer: str, afresh: bool) -> None:
    if not afresh:
        return _say(f"Setting up: {installer} brings .venv up to date with requirements.txt.")
    duration = "25 s" if installer == "uv" else "100 s"
    cuda = sys.platform == "linux"  # elsewhere PyTorch's builds on PyPI come without
    room = "6 GB of disk, as PyTorch brings CUDA" if cuda else "2 GB of disk"
    _say(
        f"Setting up, once: {installer} installs requirements.txt into .venv (about {duration} and {room}). "
        "Ctrl-C stops; the same command goes on."
    )
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < (6.5 if cuda else 2):
        _say(f"Only {free:.1f} GB are free here, which may not be enough.")
    return None


def _empty() -> None:
    for child in VENV.iterdir():
        if child.name in {MARK, "setup.lock"}:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(str(child))
        else:
            child.unlink()


def _make() -> None:
    import importlib.util

    command = [sys.executable, "-m", "venv", str(VENV)]
    if importlib.util.find_spec("ensurepip") is None:  # Debian and Ubuntu ship it apart
        if not shutil.which("uv"):
            raise Trouble(
                "this Python cannot make environments; sudo apt install python3-venv, or install uv"
            )
        command.append("--without-pip")
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        (VENV / "setup.log").write_bytes(made.stdout)
        raise Trouble(f".venv could not be made: {_cause(VENV / 'setup.log')}")


def _watch(command: list[str], log: Path) -> int:
    """Run a command with its output in a log and how far it is on one line; return its exit status."""
    from helpers.cli.status import StatusLine

    settings = dict(os.environ, PIP_USER="0", PYTHONUNBUFFERED="1")  # pip.conf may ask for --user
    line, began = StatusLine(every=15), time.monotonic()
    with open(str(log), "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=settings)
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                line.show(f"  {time.monotonic() - began:3.0f} s  {_progress(log)}")
        finally:
            line.clear()
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode


def _progress(log: Path) -> str:
    """Return the last thing that the installer says it does, short."""
    text = log.read_text(encoding="utf-8", errors="replace")
    steps = re.findall(
        r"^\s*((?:Collect|Download|Build|Resolv|Prepar|Install)[^:\n]{,60})", text, re.MULTILINE
    )
    return re.sub(r"-(cp|py)\d.*", "", steps[-1]) if steps else "Starting"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")


def _cause(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    return f"{_remedy(text) or _last_line(text)} (all of it: {_short(log)})"


def _remedy(text: str) -> str:
    known = (remedy for signs, remedy in _CAUSES if re.search(signs, text, re.IGNORECASE))
    return next(known, "")


def _short(path: Path) -> str:
    from helpers.cli.status import short

    return short(path)


def _say(text: str) -> None:
    print(text, flush=True)


def _go_on(python: Path, words: list[str]) -> int:
    """Run the same command with another Python: its exit status is ours, and so is its Ctrl-C."""
    command = [str(python), str(HERE), *words]
    misleading = {"PYTHONHOME", "__PYVENV_LAUNCHER__"}  # they belong to this Python
    settings = {key: value for key, value in os.environ.items() if key not in misleading}
    if settings.get("PYTHONDONTWRITEBYTECODE") and (VENV / MARK).is_file():
        # Without byte code each kernel compiles PyTorch's sources anew, ten seconds long. It is kept in our
        # environment, and nowhere else is any written.
        del settings["PYTHONDONTWRITEBYTECODE"]
        settings["PYTHONPYCACHEPREFIX"] = str(VENV / "bytecode")
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, settings)
    process = subprocess.Popen(command, env=settings)  # Windows' own exec would return to the prompt at once
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the other one hears it too, and decides
            return process.wait()


def prepared(command: str) -> Path | None:
    """See to it that a command has its packages, and return the Python to go on with, or None for this one.

    Args:
        command: the command's name.

    Raises:
        Trouble: they cannot be had.
    """
    text, spare = REQUIREMENTS.read_text(encoding="utf-8"), SPARE.get(command, set())
    missing = lacking(text, spare)
    if not missing:
        return None
    python = environment(missing)
    if python is None:
        importlib.invalidate_caches()
        missing = lacking(text, spare)
        if missing:
            raise Trouble(f"installed, and still lacking: {', '.join(missing)}; delete .venv and try again")
    return python


def main(words: list[str]) -> int:
    """Do what the words say, after setting up what they need; return the exit status.

    Args:
        words: the command line behind ``python3 -m helpers``.
    """
    from helpers import cli

    # Help and mistakes end here: nobody waits for an installation to read of a typo.
    arguments = cli.parse(words)
    try:
        python = prepared(arguments.command)
    except Trouble as error:
        print(f"Set-up: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Set-up: {_remedy(str(error)) or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Set-up stopped; the same command starts it again.", file=sys.stderr)
        return 130
    return arguments.perform(arguments) if python is None else _go_on(python, words)


if __name__ == "__main__":
    if not __package__:  # started by its path: the rooms here must not pass for top-level modules
        sys.path[0] = str(ROOT)
    sys.exit(too_old(sys.version_info) or main(sys.argv[1:]))
