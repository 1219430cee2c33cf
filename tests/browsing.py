"""A real browser before the panels of the notebooks: JupyterLab in Debian's Chromium, driven by Playwright.

What runs are the notebooks' own lines: the cells tagged "panel", and those tagged "callback" that define
what they call, on a few faces. The tests try each panel, ``python -m benchmarks.panels`` measures how fast
they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from helpers import cli, faces

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 90_000  # milliseconds; a busy machine may need them, an idle one some hundreds
WIDE = {"width": 1250, "height": 950}
PANEL = ".jupyter-widgets.widget-hbox:has(> .widget-vbox img)"

SET_UP = """
import itertools
import time
from dataclasses import replace
from functools import partial
import numpy as np, torch
from torch import nn
from helpers import batches, datasets, emotions, hog, losses, metrics, models, plotting, predictor, training
from helpers import widgets
from helpers.training import loop
plotting.style()
rows, three = slice(None), ("anger", "fear", "happiness")
SEED, LR, BATCH_SIZE, DROPOUT, AUGMENT, EPOCHS, IMAGE_SIZE = 0, 3e-3, 32, 0.1, 0.5, 20, 48
LR_DECAY, LABEL_SMOOTHING, OPTIMIZER, SCHEDULE, WARMUP = 0.7, 0.1, "adamw", "one-cycle", 0.2
PATIENCE, PRECISION, SHORT_FACES, SHORT_EPOCHS = 0, "auto", 400, 5
faces = datasets.load("synthetic", num_faces=600, root="FOLDER")
train, validation, test = faces.splits(seed=SEED)
parts, few = {"train": train, "validation": validation, "test": test}, train
classes, num_classes, in_channels = faces.classes, len(faces.classes), 1
config = training.Config(seed=SEED)
recipe = {"network": "face-cnn", "color": False, "batch_size": 64, "lr": 4e-3, "weight_decay": 0.05}
recipe |= {"schedule": "one-cycle", "warmup": 0.2, "options": {"stem": "unshuffle", "dropout": 0.2}}
torch.manual_seed(0)
model = models.create("face-cnn", num_classes, stem="unshuffle")
small = {"widths": (16, 32, 64, 128), "convs": 1, "contrast": 4}  # as notebook 04 has it
pretrained, imagenet = models.create("face-cnn-fast", 7, **small), None
nets = {"word alone": models.create("face-cnn", {"labels": num_classes}, stem="unshuffle")}
reader = predictor.Predictor(model, classes)
SCORES = {"accuracy": metrics.on_labels(metrics.accuracy)}


def noted(moments, work):
    def noting(*given):
        moments.append(time.perf_counter())
        return work(*given)

    return noting


_begun, _asked = [], []  # when each batch began, and when a stop was asked for
loop.lr_factor = noted(_begun, loop.lr_factor)  # it is asked once a batch
training.Stop.request = noted(_asked, training.Stop.request)
"""
AFTER_STOP = "print(sum(moment > _asked[-1] for moment in _begun))"
"""How many batches were begun after the last stop was asked for."""


def cells(number: str) -> list[str]:
    """Return the sources of a notebook's cells that carry one of the tags "callback" and "panel"."""
    [path] = [path for path in cli.run.notebooks(ROOT) if path.stem.startswith(number)]
    every = nbformat.read(path, 4).cells
    return [cell.source for cell in every if {"callback", "panel"} & set(cell.metadata.get("tags", ()))]


def write(folder: Path, number: str, *more: str) -> None:
    """Write a notebook of nothing but the panels of one of the seven, and what they need, into a folder."""
    sources = [SET_UP.replace("FOLDER", str(folder / "data")), *cells(number), *more]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    written = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=kernel)
    nbformat.write(written, folder / f"{number}.ipynb")


def filmed() -> list[bytes]:
    """Return some frames, as JPEG files, of a drawn face that smiles."""
    frames = []
    for smile in (0.0, 0.5, 1.0, 0.5):
        scene = np.full((240, 320), 125, np.uint8)
        scene[40:200, 80:240] = faces.render({"AU6": smile, "AU12": smile}, size=160)[0].numpy()
        frame = io.BytesIO()
        Image.fromarray(np.repeat(scene[..., None], 3, axis=2)).save(frame, "JPEG", quality=95)
        frames.append(frame.getvalue())
    return frames


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """Yield a headless Chromium with a new, empty profile, and a camera that shows a film."""
    from playwright.sync_api import sync_playwright

    film = folder / "face.mjpeg"
    film.write_bytes(b"".join(filmed()))
    words = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream"]
    words += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield started
        started.close()


LAB = ["jupyterlab", "--no-browser", "--expose-app-in-browser", "--port=PORT", "--allow-root"]
LAB += ["--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"]
VOILA = ["voila", ".", "--no-browser", "--port=PORT"]


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[str]:
    """Run a server in a folder, with settings of its own, and yield its address."""
    port, home = free_port(), folder / "home"
    quiet = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True, exist_ok=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(home)}
    settings |= {"JUPYTER_CONFIG_DIR": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    command = [sys.executable, "-m", *[word.replace("PORT", str(port)) for word in words]]
    told = folder / f"{words[0]}.log"
    with open(told, "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, server, told)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(4)  # a kernel whose server is gone ends by itself
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(address, timeout=2)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no answer from the server:\n{log.read_text()[-3000:]}")


class Page:
    """A notebook that is open in the browser.

    Args:
        page: Playwright's page.
        sources: the notebook's cells.
    """

    def __init__(self, page: Any, sources: list[str]) -> None:
        self.page, self.errors = page, []
        self.panels = re.findall(r"^widgets\.(\w+)\(", "\n".join(sources), re.MULTILINE)
        # a figure that was drawn has no controls, and the camera none beside it
        self.panels = [name for name in self.panels if not name.startswith(("draw_", "camera"))]
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def panel(self, name: str) -> Any:
        """Return the panel that a function of ``widgets`` made, once its figure is there."""
        found = self.page.locator(PANEL).nth(self.panels.index(name))
        found.wait_for()
        found.scroll_into_view_if_needed()
        return found

    def figure(self, panel: Any) -> str:
        """Return which figure is shown: each has an address of its own."""
        image = panel.locator("img").first
        self.page.wait_for_function("image => image.naturalWidth > 50", arg=image.element_handle())
        return image.get_attribute("src")

    def until_new(self, panel: Any, before: str) -> str:
        """Wait for another figure than the one before, and return it."""
        image = panel.locator("img").first.element_handle()
        changed = "([image, before]) => image.src !== before && image.naturalWidth > 50"
        self.page.wait_for_function(changed, arg=[image, before])
        return image.get_attribute("src")

    def move(self, panel: Any, label: str, share: float) -> None:
        """Click on a slider at a share of its length."""
        x, y = self.place(panel, label, share)
        self.page.mouse.click(x, y)

    def place(self, panel: Any, label: str, share: float) -> tuple[float, float]:
        """Return where in the window a share of a slider's length is."""
        row = panel.locator(".widget-inline-hbox", has_text=label).first
        row.scroll_into_view_if_needed()
        track = row.locator(".noUi-base").bounding_box()
        return track["x"] + share * track["width"], track["y"] + track["height"] / 2

    def ask(self, code: str) -> str:
        """Return what the kernel of a notebook in JupyterLab prints when it runs some code."""
        return self.page.evaluate(
            """async (code) => {
              const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              const future = kernel.requestExecute({code});
              let said = '';
              future.onIOPub = (message) => {
                said += message.content.text || message.content.evalue || '';
              };
              await future.done;
              return said.trim();
            }""",
            code,
        )

    def shoot(self, name: str, panel: Any = None) -> None:
        """Keep a picture of a panel, or of the window, for whoever set BROWSER_SHOTS to a folder."""
        if folder := os.environ.get("BROWSER_SHOTS"):
            (panel or self.page).screenshot(path=Path(folder) / f"{name}.png")


@contextlib.contextmanager
def in_voila(browser: Any, address: str, number: str) -> Iterator[Page]:
    """Open a notebook in Voilà, which runs it and shows no code."""
    page = browser.new_page(viewport=WIDE)
    opened = Page(page, cells(number))
    page.goto(f"{address}/voila/render/{number}.ipynb")
    yield opened
    page.close()


@contextlib.contextmanager
def in_lab(browser: Any, address: str, number: str, *more: str) -> Iterator[Page]:
    """Open a notebook in JupyterLab, run all its cells, and end its kernel afterwards."""
    page = browser.new_page(viewport=WIDE)
    opened = Page(page, [*cells(number), *more])
    page.goto(f"{address}/lab/tree/{number}.ipynb?reset")
    page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.sessionContext")
    page.evaluate(
        """async () => {
          await jupyterapp.shell.currentWidget.sessionContext.ready;
          await jupyterapp.commands.execute('notebook:run-all-cells');
        }"""
    )
    yield opened
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()
